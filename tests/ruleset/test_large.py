"""Large transactions: they cost the packet loop no more than a swap, and give what small ones give."""

from __future__ import annotations

import gc
import weakref
from random import Random

import pytest

from userfw.ruleset import language
from userfw.ruleset.burial import SLICE, bury
from userfw.ruleset.manager import RulesetManager
from userfw.ruleset.options import Options

SETS = {
    "hash": "type ipv4_addr",
    "bitmap": "type inet_service",
    "intervals": "type ipv4_addr; flags interval",
    "merging intervals": "type ipv4_addr; flags interval; auto-merge",
    "ranges": "type ipv4_addr . inet_service; flags interval",
    "concatenations": "type ipv4_addr . inet_service",
}


def key(kind: str, n: int) -> str:
    address = f"10.{n >> 8 & 255}.{n & 255}.0"
    if kind == "bitmap":
        return str(n + 1)
    if kind == "ranges":
        return f"{address}/24 . {n + 1}-{n + 2}"
    if kind == "concatenations":
        return f"{address} . {n + 1}"
    return f"{address}/25" if "intervals" in kind else address


def manager_with(kind: str, numbers: list[int]) -> RulesetManager:
    manager = RulesetManager()
    elements = ", ".join(key(kind, n) for n in numbers)
    given = f"elements = {{ {elements} }}" if elements else ""
    text = f"table ip t {{\n set s {{ {SETS[kind]}; {given}\n }}\n chain c {{ ip saddr 1.1.1.1 accept\n }}\n}}"
    assert manager.execute(text).errors == ""
    return manager


def engine_keys(manager: RulesetManager) -> list[tuple[bytes | None, bytes | None]]:
    engine = manager.rules.tables["ip", "t"].sets["s"].engine
    found = sorted((element.key or b"", element.key_end) for element in engine)
    assert len(engine) == len(found)
    for first, _ in found:
        assert engine.get(first) is not None
    return found


@pytest.mark.parametrize("kind", SETS)
def test_many_changes_equal_few(kind: str) -> None:
    """Adding and deleting hundreds at once (a copy is swapped in) gives what one at a time gives."""
    rng = Random(kind)
    there = rng.sample(range(900), 500)
    gone = rng.sample(there, 200)
    new = rng.sample([n for n in range(900) if n not in there], 300)
    rng.shuffle(new)
    lines = [
        f"delete element ip t s {{ {', '.join(key(kind, n) for n in gone)} }}",
        f"add element ip t s {{ {', '.join(key(kind, n) for n in new)} }}",
    ]
    at_once, one_by_one = manager_with(kind, there), manager_with(kind, there)
    engine = at_once.rules.tables["ip", "t"].sets["s"].engine
    prepared = at_once.prepare("\n".join(lines))
    assert prepared.plan is not None and [overlay.aside is not None for overlay in prepared.plan.overlays] == [True]
    before = engine_keys(at_once)
    assert engine_keys(at_once) == before, "preparing changes nothing that packets see"
    at_once.commit(prepared)
    assert at_once.rules.tables["ip", "t"].sets["s"].engine is engine, "rules refer to the object"
    for n in gone:
        assert one_by_one.execute(f"delete element ip t s {{ {key(kind, n)} }}").status == 0
    for n in new:
        assert one_by_one.execute(f"add element ip t s {{ {key(kind, n)} }}").status == 0
    assert engine_keys(at_once) == engine_keys(one_by_one)
    listings = [manager.execute("list set ip t s").output for manager in (at_once, one_by_one)]
    if kind in ("intervals", "merging intervals"):
        assert listings[0] == listings[1]
    more = f"add element ip t s {{ {key(kind, 1000)} }}; delete element ip t s {{ {key(kind, new[0])} }}"
    assert at_once.execute(more).errors == "" and one_by_one.execute(more).errors == ""
    assert engine_keys(at_once) == engine_keys(one_by_one)


def test_a_flush_and_many_new_ones_are_swapped_in() -> None:
    manager = manager_with("hash", list(range(400)))
    elements = ", ".join(key("hash", n) for n in range(600, 900))
    assert manager.execute(f"flush set ip t s; add element ip t s {{ {elements} }}").errors == ""
    assert len(engine_keys(manager)) == 300
    assert manager.execute("get element ip t s { 10.0.1.0 }").status == 1


def test_counters_live_on() -> None:
    """The copy shares the state of elements with the set that packets still use."""
    manager = RulesetManager()
    elements = ", ".join(key("hash", n) for n in range(300))
    assert manager.execute(f"table ip t {{\n set s {{ type ipv4_addr; counter; elements = {{ {elements} }}\n }}\n}}").errors == ""
    prepared = manager.prepare(f"add element ip t s {{ {', '.join(key('hash', n) for n in range(300, 600))} }}")
    engine = manager.rules.tables["ip", "t"].sets["s"].engine
    engine.get(bytes([10, 0, 7, 0])).exprs[0].packets = 9
    manager.commit(prepared)
    assert engine.get(bytes([10, 0, 7, 0])).exprs[0].packets == 9
    assert engine.get(bytes([10, 1, 44, 0])).exprs[0].packets == 0


