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
    """CPU seconds of a process and of its children, which are workers, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return (int(fields[11]) + int(fields[12])) / TICKS + sum(process_seconds(int(child)) for child in children)


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


def generator(lab: Lab, where: str, frame: bytes, count: int = 0, unique: int = 0) -> subprocess.Popen[bytes]:
    """bench.generator at a host's interface; `count` 0 is until it is stopped."""
    argv = [sys.executable, "-m", "bench.generator", "eth0", frame.hex(), str(count), str(unique)]
    return subprocess.Popen(netns.inside(lab.ns(where), argv), stdout=subprocess.DEVNULL)


def small_packet(lab: Lab, source: str | None = None) -> bytes:
    """A 60-byte frame: UDP from lan to wan."""
    return lab.up("lan", f.udp_packet(source or IP4.lan, IP4.wan, 4000, 9, bytes(18)))


SINK = """
import socket, sys, time
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
for port in range(10, 210):
    other = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    other.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    other.bind(("", port))
    globals()[f"sink{port}"] = other
sock.bind(("", 9))
print("ready", flush=True)
data = b""
while sys.argv[1:] and data != b"hello":
    data, peer = sock.recvfrom(2048)
    if data == b"hello":
        sock.sendto(data, peer)
time.sleep(600)
"""


@contextlib.contextmanager
def sink(lab: Lab, *answer: str) -> Iterator[None]:
    """Takes UDP at the ports that the generator sends to and lets it overflow: no ICMP errors. With `answer`: answers a "hello"."""
    process = subprocess.Popen(netns.inside(lab.ns("wan"), [sys.executable, "-c", SINK, *answer]), stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        if process.stdout.readline() != b"ready\n":
            raise AssertionError("the sink does not start")
        yield
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def datagrams(lab: Lab, where: str = "wan") -> int:
    """UDP datagrams that a host's sockets were given, large ones counted by their segments (RFC 4113: taken, refused, no port)."""
    text = netns.run(["cat", "/proc/net/snmp"], ns=lab.ns(where)).stdout
    names, values = (line.split() for line in text.splitlines() if line.startswith("Udp:"))
    row = dict(zip(names[1:], map(int, values[1:]), strict=True))
    return row["InDatagrams"] + row["InErrors"] + row["NoPorts"]


ESTABLISH = """
import socket, sys
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind(("", 4000))
sock.settimeout(1)
for _ in range(5):
    sock.sendto(b"hello", (sys.argv[1], 9))
    try:
        sock.recv(100)
        break
    except TimeoutError:
        continue
else:
    sys.exit("no answer")
sock.sendto(bytes(18), (sys.argv[1], 9))
"""


def packets_per_second(lab: Lab, seconds: float) -> float:
    """Datagrams a second that reach wan's sockets when lan sends 60-byte frames of one established flow as fast as it can."""
    with sink(lab, "answer"):
        netns.run([sys.executable, "-c", ESTABLISH, IP4.wan], ns=lab.ns("lan"))
        source = generator(lab, "lan", small_packet(lab))
        try:
            time.sleep(0.7)
            began, before = time.monotonic(), datagrams(lab)
            time.sleep(seconds)
            after, ended = datagrams(lab), time.monotonic()
            return (after - before) / (ended - began)
        finally:
            source.kill()
            source.wait()


def connections_per_second(lab: Lab, count: int, clash: bool = False) -> float:
    """New connections a second: every one of `count` packets is the first of its own; those that came through, by time.

    `clash`: all to one destination, so that masquerading them behind one address has to look for free ports and runs out of them.
    """
    with sink(lab):
        before = last = datagrams(lab)
        source = generator(lab, "lan", small_packet(lab), count, unique=1 if clash else 2)
        first = ended = time.monotonic()
        deadline = first + 60
        while time.monotonic() < deadline and (source.poll() is None or time.monotonic() - ended < 0.3):
            now = datagrams(lab)
            if now != last:
                ended = time.monotonic()
                first = first if last != before else ended
                last = now
            time.sleep(0.005)
        source.kill()
        source.wait()
        return (last - before) / max(ended - first, 1e-3)


def round_trip(lab: Lab, count: int = 2000) -> tuple[float, float]:
    """(median, 99th percentile) in microseconds of as many echo requests, each sent when the last was answered."""
    done = netns.run(["ping", "-A", "-c", str(count), IP4.wan], ns=lab.ns("lan"), timeout=60)
    times = sorted(float(text) * 1000 for text in re.findall(r"time=([\d.]+) ms", done.stdout))
    if len(times) < count * 0.99:
        raise AssertionError(done.stdout[-500:])
    return times[len(times) // 2], times[len(times) * 99 // 100]
