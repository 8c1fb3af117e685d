"""A way through a bridge that is walked once, for flows of the flowtable (Linux: br_fill_forward_path, nft_dev_forward_path).

Laws:
- What goes to a neighbour leaves by the port that its address was heard on, dressed as that port sends the frame's VLAN; what comes
  in on that port in the same dress is the bridge's own, if ingress would put it into the same VLAN and the bridge itself is in it.
- A crossing is good while its address stays where it is, alive; while its neighbour keeps the address; and until anything about
  the bridge's ports and settings changes.
- Frames of a flow are learned from as the bridge learns from them, so an address lives on as if they had been bridged. Linux does
  not: there the database forgets a host whose flows are offloaded.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from userfw.core.fastpath import Crossing, tag_code
    from userfw.core.packet import Packet
    from userfw.router.bridge import Bridge, FdbEntry, Members
    from userfw.router.types import Neighbour


class BridgeCrossing(Crossing):
    """`member`, `vlan`: port and VLAN of `entry`, the neighbour's place in the forwarding database."""

    def __init__(self, bridge: Bridge, entry: FdbEntry, neighbour: Neighbour) -> None:
        super().__init__()
        self.of = bridge
        self.entry = entry
        self.member: Members = entry.port
        self.neighbour = neighbour
        self.mac_hi = neighbour.mac_hi
        self.mac_lo = neighbour.mac_lo
        self.vlan = entry.vlan
        self.generation = bridge.generation
        self.bridge = bridge.device
        self.port = self.member.device
        self.anchor = entry

    def valid(self) -> cython.bint:
        entry: FdbEntry = self.entry
        neighbour: Neighbour = self.neighbour
        if self.generation != self.of.generation or entry.dead or entry.port is not self.member or neighbour.dead:
            return False
        if neighbour.mac_hi != self.mac_hi or neighbour.mac_lo != self.mac_lo:
            return False
        return entry.fixed or self.of.router.clock.now - entry.updated <= self.of.ageing

    def hear(self, pkt: Packet) -> cython.bint:
        start: cython.Py_ssize_t = pkt.start
        high: cython.uint = pkt.get32(start + 6)
        low: cython.uint = pkt.get16(start + 10)
        if self.generation != self.of.generation:
            return False
        if high == self.mac_hi and low == self.mac_lo:
            if self.entry.dead or self.entry.port is not self.member:
                return False
            self.heard(self.of.router.clock.now)
            return True
        if (high >> 24) & 1 or (high == 0 and low == 0):
            return False
        self.of.learn(pkt, self.member, self.vlan)
        return True

    def heard(self, when: cython.ulonglong) -> cython.int:
        entry: FdbEntry = self.entry
        if self.member.learning and self.of.ageing and not entry.fixed and when > entry.updated:
            entry.updated = when
        return 0


def walk(bridge: Bridge, neighbour: Neighbour, tags: cython.uint) -> object:
    """The BridgeCrossing of what the bridge's device sends to `neighbour` under `tags`; in words, why there is none."""
    name = bridge.device.name
    vid: cython.int = 0
    kind: cython.uint = tag_code(bridge.vlan_proto, 0)
    inner: cython.uint = tags
    tagged: cython.bint = False
    if bridge.filtering:
        tagged = tags & 0xF000 == kind
        vid = tags & 0xFFF if tagged else bridge.own.pvid
        if tagged:
            inner = tags >> 16
        if vid == 0 or vid not in bridge.own.vlans:
            return f"{name} itself is not in VLAN {vid}" if vid else f"{name} itself takes no untagged frames"
    mac = int.from_bytes(neighbour.mac, "big")
    entry = bridge.find(mac, vid)
    if entry is None:
        return f"{name}: the port of {neighbour.mac.hex(':')} is not known"
    if mac in bridge.local or not bridge.deliverable(entry.port, bridge.own, vid):
        return f"{name}: {entry.port.device.name} does not take the frames"
    found: BridgeCrossing = BridgeCrossing(bridge, entry, neighbour)
    found.tags = tags
    found.both = True
    if bridge.filtering:
        untagged: cython.bint = vid in found.member.untagged
        if not untagged and inner >= 0x10000:
            return f"{name}: more than two VLAN tags"
        found.tags = inner if untagged else (inner << 16) | kind | cython.cast(cython.uint, vid)
        back: cython.bint = found.member.pvid == vid and found.tags & 0xF000 != kind if untagged else True
        found.both = back and (vid in bridge.own.untagged) != tagged
    return found
