"""Packets cross the gateway as they cross Linux."""

from router_lab import LAN_HOST, MACS, WAN_HOST, Lab
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Raw


def test_ipv4_is_forwarded_with_ttl_and_checksum() -> None:
    lab = Lab()
    lab.send(IP(src="192.0.2.10", dst="198.51.100.10", ttl=64, id=7) / UDP(sport=1, dport=2) / Raw(b"hello"))
    frame = lab.one()
    expected = IP(src="192.0.2.10", dst="198.51.100.10", ttl=63, id=7) / UDP(sport=1, dport=2) / Raw(b"hello")
    assert bytes(frame) == bytes(Ether(dst=WAN_HOST, src=MACS["wan"]) / expected)


def test_the_sum_of_a_header_is_never_minus_zero() -> None:
    """0xFEFF with a TTL less is 0, not 0xFFFF (Linux: ip_decrease_ttl)."""
    lab = Lab()
    plain = IP(bytes(IP(src="192.0.2.10", dst="198.51.100.10", ttl=64, id=0) / UDP(sport=1, dport=2)))
    packet = IP(src="192.0.2.10", dst="198.51.100.10", ttl=64, id=(plain.chksum - 0xFEFF) % 0xFFFF) / UDP(sport=1, dport=2)
    assert IP(bytes(packet)).chksum == 0xFEFF
    lab.send(packet)
    assert lab.one()[IP].chksum == 0


def test_ipv6_is_forwarded() -> None:
    lab = Lab()
    lab.send(IPv6(src="2001:db8:1::10", dst="2001:db8:2::10", hlim=9) / TCP(sport=1, dport=2))
    expected = IPv6(src="2001:db8:1::10", dst="2001:db8:2::10", hlim=8) / TCP(sport=1, dport=2)
    assert bytes(lab.one()) == bytes(Ether(dst=WAN_HOST, src=MACS["wan"]) / expected)


def test_padding_is_cut() -> None:
    lab = Lab()
    packet = IP(src="192.0.2.10", dst="198.51.100.10") / UDP()
    lab.send(bytes(Ether(dst=MACS["lan"], src=LAN_HOST) / packet) + bytes(18))
    assert len(bytes(lab.one())) == 14 + 28


def test_static_route_by_gateway() -> None:
    lab = Lab()
    lab.gw.add_route("203.0.113.0/24", via="198.51.100.10")
    lab.send(IP(src="192.0.2.10", dst="203.0.113.5") / UDP())
    assert lab.one()[Ether].dst == WAN_HOST


def test_another_hosts_frame_is_dropped() -> None:
    lab = Lab()
    lab.send(bytes(Ether(dst="02:00:00:00:00:99", src=LAN_HOST) / IP(dst="198.51.100.10") / UDP()))
    assert lab.out() == []
    assert lab.drops() == {"OTHERHOST": 1}


def test_arp_is_asked_and_the_packet_waits() -> None:
    lab = Lab(resolved=False)
    lab.send(IP(src="192.0.2.10", dst="198.51.100.10") / UDP())
    request = lab.one()
    assert request[ARP].pdst == "198.51.100.10"
    assert request[ARP].psrc == "198.51.100.1"
    assert request.dst == "ff:ff:ff:ff:ff:ff"
    lab.arp_reply("wan", "198.51.100.10", WAN_HOST)
    assert lab.one()[IP].dst == "198.51.100.10"


def test_arp_for_own_address_is_answered() -> None:
    lab = Lab(resolved=False)
    request = Ether(dst="ff:ff:ff:ff:ff:ff", src=LAN_HOST) / ARP(op=1, hwsrc=LAN_HOST, psrc="192.0.2.10", pdst="192.0.2.1")
    lab.send(bytes(request))
    reply = lab.one("lan")
    assert (reply[ARP].op, reply[ARP].hwsrc, reply[ARP].psrc) == (2, MACS["lan"], "192.0.2.1")
    assert (reply.dst, reply[ARP].hwdst, reply[ARP].pdst) == (LAN_HOST, LAN_HOST, "192.0.2.10")
    lab.send(IP(src="198.51.100.10", dst="192.0.2.10") / ICMP(), "wan")
    assert lab.one("lan").dst == LAN_HOST
