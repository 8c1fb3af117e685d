"""What the differential test found, a fact of Linux each: seen on 6.18 by netns-tests/test_differential.py, kept here."""

from __future__ import annotations

import re
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoRequest,
    ICMPv6ND_NS,
    ICMPv6TimeExceeded,
    IPv6,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
)
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet as Layer
from scapy.packet import Raw

from tests.router.router_lab import LAN_HOST, MACS
from tests.ruleset.test_gateway import Rules

HOST, FAR, OWN = "192.0.2.10", "198.51.100.10", "192.0.2.1"
HOST6, FAR6, OWN6 = "2001:db8:1::10", "2001:db8:2::10", "2001:db8:1::1"


def table(family: str, *chains: str) -> str:
    """`chains`: "type hook priority: rule; rule"."""
    lines = [f"table {family} t {{"]
    for number, chain in enumerate(chains):
        head, _, rules = chain.partition(": ")
        kind, hook, priority, *device = head.split()
        where = f" device {device[0]}" if device else ""
        lines += [f"chain c{number} {{", f"type {kind} hook {hook}{where} priority {priority}", *rules.split("; "), "}"]
    return "\n".join([*lines, "}"])


def counted(lab: Rules) -> list[int]:
    """Packets of every counter, in order."""
    return [int(packets) for packets in re.findall(r"counter packets (\d+)", lab.run("list ruleset"))]


def tcp(flags: str, back: bool = False, **fields: Any) -> Layer:
    src, dst, sport, dport = (FAR, HOST, 80, 1000) if back else (HOST, FAR, 1000, 80)
    return IP(src=src, dst=dst) / TCP(sport=sport, dport=dport, flags=flags, **fields)


def right(frame: Ether) -> bool:
    """The TCP checksum that came out."""
    given = frame[TCP].chksum
    del frame[TCP].chksum
    return bool(type(frame)(bytes(frame))[TCP].chksum == given)


def test_a_prefix_is_mapped_from_the_address_that_the_packet_has_now() -> None:
    mapped = "nat postrouting 100: snat ip prefix to 198.51.100.0/24"
    lab = Rules(table("ip", "filter postrouting 0: ip saddr set 198.51.100.13", mapped))
    lab.send(IP(src=HOST, dst=FAR) / UDP(sport=1, dport=2))
    assert lab.one()[IP].src == "198.51.100.13"


def test_a_destination_mapped_by_prefix_to_itself_is_not_mapped() -> None:
    asks = "ct status dnat counter"
    lab = Rules(table("ip", "nat prerouting -100: dnat ip prefix to 198.51.100.0/24", f"filter forward 0: {asks}"))
    lab.send(IP(src=HOST, dst=FAR) / UDP(sport=1, dport=2))
    assert counted(lab) == [0]
    lab.send(IP(src=HOST, dst=FAR, ttl=1) / UDP(sport=1, dport=3))
    assert lab.one("lan")[IP].src == OWN


def test_an_ipv6_packet_without_a_source_may_go_back_where_it_came_from_but_no_further() -> None:
    lab = Rules("")
    lab.send(IPv6(src="::", dst=HOST6) / UDP(sport=1, dport=2))
    assert lab.one("lan")[IPv6].src == "::"
    lab.send(IPv6(src="::", dst=FAR6) / UDP(sport=1, dport=2))
    assert lab.out() == []


def test_a_reset_of_a_rule_ends_the_connection() -> None:
    lab = Rules(table("inet", "filter forward 0: ct state established tcp flags == ack reject with tcp reset"))
    lab.send(tcp("S", seq=100))
    lab.send(tcp("SA", back=True, seq=500, ack=101), "wan")
    lab.send(tcp("A", seq=101, ack=501))
    (conn,) = {id(c): c for c in lab.gw.conntrack.members(0, 0)}.values()
    assert conn.state == 8
    assert conn.timeout - lab.clock.now == 10 * 10**9


@pytest.mark.parametrize(("to", "answers"), [("255.255.255.255", 0), ("224.0.0.1", 0), ("192.0.2.255", 0), (OWN, 1)])
def test_no_reset_answers_a_broadcast_that_was_routed(to: str, answers: int) -> None:
    lab = Rules(table("inet", "filter input 0: reject with tcp reset"))
    lab.send(IP(src=HOST, dst=to) / TCP(sport=1, dport=2, flags="S"))
    assert len(lab.out("lan")) == answers


