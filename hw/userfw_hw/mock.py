"""A NIC in software: a switch chip between the wire and the host, which forwards what it was told to and hands up the rest.

It is the reference driver: every clause of userfw.offload.contract is tested on it. It can be small, lame, slow, stingy with
features, and it breaks on demand. Its rewrite works from the rule's actions alone, header field by header field, so that it
checks the flowtable's precomputed one. In the daemon, `[[nic]]` puts one between ports and the host.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from userfw.core.clock import Clock
from userfw.core.const import (
    HEADROOM,
    IPPROTO_TCP,
    IPPROTO_UDP,
    NFPROTO_IPV4,
    NFPROTO_IPV6,
    PACKET_HOST,
    TCP_FIN,
    TCP_RST,
    TCP_SYN,
    VNET_F_NEEDS_CSUM,
)
from userfw.core.packet import Device, Packet
from userfw.offload.contract import Actions, Capabilities, Done, Driver, Failure, Filter, Match, Refusal, Rule, Statistics, Target
from userfw.ports.base import IoPort
from userfw.wire.checksum import replace16, replace32
from userfw.wire.parse import parse_untrusted
from userfw_hw.chip_filters import ChipFilters

Key = tuple[str, int, bytes, bytes, int, int, tuple[tuple[int, int], ...]]


@dataclass(slots=True)
class Profile:
    """What kind of card this is. Times in nanoseconds: `latency` of an insertion, `counter_delay` by which counters lag behind,
    `idle` after which the card itself drops a rule (0: never)."""

    capabilities: Capabilities = field(default_factory=lambda: Capabilities(vlans=True, capacity=65536, where="mock"))
    latency: int = 0
    counter_delay: int = 0
    idle: int = 0


# The cards that tests ask for by name.
PROFILES: dict[str, Callable[[], Profile]] = {
    "full": Profile,
    "no-ipv6-nat": lambda: Profile(Capabilities(nat=frozenset({4}), vlans=True, capacity=65536, where="mock")),
    "tiny": lambda: Profile(Capabilities(vlans=True, capacity=64, where="mock")),
    "slow": lambda: Profile(latency=50_000_000, counter_delay=1_000_000_000),
}
FAILURES = {"unsupported": Failure.UNSUPPORTED, "full": Failure.FULL, "gone": Failure.GONE, "fault": Failure.FAULT}


@dataclass(slots=True)
class Slot:
    """One rule in the card and its counters; `shown` is what the host may read already, with the time it was taken."""

    rule: Rule
    done: Done
    packets: int = 0
    bytes: int = 0
    last_used: int = 0
    shown: tuple[int, int, int] = (0, 0, 0)
    shown_at: int = 0


class MockPort(IoPort):
    """The host's end of one port of the card. `wire` is the port on the cable; `host_frames` is what the host got to see."""

    def __init__(self, nic: MockNic, wire: IoPort) -> None:
        super().__init__(wire.name, "mock")
        self.nic = nic
        self.wire = wire
        self.fd = wire.fd
        self.queue = wire.queue
        self.host_frames = 0
        self.hardware_frames = 0
        self.hardware_dropped = 0
        self.chip_ns = 0

    def attach(self, device: Device) -> None:
        """The gateway's device of this port, of the wire as well."""
        super().attach(device)
        self.wire.attach(device)
        self.refused = self.wire.refused

    def receive(self, slots: list[Packet], budget: int) -> int:
        """What the card does not handle itself, in order; the rest has left by the other port when this returns."""
        if not self.nic.table and not self.nic.filters:
            got = self.wire.receive(slots, budget)
            self.dead = self.wire.dead
            self.host_frames += got
            return got
        began = time.thread_time_ns()
        got = self.wire.receive(slots, budget)
        self.dead = self.wire.dead
        kept = 0
        used: set[MockPort] = set()
        for i in range(got):
            out = self.nic.handle(self, slots[i])
            if out is None and self.nic.filters:
                out = self.nic.filters.run(self, slots[i])
            if out is None:
                slots[kept], slots[i] = slots[i], slots[kept]
                kept += 1
            else:
                used.add(out)
        for port in used:
            port.flush_hardware()
        self.host_frames += kept
        self.chip_ns += time.thread_time_ns() - began
        return kept

    def flush_hardware(self) -> None:
        """What the card itself forwarded leaves; what is refused is the card's to count."""
        self.wire.flush()
        self.hardware_dropped += len(self.refused)
        self.refused.clear()

    def rebind(self, link: Any) -> None:
        """As the wire's."""
        self.wire.rebind(link)  # type: ignore[attr-defined]

    def info(self) -> dict[str, Any]:
        """The wire's, and how many frames the host and the card handled."""
        return {
            **self.wire.info(),
            "nic": self.nic.label,
            "host_frames": self.host_frames,
            "hardware_frames": self.hardware_frames,
            "hardware_dropped": self.hardware_dropped,
            "chip_seconds": round(self.chip_ns / 1e9, 3),
        }

    def transmit(self, pkt: Packet) -> int:
        """From the host to the wire."""
        return self.wire.transmit(pkt)

    def flush(self) -> int:
        return self.wire.flush()

    def close(self) -> None:
        self.wire.close()
        self.fd = -1


