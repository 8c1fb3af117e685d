"""The mock NIC's stateless filters: a list for each port, executed frame by frame as the contract says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from userfw.core.packet import Packet
from userfw.offload.contract import Filter, Statistics
from userfw.offload.stateless import matches


class ChipFilters:
    """`ports`: the card's, by name. `broken`: keys of FieldMatch that this card cannot match."""

    def __init__(self, ports: Mapping[str, Any]) -> None:
        self.ports = ports
        self.broken: frozenset[str] = frozenset()
        self.lists: dict[str, tuple[Filter, ...]] = {}
        self.counters: dict[int, list[int]] = {}

    def __bool__(self) -> bool:
        return bool(self.lists)

    def replace(self, name: str, filters: Sequence[Filter], capacity: int) -> tuple[int, str] | None:
        """All filters of a port at once; which one the card cannot take, and why."""
        for at, item in enumerate(filters):
            lacking = [test.key for test in item.tests if test.key in self.broken]
            if lacking:
                return item.id, f"the card does not match {lacking[0]}"
            if capacity and at >= capacity:
                return item.id, "the card's table is full"
            for device, _ in (*item.copies, *((item.out,) if item.verdict == "forward" else ())):
                if device not in self.ports:
                    return item.id, f"{device} is no port of the card"
        for old in self.lists.pop(name, ()):
            self.counters.pop(old.id, None)
        if filters:
            self.lists[name] = tuple(filters)
            self.counters.update({item.id: [0, 0] for item in filters})
        return None

    def run(self, port: Any, pkt: Packet) -> Any:
        """The port that the frame left by, its own port if it was dropped, or None: up to the host."""
        rules = self.lists.get(port.device.name if port.device is not None else "")
        if not rules:
            return None
        frame = bytes(memoryview(pkt.data)[pkt.start : pkt.end])
        for item in rules:
            if not matches(item.tests, frame):
                continue
            counter = self.counters[item.id]
            counter[0] += 1
            counter[1] += len(frame) - 14
            for name, _ in item.copies:
                self._send(self.ports[name], frame)
            if item.verdict == "accept":
                return None
            if item.verdict == "drop":
                return port
            if item.verdict == "forward":
                out = self.ports[item.out[0]]
                tags = b"".join(protocol.to_bytes(2, "big") + tag.to_bytes(2, "big") for protocol, tag in item.tags)
                self._send(out, frame[:12] + tags + frame[12:])
                return out
        return None

    def _send(self, port: Any, frame: bytes) -> None:
        packet = Packet()
        packet.load_frame(frame)
        if port.wire.transmit(packet):
            port.hardware_dropped += 1
        port.flush_hardware()

    def statistics(self) -> list[Statistics]:
        """Totals of every filter."""
        return [Statistics(id, packets, octets, 0) for id, (packets, octets) in self.counters.items()]

    def clear(self) -> None:
        """Everything is forgotten."""
        self.lists.clear()
        self.counters.clear()
