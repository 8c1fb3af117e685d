"""Fuzz the whole packet path: `make fuzz` (ten million frames, minutes) prints what became of every frame.

Exit status 1 if an exception escaped or was counted, a drop has no reason, or memory kept growing.
"""

from __future__ import annotations

import argparse
import json
import resource
import struct
import sys
import time
from ipaddress import ip_address
from pathlib import Path
from random import Random
from typing import Any

from frames import GATEWAY, HOST, mutations, seeds

from userfw.core.clock import Clock
from userfw.core.const import NFPROTO_IPV4, NFPROTO_IPV6
from userfw.core.drop import DropReason
from userfw.core.packet import Device, Packet
from userfw.ports.discard import DiscardPort
from userfw.router.gateway import Gateway
from userfw.router.interfaces import parse_address

BATCH = 64
STEP_NS = 5_000_000  # the clock moves on with every batch, so that timers, rate limits and reapers run too


class Fuzz:
    """A gateway between `lan` and `wan` on ports that swallow everything, optionally under a ruleset."""

    def __init__(self, seed: int, ruleset: str | None = None) -> None:
        self.rng = Random(seed)
        self.clock = Clock(10**12)
        self.faults: list[str] = []
        self.gateway = Gateway(self.clock, Random(seed), fault=lambda error, where: self.faults.append(f"{where}: {error!r}"))
        self.devices = []
        for index, (name, mac) in enumerate((("lan", GATEWAY), ("wan", "02:00:00:00:02:01")), 2):
            device = Device(name, index, bytes.fromhex(mac.replace(":", "")))
            device.port = DiscardPort()
            self.gateway.add_device(device)
            self.devices.append(device)
        for device, text in zip(
            (self.devices[0], self.devices[0], self.devices[1], self.devices[1]),
            ("192.168.1.1/24", "fd00:1::1/64", "203.0.113.1/24", "fd00:9::1/64"),
            strict=True,
        ):
            self.gateway.add_address(device, parse_address(text))
        for device, family, text in (
            (self.devices[0], NFPROTO_IPV4, "192.168.1.2"),
            (self.devices[0], NFPROTO_IPV6, "fd00:1::2"),
            (self.devices[1], NFPROTO_IPV4, "203.0.113.9"),
            (self.devices[1], NFPROTO_IPV6, "fd00:9::9"),
        ):
            hi, lo = divmod(int(ip_address(text)), 1 << 64)
            self.gateway.neighbours.set_static(device, family, hi, lo, bytes.fromhex(HOST.replace(":", "")))
        if ruleset is not None:
            load(self.gateway, ruleset)
        self.corpus = seeds("192.168.1.1", "192.168.1.2", "203.0.113.9", "fd00:1::1", "fd00:1::2", "fd00:9::9")
        self.slots = [Packet() for _ in range(BATCH)]
        self.dropped = 0

    def run(self, count: int) -> None:
        """Send `count` mutated frames, half of them from each side, some as large sends with a partial checksum."""
        n = 0
        for frame in mutations(self.rng, self.corpus, count):
            pkt = self.slots[n]
            device = self.devices[self.rng.randrange(4) == 0]
            if self.rng.randrange(8):
                repair(frame, device)
            pkt.load_frame(frame)
            pkt.iif = device
            if self.rng.randrange(16) == 0:
                pkt.vnet_flags, pkt.csum_start, pkt.csum_offset = 1, 34, 16
                pkt.gso_type, pkt.gso_size = self.rng.choice(((0, 0), (1, 536), (4, 1), (5, 100), (1, 65535)))
            n += 1
            if n == BATCH:
                self.flush(n)
                n = 0
        self.flush(n)

    def flush(self, n: int) -> None:
        self.dropped += self.gateway.receive_batch(self.slots, n)
        self.gateway.end_batch()
        self.clock.now += STEP_NS
        self.gateway.tick(self.clock.now)

    def report(self) -> dict[str, Any]:
        """Counters of all drops by name, what was sent, what failed."""
        drops = self.gateway.drop_counts()
        return {
            "dropped": self.dropped,
            "drops": {DropReason(reason).name: n for reason, n in enumerate(drops) if n} if isinstance(drops, list) else drops,
            "sent": {device.name: device.tx_packets for device in self.devices},
            "faults": self.faults,
            "memory_kb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        }


def repair(frame: bytearray, device: Device) -> None:
    """Make a mutated frame pass the first checks, so that what is behind them is reached: own MAC, IPv4 header checksum."""
    if len(frame) < 34:
        return
    if not frame[0] & 1:
        frame[0:6] = device.mac
    if frame[12:14] == b"\x08\x00" and frame[14] == 0x45:
        frame[24:26] = b"\0\0"
        total = sum(struct.unpack_from(">10H", frame, 14))
        total = (total & 0xFFFF) + (total >> 16)
        struct.pack_into(">H", frame, 24, ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF)


def load(gateway: Gateway, text: str) -> None:
    """Put a ruleset in force."""
    from userfw.ruleset.manager import RulesetManager

    result = RulesetManager(gateway).execute(text)
    if result.status:
        raise SystemExit(result.errors)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--ruleset", type=Path)
    options = parser.parse_args()
    fuzz = Fuzz(options.seed, options.ruleset.read_text() if options.ruleset else None)
    fuzz.run(min(options.frames, 200_000))  # pools, caches and tables fill up
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.monotonic()
    done = min(options.frames, 200_000)
    while done < options.frames:
        step = min(500_000, options.frames - done)
        fuzz.run(step)
        done += step
        print(f"{done:>11,} frames  {time.monotonic() - start:6.0f} s  {len(fuzz.faults)} faults", file=sys.stderr)
    report = fuzz.report()
    report["frames"] = done
    report["memory_growth_kb"] = report["memory_kb"] - before
    print(json.dumps(report, indent=2))
    grew = report["memory_growth_kb"] > 20_000
    return int(bool(fuzz.faults) or "NOT_SPECIFIED" in report["drops"] or grew)


if __name__ == "__main__":
    sys.exit(main())
