"""Headers of the packets that the gateway itself sends: ARP, IPv4, IPv6, ICMP, ICMPv6, TCP resets.

Laws: a builder is given a reset Packet; the network header goes to HEADROOM, so there is room for any link-layer header in
front. `start`, `l3`, `l4`, `end` and the parse results are right afterwards, checksums complete. Addresses are (hi, lo), host
order, IPv4 in `lo`.
"""

import cython

if not cython.compiled:
    from userfw.core.const import (
        ETH_P_ARP,
        ETH_P_IP,
        ETH_P_IPV6,
        HEADROOM,
        IPPROTO_ICMP,
        IPPROTO_ICMPV6,
        IPPROTO_TCP,
        NFPROTO_ARP,
        NFPROTO_IPV4,
        NFPROTO_IPV6,
        VNET_F_NEEDS_CSUM,
    )
    from userfw.core.packet import Packet
    from userfw.wire.checksum import add_bytes, fold, pseudo_sum, write_ipv4


def ethernet(pkt: Packet, dst_hi: cython.uint, dst_lo: cython.uint, src_hi: cython.uint, src_lo: cython.uint) -> cython.int:
    """Write the Ethernet header in front of `l3`, EtherType `pkt.protocol`; MACs as first 4 and last 2 bytes."""
    start: cython.Py_ssize_t = pkt.l3 - 14
    pkt.put32(start, dst_hi)
    pkt.put16(start + 4, dst_lo)
    pkt.put32(start + 6, src_hi)
    pkt.put16(start + 10, src_lo)
    pkt.put16(start + 12, pkt.protocol)
    if pkt.vnet_flags & VNET_F_NEEDS_CSUM:
        pkt.csum_start += cython.cast(cython.int, pkt.start - start)
    pkt.start = start
    return 0


def arp(
    pkt: Packet,
    op: cython.int,
    sender_hi: cython.uint,
    sender_lo: cython.uint,
    sender: cython.uint,
    target_hi: cython.uint,
    target_lo: cython.uint,
    target: cython.uint,
) -> cython.int:
    """An ARP packet for IPv4 over Ethernet (RFC 826), without its Ethernet header."""
    off: cython.Py_ssize_t = HEADROOM
    pkt.start = pkt.l3 = pkt.l4 = off
    pkt.protocol = ETH_P_ARP
    pkt.nfproto = NFPROTO_ARP
    pkt.put32(off, 0x00010800)
    pkt.put32(off + 4, 0x06040000 | op)
    pkt.put32(off + 8, sender_hi)
    pkt.put16(off + 12, sender_lo)
    pkt.put32(off + 14, sender)
    pkt.put32(off + 18, target_hi)
    pkt.put16(off + 22, target_lo)
    pkt.put32(off + 24, target)
    pkt.end = off + 28
    return 0


def ipv4(
    pkt: Packet,
    l4proto: cython.int,
    payload: cython.Py_ssize_t,
    src: cython.uint,
    dst: cython.uint,
    ttl: cython.int,
    tos: cython.int,
    ident: cython.uint,
    df: cython.bint,
) -> cython.int:
    """An IPv4 header for `payload` bytes that follow at `l4`."""
    off: cython.Py_ssize_t = HEADROOM
    pkt.start = pkt.l3 = off
    pkt.l4 = off + 20
    pkt.end = off + 20 + payload
    pkt.protocol = ETH_P_IP
    pkt.nfproto = NFPROTO_IPV4
    pkt.l4proto = l4proto
    pkt.has_l4 = True
    pkt.put16(off, 0x4500 | (tos & 0xFF))
    pkt.put16(off + 2, 20 + payload)
    pkt.put16(off + 4, ident)
    pkt.put16(off + 6, 0x4000 if df else 0)
    pkt.put16(off + 8, (ttl << 8) | l4proto)
    pkt.put32(off + 12, src)
    pkt.put32(off + 16, dst)
    write_ipv4(pkt)
    return 0


def ipv4_options(pkt: Packet, options: bytes) -> cython.int:
    """Put options (padded to 4 bytes) behind a header that `ipv4` built; the payload's place moves."""
    size: cython.Py_ssize_t = len(options)
    pkt.data[pkt.l4 : pkt.l4 + size] = options
    pkt.l4 += size
    pkt.end += size
    pkt.put8(pkt.l3, 0x40 | cython.cast(cython.uint, (pkt.l4 - pkt.l3) >> 2))
    pkt.put16(pkt.l3 + 2, cython.cast(cython.uint, pkt.end - pkt.l3))
    write_ipv4(pkt)
    return 0


