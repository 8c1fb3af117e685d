"""The listed form of values and matches.

Laws:
- Bits: a test of bits lists ``a,b``; a comparison of masked bits ``a | b``; elements ``a | b``; a plain comparison of a
  header field stays a number, of a meta or ct key ``a | b`` (nft: relational_binop_postprocess).
- A range that is a prefix lists as one, for addresses; a prefix of a number in host order lists as mask and comparison.
- ``named_field`` gives raw header fields their names, and splits one that covers several.
"""

from __future__ import annotations

from collections.abc import Sequence

from userfw.nft import proto
from userfw.nft.check_context import ProtoContext
from userfw.nft.datatype import BIG, HOST_IS, Datatype
from userfw.nft.datatype_tables import BOOLEAN
from userfw.nft.spans import bounds, span
from userfw.nft.syntax import (
    BinopExpr,
    CatchAllExpr,
    ConcatExpr,
    ConstantExpr,
    CtExpr,
    Expr,
    FibExpr,
    ListExpr,
    MetaExpr,
    PayloadExpr,
    PrefixExpr,
    RangeExpr,
    RawPayloadExpr,
    RelationalExpr,
    SetElemExpr,
    SetExpr,
    SetRefExpr,
    TcpOptionExpr,
    TypeofExpr,
    UnaryExpr,
)


def bits_of(value: ConstantExpr) -> list[ConstantExpr] | None:
    """The single bits of a bitmask value that has several, lowest first; None of others."""
    dtype: Datatype = value.dtype
    number = value.value
    if not dtype.is_bitmask or not isinstance(number, int) or number & (number - 1) == 0:
        return None
    if dtype.symbols and number & ~sum(dtype.values):
        return None
    return [ConstantExpr(1 << bit, loc=value.loc, dtype=dtype) for bit in range(number.bit_length()) if number >> bit & 1]


def joined(value: Expr) -> Expr:
    """A bitmask value as ``a | b``."""
    parts = bits_of(value) if isinstance(value, ConstantExpr) else None
    if parts is None:
        return value
    result: Expr = parts[0]
    for part in parts[1:]:
        result = BinopExpr("|", result, part, loc=value.loc, dtype=value.dtype)
    return result


def listed(value: ConstantExpr) -> Expr:
    """A bitmask value as ``a,b``."""
    parts = bits_of(value)
    return value if parts is None else ListExpr(list(parts), loc=value.loc, dtype=value.dtype)


def listed_value(expr: Expr) -> Expr:
    """A value or load in a statement."""
    if isinstance(expr, ConstantExpr):
        return listed(expr)
    if isinstance(expr, RangeExpr):
        return _range(expr)
    if isinstance(expr, BinopExpr):
        right = joined(expr.right) if isinstance(expr.right, ConstantExpr) and expr.op in "&|^" else listed_value(expr.right)
        left = listed_value(expr.left)
        if expr.op == "|" and isinstance(right, BinopExpr):
            return _chain(left, right, expr)
        return BinopExpr(expr.op, left, right, loc=expr.loc, dtype=expr.dtype, width=expr.width)
    if isinstance(expr, CtExpr):
        return _ct(expr)
    return expr


def _chain(left: Expr, right: BinopExpr, expr: BinopExpr) -> Expr:
    """``x | (a | b)`` without its brackets."""
    parts: list[Expr] = []
    rest: Expr = right
    while isinstance(rest, BinopExpr) and rest.op == "|":
        parts.append(rest.right)
        rest = rest.left
    parts.append(rest)
    for part in reversed(parts):
        left = BinopExpr("|", left, part, loc=expr.loc, dtype=expr.dtype, width=expr.width)
    return left


