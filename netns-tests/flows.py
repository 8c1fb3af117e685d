"""Random packets of random flows: through the XDP program in the kernel's test run, and through the flowtable it was filled from.

`python -m flows --flows 5000 --seed 7` (root; `make flows`) makes each flow in a whole gateway (rules, conntrack, NAT, VLAN
devices), writes it into the program's map as the driver does, and sends packets of both directions through both.

Laws
- What the program forwards is byte for byte what the flowtable sends, by the same device; what it does not it leaves untouched.
- What it must forward it does: frames that are plain, and fit.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from random import Random

from scapy.all import IP, TCP, UDP, Dot1AD, Dot1Q, Ether, IPOption_RR, IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, Raw
from userfw_hw.bpf import forward
from userfw_hw.bpf.edges import XDP

from userfw.flowtable.flow import Flow
from userfw.offload import describe
from userfw.offload.contract import Match
from userfw.ports import bpf as syscall

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests" / "offload"))
from offload_lab import FORWARD, HOSTS, MACS, GatewayLab

REDIRECTED = 4  # XDP_REDIRECT
NAT = """
    chain pre {
        type nat hook prerouting priority dstnat;
        ip daddr 198.51.100.80 meta l4proto { tcp, udp } dnat ip to 198.51.100.9:8080
        ip6 daddr fd00:ff::80 dnat ip6 to fd00:ff::9
    }
    chain post {
        type nat hook postrouting priority srcnat;
        ip saddr 192.168.1.3 return
        ip6 saddr fd00:1::3 return
        ip saddr 192.168.1.4 meta l4proto { tcp, udp } snat ip to 203.0.113.50-203.0.113.60:10000-60000
        oifname { "wan", "wan.5", "alt" } masquerade
    }
