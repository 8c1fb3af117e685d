"""H.225.0 and H.245 on the wire: which transport addresses a message names, by what path, and where they stand (ITU-T X.691,
aligned PER).

Laws: decoding is pycrate's (package extra `h323`); what it cannot decode names nothing. PER puts addresses and ports on whole
octets in the order of the decoded value, so each is found by searching its octets behind the one before, and can be overwritten
in place: no message ever changes its length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

Halves = tuple[int, int]
Decode = Callable[[bytes], Any]

TPKT, Q931, USER_USER = 3, 8, 0x7E


class Found(NamedTuple):
    """A transport address: the names that lead to it, address (hi, lo), port, offset and size of the address in the payload; the
    port follows it."""

    path: tuple[str, ...]
    address: Halves
    port: int
    offset: int
    size: int


class Decoders:
    """pycrate's codecs. ImportError says what to install."""

    def __init__(self) -> None:
        try:
            from pycrate_asn1dir import H225, H245
        except ImportError:
            raise ImportError("it needs the Python package pycrate (extra h323 of userfw)") from None
        control = H245.MULTIMEDIA_SYSTEM_CONTROL
        self.user_information = _decoder(H225.H323_MESSAGES.H323_UserInformation)
        self.ras = _decoder(H225.H323_MESSAGES.RasMessage)
        self.h245 = _decoder(control.MultimediaSystemControlMessage)
        self.channel = _decoder(control.OpenLogicalChannel)

    def find(self, decode: Decode, data: bytes, start: int, end: int, l3num: int) -> tuple[Any, list[Found]]:
        """The decoded value of `data[start:end]` (None: not decodable), and the addresses in it of the family `l3num`."""
        value = decode(data[start:end])
        return value, [] if value is None else list(self._walk(value, (), data, [start, end], l3num))

    def _walk(self, value: Any, path: tuple[str, ...], data: bytes, window: list[int], l3num: int) -> Iterator[Found]:
        """`window`: where to search; its start moves on with what is found."""
        if isinstance(value, dict):
            for name, part in value.items():
                yield from self._walk(part, (*path, name), data, window, l3num)
        elif isinstance(value, list):
            for part in value:
                yield from self._walk(part, path, data, window, l3num)
        elif isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str):
            address = _transport(value, l3num)
            if address is None:
                yield from self._walk(value[1], (*path, value[0]), data, window, l3num)
                return
            text, port = address
            at = data.find(text + port.to_bytes(2, "big"), window[0], window[1])
            if at >= 0:
                window[0] = at + len(text) + 2
                number = int.from_bytes(text, "big")
                yield Found(path, (number >> 64, number & (1 << 64) - 1), port, at, len(text))
        elif isinstance(value, bytes) and path[-1:] in (("fastStart",), ("h245Control",)):
            at = data.find(value, window[0], window[1])
            if at >= 0:
                inner = self.channel(value) if path[-1] == "fastStart" else self.h245(value)
                if inner is not None:
                    yield from self._walk(inner, path, data, [at, at + len(value)], l3num)
                window[0] = at + len(value)


def _decoder(codec: Any) -> Decode:
    def decode(data: bytes) -> Any:
        try:
            codec.from_aper(data)
            return codec.get_val()
        except Exception:  # a decoder that is not ours, on bytes of anybody: whatever it raises, they say nothing
            return None

    return decode


def _transport(value: tuple[str, Any], l3num: int) -> tuple[bytes, int] | None:
    """(address octets, port) if `value` is a transport address of the family: H.225.0's or H.245's."""
    name, part = value
    if not isinstance(part, dict) or name not in (("ipAddress", "iPAddress") if l3num == 2 else ("ip6Address", "iP6Address")):
        return None
    address, port = part.get("ip", part.get("network")), part.get("port", part.get("tsapIdentifier"))
    if isinstance(address, bytes) and isinstance(port, int):
        return address, port
    return None


def user_user(data: bytes, start: int, end: int) -> tuple[int, int] | None:
    """Where the H.225.0 part of a Q.931 message stands: the user-user element, less its protocol discriminator."""
    if end - start < 4 or data[start] != Q931:
        return None
    at = start + 2 + data[start + 1] + 1
    while at + 3 <= end:
        if data[at] == USER_USER:
            length = data[at + 1] << 8 | data[at + 2]
            return (at + 4, at + 3 + length) if length and at + 3 + length <= end else None
        at += 1 if data[at] & 0x80 else 2 + data[at + 1]
    return None


def units(data: bytes, pending: int) -> tuple[list[tuple[int, int]], int]:
    """The whole TPKT units (RFC 1006) of a segment as (start, end) of their contents, and the length that a header at the
    segment's end promises.

    `pending`: that length from the segment before, 0 if there was none.
    """
    if pending:
        return ([(0, pending)] if len(data) >= pending else []), 0
    found: list[tuple[int, int]] = []
    at = 0
    while at + 4 <= len(data) and data[at] == TPKT and data[at + 1] == 0:
        length = data[at + 2] << 8 | data[at + 3]
        if length < 4:
            break
        if at + length > len(data):
            return found, length - 4 if at + 4 == len(data) else 0
        found.append((at + 4, at + length))
        at += length
    return found, 0
