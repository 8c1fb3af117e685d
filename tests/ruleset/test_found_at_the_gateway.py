"""What the differential test found about packets for the gateway itself and headers that are odd: facts of Linux 6.18, one each."""

from __future__ import annotations

import pytest
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6ParamProblem,
    IPv6,
    IPv6ExtHdrFragment,
)
from scapy.packet import Raw

from tests.ruleset.test_found_by_differences import FAR, FAR6, HOST, HOST6, OWN, OWN6, counted, table
from tests.ruleset.test_gateway import Rules
from userfw.router.interfaces import parse_address


def test_a_header_that_rules_at_ingress_spoiled_is_not_forwarded() -> None:
    """An address is written half: the header's checksum, but not ICMPv6's, for there is none; the rule breaks in between."""
    lab = Rules(table("netdev", "filter ingress 0 lan: ip daddr set 198.51.100.11 counter"))
    lab.send(IP(src=HOST, dst=FAR, proto=58))
    assert counted(lab) == [0]
    assert lab.out() == []
    assert lab.drops() == {"CHECKSUM": 1}


def test_a_header_that_rules_at_ingress_mended_is_forwarded() -> None:
    good = IP(bytes(IP(src=HOST, dst=FAR) / UDP() / b"x"))
    bad = good.copy()
    bad.chksum ^= 1
    lab = Rules("")
    lab.send(bad)
    assert lab.out() == []
    lab.run(table("netdev", f"filter ingress 0 lan: ip checksum set {good.chksum}"))
    lab.send(bad)
    assert bytes(lab.one()[IP])[12:] == bytes(good)[12:]


def test_an_echo_request_to_a_group_is_answered_by_the_device_it_came_in_by() -> None:
    lab = Rules("")
    lab.send(IPv6(src=HOST6, dst="ff02::1") / ICMPv6EchoRequest())
    assert lab.one("lan")[IPv6].src == OWN6
    for source in (FAR6, "::"):  # not that way
        lab.send(IPv6(src=source, dst="ff02::1") / ICMPv6EchoRequest())
        assert lab.out("lan") == lab.out("wan") == []
    lab.send(IPv6(src=FAR6, dst=OWN6) / ICMPv6EchoRequest())
    assert lab.one("wan")[IPv6].src == OWN6


def test_the_answer_to_a_group_takes_its_device_even_if_a_rule_gave_the_request_another_source() -> None:
    lab = Rules(table("ip6", f"nat input 100: snat ip6 to {FAR6}"))
    lab.send(IPv6(src=HOST6, dst="ff02::1") / ICMPv6EchoRequest())
    assert lab.out("lan") == lab.out("wan") == []


def test_fib_of_loopback_is_of_no_device() -> None:
    asks = "fib saddr . iif check missing counter; fib saddr . iif check exists counter"
    lab = Rules(table("netdev", f"filter ingress 0 lan: {asks}"))
    lab.gw.add_route("::/0", via="2001:db8:1::10")
    lab.send(IPv6(src="::1", dst="ff05::5") / UDP())
    assert counted(lab) == [1, 0]


def test_fib_looks_for_the_best_route_whatever_device_is_asked_about() -> None:
    """A source of wan that comes in by lan, where the default route is."""
    asks = "fib saddr . iif oif 0 counter; fib daddr . iif type unicast counter; fib daddr . iif type unreachable counter"
    lab = Rules(table("ip6", f"filter prerouting 0: {asks}"))
    lab.send(IPv6(src=FAR6, dst=FAR6) / UDP())
    assert counted(lab) == [1, 1, 0]


def test_no_unreachable_at_ingress_about_one_behind_a_fragment_header() -> None:
    lab = Rules(table("netdev", "filter ingress 0 lan: reject with icmpx host-unreachable"))
    lab.send(IPv6(src=HOST6, dst=FAR6) / IPv6ExtHdrFragment(nh=58) / ICMPv6DestUnreach())
    assert lab.out("lan") == []
    lab.send(IPv6(src=HOST6, dst=FAR6) / IPv6ExtHdrFragment(nh=58) / ICMPv6EchoReply())
    assert lab.one("lan")[ICMPv6DestUnreach].code == 3


TRACKED = table("ip6", "filter prerouting 0: ct state new counter; ct state invalid counter")


@pytest.mark.parametrize("left", range(8))
def test_the_sender_of_a_fragment_header_that_is_cut_off_is_told(left: int) -> None:
    lab = Rules("")
    lab.send(IPv6(src=HOST6, dst=OWN6, nh=44) / Raw(bytes((17, 0, 0, 0, 0, 0, 0, 7))[:left]))
    problem = lab.one("lan")[ICMPv6ParamProblem]
    assert (problem.code, problem.ptr) == (0, 40)
    lab.send(IPv6(src=HOST6, dst=FAR6, nh=44) / Raw(bytes((17, 0, 0, 0, 0, 0, 0, 7))[:left]))
    assert len(lab.out()) == 1


@pytest.mark.parametrize(("left", "field", "passes"), [(0, 0, 1), (1, 0, 0), (3, 0, 0), (4, 0, 1), (7, 0, 1), (4, 8, 0), (7, 8, 0)])
def test_conntrack_drops_a_fragment_header_that_is_cut_off(left: int, field: int, passes: int) -> None:
    """But not one that tells enough: that the transport is missing is told by the host."""
    lab = Rules(TRACKED)
    lab.send(IPv6(src=HOST6, dst=FAR6, nh=44) / Raw(bytes((17, 0, 0, field, 0, 0, 0, 7))[:left]))
    assert len(lab.out()) == passes


