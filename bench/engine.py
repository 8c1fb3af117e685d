"""The engine alone, on memory ports: nanoseconds per packet for each rung, each kind of expression, and as tables grow.

`python -m bench.engine [--json FILE] [--quick]`. What receiving costs (copying a frame into a slot) is measured by
itself and taken off. Every figure is the median of several rounds; the clock is the manual one, so timers do not disturb.
"""

from __future__ import annotations

import argparse
import gc
import json
import struct
import sys
import time
from ipaddress import ip_address
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

from bench.expressions import KINDS, ruleset
from bench.memory import random_reads
from bench.profile import profile
from userfw.conntrack.table import ConnTable
from userfw.core.clock import Clock
from userfw.core.const import NFPROTO_IPV4, NFPROTO_IPV6
from userfw.core.packet import Device, Packet
from userfw.ports.discard import DiscardPort
from userfw.ports.repeat import RepeatPort, SpreadPort
from userfw.router.gateway import Gateway
from userfw.router.interfaces import parse_address
from userfw.ruleset.manager import RulesetManager

BATCH = 64
MACS = {"lan": "020000000101", "wan": "020000000201"}
HOST_MAC = "020000000102"
SYN, ACK = 2, 16
SERVER4, OUTSIDE4 = "203.0.113.9", "203.0.113.1"

TEN_RULES = """
table inet filter {
    set blocked { type ipv4_addr; elements = { 10.0.0.1, 10.0.0.2 }; }
    chain early {
        type filter hook prerouting priority raw;
        tcp flags & (fin | syn) == (fin | syn) drop
        meta mark 5 drop
    }
    chain forward {
        type filter hook forward priority filter; policy drop;
        ip saddr @blocked drop
        ip protocol icmp limit rate over 1000/second drop
        ct state established,related counter accept
        ct state invalid drop
        iifname "lan" tcp dport { 22, 80, 443 } accept
        iifname "lan" udp dport 53 accept
        iifname "lan" accept
        counter reject
    }
}
"""
FORWARD_ACCEPT = "table inet filter { chain forward { type filter hook forward priority filter; ct state established accept\n}\n}\n"
MASQUERADE = """
table inet nat { chain post { type nat hook postrouting priority srcnat; oifname "wan" masquerade
    }
}
"""
FLOWTABLE = """
table inet fast {
    flowtable f { hook ingress priority filter; devices = { lan, wan }; }
    chain forward { type filter hook forward priority filter - 5; meta l4proto { tcp, udp } flow add @f
    }
}
"""


