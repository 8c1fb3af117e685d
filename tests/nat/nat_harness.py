"""A gateway's hooks around NAT, without the gateway: prerouting to postrouting, both with conntrack, on a manual clock."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable

from ct_build import network, packet
from ct_harness import Lab

from userfw.conntrack.conn import Conn
from userfw.core.hook import HookEntry, HookList
from userfw.core.packet import Address, Device, Packet
from userfw.nat.entry import NatEntry
from userfw.nat.mapping import Nat, NatRange

MAP_IPS, SPECIFIED, RANDOM, PERSISTENT, FULLY, OFFSET, NETMAP = 1, 2, 4, 8, 16, 32, 64
SRC, DST = 0, 1
PRE, POST = 0, 4


def halves(text: str) -> tuple[int, int]:
    number = int(ipaddress.ip_address(text))
    return number >> 64, number & (1 << 64) - 1


def nat_range(first: str = "", last: str = "", ports: tuple[int, int] | None = None, flags: int = 0) -> NatRange:
    r = NatRange(flags)
    if first:
        r.flags |= MAP_IPS
        r.min_hi, r.min_lo = halves(first)
        r.max_hi, r.max_lo = halves(last or first)
    if ports:
        r.flags |= SPECIFIED
        r.min_port, r.max_port = ports
    return r


def device(name: str, index: int, *addresses: str) -> Device:
    dev = Device(name, index)
    for text in addresses:
        item = ipaddress.ip_interface(text)
        dev.addresses.append(Address(2 if item.version == 4 else 10, *halves(str(item.ip)), item.network.prefixlen))
    return dev


class Rule(HookEntry):
    """A nat base chain with one rule in Python."""

    def __init__(self, act: Callable[[Packet, Conn], int | None]) -> None:
        super().__init__(0)
        self.act = act
        self.asked = 0

    def run(self, pkt: Packet, hook: int) -> int:
        self.asked += 1
        verdict = self.act(pkt, pkt.ct)
        return 1 if verdict is None else verdict


class Gateway(Lab):
    """`forward(data)`: the network packet that leaves, or None."""

    def __init__(self, **settings: int) -> None:
        super().__init__(**settings)
        self.nat = Nat(self.table)
        self.lan = device("lan", 2, "10.0.1.254/24", "fd00:1::fe/64")
        self.wan = device("wan", 3, "203.0.113.1/24", "2001:db8::1/64")
        self.rules([], [])

    def rules(self, pre: list[HookEntry], post: list[HookEntry]) -> None:
        self.pre = HookList(PRE, [self.enter, NatEntry(self.nat, PRE, pre)])
        self.post = HookList(POST, [NatEntry(self.nat, POST, post), self.leave])

    def snat(self, within: NatRange) -> Rule:
        rule = Rule(lambda pkt, conn: self.nat.setup(pkt, conn, within, SRC))
        self.rules([], [rule])
        return rule

    def dnat(self, within: NatRange) -> Rule:
        rule = Rule(lambda pkt, conn: self.nat.setup(pkt, conn, within, DST))
        self.rules([rule], [])
        return rule

    def masquerade(self, within: NatRange | None = None) -> Rule:
        rule = Rule(lambda pkt, conn: self.nat.masquerade(pkt, conn, within or NatRange()))
        self.rules([], [rule])
        return rule

    def pass_through(self, pkt: Packet, back: bool = False) -> int:
        pkt.iif, pkt.oif = (self.wan, self.lan) if back else (self.lan, self.wan)
        verdict = self.pre.run(pkt)
        return self.post.run(pkt) if verdict == 1 else verdict

    def forward(self, data: bytes, back: bool = False) -> bytes | None:
        self.last = packet(data)
        return network(self.last) if self.pass_through(self.last, back) == 1 else None
