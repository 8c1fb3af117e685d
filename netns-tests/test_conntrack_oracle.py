"""Conntrack and NAT against the running kernel, packet by packet and without the daemon around them.

Laws
- A namespace of the kernel's and userfw's hooks get the same packets; what counts is `ct state` of each packet, the line of
  every entry
  afterwards (as `conntrack -L` prints it, timeouts within two seconds), and for NAT the packet that leaves, byte for byte.
- Packets come from a seed; `--packets` and `--seed` say how many and which. Sequences are short, so that a failure is readable.
"""

from __future__ import annotations

import os
import random
import re
import socket
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab import netns

sys.path[:0] = [str(Path(__file__).parents[1] / "tests" / room) for room in ("conntrack", "nat")]

from ct_build import csum, echo, icmp, ip, tcp, udp  # noqa: E402
from ct_harness import Lab  # noqa: E402
from nat_harness import NETMAP, PERSISTENT, Gateway, device, nat_range  # noqa: E402

from userfw.conntrack.listing import Dump, line  # noqa: E402

A, B = "10.0.1.1", "10.0.2.2"
STATES = {1: "invalid", 2: "new", 3: "established", 4: "related", 5: "untracked"}
STATE_RULES = "".join(f"add rule ip t f ct state {name} ip dscp set {code}\n" for code, name in STATES.items())


class Kernel:
    """A router of two interfaces, `va` and `vb`; frames are put on and taken off the other ends of its veths."""

    def __init__(self, rules: str) -> None:
        self.router, self.ends = f"uf{os.getpid()}-ctr", f"uf{os.getpid()}-cte"
        for name in (self.router, self.ends):
            netns.create(name)
        for i, net in enumerate(("10.0.1.254/24", "10.0.2.254/24")):
            dev = f"v{'ab'[i]}"
            self.command("ip", "link", "add", "dev", dev, "type", "veth", "peer", "name", f"t{dev}", "netns", self.ends)
            self.command("sysctl", "-qw", f"net.ipv6.conf.{dev}.disable_ipv6=1", f"net.ipv4.conf.{dev}.rp_filter=0")
            self.command("ip", "addr", "add", net, "dev", dev)
            self.command("ip", "link", "set", "dev", dev, "address", f"02:00:00:00:01:0{i}", "up")
            netns.run(["sysctl", "-qw", f"net.ipv6.conf.t{dev}.disable_ipv6=1"], ns=self.ends)
            netns.run(["ip", "link", "set", "dev", f"t{dev}", "address", f"02:00:00:00:02:0{i}", "up"], ns=self.ends)
            self.command("ip", "neigh", "add", (A, B)[i], "lladdr", f"02:00:00:00:02:0{i}", "dev", dev)
        self.command("ip", "route", "add", "default", "via", B)
        self.command("ip", "route", "add", "10.5.0.0/16", "via", A)
        self.command(
            "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.all.send_redirects=0",
            "net.netfilter.nf_conntrack_acct=1",
        )  # fmt: skip
        netns.run(["nft", "-f", "-"], ns=self.router, text=rules)
        self.wires = netns.within(self.ends, lambda: [self._wire(f"tv{end}") for end in "ab"])

    def _wire(self, name: str) -> socket.socket:
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        wire.bind((name, 0))
        wire.setblocking(False)
        return wire

    def command(self, *argv: str) -> str:
        return netns.run(list(argv), ns=self.router).stdout

    def forward(self, data: bytes, side: int) -> bytes | None:
        """Send `data` in by interface `side`; what the router sends on, by either."""
        for wire in self.wires:
            self._read(wire, drain=True)
        self.wires[side].send(bytes((2, 0, 0, 0, 1, side, 2, 0, 0, 0, 2, side)) + b"\x08\0" + data)
        until = time.monotonic() + 0.05
        while time.monotonic() < until:
            for i, wire in enumerate(self.wires):
                frame = self._read(wire)
                if frame[:6] == bytes((2, 0, 0, 0, 2, i)) and frame[12:14] == b"\x08\0":
                    return frame[14:]
        return None

    def _read(self, wire: socket.socket, drain: bool = False) -> bytes:
        try:
            while drain:
                wire.recv(9000)
            return wire.recv(9000)
        except BlockingIOError:
            return b""

    def entries(self) -> list[str]:
        return self.command("conntrack", "-L").splitlines()

    def close(self) -> None:
        for wire in self.wires:
            wire.close()
        for name in (self.router, self.ends):
            netns.delete(name)


@pytest.fixture
def kernel(request: pytest.FixtureRequest) -> Iterator[Kernel]:
    made = Kernel(request.param)
    yield made
    made.close()


def comparable(lines: list[str]) -> tuple[list[str], list[int]]:
    """Entries without their timeouts, and these."""
    ordered = sorted((re.sub(r"^(\S+ +\d+) \d+|\s+use=\d+", r"\1", text), int(text.split()[2])) for text in lines)
    return [text for text, _ in ordered], [seconds for _, seconds in ordered]