def test_a_plan_on_an_old_ruleset_is_made_again() -> None:
    manager = manager_with("intervals", list(range(300)))
    elements = ", ".join(key("intervals", n) for n in range(400, 700))
    late = manager.prepare(f"add element ip t s {{ {elements} }}")
    assert manager.execute(f"add element ip t s {{ {key('intervals', 800)} }}").status == 0
    assert manager.commit(late).status == 0
    assert len(engine_keys(manager)) == 601


@pytest.mark.parametrize("kind", ["ranges", "concatenations"])
def test_sets_are_built_in_slices(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never more than SLICE elements between two moments at which another thread may run, and none at the commit."""
    manager = manager_with(kind, [])
    most: list[int] = []
    real = language._in_slices

    def counting(engine: object, overlay: object) -> object:
        class Counted:
            def __getattr__(self, name: str) -> object:
                found = getattr(engine, name)
                if name in ("put_in", "take_out"):
                    return lambda elements: (most.append(len(elements)), found(elements))[1]
                return found

        return real(Counted(), overlay)

    monkeypatch.setattr(language, "_in_slices", counting)
    elements = ", ".join(key(kind, n) for n in range(4000))
    prepared = manager.prepare(f"add element ip t s {{ {elements} }}")
    assert sum(most) == 4000 and max(most) <= language.SLICE
    most.clear()
    monkeypatch.setattr(language, "apply_elements", lambda *args: pytest.fail("elements one by one at the commit"))
    manager.commit(prepared)
    assert most == [] and len(engine_keys(manager)) == 4000


def test_what_is_left_is_taken_apart_in_slices() -> None:
    manager = RulesetManager()
    rules = "\n".join(f"ip saddr 10.0.{n >> 8}.{n & 255} accept" for n in range(1000))
    manager.execute(f"table ip t {{\n chain c {{\n{rules}\n }}\n chain kept {{ accept\n }}\n}}")
    prepared = manager.prepare(f"flush chain ip t c\ntable ip t {{\n chain c {{\n{rules}\n }}\n}}")
    old = manager.rules.tables["ip", "t"].chains["c"].rules
    manager.commit(prepared)
    listing = manager.execute("list ruleset", Options(stateless=True)).output
    steps = sum(1 for _ in bury(prepared))
    assert steps >= 2 * 1000 / SLICE and old == [] and prepared.commands == []
    assert manager.execute("list ruleset", Options(stateless=True)).output == listing


def test_plain_elements_of_every_kind_are_as_those_taken_one_by_one() -> None:
    """The quick way (64 and more) lists and looks up as the slow one."""
    kinds = {"hash": 70, "bitmap": 70, "intervals": 70}
    for kind, count in kinds.items():
        quick = manager_with(kind, list(range(count)))
        slow = manager_with(kind, [0])
        for n in range(1, count):
            assert slow.execute(f"add element ip t s {{ {key(kind, n)} }}").status == 0
        assert engine_keys(quick) == engine_keys(slow)
        assert quick.execute("list ruleset").output == slow.execute("list ruleset").output
        twice = f"add element ip t s {{ {', '.join(key(kind, n) for n in range(count))} }}"
        assert quick.execute(twice).errors == "" and len(engine_keys(quick)) == count
    overlap = ", ".join(["10.0.0.0/8", *(key("intervals", n) for n in range(70))])
    result = manager_with("intervals", []).execute(f"add element ip t s {{ {overlap} }}")
    assert result.status == 1 and "conflicting intervals" in result.errors


def test_replaced_rules_and_elements_go_without_the_garbage_collector() -> None:
    """The daemon does not look for garbage among what large transactions made, so there must be no cycles."""
    manager = RulesetManager()
    rules = "\n".join(f"ip saddr 10.0.{n >> 8}.{n & 255} counter accept" for n in range(300))
    entry = "set s { type ipv4_addr; elements = { 1.1.1.1 }\n }"
    text = f"table ip t {{\n {entry}\n chain c {{\n{rules}\n jump d\n }}\n chain d {{ accept\n }}\n}}"
    assert manager.execute(text).errors == ""
    gc.collect()
    gc.disable()
    try:
        old = [weakref.ref(rule) for rule in manager.rules.tables["ip", "t"].chains["c"].rules]
        prepared = manager.prepare(f"flush ruleset\n{text}")
        manager.commit(prepared)
        for _ in bury(prepared):
            pass
        del prepared
        assert [rule for rule in old if rule() is not None] == []
    finally:
        gc.enable()