CONTROL = "; ".join(f"{what} counter" for what in
                    ("socket transparent 0", "socket mark 0", "socket wildcard 1", "meta cgroup 0", "meta skuid 0"))


@pytest.mark.parametrize(
    ("packet", "sockets"),
    [
        (IP(src=HOST, dst=FAR, ttl=1) / UDP(), [1, 1, 1, 1, 0]),
        (IP(src=HOST, dst=OWN) / ICMP(), [1, 1, 1, 1, 0]),
        (IP(src=HOST, dst=OWN) / TCP(flags="S"), [1, 1, 1, 1, 0]),
        (IP(src=HOST, dst=FAR) / TCP(dport=81, flags="S"), [0, 0, 0, 0, 0]),
        (IPv6(src=HOST6, dst=OWN6) / ICMPv6EchoRequest(), [1, 1, 1, 1, 0]),
        (IPv6(src=HOST6, dst=OWN6) / TCP(flags="S"), [0, 0, 0, 0, 0]),
    ],
)
def test_what_the_gateway_answers_belongs_to_its_control_sockets(packet: Layer, sockets: list[int]) -> None:
    lab = Rules(table("inet", f"filter output 0: {CONTROL}", "filter forward 0: tcp dport 81 reject with tcp reset"))
    lab.send(packet)
    assert counted(lab) == sockets
    assert len(lab.out("lan")) == 1


def test_an_error_that_comes_back_over_lo_has_no_socket() -> None:
    lab = Rules(table("inet", f"filter prerouting 0: {CONTROL}", "filter forward 0: ip saddr set 192.0.2.1 reject"))
    lab.send(IP(src=HOST, dst=FAR) / UDP())
    assert counted(lab) == [0, 0, 0, 0, 0]


def test_the_device_of_copies_and_of_neighbour_discovery_is_known_at_output() -> None:
    asks = "meta iiftype ether counter; iifname lan counter; iif 0 counter"
    lab = Rules(table("ip", f"filter output 0: {asks}", f"filter postrouting 0: {asks}", "filter forward 0: dup to 192.0.2.10"))
    lab.send(IP(src=HOST, dst=HOST) / UDP())
    assert len(lab.out("lan")) == 2
    assert counted(lab) == [1, 0, 1, 2, 2, 0]
    lab = Rules(table("inet", f"filter output 0: {asks}", f"filter postrouting 0: {asks}"))
    lab.send(IPv6(src=HOST6, dst=OWN6, hlim=255) / ICMPv6ND_NS(tgt=OWN6))
    assert counted(lab) == [1, 0, 1, 1, 1, 0]


def test_a_connection_that_is_not_confirmed_has_no_time_left() -> None:
    lab = Rules(table("ip", "filter forward 0: ct expiration 0s counter; ct expiration > 0s counter"))
    lab.send(tcp("S"))
    lab.send(tcp("S"))
    assert counted(lab) == [1, 1]


def test_nat_chains_are_asked_about_the_template_of_a_zone() -> None:
    asks = "; ".join(f"{what} counter" for what in
                     ("ct state new", "ct mark 0", "ct zone 1", "ct reply avgpkt 0"))
    lab = Rules(
        table(
            "ip",
            f"filter forward 0: {asks}",
            "filter prerouting -150: ct zone set 1",
            "nat prerouting -100: counter dnat to 192.0.2.10; counter",
            "nat postrouting 100: counter masquerade",
        )
    )
    lab.send(IP(src=HOST, dst=FAR) / ICMP(type=11) / Raw(b"1234"))  # an error that quotes nothing: invalid
    assert counted(lab) == [1, 0, 0, 0, 1, 0, 1]
    assert lab.one()[IP].src == HOST


@pytest.mark.parametrize("hook", ["input", "prerouting"])
def test_a_checksum_that_conntrack_found_right_is_not_looked_at_again(hook: str) -> None:
    spoil = f"filter {hook} 0: ct state new; udp checksum set 77; tcp checksum set 77; tcp dport 81 reject with tcp reset"
    lab = Rules(table("ip", spoil))
    lab.send(IP(src=HOST, dst=OWN) / UDP(sport=1, dport=2) / Raw(b"abc"))
    assert lab.one("lan")[ICMP].type == 3
    for port in (80, 81):
        lab.send(IP(src=HOST, dst=OWN) / TCP(dport=port, flags="S"))
        assert lab.one("lan")[TCP].flags == "RA"
    lab = Rules(table("ip", f"filter {hook} 0: udp checksum set 77"))  # without conntrack nobody looked before
    lab.send(IP(src=HOST, dst=OWN) / UDP(sport=1, dport=2) / Raw(b"abc"))
    assert lab.out("lan") == []