def _ct(expr: CtExpr) -> CtExpr:
    """Addresses of a connection list with their family."""
    if expr.key in ("saddr", "daddr") and expr.family is None:
        family = "ip6" if expr.dtype.width == 128 else "ip"
        return CtExpr(expr.key, expr.direction, family, True, loc=expr.loc, dtype=expr.dtype)
    if expr.key in ("protocol", "l3proto") and expr.direction is not None:
        return CtExpr(expr.key, None, None, loc=expr.loc, dtype=expr.dtype)
    return expr


def _range(expr: RangeExpr) -> Expr:
    dtype: Datatype = expr.dtype
    if not dtype.prefix:
        return expr
    low, high = bounds(expr)
    return span(low, high, dtype, expr.loc)


def listed_key(key: Expr) -> Expr:
    """An element's key."""
    if isinstance(key, ConstantExpr):
        return joined(key)
    if isinstance(key, RangeExpr):
        return _range(key)
    if isinstance(key, PrefixExpr):
        dtype: Datatype = key.dtype
        if dtype.prefix or dtype.is_string:
            return key
        low, high = bounds(key)
        return span(low, high, dtype, key.loc)
    if isinstance(key, ConcatExpr):
        return ConcatExpr([listed_key(item) for item in key.items], loc=key.loc, dtype=key.dtype)
    return key


def listed_element(elem: SetElemExpr, *, is_map: bool = False, interval_data: bool = False) -> SetElemExpr:
    """An element of an anonymous set."""
    data = elem.data
    if data is not None:
        if interval_data and isinstance(data, ConstantExpr):
            data = PrefixExpr(data, data.dtype.width, loc=data.loc, dtype=data.dtype)
        elif isinstance(data, ConstantExpr | RangeExpr | ConcatExpr):
            data = listed_key(data)
    return SetElemExpr(
        listed_key(elem.key), data, elem.stmts, elem.timeout, elem.expires, elem.comment, loc=elem.loc, dtype=elem.dtype
    )


def listing_order(elements: Sequence[SetElemExpr]) -> Sequence[SetElemExpr]:
    """Elements in the order of a listing: by value; concatenations as they are (nft: list_expr_sort).

    Strings count as numbers in host order, so that shorter ones come first.
    """
    keys = []
    for elem in elements:
        key = elem.key
        if isinstance(key, RangeExpr):
            key = key.left
        elif isinstance(key, PrefixExpr):
            key = key.expr
        if isinstance(key, ConstantExpr):
            value = key.value
            keys.append((0, value if isinstance(value, int) else int.from_bytes(value, HOST_IS)))
        elif isinstance(key, CatchAllExpr):
            keys.append((1, 0))
        else:
            return elements
    order = sorted(range(len(elements)), key=keys.__getitem__)
    return [elements[index] for index in order]


def listed_relational(expr: RelationalExpr) -> RelationalExpr:
    """A match as it is listed."""
    left, right, op = expr.left, expr.right, expr.op
    if isinstance(left, BinopExpr) and _turned(left, right):
        # nft's own left side is a byte order step here, and before one it writes no ``==``
        inner = _listed_relational(expr)
        return RelationalExpr(op, UnaryExpr("hton", inner.left, loc=left.loc, dtype=left.dtype), inner.right, loc=expr.loc)
    return _listed_relational(expr)


def _turned(left: BinopExpr, right: Expr) -> bool:
    """Whether a number in host order is compared with ranges."""
    dtype: Datatype = left.dtype
    if dtype.byteorder == BIG or dtype.octets < 2:
        return False
    if isinstance(right, SetRefExpr):
        return "interval" in right.target.flags
    if isinstance(right, SetExpr):
        return any(isinstance(elem.key, RangeExpr | PrefixExpr) for elem in right.elements)
    return isinstance(right, RangeExpr)


