"""What the differential test found about resets and errors of rules, odd GRE, routing headers and tags: facts of Linux 6.18."""

from __future__ import annotations

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_RR
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6EchoRequest, ICMPv6ParamProblem, IPv6, IPv6ExtHdrRouting
from scapy.layers.l2 import Dot1Q, Ether
from scapy.layers.sctp import SCTP, SCTPChunkInit
from scapy.packet import Packet as Layer
from scapy.packet import Raw
from scapy.utils import checksum

from tests.router.router_lab import MACS, WAN_HOST
from tests.ruleset.test_found_by_differences import FAR, FAR6, HOST, HOST6, OWN, OWN6, counted, table
from tests.ruleset.test_gateway import Rules
from userfw.router.interfaces import parse_address

STAMP = b"\x44\x0c\x05\x03" + bytes((192, 0, 2, 1)) + bytes(4)
"""A timestamp that the gateway is asked for by its address."""


@pytest.mark.parametrize(("tracked", "answers"), [("ct event set new", 1), ("counter", 0)])
def test_a_reset_goes_by_the_sum_that_conntrack_took_before_the_option_was_filled_in(tracked: str, answers: int) -> None:
    lab = Rules(table("ip", f"filter input 0: {tracked}; reject with tcp reset"))
    head = bytes(IP(src=HOST, dst=OWN, ihl=8, len=52, proto=6, chksum=0)) + STAMP
    segment = bytes(IP(src=HOST, dst=OWN) / TCP(sport=1, dport=2, flags="A"))[20:]
    lab.send(IP(head[:10] + checksum(head).to_bytes(2, "big") + head[12:] + segment))
    assert len(lab.out("lan")) == answers


@pytest.mark.parametrize(("hook", "errors"), [("prerouting", 1), ("forward", 0)])
def test_a_copy_whose_sum_conntrack_took_is_rejected_however_wrong_it_was(hook: str, errors: int) -> None:
    copying = f"filter {hook} 0: dup to {FAR} device wan"
    lab = Rules(table("ip", copying, "filter output 0: meta l4proto udp ct state untracked counter reject"))
    lab.send(IP(src=HOST, dst=FAR) / UDP(sport=1, dport=2, chksum=0x1234))
    assert counted(lab) == [1]
    assert len(lab.out("lan")) == errors


def test_an_error_about_an_own_reset_echoes_its_options() -> None:
    lab = Rules(table("ip", "filter output 0: counter; meta l4proto tcp reject with icmp host-prohibited"))
    lab.send(IP(src=HOST, dst=OWN, options=[IPOption_RR(length=7, pointer=4, routers=["0.0.0.0"])]) / TCP(flags="S"))
    assert "packets 2 bytes 132" in lab.run("list ruleset")  # 48, and the 84 that quote them


@pytest.mark.parametrize(("version", "sent"), [(0, 1), (2, 0), (7, 0)])
def test_gre_of_a_version_that_is_not_is_not_mapped_to_another_destination(version: int, sent: int) -> None:
    lab = Rules(table("ip", f"nat prerouting -100: dnat to {FAR}"))
    lab.send(IP(src=HOST, dst="203.0.113.9", proto=47) / Raw(bytes((0, version, 8, 0)) + bytes(20)))
    assert len(lab.out()) == sent


def test_gre_of_any_version_is_mapped_to_another_source() -> None:
    lab = Rules(table("ip", "nat postrouting 100: snat to 198.51.100.1"))
    lab.send(IP(src=HOST, dst=FAR, proto=47) / Raw(bytes((0, 2, 8, 0)) + bytes(20)))
    assert lab.one()[IP].src == "198.51.100.1"


def test_what_an_error_quotes_of_sctp_gets_a_new_sum() -> None:
    lab = Rules(table("ip", "nat postrouting 100: meta l4proto sctp snat to 198.51.100.1:777"))
    lab.send(IP(src=HOST, dst=FAR) / SCTP(sport=1000, dport=9, tag=0) / SCTPChunkInit(init_tag=7))
    quoted = lab.one()[IP]
    lab.send(IP(src=FAR, dst="198.51.100.1") / ICMP(type=3, code=2) / Raw(bytes(quoted)), "wan")
    inner = IP(bytes(lab.one("lan")[ICMP].payload))
    assert (inner.src, inner[SCTP].sport) == (HOST, 1000)
    given = inner[SCTP].chksum
    del inner[SCTP].chksum
    assert SCTP(bytes(inner[SCTP])).chksum == given


