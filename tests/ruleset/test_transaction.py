"""What commands do and refuse, in the words of nft 1.0.6 on Linux 6.18, where the cases were observed."""

from __future__ import annotations

import pytest

from tests.ruleset.bench import Bench
from tests.ruleset.states import snapshot
from userfw.nft.location import NftErrors

BUSY = "Could not process rule: Device or resource busy"
EXISTS = "Could not process rule: File exists"
MISSING = "Could not process rule: No such file or directory"
UNSUPPORTED = "Could not process rule: Operation not supported"
DEEP = "Could not process rule: Too many links"
DENIED = "Could not process rule: Operation not permitted"

BASE = """
table ip t {
  set s { type ipv4_addr
    elements = { 1.1.1.1 }
  }
  counter cc { }
  chain a { type filter hook input priority 0
    tcp dport { 1, 2 } jump b
    counter name cc
  }
  chain b { accept
  }
  map m { type ipv4_addr : verdict
    elements = { 1.1.1.1 : jump b }
  }
}
"""


def handles(bench: Bench, chain: str) -> list[int]:
    return [rule.handle for rule in bench.rules.tables["ip", "t"].chains[chain].rules]


def test_handles_of_a_block_are_those_of_linux() -> None:
    table = Bench(BASE).rules.tables["ip", "t"]
    assert {name: chain.handle for name, chain in table.chains.items()} == {"a": 1, "b": 2}
    assert [entry.handle for entry in table.objects.values()] == [3]
    assert {name: entry.handle for name, entry in table.sets.items()} == {"s": 4, "m": 5}
    # 6 is the anonymous set's
    assert [rule.handle for rule in table.chains["a"].rules] == [7, 8]
    assert [rule.handle for rule in table.chains["b"].rules] == [9]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("delete chain ip t b", BUSY),
        ("delete counter ip t cc", BUSY),
        ("create table ip t", EXISTS),
        ("create chain ip t a", EXISTS),
        ("create set ip t s { type ipv4_addr; }", EXISTS),
        ("create element ip t s { 1.1.1.1 }", EXISTS),
        ("create counter ip t cc", EXISTS),
        ("add set ip t s { type ipv6_addr; }", EXISTS),
        ("add chain ip t a { type filter hook output priority 0; }", EXISTS),
        ("add chain ip t b { type filter hook output priority 0; }", EXISTS),
        ("add chain ip t n { type nat hook forward priority 0; }", UNSUPPORTED),
        ("add chain ip t n { type nat hook prerouting priority -300; }", UNSUPPORTED),
        ("add chain ip t n { type route hook input priority 0; }", UNSUPPORTED),
        ("add chain ip t b { policy drop; }", UNSUPPORTED),
        ("add rule ip t b jump a", UNSUPPORTED),
        ("add rule ip t b jump b", DEEP),
        ("add rule ip t a goto a", UNSUPPORTED),
        ("rename chain ip t a b", EXISTS),
        ("delete rule ip t a handle 99", MISSING),
        ("add rule ip t a index 7 accept", MISSING),
        ("insert rule ip t a handle 9 accept", MISSING),
        ("replace rule ip t a handle 9 accept", MISSING),
        ("delete element ip t s { 2.2.2.2 }", MISSING),
        ("add element ip t m { 1.1.1.1 : accept }", EXISTS),
        ("delete table ip handle 7", MISSING),
        ("flush set ip t m", "No such file or directory"),
        ("flush map ip t s", "No such file or directory"),
        ("add table ip t { flags dormant; }\nadd table ip t", "Could not process rule: Invalid argument"),
        ("flush chain ip t a\nflush map ip t m\nadd rule ip t b goto b\ndelete chain ip t b", BUSY),
        ("rename chain ip t b n\nadd rule ip t n accept", MISSING),
        ("delete chain ip t forward", MISSING),
        ("delete chain ip t bb", "No such file or directory; did you mean chain ‘a’ in table ip ‘t’?"),
        ("delete set ip t ss", "No such file or directory; did you mean set ‘s’ in table ip ‘t’?"),
        ("delete map ip t mm", "No such file or directory; did you mean set ‘s’ in table ip ‘t’?"),
        ("delete counter ip t cd", "No such file or directory; did you mean obj ‘cc’ in table ip ‘t’?"),
        ("add chain ip tt c", "No such file or directory; did you mean table ‘t’ in family ip?"),
        ("add chain inet t c", "No such file or directory; did you mean table ‘t’ in family ip?"),
        ("add flowtable ip t f { hook ingress priority 0; devices = { a, a }; }", EXISTS),
    ],
)
def test_refusals(text: str, message: str) -> None:
    bench = Bench(BASE)
    before = snapshot(bench.rules)
    assert bench.errors(text) == [message]
    assert snapshot(bench.rules) == before


