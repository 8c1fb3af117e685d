"""Messages of nflog groups as a capture file: pcap of link type NFLOG, which tcpdump and Wireshark read.

    header: address family u8, version 0 u8, group u16 in network order;
    then attributes: length u16, type u16 (host order), padded to 4
    (https://www.tcpdump.org/linktypes/LINKTYPE_NFLOG.html)
"""

from __future__ import annotations

import base64
import struct
from typing import Any, BinaryIO

LINKTYPE_NFLOG = 239
SNAPLEN = 1 << 17

# Linux: enum nfulnl_attr_type
PACKET_HDR, MARK, TIMESTAMP, IFINDEX_INDEV, IFINDEX_OUTDEV = 1, 2, 3, 4, 5
HWADDR, PAYLOAD, PREFIX, UID, SEQ, GID, HWHEADER, HWLEN = 8, 9, 10, 11, 12, 14, 16, 17
NUMBERS = ((IFINDEX_INDEV, "iifindex"), (IFINDEX_OUTDEV, "oifindex"), (MARK, "mark"), (UID, "uid"), (GID, "gid"), (SEQ, "seq"))


class NflogWriter:
    """Writes events of the daemon's `log` command into a capture."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.written = file.write(struct.pack("=IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, SNAPLEN, LINKTYPE_NFLOG))
        file.flush()

    def write(self, event: dict[str, Any]) -> None:
        """One message. OSError."""
        data = record(event)
        seconds = int(event["time"])
        head = struct.pack("=IIII", seconds, int((event["time"] - seconds) * 1e6), len(data), len(data))
        self.written += self.file.write(head + data)
        self.file.flush()


def record(event: dict[str, Any]) -> bytes:
    """One message as the link type has it."""
    seconds = int(event["time"])
    micros = int((event["time"] - seconds) * 1e6)
    parts = [struct.pack("!BBH", event["family"] & 0xFF, 0, event["group"] & 0xFFFF)]
    parts.append(_attribute(PACKET_HDR, struct.pack("!HBx", event["protocol"], event["hook"])))
    parts.append(_attribute(PREFIX, event["prefix"].encode() + b"\0"))
    for kind, key in NUMBERS:
        if event.get(key) or kind == SEQ:
            parts.append(_attribute(kind, struct.pack("!I", event.get(key, 0))))
    parts.append(_attribute(TIMESTAMP, struct.pack("!QQ", seconds, micros)))
    link = bytes.fromhex(event.get("link", ""))
    if link:
        parts.append(_attribute(HWADDR, struct.pack("!HH", 6, 0) + link[6:12] + b"\0\0"))
        parts.append(_attribute(HWHEADER, link))
        parts.append(_attribute(HWLEN, struct.pack("!H", len(link))))
    parts.append(_attribute(PAYLOAD, base64.b64decode(event["packet"])))
    return b"".join(parts)


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)