@pytest.mark.parametrize(("to", "answers"), [(OWN6, 1), ("ff02::1", 0)])
def test_a_routing_header_of_a_group_s_packet_is_not_taken(to: str, answers: int) -> None:
    lab = Rules("")
    lab.send(IPv6(src=HOST6, dst=to) / IPv6ExtHdrRouting(type=0, segleft=0, addresses=[to]) / ICMPv6EchoRequest())
    assert len(lab.out("lan")) == answers


@pytest.mark.parametrize(("option", "sent"), [
    (bytes((7, 4, 1, 2, 3, 4)), 0), (bytes((7, 8, 0, 0, 0, 1, 0, 0, 3, 0xD3, 0, 0, 0, 0)), 0),
    (bytes((0x31, 4, 1, 2, 3, 4)), 0), (bytes((1, 0, 0x31, 2, 1, 2)), 1), (bytes((0x1E, 4, 1, 2, 3, 4)), 1),
])
def test_hop_by_hop_options_that_linux_looks_into(option: bytes, sent: int) -> None:
    """CALIPSO whose domain of interpretation nobody configured, IOAM that is not aligned."""
    lab = Rules("")
    header = bytes((17, len(option) // 8)) + option
    lab.send(IPv6(src=HOST6, dst=FAR6, nh=0) / Raw(header + bytes(UDP(sport=1, dport=2))))
    assert len(lab.out()) == sent


@pytest.mark.parametrize(("size", "states"), [(1, [0, 1]), (2, [1, 0]), (3, [1, 0]), (4, [1, 0])])
def test_two_octets_of_a_routing_header_say_to_conntrack_what_follows(size: int, states: list[int]) -> None:
    lab = Rules(table("ip6", "filter prerouting 0: ct state new counter", "filter prerouting 1: ct state invalid counter"))
    lab.send(IPv6(src=HOST6, dst=FAR6, nh=43) / Raw(bytes((50, 2, 0, 0))[:size]))
    assert counted(lab) == states
    assert len(lab.out()) == 1


@pytest.mark.parametrize(("packet", "answers"), [
    (IP(src=HOST, dst=OWN, proto=2), 0),
    (IP(src=HOST, dst=OWN, proto=59), 1),
    (IPv6(src=HOST6, dst=OWN6, nh=2), 1),
    (IPv6(src=HOST6, dst=OWN6, nh=59), 0),
])
def test_igmp_is_of_ipv4_and_nothing_is_of_ipv6(packet: Layer, answers: int) -> None:
    lab = Rules("")
    lab.send(packet / Raw(b"12345678"))
    found = lab.out("lan")
    assert len(found) == answers
    assert not found or ICMP in found[0] or ICMPv6ParamProblem in found[0]


def test_a_tagged_frame_that_is_forwarded_to_a_neighbour_keeps_its_tag() -> None:
    lab = Rules(table("netdev", f"filter ingress 0 lan: fwd ip to {FAR} device wan"))
    frame = Ether(dst=MACS["lan"]) / Dot1Q(vlan=7, prio=3) / IP(src=HOST, dst="203.0.113.1") / UDP(sport=1, dport=2)
    lab.send(frame)
    (out,) = lab.out()
    assert (out[Ether].src, out[Ether].dst, out[Dot1Q].vlan, out[Dot1Q].prio) == (MACS["wan"], WAN_HOST, 7, 3)
    assert bytes(out[IP])[20:] == bytes(frame[IP])[20:]


def test_an_answer_that_is_mapped_to_a_link_local_address_stays_on_its_link() -> None:
    lab = Rules(table("ip6", f"nat input 100: snat to {FAR6}"))
    lab.gw.add_address(lab.lan, parse_address("fe80::1/64"))
    lab.send(IPv6(src="fe80::10", dst=OWN6) / TCP(sport=1, dport=2, flags="S"))
    assert lab.out("lan") == []  # its source seemed to be behind wan, and there fe80::10 is asked for


@pytest.mark.parametrize(("hook", "to", "kind", "found"), [
    ("prerouting", "ff02::1", 58, 1), ("prerouting", "fe80::1", 58, 1), ("prerouting", "ff05::1", 58, 0),
    ("prerouting", "ff02::1", 17, 0), ("input", "ff02::1", 58, 1),
])
def test_who_asks_for_an_address_of_its_own_came_from_its_link(hook: str, to: str, kind: int, found: int) -> None:
    lab = Rules(table("ip6", f"filter {hook} 0: fib saddr . iif oif exists counter"))
    lab.send(IPv6(src="::", dst=to, nh=kind) / Raw(bytes(ICMPv6DestUnreach(cksum=1))))
    assert counted(lab) == [found]


def test_a_copy_of_an_own_message_may_be_cut() -> None:
    lab = Rules(table("ip", f"filter output 0: dup to {HOST}"))
    lab.lan.mtu = 600
    lab.gw.routes.changed()
    lab.send(IP(src=HOST, dst=OWN) / ICMP() / Raw(bytes(1000)))
    pieces = lab.out("lan")
    assert len(pieces) == 4 and not any(piece[IP].flags & 2 for piece in pieces)


def test_a_reset_that_came_back_from_nowhere_can_be_rejected() -> None:
    """A segment from 0.0.0.0: its reset comes in by lo, and the error about that goes to the one that the reset is from."""
    rules = "iifname lan reject with tcp reset; iifname lo reject"
    lab = Rules(table("ip", f"filter prerouting 0: {rules}"))
    lab.send(IP(src="0.0.0.0", dst=HOST) / TCP(sport=1, dport=2, flags="A"))
    error = lab.one("lan")[IP]
    assert (error.src, error.dst) == (OWN, HOST)


def test_a_reset_that_repeats_the_last_acknowledgement_ends_an_opening_connection() -> None:
    """Not one that the connection's windows know, and by the same side."""
    lab = Rules(table("inet", "filter forward 0: ct state invalid drop"))
    lab.send(IP(src=HOST, dst=FAR) / TCP(sport=1, dport=2, flags="S", seq=5000, window=100))
    for flags, seq in (("SA", 5000), ("A", 5001), ("R", 5002)):
        lab.send(IP(src=FAR, dst=HOST) / TCP(sport=2, dport=1, flags=flags, seq=seq, ack=5001, window=65535), "wan")
    assert len(lab.out("lan")) == 3
    (conn,) = {id(c): c for c in lab.gw.conntrack.members(0, 0)}.values()
    assert conn.state == 8


def test_an_error_about_what_came_to_a_group_of_the_link_is_from_the_device_it_came_in_by() -> None:
    lab = Rules("")
    header = bytes((17, 0, 0x9E, 4, 1, 2, 3, 4))
    packet = IPv6(src=HOST6, dst="2001:db8:2::1", nh=60) / Raw(header + bytes(UDP(sport=1, dport=2)))
    lab.send(Ether(dst=MACS["lan"]) / packet)
    assert lab.one("lan")[IPv6].src == "2001:db8:2::1"
    lab.send(Ether(dst="33:33:00:00:00:01") / packet)
    assert lab.one("lan")[IPv6].src == OWN6


def test_an_error_about_a_copy_made_at_input_echoes_the_options_of_the_original() -> None:
    lab = Rules(table("ip", f"filter input 0: dup to {FAR}"))
    lab.wan.mtu = 600
    lab.gw.routes.changed()
    options = [IPOption_RR(length=7, pointer=4, routers=["0.0.0.0"])]
    lab.send(IP(src=HOST, dst=OWN, flags="DF", options=options) / ICMP(type=0) / Raw(bytes(1000)))
    error = lab.one("lan")[IP]
    assert (error[ICMP].type, error[ICMP].code, error.ihl) == (3, 4, 7)


@pytest.mark.parametrize(("hook", "source"), [("ingress 0 lan", "2001:db8:2::1"), ("prerouting 0", OWN6)])
def test_at_ingress_it_is_not_noted_yet_where_a_packet_came_in(hook: str, source: str) -> None:
    lab = Rules(table("inet", f"filter {hook}: meta nfproto ipv6 reject with icmpv6 reject-route"))
    lab.send(IPv6(src=FAR6, dst="2001:db8:9::1") / UDP(sport=1, dport=2))
    assert lab.one()[IPv6].src == source