@pytest.mark.parametrize(
    "text",
    [
        "add table ip t",
        "add chain ip t a",
        "add chain ip t a { type filter hook input priority 0; policy drop; }",
        "add set ip t s { type ipv4_addr; }",
        "add element ip t s { 1.1.1.1 }",
        "add counter ip t cc",
        "destroy table ip nope",
        "destroy chain ip t nope",
        "destroy rule ip t a handle 99",
        "destroy set ip t nope",
        "destroy element ip t s { 9.9.9.9 }",
        "destroy counter ip t nope",
        "destroy flowtable ip t nope",
        "flush chain ip t a\nflush map ip t m\ndelete chain ip t b",
        "delete chain ip t a\nflush map ip t m\ndelete chain ip t b",
        "delete table ip t",
        "flush ruleset",
    ],
)
def test_accepted(text: str) -> None:
    Bench(BASE).run(text)


def test_every_problem_of_a_batch_is_reported_with_its_place() -> None:
    bench = Bench(BASE)
    with pytest.raises(NftErrors) as problems:
        bench.plan("add chain ip t new\ndelete chain ip t b\ncreate table ip t\nadd rule ip t nowhere accept")
    assert [problem.loc.line for problem in problems.value.errors] == [2, 3, 4]
    assert problems.value.errors[0].render().splitlines()[-1] == " " * 18 + "^"


def test_a_failing_batch_changes_nothing() -> None:
    bench = Bench(BASE)
    before = snapshot(bench.rules)
    text = "add chain ip t n\nadd rule ip t n accept\nadd element ip t s { 5.5.5.5 }\nflush set ip t m\n"
    text += "delete table ip t\n" * 2
    assert bench.errors(text)
    assert snapshot(bench.rules) == before


def test_places_of_rules() -> None:
    bench = Bench("add table ip t\nadd chain ip t c\nadd rule ip t c accept\nadd rule ip t c drop")
    assert handles(bench, "c") == [2, 3]
    bench.run("insert rule ip t c continue")
    assert handles(bench, "c") == [4, 2, 3]
    bench.run("add rule ip t c handle 2 return")
    assert handles(bench, "c") == [4, 2, 5, 3]
    bench.run("insert rule ip t c index 1 return")
    assert handles(bench, "c") == [4, 6, 2, 5, 3]
    bench.run("replace rule ip t c handle 2 return")
    assert handles(bench, "c") == [4, 6, 2, 5, 3]
    bench.run("delete rule ip t c handle 5")
    assert handles(bench, "c") == [4, 6, 2, 3]


def test_handles_are_not_reused() -> None:
    bench = Bench("add table ip t\nadd chain ip t c\nadd rule ip t c accept")
    bench.run("delete rule ip t c handle 2\ndelete chain ip t c")
    bench.run("add chain ip t c\nadd rule ip t c accept")
    assert bench.rules.tables["ip", "t"].chains["c"].handle == 3
    assert handles(bench, "c") == [4]


def test_depth_of_jumps() -> None:
    chains = "".join(f"add chain ip t c{i}\n" for i in range(20))
    jumps = "".join(f"add rule ip t c{i} jump c{i + 1}\n" for i in range(19))
    base = "add chain ip t base { type filter hook input priority 0; }\n"
    bench = Bench("add table ip t\n" + base + chains + jumps)
    assert bench.errors("add rule ip t base jump c0") == [DEEP]
    bench.run("add rule ip t base jump c6")
    assert bench.errors("add rule ip t base jump c4") == [DEEP]


def test_a_loop_that_nobody_enters_is_accepted() -> None:
    bench = Bench("add table ip t\nadd chain ip t a\nadd chain ip t b\nadd rule ip t a jump b\nadd rule ip t b goto a")
    assert bench.errors("add chain ip t base { type filter hook input priority 0; }\nadd rule ip t base jump a") == [DEEP]


def test_verdict_maps_count_as_jumps() -> None:
    bench = Bench("add table ip t\nadd chain ip t a\nadd map ip t m { type mark : verdict; }\nadd element ip t m { 1 : jump a }")
    assert bench.errors("delete chain ip t a") == [BUSY]
    bench.run("add chain ip t base { type filter hook input priority 0; }\nadd rule ip t base meta mark vmap @m")
    assert bench.errors("add rule ip t a meta mark vmap @m") == [DEEP]


def test_dormant_and_back_registers_again() -> None:
    bench = Bench("".join(f"table ip {name} {{ chain c {{ type filter hook input priority 0; }}; }}\n" for name in "ab"))
    first, second = (bench.rules.tables["ip", name].chains["c"] for name in "ab")
    assert first.registered < second.registered
    bench.run("add table ip a { flags dormant; }")
    assert bench.rules.tables["ip", "a"].dormant
    bench.run("add table ip a")
    assert bench.rules.tables["ip", "a"].chains["c"].registered > second.registered


