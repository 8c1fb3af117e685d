"""The programs that docs/python.md shows run as they are printed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from userfw.client import Event, Firewall, nftables

TEXT = (Path(__file__).parents[2] / "docs" / "python.md").read_text()
RULESET, EVENTS, MODULE = re.findall(r"(?ms)^```python\n(.*?)^```", TEXT)


def test_a_ruleset(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    exec(compile(RULESET, "docs/python.md", "exec"), names)
    assert names["firewall"].check("delete rule inet gateway forward handle 99")
    assert "forwrad" in capsys.readouterr().out


def test_what_others_change(capsys: pytest.CaptureFixture[str]) -> None:
    class Changed(Firewall):
        def events(self, kind: str | None = None) -> Any:
            assert kind == "rules"
            yield Event("add", "rule", {}, "the rule")

    exec(compile(EVENTS, "docs/python.md", "exec"), {"firewall": Changed.private()})
    assert capsys.readouterr().out == "add rule the rule\n"


def test_programs_for_the_other_module(monkeypatch: pytest.MonkeyPatch) -> None:
    made = nftables.Nftables(private=True)
    monkeypatch.setattr(nftables, "Nftables", lambda: made)
    names: dict[str, Any] = {}
    exec(compile(MODULE, "docs/python.md", "exec"), names)
    assert names["status"] == 0
    made.set_json_output(False)
    assert made.cmd("list tables") == (0, "table inet t\n", "")


def test_every_method_that_is_named_is_there() -> None:
    named = set(re.findall(r"`([a-z_]+)`", TEXT.split("## What others")[0].split("```")[-1]))
    assert named >= {"run", "check", "replace", "tables"} and all(hasattr(Firewall, name) for name in named)
