"""notrack: conntrack shall not look at this packet (Linux: nft_notrack_eval). Packets with an entry are left alone."""

from __future__ import annotations

import cython

from userfw.engine.expr import Expr
from userfw.engine.registry import Row, register

if not cython.compiled:
    from userfw.core.const import CT_UNTRACKED, NFT_CONTINUE
    from userfw.core.packet import Packet
    from userfw.engine.context import Context
    from userfw.engine.expr import Expr


class Notrack(Expr):
    """Marks a packet without an entry as untracked."""

    kind = "notrack"

    def evaluate(self, ctx: Context, pkt: Packet) -> cython.int:
        if pkt.ct is None:
            pkt.ctinfo = CT_UNTRACKED
        return NFT_CONTINUE


# Linux validates no hook for notrack; behind conntrack it changes nothing
register(Row("notrack", Notrack))
