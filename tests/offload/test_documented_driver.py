"""The driver that docs/offload.md shows: it runs as it is printed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from userfw.core.clock import Clock
from userfw.offload.contract import Actions, Capabilities, Driver, Failure, Match, Refusal, Rule, Statistics, Target
from userfw.offload.manager import OffloadManager, Placement

TEXT = (Path(__file__).parents[2] / "docs" / "offload.md").read_text()


class Card:
    """What `open_card()` would give: two slots, every rule used once."""

    slots = 2

    def __init__(self) -> None:
        self.rules: list[int] = []

    def owns(self, name: str) -> bool:
        return name == "eth0"

    def write(self, rule: Rule) -> bool:
        if len(self.rules) == self.slots:
            return False
        self.rules.append(rule.id)
        return True

    def erase(self, id: int) -> tuple[int, int, int]:
        self.rules.remove(id)
        return 1, 100, 5

    def read_all(self) -> list[tuple[int, int, int, int]]:
        return [(id, 1, 100, 5) for id in self.rules]

    def erase_all(self) -> None:
        self.rules.clear()


def test_it_runs() -> None:
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", TEXT, re.S) if "CardDriver" in block)
    names: dict[str, Any] = {
        "Driver": Driver, "Refusal": Refusal, "Capabilities": Capabilities, "Failure": Failure, "Statistics": Statistics,
        "open_card": Card,
    }  # fmt: skip
    exec(compile(code, "docs/offload.md", "exec"), names)
    driver: Driver = names["CardDriver"]({})
    assert code.count("\n") < 31, "the documentation promises thirty lines"

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
