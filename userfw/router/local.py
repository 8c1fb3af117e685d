"""Local delivery: packets for the gateway itself, past the input hook.

Laws: echo requests and neighbour discovery are answered here. With a local port (a TUN device into a namespace that carries
the gateway's addresses) everything else goes to the services behind it; without one the gateway is a host on which nothing
listens: TCP gets a reset, UDP port unreachable, other protocols protocol unreachable (RFC 1122 3.2.2.1, RFC 9293 3.10.7.1).
"""

from __future__ import annotations

import cython

from userfw.engine.services import CONTROL
from userfw.router.pmtu import PathMtus

if not cython.compiled:
    from userfw.core.const import (
        CT_NONE,
        IPPROTO_AH,
        IPPROTO_FRAGMENT,
        IPPROTO_ICMP,
        IPPROTO_ICMPV6,
        IPPROTO_IGMP,
        IPPROTO_NONE,
        IPPROTO_TCP,
        IPPROTO_UDP,
        IPPROTO_UDPLITE,
        NFPROTO_IPV4,
        NFPROTO_IPV6,
        PACKET_HOST,
        TCP_ACK,
        TCP_FIN,
        TCP_RST,
        TCP_SYN,
        U32_MASK,
        VNET_F_NEEDS_CSUM,
    )
    from userfw.core.drop import DROP_CHECKSUM, DROP_MALFORMED, DROP_NO_PROTOCOL, DROP_NOT_SPECIFIED
    from userfw.core.packet import Device, Packet
    from userfw.router.base import Router, set_start
    from userfw.router.const import (
        ICMP_DEST_UNREACH,
        ICMP_PORT_UNREACH,
        ICMP_PROT_UNREACH,
        ICMPV6_DEST_UNREACH,
        ICMPV6_PARAMPROB,
        ICMPV6_PKT_TOOBIG,
        ICMPV6_PORT_UNREACH,
        ICMPV6_UNK_NEXTHDR,
        NDISC_REDIRECT,
        NDISC_RS,
        RTN_LOCAL,
    )
    from userfw.router.icmp import Icmp, is_echo
    from userfw.router.inspect import ipv6_local_headers
    from userfw.router.nd import Ndisc
    from userfw.router.options import echoed
    from userfw.router.types import Dst
    from userfw.wire._raw import add_words
    from userfw.wire.build import ipv4, ipv4_options, ipv6, leave_checksum, tcp_reset
    from userfw.wire.checksum import fold, pseudo_sum


