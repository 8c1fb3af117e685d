"""A ruleset as plain values: for comparing deeply, before and after."""

from __future__ import annotations

import re
from typing import Any

from userfw.ruleset.model import Ruleset, Table


def snapshot(rules: Ruleset) -> Any:
    """Everything, handles and use counts included."""
    return rules.generation, rules.table_handle, rules.registrations, [_table(table) for table in rules.tables.values()]


def _table(table: Table) -> Any:
    return (
        table.key, table.handle, table.hgenerator, sorted(table.flags), table.comment, table.owner, sorted(table.uses.items()),
        [(c.name, c.handle, repr(c.node), c.registered, [(r.handle, repr(r.node), r.refs) for r in c.rules])
         for c in table.chains.values()],
        [(s.name, s.handle, repr(s.node), [(repr(e.key), repr(e.node)) for e in s.elements], s.elements.lows)
         for s in table.sets.values()],
        [(ref, entry.handle, repr(entry.node)) for ref, entry in table.objects.items()],
        [(entry.name, entry.handle, repr(entry.node)) for entry in table.flowtables.values()],
    )  # fmt: skip


def plain(node: object) -> str:
    """A tree without the handles of its anonymous chains and their rules."""
    return re.sub(r"handle=\d+", "handle=None", repr(node))


def content(rules: Ruleset) -> Any:
    """What a ruleset says: without handles and history, whatever order its elements came in."""
    return {
        table.key: (
            sorted(table.flags), table.comment, sorted(table.uses.items()),
            {c.name: (repr(c.node), [plain(r.node) for r in c.rules]) for c in table.chains.values() if not c.binding},
            {s.name: (repr(s.node), sorted(repr(e.node) for e in s.elements)) for s in table.sets.values()},
            {ref: repr(entry.node) for ref, entry in table.objects.items()},
            {entry.name: repr(entry.node) for entry in table.flowtables.values()},
        )
        for table in rules.tables.values()
    }  # fmt: skip