@pytest.mark.parametrize(
    ("packet", "write", "answers"),
    [
        (IP(src=HOST, dst=OWN), "ip ttl set 9", 1),
        (IP(src=HOST, dst=OWN), "ip saddr set 192.0.2.10", 1),
        (IP(src=HOST, dst=OWN), "@nh,96,32 set 0xc000020a", 0),
        (IPv6(src=HOST6, dst=OWN6), "meta mark set 1", 1),
        (IPv6(src=HOST6, dst=OWN6), "ip6 hoplimit set 9", 0),
        (IPv6(src=HOST6, dst=OWN6), "ip6 saddr set 2001:db8:1::10", 0),
    ],
)
def test_but_again_where_the_header_s_part_in_it_changed(packet: Layer, write: str, answers: int) -> None:
    lab = Rules(table("inet", f"filter input 0: ct state new; tcp checksum set 77; {write}"))
    lab.send(packet / TCP(flags="S"))
    assert len(lab.out("lan")) == answers


def test_the_transport_behind_a_cut_off_extension_header_is_known() -> None:
    lab = Rules(table("ip6", "filter forward 0: meta l4proto udp counter; udp dport 2 counter; ct state invalid counter"))
    lab.send(IPv6(src=HOST6, dst=FAR6, nh=60) / Raw(bytes((17, 9, 1, 4, 0, 0, 0, 0))))
    lab.send(IPv6(src=HOST6, dst=FAR6, nh=60) / Raw(bytes((17,))))
    lab.send(IPv6(src=HOST6, dst=OWN6, nh=60) / Raw(bytes((17, 9, 1, 4, 0, 0, 0, 0))))
    assert counted(lab) == [1, 0, 2]
    assert len(lab.out()) == 2
    lab = Rules(table("ip6", "filter forward 0: exthdr dst exists counter; exthdr frag exists counter; ct state new counter"))
    lab.send(IPv6(src=HOST6, dst=FAR6, nh=60) / Raw(bytes((17,))))
    lab.send(IPv6(src=HOST6, dst=FAR6, nh=44) / Raw(bytes((17, 0, 0, 0))))
    assert counted(lab) == [0, 1, 0]
    assert len(lab.out()) == 2
    lab = Rules(table("ip6", "filter forward 0: ct state new counter"))
    lab.send(IPv6(src=HOST6, dst=FAR6, nh=60) / Raw(bytes((99, 9, 1, 4, 0, 0, 0, 0))))  # one without ports is tracked
    assert counted(lab) == [1]


def test_pieces_of_a_copy_may_be_fragmented_again() -> None:
    lab = Rules(table("ip", "filter postrouting 0: ct state new dup to 198.51.100.10"))
    whole = bytes(IP(src=HOST, dst=FAR, id=7) / UDP(sport=1, dport=2) / Raw(bytes(100)))[20:]
    lab.send(IP(src=HOST, dst=FAR, id=7, proto=17, flags="MF") / Raw(whole[:64]))
    lab.send(IP(src=HOST, dst=FAR, id=7, proto=17, frag=8) / Raw(whole[64:]))
    assert [frame[IP].flags.value for frame in lab.out()] == [1, 0, 1, 0]


def test_no_icmp_message_answers_another_on_its_way_out() -> None:
    lab = Rules(table("inet", "filter output 0: counter reject"))
    lab.send(IP(src=HOST, dst=OWN) / ICMP())
    lab.send(IPv6(src=HOST6, dst=OWN6) / ICMPv6EchoRequest())
    lab.send(IP(src=HOST, dst=FAR, ttl=1) / UDP())
    assert counted(lab) == [3]
    lab.send(IP(src=HOST, dst=OWN) / TCP(flags="S"))  # the reset is answered, by an error that is not
    assert counted(lab) == [5]


def test_lo_has_a_link_header_of_zeros() -> None:
    asks = "iifname lo @ll,0,64 0 counter; iifname lo @ll,96,16 0x0800 counter; iifname lo meta iiftype loopback counter"
    lab = Rules(table("inet", f"filter input 0: {asks}", "filter forward 0: ip saddr set 192.0.2.1 reject"))
    lab.send(IP(src=HOST, dst=FAR) / UDP())
    assert counted(lab) == [1, 1, 1]
    assert lab.gw.lo.tx_bytes == 28 + 28 + 14


