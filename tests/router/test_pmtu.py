"""A path MTU that the gateway is told of: what it believes, for which packets, and for how long."""

from __future__ import annotations

import pytest
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import ICMPv6EchoReply, ICMPv6EchoRequest, ICMPv6PacketTooBig, IPv6, IPv6ExtHdrFragment
from scapy.packet import Packet as Layer

from tests.router.router_lab import SECOND, Lab
from userfw.core.const import NFPROTO_IPV4
from userfw.router import pmtu

HOST, FAR, OWN = "192.0.2.10", "198.51.100.10", "192.0.2.1"
HOST6, FAR6, OWN6 = "2001:db8:1::10", "2001:db8:2::10", "2001:db8:1::1"


def told4(mtu: int, quoted: Layer | None = None, to: str = OWN) -> Layer:
    """Fragmentation needed, about an echo answer of the gateway unless something else is quoted."""
    return IP(src=HOST, dst=to) / ICMP(type=3, code=4, nexthopmtu=mtu) / (quoted or IP(src=OWN, dst=HOST) / ICMP(type=0))


def told6(mtu: int, quoted: Layer | None = None) -> Layer:
    return IPv6(src=HOST6, dst=OWN6) / ICMPv6PacketTooBig(mtu=mtu) / (quoted or IPv6(src=OWN6, dst=HOST6) / ICMPv6EchoReply())


def answers(lab: Lab) -> list[int]:
    """Sizes of the packets that answer a large echo request."""
    lab.send(IP(src=HOST, dst=OWN) / ICMP() / bytes(1372))
    return [frame[IP].len for frame in lab.out("lan")]


def answers6(lab: Lab) -> list[int]:
    lab.send(IPv6(src=HOST6, dst=OWN6) / ICMPv6EchoRequest(data=bytes(1352)))
    return [frame[IPv6].plen + 40 for frame in lab.out("lan")]



def test_answers_are_cut_as_told_for_ten_minutes() -> None:
    lab = Lab()
    assert answers(lab) == [1400]
    lab.send(told4(1300))
    assert answers(lab) == [1300, 120]
    lab.advance(599)
    assert answers(lab) == [1300, 120]
    lab.advance(1)
    assert answers(lab) == [1400]
    assert lab.gw.routes.paths == {}


def test_what_is_forwarded_over_ipv4_does_not_care() -> None:
    lab = Lab()
    lab.send(told4(1300))
    lab.send(IP(src=FAR, dst=HOST, flags="DF") / UDP() / bytes(1372), "wan")
    assert lab.one("lan")[IP].len == 1400
    assert lab.out("wan") == []


def test_less_than_is_believed_locks_the_path_for_all() -> None:
    lab = Lab()
    lab.send(told4(100))
    assert answers(lab) == [548, 548, 344]
    lab.send(told4(552))
    lab.send(IP(src=FAR, dst=HOST, flags="DF") / UDP() / bytes(1372), "wan")
    error = lab.one("wan")
    assert error[ICMP].type == 3 and error[ICMP].code == 4 and error[ICMP].nexthopmtu == 552
    assert lab.out("lan") == []


def test_only_smaller_ones_are_believed() -> None:
    lab = Lab()
    lab.send(told4(1600))
    assert answers(lab) == [1400]
    lab.send(told4(1000))
    lab.send(told4(1300))
    assert answers(lab) == [996, 424]


@pytest.mark.parametrize(
    "message",
    [
        told4(1300, IP(src=OWN, dst=HOST) / ICMP(type=8)),  # for a socket that is not there
        told4(1300, IP(src=OWN, dst=HOST) / UDP()),
        told4(1300, IP(src="192.0.2.7", dst=HOST) / ICMP(type=0)),  # not ours
        told4(1300, IP(bytes(IP(src=OWN, dst=HOST) / ICMP(type=0))[:27])),
        told4(1300, IP(src=OWN, dst=HOST, proto=1, ihl=4) / ICMP(type=0)),
        told4(1300, to="192.0.2.255"),
        IP(src=HOST, dst=OWN) / ICMP(type=3, code=3) / (IP(src=OWN, dst=HOST) / ICMP(type=0)),
        told6(1300, IPv6(src=OWN6, dst=HOST6) / UDP()),
        told6(1279),
        told6(1500),
        told6(1300, IPv6(bytes(IPv6(src=OWN6, dst=HOST6) / ICMPv6EchoReply())[:47])),
        told6(1300, IPv6(src=OWN6, dst="2001:db8:9::1") / ICMPv6EchoReply()),  # no way there
    ],
)
def test_what_is_not_believed(message: Layer) -> None:
    lab = Lab()
    lab.send(message)
    assert lab.gw.routes.paths == {}


def test_ipv6_answers_are_cut_too() -> None:
    lab = Lab()
    assert answers6(lab) == [1400]
    lab.send(told6(1300))
    assert answers6(lab) == [1296, 160]
    lab.advance(600)
    assert answers6(lab) == [1400]


def test_what_is_forwarded_over_ipv6_is_refused_behind_the_hooks() -> None:
    lab = Lab()
    lab.send(told6(1300, IPv6(src=FAR6, dst=HOST6) / ICMPv6EchoReply()))  # whoever sent it
    lab.send(IPv6(src=FAR6, dst=HOST6, hlim=9) / UDP() / bytes(1352), "wan")
    error = lab.one("wan")
    assert error[ICMPv6PacketTooBig].mtu == 1300
    assert bytes(error[ICMPv6PacketTooBig])[8 + 7] == 8  # the hop limit as it would have left
    lab.send(IPv6(src=FAR6, dst=HOST6) / UDP() / bytes(1252), "wan")
    assert len(lab.out("lan")) == 1
    assert not lab.out("lan")


def test_one_fragment_header_per_piece() -> None:
    lab = Lab()
    lab.send(told6(1280))
    lab.send(IPv6(src=HOST6, dst=OWN6) / ICMPv6EchoRequest(data=bytes(1352)))
    assert [frame[IPv6ExtHdrFragment].offset for frame in lab.out("lan")] == [0, 154]


def test_a_decision_that_somebody_holds_ends() -> None:
    lab = Lab()
    held = lab.gw.routes.resolve(NFPROTO_IPV4, 0, 0xC000020A, 0, 0, 0, lab.wan)
    other = lab.gw.routes.resolve(NFPROTO_IPV4, 0, 0xC000020B, 0, 0, 0, lab.wan)
    lab.send(told4(1300))
    assert not held.valid() and other.valid()


def test_the_table_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pmtu, "LIMIT", 2)
    lab = Lab()
    for host in (10, 11, 12):
        lab.send(told4(1300, IP(src=OWN, dst=f"192.0.2.{host}") / ICMP(type=0)))
        lab.clock.now += SECOND
    assert [lo & 255 for _, _, lo in lab.gw.routes.paths] == [11, 12]
    lab.advance(598.5)
    assert [lo & 255 for _, _, lo in lab.gw.routes.paths] == [12]
