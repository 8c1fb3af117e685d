"""Cookies of the SYN proxy, and whole handshakes through a gateway with rules (packets beside the kernel's: netns-tests)."""

from __future__ import annotations

from typing import Any

import pytest
from scapy.layers.inet import IP, TCP, IPOption
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from tests.ruleset.test_gateway import Rules
from userfw.conntrack.table import ConnTable
from userfw.ruleset.manager import RulesetManager
from userfw.wire.parse import parse_untrusted

RULES = """
table inet s {
  synproxy web { mss 1460; wscale 7; timestamp sack-perm
  }
  chain p { type filter hook prerouting priority -300; tcp dport 80 tcp flags syn notrack; }
  chain f { type filter hook forward priority 0
    tcp dport 80 ct state invalid,untracked synproxy OPTIONS
    ct state invalid drop
  }
}
"""
STATEMENT = RULES.replace("OPTIONS", "mss 1460 wscale 7 timestamp sack-perm")
OBJECT = RULES.replace("OPTIONS", 'name "web"')
OPTIONS = [("MSS", 1400), ("SAckOK", b""), ("Timestamp", (1000, 0)), ("NOP", None), ("WScale", 10)]


class Proxied(Rules):
    """A gateway that tracks connections."""

    def __init__(self, text: str) -> None:
        super().__init__("")
        self.conns = ConnTable(self.clock)
        self.conns.settings.tcp_loose = 0
        self.rules = RulesetManager(self.gw, self.conns)
        self.run(text)

    def up(self, flags: str, seq: int, ack: int = 0, **more: object) -> list[Ether]:
        return self.segment("lan", flags, seq, ack, **more)

    def segment(
        self, port: str, flags: str, seq: int, ack: int, six: bool = False, options: Any = (), data: bytes = b""
    ) -> list[Ether]:
        ends = ("2001:db8:1::10", "2001:db8:2::10") if six else ("192.0.2.10", "198.51.100.10")
        ports = (1234, 80)
        if port == "wan":
            ends, ports = ends[::-1], ports[::-1]
        head = IPv6(src=ends[0], dst=ends[1]) if six else IP(src=ends[0], dst=ends[1])
        self.send(head / TCP(sport=ports[0], dport=ports[1], flags=flags, seq=seq, ack=ack, options=list(options)) / data, port)
        return [*self.out("lan"), *self.out("wan")]


@pytest.mark.parametrize("six", [False, True])
@pytest.mark.parametrize("text", [STATEMENT, OBJECT])
def test_a_handshake(text: str, six: bool) -> None:
    lab = Proxied(text)
    [synack] = lab.up("S", 1000, six=six, options=OPTIONS)
    cookie, stamp = synack[TCP].seq, dict(synack[TCP].options)["Timestamp"]
    assert (str(synack[TCP].flags), synack[TCP].ack, synack[TCP].window) == ("SA", 1001, 0)
    assert [o for o in synack[TCP].options if o[0] != "Timestamp"] == [("MSS", 1460), ("SAckOK", b""), ("NOP", None), ("WScale", 7)]
    assert stamp[0] & 0x3F == 0x1A and stamp[1] == 1000 and lab.conns.count == 0
    echo = [("NOP", None), ("NOP", None), ("Timestamp", (1001, stamp[0]))]
    assert lab.up("A", 1001, cookie + 100, six=six, options=echo) == []
    [syn] = lab.up("A", 1001, cookie + 1, six=six, options=echo)
    assert (str(syn[TCP].flags), syn[TCP].seq, syn[TCP].ack, lab.conns.count) == ("S", 1000, cookie, 1)
    assert dict(syn[TCP].options)["MSS"] == (1220 if six else 1300) and ("WScale", 10) in syn[TCP].options
    [again] = lab.up("A", 1000, cookie + 1, six=six, options=echo)
    assert again[TCP].seq == 1000 and again[TCP].options == syn[TCP].options
    answer = [("MSS", 1460), ("SAckOK", b""), ("Timestamp", (5000, 1001)), ("NOP", None), ("WScale", 6)]
    update, ack = lab.segment("wan", "SA", 9000, 1001, six=six, options=answer)
    assert (str(update[TCP].flags), update[TCP].seq, update[TCP].window) == ("A", (cookie + 1) & 0xFFFFFFFF, 8192 >> 6)
    assert (str(ack[TCP].flags), ack[TCP].seq, ack[TCP].ack) == ("A", 1001, 9001)
    [data] = lab.up("PA", 1001, cookie + 1, six=six, options=[("Timestamp", (1002, stamp[0] + 1))], data=b"hello")
    assert (data[TCP].ack, dict(data[TCP].options)["Timestamp"]) == (9001, (1002, 5001))
    [back] = lab.segment("wan", "PA", 9001, 1006, six=six, options=[("Timestamp", (5009, 1002))], data=b"there")
    assert (back[TCP].seq, dict(back[TCP].options)["Timestamp"]) == ((cookie + 1) & 0xFFFFFFFF, (stamp[0] + 9, 1002))
    fixed = back.copy()
    del fixed[TCP].chksum
    assert Ether(bytes(fixed))[TCP].chksum == back[TCP].chksum
    assert (lab.gw.proxy.syns, lab.gw.proxy.valid, lab.gw.proxy.invalid) == (1, 2, 1)


