"""Packets a second with packets made inside the kernel: XDP and tc offload beside Linux's nf_tables; and the software card.

    make bench-offload ARGS='--rounds 5 --seconds 3'

Generator: BPF_PROG_TEST_RUN with BPF_F_TEST_XDP_LIVE_FRAMES at the client's veth (Linux 5.18): a program writes each frame afresh
and sends it out of the interface that it seems to have come from. pktgen is not needed. Every router gets the same frames the same
way; NAPI is on at both ends of the veths (`gro on`). Counted is what a program at the server's XDP sees.
"""

import argparse
import contextlib
import ctypes
import datetime
import errno
import json
import os
import platform
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from lab import netns
from lab.families import IP4
from lab.kernel import KernelRouter
from lab.topology import SIDES, Lab
from lab.userfw import UserfwRouter

from userfw.ports import bpf
from userfw.ports.assembler import R0, R1, R2, R3, R4, R10, Program

from . import load
from .stats import summary

RESULTS = Path(__file__).with_name("results")
RULES = """table inet gateway {
    %s
    chain forward {
        type filter hook forward priority filter; policy drop;
        %s
        ct state established,related accept
        iifname "lan" oifname "wan" accept
    }
    chain postrouting { type nat hook postrouting priority srcnat; oifname "wan" masquerade
    }
}
"""
TABLE = "flowtable fast { hook ingress priority filter; devices = { lan, wan }; flags offload; }"
ENTER = "meta l4proto { tcp, udp } ct state established flow add @fast"
XDP_TX, XDP_PASS, XDP_DROP = 3, 2, 1
NATIVE = 4  # XDP_FLAGS_DRV_MODE
LIVE_FRAMES = 1 << 1
BATCH = 128  # frames made at once; a veth's ring holds 256
DISCARD, GENERATED = 9, 46  # UDP port; bytes of the network layer of a 60-byte frame


class OffloadRouter(UserfwRouter):
    """userfw on veths with `flags offload`."""

    def __init__(self, more: dict[str, Any], port: dict[str, Any]) -> None:
        super().__init__(RULES % (TABLE, ENTER), gateway=False)
        self.more, self.port = more, port

    def write_config(self) -> None:
        """The devices are there, the daemon is not: NAPI at both ends, which it looks at when it chooses the attach point."""
        napi(self.lab)
        super().write_config()

    def config(self) -> dict[str, Any]:
        """With the driver's own keys."""
        made = super().config() | self.more
        for port in made["port"]:
            port.update(self.port)
        return made


def napi(lab: Lab) -> None:
    """Receive by NAPI at both ends of every veth."""
    for name in lab.sides:
        device = name if isinstance(lab.router, KernelRouter) else f"{name}0"
        netns.ip(lab.ns(name), "link set eth0 up")  # the other end learns of it only then
        netns.run(["ethtool", "-K", device, "gro", "on"], ns=lab.ns("rt"))
        netns.run(["ethtool", "-K", "eth0", "gro", "on"], ns=lab.ns(name))


def kernel() -> Lab:
    """The running kernel."""
    lab = Lab(KernelRouter(), _sides(), exact=False)
    lab.start()
    napi(lab)
    lab.router.load(RULES % ("", ""))
    return lab


def userfw(more: dict[str, Any], port: dict[str, Any]) -> Lab:
    """The daemon with one of its drivers."""
    lab = Lab(OffloadRouter(more, port), _sides(), exact=False)
    lab.start()
    return lab


def _sides() -> Any:
    return {name: replace(SIDES[name], mtu=1500, port="packet") for name in ("lan", "wan")}


ROUTERS: dict[str, Callable[[], Lab]] = {
    "kernel, nf_tables": kernel,
    "userfw, XDP": lambda: userfw({"offload": {"xdp": ["lan", "wan"]}}, {}),
    "userfw, tc": lambda: userfw({}, {"capture": "tc"}),
    "userfw, software NIC": lambda: userfw({"nic": [{"name": "card", "ports": ["lan", "wan"]}]}, {}),
}


