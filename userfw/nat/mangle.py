"""Rewriting packets by the mapping of their connection: addresses, ports, checksums, and what ICMP errors quote.

Laws:
- Checksums are fixed incrementally (RFC 1624, eqn. 3); only SCTP's CRC and the outer ICMP checksum of an error are computed anew.
- With VNET_F_NEEDS_CSUM the transport checksum field is the sum of the pseudo-header: only addresses change it.
- A zero UDP checksum over IPv4 stays zero; a computed zero is sent as 0xffff.
- In an ICMP error the quoted packet travels the other way, so it is rewritten the other way round, as far as it is quoted.
- A packet is rewritten once per manipulation: source at input and postrouting, destination at prerouting and output.
"""

import cython

if not cython.compiled:
    from userfw.conntrack.check import crc32c
    from userfw.conntrack.conn import U32_MASK, Conn, Tuple
    from userfw.conntrack.tuples import inner_l4, inner_proto
    from userfw.core.const import (
        CT_DIR_REPLY,
        CT_RELATED,
        IPPROTO_GRE,
        IPPROTO_ICMP,
        IPPROTO_ICMPV6,
        IPPROTO_SCTP,
        IPPROTO_TCP,
        IPPROTO_UDP,
        IPPROTO_UDPLITE,
        IPS_DST_NAT,
        IPS_DST_NAT_DONE,
        IPS_SRC_NAT,
        IPS_SRC_NAT_DONE,
        NAT_MANIP_DST,
        NAT_MANIP_SRC,
        NF_ACCEPT,
        NF_DROP,
        NFPROTO_IPV4,
        VNET_F_DATA_VALID,
        VNET_F_NEEDS_CSUM,
    )
    from userfw.core.drop import DROP_CHECKSUM, DROP_MALFORMED
    from userfw.core.packet import Packet
    from userfw.wire.checksum import add_bytes, fold, pseudo_sum

    CHANGE_SRC, CHANGE_DST, CHANGE_SPORT, CHANGE_DPORT, CHANGE_ID = 1, 2, 4, 8, 16


def mangle(pkt: Packet, conn: Conn, manip: cython.int) -> cython.int:
    """Rewrite `pkt` for NAT_MANIP_* as its connection's mapping says; NF_ACCEPT or NF_DROP (Linux: nf_nat_packet)."""
    bit: cython.uint = IPS_SRC_NAT if manip == NAT_MANIP_SRC else IPS_DST_NAT
    reply: cython.bint = pkt.ctdir == CT_DIR_REPLY
    if reply:
        bit ^= IPS_SRC_NAT | IPS_DST_NAT
    if not conn.status & bit:
        return NF_ACCEPT
    if pkt.ctinfo == CT_RELATED and pkt.l4proto != conn.orig.l4proto:
        if pkt.l4proto == IPPROTO_ICMP or pkt.l4proto == IPPROTO_ICMPV6:
            return _icmp_error(pkt, conn, manip)
    elif pkt.ctinfo == CT_RELATED and _is_icmp_error(pkt):
        return _icmp_error(pkt, conn, manip)
    # what the other direction expects as its source is what this one must have as its destination, and so on
    other: Tuple = conn.orig if reply else conn.reply
    ipv4: cython.bint = pkt.nfproto == NFPROTO_IPV4
    off: cython.Py_ssize_t = pkt.l3 + (12 if ipv4 else 8)
    delta: cython.uint
    if manip == NAT_MANIP_SRC:
        delta = _address(pkt, off, ipv4, other.dst_hi, other.dst_lo)
    else:
        delta = _address(pkt, off + (4 if ipv4 else 16), ipv4, other.src_hi, other.src_lo)
    if ipv4:
        _header(pkt, pkt.l3 + 10, delta)
    elif pkt.checked > 0:
        pkt.checked = 1
    if pkt.has_l4:
        return _transport(pkt, pkt.l3, pkt.l4, pkt.l4proto, manip, other, True, delta, True)
    return NF_ACCEPT


def _is_icmp_error(pkt: Packet) -> cython.bint:
    """An error about a packet of an ICMP connection."""
    type: cython.uint
    if pkt.l4 + 8 > pkt.end:
        return False
    type = pkt.get8(pkt.l4)
    if pkt.l4proto == IPPROTO_ICMP:
        return type in (3, 4, 5, 11, 12)
    return pkt.l4proto == IPPROTO_ICMPV6 and (type < 128 or type == 137)


def _sum64(word: cython.ulonglong) -> cython.uint:
    """The four 16-bit words of `word`, added."""
    total: cython.ulonglong = (word & 0xFFFF) + ((word >> 16) & 0xFFFF) + ((word >> 32) & 0xFFFF) + (word >> 48)
    return total & 0xFFFFF


