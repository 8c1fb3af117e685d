"""Several workers in one process: packets given to any of them, answers put together, what they refuse."""

from __future__ import annotations

import contextlib
import mmap
import random
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Raw

from userfw.conntrack.conn import Tuple
from userfw.conntrack.expect import Expectation
from userfw.core.clock import Clock
from userfw.core.packet import Device, Packet
from userfw.daemon import connections, merge, metrics  # noqa: F401 (register their commands)
from userfw.daemon.assembly import Assembly
from userfw.daemon.commands import REGISTRY
from userfw.daemon.config import ConfigError, parse
from userfw.daemon.counters import add, take
from userfw.daemon.worker import Membership, Part
from userfw.engine.shared import size_of
from userfw.ports.memory import MemoryPort
from userfw.router.interfaces import parse_address
from userfw.ruleset.options import Options

RULES = """table ip t {
	counter all { }
	chain pre { type nat hook prerouting priority dstnat; iifname "wan" udp dport 80 dnat to 192.168.1.10:8080; }
	chain post { type nat hook postrouting priority srcnat; oifname "wan" masquerade; }
	chain f { type filter hook forward priority filter; counter name all; udp dport 53 counter; }
}
"""
MACS = {"lan": "02:00:00:00:01:01", "wan": "02:00:00:00:02:01"}
HOSTS = {"lan": "02:00:00:00:01:10", "wan": "02:00:00:00:02:10"}
SERVER, GATEWAY, CLIENT = "203.0.113.10", "203.0.113.1", "192.168.1.10"


class Worker:
    """One of the workers, with memory ports."""

    def __init__(self, part: Part, clock: Clock) -> None:
        self.faults: list[str] = []
        self.assembly = Assembly(clock, random.Random(part.index), lambda error, where: self.faults.append(f"{where}: {error!r}"))
        self.member = Membership(part, self.assembly)
        self.ports: dict[str, MemoryPort] = {}
        for index, (name, address) in enumerate((("lan", "192.168.1.1/24"), ("wan", f"{GATEWAY}/24")), 2):
            device = Device(name, index, bytes.fromhex(MACS[name].replace(":", "")))
            self.ports[name] = MemoryPort(device)
            self.assembly.add_port(device, "memory", self.ports[name])
            self.assembly.gateway.add_address(device, parse_address(address))

    def receive(self, port: str, frame: bytes) -> None:
        """One frame in a batch of its own."""
        pkt: Packet = self.ports[port].inject(frame)
        self.member.entrance.receive_batch([pkt], 1)
        self.member.entrance.end_batch()


class Team:
    """Some workers; frames may be given to any."""

    def __init__(self, count: int, rules: str = RULES) -> None:
        self.clock = Clock(10**12, 0.0)
        self.pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK) for _ in range(count)]
        self.workers = []
        self.shared = mmap.mmap(-1, size_of())
        for i in range(count):
            outboxes = [-1 if j == i else self.pairs[j][1].fileno() for j in range(count)]
            part = Part(i, count, self.pairs[i][0], self.pairs[i][0].fileno(), outboxes, 0, self.shared)
            self.workers.append(Worker(part, self.clock))
        for worker in self.workers:
            result = worker.assembly.rules.execute(rules, Options())
            assert result.status == 0, result.errors
        for side, address in (("lan", CLIENT), ("wan", SERVER)):
            self.resolve(side, address)

    def resolve(self, side: str, address: str) -> None:
        """Let everybody ask for a neighbour, and one hear the answer."""
        for worker in self.workers:
            device = worker.assembly.gateway.names[side]
            packed = int.from_bytes(socket.inet_aton(address), "big")
            worker.assembly.gateway.neighbours.obtain(device, 2, 0, packed)
        answer = ARP(op=2, hwsrc=HOSTS[side], psrc=address, hwdst=MACS[side], pdst="0.0.0.1")
        self.workers[0].receive(side, bytes(Ether(src=HOSTS[side], dst=MACS[side]) / answer))
        self.drain()
        self.take()

    def drain(self) -> None:
        """Until no message is under way."""
        while sum(worker.member.handover.drain(64) for worker in self.workers):
            pass

    def take(self) -> list[tuple[int, str, Ether]]:
        """(worker, port, frame) of everything that was sent."""
        ports = [(i, name, port) for i, worker in enumerate(self.workers) for name, port in worker.ports.items()]
        return [(i, name, Ether(frame)) for i, name, port in ports for frame in port.take()]

    def send(self, worker: int, side: str, packet: Any) -> list[tuple[int, str, Ether]]:
        """Give a packet to a worker; what leaves any of them."""
        self.workers[worker].receive(side, bytes(Ether(src=HOSTS[side], dst=MACS[side]) / packet))
        self.drain()
        return self.take()

    def close(self) -> None:
        for worker in self.workers:
            assert worker.faults == []
        for pair in self.pairs:
            for end in pair:
                end.close()


