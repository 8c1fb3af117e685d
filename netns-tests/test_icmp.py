"""ICMP and ICMPv6: errors through NAT inside and outside, errors the router makes, reject in all forms."""

import struct
import time

import pytest
from lab import frames as f
from lab.families import EACH, IP4, IP6, Family
from lab.rules import nat
from lab.topology import Lab

each = pytest.mark.parametrize("fam", EACH, ids=str)
RELATED = """table inet t { chain c { type filter hook forward priority 0; policy accept;
    ct state related counter accept
    ct state invalid counter drop
}\n}\n"""


def error(fam: Family, src: str, dst: str, kind: int, code: int, quoted: bytes, rest: int = 0, ttl: int = 64) -> bytes:
    """An ICMP error packet of the family quoting `quoted`."""
    if fam is IP6:
        return f.ip6(src, dst, f.ICMP6, f.icmp6(src, dst, kind, code, rest, quoted), hops=ttl)
    return f.ip4(src, dst, f.ICMP, f.icmp(kind, code, rest, quoted), ttl=ttl)


def unreachable(fam: Family) -> tuple[int, int]:
    """Port unreachable."""
    return (1, 4) if fam is IP6 else (3, 3)


@each
def test_an_error_for_a_masqueraded_packet_is_translated_inside_and_outside(lab: Lab, fam: Family) -> None:
    lab.router.load(RELATED + nat(fam, post='oifname "wan" masquerade'))
    [out] = lab.send("lan", f.udp_packet(fam.lan, fam.wan, 4000, 33434, ttl=9))
    quoted = out.packet
    got = lab.send("wan", error(fam, fam.wan, fam.out, *unreachable(fam), quoted))
    inner = f.udp_packet(fam.lan, fam.wan, 4000, 33434, ttl=8)
    assert got == [lab.down("lan", error(fam, fam.wan, fam.lan, *unreachable(fam), inner, ttl=63))]
    assert lab.router.counters()["inet t c #1"][0] == 1
    assert len(lab.router.conns()) == 1


@each
def test_an_error_from_a_router_on_the_way(lab: Lab, fam: Family) -> None:
    """The outer source is the third party: it stays."""
    lab.router.load(RELATED + nat(fam, post='oifname "wan" masquerade'))
    far, hop = ("2001:db8:99::9", fam.host("wan", 254)) if fam is IP6 else ("198.51.100.9", fam.host("wan", 254))
    [out] = lab.send("lan", f.tcp_packet(fam.lan, far, 4000, 80, ttl=3))
    kind = (3, 0) if fam is IP6 else (11, 0)
    got = lab.send("wan", error(fam, hop, fam.out, *kind, out.packet[:68 if fam is IP6 else 28]))
    inner = f.tcp_packet(fam.lan, far, 4000, 80, ttl=2)[:68 if fam is IP6 else 28]
    [one] = got
    assert one.port == "lan"
    head = 40 if fam is IP6 else 20
    assert one.packet[:head] == error(fam, hop, fam.lan, *kind, inner, ttl=63)[:head]
    # The quoted transport checksum, where it is quoted, is beyond these eight bytes.
    assert one.packet[head + 8:] == inner


@each
def test_an_error_through_dnat_appears_to_come_from_the_address_that_was_asked(lab: Lab, fam: Family) -> None:
    lab.router.load(RELATED + nat(fam, pre=f'iifname "wan" udp dport 53 dnat to {fam.dmz}'))
    [out] = lab.send("wan", f.udp_packet(fam.wan, fam.out, 4000, 53))
    assert out.port == "dmz"
    inner = f.udp_packet(fam.wan, fam.out, 4000, 53, ttl=63)
    got = lab.send("dmz", error(fam, fam.dmz, fam.wan, *unreachable(fam), out.packet))
    assert got == [lab.down("wan", error(fam, fam.out, fam.wan, *unreachable(fam), inner, ttl=63))]
    # A router between here and the server complains: its address is hidden as well.
    got = lab.send("dmz", error(fam, fam.host("dmz", 11), fam.wan, *unreachable(fam), out.packet))
    assert got == [lab.down("wan", error(fam, fam.out, fam.wan, *unreachable(fam), inner, ttl=63))]


@each
def test_an_error_for_nothing_known_is_invalid(lab: Lab, fam: Family) -> None:
    lab.router.load(RELATED)
    quoted = f.udp_packet(fam.lan, fam.wan, 4000, 53)
    assert lab.send("wan", error(fam, fam.wan, fam.lan, *unreachable(fam), quoted)) == []
    counters = lab.router.counters()
    assert (counters["inet t c #1"][0], counters["inet t c #2"][0]) == (0, 1)
    assert lab.router.conns() == []


