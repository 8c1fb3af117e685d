"""Rules around the bridge where the kernel's own way is not obvious; each was found by the differential test on Linux 6.18."""

from __future__ import annotations

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import HBHOptUnknown, ICMPv6EchoRequest, IPv6, IPv6ExtHdrHopByHop
from scapy.layers.l2 import Dot1Q, Ether

from tests.router.test_bridge import ALL, BR, HOSTS, BridgeLab, udp
from userfw.router.interfaces import parse_address

LLDP = "01:80:c2:00:00:0e"


def table(family: str, chains: str, *counters: str) -> str:
    return f"table {family} t {{\n" + "".join(f"counter {name} {{ }}\n" for name in counters) + chains + "\n}"


def test_lldp_meets_no_input_chain_and_is_learned_from() -> None:
    lab = BridgeLab(table("bridge", "chain i { type filter hook input priority 0; counter name n; }", "n"))
    for target, count in ((LLDP, 0), ("01:80:c2:00:00:02", 1)):
        assert lab.pass_("a", Ether(src=HOSTS["a"], dst=target, type=0x88CC) / b"hello") == {}
        assert lab.counts() == {"n": count}
        assert [(e["mac"], e["port"]) for e in lab.bridge.listing()["fdb"]] == [(HOSTS["a"], "a")]
        lab.bridge.forget(lab.members["a"])


def test_a_priority_tag_passes_input_once() -> None:
    lab = BridgeLab(table("bridge", "chain i { type filter hook input priority 0; counter name n; }", "n"))
    lab.pass_("a", Ether(src=HOSTS["a"], dst="01:80:c2:00:00:02") / Dot1Q(vlan=0) / IP() / UDP())
    assert lab.counts() == {"n": 1}


def test_later_chains_go_by_the_type_that_was_written() -> None:
    rules = """
        chain p { type filter hook prerouting priority 0; ether type set 0x88b5; meta l4proto udp counter name here; }
        chain f { type filter hook forward priority 0; meta l4proto udp counter name later; counter name any; }"""
    lab = BridgeLab(table("bridge", rules, "here", "later", "any"))
    lab.pass_("b", udp("b", ALL))
    lab.load("reset counters")
    out = lab.pass_("a", udp("a", "b"))
    assert out["b"][0].type == 0x88B5 and lab.counts() == {"here": 1, "later": 0, "any": 1}


def test_output_sees_the_type_of_the_device_it_leaves_by() -> None:
    lab = BridgeLab(table("bridge", "chain o { type filter hook output priority 0; meta iiftype ether counter name n; }", "n"))
    lab.neighbour(lab.bridge.device, "10.0.0.11", HOSTS["a"])
    lab.pass_("a", Ether(src=HOSTS["a"], dst=BR) / IP(src="10.0.0.11", dst="10.0.0.1") / ICMP())
    assert lab.counts() == {"n": 1}


def test_a_frame_that_ends_within_its_tag_is_none() -> None:
    lab = BridgeLab(table("netdev", 'chain i { type filter hook ingress device "a" priority 0; counter name n; }', "n"))
    for rest, count in ((b"", 0), (b"x", 0), (b"xy", 1)):
        out = lab.pass_("a", Ether(src=HOSTS["a"], dst=ALL) / Dot1Q(vlan=5, type=0x88B5) / rest)
        assert set(out) == ({"b", "c"} if count else set()) and lab.counts() == {"n": count}


def test_egress_does_not_count_the_tag() -> None:
    lab = BridgeLab(table("netdev", 'chain e { type filter hook egress device "b" priority 0; counter name n; }', "n"))
    lab.pass_("a", Ether(src=HOSTS["a"], dst=ALL) / Dot1Q(vlan=5, type=0x88B5) / bytes(46))
    assert "packets 1 bytes 60" in lab.load("list counters")


