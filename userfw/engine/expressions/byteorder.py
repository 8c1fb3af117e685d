"""byteorder: swap 2-, 4- or 8-byte numbers between host (little-endian here) and network order (Linux: nft_byteorder.c).

Linux converts 2-byte numbers packed, 4-byte numbers word by word and 8-byte numbers whole.
"""

from __future__ import annotations

import cython

from userfw.engine.expr import Expr, register_offset
from userfw.engine.registry import Row, register

if not cython.compiled:
    from userfw.core.const import NFT_CONTINUE
    from userfw.core.packet import Packet
    from userfw.engine.context import Context


class Byteorder(Expr):
    """`dreg` = `op`(`sreg`): numbers of `size` bytes over `length` bytes; `op` is ntoh or hton."""

    kind = "byteorder"

    def __init__(self, op: str, sreg: int, dreg: int, length: int, size: int) -> None:
        if op not in ("ntoh", "hton"):
            raise ValueError(f"no byte order operation {op!r}")
        if size not in (2, 4, 8):
            raise ValueError(f"numbers of 2, 4 or 8 bytes, not {size}")
        if length % size:
            raise ValueError(f"{length} bytes are no whole number of {size}-byte numbers")
        self.src = register_offset(sreg, length)
        self.dst = register_offset(dreg, length)
        self.op = op
        self.sreg = sreg
        self.dreg = dreg
        self.length = length
        self.size = size

    def evaluate(self, ctx: Context, pkt: Packet) -> cython.int:
        regs: bytearray = ctx.regs
        size: cython.int = self.size
        last: cython.int = size - 1
        base: cython.int = 0
        a: cython.int
        b: cython.int
        i: cython.int
        while base < self.length:
            for i in range(size // 2):
                a = regs[self.src + base + i]
                b = regs[self.src + base + last - i]
                regs[self.dst + base + i] = b
                regs[self.dst + base + last - i] = a
            base += size
        return NFT_CONTINUE

    def operands(self) -> str:
        return f"reg {self.dreg} = {self.op}(reg {self.sreg}, {self.size}, {self.length})"


register(Row("byteorder", Byteorder))
