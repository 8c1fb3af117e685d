"""Rules of netdev ingress chains with `flags offload` as filters that any device can take (Linux: nf_tables_offload.c).

The same restrictions as nft_flow_rule_create: payload loads of the fields below, `meta protocol`, `l4proto`, `iif` and `iiftype`,
masks, comparisons for equality, counters; then accept, drop, fwd or dup to a device. Anything else makes the rule one that cannot.

`matches` says what a filter means: the mock NIC executes it, and a test holds it against the engine.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from userfw.engine.expressions.bitwise import Bitwise
from userfw.engine.expressions.cmp import Cmp
from userfw.engine.expressions.counter import Counter
from userfw.engine.expressions.dup import Dup, Fwd
from userfw.engine.expressions.immediate import VERDICT_NAMES, Immediate, ImmediateVerdict
from userfw.engine.expressions.meta import META_KEYS, Meta
from userfw.engine.expressions.payload import BASE_NAMES, Payload
from userfw.offload.contract import FieldMatch, Filter

ETH_P_IP, ETH_P_IPV6 = b"\x08\x00", b"\x86\xdd"
TAGS: Final = (b"\x81\x00", b"\x88\xa8")
TCP, UDP = b"\x06", b"\x11"
META_NAMES: Final = {number: name for name, (number, _) in META_KEYS.items()}

# (header, offset) of a field: its key and size; network fields by EtherType, transport fields by protocol.
LINK: Final = {0: ("eth_dst", 6), 6: ("eth_src", 6), 12: ("eth_type", 2), 14: ("vlan_id", 2), 16: ("protocol", 2)}
NETWORK: Final = {
    ETH_P_IP: {9: ("ip_proto", 1), 12: ("ipv4_src", 4), 16: ("ipv4_dst", 4)},
    ETH_P_IPV6: {8: ("ipv6_src", 16), 24: ("ipv6_dst", 16)},
}
TRANSPORT: Final = {
    TCP: {0: ("tcp_sport", 2), 2: ("tcp_dport", 2)},
    UDP: {0: ("udp_sport", 2), 2: ("udp_dport", 2)},
}


Tags = tuple[tuple[int, int], ...]


class Unliftable(Exception):
    """A rule that hardware filters cannot express; the words say which part."""


@dataclass(slots=True)
class Loaded:
    """What stands in a register: a field, or a constant, or a fact of the device that is compared at once."""

    key: str = ""
    size: int = 0
    length: int = 0
    mask: bytes = b""
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class Lowered:
    """A rule as a filter without its number; `counter` is the rule's own, `possible` whether it can match on the device at all."""

    tests: tuple[FieldMatch, ...]
    verdict: str
    out: int = 0
    copies: tuple[int, ...] = ()
    counter: Counter | None = None
    possible: bool = True

    def filter(self, id: int, device: Callable[[int], tuple[str, int, Tags]]) -> Filter:
        """With its number, and devices (and the tags they put on) as the driver knows them. Unliftable."""
        name, index, tags = device(self.out) if self.verdict == "forward" else ("", 0, ())
        copies = [device(number) for number in self.copies]
        if any(pushed for _, _, pushed in copies):
            raise Unliftable("`dup` to a VLAN device has no hardware form")
        return Filter(id, self.tests, self.verdict, (name, index), tuple((to, number) for to, number, _ in copies), tags)


