"""Helpers: conversations of FTP, TFTP, IRC, SIP, PPTP and H.323 through NAT, every byte as the kernel's helpers leave it."""

import struct

import pytest
from lab import frames as f
from lab.families import EACH, IP4, Family
from lab.rules import nat
from lab.topology import Lab, Out

ACK, PSH = 16, 8
MAGIC = 0x1A2B3C4D


def rules(fam: Family, kind: str, proto: str, port: int, post: str = 'oifname "wan" masquerade', pre: str = "") -> str:
    """The helper for connections to `port`, and NAT; only what was announced comes in from wan."""
    return f"""{nat(fam, pre, post)}
table {fam.name} helpers {{
    ct helper h {{ type "{kind}" protocol {proto}; }}
    chain give {{ type filter hook prerouting priority filter; {proto} dport {port} ct helper set "h"; }}
    chain only {{ type filter hook forward priority filter; policy drop;
        ct state established,related counter accept
        iifname "lan" accept
        {"" if not pre else f"{proto} dport {port} accept"}
    }}
    chain closed {{ type filter hook input priority filter; meta l4proto {{ tcp, udp }} drop; }}
}}
"""


class Talk:
    """A TCP connection between two hosts through the router; what each end sends is acknowledged by the other."""

    def __init__(self, lab: Lab, ends: tuple[tuple[str, str, str, int], tuple[str, str, str, int]]) -> None:
        """`ends`: for client and server the side, its own address, the address it talks to, and its own port."""
        self.lab, self.ends = lab, ends
        self.next = [1000, 5000]
        self.heard = [0, 0]
        self._send(0, f.SYN)
        self._send(1, f.SYN | ACK)
        self._send(0, ACK)

    def _send(self, end: int, flags: int, data: bytes = b"") -> Out:
        side, own, peer, port = self.ends[end]
        ack = self.heard[end] if flags & ACK else 0
        segment = f.tcp_packet(own, peer, port, self.ends[1 - end][3], flags, self.next[end], ack, data)
        [out] = [o for o in self.lab.send(side, segment) if o.port == self.ends[1 - end][0]]
        start = 40 if out.packet[0] >> 4 == 6 else 20
        seq, size = int.from_bytes(out.packet[start + 4:start + 8], "big"), len(out.packet) - start - 20
        self.next[end] += len(data) + (flags & f.SYN > 0)
        self.heard[1 - end] = seq + size + (flags & f.SYN > 0)
        return out

    def say(self, end: int, data: bytes) -> bytes:
        """Send `data`; what the other end gets. The other end acknowledges it."""
        out = self._send(end, PSH | ACK, data)
        self._send(1 - end, ACK)
        return out.packet[(40 if out.packet[0] >> 4 == 6 else 20) + 20:]


def outward(lab: Lab, fam: Family, port: int, sport: int = 40000, host: int = 10) -> Talk:
    """From a host of lan to wan, masqueraded."""
    return Talk(lab, (("lan", fam.host("lan", host), fam.wan, sport), ("wan", fam.wan, fam.out, port)))


def datagram(lab: Lab, fam: Family, data: bytes, back: bool, ports: tuple[int, int]) -> bytes:
    """A datagram through masquerading; its payload as it arrives."""
    if back:
        [out] = lab.send("wan", f.udp_packet(fam.wan, fam.out, ports[1], ports[0], data))
    else:
        [out] = lab.send("lan", f.udp_packet(fam.lan, fam.wan, ports[0], ports[1], data))
    return out.packet[(40 if out.packet[0] >> 4 == 6 else 20) + 8:]


def six(address: str, port: int) -> bytes:
    """An address and port as PORT has them."""
    return ",".join([*address.split("."), str(port >> 8), str(port & 255)]).encode()


