"""What follows from renaming a chain: rules and elements that jump to it show the new name."""

from __future__ import annotations

from copy import copy
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, TypeVar

from userfw.nft.syntax import Node, VerdictExpr
from userfw.ruleset.elements import Element
from userfw.ruleset.model import Ref, Rule, Table
from userfw.ruleset.references import refs_of

if TYPE_CHECKING:
    from userfw.ruleset.draft import Draft

N = TypeVar("N", bound=Node)


def rename_target(draft: Draft, table: Table, old: str, new: str) -> None:
    """Rewrite the trees of a table that is the draft's own. Compiled rules refer to the chain itself and stay."""
    ref = Ref("chain", old)
    for chain in list(table.chains.values()):
        if not any(ref in rule.refs for rule in chain.rules):
            continue
        chain = draft.edit_chain(table, chain)
        chain.rules = [_renamed(rule, old, new) if ref in rule.refs else rule for rule in chain.rules]
    for entry in table.sets.values():
        if entry.node.data is None:
            continue
        for element in list(draft.elements(entry)):
            data = element.node.data
            if isinstance(data, VerdictExpr) and data.chain == old:
                node = replace(element.node, data=replace(data, chain=new))
                overlay = draft.overlay(table, entry)
                overlay.replace(element, Element(element.key, node, element.engine))


def _renamed(rule: Rule, old: str, new: str) -> Rule:
    node = rule.node
    if hasattr(node, "evaluated"):
        fresh = copy(node)
        fresh.evaluated = [with_target(stmt, old, new) for stmt in node.evaluated]
        fresh.stmts = [with_target(stmt, old, new) for stmt in node.stmts]
        node = fresh
    else:
        node = with_target(node, old, new)
    other = Rule(rule.handle, node, refs_of(node), rule.program)
    other.anonymous = rule.anonymous
    other.bound = rule.bound
    return other


def with_target(node: N, old: str, new: str) -> N:
    """A copy of a tree in which jumps to `old` go to `new`; the tree itself if there are none."""
    if isinstance(node, VerdictExpr) and node.chain == old and node.block is None:
        return replace(node, chain=new)
    changes: dict[str, Any] = {}
    for entry in fields(node):
        if entry.name in ("loc", "dtype", "target"):
            continue
        value = getattr(node, entry.name)
        if isinstance(value, Node):
            fresh: Any = with_target(value, old, new)
            if fresh is not value:
                changes[entry.name] = fresh
        elif isinstance(value, list) and value and isinstance(value[0], Node):
            items = [with_target(item, old, new) for item in value]
            if any(item is not was for item, was in zip(items, value, strict=True)):
                changes[entry.name] = items
    return replace(node, **changes) if changes else node