@pytest.mark.parametrize(("group", "device"), [("ff02::1", "wan"), ("ff05::5", "lan"), ("ff0e::1", "lan")])
def test_groups_have_a_route(group: str, device: str) -> None:
    lab = Rules(table("ip6", f"filter prerouting 0: fib daddr oif exists counter; fib daddr oifname {device} counter; "
                      "fib daddr . iif oifname wan counter"))
    lab.send(IPv6(src=FAR6, dst=group) / UDP(), "wan")
    assert counted(lab) == [1, 1, 1]


@pytest.mark.parametrize("source", ["224.1.2.3", "255.255.255.255", "192.0.2.255"])
def test_no_reset_goes_to_a_group(source: str) -> None:
    lab = Rules(table("ip", "filter prerouting 0: counter reject with tcp reset", "filter output 0: counter"))
    lab.send(IP(src=source, dst=FAR) / TCP(flags="S"))
    assert counted(lab) == [1, 0]


def test_a_reset_to_nobody_comes_back() -> None:
    asks = "iifname lo counter"
    lab = Rules(table("ip", f"filter prerouting 0: {asks}; reject with tcp reset", f"filter input 0: {asks}"))
    lab.send(IP(src="0.0.0.0", dst=OWN) / TCP(flags="S"))
    assert counted(lab) == [1, 0]
    lab = Rules(table("ip", f"filter prerouting 0: {asks}; iifname lan reject with tcp reset", f"filter input 0: {asks}"))
    lab.send(IP(src="0.0.0.0", dst=OWN) / TCP(flags="S"))
    assert counted(lab) == [1, 1]
    assert lab.out("lan") == []


@pytest.mark.parametrize(("header", "source", "answers"), [(IPv6ExtHdrFragment(), HOST6, 1), (Raw(), HOST6, 1), (Raw(), "::", 0)])
def test_resets_in_ipv6(header: Layer, source: str, answers: int) -> None:
    lab = Rules(table("ip6", "filter prerouting 0: counter reject with tcp reset", "filter output 0: counter"))
    packet = IPv6(src=source, dst=FAR6)
    lab.send((packet if isinstance(header, Raw) else packet / header) / TCP(sport=1, dport=2, flags="S"))
    assert counted(lab) == [1, answers]


def test_what_is_sent_to_nobody_on_a_link_is_sent_to_all() -> None:
    lab = Rules(table("ip", "filter prerouting 0: dup to 203.0.113.9 device wan"))
    lab.send(IP(src=HOST, dst="0.0.0.0") / UDP())
    assert lab.one().dst == "ff:ff:ff:ff:ff:ff"


def test_fib_does_not_look_behind_a_frame() -> None:
    lab = Rules(table("netdev", "filter ingress 0 lan: counter; fib saddr oif missing counter; fib saddr oif exists counter"))
    lab.send(bytes(Ether(dst=MACS["lan"], src=LAN_HOST, type=0x0800)) + b"\x45\0\0")
    assert counted(lab) == [1, 0, 0]


@pytest.mark.parametrize("source", ["192.0.2.255", "198.51.100.255"])
def test_nobody_is_called_as_everybody_on_a_link(source: str) -> None:
    lab = Rules("")
    lab.send(IP(src=source, dst=FAR) / UDP())
    assert lab.out() == [] and lab.drops() == {"MARTIAN": 1}


def test_ingress_chains_see_what_stands_behind_a_packet() -> None:
    rules = "meta l4proto udp counter"
    lab = Rules(table("inet", f"filter ingress 0 lan: {rules}", f"filter forward 0: {rules}; counter"))
    packet = Ether(dst=MACS["lan"], src=LAN_HOST) / IPv6(src=HOST6, dst=FAR6, nh=60, plen=0)
    lab.send(bytes(packet) + bytes((17, 0, 1, 4, 0, 0, 0, 0)))
    assert counted(lab) == [1, 0, 1]
    assert len(lab.one()) == 54


def test_fib_leads_back_to_lo_at_input_too() -> None:
    asks = "fib saddr . iif oifname lo counter"
    lab = Rules(table("inet", "filter forward 0: ip saddr set 192.0.2.1 reject", f"filter input 0: {asks}"))
    lab.send(IP(src=HOST, dst=FAR) / UDP())
    assert counted(lab) == [1]


