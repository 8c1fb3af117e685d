"""A whole gateway on a software card between memory wires, on a manual clock: rules, conntrack, NAT, flowtable, offload."""

from __future__ import annotations

from random import Random
from typing import Any

import card_lab
from card_lab import SECOND, CardLab, raw
from scapy.all import IP, TCP, UDP, Dot1AD, Dot1Q, Ether, IPv6, Raw

from userfw.core.packet import Device
from userfw.daemon.assembly import Assembly
from userfw.router.const import NUD_REACHABLE, OVERRIDE_YES
from userfw.router.interfaces import parse_address

FORWARD = """
    flowtable ft { hook ingress priority filter; devices = { lan, wan, alt }; %s counter; }
    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state established meta l4proto { tcp, udp } flow add @ft
        ct state established,related accept
        iifname { "lan", "lan.7", "lan.7.9" } accept
    }
"""
MASQUERADE = """
    chain post { type nat hook postrouting priority srcnat; oifname { "wan", "wan.5", "alt" } masquerade
    }
"""
RULES = f"table inet filter {{{FORWARD}{MASQUERADE}}}"
MACS = card_lab.MACS | {"alt": "02:00:00:00:03:01"}
HOSTS = {"lan": "02:00:00:00:01:02", "wan": "02:00:00:00:02:09", "alt": "02:00:00:00:03:09"}
NETS4 = {"lan": "192.168.1", "wan": "203.0.113", "alt": "192.0.2"}
NETS6 = {"lan": "fd00:1:", "wan": "fd00:2:", "alt": "fd00:3:"}
HOST_NUMBER = {"lan": 2, "wan": 9, "alt": 9}


class GatewayLab(CardLab):
    """lan, wan and alt on one card; 198.51.100.9 and fd00:ff::9 are behind the host of wan. `offload` False: flowtable only."""

    def __init__(self, profile: str = "full", offload: bool = True, threshold: int = 2, rules: str = RULES) -> None:
        super().__init__(profile, MACS)
        self.faults: list[BaseException] = []
        self.assembly = Assembly(self.clock, Random(1), lambda error, where: self.faults.append(error))
        self.gateway = self.assembly.gateway
        self.manager = self.assembly.offload
        self.manager.drivers = [self.nic]
        self.manager.threshold = threshold
        for name, device in self.devices.items():
            self.gateway.add_device(device)
            self.address(device, f"{NETS4[name]}.1/24", f"{NETS6[name]}:1/64")
            self.neighbour(device, f"{NETS4[name]}.{HOST_NUMBER[name]}", HOSTS[name])
            self.neighbour(device, f"{NETS6[name]}:{HOST_NUMBER[name]}", HOSTS[name])
        self.route = [self.gateway.add_route("198.51.100.0/24", via="203.0.113.9"),
                      self.gateway.add_route("fd00:ff::/64", via="fd00:2::9")]
        self.nft(rules % ("flags offload;" if offload else ""))
        self.take()

    def address(self, device: Device, *texts: str) -> None:
        for text in texts:
            self.gateway.add_address(device, parse_address(text))

    def neighbour(self, device: Device, address: str, mac: str) -> None:
        """Learned, not static: it can change and go."""
        item = parse_address(address)
        table = self.gateway.neighbours
        entry = table.obtain(device, item.family, item.hi, item.lo)
        assert entry is not None
        number = raw(mac)
        high, low = int.from_bytes(number[:4], "big"), int.from_bytes(number[4:], "big")
        table.update(entry, high, low, True, NUD_REACHABLE, OVERRIDE_YES)

    def nft(self, text: str) -> None:
        result = self.assembly.rules.execute(text)
        assert not result.status, result.errors

    def take(self) -> dict[str, list[bytes]]:
        """What left on each cable since the last call; neighbour discovery is not told."""
        found = {}
        for name, wire in self.wires.items():
            found[name] = [f for f in wire.left if f[12:14] != b"\x08\x06" and not (f[12:14] == b"\x86\xdd" and f[20] == 58)]
            wire.left = []
        return {name: frames for name, frames in found.items() if frames}

    def send(self, frame: bytes, name: str = "lan") -> dict[str, list[bytes]]:
        """One frame from the cable of `name`; what left anywhere."""
        self.take()
        self.gateway.receive_batch(self.slots, self.receive(frame, name))
        self.gateway.end_batch()
        assert not self.faults
        return self.take()

    def frame(
        self, back: bool = False, family: int = 4, tags: tuple[tuple[int, int], ...] = (), sport: int = 40000,
        data: bytes = b"data", proto: Any = UDP, flags: str = "A", at: str = "wan", outside: str = "", server: str = "",
        client: str = "",
    ) -> bytes:  # fmt: skip
        """From client to server, or what comes back at `at` to the masqueraded source."""
        kind = IP if family == 4 else IPv6
        client = client or ("192.168.1.2" if family == 4 else "fd00:1::2")
        server = server or ("198.51.100.9" if family == 4 else "fd00:ff::9")
        outside = outside or (f"{NETS4[at]}.1" if family == 4 else f"{NETS6[at]}:1")
        name = at if back else "lan"
        link = Ether(dst=MACS[name], src=HOSTS[name])
        for protocol, vid in tags:
            link = link / (Dot1AD if protocol == 0x88A8 else Dot1Q)(vlan=vid)
        ends = {"src": server, "dst": outside} if back else {"src": client, "dst": server}
        ports = {"sport": 53, "dport": sport} if back else {"sport": sport, "dport": 53}
        more = {"flags": flags} if proto is TCP else {}
        return bytes(link / kind(**ends) / proto(**ports, **more) / Raw(data))

    def tick(self, seconds: float = 0.1) -> None:
        self.clock.now += int(seconds * SECOND)
        self.manager.tick(self.clock.now)

    def offloaded(self, **kind: Any) -> dict[str, dict[str, list[bytes]]]:
        """Bring a UDP flow into the card; what software made of a packet each way."""
        tags, back_tags = kind.pop("tags", ()), kind.pop("back_tags", ())
        at = kind.get("at", "wan")
        there = self.send(self.frame(tags=tags, **kind))
        assert there, "the first packet was dropped"
        back = self.send(self.frame(back=True, tags=back_tags, **kind), at)
        for _ in range(3):
            there = self.send(self.frame(tags=tags, **kind))
            back = self.send(self.frame(back=True, tags=back_tags, **kind), at)
        self.tick()
        return {"there": there, "back": back}

    def table(self) -> Any:
        return self.assembly.platform.hooks.flowtables[0].engine
