"""Connections that act_ct translates by: requests as conntrack-tools sends them, one entry for both directions, sweeping."""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from ipaddress import ip_address

import pytest
from userfw_hw.flower import connections
from userfw_hw.flower.connections import ZONES, Connections

from userfw.offload.contract import Actions, Match, Rule
from userfw.ports.netlink import attribute, attributes_untrusted
from userfw.ports.netlink_batch import Refused

# What `conntrack -I` (1.4.7) sends; its sequence number and what it leaves in padding are zero here.
SNAT4 = """-p tcp -s 192.168.1.2 -d 203.0.113.9 --sport 40000 --dport 443 --src-nat 203.0.113.1:50000 --state ESTABLISHED -t 3600
 -u SEEN_REPLY,ASSURED -w 30054 -m 7""", """
 dc 00 00 00 00 01 05 06  00 00 00 00 00 00 00 00 02 00 00 00 34 00 01 80  14 00 01 80 08 00 01 00
 c0 a8 01 02 08 00 02 00  cb 00 71 09 1c 00 02 80 05 00 01 00 06 00 00 00  06 00 02 00 9c 40 00 00
 06 00 03 00 01 bb 00 00  34 00 02 80 14 00 01 80 08 00 01 00 cb 00 71 09  08 00 02 00 c0 a8 01 02
 1c 00 02 80 05 00 01 00  06 00 00 00 06 00 02 00 01 bb 00 00 06 00 03 00  9c 40 00 00 08 00 03 00
 00 00 00 0e 08 00 07 00  00 00 0e 10 08 00 08 00 00 00 00 07 20 00 04 80  1c 00 01 80 05 00 01 00
 03 00 00 00 06 00 04 00  0a 0a 00 00 06 00 05 00 0a 0a 00 00 20 00 06 80  08 00 01 00 cb 00 71 01
 14 00 03 80 06 00 01 00  c3 50 00 00 06 00 02 00 c3 50 00 00 06 00 12 00  75 66 00 00"""
DNAT6 = """-p udp -s fd00:1::2 -d 2001:db8::9 --sport 40000 --dport 443 --dst-nat [2001:db8::80]:8443 -t 3600
 -u SEEN_REPLY,ASSURED -w 30054 -m 7""", """
 f8 00 00 00 00 01 05 06  00 00 00 00 00 00 00 00 0a 00 00 00 4c 00 01 80  2c 00 01 80 14 00 03 00
 fd 00 00 01 00 00 00 00  00 00 00 00 00 00 00 02 14 00 04 00 20 01 0d b8  00 00 00 00 00 00 00 00
 00 00 00 09 1c 00 02 80  05 00 01 00 11 00 00 00 06 00 02 00 9c 40 00 00  06 00 03 00 01 bb 00 00
 4c 00 02 80 2c 00 01 80  14 00 03 00 20 01 0d b8 00 00 00 00 00 00 00 00  00 00 00 09 14 00 04 00
 fd 00 00 01 00 00 00 00  00 00 00 00 00 00 00 02 1c 00 02 80 05 00 01 00  11 00 00 00 06 00 02 00
 01 bb 00 00 06 00 03 00  9c 40 00 00 08 00 03 00 00 00 00 0e 08 00 07 00  00 00 0e 10 08 00 08 00
 00 00 00 07 2c 00 0d 80  14 00 04 00 20 01 0d b8 00 00 00 00 00 00 00 00  00 00 00 80 14 00 03 80
 06 00 01 00 20 fb 00 00  06 00 02 00 20 fb 00 00 06 00 12 00 75 66 00 00"""


def rule(id: int, protocol: int, ends: Sequence[tuple[str, int]]) -> Rule:
    """From ends 0 to 1 as it arrives, from 2 to 3 as it leaves."""
    (a, ap), (b, bp), (c, cp), (d, dp) = ((ip_address(address).packed, port) for address, port in ends)
    return Rule(id, Match("a", 3, protocol, a, b, ap, bp), Actions("b", 4, c, d, cp, dp, b"", b""))


