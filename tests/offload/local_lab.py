"""A gateway with services of its own behind a TUN port, and a software card with one port, on a manual clock."""

from __future__ import annotations

from random import Random
from typing import Any

from card_lab import CardLab, Wire
from offload_lab import GatewayLab
from scapy.all import IP, TCP, UDP, Ether, IPv6, Raw

from userfw.core.const import ARPHRD_NONE
from userfw.core.packet import Device
from userfw.daemon.assembly import Assembly

RULES = """
table inet filter {
    flowtable ft { hook ingress priority filter; devices = { %(devices)s }; %(flags)s counter; }
    chain input {
        type filter hook input priority filter; policy drop;
        ct state established counter %(input)s
        ct state established,related accept
        udp dport 53 accept
        tcp dport 53 accept
    }
    chain output { type filter hook output priority filter; ct state established counter %(output)s
    }
    chain pre { type nat hook prerouting priority dstnat; udp dport 5353 redirect to :53
    }
}
"""
MACS = {"wan": "02:00:00:00:02:01", "alt": "02:00:00:00:03:01"}
PEER = "02:00:00:00:02:09"


class LocalLab(GatewayLab):
    """The peer 203.0.113.9 (fd00:2::9) on wan speaks to 203.0.113.1 port 53, behind host0. `flows`: the hooks with `flow add`."""

    def __init__(
        self, flows: tuple[str, ...] = ("input",), devices: str = "wan, host0", offload: bool = False, mtu: int = 1500
    ) -> None:
        CardLab.__init__(self, "full", MACS)
        self.faults: list[BaseException] = []
        self.assembly = Assembly(self.clock, Random(1), lambda error, where: self.faults.append(error))
        self.gateway, self.manager = self.assembly.gateway, self.assembly.offload
        self.manager.drivers = [self.nic]
        self.manager.threshold = 2
        self.assembly.platform.local_flows = True
        for device in self.devices.values():
            self.gateway.add_device(device)
        host = Device("host0", 9, b"", mtu, ARPHRD_NONE)
        self.devices["host0"] = host
        wire = self.wires["host0"] = Wire("host0")
        wire.attach(host)
        self.ports["host0"] = wire  # type: ignore[assignment]
        self.gateway.add_device(host, wire)
        self.gateway.set_local_port(host)
        self.address(self.devices["wan"], "203.0.113.1/24", "fd00:2::1/64")
        self.neighbour(self.devices["wan"], "203.0.113.9", PEER)
        self.neighbour(self.devices["wan"], "fd00:2::9", PEER)
        self.nft(
            RULES
            % {
                "devices": devices,
                "flags": "flags offload;" if offload else "",
                **{hook: "flow add @ft" if hook in flows else "" for hook in ("input", "output")},
            }
        )

    def packet(
        self, back: bool = False, family: int = 4, proto: Any = UDP, data: bytes = b"data", flags: str = "A", ttl: int = 64,
        dport: int = 53, sport: int = 40000, **more: Any,
    ) -> bytes:  # fmt: skip
        """From the peer to the service, or (`back`) what the service says: a bare packet."""
        kind = IP if family == 4 else IPv6
        peer, own = ("203.0.113.9", "203.0.113.1") if family == 4 else ("fd00:2::9", "fd00:2::1")
        hops = {"ttl": ttl} if family == 4 else {"hlim": ttl}
        ends = {"src": own, "dst": peer} if back else {"src": peer, "dst": own}
        ports = {"sport": 53, "dport": sport} if back else {"sport": sport, "dport": dport}
        layer = proto(**ports, **({"flags": flags, **more} if proto is TCP else {}))
        packet = kind(**ends, **hops) / layer / Raw(data)
        return bytes(packet if back else Ether(dst=MACS["wan"], src=PEER) / packet)

    def say(self, back: bool = False, **kind: Any) -> dict[str, list[bytes]]:
        return self.send(self.packet(back, **kind), "host0" if back else "wan")

    def start(self, proto: Any = UDP, **kind: Any) -> None:
        flags = (("S", False), ("SA", True), ("A", False)) if proto is TCP else ((None, False), (None, True), (None, False))
        for flag, back in flags:
            assert self.say(back, proto=proto, **({"flags": flag} if flag else {}), **kind)
        self.assembly.sweep()

    def seen(self) -> int:
        return int(self.table().forwarded)

    def fast(self, back: bool = False, **kind: Any) -> bool:
        before = self.seen()
        assert self.say(back, **kind), "lost"
        return self.seen() > before