@each
def test_a_truncated_quote_is_invalid(lab: Lab, fam: Family) -> None:
    lab.router.load(RELATED)
    [out] = lab.send("lan", f.udp_packet(fam.lan, fam.wan, 4000, 53))
    for size in (4, 19, 22):
        assert lab.send("wan", error(fam, fam.wan, fam.lan, *unreachable(fam), out.packet[:size])) == [], size


@each
def test_ttl_expiry_is_answered_and_never_reaches_forward(lab: Lab, fam: Family) -> None:
    lab.router.load("""table inet t {
        chain p { type filter hook prerouting priority 0; meta l4proto udp counter; }
        chain c { type filter hook forward priority 0; counter; }\n}""")
    packet = f.udp_packet(fam.lan, fam.wan, 4000, 53, ttl=1)
    [out] = lab.send("lan", packet)
    kind = (3, 0) if fam is IP6 else (11, 0)
    want = error(fam, fam.host("lan", 1), fam.lan, *kind, packet)
    if fam is IP6:
        assert out == lab.down("lan", want)
    else:  # the identification is the router's own; precedence is internetwork control (RFC 1812 4.3.2.5)
        assert out.port == "lan" and out.packet[20:] == want[20:] and out.packet[12:20] == want[12:20]
        assert out.packet[1] == 0xC0
    counts = {place: packets for place, (packets, _) in lab.router.counters().items()}
    assert counts == {"inet t p #1": 1, "inet t c #1": 0}


@each
def test_no_error_about_an_error_or_a_multicast(lab: Lab, fam: Family) -> None:
    quoted = f.udp_packet(fam.wan, fam.lan, 1, 2)
    assert lab.send("lan", error(fam, fam.lan, fam.wan, *unreachable(fam), quoted, ttl=1)) == []
    if fam is IP4:
        assert lab.send("lan", f.ip4(IP4.lan, IP4.wan, f.UDP, f.udp(IP4.lan, IP4.wan, 1, 2), ttl=1, offset=64)) == []


@each
def test_echo_is_answered_by_the_router_at_each_of_its_addresses(lab: Lab, fam: Family) -> None:
    for side in ("lan", "wan"):
        address = fam.host(side, 1)
        [out] = lab.send("lan", f.ping(fam.lan, address, 9, 3))
        want = f.ping(address, fam.lan, 9, 3, reply=True)
        if fam is IP6:
            assert out == lab.down("lan", want)
        else:
            assert out.packet[12:] == want[12:] and out.packet[8] == 64


@pytest.mark.own_numbers
@pytest.mark.parametrize(("asked", "size", "answered"), [("own", 12, True), ("own", 40, True), ("own", 4, True), ("own", 3, False),
                                                         ("all", 12, False)])
def test_timestamps_are_answered_with_the_time_of_day(lab: Lab, asked: str, size: int, answered: bool) -> None:
    """Milliseconds since midnight UT twice, behind what was asked (RFC 792); nothing else of the request comes back."""
    lab.router.load("")
    to, body = IP4.host("lan", 1) if asked == "own" else "192.168.1.255", bytes(range(1, size + 1))
    got = lab.send("lan", f.ip4(IP4.lan, to, f.ICMP, f.icmp(13, 5, 0x70009, body)))
    assert len(got) == answered
    for one in got:
        packet = one.packet
        assert packet[12:20] == f.addr(to) + f.addr(IP4.lan) and len(packet) == 40
        message = packet[20:]
        assert message[:2] == b"\x0e\0" and message[4:8] == b"\0\x07\0\x09" and message[8:12] == body[:4]
        assert f.checksum(message) in (0, 0xFFFF)
        received, sent = struct.unpack("!II", message[12:])
        day = 86_400_000
        late = (time.time() * 1000 - sent) % day
        assert received == sent < day and min(late, day - late) < 600_000


@each
def test_no_route_and_unreachable_port_of_the_router(lab: Lab, fam: Family) -> None:
    packet = f.udp_packet(fam.lan, fam.host("lan", 1), 4000, 9999)
    [out] = lab.answered_by("lan", packet)
    head = 40 if fam is IP6 else 20
    assert out.packet[head:] == error(fam, fam.host("lan", 1), fam.lan, *unreachable(fam), packet)[head:]