class Local:
    """The gateway as a host."""

    def __init__(self, router: Router, icmp: Icmp, ndisc: Ndisc, paths: PathMtus) -> None:
        self.router = router
        self.icmp = icmp
        self.ndisc = ndisc
        self.paths = paths
        self.device: Device | None = None
        self.delivered = 0
        self.resets = 0

    def deliver_untrusted(self, pkt: Packet) -> cython.int:
        """To its end; 0 or the DROP_* reason, counted."""
        proto: cython.int = pkt.l4proto
        if pkt.nfproto == NFPROTO_IPV6 and (pkt.l4 - pkt.l3 > 40 or proto in (IPPROTO_AH, IPPROTO_FRAGMENT)):
            reason: cython.int = ipv6_local_headers(self.router, pkt, self.device is None)
            if reason != DROP_NOT_SPECIFIED:
                return self.router.drop(pkt, reason)
        if pkt.nfproto == NFPROTO_IPV6 and not pkt.has_l4 and (pkt.l4 > pkt.end or proto in (0, 43, 44, 51, 60)):
            return self.router.drop(pkt, DROP_MALFORMED)  # an extension header that is cut off
        if proto == (IPPROTO_ICMP if pkt.nfproto == NFPROTO_IPV4 else IPPROTO_ICMPV6) and pkt.has_l4:
            return self._icmp(pkt)
        if self.device is not None:
            return self.hand_over(pkt)
        if proto == IPPROTO_TCP:
            return self._tcp(pkt)
        if proto in (IPPROTO_UDP, IPPROTO_UDPLITE):
            pkt.ct = None  # the connection is let go before the protocol answers (Linux: nf_reset_ct)
            pkt.ctinfo = CT_NONE
            return self._udp(pkt)
        if proto == (IPPROTO_IGMP if pkt.nfproto == NFPROTO_IPV4 else IPPROTO_NONE):
            return DROP_NOT_SPECIFIED
        if pkt.nfproto == NFPROTO_IPV4:
            self.router.send_error(pkt, ICMP_DEST_UNREACH, ICMP_PROT_UNREACH, 0)
        else:
            self.router.send_error(pkt, ICMPV6_PARAMPROB, ICMPV6_UNK_NEXTHDR, next_header_offset(pkt))
        return self.router.drop(pkt, DROP_NO_PROTOCOL)

    def hand_over(self, pkt: Packet) -> cython.int:
        """To the services behind the local port, which there must be."""
        set_start(pkt, pkt.l3)
        self.delivered += 1
        return self.router.transmit(pkt, cython.cast(Device, self.device))

    def _icmp(self, pkt: Packet) -> cython.int:
        if not self.icmp.valid(pkt):
            return self.router.drop(pkt, DROP_CHECKSUM if pkt.end - pkt.l4 >= 8 else DROP_MALFORMED)
        if is_echo(pkt):
            if pkt.nfproto == NFPROTO_IPV4:
                self.icmp.echo4(pkt)
            else:
                self.icmp.echo6(pkt)
            return DROP_NOT_SPECIFIED
        if pkt.nfproto == NFPROTO_IPV6 and NDISC_RS <= pkt.get8(pkt.l4) <= NDISC_REDIRECT:
            return self.ndisc.receive_untrusted(pkt)
        if pkt.get8(pkt.l4) in (ICMP_DEST_UNREACH, ICMPV6_PKT_TOOBIG):
            self.paths.told(pkt)
        if self.device is not None:
            return self.hand_over(pkt)
        return DROP_NOT_SPECIFIED

    # -- nothing listens

    def _tcp(self, pkt: Packet) -> cython.int:
        """Linux: tcp_v4_rcv without a socket, tcp_v4_send_reset."""
        if pkt.pkttype != PACKET_HOST:
            return self.router.drop(pkt, DROP_NO_PROTOCOL)
        if pkt.end - pkt.l4 < 20:
            return self.router.drop(pkt, DROP_MALFORMED)
        header: cython.Py_ssize_t = (pkt.get8(pkt.l4 + 12) >> 4) * 4
        if header < 20 or pkt.l4 + header > pkt.end:
            return self.router.drop(pkt, DROP_MALFORMED)
        if not checksum_ok(pkt, IPPROTO_TCP):
            return self.router.drop(pkt, DROP_CHECKSUM)
        dst: Dst | None = pkt.route
        if not pkt.get8(pkt.l4 + 13) & TCP_RST and dst is not None and dst.type == RTN_LOCAL:
            options: bytes | None = b""
            reply: Packet = self.router.take()
            if pkt.nfproto == NFPROTO_IPV4:
                own: cython.uint = pkt.get32(pkt.l3 + 16)
                options = None  # none from an address that it got at input (Linux: ip_route_output_key_hash_rcu)
                if self.router.routes.resolve(NFPROTO_IPV4, 0, own, 0, 0, 0, None).type == RTN_LOCAL:
                    options = echoed(self.router, pkt, own, reply)
            if options is None:
                self.router.give(reply)
                return self.router.drop(pkt, DROP_NO_PROTOCOL)
            tos: cython.int = pkt.get8(pkt.l3 + 1) if pkt.nfproto == NFPROTO_IPV4 else (pkt.get16(pkt.l3) >> 4) & 0xFF
            reset(reply, pkt, self.router.settings.ttl, tos & 0xFC, options)  # the class of service, not what ECN says
            self.resets += 1
            if pkt.nfproto == NFPROTO_IPV4:
                reply.extra = CONTROL
            else:
                leave_checksum(reply, 16)  # and it belongs to no socket (Linux: tcp_v6_send_response)
                if pkt.get16(pkt.l3 + 8) & 0xFFC0 == 0xFE80:  # back over the link on which the address means something
                    reply.route = self.router.routes.resolve(
                        NFPROTO_IPV6, pkt.get64(pkt.l3 + 8), pkt.get64(pkt.l3 + 16), 0, 0, pkt.mark, pkt.iif
                    )
            self.router.local_out(reply)
            self.router.give(reply)
        return self.router.drop(pkt, DROP_NO_PROTOCOL)

    def _udp(self, pkt: Packet) -> cython.int:
        """Linux: __udp4_lib_rcv without a socket."""
        if pkt.end - pkt.l4 < 8:
            return self.router.drop(pkt, DROP_MALFORMED)
        length: cython.Py_ssize_t = pkt.get16(pkt.l4 + 4)
        if length > pkt.end - pkt.l4 or (length < 8 and (length or pkt.nfproto == NFPROTO_IPV4)):
            return self.router.drop(pkt, DROP_MALFORMED)
        if length:
            pkt.end = pkt.l4 + length
        if not checksum_ok(pkt, pkt.l4proto):
            return self.router.drop(pkt, DROP_CHECKSUM)
        dst: Dst | None = pkt.route
        if dst is not None and dst.type == RTN_LOCAL:
            if pkt.nfproto == NFPROTO_IPV4:
                self.router.send_error(pkt, ICMP_DEST_UNREACH, ICMP_PORT_UNREACH, 0)
            else:
                self.router.send_error(pkt, ICMPV6_DEST_UNREACH, ICMPV6_PORT_UNREACH, 0)
        return self.router.drop(pkt, DROP_NO_PROTOCOL)