@pytest.fixture(params=[2, 3])
def team(request: pytest.FixtureRequest) -> Iterator[Team]:
    with contextlib.closing(Team(request.param)) as made:
        yield made


def handed(team: Team) -> int:
    return sum(worker.member.handover.given for worker in team.workers)


@pytest.mark.parametrize("transport", [TCP, UDP])
def test_whichever_worker_gets_a_packet_its_owner_forwards_it(team: Team, transport: Any) -> None:
    count = len(team.workers)
    for port in range(5000, 5000 + 4 * count):
        owner = team.workers[0].member.steering.home(17, port, 53)
        there, back = {"sport": port, "dport": 53}, {"sport": 53, "dport": port}
        if transport is TCP:
            steps = [{"flags": "S", "seq": 1}, {"flags": "SA", "seq": 8, "ack": 2}, {"flags": "A", "seq": 2, "ack": 9}]
        else:
            steps = [{}, {}, {}]
        for number, more in enumerate(steps):
            entrance = (port + number) % count
            if number == 1:
                [(worker, side, out)] = team.send(entrance, "wan", IP(src=SERVER, dst=GATEWAY) / transport(**back, **more))
                assert (worker, side, out[IP].dst, out[transport].dport) == (owner, "lan", CLIENT, port)
                continue
            [(worker, side, out)] = team.send(entrance, "lan", IP(src=CLIENT, dst=SERVER) / transport(**there, **more))
            assert (worker, side, out[IP].src, out[transport].sport) == (owner, "wan", GATEWAY, port)
    assert sum(worker.assembly.conntrack.count for worker in team.workers) == 4 * count
    assert handed(team) == sum(w.member.handover.taken for w in team.workers) > 4 * count


def test_no_mapping_is_given_twice_and_all_are_at_home(team: Team) -> None:
    for client in range(10, 16):
        team.resolve("lan", f"192.168.1.{client}")
        for port in range(6000, 6020):
            flow = IP(src=f"192.168.1.{client}", dst=SERVER) / UDP(sport=port, dport=53)
            [(_, _, out)] = team.send(port % len(team.workers), "lan", flow)
            answer = IP(src=SERVER, dst=GATEWAY) / UDP(sport=53, dport=out.sport)
            [(_, side, back)] = team.send(client % len(team.workers), "wan", answer)
            assert (side, back[IP].dst, back[UDP].dport) == ("lan", f"192.168.1.{client}", port)
    seen = set()
    for worker in team.workers:
        for conn in worker.assembly.conntrack.members(0, 0):
            assert worker.member.steering.ours(conn.orig) and worker.member.steering.ours(conn.reply)
            seen.add((conn.reply.dport, conn.reply.sport))
        assert worker.member.strays.claimed == {}
    assert len(seen) == 6 * 20


