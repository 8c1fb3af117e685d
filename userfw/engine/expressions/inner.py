"""inner: evaluate a payload or meta expression on the packet inside a tunnel (Linux: nft_inner.c)."""

from __future__ import annotations

import cython

from userfw.engine.expr import Expr
from userfw.engine.expressions.meta import Meta
from userfw.engine.expressions.payload import Payload
from userfw.engine.registry import Row, register

if not cython.compiled:
    from userfw.core.const import (
        ETH_P_8021Q,
        ETH_P_IP,
        ETH_P_IPV6,
        IPPROTO_AH,
        IPPROTO_DSTOPTS,
        IPPROTO_FRAGMENT,
        IPPROTO_GRE,
        IPPROTO_HOPOPTS,
        IPPROTO_ROUTING,
        IPPROTO_UDP,
        NFT_BREAK,
        NFT_CONTINUE,
    )
    from userfw.core.packet import Packet
    from userfw.engine.const import (
        BASE_LINK,
        BASE_NETWORK,
        BASE_TRANSPORT,
        BASE_TUNNEL,
        INNER_GENEVE,
        INNER_HDRSIZE,
        INNER_LL,
        META_PROTOCOL,
    )
    from userfw.engine.context import Context
    from userfw.engine.expr import Expr
    from userfw.engine.expressions.payload import copy_to_register, inner_offset

_TYPES = {"vxlan": (1, 8, 0xF), "geneve": (2, 8, 0xF), "gre": (3, 4, 0xC), "gretap": (4, 4, 0xE)}
_NAMES = {number: name for name, (number, _, _) in _TYPES.items()}


