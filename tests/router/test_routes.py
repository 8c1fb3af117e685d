"""Longest-prefix match against a naive search, rules, multipath, and how routes follow addresses and devices."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from router_lab import Lab, number
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from userfw.core.const import NFPROTO_IPV4, NFPROTO_IPV6
from userfw.core.packet import Device
from userfw.router.const import RTN_LOCAL, RTN_THROW, RTN_UNICAST, RTN_UNSPEC
from userfw.router.fib import Fib, Rule
from userfw.router.lpm import Table
from userfw.router.types import NextHop, Route

HALF = (1 << 64) - 1


def prefixes(bits: int) -> st.SearchStrategy[list[tuple[int, int]]]:
    # few leading patterns, so that prefixes nest
    address = st.one_of(st.integers(0, (1 << bits) - 1), st.sampled_from([0, 1 << (bits - 1), (1 << bits) - 1, 0xA << (bits - 4)]))
    return st.lists(st.tuples(address, st.integers(0, bits)), max_size=30)


@pytest.mark.parametrize(("family", "bits"), [(NFPROTO_IPV4, 32), (NFPROTO_IPV6, 128)])
def test_lookup_finds_what_a_search_finds(family: int, bits: int) -> None:
    @given(prefixes(bits), st.lists(st.integers(0, (1 << bits) - 1), max_size=10), st.randoms(use_true_random=False))
    def check(items: list[tuple[int, int]], probes: list[int], rng: random.Random) -> None:
        table = Table(family, 254, 7)
        routes: dict[tuple[int, int], Route] = {}
        for address, length in items:
            network = address >> (bits - length) << (bits - length)
            if (network, length) not in routes:
                route = Route(family, network >> 64, network & HALF, length, [])
                routes[network, length] = route
                table.add(route)
        for key in rng.sample(sorted(routes), len(routes) // 3):
            table.remove(routes.pop(key))
        for probe in probes + [network for network, _ in items]:
            best = max((k for k in routes if probe >> (bits - k[1]) == k[0] >> (bits - k[1])), key=lambda k: k[1], default=None)
            assert table.lookup(probe >> 64, probe & HALF, None, 0) is (routes[best] if best else None)
        assert {(r.hi << 64 | r.lo, r.prefixlen) for r in table.routes()} == set(routes)

    check()


def test_metric_decides_and_a_dead_device_is_passed_over() -> None:
    lab = Lab()
    lab.gw.add_route("203.0.113.0/24", via="198.51.100.10", metric=10)
    lab.gw.add_route("203.0.113.0/24", via="192.0.2.10", metric=20)
    assert lab.gw.routes.resolve(NFPROTO_IPV4, *number("203.0.113.1"), 0, 0, 0, None).oif is lab.wan
    lab.gw.set_up(lab.wan, False)
    assert lab.gw.routes.resolve(NFPROTO_IPV4, *number("203.0.113.1"), 0, 0, 0, None).oif is lab.lan
    lab.gw.set_up(lab.wan, True)
    assert lab.gw.routes.resolve(NFPROTO_IPV4, *number("203.0.113.1"), 0, 0, 0, None).oif is lab.wan


def test_a_cached_decision_is_outdated_by_a_change() -> None:
    lab = Lab()
    dst = lab.gw.routes.resolve(NFPROTO_IPV4, *number("203.0.113.1"), 0, 0, 0, None)
    assert dst.valid() and dst.type == RTN_UNSPEC
    assert lab.gw.routes.resolve(NFPROTO_IPV4, *number("203.0.113.1"), 0, 0, 0, None) is dst
    route = lab.gw.add_route("0.0.0.0/0", via="198.51.100.10")
    assert not dst.valid()
    assert lab.gw.routes.resolve(NFPROTO_IPV4, *number("203.0.113.1"), 0, 0, 0, None).type == RTN_UNICAST
    lab.gw.routes.remove(route)
    assert lab.gw.routes.resolve(NFPROTO_IPV4, *number("203.0.113.1"), 0, 0, 0, None).type == RTN_UNSPEC


def test_rules_by_mark_source_and_input_device() -> None:
    lab = Lab()
    lab.gw.add_route("0.0.0.0/0", via="198.51.100.10")
    lab.gw.add_route("0.0.0.0/0", via="192.0.2.10", table=100)
    resolve = lab.gw.routes.resolve
    lab.gw.routes.set_rules([Rule(100, NFPROTO_IPV4, 100, mark=7, mark_mask=0xFF)])
    for mark, oif in ((0, lab.wan), (7, lab.lan), (0x107, lab.lan), (8, lab.wan)):
        assert resolve(NFPROTO_IPV4, *number("203.0.113.1"), 0, 0, mark, None).oif is oif
    lab.gw.routes.set_rules([Rule(100, NFPROTO_IPV4, 100, source=(0, number("10.0.0.0")[1], 8))])
    for source, oif in (("10.1.2.3", lab.lan), ("11.1.2.3", lab.wan)):
        assert resolve(NFPROTO_IPV4, *number("203.0.113.1"), *number(source), 0, None).oif is oif
    lab.gw.routes.set_rules([Rule(100, NFPROTO_IPV4, 100, iif=lab.wan.index)])
    assert resolve(NFPROTO_IPV4, *number("203.0.113.1"), 0, 0, 0, lab.wan).oif is lab.lan
    # own addresses come first, whatever the rules say
    assert resolve(NFPROTO_IPV4, *number("192.0.2.1"), 0, 0, 0, lab.wan).type == RTN_LOCAL


def test_throw_goes_on_with_the_next_table() -> None:
    lab = Lab()
    lab.gw.add_route("0.0.0.0/0", via="198.51.100.10")
    lab.gw.add_route("203.0.113.0/24", type=RTN_THROW, table=100)
    lab.gw.add_route("0.0.0.0/0", via="192.0.2.10", table=100)
    lab.gw.routes.set_rules([Rule(100, NFPROTO_IPV4, 100)])
    assert lab.gw.routes.resolve(NFPROTO_IPV4, *number("203.0.113.1"), 0, 0, 0, None).oif is lab.wan
    assert lab.gw.routes.resolve(NFPROTO_IPV4, *number("203.0.114.1"), 0, 0, 0, None).oif is lab.lan


def test_multipath_spreads_flows_by_weight_and_keeps_each_on_its_way() -> None:
    lab = Lab()
    lab.neighbour(lab.wan, "198.51.100.11", "02:00:00:00:02:11")
    lab.gw.add_route("203.0.113.0/24", hops=[("198.51.100.10", "wan", 3), ("198.51.100.11", "wan", 1)])
    counts: dict[str, int] = {}
    for n in range(400):
        for _ in range(2):
            lab.send(IP(src=f"10.0.{n // 200}.{n % 200 + 1}", dst=f"203.0.113.{n % 250}") / UDP())
        first, second = (frame[Ether].dst for frame in lab.out())
        assert first == second
        counts[first] = counts.get(first, 0) + 1
    assert 240 < counts["02:00:00:00:02:10"] < 360


def test_addresses_bring_and_take_their_routes() -> None:
    from userfw.router.interfaces import parse_address

    lab = Lab()
    before = {(r.hi, r.lo, r.prefixlen, r.type, r.table) for r in lab.gw.routes.all()}
    for text in ("10.1.0.1/16", "10.1.0.2/16", "2001:db8:7::1/64"):
        lab.gw.add_address(lab.lan, parse_address(text))
    assert [a.secondary for a in lab.lan.addresses][-3:] == [False, True, False]
    assert lab.gw.routes.resolve(NFPROTO_IPV4, *number("10.1.255.255"), 0, 0, 0, None).type == 3
    first = next(a for a in lab.lan.addresses if a.lo == number("10.1.0.1")[1])
    lab.gw.remove_address(lab.lan, first)
    dst = lab.gw.routes.resolve(NFPROTO_IPV4, *number("10.1.9.9"), 0, 0, 0, None)
    assert (dst.oif, dst.src_lo) == (lab.lan, number("10.1.0.2")[1])
    for address in list(lab.lan.addresses)[-2:]:
        lab.gw.remove_address(lab.lan, address)
    assert {(r.hi, r.lo, r.prefixlen, r.type, r.table) for r in lab.gw.routes.all()} == before


def test_removing_a_device_takes_everything_along() -> None:
    lab = Lab()
    lab.gw.add_route("203.0.113.0/24", via="198.51.100.10")
    lab.gw.remove_device(lab.wan)
    assert all(hop.device is not lab.wan for r in lab.gw.routes.all() for hop in r.nexthops)
    assert all(n.device is not lab.wan for n in lab.gw.neighbours.entries.values())
    lab.send(IP(src="192.0.2.10", dst="203.0.113.1") / UDP())
    assert lab.drops() == {"NO_ROUTE": 1}


def test_wrong_routes_are_refused() -> None:
    lab = Lab()
    for arguments in (
        {"prefix": "203.0.113.0/24", "via": "10.9.9.9"},
        {"prefix": "203.0.113.0/24"},
        {"prefix": "203.0.113.0/24", "dev": "nope"},
        {"prefix": "203.0.113.1/24", "dev": "wan"},
    ):
        with pytest.raises(ValueError):
            lab.gw.add_route(**arguments)
    lab.gw.add_route("203.0.113.0/24", via="10.9.9.9", dev="wan", onlink=True)
    with pytest.raises(ValueError):
        lab.gw.add_route("203.0.113.0/24", dev="wan")
    lab.gw.add_route("203.0.113.0/24", dev="wan", replace=True)


def test_ipv4_over_an_ipv6_gateway() -> None:
    lab = Lab()
    lab.gw.add_route("203.0.113.0/24", via="2001:db8:2::10", dev="wan")
    lab.send(IP(src="192.0.2.10", dst="203.0.113.1") / UDP())
    frame = lab.one()
    assert (frame.dst, frame.type, frame[IP].dst) == ("02:00:00:00:02:10", 0x800, "203.0.113.1")


@pytest.mark.parametrize(
    ("source", "to", "reason"),
    [
        ("224.0.0.1", "198.51.100.10", "MARTIAN"),
        ("255.255.255.255", "198.51.100.10", "MARTIAN"),
        ("127.0.0.1", "198.51.100.10", "MARTIAN"),
        ("0.0.0.1", "198.51.100.10", "MARTIAN"),
        ("192.0.2.1", "198.51.100.10", "MARTIAN"),
        ("198.51.100.1", "198.51.100.10", "MARTIAN"),
        ("192.0.2.10", "127.0.0.1", "MARTIAN"),
        ("192.0.2.10", "0.0.0.1", "MARTIAN"),
        ("192.0.2.10", "239.1.1.1", "NO_ROUTE"),
        ("192.0.2.1", "224.0.0.1", "MARTIAN"),
        ("127.0.0.1", "224.0.0.1", "MARTIAN"),
        ("0.0.0.0", "239.1.1.1", "MARTIAN"),
        ("0.0.0.0", "224.0.0.1", "NO_PROTOCOL"),
    ],
)
def test_martians(source: str, to: str, reason: str) -> None:
    lab = Lab()
    lab.send(IP(src=source, dst=to) / UDP())
    assert lab.out() == lab.out("lan") == []
    assert lab.drops() == {reason: 1}


@pytest.mark.parametrize(("source", "to"), [("::1", "2001:db8:2::10"), ("2001:db8:1::10", "::1"), ("ff02::1", "2001:db8:2::10")])
def test_martians_ipv6(source: str, to: str) -> None:
    lab = Lab()
    lab.send(IPv6(src=source, dst=to) / UDP())
    assert lab.drops() == {"MARTIAN": 1}


def test_reverse_path_filter() -> None:
    lab = Lab()
    lab.gw.settings.rp_filter = 1
    lab.send(IP(src="198.51.100.77", dst="198.51.100.10") / UDP())
    assert lab.drops() == {"SOURCE_FILTER": 1}
    lab.gw.settings.rp_filter = 2
    lab.send(IP(src="198.51.100.77", dst="198.51.100.10") / UDP())
    lab.send(IP(src="9.9.9.9", dst="198.51.100.10") / UDP())
    assert len(lab.out()) == 1
    assert lab.drops() == {"SOURCE_FILTER": 2}


def test_many_routes() -> None:
    fib = Fib(3)
    device = Device("x", 5, bytes(6))
    hop = [NextHop(device)]
    rng = random.Random(4)
    table = fib.table(NFPROTO_IPV4, 254)
    seen = {}
    while len(seen) < 20000:
        length = rng.randrange(8, 33)
        network = rng.getrandbits(length) << (32 - length)
        if (network, length) not in seen:
            seen[network, length] = Route(NFPROTO_IPV4, 0, network, length, hop)
            table.add(seen[network, length])
    for (network, length), route in list(seen.items())[:2000]:
        found = table.lookup(0, network | rng.getrandbits(32 - length) if length < 32 else network, None, 0)
        assert found is not None and found.prefixlen >= route.prefixlen


def test_a_gateway_behind_a_link_that_is_down_is_known_by_its_prefix() -> None:
    lab = Lab()
    lab.gw.set_up(lab.wan, False)
    lab.gw.add_route("203.0.113.0/24", via="198.51.100.10")
    lab.gw.set_up(lab.wan, True)
    lab.send(IP(src="192.0.2.10", dst="203.0.113.5") / UDP())
    assert lab.one()[IP].dst == "203.0.113.5"
