"""Reassembly in any order, bounds against abuse, and cutting on the way out."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from router_lab import Lab
from scapy.layers.inet import ICMP, IP, UDP, fragment
from scapy.layers.inet6 import ICMPv6EchoReply, ICMPv6EchoRequest, ICMPv6TimeExceeded, IPv6, IPv6ExtHdrFragment, fragment6
from scapy.packet import Raw

from userfw.core.const import NF_ACCEPT, NFPROTO_IPV4, NFPROTO_IPV6
from userfw.core.hook import HookEntry, HookList
from userfw.core.packet import Packet
from userfw.router.pipeline import Pipeline


class Spy(HookEntry):
    """Keeps what it sees."""

    def __init__(self, priority: int = 0) -> None:
        super().__init__(priority)
        self.seen: list[bytes] = []

    def run(self, pkt: Packet, hook: int) -> int:
        self.seen.append(bytes(pkt.data[pkt.l3 : pkt.end]))
        return NF_ACCEPT


def tracked(lab: Lab) -> Spy:
    spy = Spy()
    hooks = {(family, 0): HookList(0, [lab.gw.defrag, spy]) for family in (NFPROTO_IPV4, NFPROTO_IPV6)}
    lab.gw.set_pipeline(Pipeline(hooks, tracked=True))
    return spy


def whole4(size: int, rng: random.Random) -> IP:
    return IP(bytes(IP(src="192.0.2.10", dst="198.51.100.10", id=77) / UDP(sport=1, dport=2) / Raw(rng.randbytes(size))))


def whole6(size: int, rng: random.Random) -> IPv6:
    return IPv6(bytes(IPv6(src="2001:db8:1::10", dst="2001:db8:2::10") / UDP(sport=1, dport=2) / Raw(rng.randbytes(size))))


def cut6(packet: IPv6, size: int, ident: int = 5) -> list[IPv6]:
    payload = bytes(packet.payload)
    return [
        IPv6(src=packet.src, dst=packet.dst, hlim=packet.hlim)
        / IPv6ExtHdrFragment(nh=packet.nh, offset=off // 8, m=int(off + size < len(payload)), id=ident)
        / Raw(payload[off : off + size])
        for off in range(0, len(payload), size)
    ]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 9000), st.integers(1, 150), st.randoms(use_true_random=False), st.booleans())
def test_any_order_and_duplicates_give_the_original(size: int, step: int, rng: random.Random, six: bool) -> None:
    lab = Lab()
    spy = tracked(lab)
    whole = whole6(size, rng) if six else whole4(size, rng)
    step = max(step, (size + 8) // 8 // 40 + 1)
    pieces = cut6(whole, step * 8) if six else fragment(whole, step * 8)
    if not six and len(pieces) == 1:
        pieces = [whole]
    stream = [*pieces, *rng.sample(pieces, len(pieces) // 3)] if len(pieces) > 1 else pieces
    rng.shuffle(stream)
    for piece in stream:
        lab.send(piece)
    whole.hlim = 64 if six else 0
    seen = spy.seen[0]
    if not six:
        assert seen == bytes(whole4_header(whole))
    else:
        assert seen == bytes(whole)
    assert len(spy.seen) == 1 or len(pieces) == 1
    assert lab.gw.reassembly.memory >= 0


def whole4_header(whole: IP) -> IP:
    packet = IP(bytes(whole))
    packet.ttl = 64
    packet.flags = 0
    del packet.chksum
    return IP(bytes(packet))


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 40), st.integers(0, 300), st.booleans(), st.integers(0, 2), st.integers(0, 2)),
        max_size=60,
    ),
    st.booleans(),
)
def test_hostile_fragments_are_bounded_and_leave_nothing(items: list[tuple[int, int, bool, int, int]], six: bool) -> None:
    lab = Lab()
    tracked(lab)
    lab.gw.settings.frag_high = 8000
    for offset, size, more, ident, host in items:
        if six:
            header = IPv6(src=f"2001:db8:1::{host + 10}", dst="2001:db8:2::10")
            lab.send(header / IPv6ExtHdrFragment(nh=17, offset=offset, m=int(more), id=ident) / Raw(bytes(size)))
        else:
            header = IP(src=f"192.0.2.{host + 10}", dst="198.51.100.10", id=ident, frag=offset, flags="MF" if more else 0, proto=17)
            lab.send(header / Raw(bytes(size)))
        assert lab.gw.reassembly.memory <= 8000 + 1200
    lab.advance(61)
    assert lab.gw.reassembly.memory == 0
    assert not lab.gw.reassembly.queues4 and not lab.gw.reassembly.queues6


def test_overlap_kills_the_queue() -> None:
    lab = Lab()
    spy = tracked(lab)
    first, second, third = fragment(whole4(60, random.Random(1)), 24)
    second.frag -= 1
    for piece in (first, second, third):
        lab.send(piece)
    assert spy.seen == []
    assert lab.drops()["REASM_OVERLAP"] == 2
    lab.advance(31)
    assert lab.drops() == {"REASM_OVERLAP": 2, "REASM_TIMEOUT": 1}


def test_too_many_others_between_two_fragments_start_it_over() -> None:
    lab = Lab()
    spy = tracked(lab)
    first, second = fragment(whole4(40, random.Random(1)), 24)[:2]
    lab.send(first)
    for n in range(70):
        lab.send(IP(src="192.0.2.10", dst="198.51.100.10", id=1000 + n, flags="MF") / Raw(bytes(8)))
    lab.send(second)
    assert spy.seen == []
    assert lab.drops()["REASM_TIMEOUT"] == 1


def test_a_reassembled_packet_is_cut_as_it_came() -> None:
    lab = Lab()
    tracked(lab)
    pieces = fragment(whole4(3000, random.Random(2)), 1000)
    for piece in reversed(pieces):
        lab.send(piece)
    out = [frame[IP] for frame in lab.out()]
    assert [(p.frag, p.len, int(p.flags)) for p in out] == [(p.frag, len(p), int(p.flags)) for p in pieces]
    assert b"".join(bytes(p.payload) for p in out) == b"".join(bytes(p.payload) for p in pieces)
    assert {p.id for p in out} == {77} and {p.ttl for p in out} == {63}


def test_a_smaller_link_cuts_it_smaller_but_never_larger() -> None:
    lab = Lab()
    tracked(lab)
    lab.gw.set_mtu(lab.wan, 576)
    for piece in fragment(whole4(3000, random.Random(2)), 1000):
        lab.send(piece)
    assert max(frame[IP].len for frame in lab.out()) == 20 + 552
    lab.gw.set_mtu(lab.wan, 9000)
    for piece in fragment(whole4(3000, random.Random(3)), 1000):
        lab.send(piece)
    assert max(frame[IP].len for frame in lab.out()) == 20 + 1000


def test_ipv6_reassembled_for_conntrack_leaves_in_the_size_it_came() -> None:
    lab = Lab()
    tracked(lab)
    for piece in cut6(whole6(4000, random.Random(2)), 1240):
        lab.send(piece)
    out = lab.out()
    assert [frame[IPv6].plen for frame in out] == [1248, 1248, 1248, 8 + 4008 - 3720]
    assert len({frame[IPv6ExtHdrFragment].id for frame in out}) == 1


def test_a_large_packet_without_df_is_cut() -> None:
    lab = Lab()
    lab.gw.set_mtu(lab.wan, 1300)
    packet = IP(src="192.0.2.10", dst="198.51.100.10", id=5, options=[]) / UDP() / Raw(random.Random(1).randbytes(1400))
    lab.send(packet)
    out = [frame[IP] for frame in lab.out()]
    assert [(p.frag, p.len, int(p.flags)) for p in out] == [(0, 1300, 1), (160, 148, 0)]
    assert b"".join(bytes(p.payload) for p in out) == bytes(IP(bytes(packet)).payload)


def test_without_conntrack_fragments_pass_as_they_are() -> None:
    lab = Lab()
    for piece in fragment(whole4(3000, random.Random(2)), 1000):
        lab.send(piece)
    assert [frame[IP].frag for frame in lab.out()] == [0, 125, 250, 375]
    assert not lab.gw.reassembly.queues4


@pytest.mark.parametrize("six", [False, True])
def test_echo_in_fragments_is_answered_in_fragments(six: bool) -> None:
    lab = Lab()
    data = random.Random(3).randbytes(4000)
    if six:
        whole = IPv6(bytes(IPv6(src="2001:db8:1::10", dst="2001:db8:1::1") / ICMPv6EchoRequest(id=1, data=data)))
        for piece in cut6(whole, 1232):
            lab.send(piece)
        out = lab.out("lan")
        assert len(out) == 3
        payload = b"".join(bytes(frame[IPv6ExtHdrFragment].payload) for frame in out)
        assert bytes(ICMPv6EchoReply(payload).data) == data
    else:
        for piece in fragment(IP(src="192.0.2.10", dst="192.0.2.1") / ICMP(id=1) / Raw(data), 1400):
            lab.send(piece)
        out = lab.out("lan")
        assert [frame[IP].len for frame in out] == [1500, 1500, 1068]
        payload = b"".join(bytes(frame[IP].payload) for frame in out)
        assert payload[8:] == data and payload[0] == 0


def test_reassembly_timeout_is_told_when_the_first_fragment_was_for_us() -> None:
    lab = Lab()
    first = fragment(IP(src="192.0.2.10", dst="192.0.2.1") / ICMP(id=1) / Raw(bytes(3000)), 1000)[0]
    lab.send(first)
    lab.advance(29)
    assert lab.out("lan") == []
    lab.advance(2)
    answer = lab.one("lan")
    assert (answer[ICMP].type, answer[ICMP].code) == (11, 1)
    assert lab.drops() == {"REASM_TIMEOUT": 1}
    lab.send(cut6(whole6(3000, random.Random(1)), 1000)[0])
    assert lab.gw.drop_counts()[11] == 1


def test_ipv6_timeout() -> None:
    lab = Lab()
    whole = IPv6(bytes(IPv6(src="2001:db8:1::10", dst="2001:db8:1::1") / ICMPv6EchoRequest(data=bytes(3000))))
    lab.send(cut6(whole, 1000)[0])
    lab.advance(61)
    assert lab.one("lan")[ICMPv6TimeExceeded].code == 1


def test_scapy_cuts_alike() -> None:
    packet = IPv6(src="2001:db8:1::10", dst="2001:db8:2::10") / IPv6ExtHdrFragment(id=9) / UDP() / Raw(bytes(3000))
    lab = Lab()
    spy = tracked(lab)
    for piece in fragment6(packet, 1280):
        lab.send(piece)
    assert len(spy.seen) == 1 and len(spy.seen[0]) == 40 + 8 + 3000
