"""Lowering sets: keys and data as bytes, as netlink carries them and registers hold them.

Laws:
- Fields of a concatenation are padded to 4 bytes. Keys of interval sets are in network order throughout, other keys as
  their types say; data always as its type says.
- An element covers ``key`` to ``key_end``, both included (``key_end`` None: one value; ``key`` None: all else).
- ``dump_set`` shows what nft sends: one-dimensional intervals as half-open bounds, concatenated ranges as pairs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from userfw.engine.const import (
    ELEM_CATCHALL,
    ELEM_INTERVAL_END,
    SET_ANONYMOUS,
    SET_CONCAT,
    SET_CONSTANT,
    SET_EVAL,
    SET_EXPR,
    SET_INTERVAL,
    SET_MAP,
    SET_OBJECT,
    SET_TIMEOUT,
)
from userfw.nft.check_context import fail
from userfw.nft.datatype import Datatype
from userfw.nft.datatype_tables import VERDICT, ConcatType
from userfw.nft.spans import bounds
from userfw.nft.syntax import CatchAllExpr, ConcatExpr, ConstantExpr, Expr, SetBlock, SetElemExpr, VerdictExpr

_FLAG_BITS = {"constant": SET_CONSTANT, "interval": SET_INTERVAL, "timeout": SET_TIMEOUT, "dynamic": SET_EVAL}


@dataclass(slots=True)
class LoweredElement:
    """One element; ``data`` is bytes, (verdict, chain) or the name of an object."""

    key: bytes | None
    key_end: bytes | None = None
    data: bytes | tuple[str, str] | str | None = None
    flags: int = 0
    node: SetElemExpr | None = None


@dataclass(slots=True)
class LoweredSet:
    """What the machine must know of a set. ``fields``: bytes of each field of a concatenation before padding, else empty.
    ``data_len``: 0 for sets, verdicts and objects."""

    name: str
    key_len: int
    data_len: int
    flags: int
    key_type: int
    data_type: int
    fields: tuple[int, ...] = ()
    objtype: str | None = None
    elements: list[LoweredElement] = field(default_factory=list)


def padded(octets: int) -> int:
    """Bytes that a field takes in a concatenation."""
    return (octets + 3) & ~3


def lower_set(block: SetBlock, *, anonymous: bool = False) -> LoweredSet:
    """A checked set without its elements."""
    dtype: Datatype = block.key_dtype
    flags = SET_ANONYMOUS if anonymous else 0
    for flag in block.flags:
        flags |= _FLAG_BITS[flag]
    if block.stmts:
        flags |= SET_EXPR
    fields: tuple[int, ...] = ()
    if isinstance(dtype, ConcatType):
        fields = tuple(part.octets for part in dtype.parts)
        if "interval" in block.flags:
            flags |= SET_CONCAT
    data_len, data_type = 0, 0
    if block.objtype is not None:
        flags |= SET_OBJECT
    elif block.is_map:
        flags |= SET_MAP
        data: Datatype = block.data_dtype
        data_type = data.id
        if data is not VERDICT:
            data_len = data.octets * (2 if block.data_interval else 1)
    return LoweredSet(block.name, dtype.octets, data_len, flags, dtype.id, data_type, fields, block.objtype)


def lower_elements(block: SetBlock, elements: list[SetElemExpr] | None = None) -> list[LoweredElement]:
    """The elements of a checked set (its own, or those given)."""
    dtype: Datatype = block.key_dtype
    nodes = block.elements if elements is None else elements
    if block.is_map or isinstance(dtype, ConcatType) or dtype.is_string:
        return [lower_element(block, node) for node in nodes]
    out = []
    interval = "interval" in block.flags
    order = "big" if interval or dtype.byteorder == "big" else "little"
    octets = dtype.octets
    for node in nodes:
        key = node.key
        if type(key) is ConstantExpr and type(key.value) is int:
            out.append(LoweredElement(key.value.to_bytes(octets, order), None, None, 0, node))  # type: ignore[arg-type]
        else:
            out.append(lower_element(block, node))
    return out


def lower_element(block: SetBlock, node: SetElemExpr) -> LoweredElement:
    """One element of a checked set."""
    data = None if node.data is None else encode_data(block, node.data)
    if isinstance(node.key, CatchAllExpr):
        return LoweredElement(None, None, data, ELEM_CATCHALL, node)
    low, high = encode_key(node.key, block.key_dtype, "interval" in block.flags)
    return LoweredElement(low, None if low == high else high, data, 0, node)


def encode_key(key: Expr, dtype: Datatype, interval: bool) -> tuple[bytes, bytes]:
    """First and last key that an expression covers."""
    if not isinstance(dtype, ConcatType):
        return _field(key, dtype, interval)
    if not isinstance(key, ConcatExpr):
        fail(key, "a concatenation is needed as key")
    low, high = b"", b""
    for item, part in zip(key.items, dtype.parts, strict=True):
        first, last = _field(item, part, interval)
        size = padded(part.octets)
        low += first.ljust(size, b"\0")
        high += last.ljust(size, b"\0") if last is not first else low[-size:]
    return low, high


def _field(key: Expr, dtype: Datatype, interval: bool) -> tuple[bytes, bytes]:
    if type(key) is ConstantExpr:
        value = key.value
        if isinstance(value, int) and interval:
            data = value.to_bytes(dtype.octets, "big")
        else:
            data = dtype.encode(value)
        return data, data
    low, high = bounds(key)
    order: Any = "big" if interval or dtype.is_string or dtype.byteorder == "big" else "little"
    return low.to_bytes(dtype.octets, order), high.to_bytes(dtype.octets, order)


def encode_data(block: SetBlock, data: Expr) -> bytes | tuple[str, str] | str:
    """The data of a map's element; with interval data, the first values and behind them the last ones."""
    if block.objtype is not None:
        assert isinstance(data, ConstantExpr) and isinstance(data.value, bytes)
        return data.value.decode()
    if isinstance(data, VerdictExpr):
        return data.kind, data.chain or ""
    dtype: Datatype = block.data_dtype
    low, high = encode_key(data, dtype, False)
    return low + high if block.data_interval else low


