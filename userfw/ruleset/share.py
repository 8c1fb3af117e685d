"""State that the workers of one daemon share: which slots of the pool a commit's limits, quotas and `ct count` are given.

Laws:
- The workers commit the same transactions, so a thing has the same name in each: the generation that brought it, the handles of its
  table and of itself, its place. Elements that packets add are named by their set and key.
- Slots are given in the commit, before a packet meets what holds them. What is gone gives its own back: rules at once, the rest
  when Python takes it apart.
- A daemon of one process has no pool, and nothing here runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import ref

from userfw.engine.shared import Pool, Sharing, share
from userfw.ruleset.model import Ref, Rule

if TYPE_CHECKING:
    from userfw.ruleset.draft import Draft

KINDS = ("limit", "quota", "connlimit")
_OBJECTS = ("limit", "quota", "ct count")


def needed(draft: Draft) -> int:
    """How many slots the new rules and objects of a transaction take."""
    rules = sum(
        expr.kind in KINDS
        for chains in draft.new_rules.values()
        for found in chains.values()
        for rule in found
        for expr in rule.program.exprs
    )
    return rules + sum(event.op == "add" and event.obj in _OBJECTS for event in draft.events)


class Counted:
    """The `ct count` of one process: connections that are over leave the sum also where no packet comes any more."""

    def __init__(self) -> None:
        self.known: list[Any] = []

    def add(self, exprs: Any) -> None:
        """Look after those that count together with other processes."""
        self.known += [ref(expr) for expr in exprs if expr.kind == "connlimit" and expr.slot is not None]

    def sweep(self, now: int) -> None:
        """Forget connections that are over, of everything."""
        left = []
        for entry in self.known:
            expr = entry()
            if expr is not None:
                expr.collect(now, len(expr.members))
                left.append(entry)
        self.known = left


def share_new(draft: Draft, pool: Pool, counted: Counted) -> None:
    """Give slots to what a commit has brought, before the next packet."""
    tables, generation = draft.rules.tables, draft.rules.generation
    for key, chains in draft.new_rules.items():
        table = tables.get(key)
        if table is not None:
            for rule in (rule for found in chains.values() for rule in found):
                _share_rule(rule, pool, counted, generation, table.handle)
    for event in draft.events:
        table = tables.get((event.family, event.table)) if event.op == "add" and event.obj in _OBJECTS else None
        entry = table.objects.get(Ref(event.obj, event.name)) if table is not None else None
        if table is not None and entry is not None:
            _share([entry.engine.expr], pool, counted, "object", generation, table.handle, entry.handle)
        if event.op == "delete" and event.obj == "rule" and event.node.program is not None:
            for expr in event.node.program.exprs:
                if expr.kind in KINDS:
                    expr.join(None)
    changed = {id(entry.engine) for _, entry, _ in draft.overlays.values()}
    for table in tables.values():
        for item in table.sets.values():
            if item.engine is None:
                continue
            new = item.engine.sharing is None
            if new:
                item.engine.sharing = Sharing(pool, counted.add, "set", table.handle, item.handle)
            if new or id(item.engine) in changed:
                _share_elements(item.engine)


def _share(exprs: Any, pool: Pool, counted: Counted, *name: object) -> None:
    if any(expr.kind in KINDS for expr in exprs):
        share(pool, exprs, *name)
        counted.add(exprs)


def _share_rule(rule: Rule, pool: Pool, counted: Counted, generation: int, table: int) -> None:
    _share(rule.program.exprs, pool, counted, "rule", generation, table, rule.handle)
    for number, engine in enumerate(rule.anonymous):
        engine.sharing = Sharing(pool, counted.add, "rule's set", generation, table, rule.handle, number)
        _share_elements(engine)


def _share_elements(engine: Any) -> None:
    if not engine.store.expr_count:
        return
    for element in engine:
        if element.exprs:
            engine.sharing.element(element.exprs, (element.key or b"") + (element.key_end or b""))
