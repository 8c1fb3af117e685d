"""Mappings and rewriting: there and back is identity, every checksum holds by plain recomputation."""

from __future__ import annotations

import struct

import pytest
from ct_build import address, checksums_hold, echo, icmp, packet, tcp, udp
from hypothesis import given, settings
from hypothesis import strategies as st
from nat_harness import DST, FULLY, NETMAP, OFFSET, PERSISTENT, Gateway, Rule, nat_range

from userfw.conntrack.conn import Tuple
from userfw.core.const import IPS_FIXED_TIMEOUT, IPS_SRC_NAT
from userfw.core.drop import DropReason
from userfw.core.packet import Address
from userfw.nat.mangle import rewrite_of
from userfw.nat.taken import TakenMemory

LAN, SERVER, WAN = "10.0.1.5", "198.51.100.9", "203.0.113.1"
LAN6, SERVER6, WAN6 = "fd00:1::5", "2001:db8:9::9", "2001:db8::1"


def ends(data: bytes) -> tuple[bytes, bytes]:
    return (data[12:16], data[16:20]) if data[0] >> 4 == 4 else (data[8:24], data[24:40])


def ports(data: bytes) -> tuple[int, int]:
    head = 20 if data[0] >> 4 == 4 else 40
    return struct.unpack("!HH", data[head : head + 4])  # type: ignore[return-value]


def answer(data: bytes, payload: bytes = b"pong") -> bytes:
    """What the far end answers to a packet that reached it."""
    import ipaddress

    src, dst = (str(ipaddress.ip_address(a)) for a in ends(data))
    six = ":" in src
    proto = data[6] if six else data[9]
    head = 40 if six else 20
    if proto in (1, 58):
        return echo(dst, src, struct.unpack("!H", data[head + 4 : head + 6])[0], reply=True, data=payload)
    sport, dport = ports(data)
    if proto == 6:
        seq = struct.unpack("!I", data[head + 4 : head + 8])[0]
        return tcp(dst, src, dport, sport, "S.", seq=7, ack=seq + 1, data=b"")
    return udp(dst, src, dport, sport, payload, checksum=data[head + 6 : head + 8] != b"\0\0")


FIRST = {
    "tcp4": tcp(LAN, SERVER, 40000, 80, "S", seq=5),
    "udp4": udp(LAN, SERVER, 40000, 53, b"query!?"),
    "udp4-nocheck": udp(LAN, SERVER, 40000, 53, b"query", checksum=False),
    "icmp4": echo(LAN, SERVER, 77),
    "tcp6": tcp(LAN6, SERVER6, 40000, 80, "S", seq=5),
    "udp6": udp(LAN6, SERVER6, 40000, 53, b"query"),
    "icmp6": echo(LAN6, SERVER6, 77),
}


@pytest.mark.parametrize("data", FIRST.values(), ids=FIRST)
def test_masquerade_there_and_back(data: bytes) -> None:
    g = Gateway()
    rule = g.masquerade()
    out = g.forward(data)
    assert out is not None and checksums_hold(out)
    six = data[0] >> 4 == 6
    assert ends(out) == (address(WAN6 if six else WAN), ends(data)[1])
    back = answer(out)
    home = g.forward(back, back=True)
    assert home is not None and checksums_hold(home)
    assert home == answer(data)
    assert g.last.ctinfo == 2 and rule.asked == 1
    assert g.forward(data) == out and rule.asked == 1


@pytest.mark.parametrize("six", [False, True])
def test_dnat_there_and_back(six: bool) -> None:
    g = Gateway()
    inside, outside, asked = ("fd00:1::80", SERVER6, WAN6) if six else ("10.0.1.80", SERVER, WAN)
    g.dnat(nat_range(inside, ports=(8080, 8080)))
    data = tcp(outside, asked, 5555, 80, "S", seq=9)
    out = g.forward(data)
    assert out is not None and checksums_hold(out)
    assert ends(out) == (address(outside), address(inside)) and ports(out) == (5555, 8080)
    home = g.forward(answer(out), back=True)
    assert home == answer(data)