def half_open(elements: list[LoweredElement], octets: int) -> list[LoweredElement]:
    """One-dimensional intervals as nft sends them: where each begins and, unless another follows at once, where it ends."""
    rows = sorted((elem for elem in elements if elem.key is not None), key=lambda elem: elem.key or b"")
    out: list[LoweredElement] = []
    edge = 0
    top = 1 << (octets * 8)
    for elem in rows:
        assert elem.key is not None
        low = int.from_bytes(elem.key, "big")
        high = int.from_bytes(elem.key_end or elem.key, "big")
        if low > edge or (not out and low > 0):
            out.append(LoweredElement(edge.to_bytes(octets, "big"), None, None, ELEM_INTERVAL_END))
        out.append(LoweredElement(elem.key, None, elem.data, elem.flags, elem.node))
        edge = high + 1
    if rows and edge < top:
        out.append(LoweredElement(edge.to_bytes(octets, "big"), None, None, ELEM_INTERVAL_END))
    return out + [elem for elem in elements if elem.key is None]


def dump_set(block: SetBlock, table: str = "", *, anonymous: bool = True) -> list[str]:
    """The lines that ``nft --debug=netlink`` prints for a set and its elements."""
    lowered = lower_set(block, anonymous=anonymous)
    elements = lower_elements(block)
    if lowered.flags & SET_INTERVAL and not lowered.flags & SET_CONCAT:
        elements = half_open(elements, lowered.key_len)
    size = f" size {len(elements)}"
    pairs = bool(lowered.flags & SET_CONCAT)
    rows = "".join(f"\t{_show(elem, pairs)}" for elem in elements)
    return [f"{block.name} {table} {lowered.flags:x}{size}", f"{block.name} {table} 0", rows]


def _words(data: bytes) -> str:
    padded_data = data.ljust(padded(len(data)), b"\0")
    return " ".join(f"{int.from_bytes(padded_data[i : i + 4], 'little'):08x}" for i in range(0, len(padded_data), 4))


def _show(elem: LoweredElement, pairs: bool) -> str:
    key = "" if elem.key is None else _words(elem.key) + " "
    if elem.key is not None and pairs:
        key += f" - {_words(elem.key_end or elem.key)} "
    data = ""
    if isinstance(elem.data, tuple):
        kind, chain = elem.data
        data = f"{kind} -> {chain} " if chain else f"{kind} "
    elif isinstance(elem.data, bytes):
        data = _words(elem.data) + " "
    return f"element {key} : {data}{elem.flags} [end]"
