"""Helpers end to end: a control connection through the hooks, then the connection it announced, with and without NAT, in both
directions."""

from __future__ import annotations

import ipaddress
import struct
from random import Random

import pytest
from ct_build import address, packet, tcp, udp
from helper_harness import CLIENT, OUTER, SERVER, Session, connect, gateway, giving
from hypothesis import given, settings
from hypothesis import strategies as st
from nat_harness import SRC, Gateway, Rule, nat_range

from userfw.conntrack.helper import Helpers
from userfw.conntrack.listing import expectation_line
from userfw.conntrack.seqadj import seq_set
from userfw.nat.helper import HelperTools


def ftp(g: Gateway, client: str, server: str, seen: str, port: int = 21, server_seen: str | None = None) -> Session:
    """A control connection after its greeting, so that lines are known to begin where they do."""
    s = Session(g, client, server, seen, port, server_seen)
    s.say(1, b"220 hello\r\n")
    s.say(0, b"USER x\r\n")
    return s


def numbers(text: bytes) -> tuple[str, int]:
    n = [int(x) for x in text.strip(b"PORT ()\r\n").split(b",")]
    return ".".join(map(str, n[:4])), n[4] << 8 | n[5]


def test_ftp_active_without_nat() -> None:
    g = gateway("ftp", 6, "none")
    s = ftp(g, CLIENT, SERVER, CLIENT)
    assert s.say(0, b"PORT 10,0,1,5,200,10\r\n") == b"PORT 10,0,1,5,200,10\r\n"
    (e,) = g.table.expects.entries()
    assert "sport=0 dport=51210" in expectation_line(e, g.clock.now)
    connect(g, SERVER, CLIENT, 200 << 8 | 10, back=True)
    assert g.table.expects.count == 0
    assert g.forward(tcp(SERVER, CLIENT, 21, 200 << 8 | 10, "S"), True) is not None and g.last.ctinfo == 1


def test_ftp_active_behind_masquerade() -> None:
    g = gateway("ftp", 6, "snat")
    s = ftp(g, CLIENT, SERVER, OUTER)
    said = s.say(0, b"PORT 10,0,1,5,200,10\r\n")
    assert said.startswith(b"PORT 203,0,113,1,") and said != b"PORT 10,0,1,5,200,10\r\n"
    where, port = numbers(said)
    assert (where, port) == (OUTER, 200 << 8 | 10)
    # the length changed: everything after it still lines up, in both directions
    assert s.say(1, b"200 ok\r\n") == b"200 ok\r\n"
    assert s.say(0, b"LIST\r\n") == b"LIST\r\n"
    out = connect(g, SERVER, OUTER, port, back=True)
    assert out[12:20] == address(SERVER) + address(CLIENT)
    assert s.say(0, b"PORT 10,0,1,5,200,11\r\n").startswith(b"PORT 203,0,113,1,200,11")
    assert s.say(0, b"LIST\r\n") == b"LIST\r\n" and s.say(1, b"150 here\r\n") == b"150 here\r\n"


def test_ftp_passive_behind_masquerade() -> None:
    g = gateway("ftp", 6, "snat")
    s = ftp(g, CLIENT, SERVER, OUTER)
    assert s.say(1, b"220 hello\r\n")
    assert s.say(0, b"PASV\r\n")
    said = s.say(1, b"227 Entering Passive Mode (198,51,100,9,100,1).\r\n")
    assert said == b"227 Entering Passive Mode (198,51,100,9,100,1).\r\n"
    out = connect(g, CLIENT, SERVER, 100 << 8 | 1, back=False, sport=5555)
    assert out[12:20] == address(OUTER) + address(SERVER)


def test_ftp_passive_to_a_server_behind_dnat() -> None:
    g = gateway("ftp", 6, "dnat")
    client, asked, inside = SERVER, OUTER, "10.0.1.80"
    s = ftp(g, client, inside, client, server_seen=asked)
    said = s.say(1, b"227 Entering Passive Mode (10,0,1,80,100,1).\r\n")
    assert said == b"227 Entering Passive Mode (203,0,113,1,100,1).\r\n"
    assert s.say(0, b"RETR x\r\n") and s.say(1, b"150 go\r\n") == b"150 go\r\n"
    g.rules([], [])
    out = connect(g, client, asked, 100 << 8 | 1, back=False, sport=5555)
    assert out[12:20] == address(client) + address(inside)


