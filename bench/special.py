"""Measurements that need a set-up of their own: linear rules, a SYN flood, how long starting takes.

Each yields (who, what, value); the reference comes first.
"""

import contextlib
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator

from lab import frames as f
from lab import netns
from lab.families import IP4
from lab.kernel import KernelRouter
from lab.topology import Lab
from lab.userfw import ROOT, UserfwRouter, environment

from . import load
from .routers import daemon_pid, kernel, laboratory, userfw

Found = Iterator[tuple[str, str, float]]
KERNEL, TAP = "kernel, veth", "userfw, TAP, no flowtable"
DEMO = ROOT / "demo" / "gateway.nft"
COUNTS = (10, 100, 1000)


def linear(count: int) -> str:
    """A chain of so many rules that all look at the packet and do not match."""
    rules = "\n".join(f"udp dport {20_000 + number} accept" for number in range(count))
    return f"table ip filter {{\n chain forward {{\n type filter hook forward priority filter; policy accept;\n{rules}\n}}\n}}"


def rules(seconds: float) -> Found:
    """60-byte UDP through 10, 100, 1,000 linear rules, and what a rule costs: time per packet over the number of rules."""
    for who in (KERNEL, TAP):
        times = {}
        lab = laboratory(KernelRouter() if who == KERNEL else UserfwRouter(linear(COUNTS[0])))
        try:
            with lab.live():
                for count in COUNTS:
                    lab.router.load(linear(count))
                    speed = load.packets_per_second(lab, seconds)
                    times[count] = 1e9 / max(speed, 1.0)
                    yield who, f"{count:,} linear rules", speed
        finally:
            lab.stop()
        yield who, "a linear rule", (times[COUNTS[-1]] - times[COUNTS[0]]) / (COUNTS[-1] - COUNTS[0])


SILENT = """table ip silent { chain input { type filter hook input priority raw; tcp dport 80 drop
}
}
"""


@contextlib.contextmanager
def flooding(lab: Lab, kinds: int = 100_000) -> Iterator[None]:
    """SYNs of `kinds` connections from dmz to wan as fast as they can be sent."""
    frame = lab.up("dmz", f.tcp_packet("192.168.2.10", IP4.wan, 1024, 80))
    argv = [sys.executable, "-m", "bench.blast", "eth0", frame.hex(), str(kinds)]
    before = load.received_packets(lab)
    source = subprocess.Popen(netns.inside(lab.ns("dmz"), argv))
    try:
        deadline = time.monotonic() + 30
        while load.received_packets(lab) < before + 100 and time.monotonic() < deadline:
            time.sleep(0.05)
        yield
    finally:
        source.kill()
        source.wait()


class Asking:
    """While the context lasts a thread asks the daemon for its status ten times a second; `times` are the answers' seconds."""

    def __init__(self, lab: Lab) -> None:
        self.router, self.times, self.over = lab.router, [0.0], threading.Event()
        self.thread = threading.Thread(target=self._ask)

    def _ask(self) -> None:
        while isinstance(self.router, UserfwRouter) and not self.over.wait(0.1):
            self.times.append(self.router.answer_time("status"))

    def __enter__(self) -> "Asking":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()


NICE = -5  # as systemd/userfw.service says; Linux forwards ahead of all programs


def flood(seconds: float) -> Found:
    """TCP of one connection without and under a SYN flood from another network, and how fast the daemon answers meanwhile.

    First the port flooded is silent, then it answers with resets.
    """
    for who in (KERNEL, "userfw, TAP to TAP"):
        names = ("lan", "wan", "dmz")
        lab = kernel(names) if who == KERNEL else userfw("tap", True, names)
        try:
            with lab.live():
                pid = daemon_pid(lab)
                if pid is not None:
                    os.setpriority(os.PRIO_PROCESS, pid, NICE)
                netns.run(["nft", "-f", "-"], ns=lab.ns("wan"), text=SILENT)
                calm = load.tcp(lab, 1, seconds, pid)[0]
                before = lab_conns(lab)
                with flooding(lab):
                    with Asking(lab) as asking:
                        hard = load.tcp(lab, 1, seconds, pid)[0]
                    after = lab_conns(lab)
                yield who, "TCP under SYN flood", hard
                yield who, "kept under SYN flood", hard / max(calm, 1e-9)
                yield who, "connections that the flood made", float(after - before)
                if pid is not None:
                    yield who, "status asked in the flood", statistics.median(asking.times[1:] or [0.0]) * 1000
                    yield who, "status asked, slowest", max(asking.times) * 1000
                netns.run(["nft", "flush", "ruleset"], ns=lab.ns("wan"))
                lab.router.forget()
                with flooding(lab):
                    yield who, "kept under flood and resets", load.tcp(lab, 1, seconds, pid)[0] / max(calm, 1e-9)
        finally:
            lab.stop()