def test_zero_udp_checksum_stays_and_computed_zero_becomes_ones() -> None:
    g = Gateway()
    g.masquerade()
    out = g.forward(FIRST["udp4-nocheck"])
    assert out is not None and out[26:28] == b"\0\0"
    for n in range(1 << 16):  # a payload for which the new checksum comes out as zero
        data = udp(LAN, SERVER, 40001, 53, struct.pack("!H", n))
        want = udp(WAN, SERVER, 40001, 53, struct.pack("!H", n))
        if want[26:28] == b"\xff\xff":
            assert g.forward(data) == want[:8] + data[8:9] + want[9:]
            return
    pytest.fail("no payload found")


def test_port_is_kept_when_free_and_changed_in_its_class_when_not() -> None:
    g = Gateway()
    g.masquerade()
    for sport, low, high in ((40000, 1024, 65535), (700, 600, 1023), (100, 1, 511)):
        first = g.forward(udp("10.0.1.5", SERVER, sport, 53))
        assert first is not None and ports(first)[0] == sport
        second = g.forward(udp("10.0.1.6", SERVER, sport, 53))
        assert second is not None and ports(second)[0] != sport and low <= ports(second)[0] <= high
        assert checksums_hold(second)


def test_null_mapping_protects_against_clashes() -> None:
    g = Gateway()
    g.masquerade()
    first = g.forward(udp(LAN, SERVER, 4000, 53))
    assert first is not None
    g.rules([], [])
    mine = g.forward(udp(WAN, SERVER, 4000, 53))  # the gateway's own address and port, no rule
    assert mine is not None and ports(mine)[0] != 4000


def test_same_source_keeps_its_mapping() -> None:
    g = Gateway()
    g.masquerade()
    g.forward(udp("10.0.1.6", SERVER, 4000, 53))
    a = g.forward(udp("10.0.1.5", SERVER, 4000, 53))
    b = g.forward(udp("10.0.1.5", "198.51.100.10", 4000, 53))
    assert a is not None and b is not None and ports(a)[0] == ports(b)[0] != 4000


def test_port_range_is_exhausted_then_dropped() -> None:
    g = Gateway()
    g.snat(nat_range(WAN, ports=(5000, 5003)))
    taken = set()
    for n in range(4):
        out = g.forward(udp(f"10.0.1.{n + 5}", SERVER, 4000, 53))
        assert out is not None
        taken.add(ports(out)[0])
    assert taken == {5000, 5001, 5002, 5003}
    assert g.forward(udp("10.0.1.99", SERVER, 4000, 53)) is None
    assert g.last.drop_reason == DropReason.CT_CLASH


def crowd(g: Gateway, first: int, last: int) -> None:
    """Connections of that many hosts to one port of a server, until all ports of the range are taken."""
    g.snat(nat_range(WAN, ports=(first, last)))
    for n in range(10 * (last - first)):
        g.forward(tcp(f"10.{n >> 8}.{n & 255}.5", SERVER, 4000, 80, "S", seq=1))
        if g.table.count > last - first:
            return
    raise AssertionError("ports are left")


def knock(g: Gateway, n: int, seq: int = 1) -> bytes | None:
    return g.forward(tcp(f"10.200.{n >> 8}.{n & 255}", SERVER, 4000, 80, "S", seq=seq))


def test_connections_that_found_no_port_leave_nothing_behind() -> None:
    g = Gateway()
    crowd(g, 5000, 5002)
    for n in range(20):
        assert knock(g, n) is None and g.last.drop_reason == DropReason.CT_CLASH
    assert g.nat.sources.count == g.table.count == 3


def test_a_search_in_vain_remembers_and_a_free_port_is_found_soon_again() -> None:
    g = Gateway()
    crowd(g, 5000, 5199)
    n = 0
    while bits_of(g) != 200 and n < 200:
        assert knock(g, n) is None
        n += 1
    assert bits_of(g) == 200, "all ports are known to be taken"
    assert g.forward(tcp(LAN, "198.51.100.77", 4000, 80, "S", seq=1)) is not None, "another destination is not concerned"
    [freed] = [conn for conn in g.table.members(0, 0) if conn.reply.dport == 5123]
    g.table.destroy(freed)
    assert knock(g, 1000) is None, "not looked at for a quarter of a second"
    g.clock.now += 250_000_000
    found = [out for n in range(1001, 1031) if (out := knock(g, n)) is not None]
    assert [ports(out)[0] for out in found] == [5123]


