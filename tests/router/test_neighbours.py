"""ARP and neighbour discovery: asking, giving up, ageing, answering, bounds (Linux: neighbour.c, arp.c, ndisc.c)."""

import pytest
from router_lab import LAN_HOST, MACS, WAN_HOST, Lab, number
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_RS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptMTU,
    ICMPv6NDOptPrefixInfo,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
)
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Raw

from userfw.router.const import NUD_DELAY, NUD_FAILED, NUD_INCOMPLETE, NUD_PROBE, NUD_REACHABLE, NUD_STALE
from userfw.router.ra import AdvertisedPrefix, Advertisement

PACKET = IP(src="192.0.2.10", dst="198.51.100.10") / UDP()


def state(lab: Lab, text: str = "198.51.100.10", device: str = "wan") -> int:
    neigh = lab.gw.neighbours.get(lab.gw.names[device], 2 if "." in text else 10, *number(text))
    return 0 if neigh is None else int(neigh.state)


def known(lab: Lab) -> None:
    lab.send(PACKET)
    lab.arp_reply("wan", "198.51.100.10", WAN_HOST)
    lab.out()


def test_three_requests_then_host_unreachable() -> None:
    lab = Lab(resolved=False)
    lab.neighbour(lab.lan, "192.0.2.10", LAN_HOST)
    for n in range(5):
        lab.send(IP(src="192.0.2.10", dst="198.51.100.10", id=n) / UDP())
    assert len(lab.out()) == 1 and state(lab) == NUD_INCOMPLETE
    lab.advance(1.5)
    assert len(lab.out()) == 1
    lab.advance(1)
    assert len(lab.out()) == 1
    lab.advance(1)
    assert lab.out() == [] and state(lab) == NUD_FAILED
    answers = lab.out("lan")
    assert [(a[ICMP].type, a[ICMP].code) for a in answers] == [(3, 1)] * 5
    assert lab.drops() == {"NEIGH_FAILED": 5}
    lab.send(PACKET)
    assert len(lab.out()) == 1, "a failed entry is asked for again"


def test_ipv6_three_solicitations_then_address_unreachable() -> None:
    lab = Lab(resolved=False)
    lab.neighbour(lab.lan, "2001:db8:1::10", LAN_HOST)
    lab.send(IPv6(src="2001:db8:1::10", dst="2001:db8:2::10") / UDP())
    frame = lab.one()
    assert (frame.dst, frame[IPv6].dst, frame[IPv6].hlim) == ("33:33:ff:00:00:10", "ff02::1:ff00:10", 255)
    assert frame[IPv6].src.startswith("fe80::")
    assert frame[ICMPv6ND_NS].tgt == "2001:db8:2::10"
    assert frame[ICMPv6NDOptSrcLLAddr].lladdr == MACS["wan"]
    lab.advance(3.5)
    assert len(lab.out()) == 2
    assert lab.one("lan")[ICMPv6DestUnreach].code == 3


def test_ipv6_resolution_releases_the_queue() -> None:
    lab = Lab(resolved=False)
    lab.send(IPv6(src="2001:db8:1::10", dst="2001:db8:2::10") / UDP(sport=4))
    request = lab.one()
    answer = (
        Ether(dst=MACS["wan"], src=WAN_HOST)
        / IPv6(src="2001:db8:2::10", dst=request[IPv6].src, hlim=255)
        / ICMPv6ND_NA(tgt="2001:db8:2::10", R=0, S=1, O=1)
        / ICMPv6NDOptDstLLAddr(lladdr=WAN_HOST)
    )
    lab.send(bytes(answer), "wan")
    assert lab.one().dst == WAN_HOST
    assert state(lab, "2001:db8:2::10") == NUD_REACHABLE


def test_queue_is_bounded_and_the_oldest_go() -> None:
    lab = Lab(resolved=False)
    for n in range(300):
        lab.send(IP(src="192.0.2.10", dst="198.51.100.10", id=n) / UDP() / Raw(bytes(1000)))
    lab.out()
    dropped = lab.drops()["NEIGH_QUEUE_FULL"]
    lab.arp_reply("wan", "198.51.100.10", WAN_HOST)
    assert [frame[IP].id for frame in lab.out()] == list(range(dropped, 300))
    assert 150 < dropped < 250


def test_reachable_stale_delay_probe() -> None:
    lab = Lab(resolved=False)
    known(lab)
    assert state(lab) == NUD_REACHABLE
    lab.advance(46)
    assert state(lab) == NUD_STALE
    lab.send(PACKET)
    assert state(lab) == NUD_DELAY
    assert [frame.type for frame in lab.out()] == [0x800]
    lab.advance(5.5)
    assert state(lab) == NUD_PROBE
    probe = lab.one()
    assert (probe[ARP].op, probe.dst) == (1, WAN_HOST)
    lab.arp_reply("wan", "198.51.100.10", WAN_HOST)
    assert state(lab) == NUD_REACHABLE


