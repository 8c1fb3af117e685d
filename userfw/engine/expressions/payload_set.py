"""payload set: write register bytes into the packet and keep its checksums right (Linux: nft_payload_set_eval).

- `csum_type` inet: the checksum at `csum_offset` of the same header is updated by the difference (IPv4 header, TCP, ICMP, …);
  a UDP checksum of zero stays zero and a computed zero is written as 0xffff. sctp: CRC32c over the whole packet.
- `csum_flags` pseudohdr: the written bytes are part of the transport's pseudo-header, whose checksum is updated too.
- A packet with a partial checksum (VNET_F_NEEDS_CSUM) holds only the pseudo-header's sum, so only pseudo-header changes touch it.
"""

from __future__ import annotations

import cython

from userfw.engine.expr import Expr, register_offset
from userfw.engine.expressions.payload import BASE_NAMES, BASES
from userfw.engine.registry import Row, register

if not cython.compiled:
    from userfw.core.const import (
        IPPROTO_ICMP,
        IPPROTO_ICMPV6,
        IPPROTO_SCTP,
        IPPROTO_TCP,
        IPPROTO_UDP,
        IPPROTO_UDPLITE,
        NFPROTO_IPV4,
        NFPROTO_IPV6,
        NFT_BREAK,
        NFT_CONTINUE,
        VNET_F_NEEDS_CSUM,
    )
    from userfw.core.packet import Packet
    from userfw.engine.const import BASE_INNER, BASE_LINK, BASE_NETWORK, BASE_TRANSPORT, CSUM_INET, CSUM_SCTP, U32_MASK
    from userfw.engine.context import Context
    from userfw.engine.expr import Expr
    from userfw.engine.expressions.payload import base_offset
    from userfw.engine.sets.elements import load32, store32
    from userfw.wire.checksum import add_bytes, fold

_CSUM_TYPES = {"none": 0, "inet": 1, "sctp": 2}


def link_position(pkt: Packet, offset: cython.int) -> cython.Py_ssize_t:
    """Where link-layer byte `offset` stands; a VLAN device's own tag is skipped."""
    if offset >= 12 and pkt.iif is not None and pkt.iif.vlan_id >= 0 and pkt.vlan_tci >= 0:
        return pkt.start + offset + 4
    return pkt.start + offset


def replace_sum(pkt: Packet, at: cython.Py_ssize_t, old: cython.uint, new: cython.uint) -> cython.int:
    """Update the checksum at `at` after bytes with sum `old` became `new`; zero is written as 0xffff (Linux: nft_csum_replace)."""
    total: cython.uint = (~pkt.get16(at) & 0xFFFF) + (~fold(old) & 0xFFFF) + fold(new)
    value: cython.uint = ~fold(total) & 0xFFFF
    pkt.put16(at, value if value else 0xFFFF)
    return 0


def update_transport(ctx: Context, pkt: Packet, old: cython.uint, new: cython.uint, partial: cython.bint) -> cython.int:
    """Update TCP's, UDP's or ICMPv6's checksum; others and fragments have none to update (Linux: nft_payload_l4csum_update)."""
    at: cython.Py_ssize_t = pkt.l4
    if not ctx.l4 or pkt.fragoff != 0:
        return 0
    if pkt.l4proto == IPPROTO_TCP:
        at += 16
    elif pkt.l4proto == IPPROTO_UDP or pkt.l4proto == IPPROTO_UDPLITE:
        at += 6
        if pkt.l4proto == IPPROTO_UDP and (at + 2 > pkt.end or pkt.get16(at) == 0):
            return 0
    elif pkt.l4proto == IPPROTO_ICMPV6:
        at += 2
    else:
        return 0
    if at + 2 > pkt.end:
        return -1
    if partial:
        # the field holds the folded sum of the pseudo-header, not complemented
        pkt.put16(at, fold(pkt.get16(at) + (~fold(old) & 0xFFFF) + fold(new)))
    else:
        replace_sum(pkt, at, old, new)
    return 0


def _refresh(pkt: Packet, base: cython.int, offset: cython.int, length: cython.int) -> cython.int:
    """Keep what was parsed true after a write: the VLAN tag, the transport protocol."""
    end: cython.int = offset + length
    if base == BASE_LINK:
        if pkt.vlan_tci >= 0 and offset < 16 and end > 14:
            pkt.vlan_tci = pkt.get16(pkt.start + 14)
    elif pkt.nfproto == NFPROTO_IPV4:
        if offset <= 9 < end:
            pkt.l4proto = pkt.get8(pkt.l3 + 9)
    elif pkt.nfproto == NFPROTO_IPV6 and offset <= 6 < end and pkt.l4 == pkt.l3 + 40:
        pkt.l4proto = pkt.get8(pkt.l3 + 6)
    return 0