def test_a_forwarded_port_changes_the_source_port_only_where_it_must(team: Team) -> None:
    kept = 0
    steering = team.workers[0].member.steering
    for port in range(7000, 7030):
        [(worker, side, out)] = team.send(0, "wan", IP(src=SERVER, dst=GATEWAY) / UDP(sport=port, dport=80))
        assert (side, out[IP].dst, out[UDP].dport) == ("lan", CLIENT, 8080)
        assert worker == steering.home(17, port, 80) == steering.home(17, out.sport, 8080)
        assert (out.sport == port) == (steering.home(17, port, 8080) == worker)
        kept += out.sport == port
        [(back, side, answer)] = team.send(1, "lan", IP(src=CLIENT, dst=SERVER) / UDP(sport=8080, dport=out.sport))
        assert (back, side, answer[IP].src, answer[UDP].sport, answer[UDP].dport) == (worker, "wan", GATEWAY, 80, port)
    assert (kept == 30) == (steering.home(17, 80, 0) == steering.home(17, 8080, 0))


def test_fragments_meet_and_go_on_at_their_owner(team: Team) -> None:
    port = next(p for p in range(8000, 8100) if team.workers[0].member.steering.home(17, p, 53) == 1)
    whole = IP(src=CLIENT, dst=SERVER, id=77) / UDP(sport=port, dport=53) / Raw(bytes(range(256)) * 12)
    sent = []
    came = fragment(whole, 1000)  # type: ignore[no-untyped-call]
    for number, part in enumerate(came):
        sent += team.send(number % len(team.workers), "lan", part)
    assert [out[IP].len for _, _, out in sent] == [len(part) for part in came], "cut as they came"
    assert {worker for worker, _, _ in sent} == {1} and len(sent) >= 2
    data = bytearray(4000)
    for _, _, out in sent:
        at = out[IP].frag * 8
        payload = bytes(out[IP].payload)[: out[IP].len - 20]
        data[at : at + len(payload)] = payload
    assert bytes(data[8 : 8 + 3072]) == bytes(range(256)) * 12
    assert team.workers[0].member.handover.given >= 1


def test_errors_go_to_the_owner_of_what_they_quote(team: Team) -> None:
    for port in range(9000, 9006):
        [(owner, _, out)] = team.send(0, "lan", IP(src=CLIENT, dst=SERVER) / UDP(sport=port, dport=53) / b"question")
        error = IP(src=SERVER, dst=GATEWAY) / ICMP(type=3, code=3) / Raw(bytes(out[IP]))
        [(worker, side, heard)] = team.send(0, "wan", error)
        assert (worker, side, heard[IP].dst) == (owner, "lan", CLIENT)
        assert heard[ICMP].payload[0].src == CLIENT


def expectation(team: Team, worker: int, dport: int) -> Expectation:
    """What a helper of that worker announces: anything from the server to the gateway's `dport`."""
    conn = next(c for c in team.workers[worker].assembly.conntrack.members(0, 0))
    t = Tuple()
    t.l3num, t.l4proto = 2, 17
    t.src_lo, t.dst_lo = (int.from_bytes(socket.inet_aton(a), "big") for a in (SERVER, GATEWAY))
    t.dport = dport
    e = Expectation(conn, t)
    e.mask_lo = 0xFFFFFFFF
    e.deadline = team.clock.now + 10**10

    def follow(new: Any, e: Expectation) -> None:
        tools = team.workers[worker].assembly.platform.helpers
        assert tools is not None

    e.expectfn = follow
    return e


