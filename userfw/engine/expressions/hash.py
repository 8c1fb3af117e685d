"""hash: jhash of a register, or a symmetric hash of the flow, scaled to a modulus (Linux: nft_hash.c)."""

from __future__ import annotations

from userfw.engine.expr import Expr, register_offset
from userfw.engine.registry import Row, register


def _check(modulus: int, offset: int) -> None:
    if not 0 < modulus <= 0xFFFFFFFF:
        raise ValueError("modulus is 1 to 2^32-1")
    if offset < 0 or offset + modulus - 1 > 0xFFFFFFFF:
        raise ValueError("offset + modulus overflow")


class Jhash(Expr):
    """`dreg` = `offset` + jhash(`length` bytes of `sreg`, `seed`) scaled to `modulus`."""

    kind = "hash"

    def __init__(self, dreg: int, sreg: int, length: int, modulus: int, seed: int = 0, offset: int = 0) -> None:
        _check(modulus, offset)
        if not 0 <= seed <= 0xFFFFFFFF:
            raise ValueError("seed is 32 bits")
        self.src = register_offset(sreg, length)
        self.dst = register_offset(dreg, 4)
        self.sreg = sreg
        self.dreg = dreg
        self.length = length
        self.modulus = modulus
        self.seed = seed
        self.offset = offset

    def operands(self) -> str:
        offset = f" offset {self.offset}" if self.offset else ""
        return f"reg {self.dreg} = jhash(reg {self.sreg}, {self.length}, 0x{self.seed:x}) % mod {self.modulus}{offset}"


class Symhash(Expr):
    """`dreg` = `offset` + a hash of the flow, the same for both directions, scaled to `modulus`."""

    kind = "hash"

    def __init__(self, dreg: int, modulus: int, offset: int = 0) -> None:
        _check(modulus, offset)
        self.dst = register_offset(dreg, 4)
        self.dreg = dreg
        self.modulus = modulus
        self.offset = offset

    def operands(self) -> str:
        offset = f" offset {self.offset}" if self.offset else ""
        return f"reg {self.dreg} = symhash() % mod {self.modulus}{offset}"


register(Row("jhash", Jhash))
register(Row("symhash", Symhash))
