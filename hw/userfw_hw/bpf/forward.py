"""The forwarding program: one flow looked up, one rewrite, out of another interface. XDP and tc ingress share all but the edges.

What the program does not do exactly, it passes up untouched: other hosts' frames, VLAN tags, IPv4 options, IPv6 extension headers,
fragments, TTL 1, TCP with FIN, SYN or RST, packets above the entry's MTU, lengths that do not fit.

Key (44 bytes): source 16, destination 16 (IPv4 in the first four), ports 4 as on the wire, ifindex 4, protocol 1, family 1, zero 2.
Value (104 bytes): see `Value`. Checksum changes are folded 16-bit sums in the machine's byte order (RFC 1071, 2.B).
"""

from __future__ import annotations

import struct
import sys
from dataclasses import dataclass
from typing import Final

from userfw.offload.contract import Actions, Match
from userfw.ports.assembler import R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, R10, Program

KEY_SIZE: Final = 44
VALUE_SIZE: Final = 104
_KEY_AT: Final = -48  # on the stack

_LOOKUP, _KTIME, _L4_CSUM_REPLACE, _REDIRECT, _PULL = 1, 5, 11, 23, 39
_PSEUDO_HEADER, _MANGLED_ZERO = 0x10, 0x20

# Offsets in the value
_SOURCE, _DESTINATION, _PORTS, _LINK, _OIF, _L3, _L4, _PSEUDO, _PORTS_DELTA, _MTU, _PACKETS, _BYTES, _LAST = (
    0, 16, 32, 36, 48, 52, 56, 60, 64, 68, 72, 80, 88,
)  # fmt: skip
_LAYOUT: Final = "=16s16s4s12sIIIIIIQQQQ"


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


@dataclass(frozen=True, slots=True)
class Edge:
    """How a kind of program reaches the packet: offsets of data and data_end in its context, its verdict for "not mine"."""

    name: str
    data: int
    data_end: int
    passed: int


XDP: Final = Edge("xdp", 0, 4, 2)
TC: Final = Edge("tc", 76, 80, -1)  # TC_ACT_UNSPEC: the next program or filter decides


def key(match: Match) -> bytes:
    """The map key of one direction."""
    family = 4 if len(match.source) == 4 else 6
    return struct.pack(
        "=16s16s4sIBBxx",
        match.source,
        match.destination,
        struct.pack(">HH", match.source_port, match.destination_port),
        match.ifindex,
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
        0,
    )


def counters(data: bytes) -> tuple[int, int, int]:
    """(packets, bytes, time of the last packet in monotonic nanoseconds) of a map value."""
    packets, octets, last = struct.unpack_from("=QQQ", data, _PACKETS)
    return packets, octets, last


def build(edge: Edge, flows: int, ifindex: int, mac: bytes, capture: int = 0, mark: int = 0) -> bytes:
    """The program for one interface: `flows` is the map's descriptor, `mac` the address that frames for the gateway carry.

    `capture`: the interface that gets, instead of the stack, every frame that is passed up; 0: they go on as usual.
    `mark`: what forwarded packets are marked with (tc only), so that an egress filter lets them by.
    """
    p = Program()
    p.mov(R6, R1)
    if edge is TC:
        _tc_preamble(p)
    _bounds(p, edge, 42)
    _own_address(p, mac)
    p.load(2, R3, R7, 12)
    for family, ethertype in ((IPV4, b"\x08\x00"), (IPV6, b"\x86\xdd")):
        p.branch("jeq", R3, int.from_bytes(ethertype, sys.byteorder), family.name)
    p.label("pass")
    if capture:
        p.set(R1, capture)
        p.set(R2, 0)
        p.call(_REDIRECT)
    else:
        p.set(R0, edge.passed)
    p.exit()
    for family in (IPV4, IPV6):
        _family(p, edge, family, flows, ifindex)
    if edge is TC:
        p.label("out")
        p.set(R2, mark)
        p.store(4, R6, 8, R2)
        _redirect(p)
    return p.assemble()


