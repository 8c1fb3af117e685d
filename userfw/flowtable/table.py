"""The flowtable: flows that bypass the pipeline (Linux: nf_flow_table_core.c, nf_flow_table_ip.c, nft_flow_offload.c).

Laws:
- `forward` handles a packet exactly as the pipeline would have, or declines and leaves it untouched: fragments, IP options,
  extension headers, TTL expiry, packets above the MTU and TCP FIN and RST go down the slow path.
- FIN and RST, a route that changed, a connection that ends: the flow is torn down and conntrack believed again.
- A way through VLAN devices is walked when the flow is made: one lookup at the device below all of them, whose frames match with
  their tags, and one step out of the device below, with the tags put on at once (Linux: nft_dev_path_info). Devices on the way
  with hooks of their own are not passed over. So is a way through a bridge, to the port that the next hop was heard on, if the
  flowtable has that port; chains of the bridge family do not see the flow then, as in Linux.
- A connection of the gateway's own may be a flow as well: `flow add` at input or output. Its packets go to the services, or come
  from them, in one step, and keep their TTL.
- With an offloader, whose flows also end when rules change, a direction is believed once the pipeline has let a packet of it come
  to `flow add`; otherwise both are from the start, as in Linux.
- The table is two chained hash tables while it grows; every insertion moves a few buckets, so that no packet waits for all.
- `sweep` looks at a bounded number of buckets; idle flows go back to conntrack.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

import cython

if not cython.compiled:
    from userfw.conntrack.conn import Conn
    from userfw.conntrack.table import ConnObserver, ConnTable
    from userfw.core.const import (
        CT_DIR_ORIGINAL,
        IPPROTO_TCP,
        IPPROTO_UDP,
        NF_ACCEPT,
        NF_INET_LOCAL_IN,
        NF_INET_LOCAL_OUT,
        NF_STOLEN,
        NFPROTO_IPV4,
        NFPROTO_IPV6,
        NSEC_PER_SEC,
        PACKET_HOST,
        TCP_FIN,
        TCP_RST,
    )
    from userfw.core.fastpath import CachedRoute, Crossing, FastPath, Sender, tag_code, tags_of, untag
    from userfw.core.hook import HookEntry
    from userfw.core.packet import Device, Packet
    from userfw.flowtable.flow import Flow, FlowTuple, hash_key
    from userfw.flowtable.handover import allowed, begin, describe, end, hold

if not cython.compiled:
    _MINIMUM = 1024  # buckets
    _ANY_LENGTH = 0x7FFFFFFF
    _STEP = 64  # buckets moved at each insertion while the table grows


class FlowTable(FastPath):
    """One flowtable of a ruleset.

    - `devices`: names of the devices whose ingress asks it. `counter`: account packets to the connection as well.
    - `tcp_timeout`, `udp_timeout`: ns without a packet after which a flow ends (net.netfilter.nf_flowtable_*_timeout).
    - `offloader`: told of every flow's begin and end (offload.manager), or None; and when one direction had `threshold` packets.
    - `epoch`: flows of another one are not believed any more (`doubt`).
    - `forwarded`: packets sent; `added`, `torn_down`, `expired`: flows; `refused`: `flow add` that could not be done.
    """

    def __init__(
        self,
        name: str,
        family: int,
        priority: int,
        devices: list[str],
        *,
        counter: bool = False,
        conns: ConnTable,
        sender: Sender,
        rng: Random | None = None,
    ) -> None:
        super().__init__()
        self.name = name
        self.family = family
        self.priority = priority
        self.devices = list(devices)
        self.counter = counter
        self.conns = conns
        self.clock = conns.clock
        self.sender = sender
        rng = rng if rng is not None else Random(1)
        self.k0 = rng.getrandbits(64)
        self.k1 = rng.getrandbits(64)
        self.tcp_timeout = 30 * NSEC_PER_SEC
        self.udp_timeout = 30 * NSEC_PER_SEC
        self._buckets: list[FlowTuple | None] = [None] * _MINIMUM
        self._mask = _MINIMUM - 1
        self._old: list[FlowTuple | None] | None = None
        self._old_mask = 0
        self._migrated = 0
        self._sweep = 0
        self.count = 0
        self.forwarded = 0
        self.added = 0
        self.torn_down = 0
        self.expired = 0
        self.refused = 0
        self._next_id = 1
        self._tags = 0
        self._crossed = False
        self.offloader: Any = None
        self.threshold = 0
        self.epoch = 0

    # The packet path

    def forward(self, pkt: Packet) -> cython.int:
        """1 if `pkt` was sent, 0 if the pipeline must see it (Linux: nf_flow_offload_ip_hook)."""
        if not pkt.has_l4 or pkt.is_fragment or (pkt.pkttype != PACKET_HOST and not _for_master(pkt)):
            return 0
        proto: cython.int = pkt.l4proto
        if proto != IPPROTO_TCP and proto != IPPROTO_UDP:
            return 0
        l3: cython.Py_ssize_t = pkt.l3
        size: cython.Py_ssize_t = pkt.l4 - l3
        length: cython.Py_ssize_t
        src_hi: cython.ulonglong = 0
        dst_hi: cython.ulonglong = 0
        src_lo: cython.ulonglong
        dst_lo: cython.ulonglong
        if pkt.nfproto == NFPROTO_IPV4:
            if size != 20 or pkt.get8(l3 + 8) <= 1:
                return 0
            length = pkt.get16(l3 + 2)
            src_lo = pkt.get32(l3 + 12)
            dst_lo = pkt.get32(l3 + 16)
        elif pkt.nfproto == NFPROTO_IPV6:
            if size != 40 or pkt.get8(l3 + 7) <= 1:
                return 0
            length = 40 + cython.cast(cython.Py_ssize_t, pkt.get16(l3 + 4))
            src_hi = pkt.get64(l3 + 8)
            src_lo = pkt.get64(l3 + 16)
            dst_hi = pkt.get64(l3 + 24)
            dst_lo = pkt.get64(l3 + 32)
        else:
            return 0
        if length < size + (20 if proto == IPPROTO_TCP else 8):
            return 0
        ports: cython.uint = pkt.get32(pkt.l4)
        device: Device = cython.cast(Device, pkt.iif)
        key: cython.uint = (device.index << 16) | (pkt.nfproto << 8) | proto
        tags: cython.uint = 0
        if pkt.vlan_tci >= 0:
            tags = tags_of(pkt)
            if tags == 0:
                return 0
        hash: cython.uint = hash_key(self.k0, self.k1, src_hi, src_lo, dst_hi, dst_lo, ports, key ^ tags)
        entry: FlowTuple | None = self.find(hash, src_hi, src_lo, dst_hi, dst_lo, ports, key)
        if entry is None or entry.tags != tags:
            return 0
        return self._send(pkt, entry, length)

    def _send(self, pkt: Packet, entry: FlowTuple, length: cython.Py_ssize_t) -> cython.int:
        flow: Flow = entry.flow
        proto: cython.int = flow.l4proto
        segment: cython.Py_ssize_t
        header: cython.Py_ssize_t = 8
        if entry.comes is None and pkt.pkttype != PACKET_HOST:
            return 0
        if proto == IPPROTO_TCP:
            if pkt.get8(pkt.l4 + 13) & (TCP_FIN | TCP_RST):
                self.teardown(flow)
                return 0
            header = (pkt.get8(pkt.l4 + 12) >> 4) * 4
        if length > entry.mtu:
            segment = pkt.l4 - pkt.l3 + header + pkt.gso_size
            if pkt.gso_size == 0 or segment > entry.mtu:
                return 0
        route: CachedRoute = entry.route
        if flow.epoch != self.epoch or not route.valid() or (entry.goes is not None and not entry.goes.valid()):
            self.teardown(flow)
            return 0
        if not entry.judged or (entry.comes is not None and not entry.comes.hear(pkt)):
            return 0
        flow.timeout = self.clock.now + (self.tcp_timeout if proto == IPPROTO_TCP else self.udp_timeout)
        if entry.tags or entry.comes is not None:
            _count_arrival(entry, pkt.end - pkt.l3)
        pkt.vlan_tci = -1  # the way out has its own
        pkt.end = pkt.l3 + length
        entry.rewrite(pkt)
        entry.packets += 1
        entry.bytes += length
        if self.counter:
            conn: Conn = flow.conn
            conn.packets[entry.dir] += 1
            conn.bytes[entry.dir] += length
        self.forwarded += 1
        if entry.packets == self.threshold:
            self.offloader.ready(flow)
        pkt.route = route
        if entry.local:
            self.sender.deliver(pkt)
            return 1
        if not entry.hops:
            pkt.iif = None  # from the gateway itself
        pkt.oif = route.oif
        if entry.out is not None:
            self.sender.emit_through(pkt, cython.cast(Device, entry.out), entry.out_tags, entry.goes)
        else:
            self.sender.emit(pkt)
        return 1

    def find(
        self,
        hash: cython.uint,
        src_hi: cython.ulonglong,
        src_lo: cython.ulonglong,
        dst_hi: cython.ulonglong,
        dst_lo: cython.ulonglong,
        ports: cython.uint,
        key: cython.uint,
    ) -> FlowTuple | None:
        """The entry with this key (`FlowTuple` tells its parts), or None."""
        entry: FlowTuple | None
        if self._old is not None and cython.cast(cython.Py_ssize_t, hash & self._old_mask) >= self._migrated:
            entry = self._old[hash & self._old_mask]
        else:
            entry = self._buckets[hash & self._mask]
        while entry is not None:
            if (
                entry.hash == hash
                and entry.ports == ports
                and entry.key == key
                and entry.src_lo == src_lo
                and entry.dst_lo == dst_lo
                and entry.src_hi == src_hi
                and entry.dst_hi == dst_hi
            ):
                return entry
            entry = entry.next
        return None

    # Flows come and go

    def add(self, pkt: Packet, hook: cython.int) -> cython.int:
        """`flow add`: 1 if the packet's connection is now in the table, 0 if the rule breaks (Linux: nft_flow_offload_eval)."""
        conn: Conn | None = pkt.ct
        flow: Flow
        back: CachedRoute | None = None
        if conn is not None and conn.flow is not None:
            flow = conn.flow
            if flow.table is self and (flow.epoch != self.epoch or (flow.open and self._closes(flow))):
                self.teardown(flow)
            else:
                flow.direction(pkt.ctdir).judged = True
        if conn is not None and pkt.route is not None and allowed(conn, pkt):
            if hook != NF_INET_LOCAL_IN and hook != NF_INET_LOCAL_OUT:
                back = self.sender.route_back(pkt) if pkt.iif is not None else None
            elif self.sender.host is not None:
                back = self.sender.route_local(pkt, hook == NF_INET_LOCAL_OUT)
        if conn is None or back is None or back.oif is None:
            self.refused += 1
            return 0
        return self._make(pkt, conn, back, hook)

    def _make(self, pkt: Packet, conn: Conn, back: CachedRoute, hook: cython.int) -> cython.int:
        """Both entries: what arrives, and what the other end must see (Linux: flow_offload_fill_dir)."""
        flow: Flow = Flow(conn, self, pkt.nfproto, pkt.l4proto)
        flow.id = self._next_id
        self._next_id += 1
        flow.epoch = self.epoch
        dir: cython.int
        inside: cython.int = -1  # the direction that ends here
        if hook == NF_INET_LOCAL_IN:
            inside = pkt.ctdir
        elif hook == NF_INET_LOCAL_OUT:
            inside = 1 - pkt.ctdir
        for dir in range(2):
            seen: FlowTuple = flow.direction(dir)
            describe(conn, seen)
            seen.route = pkt.route if dir == pkt.ctdir else back
            seen.judged = dir == pkt.ctdir or self.offloader is None
            seen.local = dir == inside
            seen.hops = 1 if inside < 0 else 0
            seen.set_rewrite(flow.family)
        for dir in range(2):
            self._way(flow, flow.direction(dir), flow.direction(1 - dir))
        flow.timeout = self.clock.now + (self.tcp_timeout if flow.l4proto == IPPROTO_TCP else self.udp_timeout)
        begin(conn, flow, self.conns)
        self._insert(flow.original)
        self._insert(flow.reply)
        self.added += 1
        if self.offloader is not None:
            self.offloader.begun(flow)
        return 1

    # Ways

    def _way(self, flow: Flow, there: FlowTuple, back: FlowTuple) -> cython.int:
        """One end of a flow: how `there` leaves and `back` arrives (Linux: nft_dev_forward_path)."""
        device: Device = cython.cast(Device, self.sender.host if there.local else there.route.oif)
        crossing: Crossing | None = None
        lowest: Device
        there.mtu = _ANY_LENGTH
        if not there.local:
            there.mtu = there.route.mtu if there.route.mtu else device.mtu
            if self._bridge_of(device) is not None:
                crossing = self._cross(there, device)
                flow.open = flow.open or crossing is None
            if crossing is not None and not self.has_port(crossing.port):
                crossing = None
            lowest = self._lowest(device, False, crossing)
            if lowest is not device:
                there.out = lowest
                there.out_tags = self._tags
                there.goes = crossing if self._crossed else None
            if there.goes is not None:
                there.mtu = min(there.mtu, cython.cast(Device, there.goes.port).mtu)
        back.arrives = device
        lowest = self._lowest(device, True, crossing if crossing is not None and crossing.both else None)
        back.tags = self._tags
        back.comes = crossing if self._crossed else None
        back.set_key(flow.family, flow.l4proto, lowest.index, self.k0, self.k1)
        return 0

    def _bridge_of(self, device: Device) -> Device | None:
        """The bridge whose device `device` is, or is a VLAN device above."""
        while device.parent is not None:
            device = device.parent
        return device if device.bridge is not None and device.master is None else None

    def _cross(self, there: FlowTuple, device: Device) -> Crossing | None:
        """The bridge below `device` walked for what goes `there`."""
        bridge: Device = cython.cast(Device, self._bridge_of(device))
        tags: cython.uint = untag(device, bridge)
        return self.sender.cross(there.route, there.new_dst_hi, there.new_dst_lo, bridge, tags)

    def _closes(self, flow: Flow) -> cython.bint:
        """Every bridge on the flow's way can be crossed now."""
        dir: cython.int
        for dir in range(2):
            there: FlowTuple = flow.direction(dir)
            if not there.local and self._bridge_of(cython.cast(Device, there.route.oif)) is not None:
                if self._cross(there, cython.cast(Device, there.route.oif)) is None:
                    return False
        return True

    def _lowest(self, device: Device, inward: cython.bint, crossing: Crossing | None) -> Device:
        """The device below `device` that can stand for it, VLAN devices (two tags at most) and one bridge passed over: inward the
        lowest that asks this table, outward the one that frames leave by; nothing on the way has hooks that would be passed over.
        `_tags`: what frames carry there; `_crossed`: it is below the bridge."""
        found: Device = device
        step: Device = device
        tags: cython.uint = 0
        crossed: cython.bint = False
        self._tags = 0
        self._crossed = False
        while (step.ingress if inward else step.egress) is None:
            if step.parent is not None:
                if tags >= 0x10000:
                    if inward:
                        break
                    self._tags = 0
                    self._crossed = False
                    return device  # three tags: walked step by step
                tags = (tags << 16) | tag_code(step.vlan_proto, step.vlan_id)
                step = cython.cast(Device, step.parent)
            elif crossing is not None and not crossed and step is crossing.bridge:
                tags = crossing.tags
                crossed = True
                step = cython.cast(Device, crossing.port)
            else:
                break
            if not inward or self._hooked(step.name):
                found = step
                self._tags = tags
                self._crossed = crossed
        return found

    def has_port(self, device: Device | None) -> cython.bint:
        """The flowtable has the port `device`, or what is below it."""
        while device is not None:
            if self._hooked(device.name):
                return True
            device = device.parent
        return False

    def _hooked(self, name: str) -> cython.bint:
        return any(p == name or (p.endswith("*") and name.startswith(p.rstrip("*"))) for p in self.devices)

    def doubt(self) -> None:
        """Believe none of the present flows any more: each is torn down when its next packet comes, or by `sweep`."""
        self.epoch = (self.epoch + 1) & 0x7FFFFFFF

    def _insert(self, entry: FlowTuple) -> cython.int:
        if self._old is not None:
            self._migrate(_STEP)
        elif self.count > self._mask:
            self._grow()
        index: cython.Py_ssize_t
        if self._old is not None and cython.cast(cython.Py_ssize_t, entry.hash & self._old_mask) >= self._migrated:
            index = entry.hash & self._old_mask
            entry.next = self._old[index]
            self._old[index] = entry
        else:
            index = entry.hash & self._mask
            entry.next = self._buckets[index]
            self._buckets[index] = entry
        self.count += 1
        return 0

    def _unlink(self, entry: FlowTuple) -> cython.int:
        buckets: list[FlowTuple | None] = self._buckets
        index: cython.Py_ssize_t = entry.hash & self._mask
        if self._old is not None and cython.cast(cython.Py_ssize_t, entry.hash & self._old_mask) >= self._migrated:
            buckets = self._old
            index = entry.hash & self._old_mask
        previous: FlowTuple | None = None
        current: FlowTuple | None = buckets[index]
        while current is not None and current is not entry:
            previous = current
            current = current.next
        if current is None:
            return 0
        if previous is None:
            buckets[index] = entry.next
        else:
            previous.next = entry.next
        entry.next = None
        self.count -= 1
        return 0

    def _grow(self) -> cython.int:
        self._old = self._buckets
        self._old_mask = self._mask
        self._migrated = 0
        self._mask = self._mask * 4 + 3
        self._buckets = [None] * (self._mask + 1)
        return 0

    def _migrate(self, buckets: cython.Py_ssize_t) -> cython.int:
        entry: FlowTuple | None
        following: FlowTuple | None
        index: cython.Py_ssize_t
        old: list[FlowTuple | None] = cython.cast(list, self._old)
        while buckets > 0 and self._migrated <= self._old_mask:
            entry = old[self._migrated]
            old[self._migrated] = None
            while entry is not None:
                following = entry.next
                index = entry.hash & self._mask
                entry.next = self._buckets[index]
                self._buckets[index] = entry
                entry = following
            self._migrated += 1
            buckets -= 1
        if self._migrated > self._old_mask:
            self._old = None
        return 0

    def teardown(self, flow: Flow) -> cython.int:
        """Take `flow` out and let conntrack judge its connection again (Linux: flow_offload_teardown)."""
        if flow.dead:
            return 0
        if flow.offload is not None:
            self.offloader.ended(flow)  # out of hardware before anything else is believed
        flow.dead = True
        self._unlink(flow.original)
        self._unlink(flow.reply)
        self.torn_down += 1
        idle: cython.ulonglong = self.tcp_timeout if flow.l4proto == IPPROTO_TCP else self.udp_timeout
        end(flow.conn, flow, self.conns, idle)
        flow.original.flow = None  # no cycle is left behind: these classes are not garbage collected
        flow.reply.flow = None
        return 0

    def credit(self, flow: Flow, dir: cython.int, packets: cython.ulonglong, octets: cython.ulonglong) -> cython.int:
        """A device handled packets of `flow`: count them as if they had been handled here."""
        entry: FlowTuple = flow.direction(dir)
        entry.packets += packets
        entry.bytes += octets
        if self.counter:
            conn: Conn = flow.conn
            conn.packets[dir] += packets
            conn.bytes[dir] += octets
        return 0

    def sweep(self, budget: cython.Py_ssize_t) -> cython.int:
        """End idle flows in the next `budget` buckets; returns how many ended (Linux: nf_flow_offload_gc_step)."""
        ended: cython.int = 0
        entry: FlowTuple | None
        following: FlowTuple | None
        if self._old is not None:
            self._migrate(budget)
        while budget > 0:
            if self._sweep > self._mask:
                self._sweep = 0
                break
            entry = self._buckets[self._sweep]
            while entry is not None:
                following = entry.next
                flow: Flow = entry.flow
                if entry.dir == CT_DIR_ORIGINAL and (flow.timeout <= self.clock.now or flow.epoch != self.epoch):
                    if following is flow.reply:
                        following = following.next
                    self.teardown(flow)
                    self.expired += 1
                    ended += 1
                elif entry.dir == CT_DIR_ORIGINAL:
                    hold(flow.conn, self.conns)
                entry = following
            self._sweep += 1
            budget -= 1
        return ended

    def __iter__(self) -> Iterator[Flow]:
        """Every flow (a snapshot; not for the packet path)."""
        entry: Any
        found = []
        for buckets in (self._buckets, self._old or []):
            for entry in buckets:
                while entry is not None:
                    if entry.dir == CT_DIR_ORIGINAL:
                        found.append(entry.flow)
                    entry = entry.next
        return iter(found)

    def flush(self, ifindex: int = 0) -> int:
        """Tear down every flow, or those that touch the device `ifindex`; returns how many."""
        ended = 0
        for flow in list(self):
            if not ifindex or ifindex in _devices(flow):
                self.teardown(flow)
                ended += 1
        return ended