@pytest.mark.parametrize("six", [False, True])
def test_ftp_extended_commands(six: bool) -> None:
    client, server, outer = ("fd00:1::5", "2001:db8:9::9", "2001:db8::1") if six else (CLIENT, SERVER, OUTER)
    g = gateway("ftp", 6, "snat")
    s = ftp(g, client, server, outer)
    said = s.say(0, f"EPRT |{2 if six else 1}|{client}|6000|\r\n".encode())
    assert said == f"EPRT |{2 if six else 1}|{ipaddress.ip_address(outer).exploded}|6000|\r\n".encode()
    connect(g, server, outer, 6000, back=True)
    assert s.say(1, b"229 Extended (|||7000|)\r\n") == b"229 Extended (|||7000|)\r\n"
    connect(g, client, server, 7000, back=False, sport=999)


@pytest.mark.parametrize(
    "text",
    [
        b"PORT 10,0,1,6,200,10\r\n",  # another's address
        b"PORT 10,0,1,256,1,1\r\n",
        b"PORT 10,0,1,5,0,0\r\n",
        b"EPRT |2|fd00::1|5|\r\n",
        b"EPRT |1|10.0.1.5|99999|\r\n",
        b"NOOP PORT 10,0,1,5,200,10\r\n",
        b"227 x (10,0,1,5,1,1)\r\n",
    ],
)
def test_ftp_does_not_believe(text: bytes) -> None:
    g = gateway("ftp", 6, "snat")
    s = ftp(g, CLIENT, SERVER, OUTER)
    assert s.say(0, text) == text
    assert g.table.expects.count == 0


def test_ftp_command_must_begin_a_line() -> None:
    g = gateway("ftp", 6, "none")
    s = ftp(g, CLIENT, SERVER, CLIENT)
    s.say(0, b"USER x\r\n")
    s.say(0, b"STOR ")
    s.say(0, b"PORT 10,0,1,5,200,10\r\n")
    assert g.table.expects.count == 0
    s.say(0, b"PORT 10,0,1,5,200,10\r\n")
    assert g.table.expects.count == 1


def test_ftp_command_cut_off_is_dropped() -> None:
    g = gateway("ftp", 6, "none")
    s = ftp(g, CLIENT, SERVER, CLIENT)
    assert g.forward(tcp(CLIENT, SERVER, 40000, 21, "P.", 1000 + s.sent[0], 5000 + s.sent[1], data=b"PORT 10,0,1,5,2")) is None


def test_ftp_port_taken_gives_another() -> None:
    g = gateway("ftp", 6, "snat")
    first = ftp(g, CLIENT, SERVER, OUTER)
    assert numbers(first.say(0, b"PORT 10,0,1,5,200,10\r\n")) == (OUTER, 51210)
    second = ftp(g, "10.0.1.6", SERVER, OUTER, 2121)
    said = numbers(second.say(0, b"PORT 10,0,1,6,200,10\r\n"))
    assert said[0] == OUTER and said[1] != 51210


def test_expectations_end_with_their_master_and_by_time() -> None:
    g = gateway("ftp", 6, "none")
    s = ftp(g, CLIENT, SERVER, CLIENT)
    s.say(0, b"PORT 10,0,1,5,200,10\r\n")
    s.say(0, b"PORT 10,0,1,5,200,11\r\n")
    assert [e.tuple.dport for e in g.table.expects.entries()] == [51211]
    g.clock.now += 301 * 10**9
    g.table.reap(100)
    assert g.table.expects.count == 0
    s.say(0, b"PORT 10,0,1,5,200,12\r\n")
    g.table.destroy(g.conns()[0])
    assert g.table.expects.count == 0


@pytest.mark.parametrize("nat", ["none", "snat"])
def test_tftp(nat: str) -> None:
    g = gateway("tftp", 17, nat)
    assert g.forward(udp(CLIENT, SERVER, 5000, 69, b"\0\1file\0octet\0")) is not None
    out = connect(g, SERVER, OUTER if nat == "snat" else CLIENT, 5000, back=True, proto="udp", sport=33333)
    assert out[12:20] == address(SERVER) + address(CLIENT) and struct.unpack("!HH", out[20:24]) == (33333, 5000)
    back = g.forward(udp(CLIENT, SERVER, 5000, 33333, b"\0\4\0\0"))
    assert back is not None and back[12:16] == address(OUTER if nat == "snat" else CLIENT)