def _crc_table() -> bytearray:
    table = bytearray(1024)
    for n in range(256):
        crc = n
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
        table[n * 4 : n * 4 + 4] = crc.to_bytes(4, "little")
    return table


CRC_TABLE = _crc_table()


def write_crc(pkt: Packet) -> cython.int:
    """SCTP's CRC32c over the transport part (RFC 9260 appendix A), stored little-endian as the wire has it."""
    crc: cython.uint = U32_MASK
    data: bytearray = pkt.data
    table: bytearray = CRC_TABLE
    i: cython.Py_ssize_t
    if pkt.l4 + 12 > pkt.end:
        return 0
    pkt.put32(pkt.l4 + 8, 0)
    for i in range(pkt.l4, pkt.end):
        crc = (crc >> 8) ^ load32(table, ((crc ^ data[i]) & 0xFF) * 4)
    crc = ~crc & U32_MASK
    store32(data, pkt.l4 + 8, crc)
    return 0


class PayloadSet(Expr):
    """Write `length` bytes of `sreg` at `offset` of the header `base`."""

    kind = "payload"

    def __init__(
        self,
        sreg: int,
        base: str,
        offset: int,
        length: int,
        csum_type: int | str = 0,
        csum_offset: int = 0,
        csum_flags: int = 0,
    ) -> None:
        number = _CSUM_TYPES.get(csum_type) if isinstance(csum_type, str) else csum_type
        if base not in BASES or base == "tunnel":
            raise ValueError(f"no header {base!r}")
        if number not in (0, 1, 2) or number is None:
            raise ValueError(f"no checksum type {csum_type!r}")
        if number == 2 and (base != "transport" or csum_offset != 8):
            raise ValueError("an SCTP checksum is at offset 8 of the transport header")
        if csum_flags & ~1:
            raise ValueError(f"unknown checksum flags 0x{csum_flags:x}")
        self.src = register_offset(sreg, length)
        self.sreg = sreg
        self.base = BASES[base]
        self.offset = offset
        self.length = length
        self.csum_type = number
        self.csum_offset = csum_offset
        self.csum_flags = csum_flags

    def evaluate(self, ctx: Context, pkt: Packet) -> cython.int:
        data: bytearray = pkt.data
        regs: bytearray = ctx.regs
        length: cython.int = self.length
        start: cython.Py_ssize_t = base_offset(ctx, pkt, self.base)
        i: cython.int
        if start < 0:
            return NFT_BREAK
        at: cython.Py_ssize_t = start + self.offset
        if self.base == BASE_LINK:
            at = link_position(pkt, self.offset)
        if at + length > pkt.end:
            return NFT_BREAK
        if self.base != BASE_TRANSPORT:
            pkt.rewritten = True
        behind: cython.bint = self.base == BASE_TRANSPORT or self.base == BASE_INNER
        partial: cython.bint = pkt.vnet_flags & VNET_F_NEEDS_CSUM != 0
        if (self.csum_type == CSUM_INET or self.csum_flags) and not (behind and partial):
            old: cython.uint = add_bytes(0, data, at, length)
            new: cython.uint = add_bytes(0, regs, self.src, length)
            if self.csum_type == CSUM_INET:
                if start + self.csum_offset + 2 > pkt.end:
                    return NFT_BREAK
                replace_sum(pkt, start + self.csum_offset, old, new)
            if self.csum_flags and update_transport(ctx, pkt, old, new, partial) < 0:
                return NFT_BREAK
        if pkt.checked > 0 and self.base == BASE_NETWORK:
            self._forget_sum(pkt)
        for i in range(length):
            data[at + i] = regs[self.src + i]
        if self.csum_type == CSUM_SCTP and pkt.l4proto == IPPROTO_SCTP and not partial and pkt.fragoff == 0:
            write_crc(pkt)
        if self.base == BASE_LINK or self.base == BASE_NETWORK:
            _refresh(pkt, self.base, self.offset, length)
        return NFT_CONTINUE

    def _forget_sum(self, pkt: Packet) -> cython.int:
        """What conntrack knows of the sum no longer fits where the header's part in it changed (Linux: skb->csum, of which
        nft_payload_l4csum_update and nf_ip6_checksum take the addresses off)."""
        addresses: cython.int = 12 if pkt.nfproto == NFPROTO_IPV4 else 8
        within: cython.bint = self.offset + self.length > addresses
        if pkt.nfproto == NFPROTO_IPV4:
            if not within or self.csum_flags or pkt.l4proto == IPPROTO_ICMP:
                return 0
        elif within and self.offset >= addresses and not self.csum_flags:
            return 0
        pkt.checked = 1
        return 0

    def operands(self) -> str:
        return (
            f"write reg {self.sreg} => {self.length}b @ {BASE_NAMES[self.base]} header + {self.offset} "
            f"csum_type {self.csum_type} csum_off {self.csum_offset} csum_flags 0x{self.csum_flags:x}"
        )


register(Row("payload set", PayloadSet))
