"""tunnel: metadata of a collect-metadata tunnel device (Linux: nft_tunnel.c).

userfw has no such devices: no packet carries tunnel metadata. `path` is then 0, and `id` breaks the rule, as in Linux.
"""

from __future__ import annotations

import cython

from userfw.engine.expr import Expr, register_offset
from userfw.engine.registry import Row, register

if not cython.compiled:
    from userfw.core.const import NFT_BREAK, NFT_CONTINUE
    from userfw.core.packet import Packet
    from userfw.engine.context import Context
    from userfw.engine.expr import Expr


_MODES = {"": 0, "rx": 1, "tx": 2}


class Tunnel(Expr):
    """`dreg` = path (0 or 1) or id; `mode` "" (any), rx or tx."""

    kind = "tunnel"

    def __init__(self, dreg: int, key: str, mode: str = "") -> None:
        if key not in ("path", "id"):
            raise ValueError(f"no tunnel key {key!r}")
        if mode not in _MODES:
            raise ValueError(f"no tunnel mode {mode!r}")
        self.length = 1 if key == "path" else 4
        self.dst = register_offset(dreg, self.length)
        self.dreg = dreg
        self.key = key
        self.mode = mode
        self.path = key == "path"

    def evaluate(self, ctx: Context, pkt: Packet) -> cython.int:
        if not self.path:
            return NFT_BREAK
        ctx.write8(self.dst, 0)
        return NFT_CONTINUE

    def operands(self) -> str:
        return f"load {self.key} => reg {self.dreg}"


register(
    Row("tunnel", Tunnel, hooks={2: frozenset(range(5)), 10: frozenset(range(5)), 1: frozenset(range(6)), 5: frozenset((0, 1))})
)
