"""objref: run a named object (counter, quota, limit, ct helper, …), chosen by name or through a map (Linux: nft_objref.c)."""

from __future__ import annotations

from typing import Any

import cython

from userfw.engine.expr import Expr, register_offset
from userfw.engine.registry import FWD, IN, TRACKED, Row, register

OBJECT_TYPES = {
    "counter": 1,
    "quota": 2,
    "ct helper": 3,
    "limit": 4,
    "ct count": 5,
    "tunnel": 6,
    "ct timeout": 7,
    "secmark": 8,
    "ct expectation": 9,
    "synproxy": 10,
}
_OF_CONNECTIONS = (3, 5, 7, 9)

if not cython.compiled:
    from userfw.core.const import NFT_BREAK
    from userfw.core.packet import Packet
    from userfw.engine.context import Context
    from userfw.engine.objects.object import NamedObject
    from userfw.engine.sets.base import Set
    from userfw.engine.sets.elements import Rich


class Objref(Expr):
    """The object `name` of `type` (nft's words: counter, ct helper, …)."""

    kind = "objref"

    def __init__(self, type: str | int, name: str) -> None:
        number = OBJECT_TYPES.get(type) if isinstance(type, str) else type
        if number not in OBJECT_TYPES.values() or number is None:
            raise ValueError(f"no object type {type!r}")
        self.type = number
        self.name = name
        self.object: NamedObject | None = None

    def evaluate(self, ctx: Context, pkt: Packet) -> cython.int:
        return self.object.expr.evaluate(ctx, pkt)  # type: ignore[union-attr]

    def operands(self) -> str:
        return f"type {self.type} name {self.name}"

    def refusal(self, family: int, hook: int, chain_type: int) -> str | None:
        """A synproxy stands where its expression may (Linux: nft_objref_validate)."""
        if self.type in _OF_CONNECTIONS and family not in TRACKED:
            return "ct: not supported in this family (EPROTO)"
        refused = self.type == OBJECT_TYPES["synproxy"] and (family not in (1, 2, 10) or hook not in (IN, FWD))
        return "synproxy: not supported at this hook (EOPNOTSUPP)" if refused else None

    def bind(self, scope: Any) -> None:
        self.object = scope.object(self.type, self.name)


class ObjrefMap(Expr):
    """The object that the map `set_name` gives for the key in `sreg`; the rule breaks if there is none."""

    kind = "objref"

    def __init__(self, sreg: int, set_name: str) -> None:
        self.src = register_offset(sreg)
        self.sreg = sreg
        self.set_name = set_name
        self.set: Any = None

    def evaluate(self, ctx: Context, pkt: Packet) -> cython.int:
        table: Set = self.set
        rich: Rich
        named: NamedObject
        id: cython.Py_ssize_t = table.find(ctx.regs, self.src)
        if id < 0:
            return NFT_BREAK
        rich = table.rich(id)
        named = rich.object
        return named.expr.evaluate(ctx, pkt)

    def operands(self) -> str:
        return f"sreg {self.sreg} set {self.set_name}"

    def bind(self, scope: Any) -> None:
        table = scope.set(self.set_name)
        if table.data_type != 3:
            raise ValueError(f"{self.set_name} does not map to objects (EINVAL)")
        register_offset(self.sreg, table.klen)
        self.set = table


register(Row("objref", Objref))
register(Row("objref map", ObjrefMap))
