"""Tuples: read from packets, turned round, hashed.

Laws: nothing is read outside the packet's bounds; a header that is cut short gives False and the packet is INVALID.
The hash is SipHash-1-3 under a key chosen at start, so that a sender cannot aim at one hash chain (Linux: hash_conntrack_raw).
"""

import cython

if not cython.compiled:
    from userfw.conntrack.conn import Tuple
    from userfw.core.const import (
        IPPROTO_AH,
        IPPROTO_DSTOPTS,
        IPPROTO_FRAGMENT,
        IPPROTO_GRE,
        IPPROTO_HOPOPTS,
        IPPROTO_ICMP,
        IPPROTO_ICMPV6,
        IPPROTO_NONE,
        IPPROTO_ROUTING,
        IPPROTO_SCTP,
        IPPROTO_TCP,
        IPPROTO_UDP,
        IPPROTO_UDPLITE,
        NFPROTO_IPV4,
        NFPROTO_IPV6,
    )
    from userfw.core.packet import Packet

    # literals of more than 32 bits would be Python objects in compiled code, so the .pxd has them as C constants
    U32_MASK = 0xFFFFFFFF
    U64_MASK = 0xFFFFFFFFFFFFFFFF
    SIP_0, SIP_1, SIP_2, SIP_3 = 0x736F6D6570736575, 0x646F72616E646F6D, 0x6C7967656E657261, 0x7465646279746573


def read_tuple(
    pkt: Packet, family: cython.int, l3: cython.Py_ssize_t, l4: cython.Py_ssize_t, l4proto: cython.int, into: Tuple
) -> cython.bint:
    """Fill `into` (zone and hash excepted) from the headers at `l3` and `l4`; False if they are cut short.

    The caller vouches for the network header (20 or 40 bytes at `l3`). Linux: nf_ct_get_tuple.
    """
    end: cython.Py_ssize_t = pkt.end
    if family == NFPROTO_IPV4:
        into.src_hi = 0
        into.dst_hi = 0
        into.src_lo = pkt.get32(l3 + 12)
        into.dst_lo = pkt.get32(l3 + 16)
    else:
        into.src_hi = pkt.get64(l3 + 8)
        into.src_lo = pkt.get64(l3 + 16)
        into.dst_hi = pkt.get64(l3 + 24)
        into.dst_lo = pkt.get64(l3 + 32)
    into.l3num = family
    into.l4proto = l4proto
    if l4proto in (IPPROTO_TCP, IPPROTO_UDP, IPPROTO_UDPLITE, IPPROTO_SCTP):
        # the ports suffice, an ICMP error may quote no more; trackers ask for the rest of the header
        if l4 + 4 > end:
            return False
        into.sport = pkt.get16(l4)
        into.dport = pkt.get16(l4 + 2)
    elif l4proto in (IPPROTO_ICMP, IPPROTO_ICMPV6):  # of either family, as nf_ct_get_tuple reads them
        if l4 + 8 > end:
            return False
        into.dport = pkt.get16(l4)  # type and code
        into.sport = pkt.get16(l4 + 4)  # identifier
    elif l4proto == IPPROTO_GRE:
        into.sport = 0
        into.dport = 0
        if l4 + 4 > end:
            return True  # as any other protocol (Linux: gre_pkt_to_tuple); below, where the call id is cut off, too
        # enhanced GRE of PPTP (RFC 2637): version 1, payload protocol PPP; the other side's call id is the only key on the wire
        if (pkt.get16(l4) & 7) == 1:
            if l4 + 8 > end:
                return True
            if pkt.get16(l4 + 2) != 0x880B:
                return False
            into.dport = pkt.get16(l4 + 6)
    else:
        into.sport = 0
        into.dport = 0
    return True


def inner_l4(pkt: Packet, family: cython.int, l3: cython.Py_ssize_t) -> cython.Py_ssize_t:
    """Where the transport header of a network packet quoted at `l3` begins, or -1 if it is cut short, not whole or a later
    fragment.

    Linux: get_l4proto, ipv6_skip_exthdr.
    """
    end: cython.Py_ssize_t = pkt.end
    size: cython.Py_ssize_t
    proto: cython.int
    if family == NFPROTO_IPV4:
        if l3 + 20 > end or pkt.get8(l3) >> 4 != 4:
            return -1
        size = (pkt.get8(l3) & 15) * 4
        if size < 20 or l3 + size > end or pkt.get16(l3 + 6) & 0x1FFF:
            return -1
        return l3 + size
    if l3 + 40 > end or pkt.get8(l3) >> 4 != 6:
        return -1
    proto = pkt.get8(l3 + 6)
    off: cython.Py_ssize_t = l3 + 40
    while proto in (IPPROTO_HOPOPTS, IPPROTO_ROUTING, IPPROTO_DSTOPTS, IPPROTO_FRAGMENT, IPPROTO_AH):
        if off + 8 > end:
            return -1
        if proto == IPPROTO_FRAGMENT:
            if pkt.get16(off + 2) & 0xFFF8:
                return -1
            size = 8
        elif proto == IPPROTO_AH:
            size = (pkt.get8(off + 1) + 2) * 4
        else:
            size = (pkt.get8(off + 1) + 1) * 8
        proto = pkt.get8(off)
        off += size
        if off > end:
            return -1
    return -1 if proto == IPPROTO_NONE else off


