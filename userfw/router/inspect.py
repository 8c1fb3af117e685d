"""Small questions about a packet that the path asks: is it too large, which flow is it, are its options in order."""

import cython

if not cython.compiled:
    from userfw.core.const import (
        IPPROTO_ICMP,
        IPPROTO_ICMPV6,
        NFPROTO_IPV4,
        PACKET_HOST,
        VNET_GSO_NONE,
        VNET_GSO_TCPV4,
        VNET_GSO_TCPV6,
    )
    from userfw.core.drop import DROP_IP_OPTIONS, DROP_MALFORMED, DROP_NO_PROTOCOL, DROP_NOT_SPECIFIED
    from userfw.core.packet import Packet
    from userfw.router.base import Router
    from userfw.router.const import ICMPV6_HDR_FIELD, ICMPV6_PARAMPROB, ICMPV6_UNK_NEXTHDR, ICMPV6_UNK_OPTION
    from userfw.router.lpm import mix


def exceeds(pkt: Packet, mtu: cython.int) -> cython.bint:
    """The network packet, or with GSO each of its segments, is larger than `mtu`; of a reassembled one, its largest fragment.

    Linux: ip_exceeds_mtu, ip6_pkt_too_big, skb_gso_validate_network_len.
    """
    if pkt.frag_max_size:
        return pkt.frag_max_size > mtu
    kind: cython.int = pkt.gso_type & 0x7F
    header: cython.Py_ssize_t
    if kind == VNET_GSO_NONE or pkt.gso_size == 0:
        return pkt.end - pkt.l3 > mtu
    if pkt.end - pkt.l3 <= mtu:
        return False
    header = pkt.l4 - pkt.l3
    if kind in (VNET_GSO_TCPV4, VNET_GSO_TCPV6):
        header += (pkt.get8(pkt.l4 + 12) >> 4) * 4 if pkt.l4 + 12 < pkt.end else 20
    else:
        header += 8
    return header + pkt.gso_size > mtu


def flow_hash(pkt: Packet) -> cython.uint:
    """Hash of source and destination (Linux: fib_multipath_hash_policy 0); ICMP errors hash like the flow they quote."""
    l3: cython.Py_ssize_t = pkt.l3
    l4: cython.Py_ssize_t = pkt.l4
    kind: cython.int
    if pkt.has_l4 and pkt.l4proto == IPPROTO_ICMP and pkt.nfproto == NFPROTO_IPV4 and l4 + 28 <= pkt.end:
        kind = pkt.get8(l4)
        if kind in (3, 4, 11, 12):
            return _pair4(pkt, l4 + 24, l4 + 20)
    if pkt.nfproto == NFPROTO_IPV4:
        return _pair4(pkt, l3 + 12, l3 + 16)
    if pkt.has_l4 and pkt.l4proto == IPPROTO_ICMPV6 and l4 + 48 <= pkt.end and pkt.get8(l4) < 128:
        return _pair6(pkt, l4 + 32, l4 + 16)
    return _pair6(pkt, l3 + 8, l3 + 24)


def _pair4(pkt: Packet, src: cython.Py_ssize_t, dst: cython.Py_ssize_t) -> cython.uint:
    return mix(pkt.get32(src), pkt.get32(dst), 0x9E3779B)


def _pair6(pkt: Packet, src: cython.Py_ssize_t, dst: cython.Py_ssize_t) -> cython.uint:
    half: cython.uint = mix(pkt.get64(src), pkt.get64(src + 8), 0x9E3779B)
    return mix(pkt.get64(dst), pkt.get64(dst + 8), half)


def ipv6_hop_options(router: Router, pkt: Packet) -> cython.int:
    """The hop-by-hop header right behind the IPv6 header (RFC 8200 4.3)."""
    return _tlv(router, pkt, pkt.l3 + 40, True)