def _address(
    pkt: Packet, off: cython.Py_ssize_t, ipv4: cython.bint, hi: cython.ulonglong, lo: cython.ulonglong
) -> cython.uint:
    """Write an address; what checksums over it change by (to be added, in one's complement)."""
    old: cython.ulonglong
    delta: cython.uint
    if ipv4:
        old = pkt.get32(off)
        pkt.put32(off, lo & U32_MASK)
        return 0x1FFFE - (old & 0xFFFF) - (old >> 16) + (lo & 0xFFFF) + (lo >> 16)
    delta = 0x7FFF8 - _sum64(pkt.get64(off)) - _sum64(pkt.get64(off + 8)) + _sum64(hi) + _sum64(lo)
    pkt.put64(off, hi)
    pkt.put64(off + 8, lo)
    return delta


def _header(pkt: Packet, off: cython.Py_ssize_t, delta: cython.uint) -> cython.int:
    """The IPv4 header checksum at `off`."""
    pkt.put16(off, ~fold((~pkt.get16(off) & 0xFFFF) + delta) & 0xFFFF)
    return 0


def _fix(
    pkt: Packet,
    off: cython.Py_ssize_t,
    address_delta: cython.uint,
    delta: cython.uint,
    partial: cython.bint,
    zero_to_ones: cython.bint,
) -> cython.int:
    """The transport checksum at `off`: `delta` is the whole change, `address_delta` that of the pseudo-header alone."""
    value: cython.uint
    if partial:
        pkt.put16(off, fold(pkt.get16(off) + address_delta))
        return 0
    value = ~fold((~pkt.get16(off) & 0xFFFF) + delta) & 0xFFFF
    if value == 0 and zero_to_ones:
        value = 0xFFFF
    pkt.put16(off, value)
    return 0


def _transport(
    pkt: Packet,
    l3: cython.Py_ssize_t,
    l4: cython.Py_ssize_t,
    proto: cython.int,
    manip: cython.int,
    target: Tuple,
    reversed: cython.bint,
    delta: cython.uint,
    outer: cython.bint,
) -> cython.int:
    """The transport header at `l4`, after addresses changed by `delta` (Linux: l4proto_manip_pkt).

    `target` is a tuple of the packet's own direction, or of the other one if `reversed`. A header that an ICMP error cuts off is
    rewritten as far as it goes; what a packet of its own lacks drops it.
    """
    source: cython.bint = (manip == NAT_MANIP_SRC) != reversed
    port: cython.uint = target.sport if source else target.dport
    off: cython.Py_ssize_t = l4 if manip == NAT_MANIP_SRC else l4 + 2
    partial: cython.bint = outer and pkt.vnet_flags & VNET_F_NEEDS_CSUM != 0
    left: cython.Py_ssize_t = pkt.end - l4
    type: cython.uint
    if proto == IPPROTO_TCP:
        if left < 8 or (outer and left < 20):
            return _short(pkt)
        return _port(pkt, l4, 16 if left >= 20 else -1, off, port, delta, partial, False, False)
    if proto == IPPROTO_UDP:
        if left < 8:
            return _short(pkt)
        return _port(pkt, l4, 6, off, port, delta, partial, True, True)
    if proto == IPPROTO_UDPLITE:
        if left < 8:
            return _short(pkt)
        return _port(pkt, l4, 6, off, port, delta, partial, False, True)
    if proto == IPPROTO_SCTP:
        if left < 8 or (outer and left < 12):
            return _short(pkt)
        pkt.put16(off, port)
        if left >= 12:
            _sctp(pkt, l4, partial)  # also of what is quoted, as far as it is quoted (Linux: sctp_manip_pkt)
        return NF_ACCEPT
    if proto in (IPPROTO_ICMP, IPPROTO_ICMPV6):
        if left < 8:
            return _short(pkt)
        type = pkt.get8(l4)
        if proto == IPPROTO_ICMPV6:
            if type == 128 or type == 129:
                return _port(pkt, l4, 2, l4 + 4, target.sport, delta, partial, False, False)
            _fix(pkt, l4 + 2, delta, delta, partial, False)
        elif type in (0, 8, 13, 14, 15, 16, 17, 18):
            return _port(pkt, l4, 2, l4 + 4, target.sport, 0, False, False, False)
        return NF_ACCEPT
    if proto == IPPROTO_GRE and left < 8:
        return _short(pkt)  # as much as the shortest header with a call has (Linux: gre_manip_pkt)
    if proto == IPPROTO_GRE and manip == NAT_MANIP_DST and pkt.get16(l4) & 7:
        if (pkt.get16(l4) & 7) != 1:
            return _short(pkt)  # no version that there is
        pkt.put16(l4 + 6, port)
    return NF_ACCEPT


