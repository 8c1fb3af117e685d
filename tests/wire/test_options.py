"""Walking TCP options: whatever the bytes, nothing beyond the end is read and the walk ends."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from userfw.core.packet import Packet
from userfw.wire.options import next_option


def walk(data: bytes) -> list[tuple[int, int]]:
    """(kind, length) of every option found."""
    pkt = Packet()
    pkt.load_frame(data + b"\xff" * 40)
    start = pkt.start
    found, at = [], next_option(pkt, start, start + len(data))
    while at >= 0:
        found.append((pkt.get8(at), pkt.get8(at + 1)))
        assert start <= at and at + found[-1][1] <= start + len(data)
        at = next_option(pkt, at + found[-1][1], start + len(data))
    return found


def test_padding_is_passed_over_and_the_end_is_the_end() -> None:
    assert walk(b"\x01\x01\x02\x04\x05\xb4\x01\x03\x03\x07\x00\x04\x02") == [(2, 4), (3, 3)]
    assert walk(b"") == walk(b"\x02") == walk(b"\x01") == walk(b"\x00\x02\x04\x05\xb4") == []
    assert walk(b"\x02\x01\x00\x00") == walk(b"\x02\x05\x05\xb4") == []


@given(st.binary(max_size=40))
def test_any_bytes(data: bytes) -> None:
    assert sum(size for _, size in walk(data)) <= len(data)
