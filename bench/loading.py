"""How long rulesets take to load beside nft and the kernel, and how long packets wait meanwhile.

    make bench-load ARGS='--rounds 3'

Loads are whole commands (`nft -f FILE`, `userfw nft -f FILE` to a running daemon), the longest gap is that of a stream of datagrams
through the router while a ruleset of 10,000 rules is replaced, and while 100,000 elements are added to a set that rules look up.
"""

import argparse
import os
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from lab import netns
from lab.families import IP4
from lab.kernel import KernelRouter
from lab.topology import SIDES, Lab
from lab.userfw import ROOT, UserfwRouter, environment

from .load import process_seconds

PORT = 9999
INTERVAL = 0.001
"""Seconds between datagrams of the stream."""


def address(n: int, first: int = 10) -> str:
    return f"{first + (n >> 24)}.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}"


def rules(verdict: str = "accept") -> str:
    """Ten thousand rules; the stream's packets pass all of them."""
    lines = "".join(f"\t\tip saddr {address(n << 8)} tcp dport {n + 1} counter {verdict}\n" for n in range(10_000))
    return f"table inet t {{\n\tchain c {{\n\t\ttype filter hook forward priority 0; policy accept;\n{lines}\t}}\n}}\n"


def set_of(elements: str, flags: str = "") -> str:
    head = f"\tset s {{\n\t\ttype ipv4_addr;{flags}\n\t\telements = {{ {elements} }}\n\t}}\n"
    chain = "\tchain c {\n\t\ttype filter hook forward priority 0; policy accept;\n\t\tip saddr @s drop\n\t}\n"
    return f"table inet t {{\n{head}{chain}}}\n"


def addresses(count: int, first: int = 10) -> str:
    return ", ".join(address(n, first) for n in range(count))


def intervals(count: int, first: int = 16) -> str:
    return ", ".join(f"{address(n << 6, first)}/27" for n in range(count))


LOADS: dict[str, Callable[[], str]] = {
    "10,000 rules": rules,
    "100,000 addresses": lambda: set_of(addresses(100_000)),
    "1,000,000 intervals": lambda: set_of(intervals(1_000_000), " flags interval;"),
}
UPDATES: dict[str, tuple[Callable[[], str], Callable[[], str]]] = {
    "10,000 rules replaced": (rules, lambda: "flush chain inet t c\n" + rules("drop")),
    "100,000 addresses added": (
        lambda: set_of(addresses(100_000)), lambda: f"add element inet t s {{ {addresses(100_000, 11)} }}\n",
    ),
    "100,000 intervals added": (
        lambda: set_of(intervals(100_000), " flags interval;"), lambda: f"add element inet t s {{ {intervals(100_000, 36)} }}\n",
    ),
}  # fmt: skip


def kernel() -> Lab:
    sides = {name: replace(SIDES[name], mtu=1500) for name in ("lan", "wan")}
    lab = Lab(KernelRouter(), sides, exact=False)
    lab.start()
    return lab


def userfw() -> Lab:
    sides = {name: replace(SIDES[name], mtu=1500, port="tap") for name in ("lan", "wan")}
    lab = Lab(UserfwRouter(), sides, exact=False)
    lab.start()
    return lab


ROUTERS = {"nft": kernel, "userfw": userfw}


def timed(lab: Lab, text: str, folder: Path) -> tuple[float, float]:
    """Seconds that the command takes, and processor seconds of it and of the daemon."""
    path = folder / "rules.nft"
    path.write_text(text)
    router = lab.router
    if isinstance(router, UserfwRouter):
        argv = [sys.executable, "-m", "userfw", "nft", "--socket", str(router.dir / "control.sock"), "-f", str(path)]
        pid = router.process.pid if router.process else None
    else:
        argv, pid = netns.inside(lab.ns("rt"), ["nft", "-f", str(path)]), None
    before, began = process_seconds(pid) if pid else 0.0, time.monotonic()
    child = subprocess.Popen(argv, env=environment(), cwd=ROOT)
    _, status, usage = os.wait4(child.pid, 0)
    took = time.monotonic() - began
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise AssertionError(f"{argv} ended with {child.returncode}")
    return took, usage.ru_utime + usage.ru_stime + (process_seconds(pid) - before if pid else 0.0)


