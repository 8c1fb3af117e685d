"""What workers count together: limits, quotas, `ct count`, by rule, by object and by element."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
from scapy.layers.inet import IP, TCP, UDP
from test_workers import CLIENT, SERVER, Team

from userfw.ruleset.manager import Result
from userfw.ruleset.options import Options

SECOND = 10**9
DYNAMIC = "\tset m { type ipv4_addr; flags dynamic; size 9; }\n"


def rules(*statements: str, more: str = "") -> str:
    """A chain that drops what the statements let pass no longer."""
    body = "".join(f"\t\t{statement}\n" for statement in statements)
    head = "type filter hook forward priority filter; policy drop;"
    return f"table ip t {{\n{more}\tchain f {{\n\t\t{head}\n{body}\t}}\n}}\n"


@contextlib.contextmanager
def team(text: str, count: int = 2) -> Iterator[Team]:
    with contextlib.closing(Team(count, text)) as made:
        yield made


def execute(team: Team, text: str) -> Result:
    """A command in every worker, as the front has it."""
    first, *_ = [worker.assembly.rules.execute(text, Options()) for worker in team.workers]
    return first


def passed(team: Team, flows: range, size: int = 72) -> int:
    """How many of so many flows' first datagrams go through; each worker gets its own."""
    home = team.workers[0].member.steering.home
    packets = [IP(src=CLIENT, dst=SERVER) / UDP(sport=port, dport=53) / bytes(size) for port in flows]
    workers = {home(17, port, 53) for port in flows}
    assert workers == set(range(len(team.workers)))
    return sum(len(team.send(home(17, port, 53), "lan", packet)) for port, packet in zip(flows, packets, strict=True))


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize(
    ("statement", "more"),
    [
        ("limit rate 1/minute burst 20 packets accept", ""),
        ("limit name l accept", "\tlimit l { rate 1/minute burst 20 packets; }\n"),
        ("quota 2010 bytes accept", ""),
        ("quota name q accept", "\tquota q { until 2010 bytes; }\n"),
        ("ip daddr { 203.0.113.10 limit rate 1/minute burst 20 packets } accept", ""),
        ("ip daddr @s accept", "\tset s { type ipv4_addr; limit rate 1/minute burst 20 packets; elements = { 203.0.113.10 } }\n"),
        ("update @m { ip saddr limit rate 1/minute burst 20 packets } accept", DYNAMIC),
        ("add @m { ip saddr quota 2010 bytes } accept", DYNAMIC),
    ],
)
def test_workers_let_no_more_pass_than_one_process(count: int, statement: str, more: str) -> None:
    with team(rules(statement, more=more), count) as made:
        assert passed(made, range(5000, 5080)) == 20
        assert {worker.member.pool.used() for worker in made.workers} == {1}


def test_a_limit_fills_again_for_all() -> None:
    with team(rules("limit rate 2/second burst 1 packets accept")) as made:
        assert passed(made, range(5000, 5020)) == 1
        made.clock.now += 5 * SECOND
        assert passed(made, range(5020, 5040)) == 1
        text = [worker.assembly.rules.execute("list ruleset", Options()).output for worker in made.workers]
        assert len(set(text)) == 1


def test_a_quota_is_listed_reset_and_enlarged_for_all() -> None:
    with team(rules("quota name q accept", more="\tquota q { until 1000 bytes; }\n")) as made:
        assert passed(made, range(5000, 5040)) == 10
        assert "1000 bytes used 1000 bytes" in execute(made, "list quota ip t q").output
        assert execute(made, "add quota ip t q { until 5500 bytes; }").status == 0
        assert passed(made, range(5040, 5080)) == 15, "4,000 bytes were counted already"
        assert execute(made, "reset quota ip t q").status == 0
        assert passed(made, range(5080, 5200)) == 55


def test_connections_are_counted_together_and_leave_the_count_everywhere() -> None:
    with team(rules("ct state new ct count over 6 drop", "accept")) as made:
        home = made.workers[0].member.steering.home

        def opened(ports: range) -> int:
            syns = [IP(src=CLIENT, dst=SERVER) / TCP(sport=port, dport=80, flags="S", seq=1) for port in ports]
            return sum(len(made.send(home(6, port, 80), "lan", syn)) for port, syn in zip(ports, syns, strict=True))

        ports = range(5000, 5040)
        assert {home(6, port, 80) for port in ports} == {0, 1}
        assert opened(ports) == 6
        first = made.workers[0].assembly.conntrack
        left = made.workers[1].assembly.conntrack.count
        assert 0 < first.count < 6 and first.count + left == 6
        for conn in first.members(0, 0):
            first.destroy(conn)
        made.workers[0].member.sweep()
        only = [port for port in range(6000, 6100) if home(6, port, 80) == 1]
        assert sum(opened(range(port, port + 1)) for port in only) == 6 - left


def test_what_is_replaced_starts_anew_and_what_is_gone_is_given_back() -> None:
    with team(rules("limit rate 1/minute burst 3 packets accept")) as made:
        pool = made.workers[0].member.pool
        assert passed(made, range(5000, 5010)) == 3
        handle = next(iter(made.workers[0].assembly.rules.rules.tables["ip", "t"].chains["f"].rules)).handle
        assert execute(made, f"replace rule ip t f handle {handle} limit rate 1/minute burst 4 packets accept").status == 0
        assert passed(made, range(5010, 5020)) == 4
        assert pool.used() == 1
        assert execute(made, "flush ruleset").status == 0
        assert pool.used() == 0


def test_elements_of_one_worker_are_warned_of() -> None:
    with team(rules("accept")) as made:
        text = "add set ip t m { type ipv4_addr; flags dynamic; size 9; }\nadd rule ip t f add @m { ip saddr } accept"
        result = execute(made, text)
        assert result.status == 0
        assert "Warning: with several workers an element that packets add is known to the worker" in result.errors


def test_more_limits_than_there_is_room_for_are_refused() -> None:
    with team(rules("accept")) as made:
        pool = made.workers[0].member.pool
        held = [pool.attach(1, number, 0) for number in range(pool.slots - 1)]
        result = execute(made, "add rule ip t f limit rate 1/second accept\nadd rule ip t f limit rate 2/second accept")
        assert result.status == 1 and "cannot share 2 limits" in result.errors
        del held