def judge(kernel: Kernel, lab: Lab, data: bytes, side: int, story: list[str]) -> None:
    """One packet through both."""
    out = kernel.forward(data, side)
    theirs = STATES.get(out[1] >> 2, "?") if out else "not forwarded"
    ours = lab.state(data)
    story.append(f"{'->' if side == 0 else '<-'} {data.hex()} kernel: {theirs}")
    assert ours == theirs, "\n".join(story)
    kernel_lines, kernel_left = comparable(kernel.entries())
    our_lines, our_left = comparable([line(conn, lab.clock.now) for conn in Dump(lab.table)])
    assert our_lines == kernel_lines, "\n".join(story)
    assert all(abs(x - y) <= 2 for x, y in zip(our_left, kernel_left, strict=True)), "\n".join(story)


def tcp_story(rng: random.Random) -> Iterator[tuple[bytes, int]]:
    """A TCP connection that begins as one should and then goes its own ways."""
    base = [rng.randrange(1 << 32), rng.randrange(1 << 32)]
    sent = [0, 0]
    for step in range(rng.randrange(3, 14)):
        side = rng.randrange(2) if step else 0
        flags = rng.choice(["S", "S.", ".", ".", ".", "P.", "F.", "F.", "R", "R.", "S", "", "F"])
        if step < 3 and rng.random() < 0.75:
            side, flags = ((0, "S"), (1, "S."), (0, "."))[step]
        size = 0 if "S" in flags or "R" in flags else rng.choice([0, 0, 0, 1, 100, 1000])
        seq = sent[side] + (0 if rng.random() < 0.7 else rng.choice([-1, 1, -1000, 1000, 70000, -70000, 200000, 1 << 30]))
        ack = sent[1 - side] + (0 if rng.random() < 0.75 else rng.choice([-1, 1, -1000, 1000, 70000, -100000, 1 << 30]))
        options = b""
        if "S" in flags:
            options += b"\x03\x03" + bytes((rng.randrange(16),)) + b"\x01" if rng.random() < 0.5 else b""
            options += b"\x04\x02\x01\x01" if rng.random() < 0.5 else b""
        elif rng.random() < 0.2:
            edge = base[1 - side] + ack + 1000
            far = edge + rng.choice([10, 100, 100000])
            options = b"\x01\x01\x05\x0a" + struct.pack("!II", edge & 0xFFFFFFFF, far & 0xFFFFFFFF)
        absolute = 0 if "." not in flags or ("R" in flags and rng.random() < 0.2) else base[1 - side] + ack
        window = rng.choice([0, 1, 500, 65535, 65535, 30000])
        ends = (A, B, 1000, 80) if side == 0 else (B, A, 80, 1000)
        yield tcp(*ends, flags, base[side] + seq, absolute, window, bytes(size), options), side
        if rng.random() < 0.8 and abs(seq) < 1_000_000:
            sent[side] = max(sent[side], seq + size + ("S" in flags) + ("F" in flags))


def other_story(rng: random.Random) -> Iterator[tuple[bytes, int]]:
    """UDP, ICMP and its errors, GRE, unknown protocols; some damaged."""
    kind = rng.choice(["udp", "icmp", "error", "gre", "generic"])
    before: list[bytes] = []
    for step in range(rng.randrange(2, 12)):
        side = rng.randrange(2) if step else 0
        src, dst, sport, dport = (A, B, 1000, 53) if side == 0 else (B, A, 53, 1000)
        if kind == "icmp":
            code = rng.choice([8, 8, 0, 13, 14, 15, 16, 17, 18, 9, 10, 30, 1])
            data = icmp(src, dst, code, 0, struct.pack("!HH", 5, 1), b"x" * rng.randrange(4))
        elif kind == "gre":
            data = ip(src, dst, 47, rng.choice([b"\0\0\x08\0" + b"x" * 9, b"\x30\x01\x88\x0b\0\x05\0\x09" + bytes(8)]))
        elif kind == "generic":
            data = ip(src, dst, rng.choice([99, 50, 51, 2, 4, 41]), bytes(rng.randrange(30)))
        elif kind == "error" and step % 2 and before:
            quoted = rng.choice(before)
            sender, target = socket.inet_ntoa(quoted[12:16]), socket.inet_ntoa(quoted[16:20])
            side = 0 if sender == B else 1
            data = icmp("10.5.0.9" if side == 0 else "10.77.0.1", sender, rng.choice([3, 4, 5, 11, 12]), 1, bytes(4),
                        quoted[: rng.choice([20, 24, 28, 40, 100])])  # fmt: skip
            assert target
        else:
            data = udp(src, dst, sport, dport, bytes(rng.randrange(5)), rng.random() < 0.8)
        if rng.random() < 0.06 and kind in ("udp", "icmp") and len(data) > 20:
            at = rng.randrange(20, len(data))
            data = data[:at] + bytes((data[at] ^ (1 << rng.randrange(8)),)) + data[at + 1 :]
        before.append(data)
        yield data, side


@pytest.mark.parametrize("kernel", [f"table ip t {{ chain f {{ type filter hook forward priority 0; }}; }}\n{STATE_RULES}"],
                         indirect=True, ids=["states"])  # fmt: skip
