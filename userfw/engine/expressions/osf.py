"""osf: guess the sender's operating system from a TCP SYN (Linux: nft_osf.c, nfnetlink_osf.c)."""

from __future__ import annotations

import cython

from userfw.engine.expr import Expr, register_offset
from userfw.engine.fingerprint import identify
from userfw.engine.registry import FWD, IN, PRE, Row, hooks, register

if not cython.compiled:
    from userfw.core.const import IPPROTO_TCP, NFPROTO_IPV4, NFT_BREAK, NFT_CONTINUE, TCP_SYN
    from userfw.core.packet import Packet
    from userfw.engine.context import Context
    from userfw.engine.expr import Expr

_TTL = {"": 0, "loose": 1, "skip": 2}


class Osf(Expr):
    """`dreg` = 16 bytes of genre, or genre:version if `version`; `ttl` is "" (true), loose or skip."""

    kind = "osf"

    def __init__(self, dreg: int, ttl: str = "", version: bool = False) -> None:
        if ttl not in _TTL:
            raise ValueError(f"no ttl check {ttl!r}")
        self.dst = register_offset(dreg, 16)
        self.dreg = dreg
        self.ttl = _TTL[ttl]
        self.version = version

    def evaluate(self, ctx: Context, pkt: Packet) -> cython.int:
        # a later fragment is read as if it began with the header, as Linux does
        if pkt.nfproto != NFPROTO_IPV4 or not ctx.l4 or pkt.l4proto != IPPROTO_TCP:
            return NFT_BREAK
        if pkt.l4 + 20 > pkt.end or not pkt.get8(pkt.l4 + 13) & TCP_SYN:
            return NFT_BREAK
        ctx.write_bytes(self.dst, identify(ctx.services.fingerprints, pkt, self.ttl, self.version), 16)
        return NFT_CONTINUE

    def operands(self) -> str:
        return f"dreg {self.dreg}"


register(Row("osf", Osf, hooks=hooks(PRE, IN, FWD)))