@pytest.mark.parametrize("fam", EACH, ids=str)
def test_ftp_active_and_passive(lab: Lab, fam: Family) -> None:
    lab.router.load(rules(fam, "ftp", "tcp", 21))
    talk = outward(lab, fam, 21)
    talk.say(1, b"220 hello\r\n")
    talk.say(0, b"USER x\r\n")
    family = 2 if fam is not IP4 else 1
    said = talk.say(0, b"EPRT |%d|%s|5001|\r\n" % (family, fam.lan.encode()))
    assert f.addr(said.split(b"|")[2].decode()) == f.addr(fam.out)
    assert lab.send("wan", f.tcp_packet(fam.wan, fam.out, 20, 5001)) == [
        lab.down("lan", f.tcp_packet(fam.wan, fam.lan, 20, 5001, ttl=63))]
    if fam is IP4:
        assert talk.say(0, b"PORT %s\r\n" % six(fam.lan, 5002)) == b"PORT %s\r\n" % six(fam.out, 5002)
        talk.say(1, b"227 Entering Passive Mode (%s).\r\n" % six(fam.wan, 6001))
    else:
        talk.say(1, b"229 Extended (|||6001|)\r\n")
    talk.say(0, b"LIST\r\n")
    assert lab.send("lan", f.tcp_packet(fam.lan, fam.wan, 5555, 6001)) == [
        lab.down("wan", f.tcp_packet(fam.out, fam.wan, 5555, 6001, ttl=63))]
    assert lab.send("wan", f.tcp_packet(fam.wan, fam.out, 20, 5009)) == []


def test_ftp_server_behind_dnat(lab: Lab) -> None:
    fam = IP4
    lab.router.load(rules(fam, "ftp", "tcp", 21, "", f'iifname "wan" tcp dport 21 dnat to {fam.lan}'))
    talk = Talk(lab, (("wan", fam.wan, fam.out, 40000), ("lan", fam.lan, fam.wan, 21)))
    talk.say(1, b"220 hello\r\n")
    talk.say(0, b"PASV\r\n")
    said = talk.say(1, b"227 Entering Passive Mode (%s).\r\n" % six(fam.lan, 6001))
    assert said == b"227 Entering Passive Mode (%s).\r\n" % six(fam.out, 6001)
    talk.say(0, b"RETR x\r\n")
    talk.say(1, b"150 here it comes\r\n")
    assert lab.send("wan", f.tcp_packet(fam.wan, fam.out, 5555, 6001)) == [
        lab.down("lan", f.tcp_packet(fam.wan, fam.lan, 5555, 6001, ttl=63))]


@pytest.mark.parametrize("fam", EACH, ids=str)
def test_tftp(lab: Lab, fam: Family) -> None:
    lab.router.load(rules(fam, "tftp", "udp", 69))
    datagram(lab, fam, b"\0\1file\0octet\0", False, (4000, 69))
    assert lab.send("wan", f.udp_packet(fam.wan, fam.out, 3333, 4000, b"\0\3\0\1data")) == [
        lab.down("lan", f.udp_packet(fam.wan, fam.lan, 3333, 4000, b"\0\3\0\1data", ttl=63))]
    assert lab.send("wan", f.udp_packet(fam.wan, fam.out, 3333, 4001)) == []


def test_irc(lab: Lab) -> None:
    fam = IP4
    lab.router.load(rules(fam, "irc", "tcp", 6667))
    talk = outward(lab, fam, 6667)
    own = int.from_bytes(f.addr(fam.lan), "big")
    said = talk.say(0, b"PRIVMSG bob :\1DCC SEND file %d 6000 12\1\r\n" % own)
    assert b" %d 6000" % int.from_bytes(f.addr(fam.out), "big") in said
    talk.say(0, b"PING x\r\n")
    assert len(lab.send("wan", f.tcp_packet(fam.host("wan", 11), fam.out, 999, 6000))) == 1


def bracketed(fam: Family, host: str) -> str:
    return host if fam is IP4 else f"[{host}]"


def sip(fam: Family, first: str, who: str, port: int, cseq: str, body: str = "", more: str = "", answer: str = "") -> bytes:
    """A SIP message of the caller `who`, or an answer about one."""
    host = bracketed(fam, who)
    head = [first, f"Via: SIP/2.0/UDP {host}:{port};branch=z9hG4bK1{answer}", f"From: <sip:alice@{host}:{port}>;tag=1",
            f"To: <sip:bob@{bracketed(fam, fam.wan)}>", "Call-ID: 1@x", f"CSeq: {cseq}"]
    if more:
        head.append(more)
    return "\r\n".join([*head, f"Content-Length: {len(body)}", "", body]).encode()


