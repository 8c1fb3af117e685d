"""Frames whose virtio-net header lies, from a TAP to a port without offloads: every one is forwarded, answered or dropped by
name, and nothing escapes. (Users of a namespace can write any header into a TAP with a packet socket.)"""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Raw

from userfw.core.clock import Clock
from userfw.core.packet import Device
from userfw.daemon.assembly import Assembly
from userfw.daemon.poller import Poller
from userfw.ports.tap import TunTapPort
from userfw.router.interfaces import parse_address

LAN, WAN, HOST = "02:00:00:00:00:01", "02:00:00:00:00:02", "02:00:00:00:00:55"
RULES = """table inet t {
  chain f { type filter hook forward priority 0; ct state invalid counter; counter; }
  chain po { type nat hook postrouting priority 100; oifname "wan" masquerade; }
}"""


class Box:
    """A gateway between two TAPs on socket pairs; `wan` takes plain frames only."""

    def __init__(self) -> None:
        self.clock = Clock(10**12)
        self.faults: list[str] = []
        self.assembly = Assembly(self.clock, random.Random(1), lambda error, where: self.faults.append(f"{where}: {error!r}"))
        self.gateway = self.assembly.gateway
        self.poller = Poller(self.clock, self.gateway)
        self.pairs = {}
        for index, (name, mac, prefix, address) in enumerate(
            (("lan", LAN, 10, "192.168.1.1/24"), ("wan", WAN, 0, "203.0.113.1/24")), 2
        ):
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            for sock in (ours, theirs):
                sock.setblocking(False)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
            port = TunTapPort(name, "tap", os.dup(ours.fileno()), "eth0", prefix=prefix)
            device = Device(name, index, bytes.fromhex(mac.replace(":", "")))
            port.attach(device)
            self.assembly.add_port(device, "tap", port)
            self.gateway.add_address(device, parse_address(address))
            self.poller.add(port)
            self.pairs[name] = (ours, theirs, port)
        self.assembly.load_ruleset("test.nft", RULES)

    def send(self, frame: bytes, header: bytes) -> list[bytes]:
        """One frame into lan; what came out of wan."""
        self.pairs["lan"][1].send(header + frame)
        self.poller.run(10**9)
        out = []
        for name in ("wan", "lan"):
            theirs = self.pairs[name][1]
            while True:
                try:
                    got = theirs.recv(1 << 17)
                except BlockingIOError:
                    break
                if name == "wan":
                    out.append(got)
        return out

    def close(self) -> None:
        for ours, theirs, port in self.pairs.values():
            port.close()
            ours.close()
            theirs.close()
        self.poller.close()


@pytest.fixture(scope="module")
def box() -> Iterator[Box]:
    box = Box()
    answer = bytes(Ether(dst=WAN, src=HOST) / ARP(op=2, psrc="203.0.113.9", hwsrc=HOST, pdst="203.0.113.1", hwdst=WAN))
    probe = bytes(Ether(dst=LAN, src=HOST) / IP(src="192.168.1.5", dst="203.0.113.9") / UDP(sport=1, dport=1))
    box.send(probe, bytes(10))
    box.pairs["wan"][1].send(answer)
    box.poller.run(10**9)
    assert any(b"\xc0\xa8" not in frame for frame in box.send(probe, bytes(10))), "forwarded"
    yield box
    box.close()


def frames() -> list[bytes]:
    """Plausible packets of every kind, large ones too."""
    link = Ether(dst=LAN, src=HOST)
    ip = IP(src="192.168.1.5", dst="203.0.113.9")
    tcp = TCP(sport=1000, dport=80, flags="S")
    return [
        bytes(f)
        for f in (
            link / ip / tcp / Raw(bytes(9000)),
            link / ip / TCP(sport=1001, dport=80, flags="PA", options=[("Timestamp", (1, 2))]) / Raw(bytes(30000)),
            link / ip / UDP(sport=5, dport=6) / Raw(bytes(20000)),
            link / ip / ICMP() / Raw(bytes(3000)),
            link / Dot1Q(vlan=3) / ip / tcp / Raw(bytes(2000)),
            link / IP(src="192.168.1.5", dst="203.0.113.9", flags="MF", frag=0) / tcp / Raw(bytes(1400)),
            link / IPv6(src="fd00::5", dst="fd00::9") / tcp / Raw(bytes(5000)),
        )
    ]


FRAMES = frames()


@settings(max_examples=400, deadline=None)
@given(
    which=st.integers(0, len(FRAMES) - 1),
    flags=st.sampled_from([0, 1, 1, 2, 3, 255]),
    kind=st.sampled_from([0, 1, 1, 3, 4, 5, 5, 0x81, 0x85, 77]),
    size=st.sampled_from([0, 1, 47, 48, 536, 1448, 9000, 65535]),
    start=st.one_of(st.sampled_from([0, 14, 34, 38, 54, 65535]), st.integers(0, 65535)),
    offset=st.one_of(st.sampled_from([6, 16, 0, 65535]), st.integers(0, 65535)),
    cut=st.integers(0, 60),
    position=st.integers(0, 80),
    value=st.integers(0, 255),
    mutate=st.booleans(),
)
def test_no_header_does_harm(
    box: Box, which: int, flags: int, kind: int, size: int, start: int, offset: int, cut: int, position: int, value: int,
    mutate: bool,
) -> None:
    frame = bytearray(FRAMES[which])
    if mutate:
        frame[position % len(frame)] = value
        frame = frame[: max(1, len(frame) - cut)]
    header = bytes([flags, kind]) + b"".join(n.to_bytes(2, "little") for n in (0, size, start, offset))
    out = box.send(bytes(frame), header)
    assert box.faults == []
    assert box.gateway.faults == {}
    for plain in out:
        assert len(plain) <= 1514, "a port without offloads sends frames that fit"