def bits_of(g: Gateway) -> int:
    """Ports remembered of the first destination that ran out of them."""
    known = g.nat.taken.members[0]
    return sum(known.seen(port) for port in range(65536)) if g.clock.now < known.until else 0


def test_what_is_over_gives_its_port_away_whatever_is_remembered() -> None:
    g = Gateway()
    crowd(g, 5000, 5199)
    while not bits_of(g):
        assert knock(g, 0) is None
    g.clock.now += 250_000_000
    for conn in g.table.members(0, 0):
        if conn.reply.dport != 5123:
            conn.state = 2  # the handshake goes on
    [over] = [conn for conn in g.table.members(0, 0) if conn.reply.dport == 5123]
    over.state = 7  # TIME_WAIT
    assert not any(knock(g, n, seq) for n in range(100) for seq in (1, 0)), "its sequence numbers would come again"
    over.status &= ~IPS_SRC_NAT
    assert not any(knock(g, n, 1000) for n in range(100)), "the port is its own"
    over.status |= IPS_SRC_NAT | IPS_FIXED_TIMEOUT
    assert not any(knock(g, n, 1000) for n in range(100)), "somebody wants it kept"
    over.status ^= IPS_FIXED_TIMEOUT
    assert any(knock(g, n, 1000) is not None for n in range(100))


@given(st.sets(st.integers(0, 65535)), st.integers(0, 65535))
def test_remembered_ports_are_those_marked(marked: set[int], other: int) -> None:
    memory, key, another = TakenMemory(), Tuple(), Tuple()
    key.dst_lo, key.dport, another.dport = 1, 80, 80
    assert memory.find(key, 0) is None
    known = memory.begin(key, 100)
    assert known is not None
    for port in marked:
        known.mark(port)
    key.sport = other
    assert memory.find(key, 100 + 249_999_999) is known and memory.find(key, 100 + 250_000_000) is None
    assert memory.find(another, 100) is None
    assert all(known.seen(port) for port in marked) and known.seen(other) == (other in marked)


def test_a_few_destinations_are_remembered() -> None:
    memory, keys = TakenMemory(), [Tuple() for _ in range(9)]
    for n, key in enumerate(keys):
        key.dst_lo = n
    assert all(memory.begin(key, 5) is not None for key in keys[:8]) and memory.begin(keys[8], 5) is None
    assert memory.begin(keys[8], 5 + 250_000_000) is not None, "the others' time is over"


def test_looking_ahead_finds_the_same_ports() -> None:
    found = []
    for many in (0, 1 << 40):
        g = Gateway()
        g.nat.ahead.many = many
        g.snat(nat_range(WAN, ports=(5000, 5099)))
        outs = [g.forward(udp(f"10.0.1.{n + 5}", SERVER, 4000, 53)) for n in range(110)]
        found.append([ports(out)[0] if out else None for out in outs])
    assert found[0] == found[1] and found[0].count(None) == 10


def test_no_address_drops() -> None:
    g = Gateway()
    g.masquerade()
    g.wan.addresses = []
    assert g.forward(FIRST["udp4"]) is None
    assert g.last.drop_reason == DropReason.NAT_FAILED


def test_masquerade_forgets_a_device() -> None:
    g = Gateway()
    g.masquerade()
    for n in range(50):
        g.forward(udp(LAN, SERVER, 4000 + n, 53))
    g.rules([], [])
    g.forward(udp(LAN, SERVER, 9000, 53))
    assert g.nat.forget_device(99) == 0
    assert g.nat.forget_device(3, Address(2, 0, 0x01020304, 24)) == 0
    assert g.nat.forget_device(3, g.wan.addresses[1]) == 0
    assert g.nat.forget_device(3, g.wan.addresses[0]) == 50
    assert g.table.count == 1 and g.nat.sources.count == 0


def test_masquerade_through_another_device_ends_the_connection() -> None:
    g = Gateway()
    g.masquerade()
    assert g.forward(FIRST["udp4"]) is not None
    g.wan.index = 9
    assert g.forward(FIRST["udp4"]) is None and g.table.count == 0


def test_netmap_keeps_the_host_part() -> None:
    g = Gateway()
    g.snat(nat_range("192.0.2.0", "192.0.2.255", flags=NETMAP))
    out = g.forward(FIRST["udp4"])
    assert out is not None and ends(out)[0] == address("192.0.2.5")


