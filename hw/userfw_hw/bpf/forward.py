"""The forwarding program: one flow looked up, one rewrite, out of another interface. XDP and tc ingress share all but the edges.

What the program does not do exactly, it passes up untouched: other hosts' frames, tags that no flow has, more than two tags, IPv4
options, IPv6 extension headers, fragments, TTL 1, TCP with FIN, SYN or RST, packets above the entry's MTU, lengths that do not fit;
at XDP also frames whose transport checksum a local sender left to its device, known by its value (userfw.wire.partial).

Tags: at tc the outer one stands beside the frame and the kernel's helpers take off and put on; at XDP all stand in the frame, whose
head moves. R7 is where a frame without tags would begin, so that everything behind the tags has one offset.

Key (48 bytes): source 16, destination 16 (IPv4 in the first four), ports 4 as on the wire, ifindex 4, tags 4 (tag_code),
protocol 1, family 1, zero 2. Value (128 bytes): `_LAYOUT`. Checksum changes are folded 16-bit sums in the machine's byte order
(RFC 1071, 2.B).
"""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from userfw.core.fastpath import tag_code
from userfw.offload.contract import Actions, Match
from userfw.ports.assembler import R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, R10, Program
from userfw_hw.bpf.edges import TC, Edge
from userfw_hw.bpf.filters import FilterList

KEY_SIZE: Final = 48
VALUE_SIZE: Final = 128
_KEY_AT: Final = -48  # on the stack
_TAGS_AT: Final = _KEY_AT + 40

_LOOKUP, _KTIME, _L4_CSUM_REPLACE, _VLAN_PUSH, _VLAN_POP, _REDIRECT, _PULL, _ADJUST_HEAD, _REDIRECT_MAP = (
    1, 5, 11, 18, 19, 23, 39, 44, 51,
)  # fmt: skip
_VLANS: Final = ((b"\x81\x00", 0x1000), (b"\x88\xa8", 0x3000))
_PSEUDO_HEADER, _MANGLED_ZERO = 0x10, 0x20
if tuple(int(part) for part in os.uname().release.split(".")[:2]) >= (5, 11):
    _KTIME = 160  # bpf_ktime_get_coarse_ns: as good as the last tick, and cheaper

# Offsets in the value
_SOURCE, _DESTINATION, _PORTS, _LINK, _OIF, _L3, _L4, _PSEUDO, _PORTS_DELTA, _MTU, _PACKETS, _BYTES, _LAST, _TAG = (
    0, 16, 32, 36, 48, 52, 56, 60, 64, 68, 72, 80, 88, 96,
)  # fmt: skip
_TAG_COUNT, _ADJUST, _EXPECTED, _PARTIAL = 104, 108, 112, 120
_LAYOUT: Final = "=16s16s4s12sIIIIIIQQQ8sIiIxxxxQ"


@dataclass(frozen=True, slots=True)
class Family:
    """Where one network header has what; offsets from the frame's start."""

    name: str
    number: int
    l4: int
    source: int
    size: int
    ttl: int
    protocol: int
    length: int
    extra: int  # what the length field leaves out


IPV4: Final = Family("ipv4", 4, 34, 26, 4, 22, 23, 16, 0)
IPV6: Final = Family("ipv6", 6, 54, 22, 16, 21, 20, 18, 40)


def key(match: Match) -> bytes:
    """The map key of one direction."""
    family = 4 if len(match.source) == 4 else 6
    return struct.pack(
        "=16s16s4sIIBBxx",
        match.source,
        match.destination,
        struct.pack(">HH", match.source_port, match.destination_port),
        match.ifindex,
        sum(tag_code(*tag) << 16 * place for place, tag in enumerate(match.vlans)),
        match.protocol,
        family,
    )


