"""`ct event`, `ct timeout`, `ct helper`, `ct expectation` in a gateway: what they do to connections, not how they read."""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP, TCP, UDP

from tests.ruleset.test_gateway import Rules
from userfw.conntrack.conn import Conn
from userfw.conntrack.const import CT_EVENT_ASSURED, CT_EVENT_DESTROY, CT_EVENT_MARK, CT_EVENT_NEW, CT_EVENT_REPLY
from userfw.conntrack.table import ConnTable
from userfw.ruleset.manager import RulesetManager

SECOND = 10**9


class Tracked(Rules):
    """A gateway that tracks, and what its listener heard."""

    def __init__(self, text: str) -> None:
        super().__init__("")
        self.conns = ConnTable(self.clock)
        self.rules = RulesetManager(self.gw, self.conns)
        self.heard: list[int] = []
        self.conns.listen(lambda events, conn: self.heard.append(events))
        self.run(text)

    def back(self, sport: int = 53) -> int:
        self.send(IP(src="198.51.100.10", dst="192.0.2.10") / UDP(sport=sport, dport=1000) / b"answer", "wan")
        return len(self.out("lan"))

    def conn(self) -> Conn:
        [conn] = self.conns.members(0, 0)
        return conn


@pytest.mark.parametrize(
    ("mask", "heard"),
    [
        (None, [CT_EVENT_NEW | CT_EVENT_MARK, CT_EVENT_REPLY, CT_EVENT_DESTROY]),
        ("new", [CT_EVENT_NEW | CT_EVENT_MARK]),
        ("destroy", [CT_EVENT_DESTROY]),
        ("reply, destroy", [CT_EVENT_REPLY, CT_EVENT_DESTROY]),
        ("assured", []),
    ],
)
def test_event_masks(mask: str | None, heard: list[int]) -> None:
    rule = f"ct event set {mask}" if mask else "counter"
    lab = Tracked(f"table ip t {{ chain f {{ type filter hook forward priority 0; ct state new {rule} ct mark set 5; }}\n}}")
    assert lab.udp(53) == 1 and lab.back() == 1
    lab.conns.destroy(lab.conn())
    assert [events & ~CT_EVENT_ASSURED for events in lab.heard if events & ~CT_EVENT_ASSURED] == heard


def test_timeouts() -> None:
    lab = Tracked("""table ip t {
        ct timeout short { protocol udp; l3proto ip; policy = { unreplied : 3s, replied : 7s }
        }
        chain o { type filter hook forward priority 0; udp dport 53 ct timeout set "short"; }
    }""")
    lab.udp(53)
    assert lab.conn().timeout - lab.clock.now == 3 * SECOND
    lab.back()
    assert lab.conn().timeout - lab.clock.now == 3 * SECOND
    lab.clock.now += 5 * SECOND // 2  # Linux: a stream is one after two seconds
    lab.udp(53)
    assert lab.conn().timeout - lab.clock.now == 7 * SECOND
    lab.clock.now += 8 * SECOND
    lab.conns.reap(100)
    assert lab.conns.count == 0


def test_helper_objects() -> None:
    lab = Tracked("""table ip t {
        ct helper ftp { type "ftp" protocol tcp
        }
        chain p { type filter hook prerouting priority 0; tcp dport 2121 ct helper set "ftp"; }
        chain f { type filter hook forward priority 0; policy drop
            ct state established accept
            ct state related ct helper "ftp" accept
            tcp dport 2121 accept
        }
    }""")
    ends, back = {"src": "192.0.2.10", "dst": "198.51.100.10"}, {"src": "198.51.100.10", "dst": "192.0.2.10"}
    lab.send(IP(**ends) / TCP(sport=1000, dport=2121, flags="S", seq=100))
    lab.send(IP(**back) / TCP(sport=2121, dport=1000, flags="SA", seq=500, ack=101), "wan")
    lab.send(IP(**ends) / TCP(sport=1000, dport=2121, flags="A", seq=101, ack=501))
    lab.send(IP(**ends) / TCP(sport=1000, dport=2121, flags="PA", seq=101, ack=501) / b"USER x\r\n")
    lab.send(IP(**ends) / TCP(sport=1000, dport=2121, flags="PA", seq=109, ack=501) / b"PORT 192,0,2,10,4,1\r\n")
    assert len(lab.out()) == 4 and lab.conns.expects.count == 1
    lab.out("lan")
    lab.send(IP(**back) / TCP(sport=20, dport=1026, flags="S"), "wan")
    assert lab.out("lan") == []
    lab.send(IP(**back) / TCP(sport=20, dport=1025, flags="S"), "wan")
    assert len(lab.out("lan")) == 1 and lab.conns.expects.count == 0


def test_expectations() -> None:
    lab = Tracked("""table ip t {
        ct expectation game { protocol udp; dport 9000; timeout 10s; size 2; l3proto ip
        }
        chain f { type filter hook forward priority 0; policy drop
            ct state related,established accept
            tcp dport 80 ct expectation set "game" accept
        }
    }""")
    lab.send(IP(src="192.0.2.10", dst="198.51.100.10") / TCP(sport=1000, dport=80, flags="S"))
    assert len(lab.out()) == 1
    lab.send(IP(src="198.51.100.10", dst="192.0.2.10") / UDP(sport=7, dport=9001), "wan")
    assert lab.out("lan") == []
    lab.send(IP(src="198.51.100.10", dst="192.0.2.10") / UDP(sport=7, dport=9000), "wan")
    assert len(lab.out("lan")) == 1
    lab.clock.now += 11 * SECOND
    lab.send(IP(src="198.51.100.10", dst="192.0.2.10") / UDP(sport=8, dport=9000), "wan")
    assert lab.out("lan") == []