def _tc_preamble(p: Program) -> None:
    """Only frames for us without a tag; headers in the linear part."""
    p.load(4, R2, R6, 4)  # pkt_type
    p.branch("jne", R2, 0, "pass")
    p.load(4, R2, R6, 20)  # vlan_present
    p.branch("jne", R2, 0, "pass")
    p.load(4, R2, R6, 0)  # len
    p.branch("jlt", R2, 42, "pass")
    p.branch("jle", R2, 74, "pull")
    p.set(R2, 74)
    p.label("pull")
    p.mov(R1, R6)
    p.call(_PULL)


def _bounds(p: Program, edge: Edge, size: int) -> None:
    """R7 = start of the frame, R8 = its end; at least `size` bytes may be touched from here on."""
    p.load(4, R7, R6, edge.data)
    p.load(4, R8, R6, edge.data_end)
    _reach(p, size)


def _reach(p: Program, size: int) -> None:
    p.mov(R2, R7)
    p.alu("add", R2, size)
    p.branch("jgt", R2, R8, "pass", register=True)


def _own_address(p: Program, mac: bytes) -> None:
    p.load(4, R3, R7, 0)
    p.branch("jne", R3, _signed(int.from_bytes(mac[:4], sys.byteorder)), "pass", bits=32)
    p.load(2, R3, R7, 4)
    p.branch("jne", R3, int.from_bytes(mac[4:], sys.byteorder), "pass")


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
    _count(p, family)
    if edge is TC:
        _checksum_tc(p, edge, family, protocol, tag)
    else:
        _checksum(p, family.l4 + (16 if protocol == 6 else 6), _L4, tag, zero=protocol == 17)
    _rewrite(p, family, tag)
    if edge is TC:
        p.jump("out")
    else:
        _redirect(p)


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
        p.load(4, R4, R6, 0)
    else:
        p.mov(R4, R8)
        p.alu("sub", R4, R7, register=True)
    p.alu("sub", R4, 14)
    p.branch("jgt", R3, R4, "pass", register=True)


def _lookup(p: Program, family: Family, protocol: int, flows: int, ifindex: int) -> None:
    """R9 = the entry's value."""
    for off in range(0, 48, 8):
        p.store_immediate(8, R10, _KEY_AT + off, 0)
    for off in range(0, family.size, 4):
        p.load(4, R4, R7, family.source + off)
        p.store(4, R10, _KEY_AT + off, R4)
        p.load(4, R4, R7, family.source + family.size + off)
        p.store(4, R10, _KEY_AT + 16 + off, R4)
    p.load(4, R4, R7, family.l4)
    p.store(4, R10, _KEY_AT + 32, R4)
    p.store_immediate(4, R10, _KEY_AT + 36, ifindex)
    p.store_immediate(1, R10, _KEY_AT + 40, protocol)
    p.store_immediate(1, R10, _KEY_AT + 41, family.number)
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
    """Packets, bytes, time. R3 still holds the length."""
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
    for _ in range(2):
        p.mov(R4, R3)
        p.alu("rsh", R4, 16)
        p.alu("and", R3, 0xFFFF)
        p.alu("add", R3, R4, register=True)
    p.alu("xor", R3, 0xFFFF)
    if zero:
        p.branch("jne", R3, 0, f"{tag}-{at}-store")
        p.set(R3, 0xFFFF)
        p.label(f"{tag}-{at}-store")
    p.store(2, R7, at, R3)
    if zero:
        p.label(f"{tag}-{at}-done")


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
    _bounds(p, edge, family.l4 + 8)


def _rewrite(p: Program, family: Family, tag: str) -> None:
    """TTL, addresses, ports, link-layer addresses."""
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
    for off in range(0, 12, 4):
        p.load(4, R3, R9, _LINK + off)
        p.store(4, R7, off, R3)


def _sum(data: bytes) -> int:
    return sum(struct.unpack(f">{len(data) // 2}H", data))


def _complement(data: bytes) -> int:
    return sum(~word & 0xFFFF for word in struct.unpack(f">{len(data) // 2}H", data))


def _host(total: int) -> int:
    """Folded to 16 bits, in the machine's byte order."""
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return int.from_bytes(total.to_bytes(2, "big"), sys.byteorder)
