"""Segmentation offload in software: what a device without offloads would have to be given.

A Packet may be a large send (up to 64 KB, `gso_size` bytes of payload a segment) whose transport checksum is partial
(VNET_F_NEEDS_CSUM: the field holds the pseudo-header sum). Ports without offloads, `reject`, fragmentation and captures
need plain frames; this file makes them as Linux does (inet_gso_segment, tcp_gso_segment, __udp_gso_segment, skb_checksum_help).

Laws:
- Functions need a parsed packet (l3, l4, nfproto, l4proto); `check_untrusted` must have accepted what the virtio-net header
  claims before anything else here is called.
- The segments' payloads joined are the payload; each segment's lengths and checksums are whole.
- UFO (one UDP datagram to be fragmented by the card) is never offered and is refused.
"""

import cython

if not cython.compiled:
    from userfw.core.const import (
        IPPROTO_TCP,
        IPPROTO_UDP,
        NFPROTO_IPV4,
        NFPROTO_IPV6,
        TCP_CWR,
        TCP_FIN,
        TCP_PSH,
        VNET_F_DATA_VALID,
        VNET_F_NEEDS_CSUM,
        VNET_GSO_ECN,
        VNET_GSO_NONE,
        VNET_GSO_TCPV4,
        VNET_GSO_TCPV6,
        VNET_GSO_UDP_L4,
    )
    from userfw.core.drop import DROP_MALFORMED, DROP_NOT_SPECIFIED
    from userfw.core.packet import Packet
    from userfw.wire._raw import add_words, copy
    from userfw.wire.checksum import fold, pseudo_sum, write_ipv4

    MIN_TCP_SEGMENT = 48  # Linux: TCP_MIN_SND_MSS; smaller claims would only multiply frames
    MAX_UDP_SEGMENTS = 128  # Linux: UDP_MAX_SEGMENTS


def check_untrusted(pkt: Packet) -> cython.int:
    """Compare the virtio-net header's claims with the parsed headers; DROP_NOT_SPECIFIED or DROP_MALFORMED.

    Afterwards NEEDS_CSUM means "the TCP or UDP checksum field at l4 holds the pseudo-header sum", and a GSO packet has it set.
    A partial checksum of anything else (a tunnelled header, another protocol) is completed here and now.
    """
    if pkt.gso_type == VNET_GSO_NONE and not pkt.vnet_flags & VNET_F_NEEDS_CSUM:
        return DROP_NOT_SPECIFIED
    field: cython.int = 0
    if pkt.has_l4 and not pkt.is_fragment:
        if pkt.l4proto == IPPROTO_TCP and pkt.end >= pkt.l4 + 20:
            field = 16
        elif pkt.l4proto == IPPROTO_UDP and pkt.end >= pkt.l4 + 8:
            field = 6
    if pkt.gso_type != VNET_GSO_NONE and not _gso_fits(pkt, field):
        return DROP_MALFORMED
    if pkt.vnet_flags & VNET_F_NEEDS_CSUM:
        if field and pkt.csum_start == pkt.l4 - pkt.start and pkt.csum_offset == field:
            return DROP_NOT_SPECIFIED
        if pkt.gso_type != VNET_GSO_NONE or pkt.start + pkt.csum_start + pkt.csum_offset + 2 > pkt.end:
            return DROP_MALFORMED
        complete_checksum(pkt)
        return DROP_NOT_SPECIFIED
    # merged by a card that verified the checksums: make it a large send of our own
    pkt.csum_start = cython.cast(cython.int, pkt.l4 - pkt.start)
    pkt.csum_offset = field
    pkt.put16(pkt.l4 + field, fold(pseudo_sum(pkt, pkt.l4proto, pkt.end - pkt.l4)))
    pkt.vnet_flags |= VNET_F_NEEDS_CSUM
    return DROP_NOT_SPECIFIED


def _gso_fits(pkt: Packet, field: cython.int) -> cython.bint:
    kind: cython.int = pkt.gso_type & ~VNET_GSO_ECN
    if not pkt.vnet_flags & (VNET_F_NEEDS_CSUM | VNET_F_DATA_VALID):
        return False
    if kind in (VNET_GSO_TCPV4, VNET_GSO_TCPV6):
        header: cython.int
        if field != 16 or pkt.nfproto != (NFPROTO_IPV4 if kind == VNET_GSO_TCPV4 else NFPROTO_IPV6):
            return False
        header = (pkt.get8(pkt.l4 + 12) >> 4) * 4
        return header >= 20 and pkt.l4 + header <= pkt.end and pkt.gso_size >= MIN_TCP_SEGMENT
    if kind == VNET_GSO_UDP_L4 and pkt.gso_type == VNET_GSO_UDP_L4:
        return field == 6 and pkt.gso_size > 0 and pkt.end - pkt.l4 - 8 <= MAX_UDP_SEGMENTS * pkt.gso_size
    return False


def complete_checksum(pkt: Packet) -> cython.int:
    """Turn a partial checksum into the whole one, in place (Linux: skb_checksum_help); nothing if it is whole already."""
    if not pkt.vnet_flags & VNET_F_NEEDS_CSUM:
        return 0
    begin: cython.Py_ssize_t = pkt.start + pkt.csum_start
    total: cython.uint = ~fold(add_words(0, pkt.data, begin, pkt.end - begin)) & 0xFFFF
    pkt.put16(begin + pkt.csum_offset, total if total else 0xFFFF)
    pkt.vnet_flags &= ~VNET_F_NEEDS_CSUM
    return 0