class Lifter:
    """Walks a rule's expressions, keeping what each register holds. `index`: the device's number, for `iif`."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.registers: dict[int, Loaded] = {}
        self.tests: dict[str, FieldMatch] = {}
        self.counter: Counter | None = None
        self.copies: list[int] = []
        self.verdict = ""
        self.out = 0
        self.possible = True

    def lift(self, exprs: Iterable[Any]) -> Lowered:
        """The whole rule. Unliftable."""
        for expr in exprs:
            if self.verdict:
                raise Unliftable("nothing may follow the verdict")
            step = _STEPS.get(type(expr))
            if step is None:
                raise Unliftable(f"`{expr.kind}` has no hardware form")
            step(self, expr)
        if not self.verdict and not self.copies:
            raise Unliftable("it has no verdict, fwd or dup")
        verdict = self.verdict or "continue"
        return Lowered(tuple(self.tests.values()), verdict, self.out, tuple(self.copies), self.counter, self.possible)

    def payload(self, expr: Payload) -> None:
        """A field, from its first byte on."""
        base = BASE_NAMES[expr.base]
        fields: dict[int, tuple[str, int]] = {}
        if base == "link":
            fields = LINK
        elif base == "network":
            kind = self.tests.get("protocol") or self.tests.get("eth_type")
            fields = NETWORK.get(kind.value, {}) if kind is not None and kind.exact else {}
        elif base == "transport":
            protocol = self.tests.get("ip_proto")
            fields = TRANSPORT.get(protocol.value, {}) if protocol is not None else {}
        key, size = fields.get(expr.offset, ("", 0))
        if not key or expr.length > size:
            raise Unliftable(f"{expr.length} bytes at {base} header + {expr.offset} are no field that hardware matches")
        if base == "link" and expr.offset in (14, 16) and not self._tagged():
            raise Unliftable("a tag is matched without the frame's EtherType")
        self.registers[expr.dreg] = Loaded(key, size, expr.length, b"\xff" * expr.length)

    def _tagged(self) -> bool:
        test = self.tests.get("eth_type")
        return test is not None and test.value in TAGS

    def meta(self, expr: Meta) -> None:
        """protocol, l4proto, iif, iiftype."""
        name = META_NAMES[expr.key]
        known = {"protocol": ("protocol", 2), "l4proto": ("ip_proto", 1), "iif": ("iif", 4), "iiftype": ("iiftype", 2)}
        if name not in known:
            raise Unliftable(f"`meta {name}` has no hardware form")
        key, size = known[name]
        self.registers[expr.dreg] = Loaded(key, size, size, b"\xff" * size)

    def bitwise(self, expr: Bitwise) -> None:
        """A mask, in place."""
        loaded = self.registers.get(expr.sreg)
        if loaded is None or not loaded.key or any(expr.xor) or expr.sreg != expr.dreg or expr.length != loaded.length:
            raise Unliftable("this bit operation has no hardware form")
        loaded.mask = bytes(a & b for a, b in zip(loaded.mask, expr.mask, strict=True))

    def compare(self, expr: Cmp) -> None:
        """Equality; what a field is compared to twice must agree."""
        loaded = self.registers.get(expr.sreg)
        if loaded is None or not loaded.key:
            raise Unliftable("something is compared that is no field")
        if expr.op != 0:
            raise Unliftable("hardware compares for equality only")
        if loaded.key in ("iif", "iiftype"):
            wanted = self.index if loaded.key == "iif" else 1  # ARPHRD_ETHER
            self.possible &= int.from_bytes(expr.data, _NATIVE) == wanted
            return
        length = min(loaded.length, expr.length)
        if expr.length > loaded.length:
            raise Unliftable("more is compared than was loaded")
        value = expr.data[:length].ljust(loaded.size, b"\0")
        mask = loaded.mask[:length].ljust(loaded.size, b"\0")
        if loaded.key == "vlan_id" and mask != b"\x0f\xff":
            raise Unliftable("of a tag only the id is matched")
        if loaded.key == "protocol" and value in TAGS:
            raise Unliftable("a tag behind a tag is not matched")
        test = FieldMatch(loaded.key, value, mask)
        before = self.tests.get(loaded.key)
        if before is not None and before != test:
            raise Unliftable(f"{loaded.key} is compared twice")
        self.tests[loaded.key] = test

    def immediate(self, expr: Immediate) -> None:
        """A device's number, for fwd or dup."""
        self.registers[expr.dreg] = Loaded(data=expr.data)

    def verdict_of(self, expr: ImmediateVerdict) -> None:
        """accept or drop."""
        name = VERDICT_NAMES[expr.code]
        if name not in ("accept", "drop"):
            raise Unliftable(f"`{name}` has no hardware form")
        self.verdict = name

    def forward(self, expr: Fwd) -> None:
        """Out of a device."""
        if expr.addr_reg >= 0:
            raise Unliftable("`fwd` to a neighbour has no hardware form")
        self.verdict, self.out = "forward", self._device(expr.dev_reg)

    def copy(self, expr: Dup) -> None:
        """A copy out of a device."""
        if expr.addr_reg >= 0:
            raise Unliftable("`dup` to a gateway has no hardware form")
        self.copies.append(self._device(expr.dev_reg))

    def _device(self, register: int) -> int:
        loaded = self.registers.get(register)
        if loaded is None or len(loaded.data) != 4:
            raise Unliftable("the device is not a constant")
        return int.from_bytes(loaded.data, _NATIVE)

    def count(self, expr: Counter) -> None:
        """One for the rule."""
        if self.counter is not None:
            raise Unliftable("hardware counts a rule once")
        self.counter = expr