def test_what_a_helper_announced_is_brought_to_its_worker_and_stays_there(team: Team) -> None:
    count = len(team.workers)
    steering = team.workers[0].member.steering
    port = next(p for p in range(5000, 5100) if steering.home(6, p, 21) == 1)
    team.send(0, "lan", IP(src=CLIENT, dst=SERVER) / TCP(sport=port, dport=21, flags="S"))
    table = team.workers[1].assembly.conntrack
    dport = next(p for p in range(30000, 30100) if steering.home(17, 20, p) == 0)
    e = expectation(team, 1, dport)
    assert table.expects.add(e, team.clock.now) == 0
    team.drain()
    for worker in team.workers:
        assert len(worker.member.handover.foreign) == (worker is not team.workers[1])
    other = expectation(team, 1, dport)
    assert team.workers[0].member.strays.clashes(other), "no second one at the same place"
    # the announced connection comes: its home is worker 0
    rule = "add chain ip t in { type filter hook input priority 0; }\nadd rule ip t in ct state related counter accept"
    for worker in team.workers:
        assert worker.assembly.rules.execute(rule, Options()).status == 0
    team.send(count - 1, "wan", IP(src=SERVER, dst=GATEWAY) / UDP(sport=20, dport=dport))
    assert [w.assembly.conntrack.count for w in team.workers][:2] == [0, 2]
    assert all(not w.member.handover.foreign for w in team.workers), "it was fulfilled"
    assert team.workers[0].member.handover.claims
    team.send(0, "wan", IP(src=SERVER, dst=GATEWAY) / UDP(sport=20, dport=dport))
    assert team.workers[0].assembly.conntrack.count == 0, "later packets go there too"
    conn = next(c for c in table.members(0, 0) if c.master is not None)
    assert conn.packets[0] == 2
    table.destroy(conn)
    team.workers[1].member.strays.sweep()
    team.drain()
    assert all(not w.member.handover.claims for w in team.workers)


def test_news_survive_a_full_socket_packets_are_counted(team: Team) -> None:
    sender, receiver = team.workers[0].member, team.workers[1].member
    team.pairs[1][1].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    pkt = team.workers[0].ports["lan"].inject(bytes(Ether(dst=MACS["lan"]) / IP(src=CLIENT, dst=SERVER) / UDP() / Raw(b"x" * 1000)))
    while sender.handover.give(pkt, 0, 1, 3):
        pass
    assert sender.handover.lost == 1
    sender.handover.tell(1, b"one")
    sender.handover.tell(1, b"two")
    heard: list[bytes] = []
    receiver.handover.told = heard.append
    for _ in range(100):
        receiver.handover.drain(64)
        sender.handover.push()
    assert heard == [b"one", b"two"]


def test_neighbour_answers_are_for_everybody_questions_are_not(team: Team) -> None:
    ask = ARP(op=1, hwsrc=HOSTS["lan"], psrc=CLIENT, pdst="192.168.1.1")
    answers = team.send(0, "lan", ask)
    assert len(answers) == 1 and answers[0][0] == 0, "one voice"
    before = team.workers[0].member.handover.copies
    team.send(0, "lan", ARP(op=1, hwsrc="02:00:00:00:01:99", psrc=CLIENT, pdst=CLIENT))
    assert team.workers[0].member.handover.copies == before + len(team.workers) - 1
    team.clock.now += 10**10
    team.send(0, "lan", ARP(op=1, hwsrc="02:00:00:00:01:99", psrc=CLIENT, pdst=CLIENT))
    for worker in team.workers:
        macs = {n["address"]: n["mac"] for n in worker.assembly.neighbours()}
        assert macs[CLIENT] == "02:00:00:00:01:99", "gratuitous ARP"


