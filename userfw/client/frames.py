"""Frames of the queue socket: a length, a header in JSON, and bytes (docs/queue.md).

    u32 length of what follows | u16 length of the header | header | payload          (numbers in network order)

Laws: `Decoder.feed_untrusted` takes bytes as they come and gives whole frames; a frame that breaks the rules is a FrameError, after
which the connection is of no use.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from typing import Any

PROTOCOL = 1
MAX_FRAME = 1 << 17
_HEAD = struct.Struct("!IH")

Frame = tuple[dict[str, Any], bytes]


class FrameError(Exception):
    """The other side does not speak this protocol."""


def encode(header: dict[str, Any], payload: bytes = b"") -> bytes:
    """One frame."""
    text = json.dumps(header, separators=(",", ":")).encode()
    return _HEAD.pack(2 + len(text) + len(payload), len(text)) + text + payload


class Decoder:
    """Bytes to frames."""

    def __init__(self) -> None:
        self.buffer = bytearray()

    def feed_untrusted(self, data: bytes) -> Iterator[Frame]:
        """The frames that are whole with `data`. FrameError."""
        self.buffer += data
        at = 0
        try:
            while len(self.buffer) - at >= _HEAD.size:
                length, size = _HEAD.unpack_from(self.buffer, at)
                if not 2 + size <= length <= MAX_FRAME:
                    raise FrameError(f"a frame of {length} bytes with a header of {size}")
                if len(self.buffer) - at < 4 + length:
                    break
                begin = at + _HEAD.size
                at += 4 + length
                yield _header(bytes(self.buffer[begin : begin + size])), bytes(self.buffer[begin + size : at])
        finally:
            del self.buffer[:at]


def _header(text: bytes) -> dict[str, Any]:
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FrameError(f"a header that is not JSON: {error}") from None
    if not isinstance(header, dict):
        raise FrameError("a header that is no object")
    return header