CLIENT, SERVER, OUTSIDE = ("192.168.1.2", 40000), ("203.0.113.9", 443), ("203.0.113.1", 50000)
CLIENT6, ASKED6, SERVER6 = ("fd00:1::2", 40000), ("2001:db8::9", 443), ("2001:db8::80", 8443)
THERE = rule(7, 6, (CLIENT, SERVER, OUTSIDE, SERVER))
BACK = rule(8, 6, (SERVER, OUTSIDE, SERVER, CLIENT))


@pytest.mark.parametrize(
    ("made", "golden"), [(THERE, SNAT4), (rule(7, 17, (CLIENT6, ASKED6, CLIENT6, SERVER6)), DNAT6)], ids=["snat4", "dnat6"]
)
def test_the_request_is_what_conntrack_sends(made: Rule, golden: tuple[str, str]) -> None:
    assert connections.create(made, 7, ZONES[0]).hex(" ") == bytes.fromhex(golden[1]).hex(" ")


FREE = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)


class Zone(Connections):
    """On a kernel that is played: the kinds of requests that came, `refuse` the answer to the next."""

    def __init__(self) -> None:
        self.entries, self._rules = {}, {}
        self.zone, self.netns, self.holder = ZONES[1], None, FREE
        self.asked: list[bytes] = []
        self.refuse: Refused | None = None
        self.listed: list[bytes] = []

    def batch(self, messages: Sequence[bytes]) -> list[Refused | None]:
        self.asked += messages
        answer, self.refuse = self.refuse, None
        return [answer] * len(messages)

    def request(self, kind: int, flags: int, payload: bytes) -> list[tuple[int, bytes]]:
        return [(0x100, body) for body in self.listed]

    def kinds(self) -> list[int]:
        return [struct.unpack_from("=H", message, 4)[0] & 0xFF for message in self.asked]


def test_both_directions_share_an_entry_and_the_last_takes_it_away() -> None:
    zone = Zone()
    assert zone.obtain(THERE) == (7, False) and zone.obtain(BACK) == (7, True)
    assert zone.kinds() == [0]
    zone.release([7])
    assert zone.kinds() == [0]
    assert zone.obtain(rule(9, 6, (CLIENT, SERVER, OUTSIDE, SERVER))) == (7, False), "the entry is still there"
    zone.release([8, 9, 9, 10])
    assert zone.kinds() == [0, 2] and not zone.entries
    body = attributes_untrusted(zone.asked[-1][20:])
    assert body[1] == attributes_untrusted(zone.asked[0][20:])[1] and body[18] == struct.pack(">H", ZONES[1])


def test_a_reply_that_comes_first_is_the_original() -> None:
    """Its destination is translated then, and the other direction is the reply."""
    zone = Zone()
    assert zone.obtain(BACK) == (8, False) and zone.obtain(THERE) == (8, True)
    attrs = attributes_untrusted(zone.asked[0][20:])
    assert 13 in attrs and 6 not in attrs


def test_a_refusal_leaves_nothing() -> None:
    zone = Zone()
    zone.refuse = Refused(12, "no memory")
    with pytest.raises(Refused, match="no memory"):
        zone.obtain(THERE)
    assert not zone.entries
    zone.release([7])
    assert zone.kinds() == [0]


def test_only_zones_that_nobody_else_has_are_swept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Zone 30054 is another process's, 30055 ours, 30056 was somebody's."""
    zone = Zone()
    monkeypatch.setattr(connections, "hold", lambda netns, number: None if number == ZONES[0] else FREE)
    head = struct.pack("=BBH", 2, 0, 0) + attribute(1, b"orig")
    listed = [head + attribute(18, struct.pack(">H", number)) for number in (ZONES[0], ZONES[1], ZONES[2], 7)]
    zone.listed = [head, *listed, head[:4]]
    assert zone.sweep() == 2 and zone.kinds() == [2, 2]
    assert [struct.unpack(">H", attributes_untrusted(asked[20:])[18])[0] for asked in zone.asked] == [ZONES[1], ZONES[2]]
