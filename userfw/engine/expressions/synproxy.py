"""synproxy: answer SYNs with cookies on behalf of a server (Linux: nft_synproxy.c, nf_synproxy_core.c)."""

from __future__ import annotations

import cython

from userfw.engine.expr import Expr
from userfw.engine.registry import FWD, IN, Row, hooks, register

if not cython.compiled:
    from userfw.core.const import IPPROTO_TCP, NF_ACCEPT, NF_DROP, NFT_BREAK, NFT_CONTINUE
    from userfw.core.drop import DROP_SYNPROXY
    from userfw.core.packet import Packet
    from userfw.engine.context import Context
    from userfw.engine.expr import Expr


class Synproxy(Expr):
    """`mss`, `wscale` (None: not given), `timestamp`, `sack_perm`: what the server speaks. Also the state of a synproxy object."""

    kind = "synproxy"

    def __init__(self, mss: int | None = None, wscale: int | None = None, timestamp: bool = False, sack_perm: bool = False) -> None:
        if mss is not None and not 0 <= mss <= 0xFFFF:
            raise ValueError("mss is 16 bits")
        if wscale is not None and not 0 <= wscale <= 14:
            raise ValueError("wscale is 0 to 14")
        self.mss = mss or 0
        self.wscale = wscale or 0
        self.flags = (mss is not None) | (wscale is not None) << 1 | sack_perm << 2 | timestamp << 3

    def evaluate(self, ctx: Context, pkt: Packet) -> cython.int:
        verdict: cython.int
        if not ctx.l4 or pkt.l4proto != IPPROTO_TCP or pkt.fragoff != 0:
            return NFT_BREAK
        if pkt.l4 + 20 > pkt.end:
            pkt.drop_reason = DROP_SYNPROXY
            return NF_DROP
        verdict = ctx.services.synproxy(pkt, ctx.hook, self.mss, self.wscale, self.flags)
        if verdict == NF_ACCEPT:
            return NFT_CONTINUE
        if verdict == NF_DROP and not pkt.drop_reason:
            pkt.drop_reason = DROP_SYNPROXY
        return verdict

    def operands(self) -> str:
        return f"mss {self.mss} wscale {self.wscale}"


register(Row("synproxy", Synproxy, hooks=hooks(IN, FWD)))