def lab_conns(lab: Lab) -> int:
    """How many connections the router has."""
    if isinstance(lab.router, UserfwRouter):
        return int(lab.router.ask("status")["connections"])
    return int(netns.run(["cat", "/proc/sys/net/netfilter/nf_conntrack_count"], ns=lab.ns("rt")).stdout)


def seconds_of(argv: list[str], ns: str | None = None) -> float:
    """Seconds that a command takes from exec to its end."""
    began = time.monotonic()
    subprocess.run(netns.inside(ns, argv) if ns else argv, check=True, env=environment(), stdout=subprocess.DEVNULL, cwd=ROOT)
    return time.monotonic() - began


def kernels(text: str, ns: str) -> str:
    """The ruleset as this kernel takes it: some have no flowtables."""
    probe = "add table inet probe; add flowtable inet probe f { hook ingress priority 0; devices = { lo }; }"
    if netns.run(["nft", "-c", "-f", "-"], ns=ns, text=probe, check=False).returncode == 0:
        return "flush ruleset\n" + text
    text = re.sub(r"flowtable \w+ \{[^}]*\{[^}]*\}[^}]*\}", "", text)
    return "flush ruleset\n" + re.sub(r"^.*flow add @.*$", "", text, flags=re.MULTILINE)


def start(seconds: float) -> Found:
    """From exec to the first forwarded packet with the demo's ruleset, and `userfw --help`; each beside a reference."""
    lab = laboratory(KernelRouter(), names=("lan", "dmz", "wan", "edge"))
    try:
        with tempfile.NamedTemporaryFile("w", suffix=".nft") as file:
            file.write(kernels(DEMO.read_text(), lab.ns("rt")))
            file.flush()
            took = [seconds_of(["nft", "-f", file.name], lab.ns("rt")) for _ in range(3)]
        yield "nft -f, the same ruleset", "start to forwarding", statistics.median(took)
    finally:
        lab.stop()
    yield "userfw", "start to forwarding", _first_packet()
    yield "python3 -c pass", "--help", statistics.median(seconds_of([sys.executable, "-c", "pass"]) for _ in range(5))
    yield "userfw", "--help", statistics.median(seconds_of([sys.executable, "-m", "userfw", "--help"]) for _ in range(5))


def _first_packet() -> float:
    """Packet sockets, because TAP devices are there no earlier than the daemon: veths stay when it ends and is started again."""
    router = UserfwRouter(DEMO.read_text())
    lab = laboratory(router, "packet", ("lan", "dmz", "wan", "edge"))
    try:
        with lab.live():
            for name in ("lan", "wan"):  # a host that has asked in vain asks again only after a second
                side = lab.sides[name]
                netns.ip(lab.ns(name), f"neigh replace {side.ip4(1)} lladdr {side.router_mac} dev eth0 nud permanent")
            argv = [sys.executable, "-m", "userfw", "run", "-c", str(router.dir / "userfw.toml")]
            assert router.process
            router.process.send_signal(signal.SIGTERM)
            router.process.wait(10)
            router.control = None
            taker = netns.within(lab.ns("wan"), lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            giver = netns.within(lab.ns("lan"), lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            with taker, giver:
                taker.bind((IP4.wan, 9999))
                taker.settimeout(0.002)
                began = time.monotonic()
                router.process = subprocess.Popen(netns.inside(router.ns, argv), env=environment(), cwd=ROOT,
                                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                while time.monotonic() - began < 20:
                    with contextlib.suppress(OSError):
                        giver.sendto(b"anybody there?", (IP4.wan, 9999))
                    with contextlib.suppress(TimeoutError):
                        taker.recv(100)
                        return time.monotonic() - began
        raise AssertionError("no packet was forwarded in 20 seconds")
    finally:
        lab.stop()


SECTIONS = {"rules": rules, "flood": flood, "start": start}
UNITS = {
    **{f"{count:,} linear rules": "packets/s" for count in COUNTS}, "a linear rule": "ns",
    "TCP under SYN flood": "Gbit/s", "kept under SYN flood": "of calm", "kept under flood and resets": "of calm",
    "connections that the flood made": "",
    "status asked in the flood": "ms", "status asked, slowest": "ms", "start to forwarding": "s", "--help": "s",
}
ROWS = {
    "rules": (*(f"{count:,} linear rules" for count in COUNTS), "a linear rule"),
    "flood": tuple(name for name in UNITS if "flood" in name or "status" in name),
    "start": ("start to forwarding", "--help"),
}
