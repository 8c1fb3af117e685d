"""fib: ask the routing table (Linux: nft_fib_ipv4.c, nft_fib_ipv6.c, nft_fib_inet.c, nft_fib_netdev.c)."""

from __future__ import annotations

from userfw.engine.expr import Expr, register_offset
from userfw.engine.registry import Row, register

_RESULTS = {"oif": (1, 4), "oifname": (2, 16), "type": (3, 4)}
_RESULT_NAMES = {number: name for name, (number, _) in _RESULTS.items()}
_FLAGS = {"saddr": 1, "daddr": 2, "mark": 4, "iif": 8, "oif": 16}


class Fib(Expr):
    """`dreg` = `result` (oif, oifname or type) of a lookup by `flags`: one of saddr, daddr, and any of mark, iif, oif.

    `present`: 1 or 0 as an output device exists (oif and oifname only).
    """

    kind = "fib"

    def __init__(self, dreg: int, result: str, flags: tuple[str, ...], present: bool = False) -> None:
        if result not in _RESULTS:
            raise ValueError(f"no fib result {result!r}")
        bits = 0
        for flag in flags:
            if flag not in _FLAGS:
                raise ValueError(f"no fib flag {flag!r}")
            bits |= _FLAGS[flag]
        if bits & 3 not in (1, 2):
            raise ValueError("fib needs either saddr or daddr")
        if bits & 24 == 24:
            raise ValueError("fib takes either iif or oif")
        if present and result == "type":
            raise ValueError("fib check is about a device, not a type")
        self.result, size = _RESULTS[result]
        self.length = 1 if present else size
        self.dst = register_offset(dreg, size)
        self.dreg = dreg
        self.flags = bits
        self.present = present

    def operands(self) -> str:
        flags = " . ".join(name for name, bit in _FLAGS.items() if self.flags & bit)
        present = " present" if self.present else ""
        return f"{flags} {_RESULT_NAMES[self.result]}{present} => reg {self.dreg}"


register(Row("fib", Fib))