def sdp(fam: Family, who: str, port: int) -> str:
    kind = "IP4" if fam is IP4 else "IP6"
    return f"v=0\r\no=a 1 1 IN {kind} {who}\r\ns=-\r\nc=IN {kind} {who}\r\nt=0 0\r\nm=audio {port} RTP/AVP 0\r\n"


@pytest.mark.parametrize("fam", EACH, ids=str)
def test_sip_call(lab: Lab, fam: Family) -> None:
    lab.router.load(rules(fam, "sip", "udp", 5060))
    wan, ports = bracketed(fam, fam.wan), (5060, 5060)
    contact = f"Contact: <sip:alice@{bracketed(fam, fam.lan)}:5060>"
    offer = sip(fam, f"INVITE sip:bob@{wan} SIP/2.0", fam.lan, 5060, "1 INVITE", sdp(fam, fam.lan, 4000), contact)
    assert fam.lan.encode() not in datagram(lab, fam, offer, False, ports)
    answer = sip(fam, "SIP/2.0 200 OK", fam.out, 5060, "1 INVITE", sdp(fam, fam.wan, 6000),
                 f"Contact: <sip:bob@{wan}:5060>", f";received={fam.out};rport=5060")
    assert f";received={fam.lan};".encode() in datagram(lab, fam, answer, True, ports)
    assert lab.send("wan", f.udp_packet(fam.wan, fam.out, 6000, 4000, b"rtp")) == [
        lab.down("lan", f.udp_packet(fam.wan, fam.lan, 6000, 4000, b"rtp", ttl=63))]
    assert lab.send("lan", f.udp_packet(fam.lan, fam.wan, 4001, 6001, b"rtcp")) == [
        lab.down("wan", f.udp_packet(fam.out, fam.wan, 4001, 6001, b"rtcp", ttl=63))]
    bye = sip(fam, f"BYE sip:bob@{wan} SIP/2.0", fam.lan, 5060, "2 BYE")
    datagram(lab, fam, bye, False, ports)


def test_sip_registration_and_incoming_call(lab: Lab) -> None:
    fam, ports = IP4, (5060, 5060)
    lab.router.load(rules(fam, "sip", "udp", 5060))
    ask = sip(fam, f"REGISTER sip:{fam.wan} SIP/2.0", fam.lan, 5060, "7 REGISTER", "",
              f"Contact: <sip:alice@{fam.lan}:5070>\r\nExpires: 600")
    assert f"<sip:alice@{fam.out}:5070>".encode() in datagram(lab, fam, ask, False, ports)
    call = sip(fam, f"INVITE sip:alice@{fam.out}:5070 SIP/2.0", fam.wan, 7777, "1 INVITE", sdp(fam, fam.wan, 6000))
    assert lab.send("wan", f.udp_packet(fam.wan, fam.out, 7777, 5070, call)) == []
    answer = sip(fam, "SIP/2.0 200 OK", fam.out, 5060, "7 REGISTER", "", f"Contact: <sip:alice@{fam.out}:5070>;expires=600")
    datagram(lab, fam, answer, True, ports)
    [out] = lab.send("wan", f.udp_packet(fam.wan, fam.out, 7778, 5070, call))
    assert out.port == "lan" and out.packet[16:20] == f.addr(fam.lan)


def test_sip_over_tcp(lab: Lab) -> None:
    fam = IP4
    lab.router.load(rules(fam, "sip", "tcp", 5060))
    talk = outward(lab, fam, 5060)
    offer = sip(fam, f"INVITE sip:bob@{fam.wan} SIP/2.0", fam.lan, 40000, "1 INVITE", sdp(fam, fam.lan, 4000))
    ask = sip(fam, f"OPTIONS sip:bob@{fam.wan} SIP/2.0", fam.lan, 40000, "1 OPTIONS")
    talk.say(0, (ask + offer).replace(b"/UDP", b"/TCP"))
    talk.say(1, b"hello")
    talk.say(0, ask.replace(b"/UDP", b"/TCP"))
    assert len(lab.send("wan", f.udp_packet(fam.wan, fam.out, 6000, 4000, b"rtp"))) == 1


def control(kind: int, body: bytes) -> bytes:
    """A PPTP control message (RFC 2637)."""
    body = body.ljust(208, b"\0")
    return struct.pack("!HHIHH", 12 + len(body), 1, MAGIC, kind, 0) + body


