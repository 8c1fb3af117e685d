"""The way out: neighbour, link-layer header, tags, egress hook, port; and the hooks of all families.

Law: a packet leaves this file sent, queued for a neighbour, on `lo`'s backlog, or dropped with a counted reason.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import cython

from userfw.engine.services import CONTROL, DISCOVERY

if not cython.compiled:
    from userfw.core.clock import Clock
    from userfw.core.const import (
        ARPHRD_ETHER,
        ARPHRD_LOOPBACK,
        ETH_P_8021AD,
        ETH_P_8021Q,
        ETH_P_IP,
        ETH_P_IPV6,
        NF_ACCEPT,
        NF_DROP,
        NF_INET_POST_ROUTING,
        NFPROTO_IPV4,
        NFPROTO_IPV6,
        PACKET_LOOPBACK,
        VNET_F_DATA_VALID,
        VNET_F_NEEDS_CSUM,
    )
    from userfw.core.drop import (
        DROP_DEVICE_DOWN,
        DROP_MARTIAN,
        DROP_NEIGH_FAILED,
        DROP_NOT_SPECIFIED,
        DROP_RULE,
        DROP_TX_FAILED,
    )
    from userfw.core.fastpath import Crossing
    from userfw.core.hook import HookList
    from userfw.core.packet import Device, Packet, Port
    from userfw.engine.services import Origin
    from userfw.router.arp import Arp
    from userfw.router.base import Router, compact, set_start
    from userfw.router.bridge import Bridge, Leaving
    from userfw.router.fragment import Fragmenter
    from userfw.router.neigh import NeighbourTable
    from userfw.router.pipeline import Pipeline
    from userfw.router.settings import Settings
    from userfw.router.types import Dst, Neighbour
    from userfw.wire.gso import complete_checksum

BACKLOG_LIMIT = 1000


class Egress(Router):
    """A Router that sends packets; `path.Path` adds what happens to them before.

    `pipeline`: the hooks, None without rules. `backlog`: what was sent on `lo` and is to be received.
    """

    def __init__(
        self,
        clock: Clock,
        rng: random.Random | None = None,
        settings: Settings | None = None,
        fault: Callable[[BaseException, str], None] | None = None,
    ) -> None:
        super().__init__(clock, rng, settings, fault)
        self.pipeline: Pipeline | None = None
        self.neighbours = NeighbourTable(self)
        self.arp = Arp(self, self.neighbours)
        self.neighbours.arp = self.arp
        self.fragments = Fragmenter(self)
        self.backlog: list[Packet] = []

    def emit(self, pkt: Packet) -> cython.int:
        """Linux: ip_finish_output2, ip6_finish_output2."""
        if pkt.nfproto == NFPROTO_IPV6 and pkt.get8(pkt.l3 + 24) == 0xFF and pkt.nexthop is None and not self._to_group(pkt):
            return self.drop(pkt, DROP_MARTIAN)
        return self.to_neighbour(pkt)

    def to_neighbour(self, pkt: Packet) -> cython.int:
        """Linux: neigh_output."""
        if pkt.nexthop is not None:
            return self._emit_bridged(pkt)
        dst: Dst = pkt.route
        device: Device = cython.cast(Device, dst.oif)
        l3: cython.Py_ssize_t = pkt.l3
        neigh: Neighbour | None
        pkt.oif = device
        if device.type != ARPHRD_ETHER:
            set_start(pkt, l3 - 14 if device.type == ARPHRD_LOOPBACK else l3)
            if device.type == ARPHRD_LOOPBACK:  # whose addresses are all zero (Linux: eth_header)
                pkt.put64(l3 - 14, 0)
                pkt.put32(l3 - 6, 0)
                pkt.put16(l3 - 2, ETH_P_IP if pkt.nfproto == NFPROTO_IPV4 else ETH_P_IPV6)
            return self.transmit(pkt, device)
        neigh = self._neighbour(pkt, dst)
        if neigh is None:
            return self.drop(pkt, DROP_NEIGH_FAILED)
        if not neigh.connected and not self.neighbours.resolve(neigh, pkt):
            return DROP_NOT_SPECIFIED
        if pkt.vlan_tci >= 0:  # never routed, but sent on by `fwd`: it keeps its tag
            set_start(pkt, l3 - 18)
            pkt.put64(l3 - 18, neigh.head)
            pkt.put32(l3 - 10, neigh.mid)
            return self.transmit(pkt, device)
        set_start(pkt, l3 - 14)
        pkt.put64(l3 - 14, neigh.head)
        pkt.put32(l3 - 6, neigh.mid)
        pkt.put16(l3 - 2, ETH_P_IP if pkt.nfproto == NFPROTO_IPV4 else ETH_P_IPV6)
        return self.transmit(pkt, device)

    def _to_group(self, pkt: Packet) -> cython.bint:
        """A packet to an IPv6 group may leave; if the gateway listens to the group there, it hears it too.

        Neighbour discovery does not hear itself. What services behind the local port send comes back to them in their own kernel.
        """
        dst: Dst = pkt.route
        device: Device = cython.cast(Device, dst.oif)
        hi: cython.ulonglong = pkt.get64(pkt.l3 + 24)
        if device.type == ARPHRD_LOOPBACK:
            return True
        heard: cython.bint = pkt.extra is CONTROL or (pkt.iif is not None and pkt.extra is not DISCOVERY)
        if heard and self.listens(device, NFPROTO_IPV6, hi, pkt.get64(pkt.l3 + 32)):
            self._loop_back(pkt, device)
            if pkt.get8(pkt.l3 + 7) == 0:
                return False
        return ((hi >> 48) & 15) > 1

    def _loop_back(self, pkt: Packet, device: Device) -> None:
        """`pkt` also comes in on the device it leaves by, without a link-layer header (Linux: dev_loopback_xmit)."""
        copy: Packet = compact(pkt)
        set_start(copy, copy.l3)
        copy.iif = None
        copy.extra = None
        verdict: cython.int = self.run_hooks(NFPROTO_IPV6, NF_INET_POST_ROUTING, copy)
        if verdict != NF_ACCEPT:
            self.verdict(copy, verdict)
        elif len(self.backlog) >= BACKLOG_LIMIT:
            self.drop(copy, DROP_TX_FAILED)
        else:
            copy.iif = device
            copy.oif = None
            copy.looped = True
            copy.pkttype = PACKET_LOOPBACK
            copy.protocol = ETH_P_IPV6
            copy.vlan_tci = -1
            if not copy.vnet_flags & VNET_F_NEEDS_CSUM:
                copy.vnet_flags |= VNET_F_DATA_VALID
            self.backlog.append(copy)

    def _neighbour(self, pkt: Packet, dst: Dst) -> Neighbour | None:
        """The neighbour that `pkt` goes to; None if the table is full."""
        hi: cython.ulonglong = 0
        lo: cython.ulonglong
        neigh: Neighbour | None = dst.neigh
        if not dst.gateway:
            if pkt.nfproto == NFPROTO_IPV4:
                lo = pkt.get32(pkt.l3 + 16)
            else:
                hi = pkt.get64(pkt.l3 + 24)
                lo = pkt.get64(pkt.l3 + 32)
            if neigh is None or neigh.dead or lo != dst.via_lo or hi != dst.via_hi:
                return self.neighbours.of_dst(dst, hi, lo)
        elif neigh is None or neigh.dead:
            return self.neighbours.of_dst(dst, 0, 0)
        return neigh

    def emit_through(self, pkt: Packet, device: Device, tags: cython.uint, crossing: Crossing | None) -> cython.int:
        """As `emit`, what is above `device` passed over: one link-layer header with all tags; the counters there are kept."""
        dst: Dst = pkt.route
        l3: cython.Py_ssize_t = pkt.l3
        size: cython.Py_ssize_t = pkt.end - l3 + 14
        neigh: Neighbour | None = self._neighbour(pkt, dst)
        if neigh is None:
            return self.drop(pkt, DROP_NEIGH_FAILED)
        if not neigh.connected and not self.neighbours.resolve(neigh, pkt):
            return DROP_NOT_SPECIFIED
        upper: Device | None = dst.oif
        while upper is not None and upper is not device:
            upper.tx_packets += 1
            upper.tx_bytes += size
            if crossing is not None and upper is crossing.bridge:
                upper = crossing.port
            else:
                size += 4
                upper = upper.parent
        start: cython.Py_ssize_t = l3 - 14
        if tags:
            start -= 4 if tags < 0x10000 else 8
        set_start(pkt, start)
        pkt.put64(start, neigh.head)
        pkt.put32(start + 8, neigh.mid)
        start += 12
        while tags:
            pkt.put16(start, ETH_P_8021AD if tags & 0x2000 else ETH_P_8021Q)
            pkt.put16(start + 2, tags & 0xFFF)
            tags >>= 16
            start += 4
        pkt.put16(start, ETH_P_IP if pkt.nfproto == NFPROTO_IPV4 else ETH_P_IPV6)
        pkt.oif = device
        return self.transmit(pkt, device)

    def refragment(self, pkt: Packet, mtu: cython.int) -> cython.int:
        return self.fragments.output(pkt, mtu)

    def _emit_bridged(self, pkt: Packet) -> cython.int:
        """A fragment of a packet that a bridge forwards: under the header that the packet had."""
        way: Leaving = pkt.nexthop
        size: cython.Py_ssize_t = len(way.header)
        pkt.nexthop = None
        set_start(pkt, pkt.l3 - size)
        pkt.data[pkt.start : pkt.l3] = way.header
        return self.transmit(pkt, way.device)

    def transmit(self, pkt: Packet, device: Device) -> cython.int:
        """Linux: dev_queue_xmit."""
        reason: cython.int
        entries: HookList
        port: Port | None
        if not device.up:
            return self.drop(pkt, DROP_DEVICE_DOWN)
        if device.egress is not None:
            entries = device.egress
            pkt.oif = device
            before: Device | None = pkt.iif
            pkt.iif = None  # an egress hook knows no incoming device
            verdict: cython.int = entries.run(pkt)
            pkt.iif = before
            if verdict != NF_ACCEPT:
                return self.verdict(pkt, verdict)
        size: cython.Py_ssize_t = pkt.end - pkt.start
        port = device.port
        if port is None:
            if device.parent is None:
                return self._virtual(pkt, device)
            self._tag(pkt, device)
            reason = self.transmit(pkt, device.parent)
        else:
            if pkt.vnet_flags and pkt.iif is None and pkt.gso_type == 0:
                complete_checksum(pkt)  # the gateway's own: whoever listens on the wire sees a right sum
            reason = port.transmit(pkt)
            if reason != DROP_NOT_SPECIFIED:
                return self.drop(pkt, reason)
            if port is not self.last_port:
                self._touch(port)
        if reason == DROP_NOT_SPECIFIED:
            device.tx_packets += 1
            device.tx_bytes += size
        return reason

    def _touch(self, port: Port) -> None:
        i: cython.Py_ssize_t
        self.last_port = port
        for i in range(len(self.touched)):
            if self.touched[i] is port:
                return
        self.touched.append(port)

    def _tag(self, pkt: Packet, device: Device) -> None:
        """Insert the VLAN device's tag behind the addresses."""
        i: cython.Py_ssize_t
        d: bytearray = pkt.data
        start: cython.Py_ssize_t = pkt.start - 4
        for i in range(12):
            d[start + i] = d[start + 4 + i]
        set_start(pkt, start)
        pkt.put16(start + 12, device.vlan_proto)
        pkt.put16(start + 14, device.vlan_id)

    def _virtual(self, pkt: Packet, device: Device) -> cython.int:
        """A device without a port: `lo` receives what it sends, anything else is down."""
        copy: Packet
        bridge: Bridge
        if device.bridge is not None and device.master is None:
            bridge = device.bridge
            bridge.transmit(pkt)
            return DROP_NOT_SPECIFIED  # what became of it is the bridge's affair (Linux: br_dev_xmit)
        if device.type != ARPHRD_LOOPBACK:
            return self.drop(pkt, DROP_DEVICE_DOWN)
        if len(self.backlog) >= BACKLOG_LIMIT:
            return self.drop(pkt, DROP_TX_FAILED)
        device.tx_packets += 1
        device.tx_bytes += pkt.end - pkt.start
        copy = compact(pkt)
        copy.iif = device
        copy.oif = None
        copy.looped = True
        if isinstance(copy.extra, Origin):
            copy.extra = None  # Linux: skb_orphan in loopback_xmit
        copy.ip_options = 0
        self.backlog.append(copy)
        return DROP_NOT_SPECIFIED

    def listens(self, device: Device, family: cython.int, hi: cython.ulonglong, lo: cython.ulonglong) -> cython.bint:
        """The gateway is a member of this multicast group on the device."""
        raise NotImplementedError

    # -- hooks

    def run_hooks(self, family: cython.int, hook: cython.int, pkt: Packet) -> cython.int:
        if self.pipeline is None:
            return NF_ACCEPT
        return self.pipeline.run(family, hook, pkt)

    def verdict(self, pkt: Packet, verdict: cython.int) -> cython.int:
        if verdict == NF_DROP:
            return self.drop(pkt, pkt.drop_reason if pkt.drop_reason else DROP_RULE)
        return DROP_NOT_SPECIFIED
