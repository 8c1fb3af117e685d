"""H.323 end to end: a call with fast start, H.245 and RTP, and a gatekeeper, with and without NAT."""

from __future__ import annotations

import ipaddress
import struct
import sys
from typing import Any

import pytest
from ct_build import address, checksums_hold, tcp, udp
from helper_harness import CLIENT, OUTER, SERVER, Session, gateway
from hypothesis import given, settings
from hypothesis import strategies as st
from nat_harness import Gateway

from userfw.conntrack.h323_text import units, user_user
from userfw.conntrack.helper import Helpers

H225 = pytest.importorskip("pycrate_asn1dir.H225", reason="needs the Python package pycrate (extra h323)")
H245 = pytest.importorskip("pycrate_asn1dir.H245", reason="needs the Python package pycrate (extra h323)")

BASE: dict[str, Any] = {"protocolIdentifier": (0, 0, 8, 2250, 0, 4)}
CALL = {"callIdentifier": {"guid": bytes(16)}}
ENDPOINT = {"mc": False, "undefinedNode": False}


def where(who: str, port: int) -> tuple[str, dict[str, Any]]:
    name = "ipAddress" if ":" not in who else "ip6Address"
    return name, {"ip": ipaddress.ip_address(who).packed, "port": port}


def media(who: str, port: int) -> tuple[str, Any]:
    name = "iPAddress" if ":" not in who else "iP6Address"
    return "unicastAddress", (name, {"network": ipaddress.ip_address(who).packed, "tsapIdentifier": port})


def channel(who: str, rtp: int, rtcp: int) -> dict[str, Any]:
    parameters = {"sessionID": 1, "mediaChannel": media(who, rtp), "mediaControlChannel": media(who, rtcp)}
    return {
        "forwardLogicalChannelNumber": 1,
        "forwardLogicalChannelParameters": {
            "dataType": ("audioData", ("g711Alaw64k", 20)),
            "multiplexParameters": ("h2250LogicalChannelParameters", parameters),
        },
    }


def encode(codec: Any, value: Any) -> bytes:
    codec.set_val(value)
    return bytes(codec.to_aper())


def control(value: Any) -> bytes:
    return encode(H245.MULTIMEDIA_SYSTEM_CONTROL.MultimediaSystemControlMessage, value)


def tpkt(data: bytes) -> bytes:
    return struct.pack("!BBH", 3, 0, len(data) + 4) + data


def q931(kind: int, body: tuple[str, dict[str, Any]], tunnelled: list[bytes] | None = None) -> bytes:
    pdu: dict[str, Any] = {"h323-message-body": body, "h245Tunnelling": tunnelled is not None}
    if tunnelled:
        pdu["h245Control"] = tunnelled
    data = encode(H225.H323_MESSAGES.H323_UserInformation, {"h323-uu-pdu": pdu})
    # a sending-complete, a display element, then the user-user element
    return tpkt(bytes([8, 2, 0, 1, kind, 0xA1, 0x28, 2, 65, 66, 0x7E]) + struct.pack("!HB", len(data) + 1, 5) + data)


def setup(who: str, port: int, **more: Any) -> bytes:
    body = BASE | CALL | {"sourceInfo": ENDPOINT, "activeMC": False, "conferenceID": bytes(16)}
    body |= {"conferenceGoal": ("create", 0), "callType": ("pointToPoint", 0)}
    body |= {"mediaWaitForConnect": False, "canOverlapSend": False}
    body |= {"sourceCallSignalAddress": where(who, port), "destCallSignalAddress": where(SERVER, 1720)}
    return q931(5, ("setup", body | more))


def connect(**more: Any) -> bytes:
    return q931(7, ("connect", BASE | CALL | {"destinationInfo": ENDPOINT, "conferenceID": bytes(16)} | more))


def ports(g: Gateway) -> list[tuple[int, int]]:
    return sorted((e.tuple.l4proto, e.tuple.dport) for e in g.table.expects.entries())


def stream(g: Gateway, src: str, dst: str, dport: int, back: bool) -> bytes | None:
    out = g.forward(udp(src, dst, 3000, dport, b"rtp"), back)
    assert out is not None and g.last.ctinfo == 3 and checksums_hold(out)
    return out


def test_fast_start_announces_rtp_and_rtcp() -> None:
    g = gateway("Q.931", 6, "none")
    s = Session(g, CLIENT, SERVER, CLIENT, 1720)
    olc = encode(H245.MULTIMEDIA_SYSTEM_CONTROL.OpenLogicalChannel, channel(CLIENT, 5000, 5001))
    said = setup(CLIENT, 40000, fastStart=[olc], h245Address=where(CLIENT, 4000))
    assert s.say(0, said) == said
    assert ports(g) == [(6, 4000), (17, 5000), (17, 5001)]
    stream(g, SERVER, CLIENT, 5000, True)
    stream(g, SERVER, CLIENT, 5001, True)


