"""Elements of maps, concatenations and with times that come at once are what they are when they come one by one."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from userfw.ruleset.events import Event
from userfw.ruleset.manager import RulesetManager
from userfw.ruleset.options import Options

COUNT = 150
KINDS: dict[str, tuple[str, str]] = {
    "map": ("map s { type ipv4_addr : mark; }", "10.0.{b}.{a} : {n}"),
    "interval map": ("map s { type ipv4_addr : ipv4_addr; flags interval; }", "10.{b}.{a}.0/24 : 1.2.3.{a}"),
    "verdict map": ("map s { type inet_service : verdict; }", "{n} : accept"),
    "jump map": ("map s { type inet_service : verdict; }", "{n} : jump other"),
    "object map": ("map s { type inet_service : counter; }", '{n} : "k"'),
    "concat": ("set s { type ipv4_addr . inet_service; }", "10.0.{b}.{a} . {n}"),
    "concat of ranges": ("set s { type ipv4_addr . inet_service; flags interval; }", "10.{b}.{a}.0/24 . {n}-60000"),
    "concat map": ("map s { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }",
                   "10.0.{b}.{a} . 6 . {n} : 1.1.1.1 . {n}"),
    "timeout": ("set s { type ipv4_addr; flags timeout; }", "10.0.{b}.{a} timeout 1h"),
    "default timeout": ("set s { type ipv4_addr; timeout 5m; }", "10.0.{b}.{a}"),
    "timed map": ("map s { type ipv4_addr : mark; flags timeout; }", "10.0.{b}.{a} timeout 2h expires 1h : {n}"),
    "counting": ("set s { type ipv4_addr; counter; }", "10.0.{b}.{a}"),
    "sized": ("map s { type ipv4_addr : mark; size 160; }", "10.0.{b}.{a} : {n}"),
    "names": ("map s { type ifname : mark; }", "eth{n} : {n}"),
    "v6": ("map s { type ipv6_addr : ipv6_addr; }", "2001:db8::{n} : 2001:db8::{a}"),
}  # fmt: skip


def words(kind: str, numbers: range) -> list[str]:
    return [KINDS[kind][1].format(a=n % 250, b=n // 250, n=n + 1) for n in numbers]


def manager_of(kind: str) -> tuple[RulesetManager, list[str]]:
    """A manager with the empty set, and what it will tell its subscribers."""
    manager = RulesetManager()
    text = f"table ip t {{\\n counter k {{\\n }}\\n chain other {{\\n }}\\n {KINDS[kind][0]}\\n}}".replace("\\n", "\n")
    assert manager.execute(text).errors == ""
    told: list[str] = []

    def hear(events: list[Any]) -> None:
        told.extend(repr((e.op, e.obj, e.name, e.node.node)) for e in events if isinstance(e, Event))

    manager.subscribe(hear)
    return manager, told


def elements(manager: RulesetManager) -> list[Any]:
    """What packets meet."""
    engine = manager.rules.tables["ip", "t"].sets["s"].engine
    rows = ((e.key, e.key_end, getattr(e.data, "name", repr(e.data)), e.timeout, e.expires, repr(e.exprs)) for e in engine)
    return sorted(rows, key=repr)


def listing(manager: RulesetManager, **options: Any) -> str:
    return manager.execute("list ruleset", Options(**options)).output


@pytest.mark.parametrize("kind", KINDS)
def test_at_once_as_one_by_one(kind: str) -> None:
    given = words(kind, range(COUNT))
    at_once, told_at_once = manager_of(kind)
    single, told = manager_of(kind)
    assert at_once.execute(f"add element ip t s {{ {', '.join(given)} }}").errors == ""
    for word in given:
        assert single.execute(f"add element ip t s {{ {word} }}").errors == ""
    assert listing(at_once) == listing(single)
    assert listing(at_once, json=True) == listing(single, json=True)
    assert elements(at_once) == elements(single)
    assert sorted(told_at_once) == sorted(told) and len(told) == COUNT
    uses = [manager.rules.tables["ip", "t"].uses for manager in (at_once, single)]
    assert uses[0] == uses[1]
    draw = Random(kind)
    gone = [word.split(" :")[0].split(" timeout")[0] for word in draw.sample(given, 20)]
    for manager in (at_once, single):
        assert manager.execute(f"delete element ip t s {{ {', '.join(gone)} }}").errors == ""
    assert listing(at_once) == listing(single) and elements(at_once) == elements(single)


@pytest.mark.parametrize("kind", ["map", "concat", "timeout", "verdict map", "concat map"])
def test_declared_with_the_set(kind: str) -> None:
    given = words(kind, range(COUNT))
    declared = RulesetManager()
    block = KINDS[kind][0].removesuffix("}") + f" elements = {{ {', '.join(given)} }}\n }}"
    assert declared.execute(f"table ip t {{\n counter k {{\n }}\n chain other {{\n }}\n {block}\n}}").errors == ""
    added, _ = manager_of(kind)
    assert added.execute(f"add element ip t s {{ {', '.join(given)} }}").errors == ""
    assert elements(declared) == elements(added)


@pytest.mark.parametrize(
    ("kind", "last", "error"),
    [
        ("map", "10.0.0.0 : 7", "File exists"),
        ("map", "10.0.0.300 : 7", "Could not resolve hostname"),
        ("map", "10.9.9.9", "a map element needs data"),
        ("sized", "10.9.9.{n} : 7", "Too many open files in system"),
        ("concat", "10.0.0.1 . 70000", "exceeds valid range"),
        ("jump map", "9999 : jump nowhere", "No such file or directory"),
        ("map", "10.9.9.9 timeout 5s : 7", "Invalid argument"),
    ],
)
def test_one_that_is_wrong_is_told_as_ever_and_changes_nothing(kind: str, last: str, error: str) -> None:
    manager, told = manager_of(kind)
    before = listing(manager)
    given = [*words(kind, range(COUNT)), *(last.format(n=n) for n in range(20 if "{n}" in last else 1))]
    result = manager.execute(f"add element ip t s {{ {', '.join(given)} }}")
    assert result.status == 1 and error in result.errors
    assert listing(manager) == before and told == []


def test_the_same_again_is_no_change_and_other_times_are() -> None:
    manager, told = manager_of("timeout")
    given = ", ".join(words("timeout", range(COUNT)))
    for _ in range(2):
        assert manager.execute(f"add element ip t s {{ {given} }}").errors == ""
    assert len(told) == COUNT
    assert manager.execute(f"add element ip t s {{ {given.replace('1h', '2h')} }}").errors == ""
    assert listing(manager).count("timeout 2h") == COUNT