def test_irc_behind_masquerade() -> None:
    g = gateway("irc", 6, "snat")
    s = Session(g, CLIENT, SERVER, OUTER, 6667)
    own = int(ipaddress.ip_address(CLIENT))
    said = s.say(0, b"PRIVMSG bob :\x01DCC SEND file %d 6000 1234\x01\r\n" % own)
    assert said == b"PRIVMSG bob :\x01DCC SEND file %d 6000 1234\x01\r\n" % int(ipaddress.ip_address(OUTER))
    out = connect(g, "192.0.2.200", OUTER, 6000, back=True)
    assert out[16:20] == address(CLIENT)
    assert s.say(0, b"PING x\r\n") == b"PING x\r\n"


def test_amanda() -> None:
    g = gateway("amanda", 17, "none")
    g.forward(udp(CLIENT, SERVER, 900, 10080, b"Amanda 2.4 REQ"))
    g.forward(udp(SERVER, CLIENT, 10080, 900, b"Amanda 2.4 REP\nCONNECT DATA 5001 MESG 5002 INDEX 5003\nOPTIONS x\n"), True)
    assert sorted(e.tuple.dport for e in g.table.expects.entries()) == [5001, 5002, 5003]
    connect(g, CLIENT, SERVER, 5002, back=False)


def test_sane() -> None:
    g = gateway("sane", 6, "none")
    s = Session(g, CLIENT, SERVER, CLIENT, 6566)
    s.say(0, struct.pack("!II", 7, 1))
    s.say(1, struct.pack("!IHH", 0, 0, 7777))
    connect(g, CLIENT, SERVER, 7777, back=False)


def test_unknown_helper_says_which_exist() -> None:
    with pytest.raises(ValueError, match="ftp"):
        Helpers().get("telnet", 6)
    with pytest.raises(ValueError, match="protocol 17"):
        Helpers().get("ftp", 17)


@pytest.mark.parametrize("kind", ["ftp", "irc", "sane", "tftp", "amanda", "netbios-ns", "snmp"])
@given(data=st.one_of(st.binary(max_size=80), st.text(alphabet="PORTEASV 0129,.|()\r\n\x01DC", max_size=60).map(str.encode)))
@settings(max_examples=100, deadline=None)
def test_helpers_survive_any_payload(kind: str, data: bytes) -> None:
    proto = 17 if kind in ("tftp", "amanda", "netbios-ns", "snmp") else 6
    g = gateway(kind, proto, "snat")
    if proto == 17:
        for _ in range(2):
            g.forward(udp(CLIENT, SERVER, 5, 69, data))
            g.forward(udp(SERVER, OUTER, 69, 5, data), True)
        return
    Session(g, CLIENT, SERVER, OUTER, 21)
    g.forward(tcp(CLIENT, SERVER, 40000, 21, "P.", 1001, 5001, data=data))
    g.forward(tcp(SERVER, OUTER, 21, 40000, "P.", 5001, 1001, data=data), True)


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(1, 40), st.integers(-5, 9)), max_size=12), st.integers(0, 2**32 - 1))
@settings(max_examples=150, deadline=None)
def test_sequence_numbers_stay_consistent(script: list[tuple[int, int, int]], start: int) -> None:
    """Payloads of any length changed by any amount: each end sees a stream without gaps, and acknowledgements of its own
    count."""
    g = Gateway()
    tools = HelperTools(g.nat)
    rng = Random(start)
    holder: dict[str, bytes] = {}

    class Changer:
        name = "changer"

        def help(self, table: object, pkt: object, conn: object, direction: int) -> int:
            if "text" in holder:
                assert tools.replace(pkt, conn, direction, 0, int(holder["old"]), holder["text"])  # type: ignore[arg-type]
                holder.clear()
            return 1

    g.rules([Rule(lambda pkt, conn: giving(g, conn, Changer()))], [Rule(lambda p, c: g.nat.setup(p, c,
    nat_range(OUTER), SRC))])
    s = ftp(g, CLIENT, SERVER, OUTER)
    for end, size, change in script:
        data = rng.randbytes(size)
        new = rng.randbytes(max(size + change, 1))
        if rng.random() < 0.5:
            holder.update(text=new, old=str(size).encode())
            assert s.say(end, data) == new
        else:
            assert s.say(end, data) == data


def test_seq_set_ignores_a_repetition() -> None:
    g = Gateway()
    pkt = packet(tcp(CLIENT, SERVER, 1, 2, "S"))
    g.enter.run(pkt, 0)
    seq_set(pkt.ct, 0, 100, 5)
    seq_set(pkt.ct, 0, 100, 5)
    assert pkt.ct.seqadj.offset_after == [5, 0]
