"""Loads for a laboratory: iperf3 streams, small packets, new connections, round trips; and what they cost in CPU time."""

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lab import frames as f
from lab import netns
from lab.families import IP4
from lab.topology import Lab

TICKS = os.sysconf("SC_CLK_TCK")


def busy_seconds() -> float:
    """CPU seconds that this machine has spent on anything but idling."""
    fields = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    return (sum(fields) - fields[3] - fields[4]) / TICKS


def process_seconds(pid: int) -> float:
    """CPU seconds of a process, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


@dataclass
class Cost:
    """CPU seconds between `start` and the end of the context: of the machine, of the daemon (0 if there is none)."""

    machine: float = 0.0
    daemon: float = 0.0


@contextlib.contextmanager
def costs(pid: int | None) -> Iterator[Cost]:
    """Measure CPU time around a load."""
    cost = Cost()
    machine, daemon = busy_seconds(), process_seconds(pid) if pid else 0.0
    yield cost
    cost.machine = busy_seconds() - machine
    cost.daemon = process_seconds(pid) - daemon if pid else 0.0


@contextlib.contextmanager
def iperf_server(lab: Lab, where: str = "wan") -> Iterator[None]:
    """An iperf3 server in a host."""
    server = subprocess.Popen(netns.inside(lab.ns(where), ["iperf3", "-s"]), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 5
        while ":5201 " not in netns.run(["ss", "-ltnH"], ns=lab.ns(where)).stdout:
            if time.monotonic() > deadline:
                raise AssertionError("iperf3 does not listen")
            time.sleep(0.05)
        yield
    finally:
        server.terminate()
        server.wait()


def tcp(lab: Lab, streams: int, seconds: float, pid: int | None) -> tuple[float, float, float]:
    """(Gbit/s received, CPU seconds of the machine per GB, of the daemon per GB) of TCP from lan to wan."""
    with iperf_server(lab), costs(pid) as cost:
        done = netns.run(["iperf3", "-J", "-c", IP4.wan, "-t", str(seconds), "-P", str(streams)], ns=lab.ns("lan"),
                         timeout=seconds + 30)
    received = json.loads(done.stdout)["end"]["sum_received"]
    gigabytes = received["bytes"] / 1e9
    return received["bits_per_second"] / 1e9, cost.machine / gigabytes, cost.daemon / gigabytes


def received_packets(lab: Lab, where: str = "wan") -> int:
    """Packets that have come in at the host's interface."""
    text = netns.run(["ip", "-s", "-j", "link", "show", "eth0"], ns=lab.ns(where)).stdout
    return int(json.loads(text)[0]["stats64"]["rx"]["packets"])


def generator(lab: Lab, where: str, frame: bytes, count: int = 0, unique: bool = False) -> subprocess.Popen[bytes]:
    """bench.generator at a host's interface; `count` 0 is until it is stopped."""
    argv = [sys.executable, "-m", "bench.generator", "eth0", frame.hex(), str(count), str(int(unique))]
    return subprocess.Popen(netns.inside(lab.ns(where), argv), stdout=subprocess.DEVNULL)


def small_packet(lab: Lab, source: str | None = None) -> bytes:
    """A 60-byte frame: UDP from lan to wan."""
    return lab.up("lan", f.udp_packet(source or IP4.lan, IP4.wan, 4000, 9, bytes(18)))


def packets_per_second(lab: Lab, seconds: float) -> float:
    """Forwarded packets a second when lan sends 60-byte frames of one flow as fast as it can."""
    source = generator(lab, "lan", small_packet(lab))
    try:
        time.sleep(0.7)
        began, before = time.monotonic(), received_packets(lab)
        time.sleep(seconds)
        after, ended = received_packets(lab), time.monotonic()
        return (after - before) / (ended - began)
    finally:
        source.kill()
        source.wait()


def connections_per_second(lab: Lab, count: int) -> float:
    """New connections a second: every one of `count` packets is the first of its own; those that came through, by time."""
    before = last = received_packets(lab)
    source = generator(lab, "lan", small_packet(lab), count, unique=True)
    first = ended = time.monotonic()
    deadline = first + 60
    while time.monotonic() < deadline and (source.poll() is None or time.monotonic() - ended < 0.3):
        now = received_packets(lab)
        if now != last:
            ended = time.monotonic()
            first = first if last != before else ended
            last = now
        time.sleep(0.005)
    source.kill()
    source.wait()
    return (last - before) / max(ended - first, 1e-3)


def round_trip(lab: Lab, count: int = 2000) -> float:
    """Median-like round trip in microseconds: the mean that ping reports for as many back-to-back requests."""
    done = netns.run(["ping", "-q", "-A", "-c", str(count), IP4.wan], ns=lab.ns("lan"), timeout=60)
    match = re.search(r"= [\d.]+/([\d.]+)/", done.stdout)
    if not match:
        raise AssertionError(done.stdout)
    return float(match[1]) * 1000