class MockNic(Driver):
    """A card with any number of ports. `fail`: failures to answer the next installations with; `broken`: it refuses everything.

    `label`: what the configuration calls it. Where a device has several queues, `ports` holds the one that sends.
    """

    name = "mock"
    interval = 200_000_000

    def __init__(self, clock: Clock, profile: Profile | None = None, label: str = "mock") -> None:
        self.clock = clock
        self.label = label
        self.profile = profile if profile is not None else Profile()
        self.ports: dict[str, MockPort] = {}
        self.table: dict[Key, Slot] = {}
        self.by_id: dict[int, Key] = {}
        self.pending: list[tuple[int, Rule, Done]] = []
        self.fail: list[Failure] = []
        self.broken = False
        self._lost: list[str] = []
        self.filters = ChipFilters(self.ports)

    def attach(self, device: Device, wire: IoPort) -> MockPort:
        """Put the card between `device` and its wire."""
        port = MockPort(self, wire)
        port.attach(device)
        if not wire.queue:
            device.port = port
            self.ports[device.name] = port
        return port

    # The contract

    def probe(self, target: Target) -> Capabilities | Refusal:
        if target.name not in self.ports:
            return Refusal("not a port of the mock NIC")
        if self.broken:
            return Refusal("hw-tc-offload is off")
        return replace(self.profile.capabilities, ages=self.profile.idle)

    def describe(self, target: Target) -> dict[str, object]:
        port = self.ports[target.name]
        return {
            "because": f"it is a port of the NIC {self.label}",
            "host_frames": port.host_frames,
            "hardware_frames": port.hardware_frames,
            "hardware_dropped": port.hardware_dropped,
            "chip_seconds": round(port.chip_ns / 1e9, 3),
        }

    def install(self, rules: Sequence[Rule], done: Done) -> None:
        for rule in rules:
            if self.profile.latency:
                self.pending.append((self.clock.now + self.profile.latency, rule, done))
            else:
                self._insert(rule, done)

    def _insert(self, rule: Rule, done: Done) -> None:
        capabilities = self.profile.capabilities
        if self.fail:
            done(rule.id, self.fail.pop(0))
        elif capabilities.lacks(rule) or rule.actions.device not in self.ports:
            done(rule.id, Failure.UNSUPPORTED)
        elif capabilities.capacity and len(self.table) >= capabilities.capacity:
            done(rule.id, Failure.FULL)
        else:
            key = _key(rule.match)
            self.table[key] = Slot(rule, done, last_used=self.clock.now)
            self.by_id[rule.id] = key
            done(rule.id, None)

    def remove(self, ids: Iterable[int]) -> list[Statistics]:
        gone = set(ids)
        self.pending = [entry for entry in self.pending if entry[1].id not in gone]
        final = []
        for id in gone:
            key = self.by_id.pop(id, None)
            slot = self.table.get(key) if key is not None else None
            if slot is not None and slot.rule.id == id:
                del self.table[_key(slot.rule.match)]
                final.append(Statistics(id, slot.packets, slot.bytes, slot.last_used))
        return final

    def statistics(self) -> list[Statistics]:
        now, delay = self.clock.now, self.profile.counter_delay
        records = []
        for slot in self.table.values():
            if not delay or now - slot.shown_at >= delay:
                slot.shown, slot.shown_at = (slot.packets, slot.bytes, slot.last_used), now
            records.append(Statistics(slot.rule.id, *slot.shown))
        return records

    def set_filters(self, target: Target, filters: Sequence[Filter]) -> tuple[int, str] | None:
        return self.filters.replace(target.name, filters, self.profile.capabilities.capacity)

    def filter_statistics(self) -> list[Statistics]:
        return self.filters.statistics()

    def poll(self, now: int, lost: Callable[[str], None]) -> None:
        due = [entry for entry in self.pending if entry[0] <= now]
        self.pending = [entry for entry in self.pending if entry[0] > now]
        for _, rule, done in due:
            self._insert(rule, done)
        if self.profile.idle:
            for slot in [slot for slot in self.table.values() if now - slot.last_used > self.profile.idle]:
                if slot.rule.id in self.by_id:
                    slot.done(slot.rule.id, Failure.IDLE)
                    self.remove([slot.rule.id])
        names, self._lost = self._lost, []
        for name in names:
            lost(name)

    def reset(self) -> None:
        """The card forgets everything, as after a firmware restart; the host learns of it at the next poll."""
        self.table.clear()
        self.by_id.clear()
        self.pending.clear()
        self.filters.clear()
        self._lost = list(self.ports)

    def release(self, target: Target) -> None:
        self.filters.replace(target.name, (), 0)

    def close(self) -> None:
        self.table.clear()
        self.by_id.clear()
        self.pending.clear()
        self.filters.clear()

    # The chip

    def handle(self, port: MockPort, pkt: Packet) -> MockPort | None:
        """The port that the frame left by, or None: the host must see it, untouched."""
        if not self.table or parse_untrusted(pkt) or not pkt.has_l4 or pkt.is_fragment:
            return None
        slot = self.table.get(self._read(port, pkt)) if _plain(pkt) else None
        if slot is None or (pkt.pkttype != PACKET_HOST and _destination(pkt) != slot.rule.match.ethernet):
            return None
        length = _network_length(pkt)
        actions = slot.rule.actions
        if _segment(pkt, length) > actions.mtu:
            return None
        slot.packets += 1
        slot.bytes += length
        slot.last_used = self.clock.now
        pkt.end = pkt.l3 + length
        _rewrite(pkt, actions)
        _link(pkt, actions)
        out = self.ports[actions.device]
        if out.wire.transmit(pkt):
            out.hardware_dropped += 1
        port.hardware_frames += 1
        return out

    def _read(self, port: MockPort, pkt: Packet) -> Key:
        at, size = (pkt.l3 + 12, 4) if pkt.nfproto == NFPROTO_IPV4 else (pkt.l3 + 8, 16)
        data: Any = pkt.data
        tags = tuple((pkt.get16(off), pkt.get16(off + 2) & 0xFFF) for off in range(pkt.start + 12, pkt.l3 - 2, 4))
        return (
            port.device.name if port.device is not None else "",
            pkt.l4proto,
            bytes(data[at : at + size]),
            bytes(data[at + size : at + 2 * size]),
            pkt.get16(pkt.l4),
            pkt.get16(pkt.l4 + 2),
            tags,
        )