def test_counters_come_together_in_the_first_worker(team: Team) -> None:
    for port in range(5000, 5030):
        team.send(0, "lan", IP(src=CLIENT, dst=SERVER) / UDP(sport=port, dport=53))
    first = team.workers[0].assembly.rules.rules
    for worker in team.workers[1:]:
        told = take(worker.assembly.rules.rules)
        assert add(first, told["generation"], told["counters"], told["elements"])
        assert not add(first, told["generation"] + 1, told["counters"], told["elements"])
        assert take(worker.assembly.rules.rules)["counters"] == [(0, 0)] * len(told["counters"])
    listing = team.workers[0].assembly.ruleset_text()
    assert listing.count("packets 30 bytes 840") == 2


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("add rule ip t f queue to 3", "queue needs workers = 1"),
        ("add rule ip t pre2 tcp dport 80 tproxy to :8080", "tproxy needs workers = 1"),
        ('add ct helper ip t p { type "pptp" protocol tcp; }', "helper pptp needs workers = 1"),
    ],
)
def test_what_cannot_be_right_is_refused_with_its_place(text: str, reason: str) -> None:
    with contextlib.closing(Team(2)) as team:
        rules = team.workers[0].assembly.rules
        rules.execute("add chain ip t pre2 { type filter hook prerouting priority -150; }", Options())
        before = rules.rules.generation
        result = rules.execute(text, Options())
        assert result.status == 1 and reason in result.errors and "^" in result.errors
        assert rules.rules.generation == before


# -- configuration and answers


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ('[[port]]\nname = "a"\ntype = "xdp"\ndevice = "eth0"', "type 'xdp' needs daemon.workers = 1"),
        ('[[bridge]]\nname = "br0"\nports = ["a"]\n[[port]]\nname = "a"\ntype = "tap"\ndevice = "x"',
         "bridge: needs daemon.workers = 1"),
        ('[[port]]\nname = "a"\ntype = "memory"', "type 'memory' needs daemon.workers = 1"),
        ('[[port]]\nname = "a"\ntype = "packet"\ndevice = "eth0"\ncapture = "tc"', "capture 'tc' needs daemon.workers = 1"),
        ('[[port]]\nname = "a"\ntype = "tap"\ndevice = "eth0"\nqueues = 3', "'queues' is as many as daemon.workers"),
    ],
)
def test_what_cannot_be_shared_is_refused(more: str, reason: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse(f"[daemon]\nworkers = 2\n{more}")
    assert reason in str(error.value)
    parse(f"[daemon]\nworkers = 1\n{more}")


def test_every_command_has_its_way_through_the_front() -> None:
    known = {*merge.MERGED, *merge.STREAMS, *merge.FIRST, *merge.OTHERWISE, *merge.REFUSED}
    assert {name for name in REGISTRY if not name.startswith("worker.")} <= known


def test_answers_put_together() -> None:
    assert merge.total([{"a": 1, "generation": 4, "n": {"x": 1}}, {"a": 2, "generation": 4, "n": {"y": 2}}]) == {
        "a": 3, "generation": 4, "n": {"x": 1, "y": 2},
    }  # fmt: skip
    rows = [[{"reason": "RULE", "packets": n, "description": ""}] for n in (1, 2)]
    drops = [{"drops": row, "ports": {"lan": row}} for row in rows]
    merged = merge.MERGED["drops"](drops, {})
    assert merged["drops"] == [{"reason": "RULE", "packets": 3, "description": ""}] and merged["ports"]["lan"][0]["packets"] == 3
    lists = [{"entries": [{"id": n}] * 3, "total": 3} for n in (1, 2)]
    assert merge.MERGED["conntrack.list"](lists, {"limit": 4}) == {"entries": [{"id": 1}] * 3 + [{"id": 2}], "total": 6}
    up = "# HELP userfw_port_up up\n# TYPE userfw_port_up gauge\nuserfw_port_up 1\n"
    texts = [{"text": f'# HELP a b\n# TYPE a counter\na{{x="y"}} {n}\n{up}'} for n in (3, 4)]
    assert merge.MERGED["metrics"](texts, {})["text"] == '# HELP a b\n# TYPE a counter\na{x="y"} 7\n' + up
    rows = [[{"device": "lan", "address": "a", "state": "STALE"}], [{"device": "lan", "address": "a", "state": "REACHABLE"}]]
    assert merge.MERGED["neighbours"](rows, {}) == rows[1]
