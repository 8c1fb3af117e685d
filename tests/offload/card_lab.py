"""A software card whose ports are cables of a test: what the labs of this room have in common, on a manual clock."""

from __future__ import annotations

from collections.abc import Mapping

from userfw_hw.mock import PROFILES, MockNic

from userfw.core.clock import Clock
from userfw.core.packet import Device, Packet
from userfw.ports.base import IoPort

SECOND = 1_000_000_000
MACS = {"lan": "02:00:00:00:01:01", "wan": "02:00:00:00:02:01"}


def raw(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


class Wire(IoPort):
    """A cable: frames put in `arriving` come in, frames sent go to `left`."""

    def __init__(self, name: str) -> None:
        super().__init__(name, "wire")
        self.arriving: list[bytes] = []
        self.left: list[bytes] = []

    def receive(self, slots: list[Packet], budget: int) -> int:
        n = min(len(self.arriving), budget)
        for i in range(n):
            slots[i].load_frame(self.arriving.pop(0))
            slots[i].iif = self.device
        return n

    def transmit(self, pkt: Packet) -> int:
        self.left.append(pkt.frame())
        return 0


class CardLab:
    """A card with a port for each of `macs`, numbered from 2 on."""

    def __init__(self, profile: str = "full", macs: Mapping[str, str] = MACS) -> None:
        self.clock = Clock(1000 * SECOND)
        self.nic = MockNic(self.clock, PROFILES[profile]())
        self.devices = {name: Device(name, index, raw(mac)) for index, (name, mac) in enumerate(macs.items(), 2)}
        self.wires = {name: Wire(name) for name in macs}
        self.ports = {name: self.nic.attach(self.devices[name], self.wires[name]) for name in macs}
        self.slots = [Packet() for _ in range(64)]

    def receive(self, frame: bytes, name: str) -> int:
        """A frame from the cable of `name`; how many the card hands up, in `slots`."""
        self.wires[name].arriving.append(frame)
        return self.ports[name].receive(self.slots, 64)

    def host_frames(self) -> int:
        """Frames that the host has seen."""
        return sum(port.host_frames for port in self.ports.values())
