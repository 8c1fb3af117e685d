"""A gateway with two devices, rules and frames for netdev chains with `flags offload`: the mock NIC, and eBPF in netns-tests."""

from __future__ import annotations

import random
from typing import Any

from card_lab import CardLab
from hypothesis import strategies as st
from scapy.all import ARP, ICMP, IP, TCP, UDP, Dot1Q, Ether, IPv6, Raw

from userfw.core.const import NF_ACCEPT
from userfw.core.packet import Packet
from userfw.offload.contract import Driver, Target
from userfw.offload.hardware import HardwareChains
from userfw.router.gateway import Gateway
from userfw.ruleset.manager import RulesetManager
from userfw.ruleset.options import Options
from userfw.wire.parse import parse_untrusted

CHAIN = 'table netdev t { chain c { type filter hook ingress device "lan" priority 5; flags offload;\n%s\n}\n}'
CAN = {
    "ip saddr 10.0.0.0/8 udp dport 53 counter drop": ["protocol", "ipv4_src", "ip_proto", "udp_dport"],
    "ip6 daddr 2001:db8::1 tcp sport 80 accept": ["protocol", "ipv6_dst", "ip_proto", "tcp_sport"],
    "ip saddr 10.1.0.0/15 drop": ["protocol", "ipv4_src"],
    "ether saddr 02:00:00:00:00:01 drop": ["eth_src"],
    "meta protocol arp drop": ["protocol"],
    "meta l4proto tcp tcp dport 22 drop": ["ip_proto", "tcp_dport"],
    "vlan id 10 drop": ["eth_type", "vlan_id"],
    "vlan id 10 ip saddr 1.2.3.4 drop": ["eth_type", "vlan_id", "protocol", "ipv4_src"],
    'ip protocol icmp fwd to "wan"': ["protocol", "ip_proto"],
    'meta protocol ip6 dup to "wan"': ["protocol"],
    'iif "lan" counter drop': [],
    "drop": [],
}
EVERYTHING = ("drop", 'iif "lan" counter drop')
RULESET = "\n".join(rule for rule in [*CAN][::-1] if "dup" not in rule and "fwd" not in rule and rule not in EVERYTHING)
MACS, PORTS = ["02:00:00:00:00:01", "02:00:00:00:00:09"], [22, 53, 80]
V4, V6 = ["10.1.2.3", "10.9.9.9", "1.2.3.4"], ["2001:db8::1", "2001:db8::2"]


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    """Frames around the fields of RULESET: no fragments, no options."""
    pick = lambda values: draw(st.sampled_from(values))  # noqa: E731
    frame = Ether(dst="02:00:00:00:00:02", src=pick(MACS))
    if draw(st.booleans()):
        frame /= Dot1Q(vlan=pick([10, 11]), prio=pick([0, 5]))
    kind = pick(["ip", "ip6", "arp"])
    if kind == "arp":
        return bytes(frame / ARP(pdst="1.2.3.4"))
    frame /= IP(src=pick(V4), dst=pick(V4)) if kind == "ip" else IPv6(src=pick(V6), dst=pick(V6))
    transport = pick([TCP, UDP, None])
    frame /= transport(sport=pick(PORTS), dport=pick(PORTS)) if transport else (ICMP() if kind == "ip" else Raw(b""))
    return bytes(frame)


class Lab(CardLab):
    """A gateway with `lan` and `wan`, both ports of a card; `hardware` false: rules run in software."""

    def __init__(self, hardware: bool = True, drivers: list[Driver] | None = None) -> None:
        super().__init__()
        self.gateway = Gateway(self.clock, random.Random(1), None, None)
        for device in self.devices.values():
            self.gateway.add_device(device, device.port)
        self.rules = RulesetManager(self.gateway, None)
        platform: Any = self.rules.backend.platform  # type: ignore[attr-defined]
        names = [(device.name, int(device.index)) for device in self.devices.values()]
        found: list[Driver] = [self.nic] if drivers is None else drivers
        self.hardware = HardwareChains(lambda: found, lambda name: Target(name, 7, None, name), lambda: names, platform.hang)
        if hardware:
            platform.hardware = self.hardware

    def run(self, text: str) -> str:
        return self.rules.execute(text, Options()).errors

    def send(self, frame: bytes) -> int:
        """Frames that the host got to see of it."""
        return self.receive(frame, "lan")

    def software(self, frame: bytes) -> int:
        """The verdict of the device's chains in the engine."""
        device, pkt = self.devices["lan"], Packet()
        pkt.load_frame(frame)
        pkt.iif = device
        assert not parse_untrusted(pkt)
        return int(device.ingress.run(pkt)) if device.ingress is not None else NF_ACCEPT