def _short(pkt: Packet) -> cython.int:
    pkt.drop_reason = DROP_MALFORMED
    return NF_DROP


def _port(
    pkt: Packet,
    l4: cython.Py_ssize_t,
    check: cython.Py_ssize_t,
    off: cython.Py_ssize_t,
    port: cython.uint,
    delta: cython.uint,
    partial: cython.bint,
    zero_off: cython.bint,
    zero_to_ones: cython.bint,
) -> cython.int:
    """Write a port or id at `off` and fix the checksum at `l4 + check` (-1: cut off), unless it is zero and that means none."""
    old: cython.uint = pkt.get16(off)
    pkt.put16(off, port)
    if check < 0 or (zero_off and not partial and pkt.get16(l4 + check) == 0):
        return NF_ACCEPT
    _fix(pkt, l4 + check, delta, delta + 0xFFFF - old + port, partial, zero_to_ones)
    return NF_ACCEPT


def _sctp(pkt: Packet, l4: cython.Py_ssize_t, partial: cython.bint) -> cython.int:
    """SCTP's CRC, which covers no addresses, unless it is still to be computed."""
    crc: cython.uint
    if partial:
        return 0
    pkt.put32(l4 + 8, 0)
    crc = crc32c(pkt.data, l4, pkt.end - l4)
    pkt.put8(l4 + 8, crc & 0xFF)
    pkt.put8(l4 + 9, (crc >> 8) & 0xFF)
    pkt.put8(l4 + 10, (crc >> 16) & 0xFF)
    pkt.put8(l4 + 11, crc >> 24)
    return 0


def _icmp_error(pkt: Packet, conn: Conn, manip: cython.int) -> cython.int:
    """An ICMP error about `conn` (Linux: nf_nat_icmp_reply_translation): what it quotes, then itself, then its checksum."""
    l4: cython.Py_ssize_t = pkt.l4
    ipv4: cython.bint = pkt.nfproto == NFPROTO_IPV4
    other: Tuple = conn.orig if pkt.ctdir == CT_DIR_REPLY else conn.reply
    inner: cython.Py_ssize_t = l4 + 8
    proto: cython.int
    if inner > pkt.end:
        return _short(pkt)
    if not pkt.vnet_flags & (VNET_F_NEEDS_CSUM | VNET_F_DATA_VALID):
        # it is computed anew below, which must not make a wrong one right
        if fold(add_bytes(0 if ipv4 else pseudo_sum(pkt, IPPROTO_ICMPV6, pkt.end - l4), pkt.data, l4, pkt.end - l4)) != 0xFFFF:
            pkt.drop_reason = DROP_CHECKSUM
            return NF_DROP
    if ipv4 and pkt.get8(l4) == 5:
        # a redirect that goes to a translated connection would point the sender astray
        if conn.status & (IPS_SRC_NAT | IPS_DST_NAT) or not conn.status & IPS_SRC_NAT_DONE or not conn.status & IPS_DST_NAT_DONE:
            pkt.drop_reason = DROP_MALFORMED
            return NF_DROP
    at: cython.Py_ssize_t = inner_l4(pkt, pkt.nfproto, inner)
    if at < 0:
        return _short(pkt)
    proto = inner_proto(pkt, pkt.nfproto, inner)
    off: cython.Py_ssize_t = inner + (12 if ipv4 else 8)
    delta: cython.uint
    inverse: cython.int = NAT_MANIP_DST if manip == NAT_MANIP_SRC else NAT_MANIP_SRC
    # the quoted packet is one of the other direction, and is made to look as that side knows it
    if inverse == NAT_MANIP_SRC:
        delta = _address(pkt, off, ipv4, other.src_hi, other.src_lo)
    else:
        delta = _address(pkt, off + (4 if ipv4 else 16), ipv4, other.dst_hi, other.dst_lo)
    if ipv4:
        _header(pkt, inner + 10, delta)
    if _transport(pkt, inner, at, proto, inverse, other, False, delta, False) != NF_ACCEPT:
        return NF_DROP
    # the error itself comes from, or goes to, the address that side knows
    off = pkt.l3 + (12 if ipv4 else 8)
    if manip == NAT_MANIP_SRC:
        delta = _address(pkt, off, ipv4, other.dst_hi, other.dst_lo)
    else:
        delta = _address(pkt, off + (4 if ipv4 else 16), ipv4, other.src_hi, other.src_lo)
    if ipv4:
        _header(pkt, pkt.l3 + 10, delta)
    return _icmp_checksum(pkt, ipv4)


