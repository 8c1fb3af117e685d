"""Fragments and path MTU: reassembly before conntrack, fragmentation behind postrouting, errors about size."""

from collections.abc import Iterable

import pytest
from lab import frames as f
from lab.families import EACH, IP4, IP6, Family
from lab.rules import forward, masquerade
from lab.topology import Lab, Out

each = pytest.mark.parametrize("fam", EACH, ids=str)
TRACK = forward("ct state new,established,untracked counter")


def pieces(fam: Family, packet: bytes, size: int) -> list[bytes]:
    """The packet in fragments of its family."""
    return f.fragments6(packet, size) if fam is IP6 else f.fragments4(packet, size)


def without_ident(frames: Iterable[Out]) -> list[Out]:
    """The frames with a zero identification in IPv6 fragment headers."""
    return [Out(port, frame[:58] + bytes(4) + frame[62:]) if frame[12:14] == b"\x86\xdd" and frame[20] == f.FRAG6
            else Out(port, frame) for port, frame in frames]


def lower(packet: bytes) -> bytes:
    """The packet with its TTL or hop limit less one."""
    if packet[0] >> 4 == 6:
        return packet[:7] + bytes((packet[7] - 1,)) + packet[8:]
    head = bytearray(packet[:20])
    head[8] -= 1
    head[10:12] = b"\0\0"
    head[10:12] = f.checksum(bytes(head)).to_bytes(2, "big")
    return bytes(head) + packet[20:]


@each
def test_without_conntrack_fragments_pass_as_they_are(lab: Lab, fam: Family) -> None:
    parts = pieces(fam, f.udp_packet(fam.lan, fam.wan, 4000, 53, bytes(range(256)) * 4), 512)
    assert lab.send("lan", *parts) == [lab.down("wan", lower(part)) for part in parts]


@each
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_with_conntrack_they_are_seen_as_one_packet_and_leave_as_they_came(lab: Lab, fam: Family,
                                                                        order: tuple[int, ...]) -> None:
    lab.router.load(TRACK)
    packet = f.udp_packet(fam.lan, fam.wan, 4000, 53, bytes(range(256)) * 4)
    parts = pieces(fam, packet, 512)
    for n in order[:-1]:
        assert lab.send("lan", parts[n]) == []
    got = lab.send("lan", parts[order[-1]])
    assert lab.router.counters()["inet t c #1"] == (1, len(packet))
    # Fragments of the size that came in (Linux: frag_max_size); over IPv6 under an identification of the router's.
    assert without_ident(got) == without_ident(lab.down("wan", lower(part)) for part in parts)


def test_fragments_with_df_leave_as_fragments_of_the_same_size(lab: Lab) -> None:
    """Linux: ip_do_fragment; what becomes of DF is compared between the routers."""
    lab.router.load(TRACK)
    parts = []
    for part in f.fragments4(f.udp_packet(IP4.lan, IP4.wan, 4000, 53, bytes(1200)), 512):
        head = bytearray(part[:20])
        head[6] |= 0x40
        head[10:12] = b"\0\0"
        head[10:12] = f.checksum(bytes(head)).to_bytes(2, "big")
        parts.append(bytes(head) + part[20:])
    got = lab.send("lan", *parts)
    assert [len(out.packet) for out in got] == [len(part) for part in parts]


@each
def test_masqueraded_fragments(lab: Lab, fam: Family) -> None:
    lab.router.load(masquerade(fam))
    data = bytes(range(256)) * 12
    got = lab.send("lan", *pieces(fam, f.udp_packet(fam.lan, fam.wan, 4000, 53, data), 1024))
    want = pieces(fam, f.udp_packet(fam.out, fam.wan, 4000, 53, data, ttl=63), 1024)
    assert without_ident(got) == without_ident(lab.down("wan", part) for part in want)


@each
def test_transport_matches_break_on_later_fragments(lab: Lab, fam: Family) -> None:
    lab.router.load("table inet t { chain c { type filter hook forward priority -500; udp dport 53 counter; "
                    "meta l4proto udp counter; } \n}")
    lab.send("lan", *pieces(fam, f.udp_packet(fam.lan, fam.wan, 4000, 53, bytes(1000)), 512))
    counts = [packets for packets, _ in lab.router.counters().values()]
    assert counts == [1, 2]


@each
def test_chains_before_defragmentation_see_fragments(lab: Lab, fam: Family) -> None:
    lab.router.load("""table inet t {
        chain raw { type filter hook prerouting priority -450; meta l4proto udp counter; }
        chain c { type filter hook prerouting priority -300; meta l4proto udp counter; ct state new; }\n}""")
    lab.send("lan", *pieces(fam, f.udp_packet(fam.lan, fam.wan, 4000, 53, bytes(1000)), 512))
    assert [packets for packets, _ in lab.router.counters().values()] == [2, 1]


def test_overlapping_fragments_are_dropped_whole(lab: Lab) -> None:
    """RFC 5722 for IPv6; Linux does the same for IPv4."""
    lab.router.load(TRACK)
    body = f.udp(IP4.lan, IP4.wan, 4000, 53, bytes(1000))
    first = f.ip4(IP4.lan, IP4.wan, f.UDP, body[:512], mf=True)
    overlap = f.ip4(IP4.lan, IP4.wan, f.UDP, body[504:], offset=504)
    assert lab.send("lan", first, overlap) == []
    assert lab.send("lan", f.ip4(IP4.lan, IP4.wan, f.UDP, body[512:], offset=512)) == []
    body = f.udp(IP6.lan, IP6.wan, 4000, 53, bytes(1000))
    first = f.ip6(IP6.lan, IP6.wan, f.FRAG6, f.frag6(f.UDP, body[:512], more=True))
    overlap = f.ip6(IP6.lan, IP6.wan, f.FRAG6, f.frag6(f.UDP, body[504:], offset=504))
    assert lab.send("lan", first, overlap) == []


