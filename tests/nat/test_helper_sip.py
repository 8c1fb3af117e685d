"""SIP end to end: registrations, calls, media streams and what every message says, with and without NAT."""

from __future__ import annotations

import re

import pytest
from ct_build import address, checksums_hold, udp
from helper_harness import CLIENT, OUTER, SERVER, Session, gateway
from hypothesis import given, settings
from hypothesis import strategies as st
from nat_harness import Gateway, Rule, nat_range

from userfw.conntrack.sip_text import Message, split

SDP = "v=0\r\no=alice 1 1 IN IP4 {who}\r\ns=-\r\nc=IN IP4 {who}\r\nt=0 0\r\nm=audio {port} RTP/AVP 0\r\na=x\r\n"


def message(first: str, headers: list[str], body: str = "") -> bytes:
    return "\r\n".join([first, *headers, f"Content-Length: {len(body)}", "", body]).encode()


def request(method: str, who: str = CLIENT, body: str = "", port: int = 5060, cseq: int = 1, **more: str) -> bytes:
    headers = [
        f"Via: SIP/2.0/UDP {who}:{port};branch=z9hG4bK1",
        f"From: <sip:alice@{who}:{port}>;tag=1",
        f"To: <sip:bob@{SERVER}>",
        "Call-ID: 1@x",
        f"CSeq: {cseq} {method}",
        f"Contact: <sip:alice@{who}:{port}>" + more.get("contact", ""),
    ]
    if "expires" in more:
        headers.append(f"Expires: {more['expires']}")
    return message(f"{method} sip:bob@{SERVER} SIP/2.0", headers, body)


def answer(code: int, method: str, seen: str, port: int = 5060, body: str = "", contact: str = "", cseq: int = 1) -> bytes:
    headers = [
        f"v: SIP/2.0/UDP {seen}:{port};branch=z9hG4bK1;received={seen};rport={port}",
        f"f: <sip:alice@{seen}:{port}>;tag=1",
        f"t: <sip:bob@{SERVER}>;tag=2",
        f"CSeq: {cseq} {method}",
        f"m: {contact or f'<sip:bob@{SERVER}:5060>'}",
    ]
    return message(f"SIP/2.0 {code} OK", headers, body)


def say(g: Gateway, data: bytes, seen: str | None = None, sport: int = 5060) -> bytes:
    """One datagram: from the client, or from the server to `seen`; the payload that arrives."""
    whole = udp(CLIENT, SERVER, sport, 5060, data) if seen is None else udp(SERVER, seen, 5060, sport, data)
    out = g.forward(whole, seen is not None)
    assert out is not None and checksums_hold(out), g.last.drop_reason
    body = out[28:]
    length = re.search(rb"Content-Length: (\d+)", body)
    assert length is not None and int(length[1]) == len(body) - body.index(b"\r\n\r\n") - 4
    return body


def ports(g: Gateway) -> list[tuple[int, int]]:
    return sorted((e.klass, e.tuple.dport) for e in g.table.expects.entries())


def stream(g: Gateway, src: str, dst: str, sport: int, dport: int, back: bool) -> bytes | None:
    return g.forward(udp(src, dst, sport, dport, b"rtp"), back)


def test_a_call_without_nat_announces_both_streams() -> None:
    g = gateway("sip", 17, "none")
    offer = request("INVITE", body=SDP.format(who=CLIENT, port=4000))
    assert say(g, offer) == offer
    assert ports(g) == [(1, 4000), (1, 4001)]
    reply = answer(200, "INVITE", CLIENT, body=SDP.format(who=SERVER, port=6000))
    assert say(g, reply, CLIENT) == reply
    assert ports(g) == [(1, 4000), (1, 4001), (1, 6000), (1, 6001)]
    assert stream(g, SERVER, CLIENT, 6000, 4000, True) and g.last.ctinfo == 3
    # somebody else is not expected
    assert stream(g, "192.0.2.66", CLIENT, 6001, 4001, True) and g.last.ctinfo == 1
    assert stream(g, CLIENT, SERVER, 4001, 6001, False) and g.last.ctinfo == 3


