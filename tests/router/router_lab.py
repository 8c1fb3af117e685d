"""A gateway on memory ports and a manual clock, and frames to send through it."""

from __future__ import annotations

import random
from ipaddress import ip_address

from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet as Layer

from userfw.core.clock import Clock
from userfw.core.drop import DropReason
from userfw.core.packet import Device
from userfw.ports.memory import MemoryPort
from userfw.router.gateway import Gateway
from userfw.router.interfaces import parse_address

SECOND = 10**9
MACS = {"lan": "02:00:00:00:00:01", "wan": "02:00:00:00:00:02"}
LAN_HOST = "02:00:00:00:01:10"
WAN_HOST = "02:00:00:00:02:10"


def mac_bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def number(text: str) -> tuple[int, int]:
    value = int(ip_address(text))
    return value >> 64, value & (2**64 - 1)


class Lab:
    """`lan` 192.0.2.1/24 and 2001:db8:1::1/64, `wan` 198.51.100.1/24 and 2001:db8:2::1/64."""

    def __init__(self, resolved: bool = True) -> None:
        self.clock = Clock(10**12)
        self.errors: list[BaseException] = []
        self.gw = Gateway(self.clock, random.Random(1), fault=lambda error, where: self.errors.append(error))
        self.ports: dict[str, MemoryPort] = {}
        for index, name in enumerate(("lan", "wan"), 2):
            device = Device(name, index, mac_bytes(MACS[name]))
            self.ports[name] = MemoryPort(device)
            self.gw.add_device(device)
        self.lan, self.wan = self.gw.names["lan"], self.gw.names["wan"]
        for device, text in (
            (self.lan, "192.0.2.1/24"),
            (self.lan, "2001:db8:1::1/64"),
            (self.wan, "198.51.100.1/24"),
            (self.wan, "2001:db8:2::1/64"),
        ):
            self.gw.add_address(device, parse_address(text))
        if resolved:
            for device, text, mac in (
                (self.lan, "192.0.2.10", LAN_HOST),
                (self.lan, "2001:db8:1::10", LAN_HOST),
                (self.wan, "198.51.100.10", WAN_HOST),
                (self.wan, "2001:db8:2::10", WAN_HOST),
            ):
                self.neighbour(device, text, mac)

    def neighbour(self, device: Device, text: str, mac: str) -> None:
        family = 2 if "." in text else 10
        self.gw.neighbours.set_static(device, family, *number(text), mac_bytes(mac))

    def send(self, frame: Layer | bytes, port: str = "lan") -> int:
        """Inject a frame (an IP layer gets an Ethernet header from the port's host); the gateway's answer."""
        if isinstance(frame, (IP, IPv6)):
            host = LAN_HOST if port == "lan" else WAN_HOST
            frame = Ether(dst=MACS[port], src=host) / frame
        pkt = self.ports[port].inject(bytes(frame))
        result = self.gw.receive(pkt)
        self.gw.end_batch()
        assert not self.errors, self.errors
        return int(result)

    def out(self, port: str = "wan") -> list[Ether]:
        return [Ether(frame) for frame in self.ports[port].take()]

    def one(self, port: str = "wan") -> Ether:
        frames = self.out(port)
        assert len(frames) == 1, frames
        return frames[0]

    def advance(self, seconds: float) -> None:
        """Let time pass, running every timer at its time."""
        end = self.clock.now + int(seconds * SECOND)
        while True:
            due = self.gw.next_deadline()
            if not due or due > end:
                break
            self.clock.now = max(due, self.clock.now)
            self.gw.tick(self.clock.now)
            self.gw.end_batch()
        self.clock.now = end
        self.gw.tick(end)
        self.gw.end_batch()

    def drops(self) -> dict[str, int]:
        return {reason.name: n for reason, n in zip(DropReason, self.gw.drop_counts(), strict=True) if n}

    def arp_reply(self, device: str, address: str, mac: str) -> None:
        """The host at `address` answers a request."""
        own = {"lan": "192.0.2.1", "wan": "198.51.100.1"}[device]
        frame = Ether(dst=MACS[device], src=mac) / ARP(op=2, hwsrc=mac, psrc=address, hwdst=MACS[device], pdst=own)
        self.send(bytes(frame), device)
