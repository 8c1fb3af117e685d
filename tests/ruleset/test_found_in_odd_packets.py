"""What the differential test found with options, extension headers, tunnels and rare kinds of ICMP: facts of Linux 6.18."""

from __future__ import annotations

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6ParamProblem, IPv6, in6_chksum
from scapy.packet import Raw
from scapy.utils import checksum

from tests.ruleset.test_found_by_differences import FAR, FAR6, HOST, HOST6, OWN6, counted, table
from tests.ruleset.test_gateway import Rules


@pytest.mark.parametrize(
    ("option", "missing"),
    [
        (b"\x07\x07\x04" + bytes(5), 0),
        (b"\x07\x07\x05" + bytes(5), 1),  # no room behind its pointer
        (b"\x07\x07\x04" + bytes(4) + b"\x44\x04\x04\0\0", 1),  # another one is wrong
        (b"\x07\x07\x04" + bytes(4) + b"\x07\x07\x04" + bytes(6), 1),  # twice
    ],
)
def test_where_an_option_is_wrong_none_exists(option: bytes, missing: int) -> None:
    lab = Rules(table("ip", "filter prerouting 0: ip option rr missing counter"))
    size = 20 + len(option)
    head = bytes(IP(src=HOST, dst=FAR, ihl=size // 4, len=size + 8, proto=17, chksum=0)) + option
    head = head[:10] + checksum(head).to_bytes(2, "big") + head[12:]
    lab.send(IP(head + bytes(UDP(sport=1, dport=2, chksum=0))))
    assert counted(lab) == [missing]


@pytest.mark.parametrize(("kind", "answers"), [(8, 1), (9, 0), (10, 0), (1, 0), (13, 1), (18, 1), (30, 0)])
def test_no_error_is_sent_about_what_is_not_a_question_or_an_answer(kind: int, answers: int) -> None:
    lab = Rules("")
    lab.send(IP(src=HOST, dst=FAR, ttl=1) / ICMP(type=kind))
    assert len(lab.out("lan")) == answers


@pytest.mark.parametrize(("size", "pointer"), [(0x10000, 42), (100, 44)])
def test_a_jumbo_option_is_told_where_it_is_wrong(size: int, pointer: int) -> None:
    lab = Rules("")
    options = b"\x11\0\xc2\x04" + size.to_bytes(4, "big")
    lab.send(IPv6(src=HOST6, dst=FAR6, nh=0) / Raw(options + bytes(UDP(sport=1, dport=2))))
    assert lab.one("lan")[ICMPv6ParamProblem].ptr == pointer


@pytest.mark.parametrize(
    ("first", "headers", "pointer"),
    [
        (51, b"\x11\x04\0\0" + bytes(20), 6),  # nobody takes AH
        (51, b"\x11\x28\0\0" + bytes(20), 6),  # nor when it is cut off
        (43, b"\0\0\0\0\0\0\0\0\x11\0\x01\x04\0\0\0\0", 40),  # hop-by-hop options come first or not at all
    ],
)
def test_headers_that_the_gateway_has_no_receiver_for(first: int, headers: bytes, pointer: int) -> None:
    lab = Rules("")
    lab.send(IPv6(src=HOST6, dst=OWN6, nh=first) / Raw(headers + bytes(UDP(sport=1, dport=2))))
    problem = lab.one("lan")[ICMPv6ParamProblem]
    assert (problem.code, problem.ptr) == (1, pointer)


@pytest.mark.parametrize(("kind", "left", "answers"), [(3, 0, 0), (4, 1, 0), (0, 1, 1)])
def test_segment_routing_headers_are_dropped_in_silence(kind: int, left: int, answers: int) -> None:
    lab = Rules("")
    header = bytes((17, 2, kind, left, 0, 0, 0, 0)) + bytes(16)
    lab.send(IPv6(src=HOST6, dst=OWN6, nh=43) / Raw(header + bytes(UDP(sport=1, dport=2))))
    assert len(lab.out("lan")) == answers


@pytest.mark.parametrize(("words", "answers"), [(2, 1), (123, 0)])
def test_a_routing_header_that_is_cut_off_is_dropped_in_silence(words: int, answers: int) -> None:
    lab = Rules("")
    lab.send(IPv6(src=HOST6, dst=OWN6, nh=43) / Raw(bytes((17, words, 2, 1, 0, 0, 0, 0)) + bytes(40)))
    assert len(lab.out("lan")) == answers


def test_gre_that_is_shorter_than_eight_bytes_is_tracked_but_not_translated() -> None:
    lab = Rules(table("ip", "filter forward 0: ct state new counter", "nat postrouting 100: snat to 198.51.100.77"))
    lab.send(IP(src=HOST, dst=FAR, proto=47) / Raw(b"\0\0\x08"))
    assert counted(lab) == [1]
    assert lab.out() == []


@pytest.mark.parametrize(("words", "answers"), [(4, 1), (0x28, 0)])
def test_reject_needs_something_behind_an_authentication_header(words: int, answers: int) -> None:
    lab = Rules(table("ip6", "filter forward 0: reject with icmpv6 admin-prohibited"))
    header = bytes((17, words)) + bytes(22)
    lab.send(IPv6(src=HOST6, dst=FAR6, nh=51) / Raw(header + bytes(UDP(sport=1, dport=2))))
    assert len(lab.out("lan")) == answers


@pytest.mark.parametrize(("wrong", "answers"), [(0, 1), (1, 0)])
def test_reject_asks_for_the_checksum_behind_an_authentication_header(wrong: int, answers: int) -> None:
    lab = Rules(table("ip6", "filter forward 0: reject with icmpv6 admin-prohibited"))
    datagram = bytearray(bytes(IPv6(src=HOST6, dst=FAR6) / UDP(sport=1, dport=2))[40:])
    datagram[7] ^= wrong
    lab.send(IPv6(src=HOST6, dst=FAR6, nh=51) / Raw(bytes((17, 4)) + bytes(22) + bytes(datagram)))
    assert len(lab.out("lan")) == answers


@pytest.mark.parametrize("headers", [b"", b"\x3a\0\1\4\0\0\0\0", b"\x3c\0\1\4\0\0\0\0\x3a\0\1\4\0\0\0\0"])
def test_ingress_rejects_no_unreachable_behind_whatever_headers(headers: bytes) -> None:
    lab = Rules(table("netdev", "filter ingress 0 lan: meta protocol ip6 reject"))
    error = bytes(IPv6(src=HOST6, dst=FAR6) / ICMPv6DestUnreach() / Raw(bytes(48)))[40:]
    lab.send(IPv6(src=HOST6, dst=FAR6, nh=60 if headers else 58) / Raw(headers + error))
    assert lab.out() == []


@pytest.mark.parametrize(("kind", "untracked"), [(143, 1), (144, 0), (151, 1), (152, 1), (153, 0)])
def test_multicast_router_discovery_is_not_tracked(kind: int, untracked: int) -> None:
    lab = Rules(table("ip6", "filter forward 0: ct state untracked counter"))
    head = IPv6(src=HOST6, dst=FAR6, nh=58)
    body = bytes((kind, 0)) + in6_chksum(58, head, bytes((kind, 0)) + bytes(6)).to_bytes(2, "big") + bytes(4)
    lab.send(head / Raw(body))
    assert counted(lab) == [untracked]


def test_a_reset_to_a_link_local_address_goes_back_over_its_link() -> None:
    lab = Rules("table ip6 t { chain c { type filter hook output priority 0; oifname lan meta l4proto tcp counter; }; }")
    lab.send(IPv6(src="fe80::10", dst=OWN6) / TCP(sport=1, dport=2))
    assert counted(lab) == [1]
