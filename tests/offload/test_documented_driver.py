"""The driver that docs/offload.md shows: it runs as it is printed, and is found where it is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from documented import install, module, printed

from userfw.core.clock import Clock
from userfw.offload import drivers
from userfw.offload.contract import Actions, Driver, Failure, Match, Rule, Statistics, Target
from userfw.offload.guarded import Guarded
from userfw.offload.manager import OffloadManager, Placement


def test_it_runs() -> None:
    names: dict[str, Any] = {}
    exec(compile(module(), "docs/offload.md", "exec"), names)
    driver: Driver = names["CardDriver"]({})
    assert printed().count("\n") < 31, "the documentation promises thirty lines"

    manager = OffloadManager(Clock(), [driver], lambda name: Target(name, 3, None, name), lambda: 0)
    placed = manager.place("eth0")
    assert isinstance(placed, Placement) and placed.capabilities.capacity == 2
    assert "card: not a port of the card" in str(manager.place("eth1"))

    ends = (bytes(4), bytes(4), 1, 2)
    rules = [Rule(id, Match("eth0", 3, 17, *ends), Actions("eth0", 3, *ends, bytes(6), bytes(6))) for id in (1, 2, 3)]
    answers: list[tuple[int, Failure | None]] = []
    driver.install(rules, lambda *answer: answers.append(answer))
    assert answers == [(1, None), (2, None), (3, Failure.FULL)]
    assert [record.id for record in driver.statistics()] == [1, 2]
    assert driver.remove([1]) == [Statistics(1, 1, 100, 5)]
    driver.close()
    assert not list(driver.statistics())


def test_an_installed_one_is_found_by_its_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And asked by its rank, among userfw's own; one that does not load is told and left out."""
    install(tmp_path)
    install(tmp_path, "broken", "raise ImportError('no such library')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = drivers.load({})
    assert all(isinstance(driver, Guarded) for driver in found)
    assert [d.name for d in found if isinstance(d, Guarded) and type(d.driver).__module__ == "card_driver"] == ["card"]
    assert {driver.name for driver in found} == {"bpf", "card", "flower"}
    assert [driver.rank for driver in found] == sorted(driver.rank for driver in found)
    for driver in found:
        driver.close()
