"""ICMP errors: what is answered, with what, and how often (RFC 1812, RFC 4443, Linux icmp_send)."""

import pytest
from router_lab import LAN_HOST, MACS, WAN_HOST, Lab
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    HBHOptUnknown,
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6PacketTooBig,
    ICMPv6ParamProblem,
    ICMPv6TimeExceeded,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrRouting,
)
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from userfw.router.const import RTN_BLACKHOLE, RTN_PROHIBIT, RTN_UNREACHABLE


def test_time_exceeded_quotes_the_packet_as_it_came() -> None:
    lab = Lab()
    packet = IP(src="192.0.2.10", dst="198.51.100.10", ttl=1, tos=0x28) / UDP(sport=5, dport=6) / Raw(b"x" * 40)
    lab.send(packet)
    answer = lab.one("lan")
    assert answer.dst == LAN_HOST and answer.src == MACS["lan"]
    assert (answer[IP].src, answer[IP].dst, answer[IP].tos, answer[IP].ttl) == ("192.0.2.1", "192.0.2.10", 0xC8, 64)
    assert (answer[ICMP].type, answer[ICMP].code) == (11, 0)
    assert bytes(answer[ICMP].payload) == bytes(packet)
    assert lab.out("wan") == []
    assert lab.drops() == {"TTL_EXPIRED": 1}


def test_quote_is_limited_to_576_bytes() -> None:
    lab = Lab()
    lab.send(IP(src="192.0.2.10", dst="198.51.100.10", ttl=1) / UDP() / Raw(b"x" * 1200))
    assert lab.one("lan")[IP].len == 576


def test_checksum_of_the_answer() -> None:
    lab = Lab()
    lab.send(IP(src="192.0.2.10", dst="198.51.100.10", ttl=1) / UDP() / Raw(b"abc"))
    answer = lab.one("lan")
    given = answer[ICMP].chksum
    del answer[ICMP].chksum
    assert Ether(bytes(answer))[ICMP].chksum == given


def test_fragmentation_needed_tells_the_mtu() -> None:
    lab = Lab()
    lab.gw.set_mtu(lab.wan, 1300)
    lab.send(IP(src="192.0.2.10", dst="198.51.100.10", flags="DF") / UDP() / Raw(b"x" * 1400))
    answer = lab.one("lan")
    assert (answer[ICMP].type, answer[ICMP].code, answer[ICMP].nexthopmtu) == (3, 4, 1300)
    assert lab.drops() == {"FRAG_NEEDED": 1}


def test_packet_too_big_tells_the_mtu() -> None:
    lab = Lab()
    lab.gw.set_mtu(lab.wan, 1300)
    packet = IPv6(src="2001:db8:1::10", dst="2001:db8:2::10") / UDP() / Raw(b"x" * 1400)
    lab.send(packet)
    answer = lab.one("lan")
    assert answer[IPv6].src == "2001:db8:1::1"
    assert answer[ICMPv6PacketTooBig].mtu == 1300
    assert answer[IPv6].fl == 0
    assert answer[IPv6].plen == 1240
    assert bytes(answer)[14 + 48 :] == bytes(packet)[:1232]


def test_packet_too_big_never_says_less_than_1280() -> None:
    lab = Lab()
    lab.gw.set_mtu(lab.wan, 1000)
    lab.send(IPv6(src="2001:db8:1::10", dst="2001:db8:2::10") / UDP() / Raw(b"x" * 1400))
    assert lab.one("lan")[ICMPv6PacketTooBig].mtu == 1280


def test_hop_limit_and_no_route_ipv6() -> None:
    lab = Lab()
    lab.send(IPv6(src="2001:db8:1::10", dst="2001:db8:2::10", hlim=1) / UDP())
    assert lab.one("lan")[ICMPv6TimeExceeded].code == 0
    lab.send(IPv6(src="2001:db8:1::10", dst="2001:db8:9::1") / UDP())
    assert lab.one("lan")[ICMPv6DestUnreach].code == 0
    lab.send(IPv6(src="fe80::10", dst="2001:db8:2::10") / UDP())
    assert lab.gw.drop_counts()[5] == 1


@pytest.mark.parametrize(("type", "code"), [(None, 0), (RTN_UNREACHABLE, 1), (RTN_PROHIBIT, 13), (RTN_BLACKHOLE, None)])
def test_routes_that_refuse(type: int | None, code: int | None) -> None:
    lab = Lab()
    if type is not None:
        lab.gw.add_route("203.0.113.0/24", type=type)
    lab.send(IP(src="192.0.2.10", dst="203.0.113.7") / UDP())
    answers = lab.out("lan")
    assert [a[ICMP].code for a in answers] == ([] if code is None else [code])
    assert lab.drops() == {"NO_ROUTE" if type is None else "PROHIBITED": 1}


