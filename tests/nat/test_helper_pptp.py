"""PPTP end to end: the control connection, then its tunnels, with and without NAT."""

from __future__ import annotations

import struct

import pytest
from ct_build import address, icmp, ip
from helper_harness import CLIENT, OUTER, SERVER, Session, gateway
from hypothesis import given, settings
from hypothesis import strategies as st
from nat_harness import Gateway

from userfw.conntrack.helper_pptp import MAGIC


def control(kind: int, body: bytes = b"") -> bytes:
    body = body.ljust(208, b"\0")
    return struct.pack("!HHIHH", 12 + len(body), 1, MAGIC, kind, 0) + body


def gre(src: str, dst: str, call: int, payload: bytes = b"ppp") -> bytes:
    return ip(src, dst, 47, struct.pack("!HHHHI", 0x3001, 0x880B, len(payload), call, 1) + payload)


def call(g: Gateway, seen: str, client: str = CLIENT, inner: int = 7, pac: int = 99, sport: int = 40000) -> tuple[Session, int]:
    """A control connection with one call up; the client's call id as the server knows it."""

    class Placed(Session):
        def __setattr__(self, name: str, value: object) -> None:
            super().__setattr__(name, sport if name == "sport" else value)

    s = Placed(g, client, SERVER, seen, 1723)
    s.say(0, control(1, struct.pack("!HH", 0x100, 0)))
    s.say(1, control(2, struct.pack("!HBB", 0x100, 1, 0)))
    asked = s.say(0, control(7, struct.pack("!HH", inner, 1)))
    (outer,) = struct.unpack("!H", asked[12:14])
    answered = s.say(1, control(8, struct.pack("!HHBB", pac, outer, 1, 0)))
    assert struct.unpack("!HH", answered[12:16]) == (pac, inner)
    return s, outer


@pytest.mark.parametrize("nat", ["none", "snat"])
@pytest.mark.parametrize("first", ["client", "server"])
def test_a_tunnel_from_either_end(nat: str, first: str) -> None:
    g = gateway("pptp", 6, nat)
    seen = OUTER if nat == "snat" else CLIENT
    _, outer = call(g, seen)
    assert outer == (40000 if nat == "snat" else 7) and g.table.expects.count == 2

    def from_client() -> None:
        out = g.forward(gre(CLIENT, SERVER, 99))
        assert out is not None and out[12:20] == address(seen) + address(SERVER) and out[26:28] == b"\0\x63"

    def from_server() -> None:
        out = g.forward(gre(SERVER, seen, outer), True)
        assert out is not None and out[12:20] == address(SERVER) + address(CLIENT) and out[26:28] == b"\0\x07"

    steps = [from_client, from_server] if first == "client" else [from_server, from_client]
    steps[0]()
    assert g.last.ctinfo == 3 and g.table.expects.count == 0
    tunnel = g.last.ct
    steps[1]()
    assert g.last.ct is tunnel and g.last.ctdir == 1
    steps[0]()
    assert g.last.ct is tunnel and len([c for c in g.conns() if c.orig.l4proto == 47]) == 1


def test_two_clients_with_equal_ids() -> None:
    g = gateway("pptp", 6, "snat")
    _, first = call(g, OUTER)
    _, second = call(g, OUTER, client="10.0.1.6", sport=40001, pac=100)
    assert first != second
    for outer, client, pac in ((first, CLIENT, 99), (second, "10.0.1.6", 100)):
        assert g.forward(gre(client, SERVER, pac)) is not None
        out = g.forward(gre(SERVER, OUTER, outer), True)
        assert out is not None and out[16:20] == address(client) and out[26:28] == b"\0\x07"


def test_the_tunnel_ends_with_the_call_and_with_the_control_connection() -> None:
    g = gateway("pptp", 6, "snat")
    s, outer = call(g, OUTER)
    g.forward(gre(CLIENT, SERVER, 99))
    g.forward(gre(SERVER, OUTER, outer), True)
    s.say(1, control(13, struct.pack("!HBB", 99, 1, 0)))
    assert [c.orig.l4proto for c in g.conns()] == [6] and not g.table.expects.gre_keys
    s, outer = call(g, OUTER, client="10.0.1.6", sport=40001)
    g.forward(gre("10.0.1.6", SERVER, 99))
    g.table.destroy(next(c for c in g.conns() if c.orig.l4proto == 6 and c.orig.sport == 40001))
    assert not [c for c in g.conns() if c.orig.l4proto == 47] and not g.table.expects.gre_keys


def test_an_error_about_the_tunnel_is_related() -> None:
    g = gateway("pptp", 6, "none")
    call(g, CLIENT)
    quoted = gre(CLIENT, SERVER, 99)
    g.forward(quoted)
    assert g.forward(icmp(SERVER, CLIENT, 3, 1, bytes(4), quoted[:32]), True) is not None and g.last.ctinfo == 3


@pytest.mark.parametrize("steps", [[8], [7, 8], [1, 7, 8], [1, 2, 8], [11], [1, 2, 9, 11]])
def test_messages_out_of_order_announce_nothing(steps: list[int]) -> None:
    g = gateway("pptp", 6, "none")
    s = Session(g, CLIENT, SERVER, CLIENT, 1723)
    for kind in steps:
        s.say(0 if kind in (1, 7) else 1, control(kind, struct.pack("!HHB", 7, 7, 1)))
    assert g.table.expects.count == 0


def test_incoming_calls() -> None:
    g = gateway("pptp", 6, "none")
    s = Session(g, CLIENT, SERVER, CLIENT, 1723)
    s.say(0, control(1))
    s.say(1, control(2, struct.pack("!HBB", 0x100, 1, 0)))
    s.say(1, control(9, struct.pack("!H", 55)))
    s.say(0, control(10, struct.pack("!HHB", 8, 55, 1)))
    s.say(1, control(11, struct.pack("!H", 8)))
    assert sorted(e.tuple.dport for e in g.table.expects.entries()) == [8, 55]
    assert g.forward(gre(SERVER, CLIENT, 8), True) is not None and g.last.ctinfo == 3


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 16), st.binary(max_size=12)), max_size=8))
@settings(max_examples=100, deadline=None)
def test_no_message_breaks_it(script: list[tuple[int, int, bytes]]) -> None:
    g = gateway("pptp", 6, "snat")
    s = Session(g, CLIENT, SERVER, OUTER, 1723)
    for end, kind, body in script:
        s.say(end, control(kind, body) if len(body) % 2 else struct.pack("!HHIHH", 12 + len(body), 1, MAGIC, kind, 0) + body)