def ipv6(
    pkt: Packet,
    l4proto: cython.int,
    payload: cython.Py_ssize_t,
    src_hi: cython.ulonglong,
    src_lo: cython.ulonglong,
    dst_hi: cython.ulonglong,
    dst_lo: cython.ulonglong,
    hop_limit: cython.int,
    tclass: cython.int,
) -> cython.int:
    """An IPv6 header for `payload` bytes that follow at `l4`."""
    off: cython.Py_ssize_t = HEADROOM
    pkt.start = pkt.l3 = off
    pkt.l4 = off + 40
    pkt.end = off + 40 + payload
    pkt.protocol = ETH_P_IPV6
    pkt.nfproto = NFPROTO_IPV6
    pkt.l4proto = l4proto
    pkt.has_l4 = True
    pkt.put32(off, 0x60000000 | ((tclass & 0xFF) << 20))
    pkt.put16(off + 4, payload)
    pkt.put16(off + 6, (l4proto << 8) | hop_limit)
    pkt.put64(off + 8, src_hi)
    pkt.put64(off + 16, src_lo)
    pkt.put64(off + 24, dst_hi)
    pkt.put64(off + 32, dst_lo)
    return 0


def icmp_checksum(pkt: Packet) -> cython.int:
    """Compute and write the checksum of the ICMP or ICMPv6 message at `l4`."""
    length: cython.Py_ssize_t = pkt.end - pkt.l4
    total: cython.uint = 0
    pkt.put16(pkt.l4 + 2, 0)
    if pkt.nfproto == NFPROTO_IPV6:
        total = pseudo_sum(pkt, IPPROTO_ICMPV6, length)
    pkt.put16(pkt.l4 + 2, ~fold(add_bytes(total, pkt.data, pkt.l4, length)) & 0xFFFF)
    return 0


def icmp_checksum_ok(pkt: Packet) -> cython.bint:
    """The ICMP or ICMPv6 message that ends at `end` carries the right checksum."""
    length: cython.Py_ssize_t = pkt.end - pkt.l4
    total: cython.uint = 0
    if pkt.nfproto == NFPROTO_IPV6:
        total = pseudo_sum(pkt, IPPROTO_ICMPV6, length)
    return fold(add_bytes(total, pkt.data, pkt.l4, length)) == 0xFFFF


def copy_bytes(
    target: Packet, to: cython.Py_ssize_t, source: Packet, off: cython.Py_ssize_t, length: cython.Py_ssize_t
) -> cython.int:
    """Copy `length` bytes from one packet's buffer into another's."""
    src: bytearray = source.data
    dst: bytearray = target.data
    dst[to : to + length] = src[off : off + length]
    return 0


def tcp_reset(
    pkt: Packet, source: cython.int, dest: cython.int, seq: cython.uint, ack: cython.uint, flags: cython.int
) -> cython.int:
    """A bare TCP header of 20 bytes with a zero window at `l4`; the IP header is written already."""
    l4: cython.Py_ssize_t = pkt.l4
    pkt.put16(l4, source)
    pkt.put16(l4 + 2, dest)
    pkt.put32(l4 + 4, seq)
    pkt.put32(l4 + 8, ack)
    pkt.put16(l4 + 12, 0x5000 | flags)
    pkt.put32(l4 + 14, 0)
    pkt.put16(l4 + 18, 0)
    total: cython.uint = pseudo_sum(pkt, IPPROTO_TCP, 20)
    pkt.put16(l4 + 16, ~fold(add_bytes(total, pkt.data, l4, 20)) & 0xFFFF)
    return 0


def leave_checksum(pkt: Packet, offset: cython.int) -> cython.int:
    """Leave the TCP or UDP checksum, `offset` bytes behind `l4`, to who sends the packet (Linux: CHECKSUM_PARTIAL)."""
    pkt.put16(pkt.l4 + offset, fold(pseudo_sum(pkt, pkt.l4proto, pkt.end - pkt.l4)))
    pkt.vnet_flags |= VNET_F_NEEDS_CSUM
    pkt.csum_start = cython.cast(cython.int, pkt.l4 - pkt.start)
    pkt.csum_offset = offset
    return 0


def is_icmp(pkt: Packet) -> cython.bint:
    """The transport of the packet's family is its ICMP."""
    return pkt.l4proto == (IPPROTO_ICMP if pkt.nfproto == NFPROTO_IPV4 else IPPROTO_ICMPV6)
