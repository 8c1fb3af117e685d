"""What a checked tree refers to, and what it needs of the machine.

Laws:
- `refs_of` names every use once for each time it is written: jumps and gotos, named sets, objects, flowtables.
- What a rule needs of the machine is a use too, of kind `need`: `conntrack`, `defrag`, `synproxy`. The table's use counts then
  say, without looking at any rule, whether conntrack must run (Linux: nf_ct_netns_get in the expressions' init functions).
- The walk never follows a set reference into the set.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

from userfw.nft.syntax import (
    ConnlimitStmt,
    ConstantExpr,
    CounterStmt,
    CtExpr,
    Expr,
    FlowStmt,
    LimitStmt,
    LogStmt,
    MangleStmt,
    MapExpr,
    MapUpdateStmt,
    MetaExpr,
    MeterStmt,
    NatStmt,
    Node,
    ObjrefStmt,
    PayloadExpr,
    RuleBlock,
    SetBlock,
    SetElemExpr,
    SetExpr,
    SetRefExpr,
    SetUpdateStmt,
    Stmt,
    SymbolExpr,
    SynproxyStmt,
    TproxyStmt,
    TypeExpr,
    VerdictExpr,
)
from userfw.ruleset.model import Ref

NEED_CONNTRACK = Ref("need", "conntrack")
NEED_CONNTRACK_OF = {"ip": Ref("need", "conntrack ip"), "ip6": Ref("need", "conntrack ip6")}
"""NAT to an address tracks the address's family only, also in an inet table (Linux: nft_nat_init)."""
NEED_DEFRAG = Ref("need", "defrag")
NEED_DEFRAG_OF = {"ip": Ref("need", "defrag ip"), "ip6": Ref("need", "defrag ip6")}
NEED_SYNPROXY = Ref("need", "synproxy")
NEEDS = (NEED_CONNTRACK, *NEED_CONNTRACK_OF.values(), NEED_DEFRAG, *NEED_DEFRAG_OF.values(), NEED_SYNPROXY)
DYNAMIC_SIZE = 65535
"""Most elements of a set that packets add to, where none was given (nft)."""

_CT_OBJECTS = ("ct helper", "ct timeout", "ct expectation", "synproxy")
_FIELDS: dict[type[Any], tuple[str, ...]] = {}
_SKIP = ("loc", "dtype", "key_dtype", "data_dtype", "target")


def statements(rule: RuleBlock) -> list[Stmt]:
    """A rule's statements as they run: the checker's, with what it put in, without making it work out the listing."""
    evaluated: list[Stmt] | None = getattr(rule, "evaluated", None)
    return rule.stmts if evaluated is None else evaluated


@dataclass(slots=True)
class Survey:
    """What one walk over a rule finds: its uses, its anonymous sets, its meters, the sets that it updates, its anonymous chains
    (not looked into)."""

    refs: list[Ref] = field(default_factory=list)
    needs: set[Ref] = field(default_factory=set)
    anonymous: int = 0
    meters: list[MeterStmt] = field(default_factory=list)
    updates: list[tuple[str, bool]] = field(default_factory=list)
    bound: list[VerdictExpr] = field(default_factory=list)

    @property
    def uses(self) -> tuple[Ref, ...]:
        """Every use, each as often as it is written, and the needs."""
        return (*self.refs, *sorted(self.needs)) if self.needs else tuple(self.refs)


def survey(node: Node) -> Survey:
    """Look at a rule or a statement once. Uses inside anonymous chains belong to the rules there."""
    found = Survey()
    stack: list[Node] = [node]
    while stack:
        item = stack.pop()
        cls = type(item)
        if cls in _LEAVES:
            continue
        visit = _VISITS.get(cls)
        if visit is not None and not visit(found, item):
            continue
        if isinstance(item, RuleBlock):
            stack.extend(reversed(statements(item)))
            continue
        below: list[Node] = []
        for name in _FIELDS.get(cls) or _fields_of(item):
            value = getattr(item, name)
            kind = type(value)
            if kind in _LEAVES:
                continue
            if kind is list:
                below += [entry for entry in value if type(entry) not in _LEAVES and isinstance(entry, Node)]
            elif isinstance(value, Node):
                below.append(value)
        below.reverse()
        stack += below
    return found