def _for_master(pkt: Packet) -> cython.bint:
    """A frame on a bridge's port that carries the bridge's address."""
    device: Device = cython.cast(Device, pkt.iif)
    master: Device | None = device.master
    return master is not None and pkt.get32(pkt.start) == master.mac_hi and pkt.get16(pkt.start + 4) == master.mac_lo


def _count_arrival(entry: FlowTuple, length: cython.Py_ssize_t) -> cython.int:
    """VLAN devices and bridges that a packet came in by received it too; `length` is that of the network layer, as it came."""
    device: Device | None = entry.arrives
    length += 14
    while device is not None and device.index != entry.key >> 16:
        device.rx_packets += 1
        device.rx_bytes += length
        if device.parent is not None:
            length += 4
            device = device.parent
        else:
            device = entry.comes.port if entry.comes is not None else None
    return 0


def _devices(flow: Flow) -> set[int]:
    """Interface indices that the flow comes in on, crosses or leaves by."""
    found = {flow.original.key >> 16, flow.reply.key >> 16}
    entry: FlowTuple
    for entry in (flow.original, flow.reply):
        route: Any = entry.route
        if route is not None and route.oif is not None:
            found.add(route.oif.index)
        for device in (entry.arrives, entry.out):
            if device is not None:
                found.add(device.index)
        crossing: Any
        for crossing in (entry.comes, entry.goes):
            if crossing is not None:
                found |= {crossing.bridge.index, crossing.port.index}
    return found


class FlowEntry(HookEntry):
    """The flowtable as an entry of a device's ingress hook, for devices that have netdev chains as well: priorities decide."""

    def __init__(self, table: FlowTable) -> None:
        super().__init__(table.priority)
        self.table = table

    def run(self, pkt: Packet, hook: cython.int) -> cython.int:
        """NF_STOLEN if the packet was sent; its slot stays the receiver's."""
        if self.table.forward(pkt):
            return NF_STOLEN
        return NF_ACCEPT


class FlowObserver(ConnObserver):
    """Ends the flow of a connection that conntrack ends (deleted, evicted, its mapping forgotten). One for each ConnTable."""

    def destroyed(self, conn: Conn) -> cython.int:
        flow: Any = conn.flow
        if flow is not None:
            flow.table.teardown(flow)
        return 0