def inner_proto(pkt: Packet, family: cython.int, l3: cython.Py_ssize_t) -> cython.int:
    """Transport protocol of a packet for which `inner_l4` gave an offset."""
    if family == NFPROTO_IPV4:
        return pkt.get8(l3 + 9)
    proto: cython.int = pkt.get8(l3 + 6)
    off: cython.Py_ssize_t = l3 + 40
    size: cython.Py_ssize_t
    while proto in (IPPROTO_HOPOPTS, IPPROTO_ROUTING, IPPROTO_DSTOPTS, IPPROTO_FRAGMENT, IPPROTO_AH):
        if proto == IPPROTO_FRAGMENT:
            size = 8
        elif proto == IPPROTO_AH:
            size = (pkt.get8(off + 1) + 2) * 4
        else:
            size = (pkt.get8(off + 1) + 1) * 8
        proto = pkt.get8(off)
        off += size
    return proto


def _icmp_answer(type: cython.int) -> cython.int:
    """The type that answers an ICMP query, or that it answers; -1: not a query (Linux: icmp invmap)."""
    if type == 8:
        return 0
    if type == 0:
        return 8
    if type in (13, 15, 17):
        return type + 1
    if type in (14, 16, 18):
        return type - 1
    return -1


def _icmpv6_answer(type: cython.int) -> cython.int:
    """The same for ICMPv6: echo (RFC 4443) and node information (RFC 4620)."""
    if type in (128, 139):
        return type + 1
    if type in (129, 140):
        return type - 1
    return -1


def invert(tuple: Tuple, into: Tuple) -> cython.bint:
    """Make `into` the tuple of the answers to `tuple`; False if its packets have none (an ICMP error). Linux:
    nf_ct_invert_tuple."""
    answer: cython.int
    into.src_hi = tuple.dst_hi
    into.src_lo = tuple.dst_lo
    into.dst_hi = tuple.src_hi
    into.dst_lo = tuple.src_lo
    into.l3num = tuple.l3num
    into.l4proto = tuple.l4proto
    into.zone = tuple.zone
    if tuple.l4proto == IPPROTO_ICMP and tuple.l3num == NFPROTO_IPV4:
        answer = _icmp_answer(tuple.dport >> 8)
    elif tuple.l4proto == IPPROTO_ICMPV6 and tuple.l3num == NFPROTO_IPV6:
        answer = _icmpv6_answer(tuple.dport >> 8)
    else:
        into.sport = tuple.dport
        into.dport = tuple.sport
        return True
    if answer < 0:
        return False
    into.sport = tuple.sport
    into.dport = (answer << 8) | (tuple.dport & 0xFF)
    return True


def hash_tuple(tuple: Tuple, k0: cython.ulonglong, k1: cython.ulonglong) -> cython.uint:
    """SipHash-1-3 of all that tells tuples apart, folded to 32 bits."""
    ports: cython.ulonglong = tuple.sport
    ports = (ports << 16) | tuple.dport
    ports = (ports << 16) | tuple.zone
    ports = (ports << 8) | tuple.l4proto
    ports = (ports << 8) | tuple.l3num
    if tuple.l3num == NFPROTO_IPV4:
        return _sip(k0, k1, 2, (tuple.src_lo << 32) | tuple.dst_lo, ports, 0, 0, 0)
    return _sip(k0, k1, 5, tuple.src_hi, tuple.src_lo, tuple.dst_hi, tuple.dst_lo, ports)


def hash_words(
    k0: cython.ulonglong, k1: cython.ulonglong, a: cython.ulonglong, b: cython.ulonglong, c: cython.ulonglong
) -> cython.uint:
    """The same hash of three words, for other tables."""
    return _sip(k0, k1, 3, a, b, c, 0, 0)


def _sip(
    k0: cython.ulonglong,
    k1: cython.ulonglong,
    n: cython.int,
    a: cython.ulonglong,
    b: cython.ulonglong,
    c: cython.ulonglong,
    d: cython.ulonglong,
    e: cython.ulonglong,
) -> cython.uint:
    v0: cython.ulonglong = k0 ^ SIP_0
    v1: cython.ulonglong = k1 ^ SIP_1
    v2: cython.ulonglong = k0 ^ SIP_2
    v3: cython.ulonglong = k1 ^ SIP_3
    m: cython.ulonglong
    i: cython.int
    for i in range(n + 3):
        m = 0
        if i < n:
            m = a if i == 0 else b if i == 1 else c if i == 2 else d if i == 3 else e
        elif i == n:
            v2 ^= 0xFF
        v3 ^= m
        v0 = (v0 + v1) & U64_MASK
        v1 = ((v1 << 13) & U64_MASK) | (v1 >> 51)
        v1 ^= v0
        v0 = ((v0 << 32) & U64_MASK) | (v0 >> 32)
        v2 = (v2 + v3) & U64_MASK
        v3 = ((v3 << 16) & U64_MASK) | (v3 >> 48)
        v3 ^= v2
        v0 = (v0 + v3) & U64_MASK
        v3 = ((v3 << 21) & U64_MASK) | (v3 >> 43)
        v3 ^= v0
        v2 = (v2 + v1) & U64_MASK
        v1 = ((v1 << 17) & U64_MASK) | (v1 >> 47)
        v1 ^= v2
        v2 = ((v2 << 32) & U64_MASK) | (v2 >> 32)
        v0 ^= m
    m = v0 ^ v1 ^ v2 ^ v3
    return (m ^ (m >> 32)) & U32_MASK
