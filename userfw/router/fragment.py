"""Fragmentation on output, after postrouting (RFC 791 3.2, RFC 8200 4.5; Linux: ip_fragment, ip6_fragment, ip_finish_output_gso).

Laws: a packet that was reassembled here is cut as it came if that fits, and never into larger pieces than it came in; a
packet that must not be cut is refused with an ICMP error. Checksums that are still partial are completed first. A large send
whose segments exceed the link is cut into segments, and those into fragments.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from userfw.core.const import IPPROTO_FRAGMENT, NFPROTO_IPV4, VNET_GSO_NONE
    from userfw.core.drop import DROP_FRAG_NEEDED, DROP_MALFORMED, DROP_NOT_SPECIFIED
    from userfw.core.packet import Packet
    from userfw.engine.services import Copy
    from userfw.router.base import Router
    from userfw.router.const import (
        ICMP_DEST_UNREACH,
        ICMP_FRAG_NEEDED,
        ICMPV6_PKT_TOOBIG,
        IP_DF,
        IP_MF,
        IPV6_MIN_MTU,
    )
    from userfw.router.inspect import exceeds
    from userfw.router.reassembly import FragmentSizes
    from userfw.wire._raw import copy
    from userfw.wire.checksum import write_ipv4
    from userfw.wire.gso import complete_checksum, segment, segment_count
    from userfw.wire.parse import parse_network_untrusted


class Fragmenter:
    """Cuts packets of one gateway and sends the pieces."""

    def __init__(self, router: Router) -> None:
        self.router = router
        self.packets = 0
        self.fragments = 0
        self.refused = 0

    def output(self, pkt: Packet, mtu: cython.int) -> cython.int:
        """Send `pkt`, which exceeds `mtu` or was reassembled, in pieces if need be. 0 or the DROP_* reason, counted."""
        if (pkt.gso_type & 0x7F) != VNET_GSO_NONE and exceeds(pkt, mtu):
            return self._segments(pkt, mtu)
        if pkt.nfproto == NFPROTO_IPV4:
            return self._output4(pkt, mtu)
        return self._output6(pkt, mtu)

    def _refuse(self, pkt: Packet, mtu: cython.int) -> cython.int:
        self.refused += 1
        if pkt.nfproto == NFPROTO_IPV4:
            self.router.send_error(pkt, ICMP_DEST_UNREACH, ICMP_FRAG_NEEDED, mtu)
        else:
            self.router.send_error(pkt, ICMPV6_PKT_TOOBIG, 0, mtu)
        return self.router.drop(pkt, DROP_FRAG_NEEDED)

    def _segments(self, pkt: Packet, mtu: cython.int) -> cython.int:
        i: cython.int
        piece: Packet
        for i in range(segment_count(pkt)):
            piece = self.router.take()
            segment(pkt, i, piece)
            _inherit(piece, pkt)
            if parse_network_untrusted(piece) == DROP_NOT_SPECIFIED:
                if piece.nfproto == NFPROTO_IPV4:
                    self._output4(piece, mtu)
                else:
                    self._output6(piece, mtu)
            else:
                self.router.drop(piece, DROP_MALFORMED)
            self.router.give(piece)
        return DROP_NOT_SPECIFIED

    # -- IPv4

    def _output4(self, pkt: Packet, mtu: cython.int) -> cython.int:
        l3: cython.Py_ssize_t = pkt.l3
        field: cython.int = pkt.get16(l3 + 6)
        size: cython.int = cython.cast(cython.int, pkt.end - l3)
        known: cython.int = pkt.frag_max_size
        copied: Copy | None = pkt.extra if isinstance(pkt.extra, Copy) else None
        if known and field & IP_DF and copied is not None and copied.for_host:
            return self._refuse(pkt, mtu)
        if size <= mtu and (not known or size <= known):
            return self.router.emit(pkt)
        bare: cython.bint = copied is not None and copied.made_whole
        if field & IP_DF and ((not known and not bare) or known > mtu):
            return self._refuse(pkt, mtu)
        if known and known < mtu:
            mtu = known
        head: cython.int = cython.cast(cython.int, pkt.l4 - l3)
        room: cython.int = (mtu - head) & ~7
        if room < 8:
            return self._refuse(pkt, mtu)
        complete_checksum(pkt)
        self.packets += 1
        sizes = fitting(pkt, mtu - head, size - head)
        if sizes is not None or bare:
            field &= ~IP_DF  # Linux: ip_fraglist_init; only a packet that is cut anew keeps the flag
        off: cython.int = 0
        total: cython.int = size - head
        index: cython.Py_ssize_t = 0
        while off < total:
            step: cython.int = min(room, total - off)
            if sizes is not None:
                step = sizes[index]
                index += 1
            if self._piece4(pkt, head, off, step, off + step < total, field) != DROP_NOT_SPECIFIED:
                break  # what could not be sent takes the rest with it (Linux: ip_do_fragment)
            off += step
        return DROP_NOT_SPECIFIED

    def _piece4(
        self, pkt: Packet, head: cython.int, off: cython.int, size: cython.int, more: cython.bint, field: cython.int
    ) -> cython.int:
        piece: Packet = self.router.take()
        _begin(piece, pkt, head)
        if off:
            _quiet_options(piece, head)
        copy(piece.data, piece.l4, pkt.data, pkt.l4 + off, size)
        piece.end = piece.l4 + size
        position: cython.int = (field & 0x1FFF) + (off >> 3)
        flags: cython.int = (field & IP_DF) | (IP_MF if more or field & IP_MF else 0)
        piece.put16(piece.l3 + 2, head + size)
        piece.put16(piece.l3 + 6, flags | position)
        write_ipv4(piece)
        piece.is_fragment = True
        piece.fragoff = position * 8
        piece.has_l4 = position == 0
        self.fragments += 1
        reason: cython.int = self.router.emit(piece)
        self.router.give(piece)
        return reason

    # -- IPv6

    def _output6(self, pkt: Packet, mtu: cython.int) -> cython.int:
        size: cython.int = cython.cast(cython.int, pkt.end - pkt.l3)
        known: cython.int = pkt.frag_max_size
        if size <= mtu and (not known or size <= known):
            return self.router.emit(pkt)
        if known > mtu or (not known and pkt.iif is not None):
            return self._refuse(pkt, mtu)
        if known:
            mtu = max(known, IPV6_MIN_MTU)
        where: cython.Py_ssize_t
        slot: cython.Py_ssize_t
        where, slot = unfragmentable(pkt)
        head: cython.int = cython.cast(cython.int, where - pkt.l3)
        room: cython.int = (mtu - head - 8) & ~7
        if room < 8:
            return self._refuse(pkt, mtu)
        complete_checksum(pkt)
        self.packets += 1
        ident: cython.uint = self.router.rng.getrandbits(32)
        total: cython.int = size - head
        sizes = fitting(pkt, mtu - head - 8, total)
        off: cython.int = 0
        index: cython.Py_ssize_t = 0
        while off < total:
            step: cython.int = min(room, total - off)
            if sizes is not None:
                step = sizes[index]
                index += 1
            if self._piece6(pkt, head, slot, off, step, off + step < total, ident) != DROP_NOT_SPECIFIED:
                break
            off += step
        return DROP_NOT_SPECIFIED

    def _piece6(
        self,
        pkt: Packet,
        head: cython.int,
        slot: cython.Py_ssize_t,
        off: cython.int,
        size: cython.int,
        more: cython.bint,
        ident: cython.uint,
    ) -> cython.int:
        piece: Packet = self.router.take()
        _begin(piece, pkt, head)
        where: cython.Py_ssize_t = piece.l3 + head
        piece.put16(where, pkt.get8(slot) << 8)
        piece.put16(where + 2, off | (1 if more else 0))
        piece.put32(where + 4, ident)
        piece.put8(piece.l3 + (slot - pkt.l3), IPPROTO_FRAGMENT)
        copy(piece.data, where + 8, pkt.data, pkt.l3 + head + off, size)
        piece.end = where + 8 + size
        piece.put16(piece.l3 + 4, head - 40 + 8 + size)
        piece.l4 = where + 8
        piece.l4proto = pkt.l4proto
        piece.is_fragment = True
        piece.fragoff = off
        piece.has_l4 = off == 0
        self.fragments += 1
        reason: cython.int = self.router.emit(piece)
        self.router.give(piece)
        return reason


def fitting(pkt: Packet, room: cython.int, total: cython.int) -> list[int] | None:
    """The sizes the packet came in, if they still describe it and every one fits into `room`."""
    if not isinstance(pkt.extra, FragmentSizes):
        return None
    sizes: list[int] = pkt.extra.sizes
    if sum(sizes) != total or max(sizes) > room:
        return None
    for size in sizes[: len(sizes) - 1]:
        if size & 7:
            return None
    return sizes


def unfragmentable(pkt: Packet) -> tuple[int, int]:
    """Where a fragment header goes, and the offset of the next-header field that will name it (Linux: ip6_find_1stfragopt)."""
    slot: cython.Py_ssize_t = pkt.l3 + 6
    off: cython.Py_ssize_t = pkt.l3 + 40
    routed: cython.bint = False
    proto: cython.int = pkt.get8(slot)
    while proto in (0, 43, 60) and off + 8 <= pkt.end:
        if proto == 60 and routed:
            break
        routed = routed or proto == 43
        slot = off
        proto = pkt.get8(off)
        off += (pkt.get8(off + 1) + 1) * 8
    return off, slot


def _begin(piece: Packet, pkt: Packet, head: cython.int) -> None:
    """Network header and metadata of a piece, at the same offsets as in the packet."""
    piece.copy_meta(pkt)
    piece.start = pkt.l3
    piece.l3 = pkt.l3
    piece.l4 = pkt.l3 + head
    piece.vnet_flags = 0
    piece.gso_type = 0
    piece.gso_size = 0
    piece.frag_max_size = 0
    piece.extra = None
    copy(piece.data, piece.l3, pkt.data, pkt.l3, head)


def _inherit(piece: Packet, pkt: Packet) -> None:
    piece.iif = pkt.iif
    piece.oif = pkt.oif
    piece.route = pkt.route
    piece.mark = pkt.mark
    piece.priority = pkt.priority
    piece.ct = pkt.ct
    piece.ctinfo = pkt.ctinfo
    piece.ctdir = pkt.ctdir
    piece.pkttype = pkt.pkttype
    piece.protocol = pkt.protocol


def _quiet_options(piece: Packet, head: cython.int) -> None:
    """Options that are not copied into later fragments become no-operations (Linux: ip_options_fragment)."""
    off: cython.Py_ssize_t = piece.l3 + 20
    end: cython.Py_ssize_t = piece.l3 + head
    kind: cython.int
    length: cython.Py_ssize_t
    i: cython.Py_ssize_t
    while off < end:
        kind = piece.get8(off)
        if kind == 0:
            return
        if kind == 1:
            off += 1
            continue
        length = piece.get8(off + 1) if off + 1 < end else 0
        if length < 2 or off + length > end:
            return
        if not kind & 0x80:
            for i in range(length):
                piece.put8(off + i, 1)
        off += length
