"""Capture files: classic pcap and pcapng in, classic pcap out (draft-ietf-opsawg-pcap, draft-ietf-opsawg-pcapng).

Laws: a file is untrusted. Every length is checked before anything is read or allocated by it, a record larger than MAX_RECORD
ends the reading with CaptureError, and so does a file that stops in the middle of a record. Byte order is the file's own.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

MAX_RECORD = 1 << 20
LINKTYPE_ETHERNET = 1
LINKTYPE_RAW = 101
PCAP_MAGIC = {
    b"\xd4\xc3\xb2\xa1": ("<", 1000),
    b"\xa1\xb2\xc3\xd4": (">", 1000),
    b"\x4d\x3c\xb2\xa1": ("<", 1),
    b"\xa1\xb2\x3c\x4d": (">", 1),
}
SECTION = 0x0A0D0D0A


class CaptureError(ValueError):
    """What is wrong with a capture file."""


class Record(NamedTuple):
    """One captured frame: nanoseconds since 1970, link type, the bytes, and how long the frame was on the wire."""

    time_ns: int
    linktype: int
    frame: bytes
    length: int


def read_untrusted(stream: BinaryIO) -> Iterator[Record]:
    """Every record of a capture file of either kind. CaptureError where it is not one any more."""
    magic = stream.read(4)
    if magic in PCAP_MAGIC:
        return _classic(stream, *PCAP_MAGIC[magic])
    if magic == b"\n\r\r\n":
        return _next_generation(stream)
    raise CaptureError("neither pcap nor pcapng")


def _exactly(stream: BinaryIO, size: int) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise CaptureError("the file ends in the middle of a record")
    return data


def _classic(stream: BinaryIO, order: str, scale: int) -> Iterator[Record]:
    header = _exactly(stream, 20)
    linktype = struct.unpack_from(order + "I", header, 16)[0] & 0x0FFFFFFF
    while head := stream.read(16):
        if len(head) != 16:
            raise CaptureError("the file ends in the middle of a record")
        seconds, fraction, size, length = struct.unpack(order + "IIII", head)
        if size > MAX_RECORD:
            raise CaptureError(f"a record of {size} bytes")
        yield Record(seconds * 10**9 + fraction * scale, linktype, _exactly(stream, size), length)


class _Interface(NamedTuple):
    linktype: int
    resolution: int  # units a second
    offset: int  # seconds
    snaplen: int


def _next_generation(stream: BinaryIO) -> Iterator[Record]:
    order, interfaces = _section(stream)
    while head := stream.read(8):
        if len(head) != 8:
            raise CaptureError("the file ends in the middle of a block")
        if head[:4] == b"\n\r\r\n":
            order, interfaces = _section(stream, head[4:8])
            continue
        kind, size = struct.unpack(order + "II", head)
        if size < 12 or size & 3 or size > MAX_RECORD + 4096:
            raise CaptureError(f"a block of {size} bytes")
        body = _exactly(stream, size - 12)
        if struct.unpack(order + "I", _exactly(stream, 4))[0] != size:
            raise CaptureError("a block's two lengths differ")
        if kind == 1:
            interfaces.append(_interface(body, order))
        elif kind in (2, 3, 6):
            yield _packet(kind, body, order, interfaces)


def _section(stream: BinaryIO, length: bytes | None = None) -> tuple[str, list[_Interface]]:
    """The rest of a section header block, whose type was read (and its length, if given); the byte order from its magic."""
    raw = length if length is not None else _exactly(stream, 4)
    magic = _exactly(stream, 4)
    order = {b"\x4d\x3c\x2b\x1a": "<", b"\x1a\x2b\x3c\x4d": ">"}.get(magic)
    if order is None:
        raise CaptureError("a section without byte-order magic")
    size = struct.unpack(order + "I", raw)[0]
    if size < 28 or size & 3 or size > MAX_RECORD:
        raise CaptureError(f"a section header of {size} bytes")
    _exactly(stream, size - 12)
    return order, []


def _interface(body: bytes, order: str) -> _Interface:
    if len(body) < 8:
        raise CaptureError("an interface block that is too short")
    linktype, _, snaplen = struct.unpack_from(order + "HHI", body)
    resolution, offset, off = 10**6, 0, 8
    while off + 4 <= len(body):
        code, size = struct.unpack_from(order + "HH", body, off)
        value = body[off + 4 : off + 4 + size]
        if code == 0 or len(value) != size:
            break
        if code == 9 and size == 1:  # if_tsresol
            resolution = 2 ** (value[0] & 0x7F) if value[0] & 0x80 else 10 ** min(value[0], 18)
        elif code == 14 and size == 8:  # if_tsoffset
            offset = struct.unpack(order + "q", value)[0]
        off += 4 + ((size + 3) & ~3)
    return _Interface(linktype, resolution, offset, snaplen)


def _packet(kind: int, body: bytes, order: str, interfaces: list[_Interface]) -> Record:
    """Simple (3), enhanced (6) and obsolete (2) packet blocks."""
    if kind == 3:
        if len(body) < 4 or not interfaces:
            raise CaptureError("a packet block without an interface")
        length = struct.unpack_from(order + "I", body)[0]
        size = min(length, len(body) - 4, interfaces[0].snaplen or length)
        return Record(0, interfaces[0].linktype, body[4 : 4 + size], length)
    if len(body) < 20:
        raise CaptureError("a packet block that is too short")
    if kind == 6:
        index, high, low, size, length = struct.unpack_from(order + "IIIII", body)
    else:
        index, _, high, low, size, length = struct.unpack_from(order + "HHIIII", body)
    if index >= len(interfaces) or size > len(body) - 20:
        raise CaptureError("a packet block of an unknown interface, or longer than its block")
    interface = interfaces[index]
    units = (high << 32) | low
    time_ns = units * 10**9 // interface.resolution + interface.offset * 10**9
    return Record(time_ns, interface.linktype, body[20 : 20 + size], length)


class Writer:
    """A classic pcap file with nanoseconds, in this machine's byte order."""

    def __init__(self, stream: BinaryIO, linktype: int = LINKTYPE_ETHERNET) -> None:
        self.stream = stream
        stream.write(struct.pack("=IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, MAX_RECORD, linktype))

    def write(self, time_ns: int, frame: bytes) -> None:
        """Append one frame."""
        head = struct.pack("=IIII", time_ns // 10**9 & 0xFFFFFFFF, time_ns % 10**9, len(frame), len(frame))
        self.stream.write(head + frame)

    def flush(self) -> None:
        """Hand everything to the operating system."""
        self.stream.flush()

    def close(self) -> None:
        """Flush and close the file."""
        self.stream.close()