@pytest.mark.parametrize("six", [False, True])
def test_cookies(six: bool) -> None:
    lab = Proxied(STATEMENT)
    head = IPv6(src="2001:db8::1", dst="2001:db8::2") if six else IP(src="10.0.0.1", dst="10.0.0.2")
    pkt = lab.ports["lan"].inject(bytes(Ether(dst="02:00:00:00:00:01") / head / TCP(sport=5, dport=80)))
    parse_untrusted(pkt)
    table = (1220, 1420, 1440, 8940) if six else (536, 1300, 1440, 1460)
    for mss in (0, 535, 536, 1219, 1220, 1300, 1430, 1440, 1459, 1460, 9000):
        cookie = lab.gw.proxy.cookie(pkt, mss, 77)
        assert lab.gw.proxy.check(pkt, cookie, 77) == max([t for t in table if t <= mss], default=table[0])
        assert lab.gw.proxy.check(pkt, cookie ^ 0x10000, 77) == 0 == lab.gw.proxy.check(pkt, cookie, 71)
    cookie = lab.gw.proxy.cookie(pkt, 1460, 77)
    lab.clock.now += 60 * 10**9
    assert lab.gw.proxy.check(pkt, cookie, 77)
    lab.clock.now += 60 * 10**9
    assert lab.gw.proxy.check(pkt, cookie, 77) == 0
    pkt.put16(pkt.l4, 6)
    assert lab.gw.proxy.check(pkt, lab.gw.proxy.cookie(pkt, 1460, 77), 77) and lab.gw.proxy.check(pkt, cookie, 77) == 0


def test_segments_that_are_no_use() -> None:
    lab = Proxied(STATEMENT)
    good = Ether(dst="02:00:00:00:00:01", src="02:00:00:00:01:10") / IP(src="192.0.2.10", dst="198.51.100.10") / TCP(
        sport=1, dport=80, flags="S")  # fmt: skip
    wrong = good.copy()
    wrong[TCP].chksum = 1
    lab.send(bytes(wrong))
    assert lab.drops() == {"CHECKSUM": 1} and lab.out("lan") == []
    lab.up("A", 5, 6)
    assert lab.drops() == {"CHECKSUM": 1, "SYNPROXY": 1}
    lab.up("R", 5, 6)
    assert lab.drops()["RULE"] == 1  # not for the proxy: the next rule


def test_only_rules_that_need_it_bring_the_hook() -> None:
    lab = Proxied(STATEMENT)
    assert "_synproxy" in lab.run("list hooks")
    lab.run("flush ruleset; add table inet t; add chain inet t c { type filter hook forward priority 0; }; "
            "add rule inet t c ct state new accept")
    assert "_synproxy" not in lab.run("list hooks")


def test_whose_checksum_is_not_right_is_not_answered() -> None:
    """The network header is summed, too, and a full timestamp option was written to at its reading (Linux: nf_ip_checksum)."""
    lab = Proxied(STATEMENT.replace("notrack", "accept").replace("ct state invalid,untracked ", ""))
    syn = TCP(sport=1234, dport=80, flags="S", seq=1000)
    for option, answers in ((b"\x01" * 8, 1), (b"\x44\x08\x09\0\0\0\0\0", 0)):
        lab.send(IP(src="192.0.2.10", dst="198.51.100.10", options=IPOption(option)) / syn)
        assert len(lab.out("lan")) == answers


def test_what_a_rule_writes_to_an_answer_is_summed() -> None:
    lab = Proxied(STATEMENT + "table ip m { chain c { type filter hook postrouting priority 0; @th,112,16 set 77; }; }")
    [synack] = lab.up("S", 1000)
    given, synack[TCP].chksum = synack[TCP].chksum, None
    assert synack[TCP].window == 77 and Ether(bytes(synack))[TCP].chksum == given
