"""What rules ask of the gateway (engine.services.Services): lookups in the forwarding table, rejects, copies, re-routing.

Laws: a question allocates nothing but on a cache miss; an answer that is a packet (reject, dup) is built in a packet of its
own, the one judged stays untouched. Sockets, queues and logs belong to the shell, which sets the `on_*` callables.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import cython

from userfw.engine.services import CONTROL

if not cython.compiled:
    from userfw.conntrack.table import ConnTable
    from userfw.core.clock import Clock
    from userfw.core.const import (
        ARPHRD_LOOPBACK,
        CT_DIR_ORIGINAL,
        CT_RELATED,
        CT_UNTRACKED,
        IPPROTO_AH,
        IPPROTO_DSTOPTS,
        IPPROTO_ESP,
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
        NF_ACCEPT,
        NF_DROP,
        NF_INET_INGRESS,
        NF_INET_LOCAL_IN,
        NF_INET_LOCAL_OUT,
        NF_INET_PRE_ROUTING,
        NF_STOLEN,
        NFPROTO_BRIDGE,
        NFPROTO_IPV4,
        NFPROTO_IPV6,
        NFPROTO_NETDEV,
        PACKET_LOOPBACK,
        TCP_RST,
        U32_MASK,
        VNET_F_DATA_VALID,
        VNET_F_NEEDS_CSUM,
    )
    from userfw.core.drop import DROP_NO_ROUTE
    from userfw.core.hook import HookEntry
    from userfw.core.packet import Device, Packet
    from userfw.engine.services import Copy, FibResult, RouteInfo
    from userfw.router.base import set_start
    from userfw.router.bridge import Members
    from userfw.router.const import (
        ICMP_DEST_UNREACH,
        ICMPV6_DEST_UNREACH,
        IP_DF,
        RTN_ANYCAST,
        RTN_BLACKHOLE,
        RTN_BROADCAST,
        RTN_LOCAL,
        RTN_MULTICAST,
        RTN_PROHIBIT,
        RTN_UNICAST,
        RTN_UNREACHABLE,
        RTN_UNSPEC,
    )
    from userfw.router.interfaces import Interfaces
    from userfw.router.local import checksum_ok, reset
    from userfw.router.reassembly import FragmentSizes, whole_fragment
    from userfw.router.settings import Settings
    from userfw.router.types import Dst, NextHop, Route
    from userfw.wire._raw import add_words
    from userfw.wire.build import copy_bytes, ethernet, icmp_checksum, ipv4, ipv6, leave_checksum
    from userfw.wire.checksum import fold, pseudo_sum, write_ipv4

NESTED_MAX = 2  # Linux: NF_RECURSION_LIMIT
TCP_RESET = 1  # engine.const.REJECT_TCP_RST
UNENTERED = Copy(None)
"""At ingress it is not noted yet where a packet came in (Linux: IP6CB(skb)->iif, of ip6_rcv_core)."""


class Answers(Interfaces):
    """Interfaces that answer rules.

    `on_log`: called as Services.log, None: nobody logs. `on_queue`: called as Services.enqueue.
    """

    def __init__(
        self,
        clock: Clock,
        rng: random.Random | None = None,
        settings: Settings | None = None,
        fault: Callable[[BaseException, str], None] | None = None,
    ) -> None:
        super().__init__(clock, rng, settings, fault)
        self.on_log: Callable[..., int] | None = None
        self.on_queue: Callable[..., int] | None = None
        self.route_answer = RouteInfo()
        self.duplicating = False
        self.nested = 0
        self.bridged = False

    # -- plain facts

    def random(self) -> cython.uint:
        bits: cython.uint = self.rng.getrandbits(32)
        return bits

    def device_by_index(self, index: cython.int) -> Device | None:
        return self.devices.get(index)

    def device_by_name(self, ifname: bytes) -> Device | None:
        return self.names.get(ifname.rstrip(b"\0").decode(errors="replace"))

    def route_info(self, pkt: Packet) -> RouteInfo | None:
        dst: Dst | None = pkt.route
        answer: RouteInfo = self.route_answer
        if dst is None:
            return None
        answer.family = dst.via_family
        answer.oif = dst.oif
        answer.mtu = min(dst.mtu if dst.own is None else dst.own.mtu, self._mtu_back(pkt))
        if pkt.nfproto == NFPROTO_IPV4 and dst.type == RTN_LOCAL and (pkt.looped or pkt.oif is self.lo) and dst.key_lo >> 24 != 127:
            # over lo to the address of a device: that address, whatever a rule made of it (Linux: rt_set_nexthop, not cached)
            answer.nexthop = int(dst.key_lo).to_bytes(4, "big")
        elif not dst.gateway or dst.via_family != pkt.nfproto:  # on the link: where it goes now (Linux: rt_nexthop, rt6_nexthop)
            length: cython.Py_ssize_t = 4 if pkt.nfproto == NFPROTO_IPV4 else 16
            at: cython.Py_ssize_t = pkt.l3 + (16 if pkt.nfproto == NFPROTO_IPV4 else 24)
            answer.nexthop = bytes(pkt.data[at : at + length])
        elif dst.via_family == NFPROTO_IPV4:
            answer.nexthop = int(dst.via_lo).to_bytes(4, "big")
        else:
            answer.nexthop = int(dst.via_hi).to_bytes(8, "big") + int(dst.via_lo).to_bytes(8, "big")
        return answer

    def _mtu_back(self, pkt: Packet) -> cython.uint:
        """Of the way to the sender, any if there is none (Linux: get_tcpmss of nft_rt)."""
        dst: Dst
        if pkt.nfproto == NFPROTO_IPV4:
            dst = self.routes.resolve(NFPROTO_IPV4, 0, pkt.get32(pkt.l3 + 12), 0, 0, 0, None)
        else:
            dst = self.routes.resolve(NFPROTO_IPV6, pkt.get64(pkt.l3 + 8), pkt.get64(pkt.l3 + 16), 0, 0, 0, None)
        if dst.type == RTN_LOCAL:
            return self.lo.mtu
        if dst.own is not None:
            return dst.own.mtu
        return dst.mtu if dst.type == RTN_UNICAST and dst.oif is not None else U32_MASK

    # -- fib

    def fib(
        self,
        pkt: Packet,
        family: cython.int,
        address: cython.Py_ssize_t,
        source: cython.Py_ssize_t,
        device: Device | None,
        mark: cython.uint,
        result: FibResult,
    ) -> cython.bint:
        hi: cython.ulonglong = 0
        lo: cython.ulonglong
        src_hi: cython.ulonglong = 0
        src_lo: cython.ulonglong = 0
        if family == NFPROTO_IPV4:
            lo = pkt.get32(address)
            if source >= 0:
                src_lo = pkt.get32(source)
        else:
            hi = pkt.get64(address)
            lo = pkt.get64(address + 8)
            if source >= 0:
                src_hi = pkt.get64(source)
                src_lo = pkt.get64(source + 8)
        result.oif = None
        if family == NFPROTO_IPV6 and hi >> 56 == 0xFF:
            return self._fib_group(pkt, hi, device, result)
        route: Route | None = self._fib_route(family, hi, lo, src_hi, src_lo, mark, pkt, device)
        if family == NFPROTO_IPV4:
            result.type = self._type4(lo, device)
        else:
            result.type = self._type6(hi, lo, route, device)
        by_device: cython.bint = route is not None and (
            route.type == RTN_UNICAST or (family == NFPROTO_IPV4 and route.type == RTN_BROADCAST)
        )
        if route is not None and by_device and route.nexthops:
            result.oif = device if device is not None and _uses(route, device) else None
            if device is None:
                hop: NextHop = route.nexthops[0]
                result.oif = hop.device
        elif device is None and route is not None and route.type == RTN_LOCAL and route.nexthops:
            hop = route.nexthops[0]
            result.oif = hop.device
        return route is not None

    def _fib_group(self, pkt: Packet, hi: cython.ulonglong, device: Device | None, result: FibResult) -> cython.bint:
        """Every device has a route to ff00::/8; the first is taken, but within a link the packet's own (Linux:
        nft_fib6_flowi_init)."""
        other: Device
        result.type = RTN_MULTICAST
        result.oif = device
        if device is None and (hi >> 48) & 15 == 2:
            result.oif = pkt.iif
        if result.oif is None:
            for other in self.devices.values():
                if other.up and other.type != ARPHRD_LOOPBACK:
                    result.oif = other
                    break
        return result.oif is not None

    def _fib_route(
        self,
        family: cython.int,
        hi: cython.ulonglong,
        lo: cython.ulonglong,
        src_hi: cython.ulonglong,
        src_lo: cython.ulonglong,
        mark: cython.uint,
        pkt: Packet,
        device: Device | None,
    ) -> Route | None:
        """All routes are searched, and the device compared afterwards; a link-local address is asked of that device alone, or
        of the one that a copy leaves by (Linux: nft_fib6_flowi_init)."""
        dst: Dst
        if device is None and pkt.iif is None and isinstance(pkt.extra, Copy):
            device = pkt.oif if family == NFPROTO_IPV6 and hi >> 54 == 0x3FA else None
        if family == NFPROTO_IPV6 and device is not None and hi >> 54 == 0x3FA:
            return self.routes.lookup(family, hi, lo, src_hi, src_lo, mark, 0, device, 0)
        dst = self.routes.resolve(family, hi, lo, src_hi, src_lo, mark, pkt.iif)
        return dst.source

    def _type4(self, lo: cython.ulonglong, device: Device | None) -> cython.int:
        """Linux: __inet_dev_addr_type, which knows the local table only."""
        if lo >> 24 == 0 or lo == U32_MASK:
            return RTN_BROADCAST
        if lo >> 28 == 14:
            return RTN_MULTICAST
        route: Route | None = self.routes.local4.lookup(0, lo, None, 0)
        if route is None or (device is not None and not _uses(route, device)):
            return RTN_UNICAST
        return route.type

    def _type6(self, hi: cython.ulonglong, lo: cython.ulonglong, route: Route | None, device: Device | None) -> cython.int:
        """Linux: __nft_fib6_eval_type."""
        if hi >> 56 == 0xFF:
            return RTN_MULTICAST
        if route is None:
            return RTN_UNREACHABLE
        if route.type == RTN_LOCAL and device is not None and not _has6(device, hi, lo):
            return RTN_UNICAST  # ours, but not of the device that was asked about
        if route.type in (RTN_BLACKHOLE, RTN_PROHIBIT, RTN_UNREACHABLE, RTN_LOCAL, RTN_ANYCAST):
            return route.type
        return RTN_UNICAST if hi or lo else RTN_UNSPEC

    # -- answers that are packets

    def send_reject(self, pkt: Packet, hook: cython.int, family: cython.int, type: cython.int, code: cython.int) -> cython.int:
        """Linux: nf_send_reset, nf_send_unreach, and their IPv6 and netdev relatives."""
        direct: cython.bint = family in (NFPROTO_NETDEV, NFPROTO_BRIDGE)
        self.bridged = family == NFPROTO_BRIDGE
        if pkt.nfproto not in (NFPROTO_IPV4, NFPROTO_IPV6) or pkt.fragoff:
            return 0
        if direct and pkt.l3 > pkt.start and pkt.get8(pkt.start) & 1:
            return 0  # nor is a group answered in its name (Linux: nft_reject_netdev_eval, nft_reject_bridge_eval)
        if type == TCP_RESET:
            return self._reject_reset(pkt, hook, direct)
        if direct:
            return self._reject_direct(pkt, code)
        if not (hook == NF_INET_LOCAL_OUT and pkt.checked) and not self._intact(pkt):
            return 0
        if pkt.nfproto == NFPROTO_IPV6:
            if hook != NF_INET_INGRESS:
                return self.send_error(pkt, ICMPV6_DEST_UNREACH, code, 0)
            pkt.extra = UNENTERED
            found: cython.int = self.send_error(pkt, ICMPV6_DEST_UNREACH, code, 0)
            pkt.extra = None
            return found
        if pkt.route is not None:
            return self.send_error(pkt, ICMP_DEST_UNREACH, code, 0)
        # not routed yet: the error comes from the address towards the sender (Linux: nf_reject_fill_skb_dst)
        source: cython.uint = pkt.get32(pkt.l3 + 12)
        if source == 0:
            source = 0x7F000001  # without an address: this host itself (Linux: ip_route_output_key_hash_rcu)
        pkt.route = self.routes.resolve_out(NFPROTO_IPV4, 0, source, 0, 0, 0, None)
        result: cython.int = self.send_error(pkt, ICMP_DEST_UNREACH, code, 0)
        pkt.route = None
        return result

    def _intact(self, pkt: Packet) -> cython.bint:
        """The checksum of what is to be quoted is right, also of other protocols (Linux: nf_reject_verify_csum, nf_ip_checksum)."""
        room: cython.Py_ssize_t = pkt.end - pkt.l4
        proto: cython.int = pkt.l4proto
        at: cython.Py_ssize_t = pkt.l4
        total: cython.uint = 0
        if pkt.vnet_flags & (VNET_F_NEEDS_CSUM | VNET_F_DATA_VALID) or pkt.checked > 0:
            return True
        if pkt.nfproto == NFPROTO_IPV6 and room <= 0:
            return False
        while pkt.nfproto == NFPROTO_IPV6 and proto in (IPPROTO_AH, IPPROTO_HOPOPTS, IPPROTO_ROUTING, IPPROTO_DSTOPTS):
            # an AH is skipped like any header, and what may be behind it (Linux: reject6_csum_ok)
            if room < 2:
                return False
            step: cython.Py_ssize_t = (pkt.get8(at + 1) + 2) * 4 if proto == IPPROTO_AH else (pkt.get8(at + 1) + 1) * 8
            if room <= step:
                return False
            proto = pkt.get8(at)
            at += step
            room -= step
        if pkt.nfproto == NFPROTO_IPV6 and proto == IPPROTO_NONE:
            return False
        if proto in (IPPROTO_AH, IPPROTO_ESP, IPPROTO_GRE, IPPROTO_SCTP, IPPROTO_UDPLITE):
            return True
        if proto == IPPROTO_UDP and room >= 8 and pkt.get16(at + 6) == 0:
            return True
        if room < 0:
            return False
        if pkt.nfproto == NFPROTO_IPV6:
            total = fold(pseudo_sum(pkt, proto, room))
            return fold(add_words(total, pkt.data, at, room)) == 0xFFFF
        if proto in (IPPROTO_TCP, IPPROTO_UDP):
            total = fold(pseudo_sum(pkt, proto, room))
        # Linux adds up the network header too, which makes no difference unless it is wrong
        return fold(add_words(total, pkt.data, pkt.l3, pkt.end - pkt.l3)) == 0xFFFF

    def _reject_reset(self, pkt: Packet, hook: cython.int, direct: cython.bint) -> cython.int:
        if pkt.l4proto != IPPROTO_TCP or pkt.end - pkt.l4 < 20:
            return 0
        if pkt.get8(pkt.l4 + 13) & TCP_RST or not self._segment_intact(pkt, hook):
            return 0
        if pkt.nfproto == NFPROTO_IPV6 and not direct and not (_one_host(pkt, pkt.l3 + 8) and _one_host(pkt, pkt.l3 + 24)):
            return 0
        dst: Dst | None = pkt.route
        source: cython.uint
        if pkt.nfproto == NFPROTO_IPV4 and not direct:
            source = pkt.get32(pkt.l3 + 12)
            if dst is None and (source >> 28 == 14 or source == U32_MASK):
                return 0
            if dst is None:  # not routed yet: the way back says it (Linux: nf_reject_fill_skb_dst)
                dst = self.routes.resolve(NFPROTO_IPV4, 0, source, 0, 0, 0, None)
            if dst.type in (RTN_BROADCAST, RTN_MULTICAST):
                return 0
        reply: Packet = self.take()
        reset(reply, pkt, self.settings.ttl, 0, b"")
        if pkt.nfproto == NFPROTO_IPV4:
            leave_checksum(reply, 16)  # Linux: nf_reject_ip_tcphdr_put
        if direct:
            return self._send_direct(reply, pkt)
        if pkt.ct is not None:
            reply.ct = pkt.ct
            reply.ctinfo = CT_RELATED
            reply.ctdir = 1 if pkt.ctdir == CT_DIR_ORIGINAL else 0
            dst = self.route_output(reply)
            reply.route = dst
            if dst.oif is not None and dst.type not in (RTN_UNSPEC, RTN_BLACKHOLE, RTN_UNREACHABLE, RTN_PROHIBIT):
                table: ConnTable = self.conntrack
                table.set_closing(pkt.ct)
        self.local_out(reply)
        self.give(reply)
        self.settle()
        return 1

    def _segment_intact(self, pkt: Packet, hook: cython.int) -> cython.bint:
        """The sum that conntrack took counts at prerouting and input; at output, to which copies bring it, it is not even compared
        (Linux: nf_ip_checksum)."""
        before: cython.int = pkt.checked
        result: cython.bint
        if hook in (NF_INET_PRE_ROUTING, NF_INET_LOCAL_IN) and before == 2:
            return True
        if hook == NF_INET_LOCAL_OUT and before in (2, -1):
            return True
        pkt.checked = 0
        result = checksum_ok(pkt, IPPROTO_TCP)
        if pkt.nfproto == NFPROTO_IPV4 and fold(add_words(0, pkt.data, pkt.l3, pkt.l4 - pkt.l3)) != 0xFFFF:
            result = False  # the header is summed too, and an option that was filled in does not fit its checksum yet
        pkt.checked = before
        return result

    def _reject_direct(self, pkt: Packet, code: cython.int) -> cython.int:
        """An unreachable that leaves by the device the packet came from, unrouted (Linux: nf_reject_skb_v4_unreach)."""
        l3: cython.Py_ssize_t = pkt.l3
        quoted: cython.Py_ssize_t
        reply: Packet
        if not self._direct_answerable(pkt):
            return 0
        reply = self.take()
        if pkt.nfproto == NFPROTO_IPV4:
            quoted = min(pkt.end - l3, 536)
            ipv4(reply, 1, 8 + quoted, pkt.get32(l3 + 16), pkt.get32(l3 + 12), self.settings.ttl, 0, 0, True)
            reply.put16(reply.l4, (ICMP_DEST_UNREACH << 8) | code)
        else:
            quoted = min(pkt.end - l3, 1220)
            ipv6(
                reply,
                58,
                8 + quoted,
                pkt.get64(l3 + 24),
                pkt.get64(l3 + 32),
                pkt.get64(l3 + 8),
                pkt.get64(l3 + 16),
                self.settings.ttl,
                0,
            )
            reply.put16(reply.l4, (ICMPV6_DEST_UNREACH << 8) | code)
        reply.put32(reply.l4 + 4, 0)
        copy_bytes(reply, reply.l4 + 8, pkt, l3, quoted)
        icmp_checksum(reply)
        return self._send_direct(reply, pkt)

    def _direct_answerable(self, pkt: Packet) -> cython.bint:
        """No unreachable about an unreachable; the sum is of what the header measures, though all is quoted."""
        l3: cython.Py_ssize_t = pkt.l3
        end: cython.Py_ssize_t = pkt.end
        intact: cython.bint
        if pkt.nfproto == NFPROTO_IPV4:
            if pkt.l4proto == IPPROTO_ICMP and pkt.l4 < end and pkt.get8(pkt.l4) == ICMP_DEST_UNREACH:
                return False
            pkt.end = l3 + pkt.get16(l3 + 2)
        elif _is_unreachable6(pkt):
            return False
        elif pkt.get16(l3 + 4):
            pkt.end = min(end, l3 + 40 + pkt.get16(l3 + 4))
        intact = self._intact(pkt)
        pkt.end = end
        return intact

    def _send_direct(self, reply: Packet, pkt: Packet) -> cython.int:
        device: Device | None = pkt.iif
        start: cython.Py_ssize_t = pkt.start
        if device is None:
            self.give(reply)
            return 0
        if pkt.l3 - start >= 14:
            ethernet(reply, pkt.get32(start + 6), pkt.get16(start + 10), pkt.get32(start), pkt.get16(start + 4))
        if self.bridged:
            self._answer_bridged(reply, pkt, device)
        else:
            reply.oif = device
            self.transmit(reply, device)
        self.give(reply)
        return 1

    def _answer_bridged(self, reply: Packet, pkt: Packet, device: Device) -> cython.int:
        """Out of the port it came in on, with its tag, past the bridge's own hooks (Linux: nft_reject_br_push_etherhdr)."""
        port: Members | None = device.bridge
        i: cython.Py_ssize_t
        d: bytearray = reply.data
        start: cython.Py_ssize_t = reply.start - 4
        if port is None:
            return 0
        if pkt.vlan_tci >= 0:
            for i in range(12):
                d[start + i] = d[start + 4 + i]
            set_start(reply, start)
            reply.put16(start + 12, pkt.get16(pkt.start + 12))
            reply.put16(start + 14, pkt.vlan_tci)
            reply.vlan_tci = pkt.vlan_tci
        return port.bridge.send(reply, device)

    def broute(self, pkt: Packet, on: cython.bint) -> cython.int:
        """The bridge that the packet is in leaves it to its port."""
        device: Device | None = pkt.iif
        port: Members
        if device is not None and device.master is not None:
            port = device.bridge
            port.bridge.brouted = on
        return 0

    def send_duplicate(
        self, pkt: Packet, hook: cython.int, family: cython.int, gateway: bytes | None, device: Device | None
    ) -> cython.int:
        """Linux: nf_dup_ipv4, nf_dup_ipv6, nf_dup_netdev_egress. A routed copy is not copied again on its way.

        Nor is one that came back from a group, which Linux copies without end.
        """
        copy: Packet
        routed: cython.bint = family != NFPROTO_NETDEV and gateway is not None
        if routed and (self.duplicating or pkt.pkttype == PACKET_LOOPBACK):
            return 0
        copy = self.take()
        copy.copy_meta(pkt)
        copy_bytes(copy, pkt.start, pkt, pkt.start, pkt.end - pkt.start)
        copy.ct = None
        copy.ctinfo = CT_UNTRACKED
        copy.extra = None
        copy.stolen = False
        if hook not in (NF_INET_PRE_ROUTING, NF_INET_LOCAL_IN):
            copy.checked = 1 if pkt.checked > 0 else 0  # Linux: skb_forward_csum
        if gateway is None or not routed:
            if device is not None and self.nested <= NESTED_MAX:
                self._transmit_nested(copy, device)
            self.give(copy)
            return 1
        copy.extra = self._copied(pkt)
        speaking: cython.bint = self.speaking
        self.duplicating = True
        self.speaking = False
        try:
            self._duplicate_routed(copy, hook, gateway, device)
        finally:
            self.duplicating = False
            self.speaking = speaking
        self.give(copy)
        self.settle()
        return 1

    def _copied(self, pkt: Packet) -> Copy:
        """What a copy of `pkt` keeps of it (Linux: IPCB, IP6CB and ignore_df of pskb_copy)."""
        entered: Device | None = pkt.iif
        if entered is not None and entered.type == ARPHRD_LOOPBACK:
            entered = None
        whole: cython.bint = pkt.nfproto == NFPROTO_IPV4 and (
            pkt.extra is CONTROL or (pkt.frag_max_size > 0 and not pkt.get16(pkt.l3 + 6) & IP_DF)
        )
        return Copy(entered, whole, isinstance(pkt.extra, FragmentSizes) and cython.cast(FragmentSizes, pkt.extra).for_host)

    def _duplicate_routed(self, copy: Packet, hook: cython.int, gateway: bytes, device: Device | None) -> None:
        l3: cython.Py_ssize_t = copy.l3
        less: cython.int = 1 if hook in (NF_INET_PRE_ROUTING, NF_INET_LOCAL_IN) else 0
        if copy.nfproto == NFPROTO_IPV4:
            copy.put16(l3 + 6, copy.get16(l3 + 6) | IP_DF)
            copy.put8(l3 + 8, (copy.get8(l3 + 8) - less) & 0xFF)
            write_ipv4(copy)
        else:
            copy.put8(l3 + 7, (copy.get8(l3 + 7) - less) & 0xFF)
        dst: Dst = self._towards(gateway, device)
        if dst.type not in (RTN_UNICAST, RTN_LOCAL):
            return
        copy.route = self.looping(dst if dst.own is None else dst.own)
        self.local_out(copy)

    def _towards(self, nexthop: bytes, device: Device | None) -> Dst:
        """The decision for packets that go to `nexthop` whatever their destination is."""
        family: cython.int = NFPROTO_IPV4 if len(nexthop) == 4 else NFPROTO_IPV6
        value = int.from_bytes(nexthop, "big")
        hi: cython.ulonglong = value >> 64
        lo: cython.ulonglong = value & ((1 << 64) - 1)
        route: Route | None = self.routes.lookup(family, hi, lo, 0, 0, 0, 0, device, 0)
        dst: Dst = self.routes.decide(route, family, hi, lo)
        if route is None and device is not None and family == NFPROTO_IPV4:
            # taken for a host of the link (Linux: ip_route_output_key_hash_rcu)
            dst.type = RTN_UNICAST
            dst.oif = device
            dst.mtu = device.mtu
        dst.gateway = dst.gateway or route is not None
        return dst

    def forward_device(self, pkt: Packet, device: Device) -> cython.int:
        """Linux: nf_fwd_netdev_egress."""
        if self.nested > NESTED_MAX:
            return NF_DROP
        self._transmit_nested(pkt, device)
        return NF_STOLEN

    def _transmit_nested(self, pkt: Packet, device: Device) -> None:
        """The egress rules of a device may send to that very device again (Linux: nf_do_netdev_egress, NF_RECURSION_LIMIT)."""
        self.nested += 1
        try:
            self.transmit(pkt, device)
        finally:
            self.nested -= 1

    def forward_neighbour(self, pkt: Packet, device: Device, family: cython.int, nexthop: bytes) -> cython.int:
        """Linux: nft_fwd_neigh_eval. The frame says the family, also where the packet's header is wrong and says none."""
        pkt.nfproto = family
        dst: Dst = Dst(self.routes.generation)
        value = int.from_bytes(nexthop, "big")
        dst.family = dst.via_family = family
        dst.via_hi = value >> 64
        dst.via_lo = value & ((1 << 64) - 1)
        dst.type = RTN_UNICAST
        dst.gateway = True
        dst.oif = device
        dst.mtu = device.mtu
        pkt.route = dst
        self.to_neighbour(pkt)
        return NF_STOLEN

    def reroute(self, pkt: Packet, hook: cython.int) -> cython.int:
        """Linux: ip_route_me_harder, ip6_route_me_harder."""
        dst: Dst = self.route_again(pkt)
        if dst.type in (RTN_UNSPEC, RTN_BLACKHOLE, RTN_UNREACHABLE, RTN_PROHIBIT) or dst.oif is None:
            pkt.drop_reason = DROP_NO_ROUTE
            return NF_DROP
        pkt.route = dst  # the rest of the hook still asks for the device of before (Linux: nf_hook_state)
        return NF_ACCEPT

    # -- the shell's business

    def log(self, pkt: Packet, hook: cython.int, family: cython.int, request: Any) -> cython.int:
        if self.on_log is None:
            return 0
        return self.on_log(pkt, hook, family, request)

    def enqueue(
        self, pkt: Packet, hook: cython.int, entry: HookEntry, number: cython.int, bypass: cython.bint
    ) -> cython.int:
        if self.on_queue is None:
            return NF_ACCEPT if bypass else NF_DROP
        return self.on_queue(pkt, hook, entry, number, bypass)


