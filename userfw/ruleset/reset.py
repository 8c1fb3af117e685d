"""`reset`: zero the state of rules, elements and objects. Outside of transactions, as in Linux."""

from __future__ import annotations

from typing import TYPE_CHECKING

from userfw.nft.syntax import Command, ElementsBlock
from userfw.ruleset.listing import PLURALS
from userfw.ruleset.lookup import find_table
from userfw.ruleset.model import Chain, Ref, Table

if TYPE_CHECKING:
    from userfw.ruleset.draft import Draft


def reset(draft: Draft, command: Command) -> None:
    """Zero what a checked `reset` command names. What is gone meanwhile is passed over."""
    obj = command.obj
    if obj in PLURALS:
        for table in _tables(draft, command):
            for entry in table.objects.values():
                if entry.kind == PLURALS[obj]:
                    entry.engine.expr.reset()
    elif obj in ("rule", "rules"):
        for table in _tables(draft, command):
            for chain in _chains(table, command):
                _rules(chain, command.handle if obj == "rule" else None)
    elif obj in ("set", "map"):
        find_table(draft, command, write=False).sets[command.name or ""].engine.reset()
    elif obj == "element":
        _elements(draft, command)
    else:
        table = find_table(draft, command, write=False)
        table.objects[Ref(obj, command.name or "")].engine.expr.reset()


def _tables(draft: Draft, command: Command) -> list[Table]:
    if command.table is not None:
        return [find_table(draft, command, write=False)]
    return draft.rules.select(command.family)


def _chains(table: Table, command: Command) -> list[Chain]:
    if command.name is not None:
        return [table.chains[command.name]] if command.name in table.chains else []
    return list(table.chains.values())


def _rules(chain: Chain, handle: int | None) -> None:
    for rule in chain.rules:
        if handle is None or rule.handle == handle:
            for expr in rule.program.exprs if rule.program is not None else ():
                expr.reset()


def _elements(draft: Draft, command: Command) -> None:
    from userfw.ruleset.apply_set import find_containing

    assert isinstance(command.node, ElementsBlock)
    table = find_table(draft, command, write=False)
    entry = table.sets[command.name or ""]
    for element in find_containing(draft, table, entry, command):
        found = entry.engine.get(element.engine.key, element.engine.key_end)
        for expr in found.exprs if found is not None else ():
            expr.reset()