def value(match: Match, actions: Actions) -> bytes:
    """The map value: new fields and what they change the checksums by; counters at zero."""
    addresses = _sum(actions.source + actions.destination) + _complement(match.source + match.destination)
    old = struct.pack(">HH", match.source_port, match.destination_port)
    new = struct.pack(">HH", actions.source_port, actions.destination_port)
    ports = _sum(new) + _complement(old) if new != old else 0
    if actions.source + actions.destination == match.source + match.destination:
        addresses = 0
    ttl = 0xFEFF if len(match.source) == 4 else 0
    if len(match.vlans) > 2 or len(actions.vlans) > 2:
        raise ValueError("the program knows two tags")
    tags = b"".join(struct.pack(">HH", protocol, vid) for protocol, vid in actions.vlans)
    return struct.pack(
        _LAYOUT,
        actions.source,
        actions.destination,
        new,
        actions.ethernet_destination + actions.ethernet_source,
        actions.ifindex,
        _host(addresses + ttl),
        _host(addresses + ports),
        _host(addresses),
        _host(ports),
        actions.mtu,
        0,
        0,
        0,
        tags,
        len(actions.vlans),
        4 * (len(match.vlans) - len(actions.vlans)),
        _host(_sum(match.source + match.destination) + match.protocol),
        0,
    )


def counters(data: bytes) -> tuple[int, int, int]:
    """(packets, bytes, time of the last packet in monotonic nanoseconds) of a map value."""
    packets, octets, last = struct.unpack_from("=QQQ", data, _PACKETS)
    return packets, octets, last


def partial(data: bytes) -> int:
    """Frames that a map value's flow passed up because their checksum was still to be completed."""
    return int(struct.unpack_from("=Q", data, _PARTIAL)[0])


def build(
    edge: Edge, flows: int, ifindex: int, macs: Sequence[bytes], capture: int = 0, mark: int = 0, sockets: int = 0,
    otherwise: int = 2, filters: FilterList | None = None,
) -> bytes:  # fmt: skip
    """The program for one interface: `flows` is the map's descriptor, `macs` the addresses that frames for the gateway carry.

    What is passed up goes on as usual; with `capture` (tc) to the interface of this number instead; with `sockets` (XDP), a map's
    descriptor, to the AF_XDP socket of its receive queue, and if there is none gets the verdict `otherwise`.
    `mark`: what forwarded packets are marked with (tc only), so that an egress filter lets them by. `filters`: for the rest.
    """
    p = Program()
    p.mov(R6, R1)
    for off in range(0, KEY_SIZE, 8):
        p.store_immediate(8, R10, _KEY_AT + off, 0)
    if edge is TC:
        _tc_preamble(p)
    _bounds(p, edge, 42)
    _own_address(p, macs)
    _tags(p, edge)
    for family, ethertype in ((IPV4, b"\x08\x00"), (IPV6, b"\x86\xdd")):
        p.branch("jeq", R3, int.from_bytes(ethertype, sys.byteorder), family.name)
    p.jump("pass")
    for family in (IPV4, IPV6):
        _family(p, edge, family, flows, ifindex)
    if edge is TC:
        _push(p, mark)
    p.label("broken")  # a helper failed half-way: the frame is neither what it was nor what it should be
    p.set(R0, edge.dropped)
    p.exit()
    p.label("pass")
    if filters is not None:
        filters.emit(p, edge)
    _pass(p, edge, capture, sockets, otherwise)
    return p.assemble()


def _pass(p: Program, edge: Edge, capture: int, sockets: int, otherwise: int) -> None:
    if sockets:
        p.load(4, R2, R6, 16)  # rx_queue_index
        p.map(R1, sockets)
        p.set(R3, otherwise)
        p.call(_REDIRECT_MAP)
    elif capture:
        p.set(R1, capture)
        p.set(R2, 0)
        p.call(_REDIRECT)
    else:
        p.set(R0, edge.passed)
    p.exit()


def _tc_preamble(p: Program) -> None:
    """Headers in the linear part, with an inner tag."""
    p.load(4, R2, R6, 0)  # len
    p.branch("jlt", R2, 42, "pass")
    p.branch("jle", R2, 82, "pull")
    p.set(R2, 82)
    p.label("pull")
    p.mov(R1, R6)
    p.call(_PULL)


