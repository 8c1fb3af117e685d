"""A flow: a connection that the pipeline no longer needs to see, as one entry for each direction.

Laws:
- Everything that does not depend on the packet is computed when the flow is made: the new addresses and ports and, for
  each checksum, the one number that must be added (RFC 1624). Handling a packet is comparing, storing and adding.
- A FlowTuple never decides; `rewrite` does what NAT and forwarding would have done to exactly this packet.
"""

from __future__ import annotations

from typing import Any

import cython

if not cython.compiled:
    from userfw.conntrack.conn import Conn
    from userfw.conntrack.tuples import hash_words
    from userfw.core.const import NFPROTO_IPV4, U32_MASK, VNET_F_NEEDS_CSUM
    from userfw.core.fastpath import Crossing
    from userfw.core.packet import Device, Packet

if not cython.compiled:
    _TTL_DELTA = 0xFEFF  # ~old + new of the word (ttl, protocol) when the TTL goes down by one


def hash_key(
    k0: cython.ulonglong,
    k1: cython.ulonglong,
    src_hi: cython.ulonglong,
    src_lo: cython.ulonglong,
    dst_hi: cython.ulonglong,
    dst_lo: cython.ulonglong,
    ports: cython.uint,
    key: cython.uint,
) -> cython.uint:
    """Keyed hash of a flow's key; hostile senders cannot aim for one bucket."""
    ends: cython.ulonglong = ports
    ends = (ends << 32) | key
    if src_hi == 0 and dst_hi == 0:
        return hash_words(k0, k1, src_lo, dst_lo, ends)
    ends ^= hash_words(k0, k1, src_hi, dst_hi, 0)
    return hash_words(k0, k1, src_lo, dst_lo, ends)


def delta16(old: cython.uint, new: cython.uint) -> cython.uint:
    """What a complemented checksum's sum changes by when a 16-bit word goes from `old` to `new`."""
    return (~old & 0xFFFF) + (new & 0xFFFF)


def delta64(old: cython.ulonglong, new: cython.ulonglong) -> cython.uint:
    """`delta16` over four words; 0 when nothing changes, so that untouched parts stay out of the sum."""
    total: cython.uint = 0
    shift: cython.int
    if old == new:
        return 0
    for shift in range(0, 64, 16):
        total += delta16((old >> shift) & 0xFFFF, (new >> shift) & 0xFFFF)
    return total


def _fold(total: cython.uint) -> cython.uint:
    total = (total & 0xFFFF) + (total >> 16)
    return (total & 0xFFFF) + (total >> 16)


