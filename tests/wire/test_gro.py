"""Coalescing: cut again, chains are the frames that came in; nothing overtakes its own flow; what Linux keeps apart stays apart."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from userfw.core.const import HEADROOM, VNET_F_NEEDS_CSUM, VNET_GSO_NONE, VNET_GSO_TCPV4, VNET_GSO_TCPV6, VNET_GSO_UDP_L4
from userfw.core.drop import DROP_NOT_SPECIFIED
from userfw.core.packet import Device, Packet
from userfw.wire.checksum import add_bytes, fold, pseudo_sum, write_ipv4
from userfw.wire.gro import Coalescer
from userfw.wire.gso import check_untrusted, complete_checksum, segments
from userfw.wire.parse import parse_untrusted

MAC = bytes.fromhex("020000000001")
DEVICE = Device("lan", 2, MAC)
ACK, PSH, FIN, SYN, URG, ECE, CWR = 16, 8, 1, 2, 32, 64, 128


@dataclass
class Spec:
    """One frame in words; `seq` is TCP's sequence number or nothing to UDP."""

    v6: bool = False
    udp: bool = False
    sport: int = 4000
    seq: int = 1000
    ident: int = 7
    payload: bytes = bytes(100)
    flags: int = ACK
    ack: int = 5
    window: int = 500
    options: bytes = b""
    ttl: int = 64
    tos: int = 0
    fragment: int = 0x4000
    urgent: int = 0
    mac: bytes = MAC
    partial: bool = False
    wrong: bool = False
    padding: int = 0
    tag: int = 0

    def packet(self) -> Packet:
        """As a port would give it."""
        pkt = Packet()
        ports = self.sport.to_bytes(2, "big") + (9).to_bytes(2, "big")
        if self.udp:
            l4 = ports + (8 + len(self.payload)).to_bytes(2, "big") + b"\0\0" + self.payload
        else:
            offset = (20 + len(self.options)) << 2
            l4 = ports + self.seq.to_bytes(4, "big") + self.ack.to_bytes(4, "big") + bytes([offset, self.flags])
            l4 += self.window.to_bytes(2, "big") + b"\0\0" + self.urgent.to_bytes(2, "big") + self.options + self.payload
        proto = 17 if self.udp else 6
        if self.v6:
            l3 = (0x60000000 | self.tos << 20 | 0x12345).to_bytes(4, "big") + len(l4).to_bytes(2, "big") + bytes([proto, self.ttl])
            l3 += bytes.fromhex("fd000001" + "00" * 11 + "10" + "fd000003" + "00" * 11 + "10")
        else:
            l3 = bytes([0x45, self.tos]) + (20 + len(l4)).to_bytes(2, "big") + self.ident.to_bytes(2, "big")
            l3 += self.fragment.to_bytes(2, "big") + bytes([self.ttl, proto, 0, 0, 192, 168, 1, 10, 203, 0, 113, 10])
        kind = bytes.fromhex("86dd" if self.v6 else "0800")
        if self.tag:
            kind = bytes.fromhex("8100") + self.tag.to_bytes(2, "big") + kind
        pkt.load_frame(self.mac + bytes.fromhex("020000000010") + kind + l3 + l4)
        pkt.iif = DEVICE
        pkt.nfproto, pkt.l3 = (10 if self.v6 else 2), pkt.end - len(l4) - len(l3)
        pkt.l4 = pkt.end - len(l4)
        if not self.v6:
            write_ipv4(pkt)
        at = pkt.l4 + (6 if self.udp else 16)
        total = pseudo_sum(pkt, proto, len(l4))
        if self.partial:
            pkt.vnet_flags, pkt.csum_start, pkt.csum_offset = VNET_F_NEEDS_CSUM, pkt.l4 - pkt.start, at - pkt.l4
            pkt.put16(at, fold(total))
        else:
            whole = ~fold(add_bytes(total, pkt.data, pkt.l4, len(l4))) & 0xFFFF
            pkt.put16(at, whole or (0xFFFF if self.udp else 0))
        if self.wrong:
            pkt.put8(at, pkt.get8(at) ^ 0x55)
        pkt.end += self.padding
        return pkt


def plain(pkt: Packet) -> list[bytes]:
    """The frames on a wire that a received Packet stands for."""
    assert parse_untrusted(pkt) == DROP_NOT_SPECIFIED
    if pkt.vnet_flags or pkt.gso_type:
        assert check_untrusted(pkt) == DROP_NOT_SPECIFIED
    return [frame.frame() for frame in segments(pkt, [])]


