"""lookup: is the key in the set; a map also gives data or a verdict (Linux: nft_lookup.c)."""

from __future__ import annotations

from typing import Any

import cython

from userfw.engine.expr import Expr, register_offset
from userfw.engine.registry import Row, register

if not cython.compiled:
    from userfw.core.const import NFT_BREAK, NFT_CONTINUE
    from userfw.core.packet import Packet
    from userfw.engine.context import Context
    from userfw.engine.sets.base import Set
    from userfw.engine.sets.elements import Rich, Verdict


class Lookup(Expr):
    """`sreg` looked up in `set_name`; `invert`: go on if absent. `dreg` None: a set; 0: a verdict map; else the map's data
    register."""

    kind = "lookup"

    def __init__(self, sreg: int, set_name: str, dreg: int | None = None, invert: bool = False) -> None:
        if invert and dreg is not None:
            raise ValueError("an inverted lookup gives no data")
        self.src = register_offset(sreg)
        self.dst = register_offset(dreg) if dreg else -1
        self.sreg = sreg
        self.dreg = -1 if dreg is None else dreg
        self.set_name = set_name
        self.invert = invert
        self.set: Any = None
        self.map = dreg is not None
        self.verdict = dreg == 0

    def evaluate(self, ctx: Context, pkt: Packet) -> cython.int:
        table: Set = self.set
        id: cython.Py_ssize_t
        rich: Rich
        verdict: Verdict | None
        if not self.map and table.store.expr_count == 0:
            return NFT_BREAK if table.contains(ctx.regs, self.src) == self.invert else NFT_CONTINUE
        id = table.find(ctx.regs, self.src)
        if id < 0:
            return NFT_CONTINUE if self.invert else NFT_BREAK
        if self.invert:
            return NFT_BREAK
        if self.dst >= 0:
            table.store.copy_data(id, ctx.regs, self.dst)
        if table.store.expr_count:
            result: cython.int = table.run_exprs(id, ctx, pkt)
            if result != NFT_CONTINUE:
                return result
        if self.verdict:
            rich = table.rich(id)
            verdict = rich.verdict
            ctx.target = verdict.target  # type: ignore[union-attr]
            return verdict.code  # type: ignore[union-attr]
        return NFT_CONTINUE

    def operands(self) -> str:
        text = f"reg {self.sreg} set {self.set_name}"
        if self.dreg >= 0:
            text += f" dreg {self.dreg}"
        return text + (" 0x1" if self.invert else "")

    def bind(self, scope: Any) -> None:
        """The set must have data of the kind that is wanted; a verdict map's jumps are bound when elements are added."""
        table = scope.set(self.set_name)
        if (self.verdict and table.data_type != 2) or (self.dst >= 0 and table.data_type != 1):
            raise ValueError(f"{self.set_name} is no such map (EINVAL)")
        register_offset(self.sreg, table.klen)
        if self.dst >= 0:
            register_offset(self.dreg, table.dlen)
        self.set = table


register(Row("lookup", Lookup))