def _one_host(pkt: Packet, at: cython.Py_ssize_t) -> cython.bint:
    """An IPv6 address that is neither a group's nor none (Linux: IPV6_ADDR_UNICAST)."""
    return pkt.get8(at) != 0xFF and (pkt.get64(at) != 0 or pkt.get64(at + 8) != 0)


def _is_unreachable6(pkt: Packet) -> cython.bint:
    """Also behind extension headers, but not in the first of several fragments (Linux: nf_skb_is_icmp6_unreach)."""
    if pkt.l4proto != IPPROTO_ICMPV6 or pkt.fragoff or pkt.l4 >= pkt.end or pkt.get8(pkt.l4) != ICMPV6_DEST_UNREACH:
        return False
    return not pkt.is_fragment or whole_fragment(pkt)


def _uses(route: Route, device: Device) -> cython.bint:
    """One of the route's ways is the device (Linux: fib_info_nh_uses_dev)."""
    i: cython.Py_ssize_t
    hop: NextHop
    for i in range(len(route.nexthops)):
        hop = route.nexthops[i]
        if hop.device is device:
            return True
    return False


def _has6(device: Device, hi: int, lo: int) -> bool:
    """The IPv6 address is one of this device (Linux: ipv6_chk_addr, strict)."""
    return any(one.family == NFPROTO_IPV6 and one.hi == hi and one.lo == lo for one in device.addresses)