def test_a_segment_with_flags_that_make_no_sense_has_a_right_checksum() -> None:
    lab = Rules(table("ip", "filter forward 0: ct state invalid @th,112,16 set 77; reject"))
    lab.send(tcp("SFU"))
    assert lab.one("lan")[ICMP].type == 3


def test_a_datagram_without_a_length_is_not_answered() -> None:
    lab = Rules("")
    lab.send(IP(src=HOST, dst=OWN) / UDP(sport=1, dport=2, len=0, chksum=0))
    assert lab.out("lan") == []


def ingress(packet: bytes) -> int:
    """How many errors an ingress chain that rejects everything sends."""
    lab = Rules(table("netdev", "filter ingress 0 lan: counter reject"))
    lab.send(bytes(Ether(dst=MACS["lan"], src=LAN_HOST, type=0x86DD if packet[0] >> 4 == 6 else 0x0800)) + packet)
    assert counted(lab) == [1]
    return len(lab.out("lan"))


def test_errors_of_ingress_chains() -> None:
    datagram = bytes(IP(src=HOST, dst=FAR) / UDP(sport=1, dport=2) / Raw(b"abc"))
    assert ingress(datagram) == 1
    assert ingress(datagram + b"behind") == 1
    short = bytearray(bytes(IPv6(src=HOST6, dst=FAR6) / UDP(sport=1, dport=2) / Raw(b"abc")))
    assert ingress(bytes(short)) == 1
    short[4:6] = b"\0\1"
    assert ingress(bytes(short)) == 0
    assert ingress(bytes(IP(src=HOST, dst=FAR, proto=17))) == ingress(bytes(IP(src=HOST, dst=FAR, proto=17)) + bytes(26)) == 0
    assert [ingress(bytes(IP(src=HOST, dst=FAR) / ICMP(type=kind))) for kind in (3, 11, 8)] == [0, 1, 1]
    assert ingress(bytes(IP(src=HOST, dst=FAR, options=[IPOption_NOP()] * 4) / ICMP(type=3))) == 0
    assert [ingress(bytes(IPv6(src=HOST6, dst=FAR6) / kind)) for kind in (ICMPv6DestUnreach(), ICMPv6TimeExceeded())] == [0, 1]


def test_an_ingress_chain_resets_in_the_name_of_a_group() -> None:
    lab = Rules(table("netdev", "filter ingress 0 lan: reject with tcp reset"))
    segment = bytes(IPv6(src=HOST6, dst="ff0e::77") / TCP(sport=1, dport=2, flags="PA"))
    lab.send(bytes(Ether(dst=MACS["lan"], src=LAN_HOST, type=0x86DD)) + segment)
    assert lab.one("lan")[IPv6].src == "ff0e::77"


def test_a_packet_over_lo_keeps_its_route() -> None:
    lab = Rules(table("ip", "filter output 0: ip daddr set 198.51.100.10", "filter input 0: iifname lo counter",
                      "filter forward 0: counter ip saddr set 192.0.2.1 reject"))
    lab.send(IP(src=HOST, dst=FAR) / UDP())
    assert counted(lab) == [1, 1]
    assert lab.out() == []


@pytest.mark.parametrize(("packet", "answers"), [(IPv6(src=HOST6, dst=FAR6, nh=50), 0), (IPv6(src=HOST6, dst=FAR6, nh=59), 0),
                                                 (IP(src=HOST, dst=FAR, proto=99), 1), (IP(src=HOST, dst=FAR, proto=17), 0)])
def test_errors_for_packets_with_nothing_in_them(packet: Layer, answers: int) -> None:
    lab = Rules(table("inet", "filter forward 0: counter reject"))
    lab.send(packet)
    assert counted(lab) == [1]
    assert len(lab.out("lan")) == answers


def test_an_error_to_nobody_comes_back_to_who_was_asked() -> None:
    lab = Rules(table("ip", "filter prerouting 0: iifname lo counter; iifname lan reject"))
    lab.send(IP(src="0.0.0.0", dst=OWN) / ICMP(type=0))
    lab.send(IP(src="0.0.0.0", dst=OWN) / UDP())
    assert counted(lab) == [1 + 1]
    assert lab.out("lan") == []