def _tags(p: Program, edge: Edge) -> None:
    """Tags into the key, R7 past those in the frame, R3 = the EtherType behind them."""
    if edge is TC:
        p.load(4, R2, R6, 20)  # vlan_present
        p.branch("jeq", R2, 0, "untagged")
        p.load(4, R2, R6, 24)  # vlan_tci
        p.load(4, R3, R6, 28)  # vlan_proto, as on the wire
        _tag_code(p, "outer")
        p.store(4, R10, _TAGS_AT, R2)
        p.load(2, R3, R7, 12)
        p.jump("inner")
        p.label("untagged")
    p.load(2, R3, R7, 12)
    _inline_tag(p, 0, "tagged")
    p.label("inner")
    _inline_tag(p, 2, "tagged")
    p.label("tagged")


def _half(offset: int) -> int:
    """Where on the stack the outer (0) or inner (2) tag's half of the key's word is."""
    return _TAGS_AT + (offset if sys.byteorder == "little" else 2 - offset)


def _inline_tag(p: Program, offset: int, done: str) -> None:
    """A tag in the frame at R7 into the key's half at `offset`; without one go to `done`. R3: EtherType, before and after."""
    name = f"inline-{offset}"
    for protocol, _ in _VLANS:
        p.branch("jeq", R3, int.from_bytes(protocol, sys.byteorder), name)
    p.jump(done)
    p.label(name)
    p.load(2, R2, R7, 14)
    p.swap(R2, 16)
    _tag_code(p, name)
    p.store(2, R10, _half(offset), R2)
    p.alu("add", R7, 4)
    _reach(p, 42)
    p.load(2, R3, R7, 12)


def _tag_code(p: Program, name: str) -> None:
    """R2 = the code of the tag with TCI R2 and protocol R3 (core.fastpath.tag_code)."""
    p.alu("and", R2, 0xFFF)
    p.branch("jeq", R2, 0, "pass")
    p.alu("or", R2, 0x1000)
    p.branch("jne", R3, int.from_bytes(_VLANS[1][0], sys.byteorder), f"{name}-q")
    p.alu("or", R2, 0x3000)
    p.label(f"{name}-q")


def _bounds(p: Program, edge: Edge, size: int, otherwise: str = "pass") -> None:
    """R7 = start of the frame, R8 = its end; at least `size` bytes may be touched from here on."""
    p.load(4, R7, R6, edge.data)
    p.load(4, R8, R6, edge.data_end)
    _reach(p, size, otherwise)


def _reach(p: Program, size: int, otherwise: str = "pass") -> None:
    p.mov(R2, R7)
    p.alu("add", R2, size)
    p.branch("jgt", R2, R8, otherwise, register=True)


def _own_address(p: Program, macs: Sequence[bytes]) -> None:
    p.load(4, R3, R7, 0)
    p.load(2, R4, R7, 4)
    for place, mac in enumerate(macs):
        other = f"not-{place}" if place + 1 < len(macs) else "pass"
        p.branch("jne", R3, _signed(int.from_bytes(mac[:4], sys.byteorder)), other, bits=32)
        if other != "pass":
            p.branch("jeq", R4, int.from_bytes(mac[4:], sys.byteorder), "ours")
            p.label(other)
        else:
            p.branch("jne", R4, int.from_bytes(mac[4:], sys.byteorder), other)
    p.label("ours")


def _signed(number: int) -> int:
    return number - (1 << 32) if number >> 31 else number


