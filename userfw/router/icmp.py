"""ICMP and ICMPv6 errors of the gateway (RFC 1812 4.3, RFC 4443; Linux: icmp_send, icmp6_send) and echo answers.

Laws: an error never answers an error, a fragment other than the first (IPv4), a broadcast or multicast (but for packet too
big and unknown options in IPv6), or a source that names no single host. It quotes what fits into 576 bytes (IPv4) or 1280
(IPv6). It is a packet of the gateway itself, so output and postrouting hooks and NAT of the related connection apply to it.
"""

from __future__ import annotations

import cython

from userfw.engine.services import CONTROL
from userfw.router.source import select_ipv6

if not cython.compiled:
    from userfw.core.const import (
        ARPHRD_LOOPBACK,
        CT_RELATED,
        IPPROTO_AH,
        IPPROTO_DSTOPTS,
        IPPROTO_FRAGMENT,
        IPPROTO_HOPOPTS,
        IPPROTO_ICMP,
        IPPROTO_ICMPV6,
        IPPROTO_NONE,
        IPPROTO_ROUTING,
        NFPROTO_IPV4,
        NFPROTO_IPV6,
        NSEC_PER_SEC,
        PACKET_HOST,
        U32_MASK,
        VNET_F_NEEDS_CSUM,
    )
    from userfw.core.packet import Device, Packet
    from userfw.engine.services import Copy
    from userfw.router.base import Router
    from userfw.router.const import (
        ICMP_DEST_UNREACH,
        ICMP_ECHO,
        ICMP_ECHOREPLY,
        ICMP_FRAG_NEEDED,
        ICMP_TIMESTAMP,
        ICMP_TIMESTAMPREPLY,
        ICMPV6_ECHO_REPLY,
        ICMPV6_ECHO_REQUEST,
        ICMPV6_PARAMPROB,
        ICMPV6_PKT_TOOBIG,
        ICMPV6_UNK_OPTION,
        IPV6_MIN_MTU,
        RTN_ANYCAST,
        RTN_BROADCAST,
        RTN_LOCAL,
        RTN_MULTICAST,
        RTN_UNICAST,
    )
    from userfw.router.options import echoed, midnight
    from userfw.router.ratelimit import ErrorLimits
    from userfw.router.types import Dst
    from userfw.wire.build import copy_bytes, icmp_checksum, icmp_checksum_ok, ipv4, ipv4_options, ipv6

ERROR_BURST = 6
ROUTE_BURST = 5