def test_too_large_with_df_is_answered_with_the_mtu(lab: Lab) -> None:
    lab.router.load("table inet t { chain f { type filter hook forward priority 0; counter; }\n"
                    "chain p { type filter hook postrouting priority 0; oifname edge counter; }\n}")
    body = f.udp(IP4.lan, IP4.edge, 4000, 53, bytes(1380))
    packet = f.ip4(IP4.lan, IP4.edge, f.UDP, body, df=True)
    [out] = lab.send("lan", packet)
    assert out.port == "lan" and out.packet[20:22] == b"\3\4" and out.packet[26:28] == (1400).to_bytes(2, "big")
    assert out.packet[28:] == packet[:len(out.packet) - 28] and len(out.packet) <= 576
    assert {place: packets for place, (packets, _) in lab.router.counters().items()} == {
        "inet t f #1": 0, "inet t p #1": 0}


def test_too_large_without_df_is_fragmented_behind_postrouting(lab: Lab) -> None:
    lab.router.load("table inet t { chain p { type filter hook postrouting priority 0; oifname edge counter; }\n}")
    packet = f.udp_packet(IP4.lan, IP4.edge, 4000, 53, bytes(range(250)) * 5 + bytes(180), ttl=9)
    got = lab.send("lan", packet)
    want = f.fragments4(f.udp_packet(IP4.lan, IP4.edge, 4000, 53, bytes(range(250)) * 5 + bytes(180), ttl=8), 1376)
    assert got == [lab.down("edge", part) for part in want]
    assert lab.router.counters()["inet t p #1"] == (1, len(packet))


def test_ipv4_options_in_fragments(lab: Lab) -> None:
    """RFC 791: only options with the copy bit go into every fragment."""
    options = bytes.fromhex("440809000000000094040000")  # timestamp (full, not copied), router alert (copied)
    packet = f.ip4(IP4.lan, IP4.edge, f.UDP, f.udp(IP4.lan, IP4.edge, 1, 2, bytes(1400)), options=options)
    got = lab.send("lan", packet)
    assert len(got) == 2
    assert got[0].packet[28:32] == bytes.fromhex("94040000")
    assert bytes.fromhex("94040000") in got[1].packet[20:(got[1].packet[0] & 15) * 4]


def test_ipv6_packet_too_big(lab: Lab) -> None:
    lab.router.load("table inet t { chain f { type filter hook forward priority 0; counter; }\n}")
    packet = f.udp_packet(IP6.lan, IP6.edge, 4000, 53, bytes(1400))
    [out] = lab.send("lan", packet)
    assert out.port == "lan" and out.packet[40:42] == b"\2\0" and out.packet[44:48] == (1400).to_bytes(4, "big")
    assert out.packet[48:] == packet[:1280 - 48]
    assert lab.router.counters()["inet t f #1"][0] == 0


@each
def test_size_error_through_nat_reaches_the_client_about_its_own_packet(lab: Lab, fam: Family) -> None:
    lab.router.load(masquerade(fam))
    body = bytes(1000)
    if fam is IP4:
        packet = f.ip4(fam.lan, fam.wan, f.UDP, f.udp(fam.lan, fam.wan, 4000, 53, body), df=True)
    else:
        packet = f.udp_packet(fam.lan, fam.wan, 4000, 53, body)
    [out] = lab.send("lan", packet)
    hop = fam.host("wan", 254)
    quoted = out.packet[:500]
    complaint = f.ip6(hop, fam.out, f.ICMP6, f.icmp6(hop, fam.out, 2, 0, 1280, quoted)) if fam is IP6 else \
        f.ip4(hop, fam.out, f.ICMP, f.icmp(3, 4, 900, quoted))
    [got] = lab.send("wan", complaint)
    assert got.port == "lan"
    head = 40 if fam is IP6 else 20
    if fam is IP6:
        assert got.packet[24:40] == f.addr(fam.lan) and got.packet[44:48] == (1280).to_bytes(4, "big")
        assert got.packet[head + 8:][8:40] == packet[8:40]
    else:
        assert got.packet[16:20] == f.addr(fam.lan) and got.packet[26:28] == (900).to_bytes(2, "big")
        assert got.packet[head + 8:][12:20] == packet[12:20]


def test_tcp_mss_is_clamped_to_the_path(lab: Lab) -> None:
    lab.router.load("table inet m { chain c { type filter hook forward priority mangle; "
                    "tcp flags syn tcp option maxseg size set rt mtu; } \n}")
    for fam, mss in ((IP4, 1360), (IP6, 1340)):
        [out] = lab.send("lan", f.tcp_packet(fam.lan, fam.edge, 4000, 80, options=bytes.fromhex("020405b4")))
        assert out == lab.down("edge", f.tcp_packet(fam.lan, fam.edge, 4000, 80, ttl=63,
                                                    options=b"\2\4" + mss.to_bytes(2, "big")))