@pytest.mark.parametrize("story", [tcp_story, other_story])
def test_states_and_entries(kernel: Kernel, story: object, request: pytest.FixtureRequest) -> None:
    rng = random.Random(request.config.getoption("--seed"))
    left = request.config.getoption("--packets") // 10
    while left > 0:
        netns.run(["conntrack", "-F"], ns=kernel.router)
        lab, told = Lab(), [f"seed {request.config.getoption('--seed')}"]
        for data, side in story(rng):  # type: ignore[operator]
            judge(kernel, lab, data, side, told)
            left -= 1


POST = "table ip t {{ chain c {{ type nat hook postrouting priority 100; oifname vb {}; }}; }}"
PRE = "table ip t {{ chain c {{ type nat hook prerouting priority -100; iifname va {}; }}; }}"
MAPPINGS = {
    POST.format("masquerade"): lambda g: g.masquerade(),
    POST.format("snat to 192.0.2.10-192.0.2.20"): lambda g: g.snat(nat_range("192.0.2.10", "192.0.2.20")),
    POST.format("snat to 192.0.2.10-192.0.2.20 persistent"): lambda g: g.snat(nat_range("192.0.2.10", "192.0.2.20",
    flags=PERSISTENT)),
    POST.format("snat to 192.0.2.0-192.7.255.3"): lambda g: g.snat(nat_range("192.0.2.0", "192.7.255.3")),
    POST.format("snat ip prefix to 192.0.3.0/24"): lambda g: g.snat(nat_range("192.0.3.0", "192.0.3.255", flags=NETMAP)),
    PRE.format("dnat to 10.0.2.2"): lambda g: g.dnat(nat_range("10.0.2.2")),
    PRE.format("dnat to 10.0.9.1-10.0.9.7"): lambda g: g.dnat(nat_range("10.0.9.1", "10.0.9.7")),
    POST.format("ip saddr 1.2.3.4 masquerade"): lambda g: None,
}


def routed(data: bytes | None) -> bytes | None:
    """Without what routing changes, which the harness does not do: TTL and header checksum."""
    return None if data is None else data[:8] + b"\0" + data[9:10] + b"\0\0" + data[12:]


def first(rng: random.Random, used: set[int]) -> bytes:
    """A first packet from a port (or echo id) not used before: which other one replaces a taken one is chance."""
    src = rng.choice([A, f"10.5.{rng.randrange(256)}.{rng.randrange(1, 250)}"])
    dst = rng.choice([B, f"198.51.{rng.randrange(256)}.{rng.randrange(256)}"])
    sport, dport = rng.choice(sorted(set(range(1, 65536)) - used)), rng.choice([53, 80, 443])
    used.add(sport)
    kind = rng.randrange(4)
    if kind == 0:
        return tcp(src, dst, sport, dport, "S", 5)
    return echo(src, dst, sport) if kind == 1 else udp(src, dst, sport, dport, b"hello!!", checksum=kind == 2)


def answer(rng: random.Random, out: bytes) -> bytes:
    """What comes back for a packet that left: an answer, or an error that quotes it."""
    src, dst = socket.inet_ntoa(out[12:16]), socket.inet_ntoa(out[16:20])
    if rng.random() < 0.5:
        quoted = out[:8] + b"\x05" + out[9:10] + b"\0\0" + out[12:20]
        quoted = quoted[:10] + struct.pack("!H", csum(quoted)) + quoted[12:] + out[20:]
        kind = rng.choice([(3, 1), (3, 4), (11, 0), (12, 0)])
        return icmp(rng.choice([dst, "172.16.0.9"]), src, *kind, bytes(4), quoted[: rng.choice([28, 28, 60, 200])])
    if out[9] == 1:
        return echo(dst, src, struct.unpack("!H", out[24:26])[0], reply=True)
    sport, dport = struct.unpack("!HH", out[20:24])
    return udp(dst, src, dport, sport, b"reply") if out[9] == 17 else tcp(dst, src, dport, sport, "S.", 77, 6)


@pytest.mark.parametrize(("kernel", "setup"), MAPPINGS.items(), indirect=["kernel"], ids=[rule[40:80] for rule in MAPPINGS])
def test_mappings_and_rewriting(kernel: Kernel, setup: object, request: pytest.FixtureRequest) -> None:
    rng = random.Random(request.config.getoption("--seed"))
    gateway = Gateway()
    gateway.lan, gateway.wan = device("va", 2, "10.0.1.254/24"), device("vb", 3, "10.0.2.254/24")
    setup(gateway)  # type: ignore[operator]
    left: list[bytes] = []
    used: set[int] = set()
    for _ in range(request.config.getoption("--packets") // 20):
        back = bool(left) and rng.random() < 0.45
        data = answer(rng, rng.choice(left)) if back else first(rng, used)
        theirs = kernel.forward(data, int(back))
        assert routed(gateway.forward(data, back)) == routed(theirs), data.hex()
        if theirs and not back:
            left.append(theirs)