def checksum_ok(pkt: Packet, proto: cython.int) -> cython.bint:
    """The TCP or UDP checksum is right, was found so before, or is still partial; UDP over IPv4 may carry none."""
    if pkt.vnet_flags & VNET_F_NEEDS_CSUM:
        return True
    if proto == IPPROTO_UDP and pkt.get16(pkt.l4 + 6) == 0:
        return pkt.nfproto == NFPROTO_IPV4
    if pkt.checked == 2:
        return True
    length: cython.Py_ssize_t = pkt.end - pkt.l4
    return fold(add_words(fold(pseudo_sum(pkt, proto, length)), pkt.data, pkt.l4, length)) == 0xFFFF


def reset(reply: Packet, pkt: Packet, ttl: cython.int, tos: cython.int, options: bytes) -> cython.int:
    """Build the RST that answers the segment `pkt` (RFC 9293 3.10.7.1), addresses and ports swapped; `options` of IPv4."""
    l4: cython.Py_ssize_t = pkt.l4
    flags: cython.int = pkt.get8(l4 + 13)
    seq: cython.uint = 0
    ack: cython.uint = 0
    length: cython.Py_ssize_t
    if pkt.nfproto == NFPROTO_IPV4:
        ipv4(reply, IPPROTO_TCP, 20, pkt.get32(pkt.l3 + 16), pkt.get32(pkt.l3 + 12), ttl, tos, 0, True)
        if options:
            ipv4_options(reply, options)
    else:
        ipv6(
            reply,
            IPPROTO_TCP,
            20,
            pkt.get64(pkt.l3 + 24),
            pkt.get64(pkt.l3 + 32),
            pkt.get64(pkt.l3 + 8),
            pkt.get64(pkt.l3 + 16),
            ttl,
            tos,
        )
    if flags & TCP_ACK:
        seq = pkt.get32(l4 + 8)
        flags = TCP_RST
    else:
        length = pkt.end - l4 - (pkt.get8(l4 + 12) >> 4) * 4
        ack = pkt.get32(l4 + 4) + cython.cast(cython.uint, max(length, 0))
        if flags & TCP_SYN:
            ack += 1
        if flags & TCP_FIN:
            ack += 1
        ack &= U32_MASK
        flags = TCP_RST | TCP_ACK
    return tcp_reset(reply, pkt.get16(l4 + 2), pkt.get16(l4), seq, ack, flags)


def next_header_offset(pkt: Packet) -> cython.uint:
    """Where, counted from the IPv6 header, the next-header field stands that names the transport."""
    slot: cython.Py_ssize_t = 6
    off: cython.Py_ssize_t = 40
    proto: cython.int = pkt.get8(pkt.l3 + 6)
    while proto in (0, 43, 44, 51, 60) and pkt.l3 + off + 8 <= pkt.end and pkt.l3 + off < pkt.l4:
        slot = off
        if proto == 44:
            proto = pkt.get8(pkt.l3 + off)
            off += 8
            continue
        step: cython.int = pkt.get8(pkt.l3 + off + 1)
        step = (step + 2) * 4 if proto == 51 else (step + 1) * 8
        proto = pkt.get8(pkt.l3 + off)
        off += step
    found: cython.uint = cython.cast(cython.uint, slot)
    return found
