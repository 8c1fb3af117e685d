"""payload: load bytes of the packet into a register (Linux: nft_payload.c).

Loads beyond the packet break the rule, nothing is zero-filled. Transport loads break on fragments other than the first and where
the
transport protocol is unknown; link loads break where there is no link header.

Except that Linux's fast path (nft_payload_fast_eval: 1, 2 or 4 aligned bytes) does not look at the fragment offset. Seen on
6.18: such loads
from a later fragment read its payload in IPv4, and the network header in IPv6, where no transport header was found.
It matters only before defragmentation and in netdev chains.
"""

from __future__ import annotations

import cython

from userfw.engine.expr import Expr, register_offset
from userfw.engine.registry import Row, register

if not cython.compiled:
    from userfw.core.const import (
        IPPROTO_GRE,
        IPPROTO_IPIP,
        IPPROTO_TCP,
        IPPROTO_UDP,
        NF_NETDEV_EGRESS,
        NFPROTO_IPV6,
        NFPROTO_NETDEV,
        NFT_BREAK,
        NFT_CONTINUE,
    )
    from userfw.core.packet import Packet
    from userfw.engine.const import BASE_INNER, BASE_LINK, BASE_NETWORK, BASE_TRANSPORT
    from userfw.engine.context import Context

BASES = {"link": 0, "network": 1, "transport": 2, "inner": 3, "tunnel": 4}
BASE_NAMES = {code: name for name, code in BASES.items()}


def base_offset(ctx: Context, pkt: Packet, base: cython.int) -> cython.Py_ssize_t:
    """Where the header `base` starts in `pkt.data`, or -1 if the packet has none that may be read."""
    if base == BASE_NETWORK:
        return pkt.l3
    if base == BASE_TRANSPORT:
        return pkt.l4 if ctx.l4 and pkt.fragoff == 0 else -1
    if base == BASE_LINK:
        return pkt.start if pkt.l3 > pkt.start else -1
    if base == BASE_INNER:
        return inner_offset(ctx, pkt)
    return -1


def fast_transport(ctx: Context, pkt: Packet) -> cython.Py_ssize_t:
    """Where a fast transport load reads, fragments included (at egress the data of an skb begin with the link header)."""
    if pkt.fragoff != 0 and pkt.nfproto == NFPROTO_IPV6:
        return pkt.start if ctx.family == NFPROTO_NETDEV and ctx.hook == NF_NETDEV_EGRESS else pkt.l3
    return pkt.l4


def inner_offset(ctx: Context, pkt: Packet) -> cython.Py_ssize_t:
    """Start of what the transport header carries (Linux: __nft_payload_inner_offset): behind UDP, TCP or GRE, or at the
    packet of IPv4 in IP; -1 if none."""
    if not ctx.l4 or pkt.fragoff != 0:
        return -1
    off: cython.Py_ssize_t = pkt.l4
    flags: cython.int
    if pkt.l4proto == IPPROTO_UDP:
        return off + 8
    if pkt.l4proto == IPPROTO_TCP:
        if off + 20 > pkt.end:
            return -1
        return off + (pkt.get8(off + 12) >> 4) * 4
    if pkt.l4proto == IPPROTO_GRE:
        if off + 4 > pkt.end:
            return -1
        flags = pkt.get16(off)
        if flags & 0x4007 != 0:  # a version other than 0, or routing
            return -1
        off += 4
        if flags & 0x8000:
            off += 4
        if flags & 0x2000:
            off += 4
        if flags & 0x1000:
            off += 4
        return off
    if pkt.l4proto == IPPROTO_IPIP:
        return off
    return -1


def copy_to_register(ctx: Context, pkt: Packet, start: cython.Py_ssize_t, length: cython.int, dst: cython.int) -> cython.int:
    """Copy `length` bytes at `start`; the rest of the last word becomes zero. NFT_BREAK if they are not all in the packet."""
    regs: bytearray = ctx.regs
    data: bytearray = pkt.data
    i: cython.int
    if start < 0 or start + length > pkt.end:
        return NFT_BREAK
    if length == 4:
        regs[dst] = data[start]
        regs[dst + 1] = data[start + 1]
        regs[dst + 2] = data[start + 2]
        regs[dst + 3] = data[start + 3]
        return NFT_CONTINUE
    for i in range(length):
        regs[dst + i] = data[start + i]
    i = length
    while i & 3:
        regs[dst + i] = 0
        i += 1
    return NFT_CONTINUE


def copy_link(ctx: Context, pkt: Packet, offset: cython.int, length: cython.int, dst: cython.int) -> cython.int:
    """A link-layer load. On a VLAN device the device's own tag is no longer part of the frame (Linux: vlan_do_receive)."""
    start: cython.Py_ssize_t = pkt.start
    if pkt.l3 <= start:
        return NFT_BREAK
    if pkt.iif is None or pkt.iif.vlan_id < 0 or pkt.vlan_tci < 0 or offset + length <= 12:
        return copy_to_register(ctx, pkt, start + offset, length, dst)
    if offset >= 12:
        return copy_to_register(ctx, pkt, start + 4 + offset, length, dst)
    if start + 4 + offset + length > pkt.end:
        return NFT_BREAK
    i: cython.int
    at: cython.Py_ssize_t
    for i in range(length):
        at = start + offset + i
        ctx.regs[dst + i] = pkt.data[at + 4 if offset + i >= 12 else at]
    i = length
    while i & 3:
        ctx.regs[dst + i] = 0
        i += 1
    return NFT_CONTINUE


class Payload(Expr):
    """`dreg` = `length` bytes at `offset` of the header `base` (link, network, transport, inner or tunnel).

    inner is what a transport header carries; tunnel is legal within an `inner` expression only.
    """

    kind = "payload"

    def __init__(self, dreg: int, base: str, offset: int, length: int) -> None:
        if base not in BASES:
            raise ValueError(f"no header {base!r}")
        if not 0 <= offset <= 0xFFFF:
            raise ValueError(f"payload offset {offset} out of range")
        self.dst = register_offset(dreg, length)
        self.dreg = dreg
        self.base = BASES[base]
        self.offset = offset
        self.length = length
        self.fast = base == "transport" and length in (1, 2, 4) and offset % length == 0

    def evaluate(self, ctx: Context, pkt: Packet) -> cython.int:
        start: cython.Py_ssize_t
        if self.base == BASE_LINK:
            return copy_link(ctx, pkt, self.offset, self.length, self.dst)
        if self.fast:
            if not ctx.l4:
                return NFT_BREAK
            start = fast_transport(ctx, pkt)
        else:
            start = base_offset(ctx, pkt, self.base)
            if start < 0:
                return NFT_BREAK
        return copy_to_register(ctx, pkt, start + self.offset, self.length, self.dst)

    def operands(self) -> str:
        return f"load {self.length}b @ {BASE_NAMES[self.base]} header + {self.offset} => reg {self.dreg}"


register(Row("payload", Payload))
