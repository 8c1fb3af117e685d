"""The path of a packet, call by call: ingress, prerouting, route, forward or input, output, postrouting, neighbour, egress.

Laws: a packet leaves this file sent, stolen, queued for a neighbour, or dropped with a counted reason; no exception escapes
`receive`. Checks stand in the order of Linux's ip_rcv_core, ip_route_input_slow, ip_forward, ip6_rcv_core, ip6_forward. Each
`after_*` method is where a packet goes on that was held at the hook before it. Without a pipeline there are no hooks.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import cython

if not cython.compiled:
    from userfw.core.clock import Clock
    from userfw.core.const import (
        ARPHRD_LOOPBACK,
        NF_ACCEPT,
        NF_INET_FORWARD,
        NF_INET_LOCAL_IN,
        NF_INET_LOCAL_OUT,
        NF_INET_POST_ROUTING,
        NF_INET_PRE_ROUTING,
        NFPROTO_ARP,
        NFPROTO_BRIDGE,
        NFPROTO_IPV4,
        NFPROTO_IPV6,
        NFPROTO_UNSPEC,
        PACKET_HOST,
        PACKET_LOOPBACK,
        PACKET_OTHERHOST,
    )
    from userfw.core.drop import (
        DROP_DEVICE_DOWN,
        DROP_FRAG_NEEDED,
        DROP_INTERNAL_ERROR,
        DROP_MALFORMED,
        DROP_MARTIAN,
        DROP_NO_ROUTE,
        DROP_NOT_SPECIFIED,
        DROP_OTHERHOST,
        DROP_PROHIBITED,
        DROP_SOCKET_ELSEWHERE,
        DROP_TTL_EXPIRED,
        DROP_TX_FAILED,
        DROP_UNKNOWN_ETHERTYPE,
    )
    from userfw.core.fastpath import FastPath
    from userfw.core.hook import HookList
    from userfw.core.packet import Device, Packet
    from userfw.engine.services import Origin
    from userfw.router.base import set_start
    from userfw.router.bridge import Members
    from userfw.router.const import (
        ICMP_DEST_UNREACH,
        ICMP_EXC_TTL,
        ICMP_FRAG_NEEDED,
        ICMP_HOST_UNREACH,
        ICMP_NET_UNREACH,
        ICMP_PKT_FILTERED,
        ICMP_TIME_EXCEEDED,
        ICMPV6_ADM_PROHIBITED,
        ICMPV6_DEST_UNREACH,
        ICMPV6_EXC_HOPLIMIT,
        ICMPV6_NOROUTE,
        ICMPV6_NOT_NEIGHBOUR,
        ICMPV6_PKT_TOOBIG,
        ICMPV6_TIME_EXCEED,
        IPV6_MIN_MTU,
        RTN_ANYCAST,
        RTN_BLACKHOLE,
        RTN_BROADCAST,
        RTN_LOCAL,
        RTN_MULTICAST,
        RTN_PROHIBIT,
        RTN_UNICAST,
        RTN_UNREACHABLE,
        RTN_UNSPEC,
        USER_LOCAL,
    )
    from userfw.router.inspect import exceeds, flow_hash, ipv6_hop_options
    from userfw.router.options import forward_options, ipv4_options
    from userfw.router.reassembly import Reassembly, whole_fragment
    from userfw.router.routing import Routing
    from userfw.router.settings import Settings
    from userfw.router.types import Dst
    from userfw.wire.gso import check_untrusted
    from userfw.wire.parse import cut_tag_untrusted, parse_link_untrusted, parse_network_untrusted, trim

BACKLOG_LIMIT = 1000


class Path(Routing):
    """A Router that walks packets from device to device; `gateway.Gateway` adds what is configured."""

    def __init__(
        self,
        clock: Clock,
        rng: random.Random | None = None,
        settings: Settings | None = None,
        fault: Callable[[BaseException, str], None] | None = None,
    ) -> None:
        super().__init__(clock, rng, settings, fault)
        self.reassembly = Reassembly(self)
        self.local_device: Device | None = None
        self.pending = self.speaking = False
        self.vlans: dict[tuple[int, int, int], Device] = {}

    # -- in

    def receive(self, pkt: Packet) -> cython.int:
        """A frame came in on `pkt.iif`: walk it to its end. 0, or the DROP_* reason; afterwards look at `pkt.stolen`."""
        result: cython.int
        try:
            result = self._receive(pkt)
            if self.backlog or self.pending:
                self.drain()
        except Exception as error:
            self.report(error, "receive")
            return self.drop(pkt, DROP_INTERNAL_ERROR)
        return result

    def receive_batch(self, packets: list[Packet], n: cython.Py_ssize_t) -> cython.int:
        """`receive` for the first `n` packets; a slot whose packet was stolen gets a fresh one. Returns how many were dropped."""
        i: cython.Py_ssize_t
        dropped: cython.int = 0
        pkt: Packet
        for i in range(n):
            pkt = packets[i]
            if self.receive(pkt) != DROP_NOT_SPECIFIED:
                dropped += 1
            if pkt.stolen:
                packets[i] = self.take()
        return dropped

    def end_batch(self) -> cython.int:
        """Flush every port that was sent to; packets built here may be reused from now on."""
        return self.flush()

    def _receive(self, pkt: Packet) -> cython.int:
        device: Device | None = pkt.iif
        if device is None or not device.up:
            return self.drop(pkt, DROP_DEVICE_DOWN)
        return self._judge(pkt, device, self._parse(pkt, device))

    def _parse(self, pkt: Packet, device: Device) -> cython.int:
        """Count a frame that came in and read its headers: DROP_NOT_SPECIFIED, or what is wrong with it."""
        device.rx_packets += 1
        device.rx_bytes += pkt.end - pkt.start
        reason: cython.int = parse_link_untrusted(pkt)
        if reason == DROP_NOT_SPECIFIED:
            reason = parse_network_untrusted(pkt)
            if pkt.vnet_flags or pkt.gso_type:
                if reason == DROP_NOT_SPECIFIED:
                    reason = check_untrusted(pkt)
        return reason

    def _judge(self, pkt: Packet, device: Device, reason: cython.int) -> cython.int:
        """The way of a parsed frame, to its end."""
        fast: FastPath
        entries: HookList
        if reason == DROP_MALFORMED and cut_tag_untrusted(pkt):
            return self.drop(pkt, reason)
        if device.flowtable is not None and reason == DROP_NOT_SPECIFIED:
            if pkt.pkttype == PACKET_HOST or device.master is not None:
                fast = device.flowtable
                if fast.forward(pkt):
                    return DROP_NOT_SPECIFIED
        if device is self.local_device:
            return self._from_local(pkt, reason)
        if device.ingress is not None:
            entries = device.ingress
            pkt.rewritten = False
            verdict: cython.int = entries.run(pkt)
            if verdict != NF_ACCEPT:
                return self.verdict(pkt, verdict)
            if pkt.rewritten:
                reason = self.reread(pkt, reason)
        return self.after_ingress(pkt, reason)

    def reread(self, pkt: Packet, reason: cython.int) -> cython.int:
        """Its header is judged behind the chains of ingress and of bridges (Linux: ip_rcv_core, ip6_rcv_core)."""
        if pkt.l3 >= pkt.end:
            return reason
        pkt.nfproto = NFPROTO_UNSPEC
        pkt.has_l4 = False
        pkt.is_fragment = False
        pkt.fragoff = 0
        reason = parse_network_untrusted(pkt)
        if reason == DROP_NOT_SPECIFIED and (pkt.vnet_flags or pkt.gso_type):
            return check_untrusted(pkt)
        return reason

    def enter_device(self, pkt: Packet, reason: cython.int) -> cython.int:
        device: Device = cython.cast(Device, pkt.iif)
        if not device.up:
            return self.drop(pkt, DROP_DEVICE_DOWN)
        device.rx_packets += 1
        device.rx_bytes += pkt.end - pkt.start
        return self._judge(pkt, device, reason)

    def after_ingress(self, pkt: Packet, reason: cython.int) -> cython.int:
        """Past the device's ingress chains, which judge malformed frames too: `reason` is what parsing said."""
        device: Device = cython.cast(Device, pkt.iif)
        if device.master is not None and self._for_bridge(pkt, device):
            port: Members = device.bridge
            return port.bridge.receive(pkt, reason)
        return self.enter_port(pkt, reason)

    def _for_bridge(self, pkt: Packet, port: Device) -> cython.bint:
        """A VLAN device on a port takes its frames first."""
        if pkt.end - pkt.start < 14:
            return False
        return pkt.vlan_tci < 0 or (port.index, pkt.get16(pkt.start + 12), pkt.vlan_tci & 0xFFF) not in self.vlans

    def enter_port(self, pkt: Packet, reason: cython.int) -> cython.int:
        if pkt.vlan_tci >= 0:
            return self._vlan(pkt, reason)
        if pkt.pkttype == PACKET_OTHERHOST:
            return self.drop(pkt, DROP_OTHERHOST)
        if reason != DROP_NOT_SPECIFIED:
            return self.drop(pkt, reason)
        if pkt.nfproto == NFPROTO_IPV4:
            trim(pkt)
            return self._hook_in(pkt)
        if pkt.nfproto == NFPROTO_IPV6:
            trim(pkt)
            reason = self._check_ipv6(pkt)
            if reason != DROP_NOT_SPECIFIED:
                return self.drop(pkt, reason)
            return self._hook_in(pkt)
        if pkt.nfproto == NFPROTO_ARP:
            return self.arp.receive_untrusted(pkt)
        return self.drop(pkt, DROP_UNKNOWN_ETHERTYPE)

    def _vlan(self, pkt: Packet, reason: cython.int) -> cython.int:
        """The outermost tag chooses a VLAN device, which receives the frame without it; what is for the device below is for this
        one too, and a group's is a group's, whatever rules made of its address (Linux: vlan_do_receive)."""
        parent: Device = cython.cast(Device, pkt.iif)
        vid: cython.int = pkt.vlan_tci & 0xFFF
        proto: cython.int = pkt.get16(pkt.start + 12)
        device: Device | None = self.vlans.get((parent.index, proto, vid))
        if device is None and (vid or pkt.pkttype == PACKET_OTHERHOST):
            return self.drop(pkt, DROP_OTHERHOST)
        i: cython.Py_ssize_t
        d: bytearray = pkt.data
        kept: cython.int = pkt.pkttype
        for i in range(pkt.start + 11, pkt.start - 1, -1):
            d[i + 4] = d[i]
        set_start(pkt, pkt.start + 4)
        if device is not None:
            if not device.up:
                return self.drop(pkt, DROP_DEVICE_DOWN)
            pkt.iif = device
            reason = self._parse(pkt, device)
            if kept != PACKET_OTHERHOST:
                pkt.pkttype = kept
            return self._judge(pkt, device, reason)
        reason = parse_link_untrusted(pkt)
        if reason == DROP_NOT_SPECIFIED:
            reason = parse_network_untrusted(pkt)
        pkt.pkttype = kept
        return self.enter_port(pkt, reason)

    def _check_ipv6(self, pkt: Packet) -> cython.int:
        """Addresses that must not come in from a wire, and hop-by-hop options (Linux: ip6_rcv_core)."""
        src_hi: cython.ulonglong = pkt.get64(pkt.l3 + 8)
        dst_hi: cython.ulonglong = pkt.get64(pkt.l3 + 24)
        device: Device = cython.cast(Device, pkt.iif)
        scope: cython.int
        if device.type != ARPHRD_LOOPBACK:
            if src_hi == 0 and pkt.get64(pkt.l3 + 16) == 1:
                return DROP_MARTIAN
            if dst_hi == 0 and pkt.get64(pkt.l3 + 32) == 1:
                return DROP_MARTIAN
        if src_hi >> 56 == 0xFF:
            return DROP_MARTIAN
        if dst_hi >> 56 == 0xFF:
            scope = (dst_hi >> 48) & 15
            if scope == 0 or (scope == 1 and device.type != ARPHRD_LOOPBACK and pkt.pkttype != PACKET_LOOPBACK):
                return DROP_MARTIAN
        if pkt.get8(pkt.l3 + 6) == 0:
            return ipv6_hop_options(self, pkt)
        return DROP_NOT_SPECIFIED

    def _hook_in(self, pkt: Packet) -> cython.int:
        if self.pipeline is not None:
            verdict: cython.int = self.pipeline.run(pkt.nfproto, NF_INET_PRE_ROUTING, pkt)
            if verdict != NF_ACCEPT:
                return self.verdict(pkt, verdict)
        return self.after_prerouting(pkt)

    # -- routing decision

    def after_prerouting(self, pkt: Packet) -> cython.int:
        """Past prerouting: options, routing decision, and forward or local (Linux: ip_rcv_finish, ip6_rcv_finish)."""
        reason: cython.int
        dst: Dst | None = None
        if pkt.looped and pkt.route is not None:
            dst = pkt.route
            if not dst.valid():
                dst = self.route_output(pkt)
        if dst is None:
            dst = self.route_ipv4(pkt) if pkt.nfproto == NFPROTO_IPV4 else self.route_ipv6(pkt)
        if dst is None:
            return self.drop(pkt, pkt.drop_reason)
        pkt.route = dst
        if pkt.nfproto == NFPROTO_IPV4 and pkt.l4 - pkt.l3 > 20:
            reason = ipv4_options(self, pkt, dst)
            if reason != DROP_NOT_SPECIFIED:
                return self.drop(pkt, reason)
        if dst.type == RTN_UNICAST:
            return self._forward(pkt, dst)
        if dst.type in (RTN_LOCAL, RTN_BROADCAST, RTN_ANYCAST, RTN_MULTICAST):
            return self._local_in(pkt)
        return self._no_way(pkt, dst)

    def _no_way(self, pkt: Packet, dst: Dst) -> cython.int:
        """No route, or one that refuses (Linux: ip_error, ip6_pkt_discard, ip6_pkt_prohibit)."""
        if dst.type == RTN_BLACKHOLE:
            return self.drop(pkt, DROP_PROHIBITED)
        if pkt.nfproto == NFPROTO_IPV4:
            if not self.settings.forward4:
                return self.drop(pkt, DROP_NO_ROUTE)
            if dst.type == RTN_PROHIBIT:
                self.route_error(pkt, ICMP_PKT_FILTERED)
            elif dst.type == RTN_UNREACHABLE:
                self.route_error(pkt, ICMP_HOST_UNREACH)
            else:
                self.route_error(pkt, ICMP_NET_UNREACH)
        elif dst.type == RTN_PROHIBIT:
            self.send_error(pkt, ICMPV6_DEST_UNREACH, ICMPV6_ADM_PROHIBITED, 0)
        else:
            self.send_error(pkt, ICMPV6_DEST_UNREACH, ICMPV6_NOROUTE, 0)
        return self.drop(pkt, DROP_NO_ROUTE if dst.type == RTN_UNSPEC else DROP_PROHIBITED)

    # -- forward

    def _forward(self, pkt: Packet, dst: Dst) -> cython.int:
        """Linux: ip_forward, ip6_forward."""
        l3: cython.Py_ssize_t = pkt.l3
        ttl: cython.int
        total: cython.uint
        if pkt.pkttype != PACKET_HOST:
            return self.drop(pkt, DROP_OTHERHOST)
        if isinstance(pkt.extra, Origin):
            return self.drop(pkt, DROP_SOCKET_ELSEWHERE)
        if pkt.nfproto == NFPROTO_IPV4:
            ttl = pkt.get8(l3 + 8)
            if ttl <= 1:
                self.send_error(pkt, ICMP_TIME_EXCEEDED, ICMP_EXC_TTL, 0)
                return self.drop(pkt, DROP_TTL_EXPIRED)
            if pkt.end - l3 > dst.mtu and pkt.get16(l3 + 6) & 0x4000 and exceeds(pkt, dst.mtu):
                self.send_error(pkt, ICMP_DEST_UNREACH, ICMP_FRAG_NEEDED, dst.mtu)
                return self.drop(pkt, DROP_FRAG_NEEDED)
            pkt.put8(l3 + 8, ttl - 1)
            total = pkt.get16(l3 + 10) + 0x100
            pkt.put16(l3 + 10, (total + (total >= 0xFFFF)) & 0xFFFF)  # never 0xFFFF (Linux: ip_decrease_ttl)
        else:
            ttl = pkt.get8(l3 + 7)
            if ttl <= 1:
                self.send_error(pkt, ICMPV6_TIME_EXCEED, ICMPV6_EXC_HOPLIMIT, 0)
                return self.drop(pkt, DROP_TTL_EXPIRED)
            if dst.oif is not pkt.iif and not self._source_forwards(pkt):
                return self.drop(pkt, DROP_MARTIAN)
            if pkt.end - l3 > dst.mtu and exceeds(pkt, max(dst.mtu, IPV6_MIN_MTU)):
                self.send_error(pkt, ICMPV6_PKT_TOOBIG, 0, max(dst.mtu, IPV6_MIN_MTU))
                return self.drop(pkt, DROP_FRAG_NEEDED)
            pkt.put8(l3 + 7, ttl - 1)
        pkt.oif = dst.oif
        if self.pipeline is not None:
            verdict: cython.int = self.pipeline.run(pkt.nfproto, NF_INET_FORWARD, pkt)
            if verdict != NF_ACCEPT:
                return self.verdict(pkt, verdict)
        return self.after_forward(pkt)

    def _source_forwards(self, pkt: Packet) -> cython.bint:
        """An IPv6 source that may cross a router: not any, multicast, loopback; link-local is told so (RFC 4291 2.5.6).

        Not asked of a packet that goes back where it came from, which ip6_forward answers with a redirect instead.
        """
        hi: cython.ulonglong = pkt.get64(pkt.l3 + 8)
        if hi == 0 and pkt.get64(pkt.l3 + 16) <= 1:
            return False
        if hi >> 54 == 0x3FA:
            self.send_error(pkt, ICMPV6_DEST_UNREACH, ICMPV6_NOT_NEIGHBOUR, 0)
            return False
        return True

    def after_forward(self, pkt: Packet) -> cython.int:
        """Past the forward hook (Linux: ip_forward_finish, ip6_forward_finish)."""
        if pkt.ip_options:
            forward_options(self, pkt, pkt.route)
        return self._postrouting(pkt)

    def _postrouting(self, pkt: Packet) -> cython.int:
        if self.pipeline is not None:
            verdict: cython.int = self.pipeline.run(pkt.nfproto, NF_INET_POST_ROUTING, pkt)
            if verdict != NF_ACCEPT:
                return self.verdict(pkt, verdict)
        return self.after_postrouting(pkt)

    def after_postrouting(self, pkt: Packet) -> cython.int:
        """Past postrouting: fragment if the link needs it, then the link (Linux: ip_finish_output, ip6_finish_output)."""
        dst: Dst = pkt.route
        if dst.own is not None and pkt.nfproto == NFPROTO_IPV6:
            dst = dst.own  # a path MTU stands behind the hooks (Linux: ip6_fragment)
        if pkt.frag_max_size:
            # IPv6: not what became smaller by losing its fragment header
            if pkt.nfproto == NFPROTO_IPV4 or pkt.end - pkt.l3 > pkt.frag_max_size or pkt.end - pkt.l3 > dst.mtu:
                return self.fragments.output(pkt, dst.mtu)
        elif pkt.end - pkt.l3 > dst.mtu and exceeds(pkt, dst.mtu):
            return self.fragments.output(pkt, dst.mtu)
        return self.emit(pkt)

    # -- local

    def _local_in(self, pkt: Packet) -> cython.int:
        """For the gateway itself: whole packets only, then the input hook (Linux: ip_local_deliver, ip6_input)."""
        if pkt.is_fragment and pkt.nfproto == NFPROTO_IPV4:
            if self.reassembly.gather_untrusted(pkt, USER_LOCAL) <= 0:
                return self._unfinished(pkt)
        if self.pipeline is not None:
            verdict: cython.int = self.pipeline.run(pkt.nfproto, NF_INET_LOCAL_IN, pkt)
            if verdict != NF_ACCEPT:
                return self.verdict(pkt, verdict)
        return self.after_input(pkt)

    def after_input(self, pkt: Packet) -> cython.int:
        """Past the input hook: to the local port or the built-in answerers."""
        if pkt.is_fragment and pkt.nfproto == NFPROTO_IPV6 and not whole_fragment(pkt):
            if self.reassembly.gather_untrusted(pkt, USER_LOCAL) <= 0:
                return self._unfinished(pkt)
        return self.deliver(pkt)

    def _unfinished(self, pkt: Packet) -> cython.int:
        """A fragment that was kept, or refused with a reason."""
        if pkt.drop_reason != DROP_NOT_SPECIFIED:
            return self.drop(pkt, pkt.drop_reason)
        return DROP_NOT_SPECIFIED

    def _from_local(self, pkt: Packet, reason: cython.int) -> cython.int:
        """What a service behind the local port sends is a packet of the gateway itself."""
        if reason != DROP_NOT_SPECIFIED:
            return self.drop(pkt, reason)
        if pkt.nfproto not in (NFPROTO_IPV4, NFPROTO_IPV6):
            return self.drop(pkt, DROP_UNKNOWN_ETHERTYPE)
        trim(pkt)
        set_start(pkt, pkt.l3)
        pkt.iif = None
        self.speaking = True
        try:
            return self.local_out(pkt)
        finally:
            self.speaking = False

    def local_out(self, pkt: Packet) -> cython.int:
        """Linux: ip_local_out, ip6_local_out."""
        dst: Dst | None = pkt.route
        if dst is None:
            dst = self.route_output(pkt)
            pkt.route = dst
        if dst.ways is not None:
            dst = self.routes.way(dst, flow_hash(pkt))
            pkt.route = dst
        if dst.oif is None or dst.type in (RTN_UNSPEC, RTN_BLACKHOLE, RTN_UNREACHABLE, RTN_PROHIBIT):
            return self.drop(pkt, DROP_NO_ROUTE)
        pkt.iif = None
        pkt.oif = dst.oif
        if self.pipeline is not None:
            verdict: cython.int = self.pipeline.run(pkt.nfproto, NF_INET_LOCAL_OUT, pkt)
            if verdict != NF_ACCEPT:
                return self.verdict(pkt, verdict)
        return self.after_output(pkt)

    def after_output(self, pkt: Packet) -> cython.int:
        """Past the output hook, where the way may have changed (type route, NAT)."""
        dst: Dst = pkt.route
        if isinstance(pkt.extra, Origin) and cython.cast(Origin, pkt.extra).bound:
            pkt.iif = pkt.oif  # ip_output takes the packet's device for where it came in
        pkt.oif = dst.oif
        return self._postrouting(pkt)

    # -- what waits

    def drain(self) -> None:
        """Let go on what was held, and receive what was sent on `lo` or looped back."""
        if self.pending:
            self.run_held()
        self.receive_backlog()

    def settle(self) -> cython.int:
        """While a packet of the gateway's own is at a hook, what is sent on `lo` meanwhile comes in at once; while one from a
        wire is, it waits for `drain` (Linux: do_softirq of local_bh_enable)."""
        if self.speaking and self.backlog:
            self.speaking = False
            try:
                self.receive_backlog()
            finally:
                self.speaking = True
        return 0

    def receive_backlog(self) -> cython.int:
        """At most a backlog's length at once."""
        pkt: Packet
        left: cython.int = BACKLOG_LIMIT
        while self.backlog and left:
            left -= 1
            pkt = self.backlog.pop(0)
            if pkt.pkttype == PACKET_LOOPBACK and pkt.iif is not None and pkt.iif.type != ARPHRD_LOOPBACK:
                self._judge(pkt, pkt.iif, parse_network_untrusted(pkt))
            else:
                self._receive(pkt)
        while self.backlog:
            self.drop(self.backlog.pop(), DROP_TX_FAILED)
        return 0

    # -- verdicts

    def continue_after(self, pkt: Packet, family: cython.int, hook: cython.int) -> cython.int:
        """Go on behind a hook of `family`: for a packet that was held there."""
        if family == NFPROTO_BRIDGE:
            return self._continue_bridged(pkt, hook)
        if hook == NF_INET_PRE_ROUTING:
            return self.after_prerouting(pkt)
        if hook == NF_INET_LOCAL_IN:
            return self.after_input(pkt)
        if hook == NF_INET_FORWARD:
            return self.after_forward(pkt)
        if hook == NF_INET_LOCAL_OUT:
            return self.after_output(pkt)
        return self.after_postrouting(pkt)

    def _continue_bridged(self, pkt: Packet, hook: cython.int) -> cython.int:
        device: Device | None = pkt.oif if pkt.iif is None or hook > NF_INET_LOCAL_IN else pkt.iif
        if device is None or device.master is None:
            return self.drop(pkt, DROP_DEVICE_DOWN)
        port: Members = device.bridge
        if hook == NF_INET_PRE_ROUTING:
            return port.bridge.finish(pkt)
        if hook == NF_INET_LOCAL_IN:
            return port.bridge.enter(pkt)
        if hook == NF_INET_POST_ROUTING:
            return port.bridge.push(pkt)
        return port.bridge.post(pkt)

    # -- what the gateway adds

    def route_error(self, pkt: Packet, code: cython.int) -> cython.int:
        """Answer an IPv4 packet that no route, or an unwilling one, was found for."""
        raise NotImplementedError

    def run_held(self) -> None:
        """Packets that were held at a hook and may go on."""
        raise NotImplementedError

    def deliver(self, pkt: Packet) -> cython.int:
        """A whole packet for the gateway itself, past the input hook."""
        raise NotImplementedError
