"""Stateless filters as eBPF: straight-line code for one list, which a frame passes before its flow is looked up.

First every field that filters know is copied to the stack, as `offload.stateless.fields_untrusted` finds them, with R9 saying which
a frame has; then each filter compares constants with them. Nothing of the frame is changed or moved.

- Each filter counts for itself, packets and bytes of the network layer, tags left out (Linux: skb->len at netdev ingress).
- tc reads by a helper, for headers need not be in the linear part, and finds the outer tag beside the frame; XDP reads directly.
- Of IPv6 extension headers HEADERS are passed; a frame with more has no ports, and its protocol is that of the next one.
- A list belongs to one program: a new one is a new program with counters of its own, linked in the place of the old.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator, Sequence
from typing import Final

from userfw.offload.contract import FieldMatch, Filter, Statistics
from userfw.ports import bpf as syscall
from userfw.ports.assembler import R0, R1, R2, R3, R4, R6, R7, R8, R9, R10, Program
from userfw_hw.bpf.edges import TC, XDP, Edge

HEADERS: Final = 16
# A jump reaches 32767 instructions; the flow lookup behind the filters needs some of them.
LIMIT: Final = 30_000

_LOOKUP, _CLONE_REDIRECT, _VLAN_PUSH, _REDIRECT, _SKB_LOAD_BYTES = 1, 13, 18, 23, 26
# On the stack; what is above -64 is left to the flow lookup.
_ETHERNET, _NETWORK, _VLAN, _PROTOCOL, _PORTS, _LAST, _EXTENSION, _ZERO, _MARK = -80, -120, -128, -126, -124, -136, -144, -152, -148
# Which fields a frame has, in R9. _INLINE is 4: the bytes of a tag that stands in the frame.
_TAGGED, _IPV4, _INLINE, _IPV6, _TCP, _UDP = 1, 2, 4, 8, 16, 32

# Where a field is, and what a frame must have for it; "ip_proto" needs either of the two.
FIELDS: Final = {
    "eth_dst": (_ETHERNET, 0),
    "eth_src": (_ETHERNET + 6, 0),
    "eth_type": (_ETHERNET + 12, 0),
    "vlan_id": (_VLAN, _TAGGED),
    "protocol": (_PROTOCOL, 0),
    "ip_proto": (_LAST, 0),
    "ipv4_src": (_NETWORK + 12, _IPV4),
    "ipv4_dst": (_NETWORK + 16, _IPV4),
    "ipv6_src": (_NETWORK + 8, _IPV6),
    "ipv6_dst": (_NETWORK + 24, _IPV6),
    "tcp_sport": (_PORTS, _TCP),
    "tcp_dport": (_PORTS + 2, _TCP),
    "udp_sport": (_PORTS, _UDP),
    "udp_dport": (_PORTS + 2, _UDP),
}


class FilterList:
    """Filters of one device with their counters, an array's only value. `mark`: for what tc sends. OSError: no memory."""

    def __init__(self, filters: Sequence[Filter], mark: int = 0) -> None:
        self.filters = tuple(filters)
        self.mark = mark
        self.counters = syscall.Map(syscall.MAP_TYPE_ARRAY, 4, 16 * max(1, len(self.filters)), 1, "userfw_filters")

    def statistics(self) -> list[Statistics]:
        """Totals of every filter; nothing after `close`."""
        data = self.counters.get(bytes(4)) if self.counters.fd >= 0 else None
        if data is None:
            return []
        totals = zip(self.filters, struct.iter_unpack("=QQ", data), strict=True)
        return [Statistics(item.id, packets, octets, 0) for item, (packets, octets) in totals]

    def close(self) -> None:
        """Give the counters back; a program that is still in place goes on counting into them."""
        self.counters.close()

    def emit(self, p: Program, edge: Edge) -> None:
        """The code; R6 is the context. Frames that go on to the host arrive behind it, those of `accept` too."""
        _dissect(p, edge)
        for at, item in enumerate(self.filters):
            self._filter(p, edge, at, item)
        p.label("filtered")

    def too_long(self, edge: Edge) -> Filter | None:
        """The first filter that a program has no room for."""
        p = Program()
        _dissect(p, edge)
        for at, item in enumerate(self.filters):
            self._filter(p, edge, at, item)
            if len(p) > LIMIT:
                return item
        return None

    def _filter(self, p: Program, edge: Edge, at: int, item: Filter) -> None:
        following = f"filter-{at}-not"
        if not item.tests:
            p.branch("jgt", R9, 0xFFFF, following)  # never; without it the verifier calls what follows unreachable
        _present(p, item.tests, following)
        for test in item.tests:
            _compare(p, test, following)
        self._count(p, edge, at)
        for _, index in item.copies:
            self._copy(p, index)
        if item.verdict == "accept":
            p.jump("filtered")
        elif item.verdict == "drop":
            p.set(R0, edge.dropped)
            p.exit()
        elif item.verdict == "forward":
            if edge is TC:
                p.set(R2, self.mark)
                p.store(4, R6, 8, R2)
            for protocol, tag in reversed(item.tags):
                p.mov(R1, R6)
                p.set(R2, int.from_bytes(protocol.to_bytes(2, "big"), sys.byteorder))
                p.set(R3, tag)
                p.call(_VLAN_PUSH)
            p.set(R1, item.out[1])
            p.set(R2, 0)
            p.call(_REDIRECT)
            p.exit()
        p.label(following)

    def _count(self, p: Program, edge: Edge, at: int) -> None:
        p.store_immediate(4, R10, _ZERO, 0)
        p.map(R1, self.counters.fd)
        p.mov(R2, R10)
        p.alu("add", R2, _ZERO)
        p.call(_LOOKUP)
        p.branch("jeq", R0, 0, f"filter-{at}-counted")
        if edge is TC:
            p.load(4, R3, R6, 0)  # len
        else:
            p.load(4, R3, R6, edge.data_end)
            p.load(4, R2, R6, edge.data)
            p.alu("sub", R3, R2, register=True)
        p.alu("sub", R3, 14)
        p.mov(R2, R9)
        p.alu("and", R2, _INLINE)
        p.alu("sub", R3, R2, register=True)
        p.alu("add", R0, 16 * at)
        p.atomic_add(8, R0, 8, R3)
        p.set(R3, 1)
        p.atomic_add(8, R0, 0, R3)
        p.label(f"filter-{at}-counted")

    def _copy(self, p: Program, index: int) -> None:
        """A clone out of a device; only the clone carries the mark. tc only."""
        p.load(4, R2, R6, 8)
        p.store(4, R10, _MARK, R2)
        p.set(R2, self.mark)
        p.store(4, R6, 8, R2)
        p.mov(R1, R6)
        p.set(R2, index)
        p.set(R3, 0)
        p.call(_CLONE_REDIRECT)
        p.load(4, R2, R10, _MARK)
        p.store(4, R6, 8, R2)


