"""UDP, UDP-Lite, ICMP, ICMPv6, GRE and everything else: protocols whose only state is whether an answer was seen.

Laws: a packet of two-state protocols renews the timeout of its state; ICMP queries live for one timeout; only queries can be new.
"""

import cython

if not cython.compiled:
    from userfw.conntrack.check import checksum_ok
    from userfw.conntrack.conn import Conn
    from userfw.conntrack.const import (
        CT_EVENT_ASSURED,
        CT_PKT_ACCEPT,
        CT_PKT_INVALID,
        CT_REPLIED,
        CT_UNREPLIED,
        IPS_NAT_CLASH,
        T_GENERIC,
        T_GRE,
        T_ICMP,
        T_ICMPV6,
        T_UDP,
        T_UDPLITE,
    )
    from userfw.conntrack.table import ConnTable
    from userfw.core.const import (
        IPPROTO_ICMP,
        IPPROTO_UDPLITE,
        IPS_ASSURED,
        IPS_SEEN_REPLY,
        NF_INET_PRE_ROUTING,
        NFPROTO_IPV4,
        NFPROTO_IPV6,
    )
    from userfw.core.packet import Packet

    UDP_STREAM_AFTER = 2000000000


def _t(table: ConnTable, conn: Conn, base: cython.int, offset: cython.int) -> cython.ulonglong:
    if conn.policy is not None:
        return conn.policy.t[offset]
    return table.settings.t[base + offset]


def udp_packet(
    table: ConnTable, pkt: Packet, conn: Conn, direction: cython.int, hook: cython.int
) -> cython.int:
    """UDP (RFC 768) and UDP-Lite (RFC 3828); CT_PKT_*. Linux: nf_conntrack_udp_packet, udplite_error."""
    size: cython.Py_ssize_t = pkt.end - pkt.l4
    length: cython.Py_ssize_t
    lite: cython.bint = pkt.l4proto == IPPROTO_UDPLITE
    if size < 8:
        return CT_PKT_INVALID
    length = pkt.get16(pkt.l4 + 4)
    if lite and length == 0:
        length = size
    # a GSO packet's length field is that of the whole, as far as 16 bits go; Linux leaves it to the segmentation
    if (length > size or length < 8) and pkt.gso_type == 0:
        return CT_PKT_INVALID
    if lite and pkt.get16(pkt.l4 + 6) == 0:
        return CT_PKT_INVALID
    if hook == NF_INET_PRE_ROUTING and table.settings.checksum and not checksum_ok(pkt, pkt.l4proto):
        return CT_PKT_INVALID
    base: cython.int = T_UDPLITE if lite else T_UDP
    if conn.status & IPS_SEEN_REPLY:
        # Still in use after two seconds: not a query and its answer but a stream (lite ones are, at once).
        if lite or table.clock.now > conn.start + UDP_STREAM_AFTER:
            table.refresh(conn, _t(table, conn, base, CT_REPLIED))
            if not conn.status & (IPS_ASSURED | IPS_NAT_CLASH):
                conn.status |= IPS_ASSURED
                if table.listening:
                    conn.events |= CT_EVENT_ASSURED
        else:
            table.refresh(conn, _t(table, conn, base, CT_UNREPLIED))
    else:
        table.refresh(conn, _t(table, conn, base, CT_UNREPLIED))
    table.account(conn, direction, pkt)
    return CT_PKT_ACCEPT


def icmp_packet(
    table: ConnTable, pkt: Packet, conn: Conn, direction: cython.int, ctinfo: cython.int
) -> cython.int:
    """Queries and answers of ICMP and ICMPv6; CT_PKT_*. Linux: nf_conntrack_icmp_packet, nf_conntrack_icmpv6_packet."""
    type: cython.int = conn.orig.dport >> 8
    base: cython.int
    if pkt.l4proto == IPPROTO_ICMP:
        if pkt.nfproto != NFPROTO_IPV4 or type not in (8, 13, 15, 17):
            return CT_PKT_INVALID
        base = T_ICMP
    else:
        if pkt.nfproto != NFPROTO_IPV6 or type not in (128, 139):
            return CT_PKT_INVALID
        base = T_ICMPV6
    table.refresh(conn, _t(table, conn, base, 0))
    table.account(conn, direction, pkt)
    return CT_PKT_ACCEPT


def gre_packet(table: ConnTable, pkt: Packet, conn: Conn, direction: cython.int) -> cython.int:
    """GRE (RFC 2784, and RFC 2637 for PPTP); CT_PKT_*. Linux: nf_conntrack_gre_packet."""
    if conn.status & IPS_SEEN_REPLY:
        table.refresh(conn, _t(table, conn, T_GRE, CT_REPLIED))
        if not conn.status & (IPS_ASSURED | IPS_NAT_CLASH):
            conn.status |= IPS_ASSURED
            if table.listening:
                conn.events |= CT_EVENT_ASSURED
    else:
        table.refresh(conn, _t(table, conn, T_GRE, CT_UNREPLIED))
    table.account(conn, direction, pkt)
    return CT_PKT_ACCEPT


def generic_packet(table: ConnTable, pkt: Packet, conn: Conn, direction: cython.int) -> cython.int:
    """Any other protocol: addresses only. Linux: generic_packet."""
    table.refresh(conn, _t(table, conn, T_GENERIC, 0))
    table.account(conn, direction, pkt)
    return CT_PKT_ACCEPT