def test_an_error_to_nobody_about_nobody_s_packet_comes_from_lo() -> None:
    lab = Rules(table("ip", "filter prerouting 0: iifname lo ip saddr 127.0.0.1 ip daddr 127.0.0.1 counter; iifname lan reject"))
    lab.send(IP(src="0.0.0.0", dst="0.0.0.0") / UDP())
    assert counted(lab) == [1]
    lab = Rules(table("ip", "filter prerouting -300: iifname lo ip saddr 127.0.0.1 ip daddr 127.0.0.1 counter; "
                      "iifname lan dup to 198.51.100.10; drop", "filter output 0: ip protocol udp reject"))
    lab.send(IP(src="0.0.0.0", dst=FAR) / UDP())
    assert counted(lab) == [1]


def test_nobody_measures_a_jumbogram() -> None:
    lab = Rules(table("ip6", "filter forward 0: udp dport 2 counter"))
    lab.send(IPv6(src=HOST6, dst=FAR6, plen=0) / IPv6ExtHdrHopByHop() / UDP(sport=1, dport=2) / Raw(b"abc"))
    assert counted(lab) == [1]
    assert len(lab.one()) == 14 + 40 + 8 + 8 + 3


def test_the_largest_segment_is_of_both_ways() -> None:
    lab = Rules(table("inet", "filter forward 0: tcp option maxseg size set rt mtu"))
    lab.gw.set_mtu(lab.lan, 1400)
    for packet, size in ((IP(src=HOST, dst=FAR), 1360), (IPv6(src=HOST6, dst=FAR6), 1340)):
        lab.send(packet / TCP(flags="S", options=[("MSS", 1460)]))
        assert lab.one()[TCP].options == [("MSS", size)]


@pytest.mark.parametrize(
    ("packet", "left"),
    [
        (IP(src=HOST, dst=OWN) / TCP(flags="S"), False),
        (IPv6(src=HOST6, dst=OWN6) / TCP(flags="S"), True),
        (IP(src=HOST, dst=FAR) / TCP(dport=81, flags="S"), True),
        (IPv6(src=HOST6, dst=FAR6) / TCP(dport=81, flags="S"), False),
    ],
)
def test_which_resets_leave_their_checksum_to_the_device(packet: Layer, left: bool) -> None:
    blind = "filter output 0: meta l4proto tcp @th,112,16 set 77"
    lab = Rules(table("inet", blind, "filter forward 0: reject with tcp reset"))
    lab.send(packet)
    frame = lab.one("lan")
    assert frame[TCP].window == 77
    assert right(frame) == left


def test_arp_output_counts_a_link_header_that_rules_cannot_see() -> None:
    asks = "counter; meta length 42 counter; @ll,96,16 0x0806 counter; meta iiftype ether counter"
    lab = Rules(table("arp", f"filter output 0: {asks}"))
    lab.send(bytes(Ether(dst="ff:ff:ff:ff:ff:ff", src=LAN_HOST) / ARP(hwsrc=LAN_HOST, psrc=HOST, pdst=OWN)))
    assert counted(lab) == [1, 1, 0, 1]
    answer = lab.one("lan")
    assert (answer.src, answer.dst, answer[ARP].hwsrc) == (MACS["lan"], LAN_HOST, MACS["lan"])


@pytest.mark.parametrize(
    ("hook", "taken", "refused"),
    [
        ("ingress", ("saddr oif exists", "daddr . iif oif exists", "daddr . iif type local"), ("daddr . oif type local",)),
        ("egress", ("daddr . oif type local", "daddr type local"), ("saddr oif exists", "daddr . iif type local")),
    ],
)
def test_fib_of_a_device_is_as_at_prerouting_and_at_output(hook: str, taken: tuple[str, ...], refused: tuple[str, ...]) -> None:
    lab = Rules(f"table netdev t {{\nchain c {{ type filter hook {hook} device lan priority 0\n}}\n}}")
    for what in taken:
        lab.run(f"add rule netdev t c fib {what} counter")
    for what in refused:
        assert "not supported" in lab.rules.execute(f"add rule netdev t c fib {what} counter").errors


def test_the_next_hop_on_the_link_is_where_the_packet_goes_now() -> None:
    asks = f"rt ip nexthop {FAR} counter; rt ip nexthop 198.51.100.77 counter"
    lab = Rules(table("ip", f"filter forward 0: {asks}; ip daddr set 198.51.100.77; {asks}"))
    lab.send(IP(src=HOST, dst=FAR) / UDP(sport=1, dport=2))
    assert counted(lab) == [1, 0, 0, 1]