class Icmp:
    """The ICMP side of one gateway, both families."""

    def __init__(self, router: Router) -> None:
        self.router = router
        self.limits = ErrorLimits(router.settings)
        self.sent = 0
        self.limited = 0
        self.echoes = 0
        self.sending = 0

    def error(self, pkt: Packet, type: cython.int, code: cython.int, info: cython.uint) -> cython.int:
        """Answer `pkt` with an error; `info` is the second word of the message. 1 if one was sent."""
        if pkt.nfproto == NFPROTO_IPV4:
            return self._error4(pkt, type, code, info)
        if pkt.nfproto == NFPROTO_IPV6:
            return self._error6(pkt, type, code, info)
        return 0

    # -- IPv4

    def _error4(self, pkt: Packet, type: cython.int, code: cython.int, info: cython.uint) -> cython.int:
        l3: cython.Py_ssize_t = pkt.l3
        source: cython.uint = pkt.get32(l3 + 12)
        quoted: cython.Py_ssize_t
        dst: Dst
        asked: Dst
        reply: Packet
        if self.sending & 1 or not self._answerable4(pkt, source):
            return 0
        if source == 0:  # no address: this host itself, by the address asked or 127.0.0.1 (Linux: ip_route_output_key_hash_rcu)
            asked = pkt.route
            source = pkt.get32(l3 + 16) if asked.type == RTN_LOCAL else 0
            source = source or 0x7F000001
        limited: cython.bint = ((self.router.settings.icmp_ratemask >> type) & 1) != 0 and not (
            type == ICMP_DEST_UNREACH and code == ICMP_FRAG_NEEDED
        )
        if limited and not self._from_loopback(pkt) and not self.limits.global_allow(self.router.clock.now):
            self.limited += 1
            return 0
        dst = self.router.routes.resolve(NFPROTO_IPV4, 0, source, 0, 0, 0, None)
        if dst.type not in (RTN_UNICAST, RTN_LOCAL):
            return 0
        if limited and not self._peer_ok(dst, 0, source, self.router.settings.icmp_ratelimit):
            return 0
        own: cython.uint = self._own_source4(pkt, dst)
        if own == 0:
            return 0
        reply = self.router.take()
        options = echoed(self.router, pkt, own, reply)
        if options is None:
            self.router.give(reply)
            return 0
        if dst.own is not None:
            dst = dst.own
        quoted = min(pkt.end - l3, min(dst.mtu if dst.mtu else 576, 576) - 28 - len(options))
        tos: cython.int = (pkt.get8(l3 + 1) & 0x1E) | 0xC0
        ipv4(reply, IPPROTO_ICMP, 8 + quoted, own, source, self.router.settings.ttl, tos, self.router.next_id(), False)
        if options:
            ipv4_options(reply, options)
        self._fill(reply, pkt, type, code, info, quoted)
        self._attach(reply, pkt)
        return self._send(reply)

    def _answerable4(self, pkt: Packet, source: cython.uint) -> cython.bint:
        to: cython.uint = pkt.get32(pkt.l3 + 16)
        kind: cython.int
        dst: Dst | None = pkt.route
        if pkt.pkttype != PACKET_HOST or (dst is None and (to >> 28 == 14 or to == U32_MASK)):
            return False
        if pkt.fragoff or source >> 28 == 14 or source == U32_MASK:
            return False
        if source == 0 and dst is None:
            return False
        if dst is not None and dst.type in (RTN_BROADCAST, RTN_MULTICAST):
            return False
        if pkt.l4proto == IPPROTO_ICMP:
            if pkt.l4 >= pkt.end:
                return False
            kind = pkt.get8(pkt.l4)
            if kind > 18 or (1 <= kind <= 12 and kind != 8):  # icmp_pointers: unused types and router discovery are errors too
                return False
        return True

    def _own_source4(self, pkt: Packet, dst: Dst) -> cython.uint:
        """The address that was asked if it is ours, else the best one towards the offender.

        0: there is no answer. A packet rejected before it was routed is taken for ours when its source is (Linux:
        nf_reject_fill_skb_dst), and an answer from an address that is not does not leave.
        """
        to: cython.uint = pkt.get32(pkt.l3 + 16)
        asked: Dst | None = pkt.route
        if asked is None:
            asked = self.router.routes.resolve(NFPROTO_IPV4, 0, to, 0, 0, 0, None)
        if to == 0 and asked.type == RTN_LOCAL and pkt.get32(pkt.l3 + 12) == 0:
            return dst.key_lo  # neither has an address: 127.0.0.1 is both
        if to and asked.type == RTN_LOCAL:
            return to if self.router.routes.resolve(NFPROTO_IPV4, 0, to, 0, 0, 0, None).type == RTN_LOCAL else 0
        found = self.router.source_for(dst, NFPROTO_IPV4)
        if found is not None:
            return found[1]
        dummy: cython.uint = 0xC000  # 192.0.0.8 (RFC 7600): the gateway has no IPv4 address at all
        return (dummy << 16) | 8

    # -- IPv6

    def _error6(self, pkt: Packet, type: cython.int, code: cython.int, info: cython.uint) -> cython.int:
        l3: cython.Py_ssize_t = pkt.l3
        hi: cython.ulonglong = pkt.get64(l3 + 8)
        lo: cython.ulonglong = pkt.get64(l3 + 16)
        quoted: cython.Py_ssize_t
        dst: Dst
        reply: Packet
        if self.sending & 2 or not self._answerable6(pkt, type, code, info, hi, lo):
            return 0
        limited: cython.bint = type != ICMPV6_PKT_TOOBIG and type < 128
        if limited and not self._from_loopback(pkt) and not self.limits.global_allow(self.router.clock.now):
            self.limited += 1
            return 0
        dst = self.route_back6(pkt, hi, lo)
        if dst.type not in (RTN_UNICAST, RTN_LOCAL, RTN_ANYCAST):
            return 0
        cost: cython.ulonglong = self.router.settings.icmp6_ratelimit
        if dst.prefixlen < 128:
            cost >>= (128 - dst.prefixlen) >> 5
        if limited and not self._peer_ok(dst, hi, lo, cost):
            return 0
        own = self._own_source6(pkt, dst)
        if own is None:
            return 0
        quoted = min(pkt.end - l3, IPV6_MIN_MTU - 48)
        reply = self.router.take()
        ipv6(reply, IPPROTO_ICMPV6, 8 + quoted, own[0], own[1], hi, lo, self.router.settings.ttl, 0)
        if hi >> 54 == 0x3FA:
            reply.route = dst
        self._fill(reply, pkt, type, code, info, quoted)
        self._attach(reply, pkt)
        return self._send(reply)

    def _answerable6(
        self, pkt: Packet, type: cython.int, code: cython.int, info: cython.uint, hi: cython.ulonglong, lo: cython.ulonglong
    ) -> cython.bint:
        """To what went to many only that it is too big, and that an option is not known which wants to be told of (RFC 4443 2.4,
        RFC 8200 4.2: its highest bits are 10; Linux: opt_unrec)."""
        multicast: cython.bint = pkt.get8(pkt.l3 + 24) == 0xFF or pkt.pkttype != PACKET_HOST
        if multicast and type != ICMPV6_PKT_TOOBIG:
            if type != ICMPV6_PARAMPROB or code != ICMPV6_UNK_OPTION or pkt.get8(pkt.l3 + info) >> 6 != 2:
                return False
        if (hi == 0 and lo == 0) or hi >> 56 == 0xFF:
            return False
        return not self._is_error6(pkt)

    def _is_error6(self, pkt: Packet) -> cython.bint:
        """An ICMPv6 error, or too short to tell, behind whatever the headers claim (Linux: is_ineligible, ipv6_skip_exthdr)."""
        at: cython.Py_ssize_t = pkt.l3 + 40
        proto: cython.int = pkt.get8(pkt.l3 + 6)
        size: cython.Py_ssize_t
        first: cython.bint = False
        while proto in (IPPROTO_HOPOPTS, IPPROTO_ROUTING, IPPROTO_FRAGMENT, IPPROTO_AH, IPPROTO_DSTOPTS, IPPROTO_NONE):
            if proto == IPPROTO_NONE or at + 2 > pkt.end:
                return False
            size = (pkt.get8(at + 1) + 1) * 8
            if proto == IPPROTO_FRAGMENT:
                if at + 4 > pkt.end or pkt.get16(at + 2) & 0xFFF8:
                    return False
                first = pkt.get16(at + 2) != 0
                size = 8
            elif proto == IPPROTO_AH:
                size = (pkt.get8(at + 1) + 2) * 4
            proto = pkt.get8(at)
            at += size
        if proto != IPPROTO_ICMPV6:
            return False
        return not first if at >= pkt.end else pkt.get8(at) < 128

    def route_back6(self, pkt: Packet, hi: cython.ulonglong, lo: cython.ulonglong) -> Dst:
        """The way back to a source; a link-local one is on the link the packet came from."""
        device: Device | None = None
        if hi >> 54 == 0x3FA:
            device = pkt.iif if pkt.iif is not None else pkt.oif
        return self.router.routes.resolve_out(NFPROTO_IPV6, hi, lo, 0, 0, 0, device)

    def _own_source6(self, pkt: Packet, dst: Dst) -> tuple[int, int] | None:
        hi: cython.ulonglong = pkt.get64(pkt.l3 + 24)
        lo: cython.ulonglong = pkt.get64(pkt.l3 + 32)
        outside: cython.bint = pkt.iif is not None and not self._from_loopback(pkt)
        asked: cython.bint = hi >> 56 != 0xFF and pkt.pkttype == PACKET_HOST  # not a group, of the link either
        if asked and not (outside and hi == 0 and lo == 1):  # ::1 is loopback's only (Linux: ipv6_chk_addr)
            kind: cython.int = self.router.routes.resolve(NFPROTO_IPV6, hi, lo, 0, 0, 0, pkt.iif).type
            if kind in (RTN_LOCAL, RTN_ANYCAST):
                return (hi, lo)
        if dst.type == RTN_LOCAL:
            return (dst.key_hi, dst.key_lo)
        entered: Device | None = pkt.iif if outside else None
        if isinstance(pkt.extra, Copy):
            entered = cython.cast(Copy, pkt.extra).entered
        if entered is not None and (dst.source is None or not (dst.source.src_hi or dst.source.src_lo)):
            return select_ipv6(self.router, entered, pkt.get64(pkt.l3 + 8), pkt.get64(pkt.l3 + 16))  # Linux: icmp6_send
        return self.router.source_for(dst, NFPROTO_IPV6)

    # -- both

    def _from_loopback(self, pkt: Packet) -> cython.bint:
        device: Device | None = pkt.iif
        return device is not None and device.type == ARPHRD_LOOPBACK

    def _peer_ok(self, dst: Dst, hi: cython.ulonglong, lo: cython.ulonglong, cost: cython.ulonglong) -> cython.bint:
        device: Device | None = dst.oif
        if cost == 0 or dst.type == RTN_LOCAL or (device is not None and device.type == ARPHRD_LOOPBACK):
            return True
        if self.limits.peer_allow(hi, lo, cost, self.router.clock.now, ERROR_BURST):
            return True
        self.limited += 1
        return False

    def _fill(
        self, reply: Packet, pkt: Packet, type: cython.int, code: cython.int, info: cython.uint, quoted: cython.Py_ssize_t
    ) -> None:
        reply.put16(reply.l4, (type << 8) | code)
        reply.put32(reply.l4 + 4, info)
        copy_bytes(reply, reply.l4 + 8, pkt, pkt.l3, quoted)
        icmp_checksum(reply)

    def _attach(self, reply: Packet, pkt: Packet) -> None:
        """The error belongs to the connection of what it quotes, and is translated with it (Linux: nf_ct_attach)."""
        if pkt.ct is not None:
            reply.ct = pkt.ct
            reply.ctinfo = CT_RELATED
            reply.ctdir = 1 - pkt.ctdir

    def _send(self, reply: Packet) -> cython.int:
        self.sent += 1
        self._out(reply)
        return 1

    def _out(self, reply: Packet) -> None:
        """One message of a family at a time: none answers another that is still on its way out (Linux: icmp_xmit_lock)."""
        before: cython.int = self.sending
        self.sending = before | (1 if reply.nfproto == NFPROTO_IPV4 else 2)
        reply.extra = CONTROL
        try:
            self.router.local_out(reply)
        finally:
            self.sending = before
        self.router.give(reply)

    def route_error(self, pkt: Packet, code: cython.int) -> cython.int:
        """Destination unreachable because of a route; on top of the other limits it costs the source a second (Linux: ip_error)."""
        second: cython.ulonglong = NSEC_PER_SEC
        if not self.limits.peer_allow(0, pkt.get32(pkt.l3 + 12), second, self.router.clock.now, ROUTE_BURST):
            self.limited += 1
            return 0
        return self._error4(pkt, ICMP_DEST_UNREACH, code, 0)

    # -- echo

    def echo4(self, pkt: Packet) -> cython.bint:
        """Answer an echo or timestamp request for us (RFC 1122 3.2.2.6, 3.2.2.8); False if it is not answered."""
        settings = self.router.settings
        l3: cython.Py_ssize_t = pkt.l3
        length: cython.Py_ssize_t = pkt.end - pkt.l4
        timed: cython.bint = pkt.get8(pkt.l4) == ICMP_TIMESTAMP
        if timed:
            if length < 12:
                return False
            length = 20
        source: cython.uint = pkt.get32(l3 + 12)
        own: cython.uint = pkt.get32(l3 + 16)
        dst: Dst | None = pkt.route
        shared: cython.bint = dst is not None and dst.type != RTN_LOCAL
        if (settings.icmp_echo_ignore_all and not timed) or (shared and settings.icmp_echo_ignore_broadcasts):
            return False
        if shared:
            back: Dst = self.router.routes.resolve(NFPROTO_IPV4, 0, source, 0, 0, 0, None)
            found = self.router.source_for(back, NFPROTO_IPV4)
            if found is None:
                return False
            own = found[1]
        elif self.router.routes.resolve(NFPROTO_IPV4, 0, own, 0, 0, 0, None).type != RTN_LOCAL:
            return False  # an input chain made it another's address, from which nothing leaves
        reply: Packet = self.router.take()
        options = echoed(self.router, pkt, own, reply)
        if options is None:
            self.router.give(reply)
            return False
        ipv4(reply, IPPROTO_ICMP, length, own, source, settings.ttl, pkt.get8(l3 + 1), self.router.next_id(), False)
        if options:
            ipv4_options(reply, options)
        if timed:
            return self._time(reply, pkt)
        return self._echo(reply, pkt, ICMP_ECHOREPLY, length)

    def echo6(self, pkt: Packet) -> cython.bint:
        """Answer an ICMPv6 echo request (RFC 4443 4.2)."""
        l3: cython.Py_ssize_t = pkt.l3
        length: cython.Py_ssize_t = pkt.end - pkt.l4
        hi: cython.ulonglong = pkt.get64(l3 + 8)
        lo: cython.ulonglong = pkt.get64(l3 + 16)
        own_hi: cython.ulonglong = pkt.get64(l3 + 24)
        own_lo: cython.ulonglong = pkt.get64(l3 + 32)
        dst: Dst | None = pkt.route
        if self.router.settings.icmp_echo_ignore_all or hi >> 56 == 0xFF:
            return False
        shared: cython.bint = dst is None or dst.type != RTN_LOCAL
        back: Dst
        if shared and not self._from_loopback(pkt):  # back by the device it came in by, or not at all (Linux: rt6_need_strict)
            back = self.router.routes.resolve_out(NFPROTO_IPV6, hi, lo, 0, 0, 0, pkt.iif)
        else:
            back = self.route_back6(pkt, hi, lo)
        if shared:
            found = self.router.source_for(back, NFPROTO_IPV6)
            if found is None:
                return False
            own_hi, own_lo = found
        reply: Packet = self.router.take()
        ipv6(reply, IPPROTO_ICMPV6, length, own_hi, own_lo, hi, lo, self.router.settings.ttl, (pkt.get16(l3) >> 4) & 0xFF)
        if (shared and back.type != RTN_LOCAL) or hi >> 54 == 0x3FA:
            reply.route = back
        return self._echo(reply, pkt, ICMPV6_ECHO_REPLY, length)

    def _time(self, reply: Packet, pkt: Packet) -> cython.bint:
        """Identifier, sequence, the sender's time, and twice ours: milliseconds since midnight UT (Linux: icmp_timestamp)."""
        now: cython.uint = midnight(self.router)
        reply.put16(reply.l4, ICMP_TIMESTAMPREPLY << 8)
        copy_bytes(reply, reply.l4 + 4, pkt, pkt.l4 + 4, 8)
        reply.put32(reply.l4 + 12, now)
        reply.put32(reply.l4 + 16, now)
        icmp_checksum(reply)
        self._out(reply)
        return True

    def _echo(self, reply: Packet, pkt: Packet, type: cython.int, length: cython.Py_ssize_t) -> cython.bint:
        copy_bytes(reply, reply.l4, pkt, pkt.l4, length)
        reply.put8(reply.l4, type)
        icmp_checksum(reply)
        self.echoes += 1
        self._out(reply)
        return True

    def valid(self, pkt: Packet) -> cython.bint:
        """The message is long enough and its checksum right (or still to be completed by the sender's card)."""
        if pkt.end - pkt.l4 < 8:
            return False
        return (pkt.vnet_flags & VNET_F_NEEDS_CSUM) != 0 or pkt.checked == 2 or icmp_checksum_ok(pkt)


def is_echo(pkt: Packet) -> cython.bint:
    """An echo request of the packet's family, or a timestamp request."""
    kind: cython.int = pkt.get8(pkt.l4)
    if pkt.nfproto == NFPROTO_IPV4:
        return kind in (ICMP_ECHO, ICMP_TIMESTAMP)
    return kind == ICMPV6_ECHO_REQUEST
