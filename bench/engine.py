"""Nanoseconds per packet of the engine alone: a gateway on ports that swallow frames, 60-byte UDP packets in batches of 64.

    make bench-engine

Each rung is timed several times in turns; the time to fill the packets is measured alone and taken off. The best and the median
are printed: the best tells what the code costs, the median what the machine was doing.
"""

import argparse
import random
import statistics
import sys
import time
from ipaddress import ip_address

from lab import frames as f
from lab.families import IP4
from lab.topology import SIDES

from userfw.core.clock import Clock
from userfw.core.packet import Device, Packet
from userfw.ports.discard import DiscardPort
from userfw.router.gateway import Gateway
from userfw.router.interfaces import parse_address
from userfw.ruleset.manager import RulesetManager

BATCH = 64
CHAIN = "type filter hook forward priority filter; policy accept;"
TEN = "\n".join(f"udp dport {n} drop" for n in range(100, 110))
NAT = 'chain n { type nat hook postrouting priority srcnat; oifname "wan" masquerade; }\n'
FLOW = "flowtable ft { hook ingress priority filter; devices = { lan, wan }; }\n"
RUNGS: dict[str, tuple[str, bool]] = {  # name -> (ruleset, every packet the first of its own)
    "no rules": ("", False),
    "10 rules": (f"table inet t {{ chain c {{ {CHAIN}\n{TEN}\n}}\n}}", False),
    "a set of 1,000": ("table inet t {\nset s { type ipv4_addr; elements = { " + ", ".join(
        f"10.0.{n // 250}.{n % 250}" for n in range(1000)) + f" }}\n}}\nchain c {{ {CHAIN}\nip saddr @s drop\n}}\n}}", False),
    "conntrack": (f"table inet t {{ chain c {{ {CHAIN}\nct state established,related accept\n}}\n}}", False),
    "conntrack, masquerade": (f"table inet t {{ chain c {{ {CHAIN}\nct state established,related accept\n}}\n{NAT}}}", False),
    "flowtable, masquerade": (f"table inet t {{ {FLOW}chain c {{ {CHAIN}\nmeta l4proto udp flow add @ft\n"
                              f"ct state established,related accept\n}}\n{NAT}}}", False),
    "new connection": (f"table inet t {{ chain c {{ {CHAIN}\nct state established,related accept\n}}\n}}", True),
    "new connection, masquerade": (f"table inet t {{ chain c {{ {CHAIN}\nct state established,related accept\n}}\n{NAT}}}", True),
}


class Bench:
    """One gateway under one ruleset."""

    def __init__(self, ruleset: str) -> None:
        self.clock = Clock(10**15)
        self.faults: list[BaseException] = []
        self.gateway = Gateway(self.clock, random.Random(1), fault=lambda error, where: self.faults.append(error))
        self.devices: dict[str, Device] = {}
        for index, name in enumerate(("lan", "wan"), 2):
            side = SIDES[name]
            device = Device(name, index, f.mac(side.router_mac), 1500)
            device.port = DiscardPort()
            self.devices[name] = device
            self.gateway.add_device(device)
            self.gateway.add_address(device, parse_address(f"{side.ip4(1)}/24"))
            for number in (10, 11):
                high, low = divmod(int(ip_address(side.ip4(number))), 1 << 64)
                self.gateway.neighbours.set_static(device, 2, high, low, f.mac(side.host_mac))
        result = RulesetManager(self.gateway).execute(ruleset)
        if result.errors:
            raise SystemExit(result.errors)
        self.slots = [Packet() for _ in range(BATCH)]

    def fill(self, frames: list[bytes]) -> None:
        """The batch as the port would bring it."""
        for slot, frame in zip(self.slots, frames, strict=True):
            slot.load_frame(frame)
            slot.iif = self.devices["lan"]

    def handle(self) -> None:
        """The batch through the gateway."""
        self.gateway.receive_batch(self.slots, BATCH)
        self.gateway.end_batch()

    def settle(self) -> None:
        """A packet each way, three seconds apart, so that the flow is established."""
        answer = f.udp_packet(IP4.wan, IP4.out if self.masked else IP4.lan, 9, 4000)
        there, back = frame(4000), f.eth(SIDES["wan"].router_mac, SIDES["wan"].host_mac, f.ETH_IP, answer)
        for _ in range(2):
            self.fill([there] * BATCH)
            self.handle()
            slot = self.slots[0]
            slot.load_frame(back)
            slot.iif = self.devices["wan"]
            self.gateway.receive_batch(self.slots[:1], 1)
            self.gateway.end_batch()
            self.clock.now += 3 * 10**9

    masked = False


def frame(sport: int, dport: int = 9) -> bytes:
    """60 bytes from lan to wan."""
    packet = f.ip4(IP4.lan, IP4.wan, f.UDP, f.udp(IP4.lan, IP4.wan, sport, dport, bytes(18), check=0))
    return f.eth(SIDES["lan"].router_mac, SIDES["lan"].host_mac, f.ETH_IP, packet)


def run(ruleset: str, unique: bool, packets: int) -> float:
    """Nanoseconds per packet of one rung."""
    bench = Bench(ruleset)
    bench.masked = "masquerade" in ruleset
    batches = packets // BATCH
    if unique:
        frames = [frame(1024 + n % 60000, 9 + n // 60000) for n in range(batches * BATCH)]
    else:
        bench.settle()
        frames = [frame(4000)] * BATCH
    slices = [frames[n * BATCH % len(frames):][:BATCH] for n in range(batches)] if unique else [frames] * batches
    began = time.perf_counter_ns()
    for part in slices:
        bench.fill(part)
    filling = time.perf_counter_ns() - began
    began = time.perf_counter_ns()
    for part in slices:
        bench.fill(part)
        bench.handle()
    took = time.perf_counter_ns() - began - filling
    if bench.faults:
        raise bench.faults[0]
    sent = bench.devices["wan"].port
    assert isinstance(sent, DiscardPort)
    if sent.packets < batches * BATCH:
        raise SystemExit(f"only {sent.packets} of {batches * BATCH} packets were sent")
    return took / (batches * BATCH)


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="make bench-engine", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--packets", type=int, default=100_000)
    args = parser.parse_args()
    values: dict[str, list[float]] = {name: [] for name in RUNGS}
    for _ in range(args.rounds):
        for name, (ruleset, unique) in RUNGS.items():
            values[name].append(run(ruleset, unique, args.packets))
    print(f"{'rung':<30} {'best':>9} {'median':>9}   ns per packet")
    for name, each in values.items():
        print(f"{name:<30} {min(each):>9.0f} {statistics.median(each):>9.0f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
