"""Software segmentation against scapy: the segments' payloads are the payload, and every checksum is whole."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Raw

from userfw.core.const import (
    HEADROOM,
    VNET_F_DATA_VALID,
    VNET_F_NEEDS_CSUM,
    VNET_GSO_NONE,
    VNET_GSO_TCPV4,
    VNET_GSO_TCPV6,
    VNET_GSO_UDP,
    VNET_GSO_UDP_L4,
)
from userfw.core.drop import DROP_MALFORMED, DROP_NOT_SPECIFIED
from userfw.core.packet import Packet
from userfw.wire import _raw, gso
from userfw.wire.checksum import add_bytes, fold, pseudo_sum
from userfw.wire.parse import parse_untrusted, trim


def load(frame: Any, gso_size: int = 0, gso_type: int = 0, partial: bool = True) -> Packet:
    """A parsed Packet; with `partial`, its checksum field holds the pseudo-header sum as a TAP would give it."""
    pkt = Packet()
    pkt.load_frame(bytes(frame))
    assert parse_untrusted(pkt) == DROP_NOT_SPECIFIED
    trim(pkt)
    pkt.gso_size = gso_size
    pkt.gso_type = gso_type
    if partial:
        pkt.vnet_flags = VNET_F_NEEDS_CSUM
        pkt.csum_start = pkt.l4 - pkt.start
        pkt.csum_offset = 16 if pkt.l4proto == 6 else 6
        pkt.put16(pkt.l4 + pkt.csum_offset, fold(pseudo_sum(pkt, pkt.l4proto, pkt.end - pkt.l4)))
    return pkt


def whole(frame: bytes) -> Any:
    """The frame as scapy reads it, after checking every checksum in it."""
    seen = Ether(frame)
    again = Ether(frame)
    for layer in (IP, TCP, UDP):
        if layer in again:
            del again[layer].chksum
    assert bytes(again) == frame
    return seen


def network(v6: bool) -> Any:
    return IPv6(src="fd00::1", dst="fd00::2") if v6 else IP(src="10.0.0.1", dst="10.0.0.2", id=0xFFFE, flags="DF")


@settings(max_examples=20, deadline=None)
@given(
    size=st.integers(1, 9000),
    mss=st.integers(200, 1460),
    v6=st.booleans(),
    vlan=st.booleans(),
    flags=st.integers(0, 255),
    seq=st.sampled_from([0, 1000, 0xFFFFFFFF, 0xFFFFF000]),
    seed=st.integers(0, 2**32),
)
def test_tcp_segments(size: int, mss: int, v6: bool, vlan: bool, flags: int, seq: int, seed: int) -> None:
    payload = random.Random(seed).randbytes(size)
    link = Ether() / Dot1Q(vlan=5) if vlan else Ether()
    options = [("Timestamp", (1, 2))] if seed & 1 else []
    frame = link / network(v6) / TCP(sport=1, dport=2, seq=seq, flags=flags, options=options) / Raw(payload)
    pkt = load(frame, mss, VNET_GSO_TCPV6 if v6 else VNET_GSO_TCPV4)
    assert gso.check_untrusted(pkt) == DROP_NOT_SPECIFIED
    out = gso.segments(pkt, [])
    assert len(out) == max(1, -(-size // mss)) == gso.segment_count(pkt)
    joined = b""
    for i, piece in enumerate(out):
        seen = whole(piece.frame())
        tcp = seen[TCP]
        assert tcp.seq == (seq + len(joined)) % 2**32
        last = i == len(out) - 1
        expected = flags if last else flags & ~0x09
        assert int(tcp.flags) & 0xFF == (expected if i == 0 else expected & ~0x80)
        if not v6:
            assert seen[IP].id == (0xFFFE + i) % 0x10000
        joined += bytes(tcp.payload)
        assert piece.gso_type == VNET_GSO_NONE and piece.vnet_flags == 0
        assert piece.end - piece.l3 <= gso.segment_network_length(pkt)
    assert joined == payload


@settings(max_examples=12, deadline=None)
@given(size=st.integers(1, 9000), v6=st.booleans(), seed=st.integers(0, 2**32), mss=st.integers(300, 1472))
def test_udp_segments(size: int, v6: bool, seed: int, mss: int) -> None:
    payload = random.Random(seed).randbytes(size)
    pkt = load(Ether() / network(v6) / UDP(sport=5, dport=6) / Raw(payload), mss, VNET_GSO_UDP_L4)
    assert gso.check_untrusted(pkt) == DROP_NOT_SPECIFIED
    spare = [Packet(), Packet()]
    out = gso.segments(pkt, spare)
    joined = b"".join(bytes(whole(piece.frame())[UDP].payload) for piece in out)
    assert joined == payload
    assert all(whole(piece.frame())[UDP].len == 8 + mss for piece in out[:-1])


def test_whole_frame_is_one_segment_with_its_checksum() -> None:
    frame = bytes(Ether() / network(False) / TCP(flags="PA") / Raw(b"abc"))
    pkt = load(frame)
    [out] = gso.segments(pkt, [])
    assert out.frame() == frame
    assert pkt.vnet_flags == VNET_F_NEEDS_CSUM, "the original is untouched"


@pytest.mark.parametrize("v6", [False, True])
def test_complete_checksum(v6: bool) -> None:
    frame = bytes(Ether() / network(v6) / UDP(sport=7, dport=8) / Raw(b"hello"))
    pkt = load(frame)
    assert pkt.frame() != frame
    gso.complete_checksum(pkt)
    assert pkt.frame() == frame and not pkt.vnet_flags
    gso.complete_checksum(pkt)
    assert pkt.frame() == frame


def test_udp_checksum_that_computes_to_zero_is_sent_as_ffff() -> None:
    base = Ether() / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=1, dport=2) / Raw(b"\0\0")
    whole_sum = Ether(bytes(base))[UDP].chksum
    frame = Ether() / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=1, dport=2) / Raw(whole_sum.to_bytes(2, "big"))
    pkt = load(frame)
    gso.complete_checksum(pkt)
    assert pkt.get16(pkt.l4 + 6) == 0xFFFF


def refused(pkt: Packet) -> bool:
    return bool(gso.check_untrusted(pkt) == DROP_MALFORMED)


def test_claims_that_contradict_the_headers_are_refused() -> None:
    tcp = Ether() / network(False) / TCP() / Raw(bytes(5000))
    udp = Ether() / network(False) / UDP() / Raw(bytes(5000))
    assert not refused(load(tcp, 1000, VNET_GSO_TCPV4))
    assert refused(load(tcp, 1000, VNET_GSO_TCPV6))
    assert refused(load(tcp, 10, VNET_GSO_TCPV4)), "tiny segments multiply frames"
    assert refused(load(tcp, 0, VNET_GSO_TCPV4))
    assert refused(load(tcp, 1000, VNET_GSO_UDP_L4))
    assert refused(load(tcp, 1000, 77))
    assert refused(load(udp, 1000, VNET_GSO_UDP)), "UFO is never offered"
    assert refused(load(udp, 20, VNET_GSO_UDP_L4)), "more than 128 datagrams"
    assert refused(load(tcp, 1000, VNET_GSO_TCPV4, partial=False))
    wrong = load(tcp, 1000, VNET_GSO_TCPV4)
    wrong.csum_start += 2
    assert refused(wrong)
    beyond = load(tcp)
    beyond.csum_start = 60000
    assert refused(beyond)


def test_partial_checksum_of_something_else_is_completed() -> None:
    pkt = load(Ether() / network(False) / UDP(sport=1, dport=4789) / Raw(bytes(40)), partial=False)
    pkt.vnet_flags = VNET_F_NEEDS_CSUM
    pkt.csum_start = pkt.l4 - pkt.start + 8
    pkt.csum_offset = 16
    assert gso.check_untrusted(pkt) == DROP_NOT_SPECIFIED
    assert not pkt.vnet_flags and pkt.get16(pkt.l4 + 8 + 16) == 0xFFFF


def test_merged_by_a_card_becomes_a_large_send() -> None:
    payload = bytes(range(256)) * 10
    pkt = load(Ether() / network(True) / TCP(seq=9) / Raw(payload), 1000, VNET_GSO_TCPV6, partial=False)
    pkt.vnet_flags = VNET_F_DATA_VALID
    pkt.put16(pkt.l4 + 16, 0x1234)
    assert gso.check_untrusted(pkt) == DROP_NOT_SPECIFIED
    assert b"".join(bytes(whole(p.frame())[TCP].payload) for p in gso.segments(pkt, [])) == payload


@given(st.binary(max_size=400), st.integers(0, 3), st.integers(0, 0xFFFFFFFF))
def test_bulk_sum_equals_the_plain_one(data: bytes, off: int, total: int) -> None:
    buffer = bytearray(data)
    off = min(off, len(data))
    size = len(data) - off
    assert fold(_raw.add_words(total, buffer, off, size)) == fold(add_bytes(total, buffer, off, size))


def test_bulk_functions_check_their_range() -> None:
    buffer = bytearray(10)
    for off, size in ((-1, 2), (0, 11), (9, 2), (0, -1)):
        with pytest.raises(IndexError):
            _raw.add_words(0, buffer, off, size)
        with pytest.raises(IndexError):
            _raw.copy(bytearray(20), 0, buffer, off, size)
    with pytest.raises(IndexError):
        _raw.copy(bytearray(5), 3, buffer, 0, 3)


def test_segment_index_is_checked() -> None:
    pkt = load(Ether() / network(False) / TCP() / Raw(bytes(5000)), 1000, VNET_GSO_TCPV4)
    assert pkt.start == HEADROOM
    with pytest.raises(IndexError):
        gso.segment(pkt, 5, Packet())