def gre(src: str, dst: str, call: int, ttl: int = 64) -> bytes:
    """An enhanced GRE packet."""
    return f.ip(src, dst, 47, struct.pack("!HHHHI", 0x3001, 0x880B, 3, call, 1) + b"ppp", ttl)


@pytest.mark.parametrize("first", ["client", "server"])
def test_pptp_tunnel(lab: Lab, first: str) -> None:
    fam = IP4
    lab.router.load(rules(fam, "pptp", "tcp", 1723))
    talk = outward(lab, fam, 1723)
    talk.say(0, control(1, struct.pack("!HH", 0x100, 0)))
    talk.say(1, control(2, struct.pack("!HBB", 0x100, 1, 0)))
    asked = talk.say(0, control(7, struct.pack("!HH", 7, 1)))
    outer = int.from_bytes(asked[12:14], "big")
    assert outer == 40000
    assert talk.say(1, control(8, struct.pack("!HHBB", 99, outer, 1, 0)))[12:16] == struct.pack("!HH", 99, 7)

    def out() -> None:
        assert lab.send("lan", gre(fam.lan, fam.wan, 99)) == [lab.down("wan", gre(fam.out, fam.wan, 99, 63))]

    def back() -> None:
        assert lab.send("wan", gre(fam.wan, fam.out, outer)) == [lab.down("lan", gre(fam.wan, fam.lan, 7, 63))]

    for step in ([out, back, out] if first == "client" else [back, out, back]):
        step()
    talk.say(1, control(13, struct.pack("!HBB", 99, 1, 0)))
    assert [out.port for out in lab.answered_by("wan", gre(fam.wan, fam.out, outer))] == ["wan"]  # unreachable


H245_OLC = "030000000c20138011140001000a0001051388000a0001051389"


def test_h245_channels(lab: Lab) -> None:
    """An openLogicalChannel request as H.245 encodes it, with addresses 10.0.1.5 put right."""
    fam = IP4
    lab.router.load(rules(fam, "Q.931", "tcp", 1720))
    talk = outward(lab, fam, 1720)
    inner = bytes.fromhex(H245_OLC).replace(bytes([10, 0, 1, 5]), f.addr(fam.lan))
    said = talk.say(0, call_signalling(fam, inner))
    assert f.addr(fam.lan) not in said
    talk.say(1, b"")
    for port in (5000, 5001):
        assert lab.send("wan", f.udp_packet(fam.wan, fam.out, 3000, port, b"rtp")) == [
            lab.down("lan", f.udp_packet(fam.wan, fam.lan, 3000, port, b"rtp", ttl=63))]
    [out] = lab.send("wan", f.tcp_packet(fam.wan, fam.out, 999, 4000))
    assert out.port == "lan"


def call_signalling(fam: Family, tunnelled: bytes) -> bytes:
    """A Q.931 SETUP with an H.245 address, a source address and tunnelled H.245."""
    codec = pytest.importorskip("pycrate_asn1dir.H225", reason="needs pycrate (extra h323)").H323_MESSAGES.H323_UserInformation

    def where(port: int) -> object:
        return "ipAddress", {"ip": f.addr(fam.lan), "port": port}

    setup = {
        "protocolIdentifier": (0, 0, 8, 2250, 0, 4), "h245Address": where(4000),
        "sourceInfo": {"mc": False, "undefinedNode": False}, "activeMC": False,
        "conferenceID": bytes(16), "conferenceGoal": ("create", 0), "callType": ("pointToPoint", 0),
        "sourceCallSignalAddress": where(40000), "callIdentifier": {"guid": bytes(16)}, "mediaWaitForConnect": False,
        "canOverlapSend": False}
    codec.set_val({"h323-uu-pdu": {"h323-message-body": ("setup", setup), "h245Tunnelling": True, "h245Control": [tunnelled]}})
    data = bytes(codec.to_aper())
    message = bytes([8, 2, 0, 1, 5, 0x28, 2, 65, 66, 0x7E]) + struct.pack("!HB", len(data) + 1, 5) + data
    return struct.pack("!BBH", 3, 0, len(message) + 4) + message