def _family(p: Program, edge: Edge, family: Family, flows: int, ifindex: int) -> None:
    p.label(family.name)
    _reach(p, family.l4 + 8)
    p.load(1, R3, R7, 14)
    if family is IPV4:
        p.branch("jne", R3, 0x45, "pass")
        p.load(2, R3, R7, 20)
        p.alu("and", R3, int.from_bytes(b"\x3f\xff", sys.byteorder))  # more fragments, offset
        p.branch("jne", R3, 0, "pass")
    else:
        p.alu("rsh", R3, 4)
        p.branch("jne", R3, 6, "pass")
    p.load(1, R3, R7, family.ttl)
    p.branch("jle", R3, 1, "pass")
    p.load(1, R3, R7, family.protocol)
    for protocol, name in ((6, "tcp"), (17, "udp")):
        p.branch("jeq", R3, protocol, f"{family.name}-{name}")
    p.jump("pass")
    for protocol, name in ((6, "tcp"), (17, "udp")):
        p.label(f"{family.name}-{name}")
        _transport(p, edge, family, protocol, flows, ifindex)


def _transport(p: Program, edge: Edge, family: Family, protocol: int, flows: int, ifindex: int) -> None:
    tag = f"{family.name}-{protocol}"
    header = 20 if protocol == 6 else 8
    if protocol == 6:
        _reach(p, family.l4 + header)
        p.load(1, R3, R7, family.l4 + 13)
        p.branch("jset", R3, 0x07, "pass")  # FIN, SYN, RST
    _length(p, edge, family, header)
    _lookup(p, family, protocol, flows, ifindex)
    _mtu(p, edge, family, protocol, tag)
    if edge is TC:
        _count(p, family)
        _pop(p, edge, family, tag)
        _checksum_tc(p, edge, family, protocol, tag)
        _link(p)
    else:
        _whole(p, family, protocol, tag)
        _move_head(p, edge, family, tag)
        _count(p, family)
        _checksum(p, family.l4 + (16 if protocol == 6 else 6), _L4, tag, zero=protocol == 17)
    _rewrite(p, family, tag)
    if edge is TC:
        p.jump("out")
    else:
        _redirect(p)


def _pop(p: Program, edge: Edge, family: Family, tag: str) -> None:
    """Take the tags off: R7 is the frame's start from here on."""
    for name, offset in (("outer", 0), ("inner", 2)):
        p.load(2, R2, R10, _half(offset))
        p.branch("jeq", R2, 0, f"{tag}-popped")
        p.mov(R1, R6)
        p.call(_VLAN_POP)
        p.branch("jne", R0, 0, "broken")
        if name == "inner":
            p.label(f"{tag}-popped")
    _bounds(p, edge, family.l4 + 8, "broken")


def _push(p: Program, mark: int) -> None:
    """Put the tags on, the inner one first, and send."""
    p.label("out")
    p.set(R2, mark)
    p.store(4, R6, 8, R2)
    p.load(4, R3, R9, _TAG_COUNT)
    p.branch("jeq", R3, 0, "tags-on")
    p.branch("jeq", R3, 1, "last-tag")
    for offset in (4, 0):
        if not offset:
            p.label("last-tag")
        p.mov(R1, R6)
        p.load(2, R2, R9, _TAG + offset)
        p.load(2, R3, R9, _TAG + offset + 2)
        p.swap(R3, 16)
        p.call(_VLAN_PUSH)
        p.branch("jne", R0, 0, "broken")
    p.label("tags-on")
    _redirect(p)


def _whole(p: Program, family: Family, protocol: int, tag: str) -> None:
    """Pass up, and count, what carries the sum of its pseudo-header for a checksum: its sender left it to a device."""
    p.load(2, R4, R7, family.length)
    if family is IPV4:
        p.swap(R4, 16)
        p.alu("sub", R4, family.l4 - 14)
        p.swap(R4, 16)
    p.load(4, R3, R9, _EXPECTED)
    p.alu("add", R3, R4, register=True)
    _fold(p, 1)
    p.load(2, R4, R7, family.l4 + (16 if protocol == 6 else 6))
    p.branch("jne", R3, R4, f"{tag}-whole", register=True)
    p.set(R3, 1)
    p.atomic_add(8, R9, _PARTIAL, R3)
    p.jump("pass")
    p.label(f"{tag}-whole")


