"""The order in which nft lists elements (libnftables: list_expr_sort, expr_msort_value)."""

from __future__ import annotations

from typing import Any

from userfw.nft.syntax import CatchAllExpr, ConcatExpr, ConstantExpr, Expr, PrefixExpr, RangeExpr, SetElemExpr, SymbolExpr
from userfw.ruleset.elements import width_of


def sort_key(node: SetElemExpr, interval: bool) -> tuple[int, int]:
    """Where an element stands: by value, the catch-all last.

    Strings and concatenations are compared as nft does, as numbers whose first byte is the least; names in a set of
    intervals letter by letter.
    """
    key = node.key
    if isinstance(key, CatchAllExpr):
        return 1, 0
    if interval:
        first = key.expr if isinstance(key, PrefixExpr) else key
        if isinstance(first, ConstantExpr) and isinstance(first.value, bytes):
            return 0, int.from_bytes(first.value.ljust(16, b"\0"), "big")
    return 0, _value(key)


def _value(expr: Expr) -> int:
    if isinstance(expr, ConstantExpr):
        if isinstance(expr.value, bytes):
            return int.from_bytes(expr.value, "little")
        return expr.value
    if isinstance(expr, RangeExpr):
        return _value(expr.left)
    if isinstance(expr, PrefixExpr):
        return _value(expr.expr)
    if isinstance(expr, ConcatExpr):
        return int.from_bytes(b"".join(_bytes(item) for item in expr.items), "little")
    if isinstance(expr, SymbolExpr):
        return int.from_bytes(expr.name.encode("utf-8", "surrogateescape"), "little")
    return 0


def _bytes(expr: Expr) -> bytes:
    while isinstance(expr, (RangeExpr, PrefixExpr)):
        expr = expr.left if isinstance(expr, RangeExpr) else expr.expr
    size = max(1, (width_of(expr) + 7) // 8)
    if isinstance(expr, ConstantExpr):
        if isinstance(expr.value, bytes):
            return expr.value.ljust(size, b"\0")
        order: Any = getattr(expr.dtype, "byteorder", "big")
        return expr.value.to_bytes(max(size, (expr.value.bit_length() + 7) // 8), "big" if order == "big" else "little")
    return _value(expr).to_bytes(16, "little")
