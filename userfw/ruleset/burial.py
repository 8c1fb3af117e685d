"""Taking apart what a large transaction leaves behind.

Laws:
- Python frees a list of ten thousand rules in one go and holds up every other thread for as long; what is handed in here is freed
  a slice at a time, so that packets flow in between.
- Only lists that nothing else uses are emptied: those of the parsed input, of the events, and the rules of chains that the
  transaction replaced.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from userfw.nft.syntax import ChainBlock, ElementsBlock, SetBlock, TableBlock
from userfw.ruleset.manager import Prepared

SLICE = 64


def bury(prepared: Prepared) -> Iterator[None]:
    """Empty the lists of a committed (or refused) transaction; yields between slices. Its events must have been told."""
    plan = prepared.plan
    lists: list[list[Any]] = []
    for command in prepared.commands:
        lists += _lists(command.node)
    lists.append(prepared.commands)
    if plan is not None:
        lists += [vars(plan).get("events", []), plan.draft.events]  # as a monitor saw them, if one looked
        for table in plan.base.tables.values():
            after = plan.rules.tables.get(table.key)
            kept = {id(chain.rules) for chain in after.chains.values()} if after is not None else set()
            lists += [chain.rules for chain in table.chains.values() if id(chain.rules) not in kept]
        prepared.plan = None
    del plan
    while lists:
        last = lists[-1]
        if not last:
            lists.pop()
            continue
        del last[-SLICE:]
        yield


def drain(prepared: Prepared) -> None:
    """All of `bury`, for a thread of its own."""
    for _ in bury(prepared):
        pass


def _lists(node: Any) -> list[list[Any]]:
    """The long lists of a parsed command."""
    if isinstance(node, TableBlock):
        return [found for part in (*node.sets, *node.chains) for found in _lists(part)]
    if isinstance(node, ChainBlock):
        return [node.rules]
    if isinstance(node, SetBlock | ElementsBlock):
        return [node.elements] if isinstance(node.elements, list) else []
    return []
