"""What a checked tree refers to, and what it needs of the machine.

Laws:
- `refs_of` names every use once for each time it is written: jumps and gotos, named sets, objects, flowtables.
- What a rule needs of the machine is a use too, of kind `need`: `conntrack`, `defrag`, `nat`. The table's use counts then
  say, without looking at any rule, whether conntrack must run (Linux: nf_ct_netns_get in the expressions' init functions).
- The walk never follows a set reference into the set.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from userfw.nft.syntax import (
    ConnlimitStmt,
    ConstantExpr,
    CtExpr,
    Expr,
    FlowStmt,
    MapExpr,
    MeterStmt,
    NatStmt,
    Node,
    ObjrefStmt,
    RuleBlock,
    SetBlock,
    SetElemExpr,
    SetExpr,
    SetRefExpr,
    Stmt,
    SymbolExpr,
    SynproxyStmt,
    TproxyStmt,
    TypeExpr,
    VerdictExpr,
)
from userfw.ruleset.model import Ref

NEED_CONNTRACK = Ref("need", "conntrack")
NEED_DEFRAG = Ref("need", "defrag")

_CT_OBJECTS = ("ct helper", "ct timeout", "ct expectation", "synproxy")
_FIELDS: dict[type[Any], tuple[str, ...]] = {}
_SKIP = ("loc", "dtype", "key_dtype", "data_dtype", "target")


def children(node: Node) -> Iterator[Node]:
    """The nodes directly below a node, in the order of its fields."""
    if isinstance(node, RuleBlock):
        yield from statements(node)
        return
    cls = type(node)
    names = _FIELDS.get(cls)
    if names is None:
        names = _FIELDS[cls] = tuple(entry.name for entry in fields(node) if entry.name not in _SKIP)
    for name in names:
        value = getattr(node, name)
        if isinstance(value, Node):
            yield value
        elif isinstance(value, list):
            for item in value:
                if isinstance(item, Node):
                    yield item


def statements(rule: RuleBlock) -> list[Stmt]:
    """A rule's statements as they run: the checker's, with what it put in, without making it work out the listing."""
    evaluated: list[Stmt] | None = getattr(rule, "evaluated", None)
    return rule.stmts if evaluated is None else evaluated


def walk(node: Node) -> Iterator[Node]:
    """The node and everything below it, in the order written."""
    stack = [node]
    while stack:
        node = stack.pop()
        yield node
        stack.extend(reversed(list(children(node))))


def refs_of(node: Node) -> tuple[Ref, ...]:
    """Every use that a rule (or an element) makes of named things, and its needs."""
    refs: list[Ref] = []
    needs: set[Ref] = set()
    for item in walk(node):
        if isinstance(item, VerdictExpr):
            if item.chain is not None and item.block is None and item.kind in ("jump", "goto"):
                refs.append(Ref("chain", item.chain))
        elif isinstance(item, (SetRefExpr, MeterStmt)):
            refs.append(Ref("set", item.name))
        elif isinstance(item, FlowStmt):
            refs.append(Ref("flowtable", item.name))
            needs.add(NEED_CONNTRACK)
        elif isinstance(item, ObjrefStmt):
            refs.extend(_objects(item.kind, item.expr))
            if item.kind in _CT_OBJECTS:
                needs.add(NEED_CONNTRACK)
        elif isinstance(item, (CtExpr, NatStmt, SynproxyStmt, ConnlimitStmt)):
            needs.add(NEED_CONNTRACK)
        elif isinstance(item, TproxyStmt):
            needs.add(NEED_DEFRAG)
    return (*refs, *sorted(needs))


def element_refs(set_: SetBlock, elem: SetElemExpr) -> tuple[Ref, ...]:
    """The uses of a named set's element: chains of verdicts, objects of object maps, needs of its statements."""
    refs: list[Ref] = []
    data = elem.data
    if data is not None:
        if set_.objtype is not None:
            refs.extend(_objects(set_.objtype, data))
        elif isinstance(data, VerdictExpr) and data.chain is not None:
            refs.append(Ref("chain", data.chain))
    for stmt in elem.stmts:
        refs.extend(refs_of(stmt))
    return tuple(refs)


def set_refs(set_: SetBlock) -> tuple[Ref, ...]:
    """The uses that a set's own statements make (`ct count` needs conntrack)."""
    return tuple(ref for stmt in set_.stmts for ref in refs_of(stmt))


def _objects(kind: str, expr: Expr) -> list[Ref]:
    if isinstance(expr, ConstantExpr):
        value = expr.value
        return [Ref(kind, value.decode() if isinstance(value, bytes) else str(value))]
    if isinstance(expr, SymbolExpr):
        return [Ref(kind, expr.name)]
    if isinstance(expr, MapExpr) and isinstance(expr.mapping, SetExpr):
        return [ref for elem in expr.mapping.elements if elem.data is not None for ref in _objects(kind, elem.data)]
    return []


def anonymous_count(node: Node) -> int:
    """How many anonymous sets and maps a rule creates, each of which takes a handle of its own."""
    return sum(isinstance(item, SetExpr) for item in walk(node))


def meter_set(stmt: MeterStmt) -> SetBlock:
    """The set that a meter statement declares."""
    dtype = stmt.elem.dtype
    flags = ("dynamic", "timeout") if stmt.elem.timeout else ("dynamic",)
    names = [part.name for part in getattr(dtype, "parts", (dtype,))] if dtype is not None else []
    return SetBlock(stmt.name, key=TypeExpr(names), flags=flags, size=stmt.size, meter=True, key_dtype=dtype, loc=stmt.loc)


def bound_chains(node: Node) -> list[VerdictExpr]:
    """The verdicts of a rule whose target is an anonymous chain (`jump { … }`), not looking into those chains."""
    found: list[VerdictExpr] = []
    stack = [node]
    while stack:
        item = stack.pop()
        if isinstance(item, VerdictExpr) and item.block is not None:
            found.append(item)
            continue
        stack.extend(reversed(list(children(item))))
    return found
