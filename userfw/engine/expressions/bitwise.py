"""bitwise: mask and xor with constants, shifts, and the boolean forms over two sources (Linux: nft_bitwise.c).

Linux works on whole words: what a value leaves free of its last word becomes zero.
"""

from __future__ import annotations

import cython

from userfw.engine.expr import Expr, register_offset, words
from userfw.engine.registry import Row, register

if not cython.compiled:
    from userfw.core.const import NFT_CONTINUE
    from userfw.core.packet import Packet
    from userfw.engine.const import U32_MASK
    from userfw.engine.context import Context

_SHIFTS = {"lshift": "<<", "rshift": ">>"}
_BOOLEANS = {"and": "&", "or": "|", "xor": "^"}


class Bitwise(Expr):
    """`dreg` = (`sreg` & `mask`) ^ `xor`; both constants as long as the value."""

    kind = "bitwise"

    def __init__(self, sreg: int, dreg: int, mask: bytes, xor: bytes) -> None:
        if len(mask) != len(xor):
            raise ValueError("mask and xor have the same length")
        self.src = register_offset(sreg, len(mask))
        self.dst = register_offset(dreg, len(mask))
        self.sreg = sreg
        self.dreg = dreg
        self.mask = bytes(mask)
        self.xor = bytes(xor)
        self.length = len(mask)

    def evaluate(self, ctx: Context, pkt: Packet) -> cython.int:
        regs: bytearray = ctx.regs
        mask: bytes = self.mask
        xor: bytes = self.xor
        src: cython.int = self.src
        dst: cython.int = self.dst
        m: cython.int
        x: cython.int
        i: cython.int
        for i in range(self.length):
            m = mask[i]
            x = xor[i]
            regs[dst + i] = (regs[src + i] & m) ^ x
        while (dst + i + 1) & 3:
            i += 1
            regs[dst + i] = 0
        return NFT_CONTINUE

    def operands(self) -> str:
        return f"reg {self.dreg} = ( reg {self.sreg} & {words(self.mask)} ) ^ {words(self.xor)}"


class BitwiseShift(Expr):
    """`dreg` = `sreg` << or >> `bits` (`op` lshift or rshift) over `length` bytes, rounded up to words.

    Linux: nft_bitwise_eval_lshift and _rshift: each word is a host-order number, and the carry goes from word to word,
    from the last to the first for a left shift.
    """

    kind = "bitwise"

    def __init__(self, op: str, sreg: int, dreg: int, length: int, bits: int) -> None:
        if op not in _SHIFTS:
            raise ValueError(f"no shift {op!r}")
        if not 0 < bits < 32:
            raise ValueError(f"a shift is by 1 to 31 bits, not {bits}")
        self.src = register_offset(sreg, length)
        self.dst = register_offset(dreg, length)
        self.left = op == "lshift"
        self.op = op
        self.sreg = sreg
        self.dreg = dreg
        self.length = length
        self.bits = bits
        self.words = (length + 3) // 4

    def evaluate(self, ctx: Context, pkt: Packet) -> cython.int:
        carry: cython.uint = 0
        word: cython.uint
        bits: cython.uint = self.bits
        i: cython.int
        if self.left:
            for i in range(self.words - 1, -1, -1):
                word = ctx.read32(self.src + 4 * i)
                ctx.write32(self.dst + 4 * i, ((word << bits) & U32_MASK) | carry)
                carry = word >> (32 - bits)
        else:
            for i in range(self.words):
                word = ctx.read32(self.src + 4 * i)
                ctx.write32(self.dst + 4 * i, carry | (word >> bits))
                carry = (word << (32 - bits)) & U32_MASK
        return NFT_CONTINUE

    def operands(self) -> str:
        return f"reg {self.dreg} = ( reg {self.sreg} {_SHIFTS[self.op]} 0x{self.bits:08x} )"


class BitwiseBool(Expr):
    """`dreg` = `sreg` `op` `sreg2` over `length` bytes; `op` is and, or, xor (Linux 6.13: NFT_BITWISE_AND, OR, XOR)."""

    kind = "bitwise"

    def __init__(self, op: str, sreg: int, sreg2: int, dreg: int, length: int) -> None:
        if op not in _BOOLEANS:
            raise ValueError(f"no boolean operation {op!r}")
        self.src = register_offset(sreg, length)
        self.src2 = register_offset(sreg2, length)
        self.dst = register_offset(dreg, length)
        self.op = op
        self.code = list(_BOOLEANS).index(op)
        self.sreg = sreg
        self.sreg2 = sreg2
        self.dreg = dreg
        self.length = length
        self.padded = (length + 3) // 4 * 4

    def evaluate(self, ctx: Context, pkt: Packet) -> cython.int:
        regs: bytearray = ctx.regs
        a: cython.int = self.src
        b: cython.int = self.src2
        dst: cython.int = self.dst
        code: cython.int = self.code
        i: cython.int
        for i in range(self.padded):
            if code == 0:
                regs[dst + i] = regs[a + i] & regs[b + i]
            elif code == 1:
                regs[dst + i] = regs[a + i] | regs[b + i]
            else:
                regs[dst + i] = regs[a + i] ^ regs[b + i]
        return NFT_CONTINUE

    def operands(self) -> str:
        return f"reg {self.dreg} = ( reg {self.sreg} {_BOOLEANS[self.op]} reg {self.sreg2} )"


register(Row("bitwise", Bitwise))
register(Row("bitwise shift", BitwiseShift))
register(Row("bitwise bool", BitwiseBool))
