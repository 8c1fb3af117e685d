"""Partial checksums recognised by their value."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from userfw.core.const import VNET_F_NEEDS_CSUM
from userfw.core.packet import Packet
from userfw.wire.gso import complete_checksum
from userfw.wire.partial import mark_untrusted

V4, V6 = IP(src="192.0.2.1", dst="198.51.100.9"), IPv6(src="2001:db8::1", dst="2001:db8:ffff::2")


def pseudo(frame: bytes, l4: int, protocol: int) -> int:
    """The folded sum of the pseudo-header, by another way than the code's."""
    six = frame[12:14] == b"\x86\xdd"
    addresses = frame[22:54] if six else frame[26:34]
    total = protocol + len(frame) - l4 + sum(int.from_bytes(addresses[i : i + 2], "big") for i in range(0, len(addresses), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


@pytest.mark.parametrize("network", [V4, V6, V6 / IPv6ExtHdrDestOpt()], ids=["v4", "v6", "v6-options"])
@pytest.mark.parametrize("transport", [TCP(sport=6, dport=80), UDP(sport=17, dport=80)], ids=["tcp", "udp"])
@pytest.mark.parametrize("size", [0, 1, 1000])
def test_partial_is_completed_to_what_it_should_be(network: IP, transport: TCP, size: int) -> None:
    whole = bytes(Ether(dst="02:00:00:00:00:01") / network / transport / Raw(b"\x5a" * size))
    l4 = len(whole) - size - len(transport)
    field = l4 + (16 if isinstance(transport, TCP) else 6)
    pkt = Packet()
    pkt.load_frame(whole)
    assert not mark_untrusted(pkt)
    partial = whole[:field] + pseudo(whole, l4, 6 if isinstance(transport, TCP) else 17).to_bytes(2, "big") + whole[field + 2 :]
    pkt.load_frame(partial)
    assert mark_untrusted(pkt) and pkt.vnet_flags & VNET_F_NEEDS_CSUM
    complete_checksum(pkt)
    assert pkt.frame() == whole


def test_fragments_are_left_alone() -> None:
    for network in (IP(src="192.0.2.1", dst="198.51.100.9", flags="MF"), V6 / IPv6ExtHdrFragment(m=1)):
        frame = bytes(Ether(dst="02:00:00:00:00:01") / network / UDP(sport=17, dport=80) / Raw(b"x" * 64))
        l4 = len(frame) - 72
        pkt = Packet()
        pkt.load_frame(frame[: l4 + 6] + pseudo(frame, l4, 17).to_bytes(2, "big") + frame[l4 + 8 :])
        assert not mark_untrusted(pkt)


@given(st.sampled_from([b"\x08\x00", b"\x86\xdd", b"\x08\x06"]), st.binary(max_size=120))
def test_any_bytes(kind: bytes, data: bytes) -> None:
    pkt = Packet()
    pkt.load_frame(bytes(12) + kind + data)
    mark_untrusted(pkt)
