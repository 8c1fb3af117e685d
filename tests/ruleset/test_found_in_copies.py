"""What the differential test found about copies that `dup` makes, groups and everybody's addresses: facts of Linux 6.18."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from scapy.layers.inet import ICMP, IP, UDP, fragment
from scapy.layers.inet6 import ICMPv6PacketTooBig, IPv6, IPv6ExtHdrFragment
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from tests.router.router_lab import LAN_HOST, MACS, WAN_HOST, number
from tests.ruleset.test_found_by_differences import FAR, FAR6, HOST, HOST6, OWN, OWN6, counted, table
from tests.ruleset.test_gateway import Rules
from userfw.wire.build import ipv4, ipv6

GROUP, GROUP_MAC, EVERYBODY = "ff02::1", "33:33:00:00:00:01", "ff:ff:ff:ff:ff:ff"


@pytest.mark.parametrize("to", ["192.0.2.255", "198.51.100.255"])
def test_what_goes_to_everybody_on_any_link_goes_to_everybody_on_the_link_of_a_copy(to: str) -> None:
    lab = Rules(table("ip", "filter prerouting 0: dup to 203.0.113.9 device wan"))
    lab.send(IP(src=HOST, dst=to) / UDP(sport=1, dport=2))
    assert lab.one()[Ether].dst == EVERYBODY


def test_a_rewritten_destination_is_a_host_s_although_the_route_is_everybody_s() -> None:
    lab = Rules(table("ip", f"filter postrouting 0: ip daddr set {FAR}"))
    reply = lab.gw.take()
    ipv4(reply, 17, 8, int(ip_address("198.51.100.1")), int(ip_address("198.51.100.255")), 64, 0, 0, False)
    lab.gw.local_out(reply)
    lab.gw.end_batch()
    assert lab.one()[Ether].dst == WAN_HOST


def test_an_error_about_a_copy_comes_from_where_the_original_came_in() -> None:
    lab = Rules(table("ip6", f"filter prerouting 0: iifname lan dup to {FAR6}; drop"))
    lab.wan.mtu = 1280
    lab.gw.routes.changed()
    lab.send(IPv6(src=HOST6, dst="2001:db8:9::9") / UDP(sport=1, dport=2) / Raw(bytes(1300)))
    error = lab.one("lan")
    assert ICMPv6PacketTooBig in error and error[IPv6].src == OWN6


@pytest.mark.parametrize(("tracked", "copies"), [("", 0), ("filter prerouting -100: ct state new", 2)])
def test_a_copy_of_what_only_the_host_put_together_must_not_be_cut(tracked: str, copies: int) -> None:
    lab = Rules(table("ip", f"filter input 0: dup to {FAR}", *([tracked] if tracked else [])))
    for piece in fragment(IP(src=HOST, dst=OWN, id=7) / UDP(sport=1, dport=2) / Raw(bytes(40)), 24):
        lab.send(piece)
    assert len(lab.out()) == copies
    codes = [frame[ICMP].code for frame in lab.out("lan") if frame[ICMP].type == 3]
    assert codes == ([3] if copies else [4, 3])


def test_a_copy_to_a_group_comes_back_to_a_gateway_that_listens() -> None:
    asks = f"filter prerouting -300: iifname wan ip6 daddr {GROUP} counter; iifname wan meta pkttype multicast counter"
    others = ("filter postrouting 0: counter", "filter forward 0: counter")
    lab = Rules(table("ip6", f"filter input -10: dup to {FAR6}; counter", asks, *others))
    lab.send(IPv6(src=HOST6, dst=GROUP, hlim=2) / UDP(sport=1, dport=2))
    assert lab.one()[IPv6].hlim == 1
    # it is not forwarded, nor delivered: its way is the copy's
    assert counted(lab) == [1, 1, 1, 2, 0]


def test_a_copy_to_a_group_that_has_no_hop_left_comes_back_only() -> None:
    lab = Rules(table("ip6", f"filter input -10: dup to {FAR6}", f"filter prerouting -300: iifname wan ip6 daddr {GROUP} counter"))
    lab.send(IPv6(src=HOST6, dst=GROUP, hlim=1) / UDP(sport=1, dport=2))
    assert lab.out() == [] and counted(lab) == [1]


def test_a_copy_that_came_back_is_not_copied_without_end() -> None:
    lab = Rules(table("ip6", f"filter prerouting -300: counter dup to {FAR6}"))
    lab.send(IPv6(src=HOST6, dst=GROUP, hlim=9) / UDP(sport=1, dport=2))
    assert lab.one()[IPv6].hlim == 8 and counted(lab) == [2]


def test_what_is_forwarded_to_a_group_by_a_rule_comes_back_without_a_link_header() -> None:
    lab = Rules(table("ip6", f"filter forward 0: ip6 daddr set {GROUP}",
                      f"filter prerouting -300: ip6 daddr {GROUP} counter; ip6 daddr {GROUP} ether type ip6 counter"))
    lab.send(IPv6(src=HOST6, dst=FAR6) / UDP(sport=1, dport=2))
    assert lab.one()[Ether].dst == GROUP_MAC
    assert counted(lab) == [1, 0]


def test_a_service_does_not_hear_itself_twice() -> None:
    lab = Rules(table("ip6", "filter prerouting -300: counter", "filter postrouting 0: counter"))
    sent = lab.gw.take()
    ipv6(sent, 17, 8, *number(OWN6), *number(GROUP), 1, 0)
    sent.route = lab.gw.routes.resolve_out(10, *number(GROUP), 0, 0, 0, lab.wan)
    lab.gw.local_out(sent)
    lab.gw.end_batch()
    assert lab.one()[Ether].dst == GROUP_MAC and counted(lab) == [0, 1]


def test_what_is_for_this_host_only_does_not_leave_it() -> None:
    lab = Rules(table("ip6", "filter forward 0: ip6 daddr set ff01::1"))
    lab.send(IPv6(src=HOST6, dst=FAR6) / UDP(sport=1, dport=2))
    assert lab.out() == []


def test_pieces_of_a_copy_to_a_group_come_back_piece_by_piece() -> None:
    lab = Rules(table("ip6", f"filter input -10: dup to {FAR6}", f"filter prerouting -300: iifname wan ip6 daddr {GROUP} counter"))
    for offset, more in ((0, 1), (1, 0)):
        lab.send(IPv6(src=HOST6, dst=GROUP, hlim=9) / IPv6ExtHdrFragment(nh=17, offset=offset, m=more, id=7) / Raw(bytes(16)))
    assert counted(lab) == [2]


def test_an_answer_from_loopback_s_address_reaches_an_own_one() -> None:
    asks = "filter prerouting -300: iifname lo counter"
    lab = Rules(table("inet", "filter ingress 0 lan: reject with icmpx host-unreachable", asks))
    lab.send(IP(src=OWN, dst="127.0.0.1") / ICMP())
    assert counted(lab) == [1] and lab.out("lan") == []


def test_fwd_says_the_family_of_a_packet_whose_header_is_wrong() -> None:
    lab = Rules(table("netdev", f'filter ingress 0 lan: fwd ip to {FAR} device "wan"'))
    lab.send(Ether(src=LAN_HOST, dst=MACS["lan"]) / IP(src=HOST, dst=FAR, len=19, ttl=9) / Raw(bytes(8)))
    assert [frame.type for frame in lab.out()] == [0x800]


def test_fwd_drops_what_has_no_whole_header() -> None:
    lab = Rules(table("netdev", f'filter ingress 0 lan: fwd ip6 to {FAR6} device "wan"'))
    head = Ether(src=LAN_HOST, dst=MACS["lan"], type=0x86DD)
    for size, sent in ((39, 0), (40, 1)):
        lab.send(head / Raw(bytes(IPv6(src=HOST6, dst=FAR6))[:size]))
        assert len(lab.out()) == sent


def test_where_a_link_local_address_is_goes_by_the_device_of_a_copy() -> None:
    """Only lan knows link-local addresses here, and there the copy does not go."""
    chains = (f"filter prerouting 0: iifname lan dup to {FAR6}", "filter output 0: fib daddr type unreachable counter")
    lab = Rules(table("ip6", *chains))
    wan = lab.gw.names["wan"]
    for address in [one for one in wan.addresses if one.family == 10 and one.hi >> 54 == 0x3FA]:
        lab.gw.remove_address(wan, address)
    for route in [one for one in lab.gw.routes.all() if one.family == 10 and one.prefixlen == 0]:
        lab.gw.routes.remove(route)
    lab.send(IPv6(src=HOST6, dst="fe80::99") / UDP())
    assert counted(lab) == [1]


def test_nobody_is_told_of_a_copy_of_a_packet_from_everybody() -> None:
    lab = Rules(table("ip", f"filter prerouting 0: dup to {FAR}; drop"))
    lab.wan.mtu = 1280
    lab.gw.routes.changed()
    for source, errors in ((HOST, 1), ("255.255.255.255", 0)):
        lab.send(IP(src=source, dst="203.0.113.9", flags="DF") / ICMP() / Raw(bytes(1300)))
        assert len(lab.out("lan")) == errors
        assert lab.out("wan") == []


def test_an_error_about_a_copy_of_the_gateway_s_own_comes_in_before_its_connection_is_there() -> None:
    rejected = "filter output 0: dup to 198.51.100.10; ip protocol udp numgen inc mod 2 0 reject"
    lab = Rules(table("ip", rejected, "filter input 0: ct state related counter"))
    lab.gw.local_device = lab.lan  # what comes in there is the gateway's own
    lab.send(IP(src=OWN, dst=FAR) / UDP(sport=1, dport=2))
    assert counted(lab) == [0]
    assert len(lab.out()) == 1
