"""Partial checksums that nobody tells of: frames of a veth's other end, seen by XDP (Linux: CHECKSUM_PARTIAL).

A local sender that leaves the transport checksum to its device writes the folded sum of the pseudo-header into the field. XDP knows
nothing of it, but the value itself tells: `mark_untrusted` compares. A whole checksum has that value by chance once in 65,536; then
completing it gives the same value again, so nothing is lost but the detection of damage in just that packet.

Law: TCP and UDP right behind IPv4 or IPv6 (and its hop-by-hop, routing and destination headers), not fragmented; else no mark.
"""

import cython

if not cython.compiled:
    from userfw.core.const import (
        ETH_P_IP,
        ETH_P_IPV6,
        IPPROTO_DSTOPTS,
        IPPROTO_HOPOPTS,
        IPPROTO_ROUTING,
        IPPROTO_TCP,
        IPPROTO_UDP,
        VNET_F_NEEDS_CSUM,
    )
    from userfw.core.packet import Packet
    from userfw.wire._raw import add_words
    from userfw.wire.checksum import fold


def mark_untrusted(pkt: Packet) -> cython.bint:
    """Set VNET_F_NEEDS_CSUM, `csum_start`, `csum_offset` of a received Ethernet frame if its checksum is partial; whether it is."""
    l3: cython.Py_ssize_t = pkt.start + 14
    l4: cython.Py_ssize_t
    end: cython.Py_ssize_t
    protocol: cython.int
    kind: cython.uint
    if pkt.end < l3 + 28:
        return False
    kind = pkt.get16(l3 - 2)
    if kind == ETH_P_IP:
        l4 = l3 + (pkt.get8(l3) & 15) * 4
        end = l3 + pkt.get16(l3 + 2)
        if pkt.get8(l3) >> 4 != 4 or l4 < l3 + 20 or pkt.get16(l3 + 6) & 0x3FFF:
            return False
        return _mark(pkt, l3, l4, end, cython.cast(cython.int, pkt.get8(l3 + 9)), l3 + 12, 8)
    if kind != ETH_P_IPV6 or pkt.end < l3 + 48:
        return False
    protocol = pkt.get8(l3 + 6)
    l4 = l3 + 40
    end = l4 + pkt.get16(l3 + 4)
    for _ in range(8):
        if protocol != IPPROTO_HOPOPTS and protocol != IPPROTO_ROUTING and protocol != IPPROTO_DSTOPTS:
            break
        if l4 + 8 > pkt.end:
            return False
        protocol = pkt.get8(l4)
        l4 += (pkt.get8(l4 + 1) + 1) * 8
    return _mark(pkt, l3, l4, end, protocol, l3 + 8, 32)


def _mark(
    pkt: Packet, l3: cython.Py_ssize_t, l4: cython.Py_ssize_t, end: cython.Py_ssize_t, protocol: cython.int,
    source: cython.Py_ssize_t, size: cython.Py_ssize_t,
) -> cython.bint:  # fmt: skip
    """`source`, `size`: where the addresses are, both together; `end`: where the network layer says that it ends."""
    field: cython.int = 16 if protocol == IPPROTO_TCP else 6
    total: cython.uint
    if protocol != IPPROTO_TCP and protocol != IPPROTO_UDP:
        return False
    if end > pkt.end or l4 + (20 if field == 16 else 8) > end:
        return False
    total = protocol
    total += cython.cast(cython.uint, end - l4)
    if pkt.get16(l4 + field) != fold(add_words(total, pkt.data, source, size)):
        return False
    pkt.vnet_flags |= VNET_F_NEEDS_CSUM
    pkt.csum_start = cython.cast(cython.int, l4 - pkt.start)
    pkt.csum_offset = field
    return True