class Bench:
    """A gateway with lan and wan, a ruleset, and a way to measure."""

    def __init__(self, rules: str = "", maximum: int = 0) -> None:
        self.clock = Clock(10**12)
        self.faults: list[str] = []
        self.gateway = Gateway(self.clock, Random(1), fault=lambda error, where: self.faults.append(f"{where}: {error!r}"))
        self.devices: dict[str, Device] = {}
        for index, (name, mac) in enumerate(MACS.items(), 2):
            device = Device(name, index, bytes.fromhex(mac))
            device.port = DiscardPort()
            self.gateway.add_device(device)
            self.devices[name] = device
        for name, text in (("lan", "10.1.0.1/16"), ("lan", "fd00:1::1/64"), ("wan", "203.0.113.1/24"), ("wan", "fd00:9::1/64")):
            self.gateway.add_address(self.devices[name], parse_address(text))
        self.gateway.add_route("10.0.0.0/8", via="10.1.0.2")
        for name, family, text in (
            ("lan", NFPROTO_IPV4, "10.1.0.2"),
            ("wan", NFPROTO_IPV4, SERVER4),
            ("lan", NFPROTO_IPV6, "fd00:1::2"),
            ("wan", NFPROTO_IPV6, "fd00:9::9"),
        ):
            hi, lo = divmod(int(ip_address(text)), 1 << 64)
            self.gateway.neighbours.set_static(self.devices[name], family, hi, lo, bytes.fromhex(HOST_MAC))
        self.conns = ConnTable(self.clock)
        self.manager = RulesetManager(self.gateway, self.conns)
        self.load(rules)
        if maximum:
            self.conns.settings.set("nf_conntrack_max", maximum)
        self.slots = [Packet() for _ in range(BATCH)]

    def load(self, rules: str) -> None:
        result = self.manager.execute("flush ruleset\n" + rules)
        if result.status:
            raise SystemExit(f"the benchmark's ruleset was refused:\n{result.errors}")

    def port(self, frames: list[bytes], name: str = "lan") -> RepeatPort:
        port = RepeatPort(name, frames)
        port.device = self.devices[name]
        return port

    def run(self, port: RepeatPort | SpreadPort, batches: int) -> float:
        """Seconds of processor time for `batches` batches through the gateway."""
        receive, slots, gateway = port.receive, self.slots, self.gateway
        start = time.process_time()
        for _ in range(batches):
            receive(slots, BATCH)
            gateway.receive_batch(slots, BATCH)
            gateway.end_batch()
        return time.process_time() - start

    def receiving(self, port: RepeatPort | SpreadPort, batches: int) -> float:
        """Seconds for receiving alone."""
        receive, slots = port.receive, self.slots
        start = time.process_time()
        for _ in range(batches):
            receive(slots, BATCH)
        return time.process_time() - start

    def measure(self, frames: list[bytes], packets: int, rounds: int = 5) -> float:
        """Nanoseconds per packet, receiving not counted."""
        port = self.port(frames)
        batches = max(1, packets // BATCH)
        self.run(port, max(1, min(batches, len(frames) // BATCH)))  # warm caches, and every frame once
        figures = [self.run(port, batches) - self.receiving(port, batches) for _ in range(rounds)]
        if self.faults:
            raise SystemExit(f"faults on the packet path: {self.faults}")
        return median(figures) / (batches * BATCH) * 1e9

    def once(self, frames: list[bytes], name: str = "lan") -> float:
        """Seconds for every frame once."""
        port = self.port(frames, name)
        return self.run(port, len(frames) // BATCH) - self.receiving(port, len(frames) // BATCH)

    def establish(self, flows: list[tuple[int, int]], nat: bool) -> list[bytes]:
        """Both directions of each flow once; the original direction's frames."""
        there = [datagram(source, port) for source, port in flows]
        self.once(there)
        back = []
        for source, port in flows:
            back.append(reply(OUTSIDE4 if nat else source, port))
        self.once(back, "wan")
        return there

    def establish_tcp(self, flows: list[tuple[int, int]]) -> list[bytes]:
        """Three-way handshakes behind masquerade; a data segment of each flow, of 60 bytes on the wire."""
        server = int(ip_address(SERVER4))
        self.once([tcp("lan", source, server, port, 5001, SYN, 100, 0) for source, port in flows])
        self.once([tcp("wan", server, int(ip_address(OUTSIDE4)), 5001, port, SYN | ACK, 900, 101) for _, port in flows], "wan")
        self.once([tcp("lan", source, server, port, 5001, ACK, 101, 901) for source, port in flows])
        return [tcp("lan", source, server, port, 5001, ACK, 101, 901, b"x" * 6) for source, port in flows]

    def sent(self) -> int:
        return int(self.devices["wan"].tx_packets)


def datagram(source: int, port: int, size: int = 18) -> bytes:
    """UDP from `source` (a number) to the server, 60 bytes on the wire."""
    return ipv4("lan", source, int(ip_address(SERVER4)), port, 5001, size)


def reply(destination: int | str, port: int) -> bytes:
    return ipv4("wan", int(ip_address(SERVER4)), int(ip_address(destination)), 5001, port, 18)


def tcp(
    device: str, source: int, destination: int, sport: int, dport: int, flags: int, seq: int, ack: int, data: bytes = b""
) -> bytes:
    """One TCP segment over IPv4, checksums right."""
    segment = bytearray(struct.pack(">HHIIBBHHH", sport, dport, seq, ack, 5 << 4, flags, 0xFFFF, 0, 0) + data)
    pseudo = struct.pack(">IIHH", source, destination, 6, len(segment))
    segment[16:18] = checksum(pseudo + segment).to_bytes(2, "big")
    return frame(device, source, destination, 6, bytes(segment))


def ipv4(device: str, source: int, destination: int, sport: int, dport: int, size: int) -> bytes:
    return frame(device, source, destination, 17, struct.pack(">HHHH", sport, dport, 8 + size, 0) + b"x" * size)


def frame(device: str, source: int, destination: int, protocol: int, payload: bytes) -> bytes:
    head = bytearray(struct.pack(">BBHHHBBHII", 0x45, 0, 20 + len(payload), 0, 0, 64, protocol, 0, source, destination))
    head[10:12] = checksum(head).to_bytes(2, "big")
    return bytes.fromhex(MACS[device] + HOST_MAC + "0800") + bytes(head) + payload


def checksum(data: bytes | bytearray) -> int:
    """RFC 1071, of an even number of bytes."""
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF


def ipv6(size: int = 18) -> bytes:
    source, destination = ip_address("fd00:1::2").packed, ip_address("fd00:9::9").packed
    link = bytes.fromhex(MACS["lan"] + HOST_MAC + "86dd")
    udp = struct.pack(">HHHH", 4000, 5001, 8 + size, 0x1234) + b"x" * size
    return link + struct.pack(">IHBB", 6 << 28, len(udp), 17, 64) + source + destination + udp


def flows(count: int) -> list[tuple[int, int]]:
    """(source address, source port) of `count` flows."""
    base = int(ip_address("10.2.0.1"))
    return [(base + n // 60000, 1024 + n % 60000) for n in range(count)]


def rungs(packets: int) -> dict[str, float]:
    """Each way a packet can go."""
    some = flows(64)
    rows = {}
    plain = Bench()
    rows["plain forwarding, no rules"] = plain.measure([datagram(*flow) for flow in some], packets)
    rows["plain forwarding, IPv6"] = plain.measure([ipv6()] * 64, packets)
    bench = Bench("table inet f { chain c { type filter hook forward priority 0;\n}\n}")
    rows["one empty chain"] = bench.measure([datagram(*flow) for flow in some], packets)
    bench = Bench(FORWARD_ACCEPT)
    rows["conntrack, one rule, established"] = bench.measure(bench.establish(some, nat=False), packets)
    bench = Bench(TEN_RULES)
    rows["ten rules, conntrack, established"] = bench.measure(bench.establish(some, nat=False), packets)
    bench = Bench(TEN_RULES + MASQUERADE)
    rows["ten rules, conntrack, masquerade, established"] = bench.measure(bench.establish(some, nat=True), packets)
    bench = Bench(TEN_RULES + MASQUERADE + FLOWTABLE)
    frames = bench.establish(some, nat=True)
    bench.once(frames)
    rows["flowtable with masquerade"] = bench.measure(frames, packets)
    new = flows(min(packets, 60_000) // BATCH * BATCH)  # one outside address has 64,512 ports
    bench = Bench(TEN_RULES + MASQUERADE, maximum=1_000_000)
    rows["new connection, ten rules, masquerade"] = bench.once([datagram(*flow) for flow in new]) / len(new) * 1e9
    return rows


def expressions(packets: int) -> dict[str, float]:
    """What a rule of each kind adds to a packet, see bench.expressions."""
    rows: dict[str, float] = {}
    empty: dict[tuple[str, ...], float] = {}
    frames = [datagram(*flow) for flow in flows(64)]
    for name, kind in KINDS.items():
        key = kind.family, kind.hook, kind.against, kind.more
        if key not in empty:
            empty[key] = Bench(ruleset(kind, 0)).measure(frames, packets // 8, rounds=3)
        with_rules = Bench(ruleset(kind, kind.copies)).measure(frames, packets // 8 // (4 if kind.copies > 1 else 1), rounds=3)
        rows[name] = (with_rules - empty[key]) / kind.copies
    return rows


def scale(packets: int, largest: int) -> dict[str, dict[int, float]]:
    """Cost per packet as connections, set elements and linear rules grow."""
    rows: dict[str, dict[int, float]] = {"connections": {}, "set elements": {}, "linear rules": {}}
    for title, rules in (("connections", FORWARD_ACCEPT), ("connections, masquerade", TEN_RULES + MASQUERADE)):
        for count in (n for n in (1_000, 10_000, 100_000, 1_000_000) if n <= largest):
            if "masquerade" not in title or count <= 10_000:
                rows.setdefault(title, {})[count] = spread(rules, count, packets // 2)
    for count in (n for n in (1_000, 10_000, 50_000) if n <= largest):
        rows.setdefault("flows in the flowtable", {})[count] = spread(TEN_RULES + FLOWTABLE, count, packets // 2)
    for count in (n for n in (10, 10_000, 1_000_000) if n <= largest):
        elements = ", ".join(f"11.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}" for n in range(count))
        rules = f"set s {{ type ipv4_addr; elements = {{ {elements} }}; }}"
        bench = Bench(f"table ip f {{ {rules}\nchain c {{ type filter hook forward priority 0; ip saddr @s drop\n}}\n}}")
        sources = [datagram(int(ip_address("10.2.0.1")) + n, 9) for n in range(0, 65_536, 7)]
        rows["set elements"][count] = bench.measure(sources[: len(sources) // BATCH * BATCH], packets // 2)
    for count in (10, 100, 1000):
        text = "\n".join(f"udp dport {10_000 + n} accept" for n in range(count))
        bench = Bench(f"table ip f {{ chain c {{ type filter hook forward priority 0;\n{text}\n}}\n}}")
        rows["linear rules"][count] = bench.measure([datagram(*flow) for flow in flows(64)], max(packets // count, 2000), rounds=3)
    return rows


def spread(rules: str, count: int, packets: int) -> float:
    """Nanoseconds per packet with `count` connections, each packet of any of them; what making the frames costs is taken off."""
    bench = Bench(rules, maximum=2_000_000)
    base = int(ip_address("10.2.0.1"))
    port = SpreadPort("lan", datagram(base, 1024), base, count)
    port.device = bench.devices["lan"]
    bench.run(port, count // BATCH * 2)
    batches = max(1, packets // BATCH)
    figures = [bench.run(port, batches) - bench.receiving(port, batches) for _ in range(5)]
    if bench.faults:
        raise SystemExit(f"faults on the packet path: {bench.faults}")
    return median(figures) / (batches * BATCH) * 1e9


def show(results: dict[str, Any]) -> None:
    """The tables, as the README has them."""
    for title, part in (("rung", "rungs"), ("a rule with", "expressions"), ("memory", "memory")):
        if results.get(part):
            print(f"\n| {title} | ns |\n|---|---|")
            for name, value in results[part].items():
                print(f"| {name} | {value:,.{0 if value >= 20 else 1}f} |")
    for name, row in results.get("scale", {}).items():
        print(f"\n| {name} | ns per packet |\n|---|---|")
        for count, value in row.items():
            print(f"| {count:,} | {value:,.0f} |")
    for name, row in results.get("profile", {}).items():
        print(f"\n| {name} | instructions per packet |\n|---|---|")
        for where, value in row.items():
            print(f"| {where} | {value:,.0f} |")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.engine", description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results here as well")
    parser.add_argument("--quick", action="store_true", help="a tenth of the packets, no table above 100,000 entries")
    parts = ("rungs", "expressions", "scale", "memory", "profile")
    parser.add_argument("--only", nargs="*", choices=parts, help="only these parts")
    options = parser.parse_args()
    packets = 64_000 if options.quick else 640_000
    gc.collect()
    gc.disable()  # as the daemon does
    results: dict[str, Any] = {}
    for name, work in (
        ("rungs", lambda: rungs(packets)),
        ("expressions", lambda: expressions(packets)),
        ("scale", lambda: scale(packets, 100_000 if options.quick else 1_000_000)),
        ("memory", random_reads),
        ("profile", profile),
    ):
        if not options.only or name in options.only:
            print(f"measuring {name} …", file=sys.stderr)
            results[name] = work()
    show(results)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