def test_owned_tables_belong_to_their_client() -> None:
    bench = Bench()
    bench.run("table ip mine { flags owner; }", client="me")
    assert bench.errors("add chain ip mine c", client="you") == [DENIED]
    assert bench.errors("delete table ip mine", client="you") == [DENIED]
    bench.run("flush ruleset", client="you")
    assert bench.rules.table("ip", "mine") is not None
    bench.run("add chain ip mine c\ndelete table ip mine", client="me")


def test_rename_follows_every_jump() -> None:
    bench = Bench(BASE)
    bench.run("rename chain ip t b other")
    table = bench.rules.tables["ip", "t"]
    assert "VerdictExpr(kind='jump', chain='other'" in repr(table.chains["a"].rules[0].node)
    assert "chain='other'" in repr(next(iter(table.sets["m"].elements)).node)
    assert bench.errors("delete chain ip t other") == [BUSY]
    bench.run("flush chain ip t a\nflush map ip t m\ndelete chain ip t other")


def test_bound_chains_live_and_die_with_their_rule() -> None:
    bench = Bench("add table ip t\nadd chain ip t c\nadd counter ip t k\nadd rule ip t c jump { counter name k; accept; }")
    table = bench.rules.tables["ip", "t"]
    assert [name for name, chain in table.chains.items() if chain.binding] == ["__chain0"]
    assert bench.errors("delete counter ip t k") == [BUSY]
    bench.run("flush chain ip t c\ndelete counter ip t k")
    assert list(bench.rules.tables["ip", "t"].chains) == ["c"]


def test_what_needs_conntrack_is_counted() -> None:
    bench = Bench("add table ip t\nadd chain ip t n { type nat hook postrouting priority 100; }")
    uses = bench.rules.tables["ip", "t"].uses
    assert not any(ref.kind == "need" for ref in uses)
    bench.run("add rule ip t n masquerade")
    assert [ref.name for ref in bench.rules.tables["ip", "t"].uses] == ["conntrack"]
    bench.run("flush chain ip t n")
    assert not bench.rules.tables["ip", "t"].uses


def test_devices_come_and_go() -> None:
    bench = Bench("add table netdev t\nadd chain netdev t c { type filter hook ingress devices = { a, b } priority 0; }")
    bench.run("add chain netdev t c { type filter hook ingress devices = { c } priority 0; }")
    bench.run("delete chain netdev t c { type filter hook ingress devices = { a } priority 0; }")
    assert bench.rules.tables["netdev", "t"].chains["c"].node.devices == ["b", "c"]
    assert bench.errors("delete chain netdev t c { type filter hook ingress devices = { a } priority 0; }") == [MISSING]


def test_intervals() -> None:
    bench = Bench("add table ip t\nadd set ip t s { type inet_service; flags interval; elements = { 10-20, 30 }; }")
    assert bench.errors("add element ip t s { 15 }") == ["interval overlaps with an existing one"]
    assert bench.errors("add element ip t s { 40-50, 45-60 }") == ["conflicting intervals specified"]
    assert bench.errors("delete element ip t s { 10-19 }") == ["element does not exist"]
    bench.run("add element ip t s { 10-20 }\nadd element ip t s { 21-29 }\ndelete element ip t s { 30 }")
    assert bench.rules.tables["ip", "t"].sets["s"].elements.lows == [(10, 20), (21, 29)]


def test_auto_merge() -> None:
    bench = Bench("add table ip t\nadd set ip t s { type inet_service; flags interval; auto-merge; elements = { 10-20, 30 }; }")
    spans = lambda: bench.rules.tables["ip", "t"].sets["s"].elements.lows  # noqa: E731
    bench.run("add element ip t s { 12-14 }")
    assert spans() == [(10, 20), (30, 30)]
    bench.run("add element ip t s { 21-29 }")
    assert spans() == [(10, 30)]
    bench.run("delete element ip t s { 15 }")
    assert spans() == [(10, 14), (16, 30)]
    bench.run("add element ip t s { 1, 2, 3, 5-12 }")
    assert spans() == [(1, 3), (5, 14), (16, 30)]


def test_a_full_set_refuses() -> None:
    bench = Bench("add table ip t\nadd set ip t s { type inet_service; size 2; elements = { 1, 2 }; }")
    assert bench.errors("add element ip t s { 3 }") == ["Could not process rule: Too many open files in system"]
    bench.run("delete element ip t s { 1 }\nadd element ip t s { 3 }")


def test_equal_plans_are_independent() -> None:
    bench = Bench(BASE)
    one, other = bench.plan("add chain ip t x"), bench.plan("add chain ip t y")
    assert "x" in one.rules.tables["ip", "t"].chains and "x" not in other.rules.tables["ip", "t"].chains
    assert "x" not in bench.rules.tables["ip", "t"].chains