def _move_head(p: Program, edge: Edge, family: Family, tag: str) -> None:
    """Room for the tags of the way out, or less of it; then the new link-layer header. R7 past its tags."""
    p.load(4, R2, R9, _ADJUST)
    p.branch("jeq", R2, 0, f"{tag}-stays")
    p.mov(R1, R6)
    p.call(_ADJUST_HEAD)
    p.branch("jne", R0, 0, "pass")  # no room: nothing was done
    p.label(f"{tag}-stays")
    _bounds(p, edge, family.l4 + 8, "broken")
    _link(p)
    for place in range(2):
        p.load(4, R3, R9, _TAG_COUNT)
        p.branch("jle", R3, place, f"{tag}-linked")
        p.load(4, R3, R9, _TAG + 4 * place)
        p.store(4, R7, 12, R3)
        p.alu("add", R7, 4)
        _reach(p, family.l4 + 8, "broken")
    p.label(f"{tag}-linked")
    p.store_immediate(2, R7, 12, int.from_bytes(b"\x08\x00" if family is IPV4 else b"\x86\xdd", sys.byteorder))
    _reach(p, family.l4 + (20 if tag.endswith("-6") else 8), "broken")


def _link(p: Program) -> None:
    """New addresses at the frame's start."""
    for off in range(0, 12, 4):
        p.load(4, R3, R9, _LINK + off)
        p.store(4, R7, off, R3)


def _redirect(p: Program) -> None:
    p.load(4, R1, R9, _OIF)
    p.set(R2, 0)
    p.call(_REDIRECT)
    p.exit()


def _length(p: Program, edge: Edge, family: Family, header: int) -> None:
    """R3 = bytes of the network layer; it must hold the headers and be there."""
    p.load(2, R3, R7, family.length)
    p.swap(R3, 16)
    if family.extra:
        p.alu("add", R3, family.extra)
    p.branch("jlt", R3, family.l4 - 14 + header, "pass")
    if edge is TC:
        p.load(4, R5, R6, edge.data)
        p.mov(R2, R7)
        p.alu("sub", R2, R5, register=True)  # tags in the frame
        p.load(4, R4, R6, 0)
        p.alu("sub", R4, R2, register=True)
    else:
        p.mov(R4, R8)
        p.alu("sub", R4, R7, register=True)
    p.alu("sub", R4, 14)
    p.branch("jgt", R3, R4, "pass", register=True)


def _lookup(p: Program, family: Family, protocol: int, flows: int, ifindex: int) -> None:
    """R9 = the entry's value."""
    for off in range(0, family.size, 4):
        p.load(4, R4, R7, family.source + off)
        p.store(4, R10, _KEY_AT + off, R4)
        p.load(4, R4, R7, family.source + family.size + off)
        p.store(4, R10, _KEY_AT + 16 + off, R4)
    p.load(4, R4, R7, family.l4)
    p.store(4, R10, _KEY_AT + 32, R4)
    p.store_immediate(4, R10, _KEY_AT + 36, ifindex)
    p.store_immediate(1, R10, _KEY_AT + 44, protocol)
    p.store_immediate(1, R10, _KEY_AT + 45, family.number)
    p.map(R1, flows)
    p.mov(R2, R10)
    p.alu("add", R2, _KEY_AT)
    p.call(_LOOKUP)
    p.branch("jeq", R0, 0, "pass")
    p.mov(R9, R0)


def _mtu(p: Program, edge: Edge, family: Family, protocol: int, tag: str) -> None:
    """Pass up what is longer than the entry's MTU; a large send counts by its segments."""
    p.load(2, R3, R7, family.length)
    p.swap(R3, 16)
    if family.extra:
        p.alu("add", R3, family.extra)
    p.load(4, R4, R9, _MTU)
    p.branch("jle", R3, R4, f"{tag}-fits", register=True)
    if edge is TC:
        p.load(4, R5, R6, 176)  # gso_size
        p.branch("jeq", R5, 0, "pass")
        p.alu("add", R5, family.l4 - 14 + (0 if protocol == 6 else 8))
        if protocol == 6:
            p.load(1, R2, R7, family.l4 + 12)
            p.alu("rsh", R2, 4)
            p.alu("lsh", R2, 2)
            p.alu("add", R5, R2, register=True)
        p.branch("jle", R5, R4, f"{tag}-fits", register=True)
    p.jump("pass")
    p.label(f"{tag}-fits")