def measure(lab: Lab, seconds: float, bulk: bool) -> dict[str, float]:
    """Packets a second of one UDP flow that was seen both ways; and Gbit/s of a TCP download."""
    found: dict[str, float] = {}
    with lab.live():
        netns.run(["ping", "-q", "-c", "2", "-i", "0.2", IP4.wan], ns=lab.ns("lan"))
        if bulk:
            found["TCP, Gbit/s"] = load.tcp(lab, 1, seconds, None)[0]
            lab.router.forget()
        with counter(lab.ns("wan")) as count:
            establish(lab)
            with generator(lab):
                time.sleep(0.5)
                began, before = time.monotonic(), count()
                time.sleep(seconds)
                found["60-byte UDP, packets/s"] = (count() - before) / (time.monotonic() - began)
    return found


def establish(lab: Lab) -> None:
    """Have the flow seen both ways and long enough to be offloaded: datagrams that a server echoes."""
    code = ("import socket; s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.bind(('0.0.0.0',9)); s.settimeout(5)\n"
            "for _ in range(40): d,a=s.recvfrom(99); s.sendto(d,a)")
    server = subprocess.Popen(netns.inside(lab.ns("wan"), [sys.executable, "-c", code]))
    client = ("import socket,time; s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.settimeout(1); time.sleep(0.4)\n"
              f"s.bind(('{IP4.lan}',4000))\n"
              f"for _ in range(40): s.sendto(b'x'*17,('{IP4.wan}',9)); s.recv(99); time.sleep(0.01)")
    netns.run([sys.executable, "-c", client], ns=lab.ns("lan"))
    server.wait(10)
    if isinstance(lab.router, UserfwRouter):
        deadline = time.monotonic() + 5
        while not lab.router.ask("offload")["flows"]["hardware"]:
            if time.monotonic() > deadline:
                raise AssertionError(f"the flow is not in hardware: {lab.router.ask('offload', flows=True)}")
            time.sleep(0.05)


@contextlib.contextmanager
def generator(lab: Lab) -> Iterator[None]:
    """60-byte frames of the flow from lan, made in the kernel, as fast as it makes them."""
    frame = load.small_packet(lab)
    index = int(json.loads(netns.run(["ip", "-j", "link", "show", "eth0"], ns=lab.ns("lan")).stdout)[0]["ifindex"])
    fd = bpf.load(bpf.PROG_TYPE_XDP, afresh(frame), "generator")
    running = [True]
    trouble: list[BaseException] = []

    def run() -> None:
        try:
            while running[0]:
                live_run(fd, frame, index, 1 << 18)
        except BaseException as error:
            trouble.append(error)

    thread = threading.Thread(target=lambda: netns.within(lab.ns("lan"), run))
    thread.start()
    try:
        yield
    finally:
        running[0] = False
        thread.join()
        os.close(fd)
    if trouble:
        raise trouble[0]


def afresh(frame: bytes) -> bytes:
    """A program that writes the frame and sends it: its memory is used again, with what the router made of it."""
    p = Program()
    p.load(4, R2, R1, 0)
    p.load(4, R3, R1, 4)
    p.mov(R4, R2)
    p.alu("add", R4, len(frame))
    p.branch("jgt", R4, R3, "drop", register=True)
    for offset in range(0, len(frame), 4):
        p.store_immediate(4, R2, offset, int.from_bytes(frame[offset : offset + 4], sys.byteorder))
    p.set(R0, XDP_TX)
    p.exit()
    p.label("drop")
    p.set(R0, XDP_DROP)
    p.exit()
    return p.assemble()


def live_run(program: int, frame: bytes, ifindex: int, repeat: int) -> None:
    """Run an XDP program on real copies of `frame` that seem to come in by interface `ifindex` of this thread's namespace."""
    data = ctypes.create_string_buffer(frame, len(frame))
    context = ctypes.create_string_buffer(struct.pack("=IIIIII", 0, len(frame), 0, ifindex, 0, 0), 24)
    attributes = struct.pack(
        "<IIIIQQIIIIQQIII", program, 0, len(frame), 0, ctypes.addressof(data), 0, repeat, 0, 24, 0, ctypes.addressof(context), 0,
        LIVE_FRAMES, 0, BATCH)
    buffer = ctypes.create_string_buffer(attributes, 144)
    libc = ctypes.CDLL(None, use_errno=True)
    number = 321 if platform.machine() == "x86_64" else 280
    if libc.syscall(number, bpf.PROG_TEST_RUN, buffer, 144) < 0:
        code = ctypes.get_errno()
        if code != errno.EINTR:
            raise OSError(code, f"BPF_F_TEST_XDP_LIVE_FRAMES: {os.strerror(code)}")