def test_probe_unanswered_fails_after_three() -> None:
    lab = Lab(resolved=False)
    known(lab)
    lab.advance(46)
    lab.send(PACKET)
    lab.out()
    lab.advance(8.5)
    assert [frame.dst for frame in lab.out()] == [WAN_HOST] * 3
    lab.advance(1)
    assert state(lab) == NUD_FAILED and lab.out() == []


def test_a_changed_address_is_believed_after_locktime() -> None:
    lab = Lab(resolved=False)
    known(lab)
    other = "02:00:00:00:02:99"
    lab.arp_reply("wan", "198.51.100.10", other)
    lab.send(PACKET)
    assert lab.one().dst == WAN_HOST
    lab.advance(1.1)
    lab.arp_reply("wan", "198.51.100.10", other)
    lab.send(PACKET)
    assert lab.one().dst == other


def test_gratuitous_arp_updates_but_does_not_create() -> None:
    lab = Lab(resolved=False)
    other = "02:00:00:00:02:99"
    frame = Ether(dst="ff:ff:ff:ff:ff:ff", src=other) / ARP(op=1, hwsrc=other, psrc="198.51.100.10", pdst="198.51.100.10")
    lab.send(bytes(frame), "wan")
    assert state(lab) == 0
    known(lab)
    lab.send(bytes(frame), "wan")
    lab.send(PACKET)
    assert lab.one().dst == other


def test_arp_for_others_and_for_foreign_device_addresses() -> None:
    lab = Lab(resolved=False)

    def ask(target: str, source: str = "192.0.2.10") -> list[Ether]:
        request = Ether(dst="ff:ff:ff:ff:ff:ff", src=LAN_HOST) / ARP(op=1, hwsrc=LAN_HOST, psrc=source, pdst=target)
        lab.send(bytes(request))
        return lab.out("lan")

    assert ask("192.0.2.77") == []
    assert ask("198.51.100.10") == []
    assert ask("127.0.0.1") == []
    assert len(ask("198.51.100.1")) == 1, "arp_ignore 0: any own address, on any device"
    probe = ask("192.0.2.1", "0.0.0.0")
    assert probe[0][ARP].pdst == "0.0.0.0"
    lab.gw.settings.arp_ignore = 1
    assert ask("198.51.100.1") == []
    assert len(ask("192.0.2.1")) == 1


def test_static_entries_are_not_overwritten() -> None:
    lab = Lab()
    lab.advance(2)
    lab.arp_reply("wan", "198.51.100.10", "02:00:00:00:02:99")
    lab.send(PACKET)
    assert lab.one().dst == WAN_HOST


def test_an_address_scan_does_not_grow_the_table() -> None:
    lab = Lab(resolved=False)
    lab.gw.add_route("10.0.0.0/8", dev="wan")
    for n in range(3000):
        lab.send(IP(src="192.0.2.10", dst=f"10.0.{n // 250}.{n % 250}") / UDP())
        lab.advance(0.01)
    assert len(lab.gw.neighbours.entries) <= 1024
    lab.advance(200)
    assert len(lab.gw.neighbours.entries) <= 128


def test_a_down_device_forgets() -> None:
    lab = Lab(resolved=False)
    known(lab)
    lab.gw.set_up(lab.wan, False)
    lab.send(PACKET)
    assert lab.out() == []
    lab.gw.set_up(lab.wan, True)
    lab.send(PACKET)
    assert lab.one()[ARP].op == 1


def solicitation(target: str, source: str, to: str, option: bool = True, hlim: int = 255) -> bytes:
    mac = "33:33:ff:00:00:01" if to.startswith("ff02") else MACS["lan"]
    frame = Ether(dst=mac, src=LAN_HOST) / IPv6(src=source, dst=to, hlim=hlim) / ICMPv6ND_NS(tgt=target)
    return bytes(frame / ICMPv6NDOptSrcLLAddr(lladdr=LAN_HOST) if option else frame)