def test_a_call_behind_masquerade() -> None:
    g = gateway("Q.931", 6, "snat")
    s = Session(g, CLIENT, SERVER, OUTER, 1720)
    olc = encode(H245.MULTIMEDIA_SYSTEM_CONTROL.OpenLogicalChannel, channel(CLIENT, 5000, 5001))
    offer = setup(CLIENT, 40000, fastStart=[olc, olc], h245Address=where(CLIENT, 4000))
    said = s.say(0, offer)
    assert address(CLIENT) not in said and len(said) == len(offer)
    codec = H225.H323_MESSAGES.H323_UserInformation
    codec.from_aper(said[slice(*user_user(said, 4, len(said)))])  # type: ignore[misc]
    body = codec.get_val()["h323-uu-pdu"]["h323-message-body"][1]
    assert body["h245Address"] == where(OUTER, 4000) and body["sourceCallSignalAddress"] == where(OUTER, 40000)
    assert body["destCallSignalAddress"] == where(SERVER, 1720)
    out = stream(g, SERVER, OUTER, 5000, True)
    assert out is not None and out[16:20] == address(CLIENT)
    # the answer opens media at the server, and H.245 comes back in
    assert s.say(1, connect(h245Address=where(SERVER, 4321)))
    assert (6, 4321) in ports(g)
    out = g.forward(tcp(SERVER, OUTER, 999, 4000, "S", 1), True)
    assert out is not None and g.last.ctinfo == 3 and out[16:20] == address(CLIENT) and g.last.ct.helper.name == "H.245"


def test_h245_opens_channels_in_a_connection_of_its_own() -> None:
    g = gateway("H.245", 6, "snat")
    s = Session(g, CLIENT, SERVER, OUTER, 4321)
    said = s.say(0, tpkt(control(("request", ("openLogicalChannel", channel(CLIENT, 5000, 5001))))))
    assert address(CLIENT) not in said and ports(g) == [(17, 5000), (17, 5001)]
    ack = {
        "forwardLogicalChannelNumber": 1,
        "forwardMultiplexAckParameters": (
            "h2250LogicalChannelAckParameters",
            {"sessionID": 1, "mediaChannel": media(SERVER, 7000), "mediaControlChannel": media(SERVER, 7001)},
        ),
    }
    assert address(SERVER) in s.say(1, tpkt(control(("response", ("openLogicalChannelAck", ack)))))
    assert ports(g) == [(17, 5000), (17, 5001), (17, 7000), (17, 7001)]
    out = g.forward(udp(CLIENT, SERVER, 5000, 7000, b"rtp"))
    assert out is not None and g.last.ctinfo == 3 and out[12:16] == address(OUTER)


def test_ports_taken_move_the_pair() -> None:
    g = gateway("H.245", 6, "snat")
    first = Session(g, CLIENT, SERVER, OUTER, 4321)
    message = ("request", ("openLogicalChannel", channel(CLIENT, 5000, 5001)))
    first.say(0, tpkt(control(message)))
    second = Session(g, "10.0.1.6", SERVER, OUTER, 4322)
    said = second.say(0, tpkt(control(("request", ("openLogicalChannel", channel("10.0.1.6", 5000, 5001))))))
    assert address(OUTER) + struct.pack("!H", 5002) in said and address(OUTER) + struct.pack("!H", 5003) in said
    out = stream(g, SERVER, OUTER, 5002, True)
    assert out is not None and out[16:20] == address("10.0.1.6") and out[22:24] == struct.pack("!H", 5000)


def test_tunnelled_control_and_a_header_that_comes_alone() -> None:
    g = gateway("Q.931", 6, "snat")
    s = Session(g, CLIENT, SERVER, OUTER, 1720)
    inner = control(("request", ("openLogicalChannel", channel(CLIENT, 5000, 5001))))
    whole = q931(98, ("facility", BASE | CALL | {"reason": ("transportedInformation", 0)}), [inner])
    s.say(0, whole[:4])
    assert address(CLIENT) not in s.say(0, whole[4:])
    assert ports(g) == [(17, 5000), (17, 5001)]


def test_t120_and_forwarding() -> None:
    g = gateway("Q.931", 6, "none")
    s = Session(g, CLIENT, SERVER, CLIENT, 1720)
    body = BASE | CALL | {"reason": ("callForwarded", 0), "alternativeAddress": where("192.0.2.4", 1720)}
    s.say(1, q931(98, ("facility", body)))
    assert ports(g) == [(6, 1720)]
    out = g.forward(tcp(CLIENT, "192.0.2.4", 1234, 1720, "S", 1))
    assert out is not None and g.last.ctinfo == 3 and g.last.ct.helper.name == "Q.931"