class Inner(Expr):
    """`expr` (a Payload, or a Meta of protocol or l4proto) seen from inside a `tunnel`: vxlan, geneve, gre or gretap."""

    kind = "inner"

    def __init__(self, tunnel: str, expr: Expr) -> None:
        if tunnel not in _TYPES:
            raise ValueError(f"no tunnel {tunnel!r}")
        if isinstance(expr, Meta):
            if expr.key not in (1, 16):
                raise ValueError("only meta protocol and l4proto exist inside a tunnel")
        elif not isinstance(expr, Payload):
            raise ValueError("only payload and meta work inside a tunnel")
        self.type, self.hdrsize, self.flags = _TYPES[tunnel]
        self.expr = expr
        self.is_meta = isinstance(expr, Meta)
        self.meta = expr if isinstance(expr, Meta) else None
        self.payload = expr if isinstance(expr, Payload) else None

    def evaluate(self, ctx: Context, pkt: Packet) -> cython.int:
        if ctx.inner_ready != self.type:
            ctx.inner_ready = 0
            if not self._parse(ctx, pkt):
                return NFT_BREAK
            ctx.inner_ready = self.type
        if self.payload is not None:
            return self._load(ctx, pkt, self.payload)
        if self.meta.key == META_PROTOCOL:  # type: ignore[union-attr]
            ctx.write_be16(self.meta.dst, ctx.inner_protocol)  # type: ignore[union-attr]
            return NFT_CONTINUE
        if ctx.inner_transport < 0:
            return NFT_BREAK
        ctx.write8(self.meta.dst, ctx.inner_l4proto)  # type: ignore[union-attr]
        return NFT_CONTINUE

    def _load(self, ctx: Context, pkt: Packet, expr: Payload) -> cython.int:
        start: cython.Py_ssize_t
        if expr.base == BASE_TUNNEL:
            start = ctx.inner_tunnel
        elif expr.base == BASE_LINK:
            start = ctx.inner_link
        elif expr.base == BASE_NETWORK:
            start = ctx.inner_network
        elif expr.base == BASE_TRANSPORT:
            start = ctx.inner_transport
        else:
            return NFT_BREAK
        if start < 0:
            return NFT_BREAK
        return copy_to_register(ctx, pkt, start + expr.offset, expr.length, expr.dst)

    def _parse(self, ctx: Context, pkt: Packet) -> cython.bint:
        """Find the headers inside, whatever carries them where no header of the tunnel is asked for (Linux: nft_inner_parse)."""
        off: cython.Py_ssize_t = inner_offset(ctx, pkt)
        ctx.inner_tunnel = -1
        ctx.inner_link = -1
        ctx.inner_network = -1
        ctx.inner_transport = -1
        if off < 0:
            return False
        if self.flags & INNER_HDRSIZE:
            if pkt.l4proto == IPPROTO_GRE:
                ctx.inner_tunnel = pkt.l4
            elif pkt.l4proto == IPPROTO_UDP:
                ctx.inner_tunnel = off
                if self.type == INNER_GENEVE:
                    if off + 8 > pkt.end:
                        return False
                    off += (pkt.get8(off) & 63) * 4
                off += self.hdrsize
            else:
                return False
        if self.flags & INNER_LL:
            return self._parse_ethernet(ctx, pkt, off)
        if off + 4 > pkt.end:
            return False
        if pkt.get8(off) >> 4 == 4:
            ctx.inner_protocol = ETH_P_IP
        elif pkt.get8(off) >> 4 == 6:
            ctx.inner_protocol = ETH_P_IPV6
        else:
            return False
        return self._parse_network(ctx, pkt, ctx.inner_protocol, off)

    def _parse_ethernet(self, ctx: Context, pkt: Packet, off: cython.Py_ssize_t) -> cython.bint:
        """The protocol of a tagged frame is the tag's; what is behind it is found all the same (Linux: nft_inner_parse_l2l3)."""
        protocol: cython.int
        if off + 14 > pkt.end:
            return False
        ctx.inner_link = off
        protocol = ctx.inner_protocol = pkt.get16(off + 12)
        off += 14
        if protocol == ETH_P_8021Q:
            if off + 4 > pkt.end:
                return False
            protocol = pkt.get16(off + 2)
            off += 4
        return self._parse_network(ctx, pkt, protocol, off)

    def _parse_network(self, ctx: Context, pkt: Packet, protocol: cython.int, off: cython.Py_ssize_t) -> cython.bint:
        size: cython.int
        if protocol == ETH_P_IP:
            if off + 20 > pkt.end:
                return False
            size = (pkt.get8(off) & 15) * 4
            if pkt.get8(off) >> 4 != 4 or size < 20:
                return False
            ctx.inner_network = off
            if pkt.get16(off + 6) & 0x1FFF == 0:
                ctx.inner_transport = off + size
                ctx.inner_l4proto = pkt.get8(off + 9)
            return True
        if protocol != ETH_P_IPV6 or off + 40 > pkt.end or pkt.get8(off) >> 4 != 6:
            return False
        ctx.inner_network = off
        return self._walk_ipv6(ctx, pkt, pkt.get8(off + 6), off + 40)

    def _walk_ipv6(self, ctx: Context, pkt: Packet, proto: cython.int, off: cython.Py_ssize_t) -> cython.bint:
        """To the transport header, or an authentication header (Linux: ipv6_find_hdr, which reads only what it needs)."""
        size: cython.int
        while proto in (IPPROTO_HOPOPTS, IPPROTO_ROUTING, IPPROTO_DSTOPTS, IPPROTO_FRAGMENT, IPPROTO_AH):
            if off + (4 if proto in (IPPROTO_ROUTING, IPPROTO_FRAGMENT) else 2) > pkt.end:
                return False
            if proto == IPPROTO_AH:
                break
            size = (pkt.get8(off + 1) + 1) * 8
            if proto == IPPROTO_FRAGMENT:
                if pkt.get16(off + 2) & 0xFFF8:
                    return pkt.get8(off) not in (IPPROTO_HOPOPTS, IPPROTO_ROUTING, IPPROTO_DSTOPTS, IPPROTO_FRAGMENT, IPPROTO_AH)
                size = 8
            proto = pkt.get8(off)
            off += size
        ctx.inner_transport = off
        ctx.inner_l4proto = proto
        return True

    def operands(self) -> str:
        return f"type {self.type} hdrsize {self.hdrsize} flags {self.flags:x} {self.expr.render()}"


register(Row("inner", Inner))