class Watch:
    """A stream of datagrams from lan to wan; `longest` the longest time between two that arrive one after the other."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.done = threading.Event()
        self.arrived: list[float] = []
        self.receiver = netns.within(lab.ns("wan"), lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self.sender = netns.within(lab.ns("lan"), lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self.receiver.bind((IP4.wan, PORT))
        self.receiver.settimeout(0.2)
        self.threads = [threading.Thread(target=self._send), threading.Thread(target=self._receive)]

    def __enter__(self) -> "Watch":
        for thread in self.threads:
            thread.start()
        time.sleep(0.5)
        self.arrived.clear()
        return self

    def __exit__(self, *_: object) -> None:
        time.sleep(0.2)
        self.done.set()
        for thread in self.threads:
            thread.join()
        self.receiver.close()
        self.sender.close()

    @property
    def longest(self) -> float:
        return max((b - a for a, b in pairwise(self.arrived)), default=float("inf"))

    def _send(self) -> None:
        number = 0
        while not self.done.is_set():
            self.sender.sendto(struct.pack("!Q", number), (IP4.wan, PORT))
            number += 1
            time.sleep(INTERVAL)

    def _receive(self) -> None:
        while not self.done.is_set():
            try:
                self.receiver.recv(64)
            except TimeoutError:
                continue
            self.arrived.append(time.monotonic())


def measure_loads(name: str, folder: Path, loads: list[str]) -> dict[str, float]:
    """Every load on a router of its own."""
    found = {}
    for what in loads:
        lab = ROUTERS[name]()
        try:
            found[what], found[f"{what}: processor time"] = timed(lab, LOADS[what](), folder)
        finally:
            lab.stop()
    return found


def measure_gaps(name: str, folder: Path) -> dict[str, float]:
    """The longest gap of each update, and of as long a time without one."""
    found = {}
    for what, (before, update) in UPDATES.items():
        lab = ROUTERS[name]()
        try:
            timed(lab, before(), folder)
            with lab.live():
                text = update()
                with Watch(lab) as quiet:
                    time.sleep(1)
                with Watch(lab) as watch:
                    timed(lab, text, folder)
                found[f"{what}: longest gap"] = watch.longest
                found.setdefault("nothing: longest gap", quiet.longest)
        finally:
            lab.stop()
    return found


def main() -> int:
    """Command line."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="make bench-load", description=__doc__, formatter_class=raw)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", choices=LOADS, default=list(LOADS), help="only these loads")
    args = parser.parse_args()
    if os.geteuid():
        print("the benchmark makes network namespaces: run it as root", file=sys.stderr)
        return 2
    netns.exit_on_sigterm()
    values: dict[str, dict[str, list[float]]] = {name: {} for name in ROUTERS}
    with tempfile.TemporaryDirectory() as place:
        for _ in range(args.rounds):
            for name in ROUTERS:
                found = {**measure_loads(name, Path(place), args.only), **measure_gaps(name, Path(place))}
                for what, value in found.items():
                    values[name].setdefault(what, []).append(value)
    print(f"{'median of ' + str(args.rounds):42}" + "".join(f"{name:>12}" for name in ROUTERS))
    for what in values["nft"]:
        cells = (statistics.median(values[name][what]) for name in ROUTERS)
        print(f"{what:42}" + "".join(f"{cell * 1000:>9.1f} ms" if "gap" in what else f"{cell:>10.2f} s" for cell in cells))
    return 0


if __name__ == "__main__":
    sys.exit(main())