def _count(p: Program, family: Family) -> None:
    """Packets, bytes of the network layer, time."""
    p.load(2, R3, R7, family.length)
    p.swap(R3, 16)
    if family.extra:
        p.alu("add", R3, family.extra)
    p.atomic_add(8, R9, _BYTES, R3)
    p.set(R3, 1)
    p.atomic_add(8, R9, _PACKETS, R3)
    p.call(_KTIME)
    p.store(8, R9, _LAST, R0)


def _checksum(p: Program, at: int, delta: int, tag: str, zero: bool = False) -> None:
    """RFC 1624: the sum at `at` changes by the value's `delta`. `zero`: 0 means none and a computed 0 is sent as 0xffff (UDP)."""
    p.load(2, R3, R7, at)
    if zero:
        p.branch("jeq", R3, 0, f"{tag}-{at}-done")
    p.alu("xor", R3, 0xFFFF)
    p.load(4, R4, R9, delta)
    p.alu("add", R3, R4, register=True)
    _fold(p, 2)
    p.alu("xor", R3, 0xFFFF)
    if zero:
        p.branch("jne", R3, 0, f"{tag}-{at}-store")
        p.set(R3, 0xFFFF)
        p.label(f"{tag}-{at}-store")
    p.store(2, R7, at, R3)
    if zero:
        p.label(f"{tag}-{at}-done")


def _fold(p: Program, times: int) -> None:
    """R3 to 16 bits, `times` carries at most."""
    for _ in range(times):
        p.mov(R4, R3)
        p.alu("rsh", R4, 16)
        p.alu("and", R3, 0xFFFF)
        p.alu("add", R3, R4, register=True)


def _checksum_tc(p: Program, edge: Edge, family: Family, protocol: int, tag: str) -> None:
    """The kernel's helper knows whether the sum is still to be completed (CHECKSUM_PARTIAL); it moves the packet, so look again."""
    at = family.l4 + (16 if protocol == 6 else 6)
    for delta, flags in ((_PSEUDO, _PSEUDO_HEADER), (_PORTS_DELTA, 0)):
        p.load(4, R4, R9, delta)
        p.branch("jeq", R4, 0, f"{tag}-{delta}")
        p.mov(R1, R6)
        p.set(R2, at)
        p.set(R3, 0)
        p.set(R5, flags | (_MANGLED_ZERO if protocol == 17 else 0))
        p.call(_L4_CSUM_REPLACE)
        p.label(f"{tag}-{delta}")
    _bounds(p, edge, family.l4 + 8, "broken")


def _rewrite(p: Program, family: Family, tag: str) -> None:
    """TTL, addresses, ports."""
    if family is IPV4:
        _checksum(p, 24, _L3, tag)
    p.load(1, R3, R7, family.ttl)
    p.alu("add", R3, -1)
    p.store(1, R7, family.ttl, R3)
    for off in range(0, family.size, 4):
        p.load(4, R3, R9, _SOURCE + off)
        p.store(4, R7, family.source + off, R3)
        p.load(4, R3, R9, _DESTINATION + off)
        p.store(4, R7, family.source + family.size + off, R3)
    p.load(4, R3, R9, _PORTS)
    p.store(4, R7, family.l4, R3)


def _sum(data: bytes) -> int:
    return sum(struct.unpack(f">{len(data) // 2}H", data))


def _complement(data: bytes) -> int:
    return sum(~word & 0xFFFF for word in struct.unpack(f">{len(data) // 2}H", data))


def _host(total: int) -> int:
    """Folded to 16 bits, in the machine's byte order."""
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return int.from_bytes(total.to_bytes(2, "big"), sys.byteorder)