def test_neighbour_solicitations_are_answered() -> None:
    lab = Lab(resolved=False)
    lab.send(solicitation("2001:db8:1::1", "2001:db8:1::10", "ff02::1:ff00:1"))
    answer = lab.one("lan")
    na = answer[ICMPv6ND_NA]
    assert (answer.dst, answer[IPv6].src, answer[IPv6].dst, answer[IPv6].hlim) == (LAN_HOST, "2001:db8:1::1", "2001:db8:1::10", 255)
    assert (na.R, na.S, na.O, na.tgt, na[ICMPv6NDOptDstLLAddr].lladdr) == (1, 1, 1, "2001:db8:1::1", MACS["lan"])
    assert state(lab, "2001:db8:1::10", "lan") in (NUD_STALE, NUD_DELAY)
    lab.send(solicitation("2001:db8:1::1", "2001:db8:1::10", "2001:db8:1::1"))
    na = lab.one("lan")[ICMPv6ND_NA]
    assert (na.O, ICMPv6NDOptDstLLAddr in na) == (0, False)


def test_the_anycast_address_of_a_subnet_is_answered_for_at_once() -> None:
    lab = Lab(resolved=False)
    lab.send(solicitation("2001:db8:1::", "2001:db8:1::10", "ff02::1:ff00:0"))
    na = lab.one("lan")[ICMPv6ND_NA]
    assert (na.tgt, na.O) == ("2001:db8:1::", 0)


def test_duplicate_address_detection_is_answered_to_all_nodes() -> None:
    lab = Lab(resolved=False)
    lab.send(solicitation("2001:db8:1::1", "::", "ff02::1:ff00:1", option=False))
    answer = lab.one("lan")
    assert (answer.dst, answer[IPv6].dst, answer[ICMPv6ND_NA].S) == ("33:33:00:00:00:01", "ff02::1", 0)


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (solicitation("2001:db8:1::1", "2001:db8:1::10", "ff02::1:ff00:1", hlim=64), "HOP_LIMIT"),
        (solicitation("2001:db8:1::1", "::", "ff02::1:ff00:1", option=True), "MALFORMED"),
        (solicitation("ff02::5", "2001:db8:1::10", "ff02::1:ff00:1"), "MALFORMED"),
        (solicitation("2001:db8:1::77", "2001:db8:1::10", "ff02::1:ff00:1"), None),
        (solicitation("2001:db8:2::1", "2001:db8:1::10", "ff02::1:ff00:1"), None),
    ],
    ids=["hop limit", "option with no source", "multicast target", "not ours", "another device's"],
)
def test_solicitations_that_get_no_answer(frame: bytes, reason: str | None) -> None:
    lab = Lab(resolved=False)
    lab.send(frame)
    assert lab.out("lan") == []
    assert lab.drops() == ({reason: 1} if reason else {})


def test_router_solicitation_and_periodic_advertisements() -> None:
    lab = Lab(resolved=False)
    advertisement = Advertisement([AdvertisedPrefix(*number("2001:db8:1::"), 64)])
    advertisement.mtu = 1400
    lab.gw.advertise(lab.lan, advertisement)
    lab.advance(0.1)
    ra = lab.one("lan")
    assert (ra.dst, ra[IPv6].dst, ra[IPv6].hlim) == ("33:33:00:00:00:01", "ff02::1", 255)
    assert (ra[ICMPv6ND_RA].routerlifetime, ra[ICMPv6ND_RA].chlim) == (1800, 64)
    prefix = ra[ICMPv6NDOptPrefixInfo]
    assert (prefix.prefix, prefix.prefixlen, prefix.L, prefix.A) == ("2001:db8:1::", 64, 1, 1)
    assert ra[ICMPv6NDOptMTU].mtu == 1400
    lab.advance(40)
    assert len(lab.out("lan")) >= 2
    lab.advance(30)
    lab.out("lan")
    solicit = (
        Ether(dst="33:33:00:00:00:02", src=LAN_HOST)
        / IPv6(src="fe80::10", dst="ff02::2", hlim=255)
        / ICMPv6ND_RS()
        / ICMPv6NDOptSrcLLAddr(lladdr=LAN_HOST)
    )
    lab.send(bytes(solicit))
    lab.advance(4)
    assert len(lab.out("lan")) == 1
    assert state(lab, "fe80::10", "lan") == NUD_STALE
    lab.gw.advertiser.cease()
    assert lab.one("lan")[ICMPv6ND_RA].routerlifetime == 0


def test_received_router_advertisements_and_redirects_are_ignored() -> None:
    lab = Lab(resolved=False)
    before = list(lab.gw.routes.all())
    frame = (
        Ether(dst="33:33:00:00:00:01", src=LAN_HOST)
        / IPv6(src="fe80::10", dst="ff02::1", hlim=255)
        / ICMPv6ND_RA()
        / ICMPv6NDOptPrefixInfo(prefix="2001:db8:66::", prefixlen=64)
    )
    lab.send(bytes(frame))
    assert list(lab.gw.routes.all()) == before