@contextlib.contextmanager
def counter(ns: str) -> Iterator[Callable[[], int]]:
    """A program at the server's XDP that counts and drops what the generator sends: datagrams to DISCARD of GENERATED bytes."""
    table = bpf.Map(bpf.MAP_TYPE_ARRAY, 4, 8, 1, "count")
    p = Program()
    p.load(4, R2, R1, 0)
    p.load(4, R3, R1, 4)
    p.mov(R4, R2)
    p.alu("add", R4, 42)
    p.branch("jgt", R4, R3, "pass", register=True)
    for offset, value in ((36, DISCARD), (16, GENERATED)):  # UDP destination port, IPv4 length
        p.load(2, R4, R2, offset)
        p.branch("jne", R4, int.from_bytes(value.to_bytes(2, "big"), sys.byteorder), "pass")
    p.store_immediate(4, R10, -4, 0)
    p.map(R1, table.fd)
    p.mov(R2, R10)
    p.alu("add", R2, -4)
    p.call(1)
    p.branch("jeq", R0, 0, "pass")
    p.set(R1, 1)
    p.atomic_add(8, R0, 0, R1)
    p.set(R0, XDP_DROP)
    p.exit()
    p.label("pass")
    p.set(R0, XDP_PASS)
    p.exit()
    program = bpf.load(bpf.PROG_TYPE_XDP, p.assemble(), "counter")
    link = netns.within(ns, lambda: bpf.attach(program, socket.if_nametoindex("eth0"), bpf.ATTACH_XDP, NATIVE))
    try:
        yield lambda: int(struct.unpack("=Q", table.get(bytes(4)) or bytes(8))[0])
    finally:
        os.close(link)
        os.close(program)
        table.close()


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="make bench-offload", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--only", nargs="*", choices=ROUTERS, help="only these routers")
    args = parser.parse_args()
    if os.geteuid():
        print("the benchmark makes network namespaces: run it as root", file=sys.stderr)
        return 2
    netns.exit_on_sigterm()
    values: dict[str, dict[str, list[float]]] = {name: {} for name in args.only or ROUTERS}
    for number in range(args.rounds):
        for name in values:  # in turns
            lab = ROUTERS[name]()
            try:
                found = measure(lab, args.seconds, name != "userfw, XDP")
            finally:
                lab.stop()
            for what, value in found.items():
                values[name].setdefault(what, []).append(value)
            line = ", ".join(f"{what} {value:,.4g}" for what, value in found.items())
            print(f"round {number + 1}: {name:<22} {line}", flush=True)
    report(values)
    return 0


def report(values: dict[str, dict[str, list[float]]]) -> None:
    """Medians, spreads and ratios; JSON to bench/results."""
    results = {name: {what: summary(found) for what, found in measures.items()} for name, measures in values.items()}
    base = next(iter(results))
    print()
    for name, measures in results.items():
        for what, one in measures.items():
            other = results[base].get(what)
            ratio = f"{float(one['median']) / float(other['median']):.2f} of {base}" if other and name != base else ""  # type: ignore[arg-type]
            print(f"{what:<22} {name:<22} {one['median']:>12,.4g} ({one['low']:,.4g} to {one['high']:,.4g}) {ratio}")
    RESULTS.mkdir(exist_ok=True)
    machine = {"kernel": platform.release(), "cpus": os.cpu_count(),
               "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")}
    (RESULTS / "offload.json").write_text(json.dumps({"machine": machine, "results": results}, indent=1))


if __name__ == "__main__":
    sys.exit(main())
