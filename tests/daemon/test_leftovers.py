"""Records of interfaces that a daemon has in its hands: whose they are, and what is done with those of the dead."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from userfw.daemon import leftovers
from userfw.daemon.leftovers import Record


@pytest.fixture
def cleaned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The interfaces that a sweep cleans."""
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    done: list[str] = []
    monkeypatch.setattr(leftovers, "_clean", lambda record: done.append(record.ifname))
    return done


def dead(record: Record) -> None:
    """As if another process had made it, which is gone and whose number is ours now."""
    record.path.write_text(record.path.read_text().replace(f'"born": {record.born}', f'"born": {record.born - 1}'))


def test_only_the_dead_are_cleaned_up_after(cleaned: list[str], tmp_path: Path) -> None:
    records = [leftovers.note(name, 7, "") for name in ("a", "b", "c")]
    assert all(record is not None and record.alive for record in records)
    assert leftovers.sweep() == []
    for record in records[:2]:
        assert record is not None
        dead(record)
    assert leftovers.sweep() == ["a", "b"] and cleaned == ["a", "b"]
    assert [path.name for path in tmp_path.iterdir()] == [f"interface-{os.stat('/proc/self/ns/net').st_ino}-c.json"]
    assert leftovers.sweep() == []


def test_a_namespace_that_is_another_one_now_is_not_touched(cleaned: list[str], tmp_path: Path) -> None:
    record = leftovers.note("a", 7, "")
    assert record is not None
    record.forget()
    moved = replace(record, namespace=record.namespace + 1, pid=2**22 + 1)
    moved.path.write_text(json.dumps({name: getattr(moved, name) for name in Record.__slots__}))
    assert leftovers.sweep() == ["a"] and not cleaned and not list(tmp_path.iterdir())


def test_where_nothing_can_be_written_a_port_opens_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", "/proc/nowhere")
    assert leftovers.note("a", 7, "") is None and leftovers.sweep() == []


VALUES = st.recursive(st.none() | st.integers() | st.text(), st.lists)


@settings(deadline=None)  # a file is written each time
@given(st.binary(max_size=80) | VALUES.map(json.dumps).map(str.encode))
def test_any_file_is_a_record_or_none(data: bytes) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "interface-1-a.json"
        path.write_bytes(data)
        assert Record.read_untrusted(path) is None