def header_length(pkt: Packet) -> cython.Py_ssize_t:
    """Bytes from `start` to the transport payload of a GSO packet."""
    if pkt.l4proto == IPPROTO_TCP:
        return pkt.l4 - pkt.start + (pkt.get8(pkt.l4 + 12) >> 4) * 4
    return pkt.l4 - pkt.start + 8


def segment_count(pkt: Packet) -> cython.int:
    """How many frames `pkt` stands for; 1 if it is not a large send."""
    if pkt.gso_type == VNET_GSO_NONE or pkt.gso_size <= 0:
        return 1
    payload: cython.Py_ssize_t = pkt.end - pkt.start - header_length(pkt)
    if payload <= pkt.gso_size:
        return 1
    count: cython.int = cython.cast(cython.int, (payload + pkt.gso_size - 1) // pkt.gso_size)
    return count


def segment_network_length(pkt: Packet) -> cython.Py_ssize_t:
    """Network-layer bytes of the largest frame, to compare with an MTU (Linux: skb_gso_network_seglen)."""
    if segment_count(pkt) == 1:
        return pkt.end - pkt.l3
    return pkt.start + header_length(pkt) - pkt.l3 + pkt.gso_size


def segment(pkt: Packet, index: cython.int, out: Packet) -> cython.int:
    """Write frame `index` of `segment_count(pkt)` into `out`, a different Packet: whole lengths, whole checksums.

    IPv4 identification counts up from the first (inet_gso_segment); FIN and PSH stay on the last segment, CWR on the first
    (tcp_gso_segment); a zero UDP checksum over IPv4 is computed all the same, as the kernel does for offloaded sends.
    """
    count: cython.int = segment_count(pkt)
    if index < 0 or index >= count:
        raise IndexError("segment")
    out.copy_meta(pkt)
    if count == 1:
        copy(out.data, pkt.start, pkt.data, pkt.start, pkt.end - pkt.start)
        complete_checksum(out)
        out.gso_type = VNET_GSO_NONE
        out.gso_size = 0
        return 0
    header: cython.Py_ssize_t = header_length(pkt)
    begin: cython.Py_ssize_t = pkt.start + header + cython.cast(cython.Py_ssize_t, index) * pkt.gso_size
    size: cython.Py_ssize_t = min(pkt.end - begin, cython.cast(cython.Py_ssize_t, pkt.gso_size))
    copy(out.data, pkt.start, pkt.data, pkt.start, header)
    copy(out.data, pkt.start + header, pkt.data, begin, size)
    out.end = pkt.start + header + size
    out.gso_type = VNET_GSO_NONE
    out.gso_size = 0
    out.vnet_flags = 0
    if out.nfproto == NFPROTO_IPV4:
        out.put16(out.l3 + 2, cython.cast(cython.uint, out.end - out.l3))
        out.put16(out.l3 + 4, (out.get16(out.l3 + 4) + index) & 0xFFFF)
        write_ipv4(out)
    else:
        out.put16(out.l3 + 4, cython.cast(cython.uint, out.end - out.l3 - 40))
    if out.l4proto == IPPROTO_TCP:
        return _finish_tcp(pkt, index, out, index == count - 1)
    return _finish_udp(out)


def _finish_tcp(pkt: Packet, index: cython.int, out: Packet, last: cython.bint) -> cython.int:
    l4: cython.Py_ssize_t = out.l4
    sequence: cython.ulonglong = out.get32(l4 + 4)
    sequence += cython.cast(cython.ulonglong, index) * pkt.gso_size
    out.put16(l4 + 4, cython.cast(cython.uint, (sequence >> 16) & 0xFFFF))
    out.put16(l4 + 6, cython.cast(cython.uint, sequence & 0xFFFF))
    flags: cython.uint = out.get8(l4 + 13)
    if not last:
        flags &= 0xFF ^ (TCP_FIN | TCP_PSH)
    if index > 0:
        flags &= 0xFF ^ TCP_CWR
    out.put8(l4 + 13, flags)
    out.put16(l4 + 16, 0)
    total: cython.uint = pseudo_sum(out, IPPROTO_TCP, out.end - l4)
    out.put16(l4 + 16, ~fold(add_words(total, out.data, l4, out.end - l4)) & 0xFFFF)
    return 0


def _finish_udp(out: Packet) -> cython.int:
    l4: cython.Py_ssize_t = out.l4
    out.put16(l4 + 4, cython.cast(cython.uint, out.end - l4))
    out.put16(l4 + 6, 0)
    total: cython.uint = pseudo_sum(out, IPPROTO_UDP, out.end - l4)
    total = ~fold(add_words(total, out.data, l4, out.end - l4)) & 0xFFFF
    out.put16(l4 + 6, total if total else 0xFFFF)
    return 0


def segments(pkt: Packet, pool: list) -> list:  # type: ignore[type-arg]
    """All frames of `pkt`, in Packets taken from `pool` (spare ones; new ones are made when it is empty)."""
    out: list = []  # type: ignore[type-arg]
    frame: Packet
    i: cython.int
    for i in range(segment_count(pkt)):
        frame = pool.pop() if pool else Packet()
        segment(pkt, i, frame)
        out.append(frame)
    return out