_NATIVE: Final = sys.byteorder
_STEPS: Final[dict[type, Callable[[Lifter, Any], None]]] = {
    Payload: Lifter.payload,
    Meta: Lifter.meta,
    Bitwise: Lifter.bitwise,
    Cmp: Lifter.compare,
    Immediate: Lifter.immediate,
    ImmediateVerdict: Lifter.verdict_of,
    Fwd: Lifter.forward,
    Dup: Lifter.copy,
    Counter: Lifter.count,
}


def matches(tests: Iterable[FieldMatch], frame: bytes | memoryview) -> bool:
    """Whether a frame, from its Ethernet header on, passes all tests; a field that it does not have passes none."""
    fields = fields_untrusted(bytes(frame))
    for test in tests:
        value = fields.get(test.key)
        if value is None or len(value) != len(test.mask):
            return False
        if any((a ^ b) & mask for a, b, mask in zip(value, test.value, test.mask, strict=True)):
            return False
    return True


def fields_untrusted(frame: bytes) -> dict[str, bytes]:
    """The fields of `FieldMatch.key` that a frame has."""
    if len(frame) < 14:
        return {}
    fields = {"eth_dst": frame[:6], "eth_src": frame[6:12], "eth_type": frame[12:14], "protocol": frame[12:14]}
    at = 14
    if frame[12:14] in TAGS and len(frame) >= 18:
        fields["vlan_id"] = bytes((frame[14] & 0x0F, frame[15]))
        fields["protocol"] = frame[16:18]
        at = 18
    packet = frame[at:]
    if fields["protocol"] == ETH_P_IP and len(packet) >= 20 and packet[0] >> 4 == 4:
        fields |= {"ip_proto": packet[9:10], "ipv4_src": packet[12:16], "ipv4_dst": packet[16:20]}
        transport = (packet[0] & 15) * 4 if packet[0] & 15 >= 5 and not int.from_bytes(packet[6:8], "big") & 0x3FFF else -1
    elif fields["protocol"] == ETH_P_IPV6 and len(packet) >= 40 and packet[0] >> 4 == 6:
        fields |= {"ipv6_src": packet[8:24], "ipv6_dst": packet[24:40]}
        fields["ip_proto"], transport = _last_header_untrusted(packet)
    else:
        return fields
    if transport > 0 and fields["ip_proto"] in (TCP, UDP) and len(packet) >= transport + 4:
        name = "tcp" if fields["ip_proto"] == TCP else "udp"
        fields[f"{name}_sport"] = packet[transport : transport + 2]
        fields[f"{name}_dport"] = packet[transport + 2 : transport + 4]
    return fields


def _last_header_untrusted(packet: bytes) -> tuple[bytes, int]:
    """The protocol behind IPv6 extension headers and where its header is; -1 in fragments."""
    kind, at = packet[6:7], 40
    while kind in (b"\x00", b"\x2b", b"\x3c", b"\x2c") and at + 8 <= len(packet):
        if kind == b"\x2c":
            return packet[at : at + 1], -1
        kind, at = packet[at : at + 1], at + (packet[at + 1] + 1) * 8
    return kind, at
