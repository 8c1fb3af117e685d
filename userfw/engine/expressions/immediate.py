"""immediate: put data into a register, or give a verdict (Linux: nft_immediate.c)."""

from __future__ import annotations

from typing import Any

import cython

from userfw.engine.expr import Expr, register_offset, words
from userfw.engine.registry import Row, register

if not cython.compiled:
    from userfw.core.const import NFT_CONTINUE, NFT_GOTO, NFT_JUMP
    from userfw.core.packet import Packet
    from userfw.engine.context import Context

VERDICTS = {"drop": 0, "accept": 1, "continue": -1, "break": -2, "jump": -3, "goto": -4, "return": -5}
VERDICT_NAMES = {code: name for name, code in VERDICTS.items()}


class Immediate(Expr):
    """`dreg` = `data` (1 to 64 bytes; the last word is zero-padded)."""

    kind = "immediate"

    def __init__(self, dreg: int, data: bytes) -> None:
        self.dst = register_offset(dreg, len(data))
        self.dreg = dreg
        self.data = bytes(data)
        self.padded = bytes(data).ljust((len(data) + 3) // 4 * 4, b"\0")
        self.length = len(self.padded)

    def evaluate(self, ctx: Context, pkt: Packet) -> cython.int:
        regs: bytearray = ctx.regs
        data: bytes = self.padded
        i: cython.int
        dst: cython.int = self.dst
        for i in range(self.length):
            regs[dst + i] = data[i]
        return NFT_CONTINUE

    def operands(self) -> str:
        return f"reg {self.dreg} {words(self.data)}"


class ImmediateVerdict(Expr):
    """A verdict: accept, drop, continue, return, or jump and goto with the name of a chain of the same table."""

    kind = "immediate"

    def __init__(self, code: int | str, chain: str = "") -> None:
        number = VERDICTS.get(code) if isinstance(code, str) else code
        if number not in VERDICT_NAMES or number is None:
            raise ValueError(f"no verdict {code!r}")
        if (number in (NFT_JUMP, NFT_GOTO)) != bool(chain):
            raise ValueError("jump and goto need a chain, other verdicts take none")
        self.code = number
        self.chain = chain
        self.target: Any = None

    def evaluate(self, ctx: Context, pkt: Packet) -> cython.int:
        ctx.target = self.target
        return self.code

    def operands(self) -> str:
        return f"reg 0 {VERDICT_NAMES[self.code]}" + (f" -> {self.chain}" if self.chain else "")

    def bind(self, scope: Any) -> None:
        if self.chain:
            self.target = scope.chain(self.chain)


register(Row("immediate", Immediate))
register(Row("verdict", ImmediateVerdict))