def test_port_offset() -> None:
    g = Gateway()
    within = nat_range("10.0.1.80", ports=(2000, 2100), flags=OFFSET)
    within.base_port = 1000
    g.dnat(within)
    out = g.forward(tcp(SERVER, WAN, 5, 1042, "S"))
    assert out is not None and ports(out)[1] == 2042


def test_address_range_spreads_and_persistent_sticks() -> None:
    g = Gateway()
    g.snat(nat_range("192.0.2.1", "192.0.2.8"))
    seen = set()
    for n in range(64):
        out = g.forward(udp(LAN, f"198.51.100.{n}", 4000 + n, 53))
        assert out is not None
        seen.add(ends(out)[0])
    assert len(seen) == 8
    g.snat(nat_range("192.0.2.1", "192.0.2.8", flags=PERSISTENT))
    seen = set()
    for n in range(64):
        out = g.forward(udp(LAN, f"198.51.100.{n}", 6000 + n, 53))
        assert out is not None
        seen.add(ends(out)[0])
    assert len(seen) == 1


def test_fully_random_changes_the_port() -> None:
    g = Gateway()
    g.masquerade(nat_range(flags=FULLY))
    got = {ports(g.forward(udp(LAN, SERVER, 4000, 53 + n)) or b"")[0] for n in range(8)}
    assert len(got) == 8


def test_chains_are_asked_in_turn_until_one_maps() -> None:
    g = Gateway()
    quiet = Rule(lambda pkt, conn: None)
    act = Rule(lambda pkt, conn: g.nat.setup(pkt, conn, nat_range("10.0.1.80"), DST))
    late = Rule(lambda pkt, conn: pytest.fail("asked although mapped"))
    g.rules([quiet, act, late], [])
    assert g.forward(tcp(SERVER, WAN, 5, 80, "S")) is not None
    assert (quiet.asked, act.asked, late.asked) == (1, 1, 0)


def test_drop_in_a_chain_leaves_nothing() -> None:
    g = Gateway()
    g.rules([Rule(lambda pkt, conn: 0)], [])
    assert g.forward(tcp(SERVER, WAN, 5, 80, "S")) is None
    assert g.table.count == 0


@pytest.mark.parametrize("name", ["tcp4", "udp4", "udp4-nocheck", "icmp4", "tcp6", "udp6", "icmp6"])
@pytest.mark.parametrize("quoted", [8, 60])
def test_icmp_errors_are_translated_outside_and_inside(name: str, quoted: int) -> None:
    data = FIRST[name]
    six = data[0] >> 4 == 6
    head = 40 if six else 20
    g = Gateway()
    g.masquerade()
    out = g.forward(data)
    assert out is not None
    router, own, lan = ("2001:db8:5::1", WAN6, LAN6) if six else ("192.0.2.77", WAN, LAN)
    kind = (1, 4) if six else (3, 3)
    error = icmp(router, own, *kind, b"\0" * 4, out[: head + quoted])
    home = g.forward(error, back=True)
    assert home is not None and g.last.ctinfo == 3
    assert ends(home) == (address(router), address(lan)) and checksums_hold(home)
    inner = home[head + 8 :]
    assert ends(inner) == ends(data)
    # the quoted packet is what the sender sent, down to its checksums where they are quoted
    assert inner[: head + 8] == data[: head + 8] if "icmp" not in name else inner[:head] == data[:head]
    assert inner == data[: head + quoted]
    assert g.table.count == 1


def test_errors_through_dnat_come_from_the_address_asked() -> None:
    g = Gateway()
    g.dnat(nat_range("10.0.1.80", ports=(8080, 8080)))
    data = tcp(SERVER, WAN, 5555, 80, "S", seq=9)
    out = g.forward(data)
    assert out is not None
    error = icmp("10.0.1.254", SERVER, 3, 1, b"\0" * 4, out)
    home = g.forward(error, back=True)
    assert home is not None and checksums_hold(home)
    assert ends(home) == (address(WAN), address(SERVER)) and home[28:] == data


def test_error_with_a_wrong_checksum_is_not_made_right() -> None:
    g = Gateway(nf_conntrack_checksum=0)
    g.masquerade()
    out = g.forward(FIRST["udp4"])
    assert out is not None
    error = bytearray(icmp("192.0.2.77", WAN, 3, 3, b"\0" * 4, out))
    error[22] ^= 1
    assert g.forward(bytes(error), back=True) is None and g.last.drop_reason == DropReason.CHECKSUM