def _present(p: Program, tests: Sequence[FieldMatch], otherwise: str) -> None:
    """The frame has the fields that are to be compared."""
    needed = 0
    for test in tests:
        needed |= FIELDS[test.key][1]
    if needed:
        p.mov(R2, R9)
        p.alu("and", R2, needed)
        p.branch("jne", R2, needed, otherwise)
    if any(test.key == "ip_proto" for test in tests) and not needed & (_IPV4 | _IPV6 | _TCP | _UDP):
        p.mov(R2, R9)
        p.alu("and", R2, _IPV4 | _IPV6)
        p.branch("jeq", R2, 0, otherwise)


def _compare(p: Program, test: FieldMatch, otherwise: str) -> None:
    offset = FIELDS[test.key][0]
    for at, size in _pieces(offset, len(test.value)):
        mask, value = (int.from_bytes(data[at - offset :][:size], sys.byteorder) for data in (test.mask, test.value))
        if not mask:
            continue
        p.load(size, R2, R10, at)
        if mask != (1 << 8 * size) - 1:
            p.alu("and", R2, mask, bits=32)
        p.branch("jne", R2, value & mask, otherwise, bits=32)


def _pieces(offset: int, length: int) -> Iterator[tuple[int, int]]:
    """Aligned loads that make up a field: (offset, size)."""
    end = offset + length
    while offset < end:
        size = next(size for size in (4, 2, 1) if offset % size == 0 and offset + size <= end)
        yield offset, size
        offset += size


def _dissect(p: Program, edge: Edge) -> None:
    """Copy the fields, R9 = those there are. R7 walks along: at XDP the header's address, at tc its offset."""
    for at in range(_EXTENSION, _ETHERNET + 16, 8):
        p.store_immediate(8, R10, at, 0)
    p.set(R9, 0)
    if edge is XDP:
        p.load(4, R7, R6, edge.data)
        p.load(4, R8, R6, edge.data_end)
    else:
        p.set(R7, 0)
    _fetch(p, edge, 14, _ETHERNET, "dissected")
    p.alu("add", R7, 14)
    _tag(p, edge)
    p.load(2, R3, R10, _PROTOCOL)
    p.branch("jeq", R3, _wire(0x0800), "is-ipv4")
    p.branch("jeq", R3, _wire(0x86DD), "is-ipv6")
    p.jump("dissected")
    _ipv4(p, edge)
    _ipv6(p, edge)
    p.label("transport")
    p.load(1, R3, R10, _LAST)
    p.branch("jeq", R3, 6, "has-ports")
    p.branch("jne", R3, 17, "dissected")
    p.label("has-ports")
    _fetch(p, edge, 4, _PORTS, "dissected")
    p.load(1, R3, R10, _LAST)
    p.branch("jeq", R3, 6, "is-tcp")
    p.alu("or", R9, _UDP)
    p.jump("dissected")
    p.label("is-tcp")
    p.alu("or", R9, _TCP)
    p.label("dissected")