def _fields_of(node: Node) -> tuple[str, ...]:
    names = _FIELDS[type(node)] = tuple(entry.name for entry in fields(node) if entry.name not in _SKIP)
    return names


def _verdict(found: Survey, item: VerdictExpr) -> bool:
    if item.block is not None:
        found.bound.append(item)
    elif item.chain is not None and item.kind in ("jump", "goto"):
        found.refs.append(Ref("chain", item.chain))
    return False


def _set_ref(found: Survey, item: SetRefExpr) -> bool:
    found.refs.append(Ref("set", item.name))
    return False


def _set(found: Survey, item: SetExpr) -> bool:
    found.anonymous += 1
    elements = item.elements
    return not elements or elements[0].data is not None or bool(elements[0].stmts) or type(elements[0].key) is SetExpr


def _meter(found: Survey, item: MeterStmt) -> bool:
    found.refs.append(Ref("set", item.name))
    found.meters.append(item)
    return True


def _set_update(found: Survey, item: SetUpdateStmt) -> bool:
    found.updates.append((item.set.name, bool(item.stmts or item.elem.stmts)))
    return True


def _map_update(found: Survey, item: MapUpdateStmt) -> bool:
    found.updates.append((item.map.name, bool(item.stmts or item.elem.stmts)))
    return True


def _flow(found: Survey, item: FlowStmt) -> bool:
    found.refs.append(Ref("flowtable", item.name))
    found.needs.add(NEED_CONNTRACK)
    return False


def _objref(found: Survey, item: ObjrefStmt) -> bool:
    found.refs.extend(_objects(item.kind, item.expr))
    if item.kind in _CT_OBJECTS:
        found.needs.add(NEED_CONNTRACK)
    if item.kind == "synproxy":
        found.needs.add(NEED_SYNPROXY)
    return True


def _synproxy(found: Survey, item: SynproxyStmt) -> bool:
    found.needs.update((NEED_CONNTRACK, NEED_SYNPROXY))
    return True


def _needs_conntrack(found: Survey, item: Node) -> bool:
    found.needs.add(NEED_CONNTRACK)
    return True


def _nat(found: Survey, item: NatStmt) -> bool:
    found.needs.add(NEED_CONNTRACK_OF.get(item.family or "", NEED_CONNTRACK))
    return True


def _tproxy(found: Survey, item: TproxyStmt) -> bool:
    found.needs.add(NEED_DEFRAG_OF.get(item.family or "", NEED_DEFRAG))
    return True


def _mangle(found: Survey, item: MangleStmt) -> bool:
    """`ct mark set` and its like; what is written is not walked into (`target` is also a set's link to its block)."""
    if isinstance(item.target, CtExpr):
        found.needs.add(NEED_CONNTRACK)
    return True


_LEAVES: frozenset[type[Any]] = frozenset((
    ConstantExpr, SymbolExpr, PayloadExpr, MetaExpr, CounterStmt, LogStmt, LimitStmt, str, int, bool, bytes, tuple, type(None),
))  # fmt: skip
_VISITS: dict[type[Any], Callable[[Survey, Any], bool]] = {
    VerdictExpr: _verdict,
    SetRefExpr: _set_ref,
    SetExpr: _set,
    MeterStmt: _meter,
    SetUpdateStmt: _set_update,
    MapUpdateStmt: _map_update,
    FlowStmt: _flow,
    ObjrefStmt: _objref,
    CtExpr: _needs_conntrack,
    MangleStmt: _mangle,
    NatStmt: _nat,
    SynproxyStmt: _synproxy,
    ConnlimitStmt: _needs_conntrack,
    TproxyStmt: _tproxy,
}


def refs_of(node: Node) -> tuple[Ref, ...]:
    """Every use that a rule (or a statement) makes of named things, and its needs."""
    return survey(node).uses


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


def meter_set(stmt: MeterStmt) -> SetBlock:
    """The set that a meter statement declares."""
    dtype = stmt.elem.dtype
    flags = ("dynamic", "timeout") if stmt.elem.timeout else ("dynamic",)
    names = [part.name for part in getattr(dtype, "parts", (dtype,))] if dtype is not None else []
    size = stmt.size or DYNAMIC_SIZE
    return SetBlock(stmt.name, key=TypeExpr(names), flags=flags, size=size, meter=True, key_dtype=dtype, loc=stmt.loc)