@given(
    src=st.integers(1, 2**32 - 2),
    dst=st.integers(1, 2**32 - 2),
    new=st.integers(1, 2**32 - 2),
    sport=st.integers(1, 65535),
    port=st.integers(1, 65535),
    payload=st.binary(max_size=40),
    kind=st.sampled_from(["tcp", "udp"]),
)
@settings(max_examples=300, deadline=None)
def test_incremental_checksums_equal_recomputation(
    src: int, dst: int, new: int, sport: int, port: int, payload: bytes, kind: str
) -> None:
    import ipaddress

    a, b, c = (str(ipaddress.IPv4Address(n)) for n in (src, dst, new))
    g = Gateway()
    g.snat(nat_range(c, ports=(port, port)))
    build = (lambda s, sp: tcp(s, b, sp, 80, "S", data=payload)) if kind == "tcp" else (lambda s, sp: udp(s, b, sp, 80, payload))
    out = g.forward(build(a, sport))
    if a == b or (src == dst):
        return
    assert out == build(c, port)
    # and at once, as the flowtable does it
    conn = g.last.ct
    r = rewrite_of(conn, 0)
    if r is None:
        assert (a, sport) == (c, port)
        return
    pkt = packet(build(a, sport))
    r.apply(pkt)
    assert bytes(pkt.data[pkt.l3 : pkt.end]) == build(c, port)
    back = rewrite_of(conn, 1)
    assert back is not None


@given(src=st.binary(min_size=16, max_size=16), new=st.binary(min_size=16, max_size=16), payload=st.binary(max_size=30))
@settings(max_examples=200, deadline=None)
def test_incremental_checksums_ipv6(src: bytes, new: bytes, payload: bytes) -> None:
    import ipaddress

    a, c = str(ipaddress.IPv6Address(src)), str(ipaddress.IPv6Address(new))
    for build in (lambda s: udp(s, SERVER6, 9, 80, payload), lambda s: tcp(s, SERVER6, 9, 80, "S", data=payload), lambda s:
    echo(s, SERVER6, 5)):
        g = Gateway()
        g.snat(nat_range(c))
        assert g.forward(build(a)) == build(c)


@pytest.mark.parametrize("name", ["tcp4", "udp4", "tcp6", "udp6"])
def test_partial_checksums_change_by_the_addresses_only(name: str) -> None:
    from ct_build import pseudo

    data = FIRST[name]
    six = data[0] >> 4 == 6
    head, proto = (40, data[6]) if six else (20, data[9])
    at = head + (16 if proto == 6 else 6)

    def partial(raw: bytes, src: str, dst: str) -> bytes:
        total = sum(struct.unpack(f"!{len(pseudo(src, dst, proto, 0)) // 2}H", pseudo(src, dst, proto, len(raw) - head)))
        while total >> 16:
            total = (total & 0xFFFF) + (total >> 16)
        return raw[:at] + struct.pack("!H", total) + raw[at + 2 :]

    lan, server, wan = (LAN6, SERVER6, WAN6) if six else (LAN, SERVER, WAN)
    g = Gateway()
    g.snat(nat_range(wan, ports=(777, 777)))
    pkt = packet(partial(data, lan, server))
    pkt.vnet_flags = 1
    assert g.pass_through(pkt) == 1
    out = bytes(pkt.data[pkt.l3 : pkt.end])
    assert ports(out)[0] == 777
    assert out == partial(out, wan, server)


def test_redirect() -> None:
    g = Gateway()
    g.rules([Rule(lambda pkt, conn: g.nat.redirect(pkt, conn, nat_range(ports=(3128, 3128)), 0))], [])
    out = g.forward(tcp(LAN, SERVER, 5, 80, "S"))
    assert out is not None and ends(out)[1] == address("10.0.1.254") and ports(out)[1] == 3128
    g.rules([Rule(lambda pkt, conn: g.nat.redirect(pkt, conn, nat_range(), 3))], [])
    out = g.forward(tcp(LAN, SERVER, 6, 80, "S"))
    assert out is not None and ends(out)[1] == address("127.0.0.1")
