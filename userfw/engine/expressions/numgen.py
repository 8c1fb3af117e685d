"""numgen: a counter or a random number below a modulus (Linux: nft_numgen.c)."""

from __future__ import annotations

import cython

from userfw.engine.expr import Expr, register_offset
from userfw.engine.registry import Row, register

if not cython.compiled:
    from userfw.core.const import NFT_CONTINUE
    from userfw.core.packet import Packet
    from userfw.engine.const import U32_MASK
    from userfw.engine.context import Context
    from userfw.engine.expr import Expr


class Numgen(Expr):
    """`dreg` = `offset` + (inc: next of 0 … `modulus`-1; random: any of them). The counter belongs to the expression."""

    kind = "numgen"

    def __init__(self, dreg: int, mode: str, modulus: int, offset: int = 0) -> None:
        if mode not in ("inc", "random"):
            raise ValueError(f"no numgen {mode!r}")
        if not 0 < modulus <= 0xFFFFFFFF:
            raise ValueError("modulus is 1 to 2^32-1")
        if offset + modulus - 1 > 0xFFFFFFFF or offset < 0:
            raise ValueError("offset + modulus overflow")
        self.dst = register_offset(dreg, 4)
        self.dreg = dreg
        self.random = mode == "random"
        self.modulus = modulus
        self.offset = offset
        self.counter = modulus - 1

    def evaluate(self, ctx: Context, pkt: Packet) -> cython.int:
        value: cython.ulonglong
        if self.random:
            # reciprocal_scale: the high word of a 32 by 32 bit product
            value = ctx.services.random()
            value = (value * self.modulus) >> 32
        else:
            self.counter = self.counter + 1 if self.counter + 1 < self.modulus else 0
            value = self.counter
        ctx.write32(self.dst, (value + self.offset) & U32_MASK)
        return NFT_CONTINUE

    def operands(self) -> str:
        mode = "random" if self.random else "inc"
        offset = f" offset {self.offset}" if self.offset else ""
        return f"reg {self.dreg} = {mode} mod {self.modulus}{offset}"


register(Row("numgen", Numgen))
