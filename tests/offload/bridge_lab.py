"""A gateway with a bridge over ports of a software card, on a manual clock: br0 is over p1 and p2, wan beside it."""

from __future__ import annotations

from random import Random
from typing import Any

from card_lab import SECOND, CardLab, raw
from offload_lab import GatewayLab
from scapy.all import IP, TCP, UDP, Dot1Q, Ether, IPv6, Raw

from userfw.core.packet import Device
from userfw.daemon import schema
from userfw.daemon.assembly import Assembly
from userfw.router.bridge import Bridge, Members

RULES = """
table inet filter {
    flowtable ft { hook ingress priority filter; devices = { %s }; %s counter; }
    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state established meta l4proto { tcp, udp } %s
        ct state established,related accept
        iifname "br0*" accept
    }
    chain post { type nat hook postrouting priority srcnat; oifname "wan" masquerade
    }
}
"""
BR = "02:00:00:00:0b:01"
MACS = {"p1": "02:00:00:00:01:01", "p2": "02:00:00:00:01:03", "wan": "02:00:00:00:02:01"}
CLIENT, SERVER, OTHER = "02:00:00:00:01:02", "02:00:00:00:02:09", "02:00:00:00:01:0f"


class BridgeLab(GatewayLab):
    """The client 192.168.1.2 (fd00:1::2) is heard on p1; with `vlans` br0 filters, the client is in VLAN 10, on br0.10, which p1
    sends with a tag and p2 without. The server 203.0.113.9 (fd00:2::9) is on wan. `flows` False: no `flow add`."""

    def __init__(
        self, profile: str = "full", offload: bool = False, devices: str = "p1, p2, wan", flows: bool = True, vlans: bool = False,
        tag: int = 0, threshold: int = 2,
    ) -> None:  # fmt: skip
        CardLab.__init__(self, profile, MACS)
        self.faults: list[BaseException] = []
        self.assembly = Assembly(self.clock, Random(1), lambda error, where: self.faults.append(error))
        self.gateway, self.manager = self.assembly.gateway, self.assembly.offload
        self.manager.drivers = [self.nic]
        self.manager.threshold = threshold
        for device in self.devices.values():
            self.gateway.add_device(device)
        config = schema.Bridge("br0", ["p1", "p2"], mac=raw(BR), vlan_filtering=vlans)
        if vlans:
            config.vlan = [schema.BridgeVlan(None, 1, [10], [1]), schema.BridgeVlan("p1", 1, [10], [1]),
                           schema.BridgeVlan("p2", 10, [], [10])]
        self.assembly.add_bridge(config, 20)
        self.config = config
        self.top: Device = self.gateway.names["br0"]
        self.tags: tuple[int, ...] = ()
        if vlans or tag:
            self.top = self.gateway.add_vlan(self.top, tag or 10, f"br0.{tag or 10}", 21)
            self.tags = (tag or 10,)
        wan = self.devices["wan"]
        self.address(self.top, "192.168.1.1/24", "fd00:1::1/64")
        self.address(wan, "203.0.113.1/24", "fd00:2::1/64")
        for device, net4, net6, mac in ((self.top, "192.168.1.2", "fd00:1::2", CLIENT), (wan, "203.0.113.9", "fd00:2::9", SERVER)):
            self.neighbour(device, net4, mac)
            self.neighbour(device, net6, mac)
        self.nft(RULES % (devices, "flags offload;" if offload else "", "flow add @ft" if flows else "counter"))

    @property
    def bridge(self) -> Bridge:
        return self.assembly.bridges["br0"]

    def port(self, name: str) -> Members:
        return next(port for port in self.bridge.ports if port.device.name == name)

    def packet(
        self, back: bool = False, family: int = 4, proto: Any = UDP, data: bytes = b"data", sport: int = 40000, flags: str = "A",
        src: str = CLIENT, dst: str = BR, tags: tuple[int, ...] | None = None, ttl: int = 64, **more: Any,
    ) -> bytes:  # fmt: skip
        """From client to server, or (`back`) what comes back to the masqueraded source."""
        link = Ether(src=SERVER, dst=MACS["wan"]) if back else Ether(src=src, dst=dst)
        for vid in self.tags if tags is None and not back else tags or ():
            link /= Dot1Q(vlan=vid)
        kind = IP if family == 4 else IPv6
        client, server, outside = ("192.168.1.2", "203.0.113.9", "203.0.113.1") if family == 4 else (
            "fd00:1::2", "fd00:2::9", "fd00:2::1")  # fmt: skip
        ends = {"src": server, "dst": outside} if back else {"src": client, "dst": server}
        hops = {"ttl": ttl} if family == 4 else {"hlim": ttl}
        ports = {"sport": 53, "dport": sport} if back else {"sport": sport, "dport": 53}
        layer = proto(**ports, **({"flags": flags, **more} if proto is TCP else {}))
        return bytes(link / kind(**ends, **hops) / layer / Raw(data))

    def send(self, frame: bytes, name: str = "p1") -> dict[str, list[bytes]]:
        return super().send(frame, name)

    def start(self, proto: Any = UDP, family: int = 4, at: str = "p1", **kind: Any) -> None:
        """A connection that has been let into the flowtable."""
        flags = (("S", False), ("SA", True), ("A", False)) if proto is TCP else ((None, False), (None, True), (None, False))
        for flag, back in flags:
            extra = {"flags": flag} if flag else {}
            self.send(self.packet(back, family, proto, **extra, **kind), "wan" if back else at)

    def seen(self) -> int:
        """Packets that the flowtable sent."""
        return int(self.table().forwarded)

    def fast(self, back: bool = False, at: str = "p1", **kind: Any) -> bool:
        """Whether the next packet takes the fast path; it is not lost in any case."""
        before = self.seen()
        assert self.send(self.packet(back, **kind), "wan" if back else at), "lost"
        return self.seen() > before

    def wait(self, seconds: float) -> None:
        self.clock.now += int(seconds * SECOND)
        self.gateway.tick(self.clock.now)
        self.assembly.sweep()