@pytest.mark.parametrize(
    "frame",
    [
        IP(src="192.0.2.10", dst="198.51.100.10", ttl=1) / ICMP(type=3, code=1) / Raw(b"x" * 28),
        IP(src="192.0.2.10", dst="198.51.100.10", ttl=1) / ICMP(type=11) / Raw(b"x" * 28),
        IP(src="192.0.2.10", dst="198.51.100.10", ttl=1, frag=10) / Raw(b"x" * 28),
        IP(src="0.0.0.0", dst="198.51.100.10", ttl=1) / UDP(),
    ],
    ids=["unreachable", "time exceeded", "later fragment", "no source"],
)
def test_what_is_never_answered(frame: IP) -> None:
    lab = Lab()
    lab.send(frame)
    assert lab.out("lan") == []
    assert sum(lab.drops().values()) == 1


def test_errors_to_one_host_are_limited() -> None:
    lab = Lab()
    for _ in range(20):
        lab.send(IP(src="192.0.2.10", dst="198.51.100.10", ttl=1) / UDP())
    assert len(lab.out("lan")) == 6
    lab.advance(1)
    for _ in range(5):
        lab.send(IP(src="192.0.2.10", dst="198.51.100.10", ttl=1) / UDP())
    assert len(lab.out("lan")) == 1


def test_errors_of_the_gateway_are_limited() -> None:
    lab = Lab()
    for n in range(100):
        lab.neighbour(lab.lan, f"192.0.2.{100 + n}", LAN_HOST)
        lab.send(IP(src=f"192.0.2.{100 + n}", dst="198.51.100.10", ttl=1) / UDP())
    assert len(lab.out("lan")) == 50


def test_fragmentation_needed_is_not_limited() -> None:
    lab = Lab()
    lab.gw.set_mtu(lab.wan, 1300)
    for _ in range(20):
        lab.send(IP(src="192.0.2.10", dst="198.51.100.10", flags="DF") / UDP() / Raw(b"x" * 1400))
    assert len(lab.out("lan")) == 20


def test_echo() -> None:
    lab = Lab()
    lab.send(IP(src="192.0.2.10", dst="198.51.100.1", tos=0x10) / ICMP(id=7, seq=9) / Raw(b"ping"))
    answer = lab.one("lan")
    assert (answer[IP].src, answer[IP].tos, answer[ICMP].type, answer[ICMP].id, answer[ICMP].seq) == ("198.51.100.1", 0x10, 0, 7, 9)
    assert bytes(answer[ICMP].payload) == b"ping"
    lab.send(IPv6(src="2001:db8:1::10", dst="2001:db8:1::1") / ICMPv6EchoRequest(id=3, seq=4, data=b"ping6"))
    answer = lab.one("lan")
    assert answer[IPv6].src == "2001:db8:1::1"
    assert bytes(answer[ICMPv6EchoReply].data) == b"ping6"
    assert lab.drops() == {}


def test_echo_with_a_wrong_checksum_and_broadcast_echo_are_not_answered() -> None:
    lab = Lab()
    lab.send(IP(src="192.0.2.10", dst="192.0.2.1") / ICMP(chksum=1))
    lab.send(bytes(Ether(dst="ff:ff:ff:ff:ff:ff", src=LAN_HOST) / IP(src="192.0.2.10", dst="192.0.2.255") / ICMP()))
    assert lab.out("lan") == []
    assert lab.drops() == {"CHECKSUM": 1}