REJECTS = [
    ("reject", (3, 3), (1, 4)),
    ("reject with icmpx admin-prohibited", (3, 13), (1, 1)),
    ("reject with icmpx host-unreachable", (3, 1), (1, 3)),
    ("reject with icmpx no-route", (3, 0), (1, 0)),
    ("reject with icmpx port-unreachable", (3, 3), (1, 4)),
]


@each
@pytest.mark.parametrize("hook", ["forward", "prerouting", "input"])
@pytest.mark.parametrize(("rule", "kind4", "kind6"), REJECTS, ids=[r[0].split()[-1] for r in REJECTS])
def test_reject_with_icmp(lab: Lab, fam: Family, hook: str, rule: str, kind4: tuple[int, int],
                          kind6: tuple[int, int]) -> None:
    lab.router.load(f"table inet t {{ chain c {{ type filter hook {hook} priority 0; meta l4proto udp {rule}; }}\n}}")
    target = fam.host("lan", 1) if hook == "input" else fam.wan
    packet = f.udp_packet(fam.lan, target, 4000, 53, b"some payload to quote")
    [out] = lab.send("lan", packet)
    quoted = packet
    if hook == "forward":
        quoted = f.udp_packet(fam.lan, target, 4000, 53, b"some payload to quote", ttl=63)
    source = target if hook == "input" else fam.host("lan", 1)
    head = 40 if fam is IP6 else 20
    want = error(fam, source, fam.lan, *(kind6 if fam is IP6 else kind4), quoted)
    assert out.port == "lan" and out.packet[head:] == want[head:]


ICMP4_CODES = {"net-unreachable": 0, "host-unreachable": 1, "prot-unreachable": 2, "port-unreachable": 3,
               "net-prohibited": 9, "host-prohibited": 10, "admin-prohibited": 13}
ICMP6_CODES = {"no-route": 0, "admin-prohibited": 1, "addr-unreachable": 3, "port-unreachable": 4, "policy-fail": 5,
               "reject-route": 6}


@pytest.mark.parametrize(("fam", "name"), [(IP4, n) for n in ICMP4_CODES] + [(IP6, n) for n in ICMP6_CODES], ids=str)
def test_reject_with_every_code(lab: Lab, fam: Family, name: str) -> None:
    lab.router.load(f"table {fam.name} t {{ chain c {{ type filter hook forward priority 0; "
                    f"reject with {fam.icmp} {name}; }}\n}}")
    [out] = lab.send("lan", f.udp_packet(fam.lan, fam.wan, 4000, 53))
    head = 40 if fam is IP6 else 20
    assert out.packet[head:head + 2] == (bytes((1, ICMP6_CODES[name])) if fam is IP6 else bytes((3, ICMP4_CODES[name])))


@each
@pytest.mark.parametrize("hook", ["forward", "prerouting", "input"])
def test_reject_with_tcp_reset(lab: Lab, fam: Family, hook: str) -> None:
    """RFC 9293 3.10.7.1: a segment with ACK is reset at its acknowledgement, one without is acknowledged."""
    lab.router.load(f"table inet t {{ chain c {{ type filter hook {hook} priority 0; "
                    "tcp dport 80 counter reject with tcp reset; }\n}")
    target = fam.host("lan", 1) if hook == "input" else fam.wan
    [out] = lab.send("lan", f.tcp_packet(fam.lan, target, 4000, 80, seq=77, payload=b"xy"))
    head = 40 if fam is IP6 else 20
    assert out.packet[head:] == f.tcp(target, fam.lan, 80, 4000, seq=0, ack=80, flags=f.RST | f.ACK, window=0)
    [out] = lab.send("lan", f.tcp_packet(fam.lan, target, 4000, 80, f.ACK, seq=77, ack=555))
    assert out.packet[head:] == f.tcp(target, fam.lan, 80, 4000, seq=555, flags=f.RST, window=0)
    assert lab.send("lan", f.tcp_packet(fam.lan, target, 4000, 80, f.RST, seq=77)) == []


@each
def test_reject_is_silent_about_icmp_errors_and_bad_checksums(lab: Lab, fam: Family) -> None:
    lab.router.load("table inet t { chain c { type filter hook forward priority 0; counter reject; }\n}")
    assert lab.send("lan", error(fam, fam.lan, fam.wan, *unreachable(fam), f.udp_packet(fam.wan, fam.lan, 1, 2))) == []
    bad = f.ip(fam.lan, fam.wan, f.UDP, f.udp(fam.lan, fam.wan, 1, 2, b"bad", check=1))
    assert lab.send("lan", bad) == []
    assert lab.router.counters()["inet t c #1"][0] == 2