def test_a_call_behind_masquerade_is_translated_throughout() -> None:
    g = gateway("sip", 17, "snat")
    said = say(g, request("INVITE", body=SDP.format(who=CLIENT, port=4000)))
    assert CLIENT.encode() not in said
    assert said.count(OUTER.encode()) == 5  # Via, From, Contact, o=, c=
    assert b"m=audio 4000 " in said and ports(g) == [(1, 4000), (1, 4001)]
    back = say(g, answer(200, "INVITE", OUTER, body=SDP.format(who=SERVER, port=6000)), OUTER)
    assert OUTER.encode() not in back and b"received=" + CLIENT.encode() in back and b"c=IN IP4 " + SERVER.encode() in back
    # the callee's stream reaches the caller, translated back; the caller's stream leaves from the announced port
    out = stream(g, SERVER, OUTER, 6000, 4000, True)
    assert out is not None and out[12:20] == address(SERVER) + address(CLIENT) and g.last.ctinfo == 3
    out = stream(g, CLIENT, SERVER, 4001, 6001, False)
    assert out is not None and out[12:20] == address(OUTER) + address(SERVER) and int.from_bytes(out[20:22]) == 4001


def test_the_end_of_a_call_ends_what_it_announced() -> None:
    g = gateway("sip", 17, "none")
    say(g, request("INVITE", body=SDP.format(who=CLIENT, port=4000)))
    say(g, request("BYE", cseq=2))
    assert ports(g) == []
    say(g, request("INVITE", body=SDP.format(who=CLIENT, port=4000), cseq=3))
    say(g, answer(486, "INVITE", CLIENT, cseq=2), CLIENT)
    assert ports(g) == [(1, 4000), (1, 4001)]  # an answer to something else
    say(g, answer(486, "INVITE", CLIENT, cseq=3), CLIENT)
    assert ports(g) == []


def test_media_ports_taken_move_both() -> None:
    g = gateway("sip", 17, "snat")
    say(g, request("INVITE", body=SDP.format(who=CLIENT, port=4000)))
    other = "10.0.1.6"
    out = g.forward(udp(other, SERVER, 5062, 5060, request("INVITE", who=other, port=5062, body=SDP.format(who=other, port=4000))))
    assert out is not None and b"m=audio 4002 " in out and checksums_hold(out)
    assert ports(g) == [(1, 4000), (1, 4001), (1, 4002), (1, 4003)]
    arrived = stream(g, SERVER, OUTER, 6000, 4002, True)
    assert arrived is not None and arrived[16:20] == address(other) and int.from_bytes(arrived[22:24]) == 4000


def test_several_streams_with_addresses_of_their_own() -> None:
    g = gateway("sip", 17, "snat")
    body = (
        f"v=0\r\no=a 1 1 IN IP4 {CLIENT}\r\ns=-\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\nc=IN IP4 {CLIENT}\r\n"
        f"m=video 5000 RTP/AVP 31\r\nc=IN IP4 {CLIENT}\r\nm=text 5500 x\r\nm=image 0 udptl t38\r\n"
    )
    said = say(g, request("INVITE", body=body))
    assert ports(g) == [(1, 4000), (1, 4001), (2, 5000), (2, 5001)]
    assert CLIENT.encode() not in said and said.count(b"c=IN IP4 " + OUTER.encode()) == 2


def test_a_registration_lets_the_registrar_call() -> None:
    g = gateway("sip", 17, "snat")
    say(g, request("REGISTER", expires="600"))
    incoming = request("INVITE", who=SERVER)
    (e,) = g.table.expects.entries()
    assert stream(g, SERVER, OUTER, 7776, e.tuple.dport, True) and g.last.ctinfo == 1  # not answered yet
    say(g, answer(200, "REGISTER", OUTER, contact=f"<sip:alice@{OUTER}:{e.tuple.dport}>;expires=600"), OUTER)
    assert (e.deadline - g.clock.now) // 10**9 == 600
    out = g.forward(udp(SERVER, OUTER, 7777, e.tuple.dport, incoming), True)
    assert out is not None and g.last.ctinfo == 3 and out[16:20] == address(CLIENT) and g.last.ct.helper.name == "sip"
    assert g.table.expects.count >= 1  # it stays


@pytest.mark.parametrize("code", [401, 500])
def test_a_refused_registration_announces_nothing(code: int) -> None:
    g = gateway("sip", 17, "none")
    say(g, request("REGISTER", expires="600"))
    assert g.table.expects.count == 1
    say(g, answer(code, "REGISTER", CLIENT), CLIENT)
    assert g.table.expects.count == 0


@pytest.mark.parametrize(
    "data",
    [
        request("REGISTER", expires="0"),
        request("REGISTER", contact=";expires=0"),
        request("REGISTER", contact=";transport=sctp"),
        request("REGISTER", who="10.0.1.77"),
        request("INVITE", body=SDP.format(who="10.0.1.77", port=4000)),
        request("INVITE", body=SDP.format(who=CLIENT, port=0)),
    ],
)
def test_what_is_not_believed(data: bytes) -> None:
    g = gateway("sip", 17, "none")
    say(g, data)
    assert g.table.expects.count == 0