def _icmp_checksum(pkt: Packet, ipv4: cython.bint) -> cython.int:
    total: cython.uint = 0
    length: cython.Py_ssize_t = pkt.end - pkt.l4
    if not ipv4:
        total = pseudo_sum(pkt, IPPROTO_ICMPV6, length)
        if pkt.vnet_flags & VNET_F_NEEDS_CSUM:
            pkt.put16(pkt.l4 + 2, fold(total))
            return NF_ACCEPT
    pkt.put16(pkt.l4 + 2, 0)
    pkt.put16(pkt.l4 + 2, ~fold(add_bytes(total, pkt.data, pkt.l4, length)) & 0xFFFF)
    return NF_ACCEPT


# -- all at once, for the flowtable


class Rewrite:
    """What one direction of a connection's packets need, both manipulations in one: new addresses and ports, and by how much
    checksums change.

    `changes`: CHANGE_*; `address_delta` and `delta` are added to the complement of a checksum.
    """

    def __init__(self) -> None:
        self.src_hi = self.src_lo = self.dst_hi = self.dst_lo = 0
        self.sport = self.dport = 0
        self.changes = self.l3num = self.l4proto = 0
        self.address_delta = self.delta = 0

    def apply(self, pkt: Packet) -> cython.int:
        """Rewrite the packet at its `l3` and `l4`."""
        return self.apply_at(pkt, pkt.l3, pkt.l4)

    def apply_at(self, pkt: Packet, l3: cython.Py_ssize_t, l4: cython.Py_ssize_t) -> cython.int:
        """Rewrite the headers at these offsets; they must be whole. For TCP and UDP."""
        changes: cython.int = self.changes
        check: cython.Py_ssize_t
        if self.l3num == NFPROTO_IPV4:
            if changes & CHANGE_SRC:
                pkt.put32(l3 + 12, self.src_lo & U32_MASK)
            if changes & CHANGE_DST:
                pkt.put32(l3 + 16, self.dst_lo & U32_MASK)
            _header(pkt, l3 + 10, self.address_delta)
        else:
            if changes & CHANGE_SRC:
                pkt.put64(l3 + 8, self.src_hi)
                pkt.put64(l3 + 16, self.src_lo)
            if changes & CHANGE_DST:
                pkt.put64(l3 + 24, self.dst_hi)
                pkt.put64(l3 + 32, self.dst_lo)
        if self.l4proto == IPPROTO_TCP:
            check = l4 + 16
        elif self.l4proto == IPPROTO_UDP:
            check = l4 + 6
        else:
            return 0
        if changes & CHANGE_SPORT:
            pkt.put16(l4, self.sport)
        if changes & CHANGE_DPORT:
            pkt.put16(l4 + 2, self.dport)
        if pkt.vnet_flags & VNET_F_NEEDS_CSUM:
            _fix(pkt, check, self.address_delta, 0, True, False)
        elif self.l4proto == IPPROTO_TCP:
            _fix(pkt, check, 0, self.delta, False, False)
        elif pkt.get16(check) != 0:
            _fix(pkt, check, 0, self.delta, False, True)
        return 0


def rewrite_of(conn: Conn, direction: cython.int) -> Rewrite | None:
    """The Rewrite for packets of `direction`, or None if the connection is not translated."""
    mine: Tuple = conn.reply if direction == CT_DIR_REPLY else conn.orig
    other: Tuple = conn.orig if direction == CT_DIR_REPLY else conn.reply
    if not conn.status & (IPS_SRC_NAT | IPS_DST_NAT):
        return None
    r: Rewrite = Rewrite()
    r.l3num = mine.l3num
    r.l4proto = mine.l4proto
    r.src_hi = other.dst_hi
    r.src_lo = other.dst_lo
    r.dst_hi = other.src_hi
    r.dst_lo = other.src_lo
    r.sport = other.dport
    r.dport = other.sport
    delta: cython.uint = 0
    if r.src_hi != mine.src_hi or r.src_lo != mine.src_lo:
        r.changes |= CHANGE_SRC
        delta += 0x7FFF8 - _sum64(mine.src_hi) - _sum64(mine.src_lo) + _sum64(r.src_hi) + _sum64(r.src_lo)
    if r.dst_hi != mine.dst_hi or r.dst_lo != mine.dst_lo:
        r.changes |= CHANGE_DST
        delta += 0x7FFF8 - _sum64(mine.dst_hi) - _sum64(mine.dst_lo) + _sum64(r.dst_hi) + _sum64(r.dst_lo)
    r.address_delta = delta
    if r.sport != mine.sport:
        r.changes |= CHANGE_SPORT
        delta += 0xFFFF - mine.sport + r.sport
    if r.dport != mine.dport:
        r.changes |= CHANGE_DPORT
        delta += 0xFFFF - mine.dport + r.dport
    r.delta = delta
    return r
