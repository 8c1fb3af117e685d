"""The home of a flow."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6EchoRequest, IPv6, IPv6ExtHdrDestOpt
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from userfw.conntrack.conn import Tuple
from userfw.conntrack.steer import FACTOR, Steering
from userfw.core.packet import Device, Packet
from userfw.wire.parse import parse_untrusted

PORT = st.integers(0, 65535)


def home(workers: int, sport: int, dport: int) -> int:
    """Another way to compute it."""
    return sum((port * FACTOR % 2**32) >> 16 for port in (sport, dport)) % workers


@given(st.integers(1, 16), st.sampled_from([6, 17]), PORT, PORT)
def test_it_is_the_same_for_both_directions(workers: int, proto: int, sport: int, dport: int) -> None:
    steering = Steering(0, workers)
    assert steering.home(proto, sport, dport) == steering.home(proto, dport, sport) == home(workers, sport, dport)


@given(st.integers(2, 16), PORT, PORT, PORT, PORT)
def test_a_port_of_the_same_class_serves_toward_every_destination(workers: int, a: int, b: int, to: int, other: int) -> None:
    steering = Steering(0, workers)
    if steering.home(17, a, to) == steering.home(17, b, to):
        assert steering.home(17, a, other) == steering.home(17, b, other)


@pytest.mark.parametrize("workers", [2, 3, 4, 8, 16])
@pytest.mark.parametrize("step", [1, 2, 16])
def test_clients_ports_spread(workers: int, step: int) -> None:
    steering = Steering(0, workers)
    found = Counter(steering.home(6, 32768 + i * step, 443) for i in range(1000))
    assert len(found) == workers and max(found.values()) < 2 * 1000 / workers


def test_everything_without_ports_belongs_to_the_first() -> None:
    steering = Steering(1, 4)
    for proto in (1, 47, 50, 58, 132, 255):
        assert steering.home(proto, 1234, 80) == 0
    key = Tuple()
    key.l4proto, key.sport, key.dport = 6, 1000, 2000
    assert steering.ours(key) == (home(4, 1000, 2000) == 1)
    with pytest.raises(ValueError, match="no such worker"):
        Steering(2, 2)


def of(frame: bytes, workers: int = 16) -> int:
    pkt = Packet()
    pkt.load_frame(frame)
    pkt.iif = Device("lan", 2, bytes.fromhex("020000000001"))
    parse_untrusted(pkt)
    return int(Steering(0, workers).of_packet(pkt))


def test_packets_errors_and_fragments() -> None:
    ether = Ether(dst="02:00:00:00:00:01", src="02:00:00:00:00:02")
    v4, v6 = IP(src="192.0.2.1", dst="198.51.100.9"), IPv6(src="2001:db8::1", dst="2001:db8::2")
    rng = random.Random(3)
    for _ in range(50):
        sport, dport = rng.randrange(65536), rng.randrange(65536)
        wanted = home(16, sport, dport)
        for l4 in (TCP(sport=sport, dport=dport), UDP(sport=sport, dport=dport)):
            for network in (v4, v6, v6 / IPv6ExtHdrDestOpt()):
                assert of(bytes(ether / network / l4)) == wanted
            quoted = bytes(IP(src="198.51.100.9", dst="192.0.2.1") / l4 / Raw(b"x" * 8))
            for kind in (3, 4, 5, 11, 12):
                assert of(bytes(ether / v4 / ICMP(type=kind) / Raw(quoted))) == wanted
            assert of(bytes(ether / v6 / ICMPv6DestUnreach() / Raw(bytes(IPv6(dst="2001:db8::1") / l4)))) == wanted
        assert of(bytes(ether / v4 / ICMP(type=8) / Raw(b"x" * 40))) == of(bytes(ether / v6 / ICMPv6EchoRequest())) == 0
        first = IP(src="192.0.2.1", dst="198.51.100.9", flags="MF")
        assert of(bytes(ether / first / UDP(sport=sport, dport=dport) / Raw(b"y" * 64))) == 0
    later = bytes(IP(src="198.51.100.9", dst="192.0.2.1", frag=100) / Raw(b"z" * 64))
    assert of(bytes(ether / v4 / ICMP(type=3) / Raw(later))) == 0


@given(st.binary(max_size=100), st.sampled_from([b"\x08\x00", b"\x86\xdd"]))
def test_any_bytes(data: bytes, kind: bytes) -> None:
    assert 0 <= of(bytes(12) + kind + data) < 16