def wire(spec: Spec) -> bytes:
    """The frame on a wire: a partial checksum is completed."""
    pkt = spec.packet()
    parse_untrusted(pkt)
    complete_checksum(pkt)
    return pkt.frame()


def coalesce(specs: list[Spec], udp: bool = True) -> list[Packet]:
    slots = [spec.packet() for spec in specs]
    before = {id(slot) for slot in slots}
    left = Coalescer().run(slots, len(slots), udp)
    assert {id(slot) for slot in slots} == before, "slots are permuted, none lost"
    return slots[:left]


def stream(count: int, size: int = 100, **changes: Any) -> list[Spec]:
    """`count` segments in order."""
    base = Spec(payload=bytes(size), **changes)
    return [replace(base, seq=base.seq + i * size, ident=base.ident + i, payload=bytes([i & 255]) * size) for i in range(count)]


@pytest.mark.parametrize("v6", [False, True])
@pytest.mark.parametrize("udp", [False, True])
@pytest.mark.parametrize("partial", [False, True])
def test_a_stream_becomes_one_large_send(v6: bool, udp: bool, partial: bool) -> None:
    specs = stream(10, 1000, v6=v6, udp=udp, partial=partial)
    last = specs[-1]
    specs.append(replace(last, seq=last.seq + 1000, ident=last.ident + 1, payload=b"end", flags=ACK | (0 if udp else PSH)))
    expected = [wire(spec) for spec in specs]
    (pkt,) = coalesce(specs)
    kind = VNET_GSO_UDP_L4 if udp else VNET_GSO_TCPV6 if v6 else VNET_GSO_TCPV4
    assert (pkt.gso_type, pkt.gso_size, pkt.vnet_flags) == (kind, 1000, VNET_F_NEEDS_CSUM)
    assert plain(pkt) == expected


Change = dict[str, Any]
FIELDS: list[Change] = [
    {"ack": 6}, {"window": 501}, {"ttl": 63}, {"tos": 1}, {"tos": 3}, {"flags": ACK | FIN}, {"flags": ACK | URG},
    {"flags": ACK | CWR}, {"flags": ACK | ECE}, {"flags": ACK | SYN}, {"options": bytes.fromhex("0101080a0000000100000002")},
    {"urgent": 1}, {"mac": bytes.fromhex("020000000002")}, {"wrong": True}, {"seq": 1101}, {"seq": 1099}, {"payload": b""},
    {"payload": bytes(101)}, {"padding": 2}, {"tag": 5},
]
IPV4_FIELDS: list[Change] = [{"ident": 7}, {"ident": 9}, {"fragment": 0}, {"fragment": 0x2000}, {"fragment": 0x4001}]


CASES = [(False, change) for change in FIELDS + IPV4_FIELDS] + [(True, change) for change in FIELDS]


@pytest.mark.parametrize(("v6", "change"), CASES, ids=str)
def test_what_differs_stays_apart(v6: bool, change: Change) -> None:
    one, two, three = stream(3, v6=v6)
    odd = replace(two, **change)
    left = coalesce([one, odd])
    assert [pkt.gso_type for pkt in left] == [VNET_GSO_NONE, VNET_GSO_NONE]
    assert [pkt.frame() for pkt in left] == [one.packet().frame(), odd.packet().frame()], "untouched"
    assert [frame for pkt in coalesce([one, two, three]) for frame in plain(pkt)] == [wire(one), wire(two), wire(three)]


def test_a_changed_timestamp_ends_the_chain() -> None:
    stamp = bytes.fromhex("0101080a0000000200000002")
    first = stream(2, options=bytes.fromhex("0101080a0000000100000002"))
    later = [replace(s, seq=1200 + i * 100, ident=9 + i, options=stamp) for i, s in enumerate(first)]
    left = coalesce(first + later)
    assert [frame for pkt in left for frame in plain(pkt)] == [wire(spec) for spec in first + later]
    assert len(left) == 2


def test_push_and_short_segments_end_a_chain() -> None:
    specs = stream(6)
    specs[2] = replace(specs[2], flags=ACK | PSH)
    assert [len(plain(pkt)) for pkt in coalesce(specs)] == [3, 3]
    short = [*stream(3), *(replace(s, seq=s.seq + 250, ident=s.ident + 3) for s in stream(3))]
    short[2] = replace(short[2], payload=bytes(50))
    assert [len(plain(pkt)) for pkt in coalesce(short)] == [3, 3]


def test_a_packet_not_understood_is_not_overtaken() -> None:
    one, two, three, four = stream(4)
    fragment = replace(two, fragment=0x2000)
    left = coalesce([one, two, fragment, three, four])
    assert [pkt.gso_size for pkt in left] == [100, 0, 100]