def _listed_relational(expr: RelationalExpr) -> RelationalExpr:
    left, right, op = expr.left, expr.right, expr.op
    if isinstance(right, SetExpr):
        elements = [listed_element(elem) for elem in listing_order(right.elements)]
        return RelationalExpr(op, _left(left), SetExpr(elements, loc=right.loc, dtype=right.dtype), loc=expr.loc)
    if isinstance(left, BinopExpr) and left.op == "&" and isinstance(left.right, ConstantExpr):
        return _masked(expr, left, left.right)
    if op == "!=" and isinstance(right, RangeExpr) and isinstance(left, MetaExpr) and left.key == "hour":
        around = RangeExpr(right.right, right.left, loc=right.loc, dtype=right.dtype)
        return RelationalExpr("==", left, around, loc=expr.loc)
    if isinstance(right, PrefixExpr):
        return _prefix(expr, right)
    if isinstance(right, ConstantExpr):
        if isinstance(left, RawPayloadExpr) and left.base != "ih" and (left.offset % 8 or left.width % 8):
            return _raw_bits(expr, left, right)
        if op in ("", "!"):
            return RelationalExpr(op, _left(left), listed(right), loc=expr.loc)
        if isinstance(left, MetaExpr | CtExpr):
            return RelationalExpr(op, _left(left), joined(right), loc=expr.loc)
        if isinstance(left, FibExpr) and right.dtype is BOOLEAN and left.result == "oif":
            return RelationalExpr(op, FibExpr(left.flags, "check", loc=left.loc, dtype=BOOLEAN), right, loc=expr.loc)
    return RelationalExpr(op, _left(left), right, loc=expr.loc)


def _left(left: Expr) -> Expr:
    if isinstance(left, BinopExpr):
        return listed_value(left)
    if isinstance(left, CtExpr):
        return _ct(left)
    if isinstance(left, ConcatExpr):
        return ConcatExpr([_left(item) for item in left.items], loc=left.loc, dtype=left.dtype)
    if isinstance(left, TcpOptionExpr):
        return left
    return left


def _masked(expr: RelationalExpr, left: BinopExpr, mask: ConstantExpr) -> RelationalExpr:
    """``x & mask == value``: bit tests, prefixes and whole fields have shorter forms."""
    right, op, dtype = expr.right, expr.op, mask.dtype
    bits = mask.value
    assert isinstance(bits, int)
    base = left.left
    if isinstance(right, ConstantExpr) and op in ("==", "!="):
        if dtype.is_bitmask and right.value == 0:
            return RelationalExpr("" if op == "!=" else "!", _left(base), listed(mask), loc=expr.loc)
        width = dtype.width
        if bits == (1 << width) - 1 and width % 8 == 0:
            return RelationalExpr(op, _left(base), right, loc=expr.loc)
        ones = bits.bit_count()
        if dtype.prefix and bits == ((1 << ones) - 1) << (width - ones):
            prefix = PrefixExpr(right, ones, loc=right.loc, dtype=dtype)
            return RelationalExpr(op, _left(base), prefix, loc=expr.loc)
        right = joined(right)
    masked = BinopExpr("&", listed_value(base), joined(mask), loc=left.loc, dtype=left.dtype, width=left.width)
    return RelationalExpr(op, masked, right, loc=expr.loc)


def _prefix(expr: RelationalExpr, right: PrefixExpr) -> RelationalExpr:
    dtype: Datatype = right.dtype
    if dtype.is_string or dtype.byteorder == BIG:
        return RelationalExpr(expr.op, _left(expr.left), right, loc=expr.loc)
    mask = ((1 << right.length) - 1) << (dtype.width - right.length)
    cut = ConstantExpr(mask, loc=right.loc, dtype=dtype)
    left = BinopExpr("&", expr.left, cut, loc=expr.left.loc, dtype=dtype, width=dtype.width)
    return RelationalExpr(expr.op, left, right.expr, loc=expr.loc)


