"""What the differential test found about connections, zones, mappings at output, and datagrams in pieces: facts of Linux 6.18."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment
from scapy.layers.sctp import SCTP, SCTPChunkInit
from scapy.packet import Raw

from tests.ruleset.test_found_by_differences import FAR, FAR6, HOST, HOST6, counted, table
from tests.ruleset.test_gateway import Rules
from userfw.wire.build import ipv4


def test_an_answer_goes_where_its_connection_came_from_whatever_a_later_rule_writes() -> None:
    lab = Rules(table("ip", "nat prerouting -100: redirect", f"filter output 90: ip daddr set {FAR}"))
    lab.send(IP(src=HOST, dst="203.0.113.77") / ICMP())
    assert lab.out() == []  # the host that it is for now is asked for on the link of the one that asked


def test_a_mapped_answer_of_the_gateway_is_routed_anew() -> None:
    # what answers goes to the source that the connection had before it was mapped
    lab = Rules(table("ip", "nat input 100: snat to 192.0.2.99"))
    lab.send(IP(src=FAR, dst="198.51.100.1") / ICMP(), "wan")
    answer = lab.one()[IP]
    assert (answer.src, answer.dst) == ("198.51.100.1", FAR)


def test_the_other_direction_in_another_zone_keeps_its_port_and_clashes() -> None:
    lab = Rules(table("ip", "nat postrouting 100: accept", "filter output -310: ct reply zone set 3"))
    lab.gw.local_device = lab.lan  # what comes in there is the gateway's own
    lab.send(IP(src="198.51.100.1", dst=FAR) / UDP(sport=1000, dport=53))
    assert len(lab.out()) == 1
    lab.send(IP(src=FAR, dst="198.51.100.1") / UDP(sport=53, dport=1000), "wan")
    assert lab.out() == [] and lab.drops() == {"CT_CLASH": 1}


def test_what_rules_made_of_the_first_fragment_holds_for_the_whole() -> None:
    asks = "filter forward 0: ct state { new, invalid } meta mark 3 counter"
    chains = ("filter ingress 0 lan: meta mark set numgen inc mod 4 offset 2", asks)
    for family in ("ip", "ip6"):
        lab = Rules(table("inet", *chains))
        for place, more in ((1, 1), (0, 1), (2, 0)):  # the first one is the second to come
            body = Raw(bytes(8) if place else bytes((0, 1, 0, 2, 0, 24, 0, 0)))
            if family == "ip":
                lab.send(IP(src=HOST, dst=FAR, proto=17, id=7, flags=more, frag=place) / body)
            else:
                lab.send(IPv6(src=HOST6, dst=FAR6) / IPv6ExtHdrFragment(nh=17, offset=place, m=more, id=7) / body)
        assert counted(lab) == [1], family


def test_a_flow_back_with_another_zone_for_answers_is_a_connection_of_its_own() -> None:
    lab = Rules(table("ip", "filter prerouting -310: iifname wan ct reply zone set 3", "filter forward 0: ct state new counter"))
    lab.send(IP(src=HOST, dst=FAR) / UDP(sport=1, dport=2))
    lab.send(IP(src=FAR, dst=HOST) / UDP(sport=2, dport=1), "wan")
    assert len(lab.out()) == 1 and len(lab.out("lan")) == 1
    assert counted(lab) == [2]


def test_a_datagram_whose_copy_was_faster_with_another_zone_for_answers_goes_on() -> None:
    chains = ("filter output -310: ct reply zone set 3", "filter postrouting 0: counter")
    lab = Rules(table("ip", f"filter prerouting 5: ct state new dup to {FAR}", *chains))
    lab.send(IP(src=HOST, dst=FAR) / UDP(sport=1, dport=2))
    assert len(lab.out()) == 2 and counted(lab) == [2]
    # the answer belongs to the one that lost, for a second
    lab.send(IP(src=FAR, dst=HOST) / UDP(sport=2, dport=1), "wan")
    assert len(lab.out("lan")) == 1
    lab.advance(2)
    lab.gw.conntrack.reap(100)
    assert lab.gw.conntrack.count == 1


@pytest.mark.parametrize(("proto", "frames"), [(47, 2), (50, 2), (99, 2), (33, 2), (1, 1), (6, 1), (132, 1)])
def test_flows_of_some_protocols_may_clash_over_their_answers(proto: int, frames: int) -> None:
    """A copy was faster, and only the zone of the answers tells the two apart (Linux: allow_clash)."""
    bodies = {1: ICMP(), 6: TCP(sport=1, dport=2, flags="S"), 132: SCTP(sport=1, dport=2, tag=0) / SCTPChunkInit(init_tag=7)}
    copying = f"filter prerouting 110: ct state new dup to {FAR}"
    lab = Rules(table("ip", copying, "filter output -310: ct reply zone set 3"))
    lab.send(IP(src=HOST, dst=FAR, proto=proto) / bodies.get(proto, Raw(bytes(20))))
    assert len(lab.out()) == frames


@pytest.mark.parametrize(("proto", "frames"), [(17, 2), (50, 2), (99, 2), (1, 1), (6, 1), (132, 1)])
def test_flows_of_some_protocols_may_be_the_same_twice(proto: int, frames: int) -> None:
    """A copy that zones have tracked, too, was faster (seen on Linux 6.18 for each of these)."""
    bodies = {1: ICMP(), 6: TCP(sport=1, dport=2, flags="S"), 17: UDP(sport=1, dport=2),
              132: SCTP(sport=1, dport=2, tag=0) / SCTPChunkInit(init_tag=7)}
    zones = [f"filter {hook} -310: ct zone set 3" for hook in ("prerouting", "output")]
    lab = Rules(table("ip", f"filter prerouting 110: ct state new dup to {FAR}", *zones))
    lab.send(IP(src=HOST, dst=FAR, proto=proto) / bodies.get(proto, Raw(bytes(20))))
    assert len(lab.out()) == frames
    assert lab.gw.conntrack.count == 1


def test_a_masqueraded_packet_for_this_host_has_an_address_of_another_device_than_lo() -> None:
    chains = ("nat output -100: redirect", "nat postrouting 100: masquerade", "filter input 0: ip saddr 192.0.2.1 counter")
    lab = Rules(table("ip", *chains))
    request = lab.gw.take()
    ipv4(request, 17, 8, int(ip_address("198.51.100.1")), int(ip_address(FAR)), 64, 0, 0, False)
    udp = bytes(UDP(sport=1, dport=2, chksum=0))
    request.data[request.l4 : request.l4 + 8] = udp
    lab.gw.local_out(request)
    lab.gw.drain()
    assert counted(lab) == [1]


def test_a_reset_from_the_side_of_an_ignored_syn_is_judged_by_its_window() -> None:
    lab = Rules(table("inet", "filter forward 0: ct state invalid counter drop"))
    head = {"src": HOST, "dst": FAR}
    lab.send(IP(**head) / TCP(sport=1, dport=2, flags="S", seq=1000))
    lab.send(IP(src=FAR, dst=HOST) / TCP(sport=2, dport=1, flags="A", seq=500, ack=2000), "wan")
    lab.send(IP(**head) / TCP(sport=1, dport=2, flags="S", seq=1000))
    lab.send(IP(**head) / TCP(sport=1, dport=2, flags="R", seq=3000, ack=500))
    assert counted(lab) == [1]
