"""SIP and SDP as text: where the headers, addresses and parameters of a message stand (RFC 3261, RFC 4566; Linux: ct_sip_*).

Laws: nothing here believes a name that is not an address: host names are passed over. Places are offsets into `Message.text`, good
until the next `splice`; whoever splices searches again. Ports below 1024 are refused, as Linux does.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import NamedTuple

Halves = tuple[int, int]

SIP_PORT = 5060
_IP = rb"(\d{1,3}(?:\.\d{1,3}){3}|\[[0-9A-Fa-f:.]{2,45}\])"
_ANY_IP = rb"\d{1,3}(?:\.\d{1,3}){3}|\[?[0-9A-Fa-f:.]{2,45}\]?"
_HEAD = rb"(?:\r\n|\r|\n)(?:%s)[ \t]*:[ \t]*((?:[^\r\n]|(?:\r\n|\r|\n)[ \t])*)"
_NAMES = {
    "cseq": rb"CSeq",
    "from": rb"From|f",
    "to": rb"To|t",
    "contact": rb"Contact|m",
    "via": rb"Via|v",
    "expires": rb"Expires",
    "content-length": rb"Content-Length|l",
}
_HEADERS = {name: re.compile(_HEAD % names, re.I) for name, names in _NAMES.items()}
_URI = re.compile(rb"sip:(?:[^@\r\n<>,]*@)?" + _IP + rb"(?::(\d{1,5}))?", re.I)
_VIA = {17: re.compile(rb"UDP +" + _IP + rb"(?::(\d{1,5}))?", re.I), 6: re.compile(rb"TCP +" + _IP + rb"(?::(\d{1,5}))?", re.I)}
_REQUEST = re.compile(rb"[A-Z]+ +sip:(?:[^@\r\n ]*@)?" + _IP + rb"(?::(\d{1,5}))?", re.I)
_SDP_IP = rb"IN IP[46] +(\d{1,3}(?:\.\d{1,3}){3}|[0-9A-Fa-f:.]{2,45})"
_CONNECTION = re.compile(rb"(?:\r\n|\r|\n)c=" + _SDP_IP, re.I)
_OWNER = re.compile(rb"(?:\r\n|\r|\n)o=[^\r\n]*? " + _SDP_IP, re.I)
_MEDIA = re.compile(rb"(?:\r\n|\r|\n)m=([a-z]+) +(\d{1,5})", re.I)
_END = b"\r\n\r\n"


class Place(NamedTuple):
    """`text[start:end]` says `address` (hi, lo) and `port` (0 where none can stand)."""

    start: int
    end: int
    address: Halves
    port: int


class Media(NamedTuple):
    """One m= line: its kind (audio, video, …), its port, where the port stands and where the description ends."""

    kind: str
    port: int
    start: int
    end: int
    until: int


class Message:
    """One message in hand; `l3num` and `l4proto` are those of the connection that carries it."""

    def __init__(self, text: bytes, l3num: int, l4proto: int) -> None:
        self.text = text
        self.l3num = l3num
        self.l4proto = l4proto

    @property
    def request(self) -> bool:
        """Whether it asks; else it answers."""
        return self.text[:8].upper() != b"SIP/2.0 "

    def splice(self, start: int, end: int, text: bytes) -> None:
        """Replace `text[start:end]`."""
        self.text = self.text[:start] + text + self.text[end:]

    def head_end(self) -> int:
        """Where the headers end."""
        at = self.text.find(_END)
        return len(self.text) if at < 0 else at + 2

    def headers(self, name: str) -> Iterator[re.Match[bytes]]:
        """All headers of a name, by its long or compact form; group 1 is the value."""
        return _HEADERS[name].finditer(self.text, 0, self.head_end())

    def number(self, name: str) -> int | None:
        """The number that a header begins with."""
        for header in self.headers(name):
            match = re.match(rb"\d{1,10}", header[1])
            if match:
                return int(match[0])
        return None

    def method(self) -> str:
        """The method: of a request its first word, of an answer the one that CSeq names; upper case."""
        if self.request:
            return self.text[:32].split(b" ", 1)[0].decode("latin-1").upper()
        for header in self.headers("cseq"):
            match = re.match(rb"\d+\s+([A-Za-z]+)", header[1])
            if match:
                return match[1].decode().upper()
        return ""

    def code(self) -> int:
        """Status code of an answer, 0 if it has none."""
        match = re.match(rb"\d{3}", self.text[8:11])
        return int(match[0]) if match else 0

    def place(self, match: re.Match[bytes] | None) -> Place | None:
        """The address and port that a match of one of the patterns above found, if the connection could use them."""
        if match is None:
            return None
        address = self.address(match[1])
        port = int(match[2]) if match[2] else SIP_PORT
        if address is None or not 1024 <= port <= 65535:
            return None
        return Place(match.start(1), match.end(2) if match[2] else match.end(1), address, port)

    def address(self, text: bytes) -> Halves | None:
        """(hi, lo) of a textual address of the connection's own family."""
        try:
            found = ipaddress.ip_address(text.strip(b"[]").decode())
        except ValueError:
            return None
        if (found.version == 4) != (self.l3num == 2):
            return None
        return int(found) >> 64, int(found) & (1 << 64) - 1

    def uri_of_request(self) -> Place | None:
        """The address that the request line names."""
        return self.place(_REQUEST.match(self.text))

    def uris(self, name: str, start: int = 0) -> Iterator[Place]:
        """Addresses in the SIP URIs of From, To or Contact headers, from offset `start` on."""
        for header in self.headers(name):
            for match in _URI.finditer(self.text, max(header.start(1), start), header.end(1)):
                place = self.place(match)
                if place is not None:
                    yield place

    def via(self) -> Place | None:
        """The address of the topmost Via header."""
        for header in self.headers("via"):
            return self.place(_VIA[self.l4proto].search(self.text, header.start(1), header.end(1)))
        return None

    def _line_end(self, start: int, stop: bytes) -> int:
        match = re.compile(rb"[\r\n" + stop + rb"]").search(self.text, start)
        return match.start() if match else len(self.text)

    def address_parameter(self, start: int, name: bytes) -> Place | None:
        """`;name=ADDRESS` behind offset `start` in the same header."""
        match = re.compile(re.escape(name) + rb"=(" + _ANY_IP + rb")", re.I).search(self.text, start, self._line_end(start, b","))
        address = self.address(match[1]) if match else None
        return None if match is None or address is None else Place(match.start(1), match.end(1), address, 0)

    def number_parameter(self, start: int, name: bytes) -> tuple[int, int, int] | None:
        """(number, start, end) of `;name=NUMBER` behind offset `start` in the same header."""
        match = re.compile(re.escape(name) + rb"=(\d{1,10})", re.I).search(self.text, start, self._line_end(start, b","))
        return None if match is None else (int(match[1]), match.start(1), match.end(1))

    def transport(self, start: int) -> int | None:
        """The protocol of a contact: what `;transport=` says, else the connection's; None if it is neither TCP nor UDP."""
        match = re.compile(rb"transport=([A-Za-z0-9]+)", re.I).search(self.text, start, self._line_end(start, b","))
        if match is None:
            return self.l4proto
        return {b"TCP": 6, b"UDP": 17}.get(match[1].upper())

    # -- SDP

    def sdp(self) -> int:
        """Where the session description begins, or -1."""
        match = re.compile(rb"(?:\r\n|\r|\n)v=").search(self.text, max(self.head_end() - 2, 0))
        return match.start() if match else -1

    def medias(self, start: int) -> list[Media]:
        """The media descriptions behind offset `start`."""
        found = list(_MEDIA.finditer(self.text, start))
        ends = [*(match.start() for match in found[1:]), len(self.text)][: len(found)]
        return [
            Media(match[1].decode().lower(), int(match[2]), match.start(2), match.end(2), until)
            for match, until in zip(found, ends, strict=True)
        ]

    def connection(self, start: int, end: int) -> Place | None:
        """The c= line between two offsets."""
        return self._sdp_place(_CONNECTION.search(self.text, start, end))

    def owner(self, start: int, end: int) -> Place | None:
        """The o= line between two offsets."""
        return self._sdp_place(_OWNER.search(self.text, start, end))

    def _sdp_place(self, match: re.Match[bytes] | None) -> Place | None:
        address = self.address(match[1]) if match else None
        return None if match is None or address is None else Place(match.start(1), match.end(1), address, 0)

    def fix_length(self) -> None:
        """Make Content-Length the length of what follows the headers."""
        at = self.text.find(_END)
        if at < 0:
            return
        body = len(self.text) - at - 4
        for header in self.headers("content-length"):
            match = re.compile(rb"\d+").match(self.text, header.start(1))
            if match:
                self.splice(match.start(), match.end(), str(body).encode())
            return


def split(text: bytes, l3num: int) -> tuple[list[Message], bytes]:
    """The whole messages in a TCP segment, and what is left behind them (Linux: sip_help_tcp)."""
    found: list[Message] = []
    while text:
        message = Message(text, l3num, 6)
        length, head = message.number("content-length"), text.find(_END)
        if length is None or head < 0 or head + 4 + length > len(text):
            break
        found.append(Message(text[: head + 4 + length], l3num, 6))
        text = text[head + 4 + length :]
    return found, text


def write(address: Halves, l3num: int, port: int | None = None) -> bytes:
    """An address as URIs have it (IPv6 in brackets), with a port if given."""
    if l3num == 2:
        host = str(ipaddress.IPv4Address(address[1]))
    else:
        host = str(ipaddress.IPv6Address(address[0] << 64 | address[1]))
        host = f"[{host}]"
    return (host if port is None else f"{host}:{port}").encode()