@pytest.mark.parametrize("who", ["10.0.1.77", SERVER])
def test_another_address_than_the_senders_announces_nothing(who: str) -> None:
    g = gateway("H.245", 6, "none")
    s = Session(g, CLIENT, SERVER, CLIENT, 4321)
    s.say(0, tpkt(control(("request", ("openLogicalChannel", channel(who, 5000, 5001))))))
    assert g.table.expects.count == 0


def ras(kind: str, **content: Any) -> bytes:
    return encode(H225.H323_MESSAGES.RasMessage, (kind, {"requestSeqNum": 1} | content))


def register(who: str, port: int) -> bytes:
    vendor = {"vendor": {"t35CountryCode": 1, "t35Extension": 1, "manufacturerCode": 1}}
    return ras(
        "registrationRequest",
        **BASE,
        discoveryComplete=True,
        callSignalAddress=[where(who, 1720)],
        rasAddress=[where(who, port)],
        terminalType=ENDPOINT,
        endpointVendor=vendor,
        timeToLive=500,
        keepAlive=False,
        willSupplyUUIEs=False,
        maintainConnection=False,
    )


def test_a_registration_lets_calls_in_for_as_long_as_the_gatekeeper_says() -> None:
    g = gateway("RAS", 17, "snat")
    out = g.forward(udp(CLIENT, SERVER, 1719, 1719, register(CLIENT, 1719)))
    assert out is not None and checksums_hold(out) and address(CLIENT) not in out[28:]
    (e,) = g.table.expects.entries()
    confirm = ras(
        "registrationConfirm",
        **BASE,
        callSignalAddress=[where(OUTER, e.tuple.dport)],
        endpointIdentifier="x",
        timeToLive=120,
        willRespondToIRR=False,
        maintainConnection=False,
    )
    out = g.forward(udp(SERVER, OUTER, 1719, 1719, confirm), True)
    assert out is not None and checksums_hold(out) and address(OUTER) not in out[28:]
    assert (e.deadline - g.clock.now) // 10**9 == 120
    for sport in (5, 6):  # it stays
        out = g.forward(tcp(SERVER, OUTER, sport, e.tuple.dport, "S", 1), True)
        assert out is not None and g.last.ctinfo == 3 and out[16:20] == address(CLIENT) and g.last.ct.helper.name == "Q.931"
    leave = ras("unregistrationRequest", callSignalAddress=[where(CLIENT, 1720)])
    assert g.forward(udp(CLIENT, SERVER, 1719, 1719, leave)) is not None and g.table.expects.count == 0


def test_admission_and_location_announce_the_signalling() -> None:
    g = gateway("RAS", 17, "none")
    ask = ras("gatekeeperRequest", **BASE, rasAddress=where(CLIENT, 1719), endpointType=ENDPOINT)
    assert g.forward(udp(CLIENT, SERVER, 1719, 1719, ask)) is not None
    confirm = ras(
        "admissionConfirm",
        bandWidth=1,
        callModel=("direct", 0),
        destCallSignalAddress=where("192.0.2.7", 1720),
        willRespondToIRR=False,
        uuiesRequested=dict.fromkeys(H225.H323_MESSAGES.UUIEsRequested._root_mand, False),
    )
    assert g.forward(udp(SERVER, CLIENT, 1719, 1719, confirm), True) is not None
    out = g.forward(tcp(CLIENT, "192.0.2.7", 1234, 1720, "S", 1))
    assert out is not None and g.last.ctinfo == 3 and g.last.ct.helper.name == "Q.931"


@given(st.binary(max_size=80), st.integers(0, 200), st.sampled_from(["Q.931", "H.245"]))
@settings(max_examples=150, deadline=None)
def test_no_bytes_break_it(noise: bytes, at: int, kind: str) -> None:
    g = gateway(kind, 6, "snat")
    Session(g, CLIENT, SERVER, OUTER, 1720)
    whole = setup(CLIENT, 40000, h245Address=where(CLIENT, 4000))
    for data in (noise, tpkt(noise), whole[:at] + noise + whole[at:], whole[:at]):
        out = g.forward(tcp(CLIENT, SERVER, 40000, 1720, "P.", 1001, 5001, data=data))
        assert out is None or checksums_hold(out)
    found, pending = units(noise, 0)
    assert all(0 < a <= b <= len(noise) for a, b in found) and pending >= 0


def test_without_pycrate_the_helper_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycrate_asn1dir", None)
    with pytest.raises(ValueError, match="pycrate"):
        Helpers().get("Q.931", 6)
    assert "RAS" not in Helpers().by_name() and "ftp" in Helpers().by_name()