def test_a_header_that_a_rule_spoiled_goes_no_further_than_the_bridge() -> None:
    lab = BridgeLab(table("bridge", "chain p { type filter hook prerouting priority 0; @nh,80,16 set 0x1234; }")
                    + "\ntable ip u {\ncounter n { }\nchain p { type filter hook prerouting priority 0; counter name n; }\n}")
    for _ in range(2):
        assert lab.pass_("a", Ether(src=HOSTS["a"], dst=BR) / IP(src="10.0.0.11", dst="10.0.0.1") / UDP()) == {}
        assert lab.counts() == {"n": 0}
        assert set(lab.pass_("a", udp("a", ALL))) == {"b", "c"} and lab.counts() == {"n": 0}


def test_a_group_s_frame_stays_one_whatever_its_address_is_made() -> None:
    lab = BridgeLab(table("bridge", f"chain i {{ type filter hook input priority 0; ether daddr set {HOSTS['b']}; }}")
                    + "\ntable inet u {\ncounter n { }\nchain p { type filter hook prerouting priority 0; "
                    "meta pkttype broadcast counter name n; }\n}")
    lab.pass_("a", Ether(src=HOSTS["a"], dst=ALL) / Dot1Q(vlan=0) / IP(src="10.0.0.11", dst="10.0.0.1") / UDP())
    assert lab.counts() == {"n": 1}


def test_redirect_of_ipv6_takes_the_address_that_came_last() -> None:
    lab = BridgeLab("table ip6 t { chain p { type nat hook prerouting priority -100; redirect; }\n}")
    for address in ("fd00:1::1/64", "fd00:2::1/64"):
        lab.gw.add_address(lab.bridge.device, parse_address(address))
    lab.pass_("a", Ether(src=HOSTS["a"], dst=BR) / IPv6(src="fd00:1::5", dst="fd00:9::9") / ICMPv6EchoRequest(id=4))
    [conn] = lab.conns.members(0, 0)
    assert conn.reply.src_hi == 0xFD00_0002_0000_0000


def test_the_priority_of_a_tag_is_written() -> None:
    """Linux takes whole tags only and leaves the rule at `vlan pcp set` (docs/differences.md)."""
    lab = BridgeLab(table("bridge", "chain p { type filter hook prerouting priority 0; vlan pcp set 3 counter name n; }", "n"))
    out = lab.pass_("a", Ether(src=HOSTS["a"], dst=ALL) / Dot1Q(vlan=5) / IP() / TCP())
    assert (out["b"][0][Dot1Q].prio, out["b"][0][Dot1Q].vlan) == (3, 5) and lab.counts() == {"n": 1}


def test_an_unknown_option_of_a_group_s_frame_is_told_of_if_it_wants_that() -> None:
    lab = BridgeLab()
    lab.gw.add_address(lab.bridge.device, parse_address("fd00:1::1/64"))
    lab.neighbour(lab.bridge.device, "fd00:1::5", HOSTS["a"])
    for option, port in ((0xDE, set()), (0x9E, {"a"})):
        head = IPv6ExtHdrHopByHop(options=[HBHOptUnknown(otype=option, optlen=4, optdata=b"abcd")])
        out = lab.pass_("a", Ether(src=HOSTS["a"], dst="01:00:0c:cc:cc:cc") / IPv6(src="fd00:1::5", dst="fd00:9::9") / head / UDP())
        assert {name for name, frames in out.items() if frames[0].src == BR} == port


def test_inet_ingress_sees_nothing_behind_two_tags() -> None:
    lab = BridgeLab(table("inet", 'chain i { type filter hook ingress device "a" priority 0; counter name n; }', "n"))
    for tags, count in ((Dot1Q(vlan=1, type=0x88A8) / Dot1Q(vlan=1), 0), (Dot1Q(vlan=1), 1)):
        lab.pass_("a", Ether(src=HOSTS["a"], dst=HOSTS["b"]) / tags / IP() / UDP())
        assert lab.counts() == {"n": count}


def test_reject_at_ingress_answers_no_group() -> None:
    lab = BridgeLab(table("netdev", 'chain i { type filter hook ingress device "a" priority 0; udp dport 9 reject; }'))
    assert lab.pass_("a", udp("a", ALL)) == {} and set(lab.pass_("a", udp("a", "b"))) == {"a"}
