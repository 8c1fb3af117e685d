"""The driver of docs/offload.md as a module, and as an installed package: what an installer lays down for it."""

from __future__ import annotations

import re
from pathlib import Path

TEXT = (Path(__file__).parents[2] / "docs" / "offload.md").read_text()
# What a real one would get from its card's maker: two slots, every rule used once.
CARD = '''
class Card:
    slots = 2

    def __init__(self):
        self.rules = []

    def owns(self, name):
        return name in ("eth0", "lan", "wan")

    def write(self, rule):
        if len(self.rules) == self.slots:
            return False
        self.rules.append(rule.id)
        return True

    def erase(self, id):
        self.rules.remove(id)
        return 1, 100, 5

    def read_all(self):
        return [(id, 1, 100, 5) for id in self.rules]

    def erase_all(self):
        self.rules.clear()


open_card = Card
'''


def printed() -> str:
    """The driver as it is printed."""
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", TEXT, re.S) if "CardDriver" in block)
    return str(code)


def module() -> str:
    """With its imports, and a card."""
    return f"from userfw.offload.contract import Capabilities, Driver, Failure, Refusal, Statistics\n{CARD}\n\n{printed()}"


def install(folder: Path, name: str = "card", code: str | None = None) -> None:
    """The package `userfw-NAME` in a folder of the import path, with its entry point."""
    (folder / f"{name}_driver.py").write_text(code if code is not None else module())
    metadata = folder / f"userfw_{name}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: userfw-{name}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[userfw.offload]\n{name} = {name}_driver:CardDriver\n")
