"""From the bytes that the engine compares back to checked trees: elements that packets added, listed as nft does.

Law: `decode_key` and `decode_data` give the tree that `nft.lower_set` encodes to the same bytes, in the form nft lists:
value, prefix, range.
"""

from __future__ import annotations

from userfw.nft.datatype import BIG, HOST_IS, Datatype
from userfw.nft.datatype_tables import ConcatType
from userfw.nft.location import NOWHERE
from userfw.nft.lower_set import padded
from userfw.nft.spans import span
from userfw.nft.syntax import CatchAllExpr, ConcatExpr, ConstantExpr, Expr, PrefixExpr


def fields_of(dtype: Datatype) -> tuple[tuple[int, int], ...]:
    """(offset, length) of each field in a key; () for a key that is no concatenation."""
    if not isinstance(dtype, ConcatType):
        return ()
    result = []
    offset = 0
    for part in dtype.parts:
        result.append((offset, part.octets))
        offset += padded(part.octets)
    return tuple(result)


def key_length(dtype: Datatype) -> int:
    """Bytes of a key."""
    return sum(padded(part.octets) for part in dtype.parts) if isinstance(dtype, ConcatType) else dtype.octets


def _order(dtype: Datatype, interval: bool) -> str:
    return "big" if interval or dtype.byteorder == BIG else HOST_IS


def _number(data: bytes, dtype: Datatype, interval: bool) -> int:
    return int.from_bytes(data, "big" if dtype.is_string or _order(dtype, interval) == "big" else "little")


def _field(low: bytes, high: bytes, dtype: Datatype, interval: bool) -> Expr:
    if low == high:
        value: int | bytes = low.rstrip(b"\0") if dtype.is_string else _number(low, dtype, interval)
        return ConstantExpr(value, dtype=dtype)
    first, last = _number(low, dtype, interval), _number(high, dtype, interval)
    size = last - first + 1
    if dtype.is_string and size & (size - 1) == 0 and first % size == 0:
        length = dtype.octets * 8 - size.bit_length() + 1
        return PrefixExpr(ConstantExpr(low[: (length + 7) // 8], dtype=dtype), length, dtype=dtype)
    return span(first, last, dtype, NOWHERE)


def decode_key(low: bytes | None, high: bytes | None, dtype: Datatype, interval: bool) -> Expr:
    """The tree of a key."""
    if low is None:
        return CatchAllExpr(dtype=dtype, loc=NOWHERE)
    high = low if high is None else high
    if not isinstance(dtype, ConcatType):
        return _field(low, high, dtype, interval)
    items = []
    for (offset, length), part in zip(fields_of(dtype), dtype.parts, strict=True):
        items.append(_field(low[offset : offset + length], high[offset : offset + length], part, interval))
    return ConcatExpr(items, dtype=dtype)


def decode_data(data: bytes, dtype: Datatype, interval: bool) -> Expr:
    """The tree of a map's data."""
    size = key_length(dtype)
    high = data[size : 2 * size] if interval else None
    return decode_key(data[:size], high, dtype, False)
