"""Sets that the engine alone keeps: runs of elements give what the same elements one by one give, in every order of commands."""

from __future__ import annotations

import json
from random import Random

import pytest

from userfw.nft.element_run import FEW
from userfw.ruleset import bulk
from userfw.ruleset.bulk import EngineElements
from userfw.ruleset.events import Event
from userfw.ruleset.manager import RulesetManager
from userfw.ruleset.options import Options

TYPES = {
    "addresses": "type ipv4_addr",
    "ports": "type inet_service",
    "marks": "type mark",
    "intervals": "type ipv4_addr; flags interval",
    "merging": "type ipv4_addr; flags interval; auto-merge",
    "ports in spans": "type inet_service; flags interval",
    "marks in spans": "type mark; flags interval",
    "v6": "type ipv6_addr; flags interval",
}


def word(kind: str, n: int) -> str:
    if kind in ("addresses",):
        return f"10.{n >> 8}.{n & 255}.1"
    if kind in ("ports", "marks"):
        return str(n + 1)
    if "spans" in kind:
        return f"{4 * n + 1}-{4 * n + 2}" if n % 3 else str(4 * n + 1)
    if kind == "v6":
        return f"2001:db8:{n:x}::/48" if n % 3 else f"2001:db8:{n:x}::1"
    return f"10.{n >> 8}.{n & 255}.0/24" if n % 3 else f"10.{n >> 8}.{n & 255}.1-10.{n >> 8}.{n & 255}.77"


def manager_of(kind: str, numbers: list[int]) -> RulesetManager:
    manager = RulesetManager()
    given = f"elements = {{ {', '.join(word(kind, n) for n in numbers)} }}" if numbers else ""
    result = manager.execute(f"table ip t {{\n set s {{ {TYPES[kind]}; {given}\n }}\n}}")
    assert result.errors == ""
    assert isinstance(manager.rules.tables["ip", "t"].sets["s"].elements, EngineElements)
    return manager


def change(manager: RulesetManager, kind: str, op: str, numbers: list[int]) -> None:
    assert manager.execute(f"{op} element ip t s {{ {', '.join(word(kind, n) for n in numbers)} }}").errors == ""


def listing(manager: RulesetManager) -> str:
    return manager.execute("list set ip t s").output


@pytest.mark.parametrize("kind", TYPES)
def test_at_once_and_one_by_one_list_the_same(kind: str) -> None:
    rng = Random(kind)
    numbers = rng.sample(range(2000), 900)
    at_once, slowly = manager_of(kind, numbers[:600]), manager_of(kind, [])
    change(at_once, kind, "add", numbers[400:])
    for at in range(0, 900, 30):  # too few for a run
        change(slowly, kind, "add", numbers[at : at + 30])
    assert listing(at_once) == listing(slowly)
    for manager in (at_once, slowly):
        change(manager, kind, "delete", numbers[100:400])
    assert listing(at_once) == listing(slowly)
    for n in (numbers[0], numbers[150]):
        found = [manager.execute(f"get element ip t s {{ {word(kind, n)} }}") for manager in (at_once, slowly)]
        assert (found[0].output, found[0].errors) == (found[1].output, found[1].errors)
    text = listing(at_once)
    again = RulesetManager()
    assert again.execute(text).errors == "" and listing(again) == text
    document = at_once.execute("list ruleset", Options(json=True)).output
    other = RulesetManager()
    assert other.execute(document, Options(json=True)).errors == "" and listing(other) == text


@pytest.mark.parametrize("kind", ["addresses", "intervals"])
def test_commands_of_one_transaction_see_each_other(kind: str) -> None:
    manager = manager_of(kind, list(range(200)))

    def some(op: str, first: int, last: int) -> str:
        return f"{op} element ip t s {{ {', '.join(word(kind, n) for n in range(first, last))} }}\n"

    text = (
        some("delete", 0, 2) + some("add", 300, 500) + some("delete", 310, 312) + some("add", 310, 311) + some("add", 600, 601)
        + some("add", 100, 700) + some("create", 800, 801)
    )  # fmt: skip
    before = listing(manager)
    assert manager.execute(text + some("create", 650, 651)).status == 1
    assert listing(manager) == before, "a transaction that fails changes nothing"
    assert manager.execute(text).errors == ""
    wanted = manager_of(kind, [*range(2, 700), 800])
    assert listing(manager) == listing(wanted)
    assert manager.execute("flush set ip t s\n" + some("add", 5, 105)).errors == ""
    assert listing(manager) == listing(manager_of(kind, list(range(5, 105))))
    assert manager.execute(some("add", 1000, 1100) + "flush set ip t s\n" + some("add", 5, 8)).errors == ""
    assert listing(manager) == listing(manager_of(kind, [5, 6, 7]))


