"""The nft-monitor corpus: what a monitor prints for each transaction, as text and as JSON."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.ruleset.monitor_cases import Case, files, read
from userfw.ruleset.events import Event, NewGeneration
from userfw.ruleset.manager import Result, RulesetManager
from userfw.ruleset.options import Options
from userfw.ruleset.service import Filter, NftService

FILES = list(files())
NUMERIC = {"numeric": True}


def squeezed(lines: list[str]) -> list[str]:
    """nft's own test compares without white space and comments."""
    return [re.sub(r"\s", "", line) for line in lines if not line.startswith("#")]


def zeroed(value: Any) -> Any:
    """JSON with handles set to 0, as the corpus has them."""
    if isinstance(value, dict):
        return {name: 0 if name == "handle" else zeroed(part) for name, part in value.items()}
    return [zeroed(part) for part in value] if isinstance(value, list) else value


def lines_of(manager: RulesetManager, case: Case, options: dict[str, Any]) -> list[str]:
    """What a monitor prints while the case's transaction is run."""
    texts: list[str] = []
    stop = NftService(manager).monitor({"options": options}, lambda message: texts.append(message["text"]))
    result: Result = manager.execute("".join(line + "\n" for line in case.commands))
    stop()
    assert result.status == 0, result.errors
    return "".join(texts).splitlines()


@pytest.mark.skipif(not FILES, reason="no conformance data")
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_text(path: Any) -> None:
    manager = RulesetManager()
    for case in read(path):
        assert squeezed(lines_of(manager, case, NUMERIC)) == squeezed(case.text), f"{path.name} step {case.number}"


@pytest.mark.skipif(not FILES, reason="no conformance data")
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_json(path: Any) -> None:
    manager = RulesetManager()
    for case in read(path):
        got = [zeroed(json.loads(line)) for line in lines_of(manager, case, NUMERIC | {"json": True})]
        assert got == [json.loads(line) for line in case.json], f"{path.name} step {case.number}"


@pytest.mark.skipif(not FILES, reason="no conformance data")
def test_all_cases_are_read() -> None:
    assert sum(len(read(path)) for path in FILES) == 62


def test_the_end_of_a_transaction_is_told() -> None:
    manager = RulesetManager()
    texts: list[str] = []
    NftService(manager).monitor({}, lambda message: texts.append(message["text"]))
    manager.execute("add table ip t", Options(pid=42, process="nft"))
    manager.execute("list ruleset")
    manager.execute("add table ip t")
    assert texts == ["add table ip t\n# new generation 2 by process 42 (nft)\n"]


@pytest.mark.parametrize(
    ("event", "objects", "seen"),
    [
        (None, None, ["table", "chain", "rule", "set", "element", "counter", "end"]),
        ("new", None, ["table", "chain", "rule", "set", "element", "counter"]),
        ("destroy", None, []),
        (None, "chains", ["chain"]),
        (None, "elements", ["element"]),
        (None, "ruleset", ["table", "chain", "rule", "set", "element", "counter", "end"]),
    ],
)
def test_filters(event: str | None, objects: str | None, seen: list[str]) -> None:
    chosen = Filter(event, objects)
    events: list[Event | NewGeneration] = [
        Event("add", obj, "ip", "t", "x", None, 1) for obj in ("table", "chain", "rule", "set", "element", "counter")
    ]
    events.append(NewGeneration(2, 0, ""))
    assert [getattr(entry, "obj", "end") for entry in events if chosen.wants(entry)] == seen
