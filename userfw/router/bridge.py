"""A learning bridge: ports, forwarding database, VLAN filtering, and the five hooks of the bridge family.

(Linux: br_input.c, br_forward.c, br_device.c, br_fdb.c, br_vlan.c; IEEE 802.1D, 802.1Q)

Laws:
- A frame meets prerouting (`iif` its port), then forward and postrouting for each port it leaves by, or input if it is for the
  bridge itself, which then receives it as any device. What the bridge sends itself meets output and postrouting (`oif` only).
- Without VLAN filtering a tag is payload. With it a frame belongs to one VLAN from its first hook's end on, and carries or lacks
  its tag as the port it is about to leave by wants it.
- The link-local groups 01:80:c2:00:00:0x go no further, but for those in `group_fwd_mask` and, there being no spanning tree,
  its own.
- Sources are learned behind prerouting. At most `fdb_max` are; an entry dies when nothing was heard for `ageing` ns.
- Who keeps a way through the bridge (router.crossing) is told when an address moves or is forgotten, and, as `changed` is called,
  of every change of ports and settings.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cython

if not cython.compiled:
    from userfw.core.const import (
        ETH_P_8021AD,
        ETH_P_8021Q,
        NF_ACCEPT,
        NF_INET_FORWARD,
        NF_INET_LOCAL_IN,
        NF_INET_LOCAL_OUT,
        NF_INET_POST_ROUTING,
        NF_INET_PRE_ROUTING,
        NFPROTO_BRIDGE,
        NFPROTO_IPV4,
        NFPROTO_IPV6,
        PACKET_HOST,
    )
    from userfw.core.drop import (
        DROP_BRIDGE_FILTER,
        DROP_DEVICE_DOWN,
        DROP_MALFORMED,
        DROP_NOT_SPECIFIED,
        DROP_OTHERHOST,
        DROP_TX_MTU,
    )
    from userfw.core.packet import Device, Packet
    from userfw.router.base import Router, set_start
    from userfw.wire._raw import copy
    from userfw.wire.gso import segment_network_length


class Members:
    """A port of a bridge, or (`device` the bridge's own) the bridge as a member of its VLANs.

    - `pvid`: VLAN of untagged frames, 0: none are taken. `vlans`: that it is in; `untagged`: those it sends without a tag.
    - `learning`, `flood` (unknown destinations), `hairpin` (back out of the same port), `isolated` (from other such ports).
    """

    def __init__(self, bridge: Bridge, device: Device) -> None:
        self.bridge = bridge
        self.device = device
        self.pvid = 1
        self.vlans: set[int] = {1}
        self.untagged: set[int] = {1}
        self.learning = True
        self.flood = True
        self.hairpin = False
        self.isolated = False


class FdbEntry:
    """Where an address was seen; `fixed`: configured, it neither moves nor dies; `dead`: no longer in the database. Times in ns."""

    def __init__(self, mac: int, vlan: int, port: Members, now: int, fixed: bool = False) -> None:
        self.mac = mac
        self.vlan = vlan
        self.port = port
        self.updated = now
        self.used = now
        self.fixed = fixed
        self.dead = False


class Leaving:
    """A frame's way out while its packet is cut into the fragments it came in: link-layer header and device."""

    def __init__(self, header: bytes, device: Device) -> None:
        self.header = header
        self.device = device


class Bridge:
    """One bridge. `device`: itself, as the router sees it; `own`: itself as a member; `ports`: in the order they were added.

    `watcher`: told of an FdbEntry that moved or is gone, or of None: anything may have changed. `generation` counts `changed`.
    """

    def __init__(self, router: Router, device: Device) -> None:
        self.router = router
        self.device = device
        self.own = Members(self, device)
        self.ports: list[Members] = []
        self.fdb: dict[int, FdbEntry] = {}
        self.local: dict[int, Members] = {}
        self.ageing = 300 * 10**9
        self.fdb_max = 16384
        self.filtering = False
        self.vlan_proto = ETH_P_8021Q
        self.group_fwd_mask = 0
        self.brouted = False
        self.learned = 0
        self.refused = 0
        self.generation = 0
        self.watcher: Callable[[FdbEntry | None], None] | None = None
        device.kind = "bridge"
        device.bridge = self

    # -- ports

    def add_port(self, device: Device) -> Members:
        """Make a device a port. ValueError if it is one already, or is no Ethernet device of its own."""
        if device.master is not None or device is self.device or device.bridge is not None or not device.mac:
            raise ValueError(f"{device.name} cannot be a port of {self.device.name}")
        port = Members(self, device)
        device.master = self.device
        device.bridge = port
        self.ports.append(port)
        self.addresses()
        return port

    def remove_port(self, device: Device) -> None:
        """The reverse."""
        port = device.bridge
        self.ports.remove(port)
        device.master = None
        device.bridge = None
        self.forget(port)
        self.addresses()

    def addresses(self) -> None:
        """The ports' and the bridge's own addresses are local; call it when one changed."""
        self.local = {int.from_bytes(member.device.mac, "big"): member for member in [*self.ports, self.own]}
        self.changed()

    def changed(self) -> None:
        """Call it after a change of a port's or the bridge's settings: ways through the bridge are walked anew."""
        self.generation += 1
        if self.watcher is not None:
            self.watcher(None)

    def forget(self, port: Members) -> None:
        """What was learned on a port (it went down)."""
        for entry in list(self.fdb.values()):
            if entry.port is port and not entry.fixed:
                self.remove(entry)

    def sweep(self, now: int) -> None:
        """Remove entries that died."""
        for entry in list(self.fdb.values()):
            if not entry.fixed and now - entry.updated > self.ageing:
                self.remove(entry)

    def remove(self, entry: FdbEntry) -> None:
        """Forget one address."""
        del self.fdb[(cython.cast(cython.ulonglong, entry.vlan) << 48) | entry.mac]
        entry.dead = True
        if self.watcher is not None:
            self.watcher(entry)

    def add_static(self, mac: int, vlan: int, port: Members) -> None:
        """A configured entry."""
        old = self.fdb.get((vlan << 48) | mac)
        if old is not None:
            self.remove(old)
        self.fdb[(vlan << 48) | mac] = FdbEntry(mac, vlan, port, self.router.clock.now, True)

    # -- in

    def receive(self, pkt: Packet, reason: cython.int) -> cython.int:
        """A frame came in on a port; `reason` is what parsing said. Linux: br_handle_frame."""
        start: cython.Py_ssize_t = pkt.start
        high: cython.uint = pkt.get32(start)
        low: cython.uint = pkt.get16(start + 4)
        source: cython.uint = pkt.get32(start + 6)
        kind: cython.int
        verdict: cython.int
        if (source >> 24) & 1 or (source == 0 and pkt.get16(start + 10) == 0):
            return self.router.drop(pkt, DROP_MALFORMED)
        if reason == DROP_MALFORMED and (pkt.vnet_flags or pkt.gso_type):
            return self.router.drop(pkt, reason)
        if high == 0x0180C200 and low >> 4 == 0:
            kind = low & 15
            if kind == 1:
                return self.router.drop(pkt, DROP_OTHERHOST)
            if kind != 0 and not (self.group_fwd_mask >> kind) & 1:
                return self._to_port(pkt, reason, kind)
        if high == self.device.mac_hi and low == self.device.mac_lo:
            pkt.pkttype = PACKET_HOST
        self.brouted = False
        verdict = self.router.run_hooks(NFPROTO_BRIDGE, NF_INET_PRE_ROUTING, pkt)
        if verdict != NF_ACCEPT:
            return self.router.verdict(pkt, verdict)
        if self.brouted:
            return self.router.enter_port(pkt, reason)
        return self.finish(pkt)

    def _to_port(self, pkt: Packet, reason: cython.int, kind: cython.int) -> cython.int:
        """A frame for the port itself, which is learned from; LLDP (14) meets no hook. Linux: __br_handle_local_finish."""
        verdict: cython.int
        if kind != 14:
            verdict = self.router.run_hooks(NFPROTO_BRIDGE, NF_INET_LOCAL_IN, pkt)
            if verdict != NF_ACCEPT:
                return self.router.verdict(pkt, verdict)
            reason = self.router.reread(pkt, reason)
        port: Members = cython.cast(Members, cython.cast(Device, pkt.iif).bridge)
        vid: cython.int = self._ingress(pkt, port)
        if vid >= 0:
            self.learn(pkt, port, vid)
        return self.router.enter_port(pkt, reason)

    def finish(self, pkt: Packet) -> cython.int:
        """Past prerouting. Linux: br_handle_frame_finish."""
        port: Members = cython.cast(Members, cython.cast(Device, pkt.iif).bridge)
        vid: cython.int = self._ingress(pkt, port)
        if vid < 0:
            return self.router.drop(pkt, DROP_BRIDGE_FILTER)
        self.learn(pkt, port, vid)
        if pkt.get8(pkt.start) & 1:
            self._flood(pkt, vid, port, True)
            return self.up(pkt, vid)
        entry: FdbEntry | None
        mac: cython.ulonglong = pkt.get32(pkt.start)
        mac = (mac << 16) | pkt.get16(pkt.start + 4)
        if mac in self.local:
            return self.up(pkt, vid)
        entry = self.find(mac, vid)
        if entry is not None:
            entry.used = self.router.clock.now
            if not self.deliverable(entry.port, port, vid):
                return self.router.drop(pkt, DROP_BRIDGE_FILTER)
            return self._forward(pkt, entry.port, vid, False)
        return self._flood(pkt, vid, port, False)

    def up(self, pkt: Packet, vid: cython.int) -> cython.int:
        """To the bridge itself. Linux: br_pass_frame_up."""
        if self.filtering:
            if vid not in self.own.vlans:
                return self.router.drop(pkt, DROP_BRIDGE_FILTER)
            self._dress(pkt, self.own, vid)
        verdict: cython.int = self.router.run_hooks(NFPROTO_BRIDGE, NF_INET_LOCAL_IN, pkt)
        if verdict != NF_ACCEPT:
            return self.router.verdict(pkt, verdict)
        return self.enter(pkt)

    def enter(self, pkt: Packet) -> cython.int:
        """Past input: the bridge's device receives it. What is wrong with its network header matters from here on only."""
        reason: cython.int = self.router.reread(pkt, DROP_NOT_SPECIFIED)
        pkt.iif = self.device
        pkt.oif = None
        return self.router.enter_device(pkt, reason)

    # -- the forwarding database

    def learn(self, pkt: Packet, port: Members, vid: cython.int) -> cython.int:
        """The sender of a frame of VLAN `vid` is behind `port`. Linux: br_fdb_update."""
        entry: FdbEntry | None
        now: cython.ulonglong = self.router.clock.now
        mac: cython.ulonglong = pkt.get32(pkt.start + 6)
        mac = (mac << 16) | pkt.get16(pkt.start + 10)
        if not port.learning or self.ageing == 0 or mac in self.local:
            return 0
        key: cython.ulonglong = (cython.cast(cython.ulonglong, vid) << 48) | mac
        entry = self.fdb.get(key)
        if entry is not None:
            if not entry.fixed:
                entry.updated = now
                if entry.port is not port:
                    entry.port = port
                    if self.watcher is not None:
                        self.watcher(entry)
            return 0
        if len(self.fdb) >= self.fdb_max:
            self.refused += 1
            return 0
        self.learned += 1
        self.fdb[key] = FdbEntry(mac, vid, port, now)
        return 0

    def find(self, mac: cython.ulonglong, vid: cython.int) -> FdbEntry | None:
        """Where an address is, unless that was too long ago."""
        key: cython.ulonglong = (cython.cast(cython.ulonglong, vid) << 48) | mac
        entry: FdbEntry | None = self.fdb.get(key)
        if entry is not None and not entry.fixed and self.router.clock.now - entry.updated > self.ageing:
            self.remove(entry)
            return None
        return entry

    # -- out

    def transmit(self, pkt: Packet) -> cython.int:
        """What the router sends by the bridge's device. Linux: br_dev_xmit."""
        start: cython.Py_ssize_t = pkt.start
        proto: cython.int = pkt.get16(start + 12)
        entry: FdbEntry | None
        self.device.tx_packets += 1
        self.device.tx_bytes += pkt.end - start
        pkt.vlan_tci = pkt.get16(start + 14) if proto in (ETH_P_8021Q, ETH_P_8021AD) else -1
        vid: cython.int = self._ingress(pkt, self.own)
        if vid < 0:
            return self.router.drop(pkt, DROP_BRIDGE_FILTER)
        mac: cython.ulonglong = pkt.get32(start)
        mac = (mac << 16) | pkt.get16(start + 4)
        if not pkt.get8(start) & 1:
            if mac in self.local:
                return self.router.drop(pkt, DROP_OTHERHOST)
            entry = self.find(mac, vid)
            if entry is not None:
                if not self.deliverable(entry.port, self.own, vid):
                    return self.router.drop(pkt, DROP_BRIDGE_FILTER)
                return self._forward(pkt, entry.port, vid, True)
        return self._flood(pkt, vid, self.own, False)

    def send(self, pkt: Packet, device: Device) -> cython.int:
        """A frame of the bridge's own out of one port (an answer of `reject`)."""
        pkt.oif = device
        return self._output(pkt)

    def deliverable(self, to: Members, source: Members, vid: cython.int) -> cython.bint:
        """A frame of VLAN `vid` from `source` may leave by `to`. Linux: should_deliver."""
        if (to is source and not to.hairpin) or not to.device.up:
            return False
        if to.isolated and source.isolated:
            return False
        return not self.filtering or vid in to.vlans

    def _flood(self, pkt: Packet, vid: cython.int, source: Members, keep: cython.bint) -> cython.int:
        """Out of every port that takes it, the port added last first. `keep`: `pkt` itself is still needed. Linux: br_flood."""
        i: cython.Py_ssize_t
        port: Members
        last: Members | None = None
        own: cython.bint = source is self.own
        unknown: cython.bint = not pkt.get8(pkt.start) & 1
        for i in range(len(self.ports) - 1, -1, -1):
            port = self.ports[i]
            if (unknown and not port.flood) or not self.deliverable(port, source, vid):
                continue
            if last is not None:
                self._copy_to(pkt, last, vid, own)
            last = port
        if last is None:
            return DROP_NOT_SPECIFIED if keep or own else self.router.drop(pkt, DROP_OTHERHOST)
        if keep:
            return self._copy_to(pkt, last, vid, own)
        return self._forward(pkt, last, vid, own)

    def _copy_to(self, pkt: Packet, port: Members, vid: cython.int, own: cython.bint) -> cython.int:
        other: Packet = self.router.take()
        other.copy_meta(pkt)
        copy(other.data, pkt.start, pkt.data, pkt.start, pkt.end - pkt.start)
        result: cython.int = self._forward(other, port, vid, own)
        self.router.give(other)
        return result

    def _forward(self, pkt: Packet, port: Members, vid: cython.int, own: cython.bint) -> cython.int:
        """Linux: __br_forward."""
        if self.filtering:
            self._dress(pkt, port, vid)
        pkt.oif = port.device
        if own:
            return self._output(pkt)
        verdict: cython.int = self.router.run_hooks(NFPROTO_BRIDGE, NF_INET_FORWARD, pkt)
        if verdict != NF_ACCEPT:
            return self.router.verdict(pkt, verdict)
        return self.post(pkt)

    def _output(self, pkt: Packet) -> cython.int:
        came: Device | None = pkt.iif
        pkt.iif = None
        verdict: cython.int = self.router.run_hooks(NFPROTO_BRIDGE, NF_INET_LOCAL_OUT, pkt)
        pkt.iif = came
        if verdict != NF_ACCEPT:
            return self.router.verdict(pkt, verdict)
        return self.post(pkt)

    def post(self, pkt: Packet) -> cython.int:
        """Past forward or output. Linux: br_forward_finish."""
        came: Device | None = pkt.iif
        pkt.iif = None
        verdict: cython.int = self.router.run_hooks(NFPROTO_BRIDGE, NF_INET_POST_ROUTING, pkt)
        pkt.iif = came
        if verdict != NF_ACCEPT:
            return self.router.verdict(pkt, verdict)
        return self.push(pkt)

    def push(self, pkt: Packet) -> cython.int:
        """Past postrouting: the port. Linux: br_dev_queue_push_xmit, nf_ct_bridge_refrag."""
        device: Device = cython.cast(Device, pkt.oif)
        if not device.up:
            return self.router.drop(pkt, DROP_DEVICE_DOWN)
        if pkt.frag_max_size and pkt.nfproto in (NFPROTO_IPV4, NFPROTO_IPV6):
            if pkt.frag_max_size > device.mtu:
                return self.router.drop(pkt, DROP_TX_MTU)
            pkt.nexthop = Leaving(bytes(pkt.data[pkt.start : pkt.l3]), device)
            return self.router.refragment(pkt, device.mtu)
        if pkt.end - pkt.l3 > device.mtu and pkt.end - pkt.start > device.mtu + 18:
            if not pkt.gso_type or segment_network_length(pkt) > device.mtu:
                return self.router.drop(pkt, DROP_TX_MTU)
        return self.router.transmit(pkt, device)

    # -- VLANs

    def _ingress(self, pkt: Packet, port: Members) -> cython.int:
        """The frame's VLAN, 0 without filtering, -1 if it must not come in here. Linux: br_allowed_ingress."""
        vid: cython.int = 0
        if not self.filtering:
            return 0
        if pkt.vlan_tci >= 0 and pkt.get16(pkt.start + 12) == self.vlan_proto:
            vid = pkt.vlan_tci & 0xFFF
        if vid == 0:
            return port.pvid if port.pvid else -1
        return vid if vid in port.vlans else -1

    def _dress(self, pkt: Packet, port: Members, vid: cython.int) -> cython.int:
        """Give the frame its tag, or take it, as `port` sends this VLAN. Linux: br_handle_vlan."""
        d: bytearray = pkt.data
        i: cython.Py_ssize_t
        start: cython.Py_ssize_t = pkt.start
        tagged: cython.bint = pkt.vlan_tci >= 0 and pkt.get16(start + 12) == self.vlan_proto
        if vid in port.untagged:
            if tagged:
                for i in range(start + 11, start - 1, -1):
                    d[i + 4] = d[i]
                set_start(pkt, start + 4)
                pkt.vlan_tci = -1
                if pkt.get16(start + 16) in (ETH_P_8021Q, ETH_P_8021AD):
                    pkt.vlan_tci = pkt.get16(start + 18)
            return 0
        if tagged:
            pkt.vlan_tci = (pkt.vlan_tci & 0xF000) | vid
            pkt.put16(start + 14, pkt.vlan_tci)
            return 0
        start -= 4
        for i in range(12):
            d[start + i] = d[start + 4 + i]
        set_start(pkt, start)
        pkt.put16(start + 12, self.vlan_proto)
        pkt.put16(start + 14, vid)
        pkt.vlan_tci = vid
        return 0

    # -- facts

    def listing(self) -> dict[str, Any]:
        """Ports and forwarding database as plain values; ages in seconds."""
        now = int(self.router.clock.now)
        self.sweep(now)
        return {
            "name": self.device.name,
            "mac": self.device.mac.hex(":"),
            "up": bool(self.device.up),
            "vlan_filtering": bool(self.filtering),
            "ports": [_member(port) for port in [*self.ports, self.own]],
            "fdb": [
                {
                    "mac": int(e.mac).to_bytes(6, "big").hex(":"), "vlan": e.vlan, "port": e.port.device.name,
                    "age": round((now - e.updated) / 1e9, 3), "static": bool(e.fixed),
                }
                for e in self.fdb.values()
            ],
            "local": [{"mac": mac.to_bytes(6, "big").hex(":"), "port": m.device.name} for mac, m in self.local.items()],
            "learned": self.learned,
            "not_learned": self.refused,
        }  # fmt: skip


def _member(port: Members) -> dict[str, Any]:
    return {
        "name": port.device.name, "up": bool(port.device.up), "pvid": port.pvid, "vlans": sorted(port.vlans),
        "untagged": sorted(port.untagged), "learning": bool(port.learning), "flood": bool(port.flood),
        "hairpin": bool(port.hairpin), "isolated": bool(port.isolated),
    }  # fmt: skip