@pytest.mark.parametrize(
    "data",
    [
        request("INVITE", body=SDP.format(who=CLIENT, port=80)),
        request("INVITE", body=SDP.format(who="host.example", port=4000)),
        request("INVITE").replace(b"CSeq", b"CSex"),
        b"SIP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_what_cannot_be_tracked_is_dropped(data: bytes) -> None:
    g = gateway("sip", 17, "none")
    assert g.forward(udp(CLIENT, SERVER, 5060, 5060, data)) is None


def test_a_phone_that_listens_elsewhere_gets_its_answers_there() -> None:
    g = gateway("sip", 17, "snat")
    say(g, request("OPTIONS"), sport=49000)
    out = g.forward(udp(SERVER, OUTER, 5060, 49000, answer(200, "OPTIONS", OUTER, port=49000)), True)
    assert out is not None and int.from_bytes(out[22:24]) == 5060 and checksums_hold(out)


def test_over_tcp_several_messages_in_a_segment_keep_the_stream_whole() -> None:
    g = gateway("sip", 6, "snat")
    s = Session(g, CLIENT, SERVER, OUTER, 5060)
    offer = request("INVITE", port=40000, cseq=2, body=SDP.format(who=CLIENT, port=4000))
    said = s.say(0, (request("OPTIONS", port=40000) + offer).replace(b"/UDP", b"/TCP"))
    assert CLIENT.encode() not in said and len(split(said, 2)[0]) == 2
    assert s.say(1, b"hello") == b"hello" and s.say(0, b"x") == b"x"
    assert ports(g) == [(1, 4000), (1, 4001)]


def test_both_ends_behind_the_gateway_reach_one_another_directly() -> None:
    """Two phones of one LAN call each other through an outer server: the second leg names the first phone's own address."""
    g = gateway("sip", 17, "snat")
    say(g, request("INVITE", body=SDP.format(who=CLIENT, port=4000)))
    second = request("INVITE", who=SERVER, body=SDP.format(who=OUTER, port=4000))
    g.rules([g.ruled[0], Rule(lambda pkt, conn: g.nat.setup(pkt, conn, nat_range("10.0.1.9"), 1))], [])  # type: ignore[attr-defined]
    out = g.forward(udp(SERVER, OUTER, 5061, 5060, second), True)
    assert out is not None and checksums_hold(out)
    # the offer of the outer address comes from the server, not from that address: nothing is announced for it again
    assert [p for p in ports(g) if p[0]] == [(1, 4000), (1, 4001)]


def test_ipv6() -> None:
    g = gateway("sip", 17, "snat")
    client, server, outer = "fd00:1::5", "2001:db8:9::9", "2001:db8::1"
    body = f"v=0\r\no=a 1 1 IN IP6 {client}\r\nc=IN IP6 {client}\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n"
    text = request("INVITE", who=f"[{client}]", body=body).replace(SERVER.encode(), f"[{server}]".encode())
    out = g.forward(udp(client, server, 5060, 5060, text))
    assert out is not None and checksums_hold(out)
    assert client.encode() not in out and f"c=IN IP6 {outer}\r\n".encode() in out and f"[{outer}]:5060".encode() in out


@given(
    st.one_of(st.binary(max_size=300), st.text(alphabet="INVTESP/2.0 \r\nc=m:oaudi@<>;1459[]", max_size=200).map(str.encode)),
    st.integers(0, 400),
    st.binary(max_size=6),
)
@settings(max_examples=200, deadline=None)
def test_no_text_breaks_it(noise: bytes, at: int, patch: bytes) -> None:
    g = gateway("sip", 17, "snat")
    whole = request("INVITE", body=SDP.format(who=CLIENT, port=4000))
    for data in (noise, whole[:at] + patch + whole[at:], whole[:at], whole[:at] + noise):
        out = g.forward(udp(CLIENT, SERVER, 5060, 5060, data))
        assert out is None or checksums_hold(out)
    for proto in (6, 17):
        m = Message(noise, 2, proto)
        m.fix_length()
        assert isinstance(m.method(), str) and m.code() < 1000 and len(m.medias(0)) < 100 and len(list(m.uris("contact"))) < 100
        assert m.via() is None or m.via().port >= 1024  # type: ignore[union-attr]