def _raw_bits(expr: RelationalExpr, left: RawPayloadExpr, right: ConstantExpr) -> RelationalExpr:
    """Bits of a raw field list as whole bytes with a mask."""
    from userfw.nft.datatype_tables import integer

    first = left.offset // 8
    octets = (left.offset % 8 + left.width + 7) // 8
    below = octets * 8 - left.offset % 8 - left.width
    dtype = integer(octets * 8, hexadecimal=True)
    assert isinstance(right.value, int)
    mask = ConstantExpr(((1 << left.width) - 1) << below, loc=left.loc, dtype=dtype)
    whole = RawPayloadExpr(left.base, first * 8, octets * 8, left.inner, loc=left.loc, dtype=dtype, width=octets * 8)
    value = ConstantExpr(right.value << below, loc=right.loc, dtype=dtype)
    return RelationalExpr(expr.op, BinopExpr("&", whole, mask, loc=left.loc, dtype=dtype, width=octets * 8), value, loc=expr.loc)


def named_field(expr: RelationalExpr, context: ProtoContext) -> list[RelationalExpr] | None:
    """A match of a raw field with its names; None when it has none."""
    left = expr.left
    assert isinstance(left, RawPayloadExpr)
    known = context.get(left.base)
    if known is None:
        known = proto.TH if left.base == "th" else None
    if known is None:
        return None
    row = known.by_place.get((left.offset, left.width))
    if row is not None:
        return [_named(expr, left, known, row, expr.right)]
    right = expr.right
    if expr.op != "==" or not isinstance(right, ConstantExpr) or not isinstance(right.value, int):
        return None
    return _split(expr, left, known, right.value)


def _split(expr: RelationalExpr, left: RawPayloadExpr, known: proto.Protocol, value: int) -> list[RelationalExpr] | None:
    parts = []
    at, end = left.offset, left.offset + left.width
    while at < end:
        row = next((field for (offset, _), field in known.by_place.items() if offset == at), None)
        if row is None or at + row.width > end or row.width % 8:
            return None
        number = value >> (end - at - row.width) & ((1 << row.width) - 1)
        constant = ConstantExpr(number, loc=expr.right.loc, dtype=row.dtype)
        parts.append(_named(expr, left, known, row, constant))
        at += row.width
    return parts


def _named(expr: RelationalExpr, left: RawPayloadExpr, known: proto.Protocol, row: proto.Field, right: Expr) -> RelationalExpr:
    load = PayloadExpr(known.name, row.name, left.inner, left.base, row.offset, loc=left.loc, dtype=row.dtype, width=row.width)
    return RelationalExpr(expr.op, load, retyped(right, row.dtype), loc=expr.loc)


def retyped(expr: Expr, dtype: Datatype) -> Expr:
    """The same value as of another type."""
    if isinstance(expr, ConstantExpr):
        return ConstantExpr(expr.value, loc=expr.loc, dtype=dtype)
    if isinstance(expr, RangeExpr):
        return RangeExpr(retyped(expr.left, dtype), retyped(expr.right, dtype), loc=expr.loc, dtype=dtype)
    if isinstance(expr, PrefixExpr):
        return PrefixExpr(retyped(expr.expr, dtype), expr.length, loc=expr.loc, dtype=dtype)
    if isinstance(expr, SetExpr):
        elements = [
            SetElemExpr(retyped(e.key, dtype), e.data, e.stmts, e.timeout, e.expires, e.comment, loc=e.loc, dtype=dtype)
            for e in expr.elements
        ]
        return SetExpr(elements, loc=expr.loc, dtype=dtype)
    return expr


def listed_typeof(node: Expr) -> Expr:
    """``typeof`` with names for raw transport fields."""
    if isinstance(node, TypeofExpr):
        return TypeofExpr(listed_typeof(node.expr), loc=node.loc)
    if isinstance(node, ConcatExpr):
        return ConcatExpr([listed_typeof(item) for item in node.items], loc=node.loc)
    if isinstance(node, RawPayloadExpr) and node.base == "th":
        row = proto.TH.by_place.get((node.offset, node.length))
        if row is not None:
            return PayloadExpr("th", row.name, node.inner, loc=node.loc)
    return node