def test_a_bare_acknowledgement_is_not_overtaken() -> None:
    one, two, three, four = stream(4)
    left = coalesce([one, two, replace(three, payload=b""), three, four])
    assert [(pkt.gso_size, pkt.end - pkt.l4 - 20) for pkt in left] == [(100, 200), (0, 0), (100, 200)]


def test_datagrams_only_where_wanted_and_at_most_64() -> None:
    specs = stream(70, udp=True)
    assert len(coalesce(specs, udp=False)) == 70
    assert [len(plain(pkt)) for pkt in coalesce(specs)] == [64, 6]


def test_no_more_than_an_ip_packet_holds() -> None:
    left = coalesce(stream(60, 1448))
    assert [len(plain(pkt)) for pkt in left] == [45, 15]
    assert all(pkt.end - pkt.l3 <= 65535 for pkt in left)


def test_datagrams_without_checksum_stay_apart() -> None:
    slots = [spec.packet() for spec in stream(2, udp=True)]
    for pkt in slots:
        pkt.put16(pkt.l4 + 6, 0)
    assert Coalescer().run(slots, 2, True) == 2


def test_large_sends_pass_in_their_place() -> None:
    slots = [spec.packet() for spec in stream(4, 1000)]
    slots[1].gso_type, slots[1].gso_size = VNET_GSO_TCPV4, 500
    assert Coalescer().run(slots, 4, True) == 3
    assert [pkt.gso_size for pkt in slots[:3]] == [0, 500, 1000]


def test_devices_count_frames() -> None:
    before = DEVICE.rx_packets, DEVICE.rx_bytes
    coalesce(stream(5))
    assert (DEVICE.rx_packets - before[0], DEVICE.rx_bytes - before[1]) == (4, 4 * 54)


@st.composite
def batches(draw: st.DrawFn) -> list[Spec]:
    """Several flows interleaved, each mostly in order, with everything that may differ differing now and then."""
    rng = random.Random(draw(st.integers(0, 2**32)))
    flows = [Spec(v6=rng.random() < 0.3, udp=rng.random() < 0.3, sport=4000 + i, seq=rng.choice([1000, 2**32 - 150]),
                  ident=rng.choice([7, 65534]), partial=rng.random() < 0.3) for i in range(rng.choice([1, 2, 4, 12]))]
    size = rng.choice([48, 100, 1448, 9000])
    specs = []
    for _ in range(draw(st.integers(2, 64))):
        i = rng.randrange(len(flows))
        now = replace(flows[i], payload=rng.randbytes(size if rng.random() < 0.9 else rng.randrange(0, size + 50)))
        if rng.random() < 0.15:
            now = replace(now, **rng.choice([change for change in FIELDS + IPV4_FIELDS if "payload" not in change]))
        elif rng.random() < 0.1:
            now = replace(now, flags=ACK | PSH)
        specs.append(now)
        flows[i] = replace(flows[i], seq=(now.seq + len(now.payload)) & 0xFFFFFFFF, ident=(now.ident + 1) & 0xFFFF)
    return specs


def key(frame: bytes) -> bytes:
    """What tells flows apart: addresses and ports."""
    at = 12 + 4 * (frame[12:14] == b"\x81\x00")
    return frame[at + 14 : at + 26] if frame[at : at + 2] == b"\x08\x00" else frame[at + 10 : at + 46]


@settings(max_examples=150, deadline=None)
@given(batches(), st.booleans())
def test_cut_again_the_same_frames_in_the_order_of_each_flow(specs: list[Spec], udp: bool) -> None:
    expected: dict[bytes, list[Spec]] = {}
    for spec in specs:
        expected.setdefault(key(spec.packet().frame()), []).append(spec)
    for pkt in coalesce(specs, udp):
        flow = expected[key(pkt.frame())]
        if pkt.gso_type == VNET_GSO_NONE:
            assert pkt.frame() == flow.pop(0).packet().frame(), "untouched"
            continue
        frames = plain(pkt)
        assert frames == [wire(spec) for spec in flow[: len(frames)]] and len(frames) > 1
        assert udp or pkt.l4proto == 6
        del flow[: len(frames)]
    assert not any(expected.values())


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=120), min_size=1, max_size=8))
def test_any_bytes(frames: list[bytes]) -> None:
    slots = []
    for frame in frames:
        pkt = Packet()
        pkt.load_frame(frame)
        pkt.iif = DEVICE
        slots.append(pkt)
    left = Coalescer().run(slots, len(slots), True)
    assert 1 <= left <= len(frames) and all(pkt.start == HEADROOM for pkt in slots)
