"""Elements of sets between the checked tree and the bytes that the engine compares.

Laws:
- A key is what a packet's registers hold: each field of a concatenation padded to 4 bytes, numbers in their type's byte
  order. Interval sets compare bytes from the left, so their host-order numbers are turned round (the rule does the same).
- `decode_*` gives back the tree that `encode_*` would encode to the same bytes, in the form nft lists: value, prefix, range.
"""

from __future__ import annotations

from userfw.nft.datatype import BIG, HOST_IS, Datatype
from userfw.nft.datatype_tables import ConcatType
from userfw.nft.location import NOWHERE
from userfw.nft.syntax import CatchAllExpr, ConcatExpr, ConstantExpr, Expr, PrefixExpr, RangeExpr
from userfw.ruleset.elements import span_of

Key = tuple[bytes | None, bytes | None]


def parts_of(dtype: Datatype) -> tuple[Datatype, ...]:
    """The types of a key's fields."""
    return dtype.parts if isinstance(dtype, ConcatType) else (dtype,)


def padded(dtype: Datatype) -> int:
    """Bytes of a field in a concatenation."""
    return (dtype.octets + 3) // 4 * 4


def fields_of(dtype: Datatype) -> tuple[tuple[int, int], ...]:
    """(offset, length) of each field in a key; () for a key that is no concatenation."""
    if not isinstance(dtype, ConcatType):
        return ()
    result = []
    offset = 0
    for part in dtype.parts:
        result.append((offset, part.octets))
        offset += padded(part)
    return tuple(result)


def key_length(dtype: Datatype) -> int:
    """Bytes of a key."""
    return sum(padded(part) for part in dtype.parts) if isinstance(dtype, ConcatType) else dtype.octets


def _order(dtype: Datatype, interval: bool) -> str:
    return "big" if interval or dtype.byteorder == BIG else HOST_IS


def _scalar(value: int | bytes, dtype: Datatype, interval: bool) -> bytes:
    if isinstance(value, bytes):
        return value.ljust(dtype.octets, b"\0")[: dtype.octets]
    if dtype.is_string:
        return value.to_bytes(dtype.octets, "big")
    return value.to_bytes(dtype.octets, "big" if _order(dtype, interval) == "big" else "little")


def _bounds(expr: Expr, dtype: Datatype, interval: bool) -> tuple[bytes, bytes]:
    if isinstance(expr, ConstantExpr):
        value = _scalar(expr.value, dtype, interval)
        return value, value
    low, high = span_of(expr)
    return _scalar(low, dtype, interval), _scalar(high, dtype, interval)


def encode_key(expr: Expr, dtype: Datatype, interval: bool) -> Key:
    """(first, last) bytes of a key; (None, None) for the catch-all. Last is None where the set holds no ranges."""
    if isinstance(expr, CatchAllExpr):
        return None, None
    if isinstance(dtype, ConcatType):
        items = expr.items if isinstance(expr, ConcatExpr) else [expr]
        ends = [_bounds(item, part, interval) for item, part in zip(items, dtype.parts, strict=True)]
        low = b"".join(end[0].ljust(padded(part), b"\0") for end, part in zip(ends, dtype.parts, strict=True))
        high = b"".join(end[1].ljust(padded(part), b"\0") for end, part in zip(ends, dtype.parts, strict=True))
    else:
        low, high = _bounds(expr, dtype, interval)
    return low, high if interval else None


def _number(data: bytes, dtype: Datatype, interval: bool) -> int:
    return int.from_bytes(data, "big" if dtype.is_string or _order(dtype, interval) == "big" else "little")


def _field(low: bytes, high: bytes, dtype: Datatype, interval: bool) -> Expr:
    if low == high:
        value: int | bytes = low.rstrip(b"\0") if dtype.is_string else _number(low, dtype, interval)
        return ConstantExpr(value, dtype=dtype)
    first, last = _number(low, dtype, interval), _number(high, dtype, interval)
    size = last - first + 1
    if (dtype.prefix or dtype.is_string) and size & (size - 1) == 0 and first % size == 0:
        length = dtype.octets * 8 - size.bit_length() + 1
        base: int | bytes = low[: (length + 7) // 8] if dtype.is_string else first
        return PrefixExpr(ConstantExpr(base, dtype=dtype), length, dtype=dtype)
    return RangeExpr(ConstantExpr(first, dtype=dtype), ConstantExpr(last, dtype=dtype), dtype=dtype)


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


def encode_data(expr: Expr, dtype: Datatype, interval: bool) -> bytes:
    """The data of a map's element; with `interval` the first and the last value, one behind the other."""
    parts = parts_of(dtype)
    items = expr.items if isinstance(expr, ConcatExpr) else [expr]
    ends = [_bounds(item, part, False) for item, part in zip(items, parts, strict=True)]
    if not isinstance(dtype, ConcatType):
        return ends[0][0] + ends[0][1] if interval else ends[0][0]
    low = b"".join(end[0].ljust(padded(part), b"\0") for end, part in zip(ends, parts, strict=True))
    if not interval:
        return low
    return low + b"".join(end[1].ljust(padded(part), b"\0") for end, part in zip(ends, parts, strict=True))


def decode_data(data: bytes, dtype: Datatype, interval: bool) -> Expr:
    """The tree of a map's data."""
    size = key_length(dtype)
    high = data[size : 2 * size] if interval else None
    return decode_key(data[:size], high, dtype, False)
