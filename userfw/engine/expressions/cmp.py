"""cmp and range: compare a register with constants, byte by byte in memory order (Linux: nft_cmp.c, nft_range.c)."""

from __future__ import annotations

import cython

from userfw.engine.expr import Expr, register_offset, words
from userfw.engine.registry import Row, register

if not cython.compiled:
    from userfw.core.const import NFT_BREAK, NFT_CONTINUE
    from userfw.core.packet import Packet
    from userfw.engine.const import CMP_EQ, CMP_GT, CMP_LT, CMP_LTE, CMP_NEQ
    from userfw.engine.context import Context

OPERATORS = {"eq": 0, "neq": 1, "lt": 2, "lte": 3, "gt": 4, "gte": 5}
OPERATOR_NAMES = {code: name for name, code in OPERATORS.items()}


def memcmp(regs: bytearray, src: cython.int, data: bytes, length: cython.int) -> cython.int:
    """-1, 0 or 1 as the register's `length` bytes at `src` sort before, with or after `data`."""
    i: cython.int
    a: cython.int
    b: cython.int
    for i in range(length):
        a = regs[src + i]
        b = data[i]
        if a != b:
            return -1 if a < b else 1
    return 0


class Cmp(Expr):
    """The rule goes on if `sreg` `op` `data`; `op` is eq, neq, lt, lte, gt or gte."""

    kind = "cmp"

    def __init__(self, op: str, sreg: int, data: bytes) -> None:
        if op not in OPERATORS:
            raise ValueError(f"no comparison {op!r}")
        self.src = register_offset(sreg, len(data))
        self.op = OPERATORS[op]
        self.sreg = sreg
        self.data = bytes(data)
        self.length = len(data)

    def evaluate(self, ctx: Context, pkt: Packet) -> cython.int:
        order: cython.int = memcmp(ctx.regs, self.src, self.data, self.length)
        op: cython.int = self.op
        if op == CMP_EQ:
            return NFT_CONTINUE if order == 0 else NFT_BREAK
        if op == CMP_NEQ:
            return NFT_CONTINUE if order != 0 else NFT_BREAK
        if op == CMP_LT:
            return NFT_CONTINUE if order < 0 else NFT_BREAK
        if op == CMP_LTE:
            return NFT_CONTINUE if order <= 0 else NFT_BREAK
        if op == CMP_GT:
            return NFT_CONTINUE if order > 0 else NFT_BREAK
        return NFT_CONTINUE if order >= 0 else NFT_BREAK

    def operands(self) -> str:
        return f"{OPERATOR_NAMES[self.op]} reg {self.sreg} {words(self.data)}"

    def with_data(self, data: bytes) -> Cmp:
        """The same comparison with other bytes, as many."""
        other: Cmp = Cmp.__new__(Cmp)
        other.op = self.op
        other.sreg = self.sreg
        other.src = self.src
        other.length = self.length
        other.data = data
        return other


class Range(Expr):
    """The rule goes on if `low` <= `sreg` <= `high` (op eq), or if not (op neq)."""

    kind = "range"

    def __init__(self, op: str, sreg: int, low: bytes, high: bytes) -> None:
        if op not in ("eq", "neq"):
            raise ValueError(f"range knows eq and neq, not {op!r}")
        if len(low) != len(high):
            raise ValueError("the bounds of a range have the same length")
        if low > high:
            raise ValueError("Range negative size")
        self.src = register_offset(sreg, len(low))
        self.op = OPERATORS[op]
        self.sreg = sreg
        self.low = bytes(low)
        self.high = bytes(high)
        self.length = len(low)

    def evaluate(self, ctx: Context, pkt: Packet) -> cython.int:
        regs: bytearray = ctx.regs
        inside: cython.bint = (
            memcmp(regs, self.src, self.low, self.length) >= 0 and memcmp(regs, self.src, self.high, self.length) <= 0
        )
        if inside == (self.op == CMP_EQ):
            return NFT_CONTINUE
        return NFT_BREAK

    def operands(self) -> str:
        return f"{OPERATOR_NAMES[self.op]} reg {self.sreg} {words(self.low)} {words(self.high)}"


register(Row("cmp", Cmp))
register(Row("range", Range))