def _key(match: Match) -> Key:
    return (
        match.device,
        match.protocol,
        match.source,
        match.destination,
        match.source_port,
        match.destination_port,
        match.vlans,
    )


def _destination(pkt: Packet) -> bytes:
    """The Ethernet address that the frame is for."""
    return bytes(memoryview(pkt.data)[pkt.start : pkt.start + 6])


def _plain(pkt: Packet) -> bool:
    """Nothing about the headers that a chip would leave to the host."""
    if pkt.nfproto == NFPROTO_IPV4:
        if pkt.l4 - pkt.l3 != 20 or pkt.get8(pkt.l3 + 8) <= 1:
            return False
    elif pkt.nfproto != NFPROTO_IPV6 or pkt.l4 - pkt.l3 != 40 or pkt.get8(pkt.l3 + 7) <= 1:
        return False
    length = _network_length(pkt)
    if pkt.l4proto == IPPROTO_TCP:
        return length >= pkt.l4 - pkt.l3 + 20 and not pkt.get8(pkt.l4 + 13) & (TCP_FIN | TCP_RST | TCP_SYN)
    return pkt.l4proto == IPPROTO_UDP and length >= pkt.l4 - pkt.l3 + 8


def _network_length(pkt: Packet) -> int:
    return pkt.get16(pkt.l3 + 2) if pkt.nfproto == NFPROTO_IPV4 else 40 + pkt.get16(pkt.l3 + 4)


