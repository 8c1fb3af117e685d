"""secmark and tunnel objects.

userfw has no security module: a secmark's context is only a name, and `id` the number that packets carry for it. Nor has it
collect-metadata tunnel devices: a tunnel object breaks the rule that uses it.
"""

from __future__ import annotations

from typing import Any

import cython

from userfw.engine.expr import Expr

if not cython.compiled:
    from userfw.core.const import NFT_BREAK, NFT_CONTINUE
    from userfw.core.packet import Packet
    from userfw.engine.context import Context


class Secmark(Expr):
    """The packet carries `id`, which the caller chose for `context`."""

    kind = "secmark"

    def __init__(self, context: str, id: int) -> None:
        self.context = context
        self.id = id

    def evaluate(self, ctx: Context, pkt: Packet) -> cython.int:
        pkt.secmark = self.id
        return NFT_CONTINUE

    def operands(self) -> str:
        return f"ctx {self.context}"


class TunnelObject(Expr):
    """Kept and listed; `info` is what the model knows of it."""

    kind = "tunnel"

    def __init__(self, info: Any) -> None:
        self.info = info

    def evaluate(self, ctx: Context, pkt: Packet) -> cython.int:
        return NFT_BREAK