def test_nothing_listens() -> None:
    lab = Lab()
    lab.send(IP(src="192.0.2.10", dst="192.0.2.1") / TCP(sport=1000, dport=22, seq=77, flags="S") / Raw(b"ab"))
    answer = lab.one("lan")
    assert (answer[TCP].flags, answer[TCP].ack, answer[TCP].sport, answer[TCP].dport) == ("RA", 80, 22, 1000)
    assert (answer[IP].id, str(answer[IP].flags)) == (0, "DF")
    lab.send(IP(src="192.0.2.10", dst="192.0.2.1") / TCP(sport=1000, dport=22, ack=5, flags="A"))
    answer = lab.one("lan")
    assert (answer[TCP].flags, answer[TCP].seq, answer[TCP].ack) == ("R", 5, 0)
    lab.send(IP(src="192.0.2.10", dst="192.0.2.1") / TCP(flags="R"))
    assert lab.out("lan") == []
    lab.send(IP(src="192.0.2.10", dst="192.0.2.1") / UDP(sport=1, dport=53))
    assert (lambda a: (a[ICMP].type, a[ICMP].code))(lab.one("lan")) == (3, 3)
    lab.send(IP(src="192.0.2.10", dst="192.0.2.1", proto=99) / Raw(b"x"))
    assert (lambda a: (a[ICMP].type, a[ICMP].code))(lab.one("lan")) == (3, 2)
    lab.send(IPv6(src="2001:db8:1::10", dst="2001:db8:1::1") / UDP(sport=1, dport=53))
    assert lab.one("lan")[ICMPv6DestUnreach].code == 4
    lab.send(IPv6(src="2001:db8:1::10", dst="2001:db8:1::1", nh=99) / Raw(b"x"))
    problem = lab.one("lan")[ICMPv6ParamProblem]
    assert (problem.code, problem.ptr) == (1, 6)
    assert lab.drops() == {"NO_PROTOCOL": 7}


def test_local_port_takes_what_is_not_answered() -> None:
    from userfw.core.const import ARPHRD_NONE
    from userfw.core.packet import Device
    from userfw.ports.memory import MemoryPort

    lab = Lab()
    tun = Device("tun0", 9, b"", 1500, ARPHRD_NONE)
    lab.ports["tun0"] = MemoryPort(tun)
    lab.gw.add_device(tun)
    lab.gw.set_local_port(tun)
    request = IP(src="192.0.2.10", dst="192.0.2.1") / TCP(dport=22)
    lab.send(request)
    assert lab.ports["tun0"].take() == [bytes(request)]
    lab.send(bytes(IP(src="192.0.2.1", dst="198.51.100.10", ttl=64) / TCP(sport=22)), "tun0")
    frame = lab.one("wan")
    assert (frame[Ether].dst, frame[IP].ttl) == (WAN_HOST, 64)


def test_the_gateway_reaches_itself_by_lo() -> None:
    from userfw.core.const import ARPHRD_NONE
    from userfw.core.packet import Device
    from userfw.ports.memory import MemoryPort

    lab = Lab()
    tun = Device("tun0", 9, b"", 1500, ARPHRD_NONE)
    lab.ports["tun0"] = MemoryPort(tun)
    lab.gw.add_device(tun)
    lab.gw.set_local_port(tun)
    lab.send(bytes(IP(src="192.0.2.1", dst="198.51.100.1") / UDP(sport=9, dport=7)), "tun0")
    assert [IP(f).dst for f in lab.ports["tun0"].take()] == ["198.51.100.1"]
    assert lab.gw.lo.tx_packets == lab.gw.lo.rx_packets == 1


def test_headers_for_the_destination_only() -> None:
    lab = Lab()
    flow = IPv6(src="2001:db8:1::10", dst="2001:db8:1::1")
    lab.send(flow / IPv6ExtHdrDestOpt(options=[HBHOptUnknown(otype=0x9E, optlen=2, optdata=b"ab")]) / UDP())
    problem = lab.one("lan")[ICMPv6ParamProblem]
    assert (problem.code, problem.ptr) == (2, 42)
    lab.send(flow / IPv6ExtHdrRouting(type=0, addresses=["2001:db8:2::10"]) / UDP())
    problem = lab.one("lan")[ICMPv6ParamProblem]
    assert (problem.code, problem.ptr) == (0, 42)
    assert lab.drops() == {"IP_OPTIONS": 2}
    forwarded = IPv6(src="2001:db8:1::10", dst="2001:db8:2::10")
    lab.send(forwarded / IPv6ExtHdrDestOpt(options=[HBHOptUnknown(otype=0x9E, optlen=2, optdata=b"ab")]) / UDP())
    assert len(lab.out()) == 1


def test_no_reset_for_a_broadcast_frame() -> None:
    lab = Lab()
    lab.send(bytes(Ether(dst="ff:ff:ff:ff:ff:ff", src=LAN_HOST) / IP(src="192.0.2.10", dst="192.0.2.1") / TCP(flags="S")))
    assert lab.out("lan") == []


def test_a_refused_route_costs_twice() -> None:
    lab = Lab()
    for _ in range(10):
        lab.send(IP(src="192.0.2.10", dst="9.9.9.9") / UDP())
    assert len(lab.out("lan")) == 2