@cython.no_gc
@cython.cclass
class FlowTuple:
    """One direction of a flow: what to look for, what to make of it, where to send it.

    - Key: addresses as (hi, lo) pairs, `ports` (source << 16 | destination), `key` (input ifindex << 16 | family << 8 | protocol),
      `tags` that the frame carries there (core.fastpath.tag_code). `arrives`: the device whose packet it is, above the tags.
    - Rewrite: `new_*`; `l3_delta` (IPv4 header checksum, TTL step included), `l4_delta` (transport checksum), `pseudo_delta`
      (the pseudo-header part alone, for packets whose checksum is still to be completed). `rewrites`: NAT changes something.
    - `judged`: the pipeline has let a packet of this direction come to `flow add`; until then it sees them all.
    - `route`: where to; `out` and `out_tags`: the device below its VLAN devices and the tags put on for it, None: not known to be
      the same. `mtu` in bytes of the network layer. `packets` and `bytes` (network layer) handled here.
    - `comes`, `goes`: the crossing of a bridge that the packets come in by and leave by, None if they cross none.
    - `local`: to the gateway's own services. `hops`: 1 for what is forwarded, 0 for what begins or ends here: the TTL it takes.
    """

    def __init__(self, flow: Flow | None, dir: int) -> None:
        self.flow: Any = flow
        self.dir = dir
        self.src_hi = 0
        self.src_lo = 0
        self.dst_hi = 0
        self.dst_lo = 0
        self.ports = 0
        self.key = 0
        self.tags = 0
        self.out_tags = 0
        self.out: Device | None = None
        self.arrives: Device | None = None
        self.hash = 0
        self.new_src_hi = 0
        self.new_src_lo = 0
        self.new_dst_hi = 0
        self.new_dst_lo = 0
        self.new_ports = 0
        self.l3_delta = _TTL_DELTA
        self.l4_delta = 0
        self.pseudo_delta = 0
        self.rewrites = False
        self.judged = True
        self.local = False
        self.hops = 1
        self.comes: Crossing | None = None
        self.goes: Crossing | None = None
        self.mtu = 0
        self.route: Any = None
        self.next: FlowTuple | None = None
        self.packets = 0
        self.bytes = 0

    def set_key(
        self, family: cython.int, l4proto: cython.int, iif: cython.int, k0: cython.ulonglong, k1: cython.ulonglong
    ) -> cython.int:
        """Fix the key once addresses, ports and tags are in place."""
        self.key = (iif << 16) | (family << 8) | l4proto
        self.hash = hash_key(k0, k1, self.src_hi, self.src_lo, self.dst_hi, self.dst_lo, self.ports, self.key ^ self.tags)
        return 0

    def set_rewrite(self, family: cython.int) -> cython.int:
        """Compute the checksum numbers from the old and new addresses and ports."""
        addresses: cython.uint = (
            delta64(self.src_hi, self.new_src_hi)
            + delta64(self.src_lo, self.new_src_lo)
            + delta64(self.dst_hi, self.new_dst_hi)
            + delta64(self.dst_lo, self.new_dst_lo)
        )
        self.pseudo_delta = _fold(addresses)
        self.l4_delta = _fold(addresses + delta64(self.ports, self.new_ports))
        self.l3_delta = _fold(addresses + (_TTL_DELTA if self.hops else 0)) if family == NFPROTO_IPV4 else 0
        self.rewrites = addresses != 0 or self.ports != self.new_ports
        return 0

    def rewrite(self, pkt: Packet) -> cython.int:
        """NAT and TTL for a packet of this direction whose headers were checked: IPv4 without options, or bare IPv6."""
        if pkt.nfproto == NFPROTO_IPV4:
            return self._rewrite_ipv4(pkt)
        return self._rewrite_ipv6(pkt)

    def _rewrite_ipv4(self, pkt: Packet) -> cython.int:
        l3: cython.Py_ssize_t = pkt.l3
        d: bytearray = pkt.data
        total: cython.uint = (~((d[l3 + 10] << 8) | d[l3 + 11]) & 0xFFFF) + self.l3_delta
        pkt.put16(l3 + 10, ~_fold(total) & 0xFFFF)
        d[l3 + 8] = d[l3 + 8] - self.hops
        if self.rewrites:
            pkt.put32(l3 + 12, self.new_src_lo & U32_MASK)
            pkt.put32(l3 + 16, self.new_dst_lo & U32_MASK)
            _ports(self, pkt)
        return 0

    def _rewrite_ipv6(self, pkt: Packet) -> cython.int:
        l3: cython.Py_ssize_t = pkt.l3
        d: bytearray = pkt.data
        d[l3 + 7] = d[l3 + 7] - self.hops
        if self.rewrites:
            pkt.put64(l3 + 8, self.new_src_hi)
            pkt.put64(l3 + 16, self.new_src_lo)
            pkt.put64(l3 + 24, self.new_dst_hi)
            pkt.put64(l3 + 32, self.new_dst_lo)
            _ports(self, pkt)
        return 0


def _ports(flow: FlowTuple, pkt: Packet) -> cython.int:
    """Ports and transport checksum (Linux: nf_flow_nat_port, inet_proto_csum_replace4)."""
    udp: cython.bint = (flow.key & 0xFF) == 17
    off: cython.Py_ssize_t = pkt.l4 + (6 if udp else 16)
    old: cython.uint = pkt.get16(off)
    pkt.put32(pkt.l4, flow.new_ports)
    if pkt.vnet_flags & VNET_F_NEEDS_CSUM:
        pkt.put16(off, _fold(old + flow.pseudo_delta))
        return 0
    if udp and old == 0:
        return 0
    new: cython.uint = ~_fold((~old & 0xFFFF) + flow.l4_delta) & 0xFFFF
    if udp and new == 0:
        new = 0xFFFF
    pkt.put16(off, new)
    return 0


@cython.no_gc
@cython.cclass
class Flow:
    """Both directions of an offloaded connection.

    - `conn`: the conntrack.Conn; `table`: the FlowTable. `timeout`: when it ends if nothing more comes (ns).
    - `open`: a bridge stands on its way whose port was not known yet. `dead`: no longer in the table. `offload`: what a hardware
      driver keeps with it, or None. `epoch`: the table's when the flow was made.
    """

    def __init__(self, conn: Conn, table: Any, family: int, l4proto: int) -> None:
        self.conn = conn
        self.table = table
        self.family = family
        self.l4proto = l4proto
        self.original = FlowTuple(self, 0)
        self.reply = FlowTuple(self, 1)
        self.timeout = 0
        self.open = False
        self.dead = False
        self.epoch = 0
        self.offload: Any = None
        self.id = 0

    def direction(self, dir: cython.int) -> FlowTuple:
        """The entry of CT_DIR_ORIGINAL or CT_DIR_REPLY."""
        if dir == 0:
            return self.original
        return self.reply