def _segment(pkt: Packet, length: int) -> int:
    """Bytes of the network layer of the longest frame that this packet is on a wire."""
    if not pkt.gso_size:
        return length
    header = (pkt.get8(pkt.l4 + 12) >> 4) * 4 if pkt.l4proto == IPPROTO_TCP else 8
    return pkt.l4 - pkt.l3 + header + pkt.gso_size


def _rewrite(pkt: Packet, actions: Actions) -> None:
    """TTL, addresses, ports; each word's change goes into the checksums that cover it."""
    four = pkt.nfproto == NFPROTO_IPV4
    check = pkt.l4 + (16 if pkt.l4proto == IPPROTO_TCP else 6)
    partial = bool(pkt.vnet_flags & VNET_F_NEEDS_CSUM)
    sums = partial or pkt.l4proto == IPPROTO_TCP or pkt.get16(check) != 0
    if four:
        ttl = pkt.get16(pkt.l3 + 8)
        pkt.put8(pkt.l3 + 8, (ttl >> 8) - 1)
        replace16(pkt, pkt.l3 + 10, ttl, ttl - 0x100)
    else:
        pkt.put8(pkt.l3 + 7, pkt.get8(pkt.l3 + 7) - 1)
    at = pkt.l3 + (12 if four else 8)
    new = actions.source + actions.destination
    for off in range(0, len(new), 4):
        old, value = pkt.get32(at + off), int.from_bytes(new[off : off + 4], "big")
        pkt.put32(at + off, value)
        if four:
            replace32(pkt, pkt.l3 + 10, old, value)
        if sums:
            _replace(pkt, check, old, value, partial)
    ports = (actions.source_port << 16) | actions.destination_port
    old = pkt.get32(pkt.l4)
    pkt.put32(pkt.l4, ports)
    if sums and not partial:
        replace32(pkt, check, old, ports)
        if pkt.l4proto == IPPROTO_UDP and pkt.get16(check) == 0:
            pkt.put16(check, 0xFFFF)


def _replace(pkt: Packet, check: int, old: int, new: int, partial: bool) -> None:
    """A partial checksum is the plain sum of the pseudo-header; a whole one is complemented."""
    if partial:
        pkt.put16(check, ~pkt.get16(check) & 0xFFFF)
    replace32(pkt, check, old, new)
    if partial:
        pkt.put16(check, ~pkt.get16(check) & 0xFFFF)


def _link(pkt: Packet, actions: Actions) -> None:
    """A new link-layer header in front of the network header, with the tags of the way out."""
    kind = 0x0800 if pkt.nfproto == NFPROTO_IPV4 else 0x86DD
    header = actions.ethernet_destination + actions.ethernet_source
    for protocol, tag in actions.vlans:
        header += protocol.to_bytes(2, "big") + tag.to_bytes(2, "big")
    header += kind.to_bytes(2, "big")
    start = pkt.l3 - len(header)
    assert start >= HEADROOM - 64
    if pkt.vnet_flags & VNET_F_NEEDS_CSUM:
        pkt.csum_start += pkt.start - start
    pkt.data[start : pkt.l3] = header
    pkt.start = start


def make(options: Mapping[str, Any]) -> list[Driver]:
    """The cards of the configuration, as userfw.offload.drivers asks for them."""
    return list(options.get("nics", ()))


def open_card(clock: Clock, label: str, profile: str, **settings: Any) -> MockNic:
    """A card of `[[nic]]`: a profile by name; `latency`, `counter_delay`, `idle` (ns) and `capacity` instead of its own where
    given; `fail`: names of FAILURES for the first installations."""
    made = PROFILES[profile]()
    for name in ("latency", "counter_delay", "idle"):
        if settings.get(name) is not None:
            setattr(made, name, settings[name])
    if settings.get("capacity") is not None:
        made.capabilities = replace(made.capabilities, capacity=settings["capacity"])
    made.capabilities = replace(made.capabilities, where=f"NIC {label}")
    card = MockNic(clock, made, label)
    card.fail = [FAILURES[name] for name in settings.get("fail", ())]
    return card
