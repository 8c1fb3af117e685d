"""xfrm: IPsec state of the packet (Linux: nft_xfrm.c).

userfw has no IPsec: no packet has passed a transform, so the load breaks the rule, as in Linux for plain packets.
"""

from __future__ import annotations

import cython

from userfw.engine.expr import Expr, register_offset
from userfw.engine.registry import FWD, IN, OUT, POST, PRE, Row, hooks, register

if not cython.compiled:
    from userfw.core.const import NFT_BREAK
    from userfw.core.packet import Packet
    from userfw.engine.context import Context
    from userfw.engine.expr import Expr


_KEYS = {"daddr4": (1, 4), "daddr6": (2, 16), "saddr4": (3, 4), "saddr6": (4, 16), "reqid": (5, 4), "spi": (6, 4)}


class Xfrm(Expr):
    """`dreg` = `key` (daddr4, daddr6, saddr4, saddr6, reqid, spi) of the transform number `spnum`, `direction` in or out."""

    kind = "xfrm"

    def __init__(self, dreg: int, key: str, direction: str, spnum: int = 0) -> None:
        if key not in _KEYS:
            raise ValueError(f"no ipsec key {key!r}")
        if direction not in ("in", "out"):
            raise ValueError(f"no direction {direction!r}")
        if not 0 <= spnum < 6:
            raise ValueError("spnum is 0 to 5")
        self.length = _KEYS[key][1]
        self.dst = register_offset(dreg, self.length)
        self.dreg = dreg
        self.key = key
        self.direction = direction
        self.spnum = spnum

    def evaluate(self, ctx: Context, pkt: Packet) -> cython.int:
        return NFT_BREAK

    def operands(self) -> str:
        return f"load {self.direction} {self.spnum} {self.key} => reg {self.dreg}"

    def refusal(self, family: int, hook: int, chain_type: int) -> str | None:
        legal = (IN, FWD, PRE) if self.direction == "in" else (OUT, FWD, POST)
        return None if hook in legal else f"ipsec {self.direction}: not supported at this hook (EOPNOTSUPP)"


register(Row("xfrm", Xfrm, hooks=hooks(PRE, IN, FWD, OUT, POST)))