"""
RULES = f"table inet filter {{{FORWARD}{NAT}}}"


def tagged(link: Ether, tags: tuple[tuple[int, int], ...], rng: Random) -> Ether:
    """The tags of a flow, with any priority."""
    for protocol, vid in tags:
        link = link / (Dot1AD if protocol == 0x88A8 else Dot1Q)(vlan=vid, prio=rng.randrange(8))
    return link


def colons(address: bytes) -> str:
    """An IPv6 address without abbreviation."""
    return ":".join(address[i : i + 2].hex() for i in range(0, 16, 2))


@dataclass(frozen=True, slots=True)
class Made:
    """A frame, whether it ends or opens its connection, and whether a program must forward it if it fits."""

    frame: bytes
    control: bool
    plain: bool


def random_packet(rng: Random, match: Match, mac: str = "00:00:00:00:00:00") -> Made:
    """A packet of the flow, most of them plain, some with what a program must leave alone."""
    flags = rng.choice(("A", "PA", "A", "A", "FA", "S", "R")) if match.protocol == 6 else ""
    l4 = (
        TCP(sport=match.source_port, dport=match.destination_port, flags=flags)
        if match.protocol == 6
        else UDP(sport=match.source_port, dport=match.destination_port)
    )
    data = Raw(rng.randbytes(rng.choice((0, 1, 18, 100, 1380, 1440, 1472))))
    oddity = rng.randrange(16)
    link = tagged(Ether(dst=mac, src="02:00:00:00:00:09"), match.vlans, rng)
    if oddity == 0:
        link = link / Dot1Q(vlan=rng.choice((0, 7)))
    if oddity == 7 and match.vlans:
        link = Ether(dst=mac, src="02:00:00:00:00:09")
    ttl = 1 if oddity == 1 else rng.randrange(2, 256)
    if len(match.source) == 4:
        ip = IP(src=".".join(map(str, match.source)), dst=".".join(map(str, match.destination)), ttl=ttl)
        if oddity == 2:
            ip.options = [IPOption_RR()]
        if oddity == 3:
            ip.flags = "MF"
    else:
        ip = IPv6(src=colons(match.source), dst=colons(match.destination), hlim=ttl)
        if oddity == 2:
            ip = ip / IPv6ExtHdrDestOpt()
        if oddity == 3:
            ip = ip / IPv6ExtHdrFragment(m=1)
    frame = bytes(link / ip / l4 / data)
    if oddity == 4 and match.protocol == 17 and len(match.source) == 4:
        at = 40 + 4 * len(match.vlans)
        frame = frame[:at] + b"\0\0" + frame[at + 2 :]  # no UDP checksum
    if oddity == 5:
        frame = frame[: rng.randrange(14, len(frame))]
    if oddity == 6:
        frame = frame[:5] + b"\x07" + frame[6:]  # another host's
    control = any(flag in flags for flag in "FSR")
    return Made(frame, control, oddity in (4, *range(8, 16)) and not control)


class Pair:
    """The program of each device, and a gateway whose flowtable its map is filled from."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.lab = GatewayLab(offload=False, rules=RULES)
        outer = self.lab.gateway.add_vlan(self.lab.devices["lan"], 7, "lan.7", 20, 0x88A8)
        inner = self.lab.gateway.add_vlan(outer, 9, "lan.7.9", 21)
        wan = self.lab.gateway.add_vlan(self.lab.devices["wan"], 5, "wan.5", 22)
        self.lab.address(outer, "192.168.6.1/24", "fd00:6::1/64")
        self.lab.address(inner, "192.168.7.1/24", "fd00:7::1/64")
        self.lab.address(wan, "203.0.115.1/24", "fd00:5::1/64")
        hosts = [(outer, "192.168.6.2", "fd00:6::2"), (inner, "192.168.7.2", "fd00:7::2"), (wan, "203.0.115.9", "fd00:5::9")]
        for device, *addresses in hosts:
            for address in addresses:
                self.lab.neighbour(device, address, HOSTS[device.name.partition(".")[0]])
        for last in (3, 4):
            self.lab.neighbour(self.lab.devices["lan"], f"192.168.1.{last}", HOSTS["lan"])
            self.lab.neighbour(self.lab.devices["lan"], f"fd00:1::{last}", HOSTS["lan"])
        self.flows = syscall.Map(syscall.MAP_TYPE_HASH, forward.KEY_SIZE, forward.VALUE_SIZE, 4096, "test")
        self.programs = {
            name: syscall.load(
                syscall.PROG_TYPE_XDP, forward.build(XDP, self.flows.fd, device.index, [device.mac]), "test"
            )
            for name, device in self.lab.devices.items()
        }
        self.number = 1024
        self.forwarded = self.passed = 0

    def close(self) -> None:
        """Give the programs back."""
        for program in self.programs.values():
            os.close(program)
        self.flows.close()

    def open(self) -> Flow:
        """A new connection of any kind, as far as the flowtable."""
        rng, lab = self.rng, self.lab
        four = rng.random() < 0.5
        tags, net = rng.choice([
            ((), 1), ((), 1), ((), 1), (((0x88A8, 7),), 6), (((0x88A8, 7), (0x8100, 9)), 7)
        ])  # fmt: skip
        last = rng.choice((2, 3, 4)) if net == 1 else 2
        client = f"192.168.{net}.{last}" if four else f"fd00:{net}::{last}"
        server = rng.choice(["198.51.100.9", "198.51.100.80", "203.0.115.9", "192.0.2.9"] if four else
                            ["fd00:ff::9", "fd00:ff::80", "fd00:5::9", "fd00:3::9"])  # fmt: skip
        self.number += 1
        ends = {"src": client, "dst": server}
        ports = {"sport": self.number, "dport": rng.randrange(1, 65536)}
        proto = rng.choice((TCP, UDP))
        ip = (IP if four else IPv6)(**ends)
        link = tagged(Ether(dst=MACS["lan"], src=HOSTS["lan"]), tags, rng)
        seq, ack = rng.getrandbits(31), rng.getrandbits(31)

        def there(flags: str, **more: int) -> dict[str, list[bytes]]:
            l4 = proto(**ports, flags=flags, **more) if proto is TCP else proto(**ports)
            return lab.send(bytes(link / ip / l4), "lan")

        (name, (out,)), = there("S", seq=seq).items()
        at = Ether(out)
        layer = IP if four else IPv6
        back = Ether(dst=MACS[name], src=HOSTS[name])
        for tag in (at.getlayer(Dot1Q),):
            back = back / Dot1Q(vlan=tag.vlan) if tag is not None else back
        answer = proto(sport=at[proto].dport, dport=at[proto].sport)
        if proto is TCP:
            answer.flags, answer.seq, answer.ack = "SA", ack, seq + 1
        assert lab.send(bytes(back / layer(src=at[layer].dst, dst=at[layer].src) / answer), name)
        assert there("A", seq=seq + 1, ack=ack + 1)
        (flow,) = lab.table()
        return flow

    def run(self, packets: int) -> None:
        """One flow: packets of each direction, then its end."""
        flow, rng, lab = self.open(), self.rng, self.lab
        rules = [describe.rule_of(flow, side, lambda device: int(device.index)) for side in (flow.original, flow.reply)]
        keys = [forward.key(match) for match, _ in rules]
        for key, (match, actions) in zip(keys, rules, strict=True):
            self.flows[key] = forward.value(match, actions)
        for match, actions in rules:
            for _ in range(packets):
                made = random_packet(rng, match, MACS[match.device])
                if len(made.frame) >= 54:  # the kernel's test run takes no frame without a whole network header
                    self.compare(made, match, actions.device, actions.mtu)
        for key in keys:
            assert self.flows.pop(key)
        lab.table().teardown(flow)

    def compare(self, made: Made, match: Match, out: str, mtu: int) -> None:
        """One packet."""
        verdict, after, _ = syscall.test_run(self.programs[match.device], made.frame)
        if verdict != REDIRECTED:
            assert after == made.frame, f"a frame that is passed up was touched: {made.frame.hex()}"
            fits = len(made.frame) - 14 - 4 * len(match.vlans) <= mtu
            assert not (made.plain and fits), f"a plain frame was passed up: {made.frame.hex()}"
            self.passed += 1
            return
        assert not made.control
        assert self.lab.send(made.frame, match.device) == {out: [after]}, made.frame.hex()
        self.forwarded += 1


def main() -> None:
    """As many flows as asked for."""
    parser = argparse.ArgumentParser(prog="make flows")
    parser.add_argument("--flows", type=int, default=5000)
    parser.add_argument("--packets", type=int, default=6, help="of each direction of a flow")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "big"))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    pair = Pair(Random(options.seed))
    try:
        for _ in range(options.flows):
            pair.run(options.packets)
    finally:
        pair.close()
    print(f"{options.flows} flows: {pair.forwarded} packets forwarded alike, {pair.passed} left to userfw")


if __name__ == "__main__":
    main()