def _fetch(p: Program, edge: Edge, size: int, at: int, otherwise: str) -> None:
    """`size` bytes from R7 on to the stack. R1 to R5 are lost."""
    if edge is TC:
        p.mov(R1, R6)
        p.mov(R2, R7)
        p.mov(R3, R10)
        p.alu("add", R3, at)
        p.set(R4, size)
        p.call(_SKB_LOAD_BYTES)
        p.branch("jne", R0, 0, otherwise)
        return
    p.mov(R2, R7)
    p.alu("add", R2, size)
    p.branch("jgt", R2, R8, otherwise, register=True)
    for offset, piece in _pieces(0, size):
        p.load(piece, R2, R7, offset)
        p.store(piece, R10, at + offset, R2)


def _tag(p: Program, edge: Edge) -> None:
    """One tag, beside the frame or in it, and the EtherType behind it."""
    p.load(2, R3, R10, _ETHERNET + 12)
    p.store(2, R10, _PROTOCOL, R3)
    if edge is TC:
        p.load(4, R2, R6, 20)  # vlan_present
        p.branch("jeq", R2, 0, "no-tag-beside")
        p.load(4, R2, R6, 28)  # vlan_proto, as on the wire
        p.store(2, R10, _ETHERNET + 12, R2)
        p.load(4, R2, R6, 24)  # vlan_tci
        p.alu("and", R2, 0xFFF)
        p.swap(R2, 16)
        p.store(2, R10, _VLAN, R2)
        p.alu("or", R9, _TAGGED)
        p.jump("network")
        p.label("no-tag-beside")
    p.branch("jeq", R3, _wire(0x8100), "tag-inside")
    p.branch("jne", R3, _wire(0x88A8), "network")
    p.label("tag-inside")
    _fetch(p, edge, 4, _EXTENSION, "network")
    p.load(2, R2, R10, _EXTENSION)
    p.alu("and", R2, _wire(0x0FFF))
    p.store(2, R10, _VLAN, R2)
    p.load(2, R2, R10, _EXTENSION + 2)
    p.store(2, R10, _PROTOCOL, R2)
    p.alu("or", R9, _TAGGED | _INLINE)
    p.alu("add", R7, 4)
    p.label("network")


def _ipv4(p: Program, edge: Edge) -> None:
    p.label("is-ipv4")
    _fetch(p, edge, 20, _NETWORK, "dissected")
    p.load(1, R2, R10, _NETWORK)
    p.mov(R3, R2)
    p.alu("rsh", R3, 4)
    p.branch("jne", R3, 4, "dissected")
    p.alu("or", R9, _IPV4)
    p.load(1, R3, R10, _NETWORK + 9)
    p.store(1, R10, _LAST, R3)
    p.load(2, R3, R10, _NETWORK + 6)
    p.alu("and", R3, _wire(0x3FFF))  # more fragments, offset
    p.branch("jne", R3, 0, "dissected")
    p.alu("and", R2, 15)
    p.branch("jlt", R2, 5, "dissected")
    p.alu("lsh", R2, 2)
    p.alu("add", R7, R2, register=True)
    p.jump("transport")


def _ipv6(p: Program, edge: Edge) -> None:
    p.label("is-ipv6")
    _fetch(p, edge, 40, _NETWORK, "dissected")
    p.load(1, R2, R10, _NETWORK)
    p.alu("rsh", R2, 4)
    p.branch("jne", R2, 6, "dissected")
    p.alu("or", R9, _IPV6)
    p.alu("add", R7, 40)
    p.load(1, R3, R10, _NETWORK + 6)
    for number in range(HEADERS):
        p.store(1, R10, _LAST, R3)
        p.branch("jeq", R3, 44, "fragment")
        for kind in (0, 43, 60):
            p.branch("jeq", R3, kind, f"extension-{number}")
        p.jump("transport")
        p.label(f"extension-{number}")
        _fetch(p, edge, 8, _EXTENSION, "dissected")
        p.load(1, R3, R10, _EXTENSION)
        p.load(1, R2, R10, _EXTENSION + 1)
        p.alu("add", R2, 1)
        p.alu("lsh", R2, 3)
        p.alu("add", R7, R2, register=True)
    p.store(1, R10, _LAST, R3)
    p.jump("transport")
    p.label("fragment")
    _fetch(p, edge, 8, _EXTENSION, "dissected")
    p.load(1, R3, R10, _EXTENSION)
    p.store(1, R10, _LAST, R3)
    p.jump("dissected")


def _wire(number: int) -> int:
    """A 16-bit number in network order, as it is loaded."""
    return int.from_bytes(number.to_bytes(2, "big"), sys.byteorder)
