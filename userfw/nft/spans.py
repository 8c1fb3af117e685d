"""Values that cover from here to there: the numbers of a checked expression, and the expression of two numbers."""

from __future__ import annotations

from userfw.nft.datatype import Datatype
from userfw.nft.location import Location, NftError
from userfw.nft.syntax_expr import ConstantExpr, Expr, PrefixExpr, RangeExpr


def bounds(node: Expr) -> tuple[int, int]:
    """First and last value that a checked key covers; strings count as numbers, first byte highest."""
    if isinstance(node, ConstantExpr):
        value = _number(node, node.dtype)
        return value, value
    if isinstance(node, RangeExpr):
        return bounds(node.left)[0], bounds(node.right)[1]
    if isinstance(node, PrefixExpr):
        low = bounds(node.expr)[0]
        width: int = node.dtype.octets * 8 if node.dtype.is_string else node.dtype.width
        return low, low | ((1 << (width - node.length)) - 1)
    raise NftError("not a value", node.loc)


def _number(node: ConstantExpr, dtype: Datatype) -> int:
    if isinstance(node.value, bytes):
        return int.from_bytes(node.value.ljust(dtype.octets, b"\0"), "big")
    return node.value


def span(low: int, high: int, dtype: Datatype, loc: Location) -> Expr:
    """The expression that covers ``low`` to ``high``: a value, a prefix where nft lists prefixes, else a range."""
    first = ConstantExpr(low, loc=loc, dtype=dtype)
    if low == high:
        return first
    size = high - low + 1
    if dtype.prefix and size & (size - 1) == 0 and low % size == 0:
        return PrefixExpr(first, dtype.width - size.bit_length() + 1, loc=loc, dtype=dtype)
    return RangeExpr(first, ConstantExpr(high, loc=loc, dtype=dtype), loc=loc, dtype=dtype)