def test_a_fragment_of_nothing_is_dropped_by_conntrack() -> None:
    lab = Rules(TRACKED)
    lab.send(IPv6(src=HOST6, dst=FAR6) / IPv6ExtHdrFragment(nh=59))
    assert lab.out() == []


@pytest.mark.parametrize(("second", "code", "pointer"), [(44, 0, 48), (0, 1, 40)])
def test_what_may_not_stand_behind_a_fragment_header(second: int, code: int, pointer: int) -> None:
    lab = Rules("")
    lab.send(IPv6(src=HOST6, dst=OWN6) / IPv6ExtHdrFragment(nh=second) / Raw(bytes((17, 0, 0, 0, 0, 0, 0, 7)) + bytes(16)))
    problem = lab.one("lan")[ICMPv6ParamProblem]
    assert (problem.code, problem.ptr) == (code, pointer)


@pytest.mark.parametrize("next_header", [0, 43, 44, 51, 60])
def test_a_cut_header_behind_a_cut_header_is_no_connection(next_header: int) -> None:
    lab = Rules(TRACKED)
    lab.send(IPv6(src=HOST6, dst=FAR6, nh=60) / Raw(bytes((next_header, 0, 1))))
    assert counted(lab) == [0, 1]


def test_ipv6_datagrams_without_a_checksum_are_tracked() -> None:
    lab = Rules(TRACKED)
    lab.send(IPv6(src=HOST6, dst=FAR6) / UDP(chksum=0))
    assert counted(lab) == [1, 0]


def test_timestamp_requests_are_answered() -> None:
    lab = Rules("")
    lab.clock.wall_offset = 86400 * 20000 - lab.clock.now / 1e9 + 3.25
    lab.send(IP(src=HOST, dst=OWN, tos=0x10) / ICMP(type=13, code=3, id=7, seq=9, ts_ori=1234) / b"more")
    frame = lab.one("lan")
    answer = frame[ICMP]
    assert (answer.type, answer.code, answer.id, answer.seq) == (14, 0, 7, 9)
    assert (answer.ts_ori, answer.ts_rx, answer.ts_tx) == (1234, 3250, 3250)
    assert (frame[IP].src, frame[IP].tos, frame[IP].len) == (OWN, 0x10, 40)
    assert bytes(type(answer)(bytes(answer)))[2:4] == bytes(answer)[2:4]
    short = IP(src=HOST, dst=OWN, proto=1) / Raw(b"\x0d\0\xf2\xff" + bytes(7))
    for odd in (short, IP(src=HOST, dst="192.0.2.255") / ICMP(type=13)):
        lab.send(odd)
        assert lab.out("lan") == []
    lab.gw.add_address(lab.lan, parse_address("192.0.2.2/24"))
    lab.send(IP(src=HOST, dst="192.0.2.2") / ICMP(type=13))
    assert lab.one("lan")[IP].src == "192.0.2.2"


@pytest.mark.parametrize(("size", "passes"), [(1, 1), (40, 0)])
def test_ct_count_looks_behind_an_authentication_header(size: int, passes: int) -> None:
    """Where there is no connection yet, what has no ports is dropped (Linux: nft_connlimit_do_eval)."""
    lab = Rules("table inet t {\nset s {\ntype mark\nflags dynamic\nsize 9\n}\nchain c {\n"
                "type filter hook ingress device lan priority 0\nadd @s { meta mark ct count 100 } counter\n}\n}")
    lab.send(IPv6(src=HOST6, dst=FAR6, nh=51) / Raw(bytes((17, size)) + bytes(10)) / UDP())
    assert counted(lab)[:1] == [passes]
    assert len(lab.out()) == passes
    lab.send(IPv6(src=HOST6, dst=FAR6, nh=59) / Raw(b"nothing follows"))
    assert counted(lab)[:1] == [passes] and lab.out() == []


@pytest.mark.parametrize(("to", "hop"), [("198.51.100.1", "198.51.100.1"), ("127.0.0.5", "192.0.2.10")])
def test_the_next_hop_over_lo_is_the_address_that_was_routed_unless_it_is_of_lo(to: str, hop: str) -> None:
    lab = Rules(table("ip", f"filter output 0: ip daddr set {HOST}", f"filter output 5: rt nexthop {hop} counter"))
    lab.gw.local_device = lab.lan  # what comes in there is the gateway's own
    lab.send(IP(src=OWN, dst=to) / UDP(sport=1, dport=2))
    assert counted(lab)[0] == 1


@pytest.mark.parametrize(("rule", "seen"), [("counter", 2), ("ip daddr set 203.0.113.12 counter", 1)])
def test_what_is_for_127_over_lo_needs_the_route_that_it_left_with(rule: str, seen: int) -> None:
    """Where prerouting had changed its destination, the mapping's is written anew, and the route is gone."""
    lab = Rules(table("ip", "nat output -100: redirect", f"filter prerouting -150: {rule}"))
    lab.gw.local_device = lab.gw.names["lan"]  # what comes in there is the gateway's own
    lab.send(IP(src=OWN, dst=FAR) / UDP(sport=1, dport=2))
    assert counted(lab) == [seen]  # with the error that nobody listens