def ipv6_local_headers(router: Router, pkt: Packet, alone: cython.bint) -> cython.int:
    """Extension headers that only the destination looks at: destination options, routing headers, fragment headers that are
    cut off or a second one (Linux: ipv6_destopt_rcv, ipv6_rthdr_rcv with accept_source_route 0, ipv6_frag_rcv). Where nobody is
    behind the gateway (`alone`), AH and hop-by-hop options that do not come first have no receiver."""
    off: cython.Py_ssize_t = pkt.l3 + 40
    named: cython.Py_ssize_t = 6
    proto: cython.int = pkt.get8(pkt.l3 + 6)
    reason: cython.int
    whole: cython.bint = True
    while True:
        if alone and (proto == 51 or (proto == 0 and off > pkt.l3 + 40)):
            router.send_error(pkt, ICMPV6_PARAMPROB, ICMPV6_UNK_NEXTHDR, cython.cast(cython.uint, named))
            return DROP_NO_PROTOCOL
        if proto == 44 and off <= pkt.end and (off + 8 > pkt.end or not whole):
            router.send_error(pkt, ICMPV6_PARAMPROB, ICMPV6_HDR_FIELD, cython.cast(cython.uint, off - pkt.l3))
            return DROP_MALFORMED
        if off + 8 > pkt.l4 or off + 8 > pkt.end:
            break
        if proto == 60:
            reason = _tlv(router, pkt, off, False)
            if reason != DROP_NOT_SPECIFIED:
                return reason
        elif proto == 43 and off + (pkt.get8(off + 1) + 1) * 8 > pkt.end:
            return DROP_MALFORMED
        elif proto == 43 and (pkt.get8(pkt.l3 + 24) == 0xFF or pkt.pkttype != PACKET_HOST):
            return DROP_IP_OPTIONS
        elif proto == 43 and pkt.get8(off + 2) in (3, 4):
            return DROP_IP_OPTIONS  # RPL and segment routing are off
        elif proto == 43 and pkt.get8(off + 3) != 0:
            router.send_error(pkt, ICMPV6_PARAMPROB, ICMPV6_HDR_FIELD, cython.cast(cython.uint, off + 2 - pkt.l3))
            return DROP_IP_OPTIONS
        elif proto not in (0, 43, 44, 51):
            break
        named = off - pkt.l3
        step: cython.int = pkt.get8(off + 1)
        step = (step + 2) * 4 if proto == 51 else 8 if proto == 44 else (step + 1) * 8
        if proto == 44:
            whole = False
        proto = pkt.get8(off)
        off += step
    return DROP_NOT_SPECIFIED


def _tlv(router: Router, pkt: Packet, header: cython.Py_ssize_t, hop: cython.bint) -> cython.int:
    """Options of an extension header: an unknown one says itself what to do (RFC 8200 4.2; Linux: ip6_parse_tlv)."""
    off: cython.Py_ssize_t = header + 2
    end: cython.Py_ssize_t = header + (pkt.get8(header + 1) + 1) * 8
    kind: cython.int
    length: cython.Py_ssize_t
    padding: cython.int = 0
    if end > pkt.end:
        return DROP_MALFORMED
    while off < end:
        kind = pkt.get8(off)
        length = 1
        if kind != 0:
            length = pkt.get8(off + 1) + 2 if off + 2 <= end else 0
            if length == 0 or off + length > end:
                return DROP_MALFORMED
        if kind <= 1:
            padding += length
            if padding > 7 or (kind == 1 and not _zeros(pkt, off + 2, off + length)):
                return DROP_MALFORMED
            off += length
            continue
        padding = 0
        if hop and kind == 5:
            if length != 4:
                return DROP_MALFORMED
        elif hop and kind == 7:
            return DROP_IP_OPTIONS  # CALIPSO (RFC 5570), and no domain of interpretation is known (Linux: calipso_validate)
        elif hop and kind == 0x31:
            if (off - pkt.l3) & 3:
                return DROP_MALFORMED  # IOAM (RFC 9486), which stands at a multiple of four even where it is off
        elif hop and kind == 0xC2:
            return _jumbo(router, pkt, off, length)
        elif kind >> 6:
            if kind >> 6 == 2 or (kind >> 6 == 3 and pkt.get8(pkt.l3 + 24) != 0xFF):
                router.send_error(pkt, ICMPV6_PARAMPROB, ICMPV6_UNK_OPTION, cython.cast(cython.uint, off - pkt.l3))
            return DROP_IP_OPTIONS
        off += length
    return DROP_NOT_SPECIFIED


def _jumbo(router: Router, pkt: Packet, off: cython.Py_ssize_t, length: cython.Py_ssize_t) -> cython.int:
    """A jumbo payload never fits; what is wrong with it is told (RFC 2675 3; Linux: ipv6_hop_jumbo)."""
    at: cython.Py_ssize_t = off - pkt.l3
    if length == 6 and at & 3 == 2:
        if pkt.get32(off + 2) <= 0xFFFF:
            at += 2
        elif pkt.get16(pkt.l3 + 4) == 0:
            return DROP_MALFORMED
        router.send_error(pkt, ICMPV6_PARAMPROB, ICMPV6_HDR_FIELD, cython.cast(cython.uint, at))
    return DROP_MALFORMED


def _zeros(pkt: Packet, off: cython.Py_ssize_t, end: cython.Py_ssize_t) -> cython.bint:
    while off < end:
        if pkt.get8(off):
            return False
        off += 1
    return True