def test_a_run_that_overlaps_what_is_there_is_refused_with_its_place() -> None:
    manager = manager_of("intervals", list(range(200)))
    words = [word("intervals", n) for n in range(300, 400)]
    words[70] = "10.0.5.0/25"
    result = manager.execute("add element ip t s {\n" + ",\n".join(words) + " }")
    assert result.status == 1
    assert [str(problem.loc) for problem in result.problems] == ["<cmdline>:72:1-11"]
    assert result.errors == "Error: interval overlaps with an existing one\n10.0.5.0/25,\n^^^^^^^^^^^\n"
    assert listing(manager) == listing(manager_of("intervals", list(range(200))))


def test_merging_joins_a_run_with_what_is_there() -> None:
    manager = manager_of("merging", [])
    change(manager, "merging", "add", [2 * n + 1 for n in range(100) if (2 * n + 1) % 3])
    change(manager, "merging", "add", [2 * n for n in range(100) if 2 * n % 3])
    assert listing(manager) == listing(manager_of("merging", [n for n in range(200) if n % 3]))


def test_a_full_set_takes_no_run() -> None:
    manager = RulesetManager()
    assert manager.execute("add table ip t; add set ip t s { type ipv4_addr; size 100; }").errors == ""
    change(manager, "addresses", "add", list(range(80)))
    words = ", ".join(word("addresses", n) for n in range(40, 140))
    assert "Too many open files in system" in manager.execute(f"add element ip t s {{ {words} }}").errors
    change(manager, "addresses", "add", list(range(100)))
    assert "# handle" not in listing(manager) and len(manager.rules.tables["ip", "t"].sets["s"].elements) == 100


def test_monitors_and_echo_tell_of_each_element() -> None:
    manager = manager_of("intervals", [])
    told: list[Event] = []
    manager.subscribe(lambda events: told.extend(event for event in events if isinstance(event, Event)))
    words = [word("intervals", n) for n in range(FEW)]
    result = manager.execute(f"add element ip t s {{ {', '.join(words)} }}", Options(echo=True))
    lines = [line for line in result.output.splitlines() if line.startswith("add element")]
    assert lines == [f"add element ip t s {{ {shown} }}" for shown in words]
    assert len(told) == FEW
    document = json.loads(manager.execute("flush set ip t s", Options(echo=True, json=True)).output)
    assert [next(iter(entry)) for entry in document["nftables"][1:]] == ["delete"] * FEW
    assert told[FEW].node.key == told[FEW - 1].node.key, "the last interval goes first"


def test_elements_with_more_than_a_key_live_beside_runs() -> None:
    manager = manager_of("addresses", list(range(100)))
    assert manager.execute('add element ip t s { 1.2.3.4 comment "mine", * }').errors == ""
    change(manager, "addresses", "add", list(range(100, 200)))
    text = listing(manager)
    assert '1.2.3.4 comment "mine"' in text and text.count("10.0.") == 200 and ", *" in text.replace("\n\t\t\t     ", " ")
    assert manager.execute("delete element ip t s { 1.2.3.4, * }").errors == ""
    assert listing(manager) == listing(manager_of("addresses", list(range(200))))


def test_a_set_that_a_rule_updates_keeps_its_run() -> None:
    words = ", ".join(word("addresses", n) for n in range(100))
    text = f"table ip t {{\n set s {{ type ipv4_addr; elements = {{ {words} }}\n }}\n chain c {{ add @s {{ ip saddr }}\n }}\n}}"
    manager = RulesetManager()
    assert manager.execute(text).errors == ""
    assert listing(manager).count("10.0.") == 100
    manager = manager_of("addresses", [])
    change(manager, "addresses", "add", list(range(50)))
    more = ", ".join(word("addresses", n) for n in range(40, 140))
    assert manager.execute(f"add element ip t s {{ {more} }}\nadd chain ip t c\nadd rule ip t c add @s {{ ip saddr }}").errors == ""
    assert listing(manager).count("10.0.") == 140


def test_slices_are_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loops over slices are Python's, so that another thread may run between two."""
    assert bulk.__file__.endswith(".py")
    manager = manager_of("intervals", [])
    calls: list[int] = []
    real = bulk.put_run

    def counted(engine: object, node: object, run: object) -> object:
        class Counted:
            def __getattr__(self, name: str) -> object:
                found = getattr(engine, name)
                if name == "put_columns":

                    def put(lows: bytearray, highs: bytearray, at: int, count: int, swapped: bool) -> object:
                        calls.append(count)
                        return found(lows, highs, at, count, swapped)

                    return put
                return found

        return real(Counted(), node, run)  # type: ignore[arg-type]

    from userfw.nft.columns import SLICE
    from userfw.ruleset import language

    monkeypatch.setattr(language, "put_run", counted)
    change(manager, "intervals", "add", list(range(10_000)))
    assert len(calls) == 3 and max(calls) == SLICE
