"""The manager: two clients, owned tables, preparing and committing apart, options."""

from __future__ import annotations

import gc

import pytest

from userfw.nft.syntax_block import ChainBlock, Command, SetBlock, TableBlock
from userfw.ruleset.manager import RulesetManager
from userfw.ruleset.options import Options
from userfw.ruleset.service import NftService

ME, YOU = Options(client="me"), Options(client="you")


def ok(manager: RulesetManager, text: str, options: Options | None = None) -> str:
    result = manager.execute(text, options)
    assert result.status == 0, result.errors
    return result.output


def test_preparing_changes_nothing() -> None:
    manager = RulesetManager()
    prepared = manager.prepare("add table ip t")
    assert ok(manager, "list tables") == ""
    manager.commit(prepared)
    assert ok(manager, "list tables") == "table ip t\n"


def test_a_transaction_that_was_overtaken_is_made_again() -> None:
    manager = RulesetManager()
    service = NftService(manager)
    ok(manager, "add table ip t")
    late = service.start({"text": "add chain ip t c"})
    ok(manager, "add table ip other; delete table ip t")
    assert not service.current(late)
    answer = service.finish(late)
    assert answer["status"] == 1 and "No such file" in answer["errors"]
    early = service.start({"text": "add chain ip other c"})
    ok(manager, "add table ip third")
    assert service.finish(early)["status"] == 0
    assert ok(manager, "list tables") == "table ip other\ntable ip third\n"


def test_the_generation_counts_changes() -> None:
    manager = RulesetManager()
    first = manager.execute("add table ip t").generation
    assert manager.execute("add table ip t").generation == first
    assert manager.execute("list ruleset").generation == first
    assert manager.execute("add chain ip t c").generation == first + 1


def test_owned_tables_end_with_their_client() -> None:
    manager = RulesetManager()
    ok(manager, "add table ip gone { flags owner; }", ME)
    ok(manager, "add table ip stays { flags owner,persist; }; add table ip common", ME)
    assert manager.execute("delete table ip gone", YOU).status == 1
    texts: list[str] = []
    NftService(manager).monitor({}, lambda message: texts.append(message["text"]))
    manager.release("you")
    assert texts == []
    manager.release("me")
    assert "delete table ip gone\n" in texts[0]
    assert ok(manager, "list tables") == "table ip stays\ntable ip common\n"
    ok(manager, "add table ip stays { flags owner,persist; }", YOU)
    assert manager.execute("add chain ip stays c", ME).status == 1
    ok(manager, "add chain ip stays c", YOU)


def test_options_travel_as_messages() -> None:
    options = Options(filename="x", include_path=("a", "b"), defines=(("n", "v"),), check=True, debug=("netlink",), pid=5)
    assert Options.from_message(options.to_message()) == options
    assert Options().to_message() == {}
    for bad in ({"nope": 1}, {"check": 1}, {"pid": "5"}, {"client": "x"}):
        with pytest.raises(ValueError):
            Options.from_message(bad)


def test_reading_commands_see_the_whole_input() -> None:
    manager = RulesetManager()
    assert ok(manager, "list tables; add table ip t") == "table ip t\n"
    assert manager.execute("list table ip t; delete table ip t").status == 1
    assert ok(manager, "list tables") == "table ip t\n"


def test_get_finds_what_contains() -> None:
    manager = RulesetManager()
    ok(manager, "add table ip t; add set ip t s { type ipv4_addr; flags interval; elements = { 10.0.0.0/8, 11.0.0.1-11.0.0.9 }; }")
    assert "elements = { 10.0.0.0/8 }" in ok(manager, "get element ip t s { 10.1.2.3 }")
    assert "elements = { 11.0.0.1-11.0.0.9 }" in ok(manager, "get element ip t s { 11.0.0.2-11.0.0.5 }")
    assert manager.execute("get element ip t s { 12.0.0.1 }").status == 1


def test_terse_and_stateless() -> None:
    manager = RulesetManager()
    ok(manager, "add table ip t; add set ip t s { type mark; elements = { 1 }; }; add counter ip t c { packets 5 bytes 6; }")
    assert "elements" not in ok(manager, "list ruleset", Options(terse=True))
    assert "packets" not in ok(manager, "list ruleset", Options(stateless=True))


def test_a_large_set_costs_its_commit_nothing() -> None:
    """What is new is filled while it is prepared; a commit touches only what changed."""
    manager = RulesetManager()
    elements = ", ".join(str(n) for n in range(0, 60000, 2))
    prepared = manager.prepare(f"add table ip t; add set ip t s {{ type inet_service; elements = {{ {elements} }}; }}")
    assert prepared.plan is not None and prepared.plan.overlays == []
    manager.commit(prepared)
    prepared = manager.prepare("add element ip t s { 1, 2 }")
    assert prepared.plan is not None
    assert [len(overlay.log) for overlay in prepared.plan.overlays] == [1]


def test_nothing_of_a_text_stays() -> None:
    """What was parsed is gone when it has been put in force, and when it has been replaced."""
    text = "flush ruleset\ntable inet t {\nset s {\ntype mark\nelements = { 1, 2 }\n}\nchain c {\nmeta mark @s counter\n}\n}\n"
    manager = RulesetManager()

    def left() -> int:
        for _ in range(20):
            assert manager.execute(text).status == 0
        gc.collect()
        return sum(isinstance(one, (Command, TableBlock, ChainBlock, SetBlock)) for one in gc.get_objects())

    assert left() == left()
