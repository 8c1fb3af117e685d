"""Checking expressions: loads get their place and type, words become values.

Laws:
- A checked expression is a new node with ``dtype`` set; what was given is never written to.
- ``value`` wants a constant of a known type; ``operand`` wants anything that yields a value of the wanted width.
- A load that needs a protocol the rule has not asked for puts the question in front (``emit``), exactly where nft does.
- Bits inside a byte stay fields here; masks and shifts are the lowering's business.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from userfw.nft.check_context import fail
from userfw.nft.check_load import LoadChecker
from userfw.nft.datatype import HOST, Datatype
from userfw.nft.datatype_tables import (
    ConcatType,
    concat_type,
    integer,
)
from userfw.nft.syntax import (
    BinopExpr,
    CatchAllExpr,
    ConcatExpr,
    ConstantExpr,
    CtExpr,
    Expr,
    HashExpr,
    ListExpr,
    MapExpr,
    PrefixExpr,
    RangeExpr,
    SetExpr,
    SetRefExpr,
    SymbolExpr,
    VerdictExpr,
)

_MAX_SHIFT = 128
_OPS: dict[str, Callable[[int, int], int]] = {
    "&": lambda a, b: a & b,
    "|": lambda a, b: a | b,
    "^": lambda a, b: a ^ b,
    "<<": lambda a, b: a << b,
    ">>": lambda a, b: a >> b,
}


class ExprChecker(LoadChecker):
    """Values and operators."""

    # --- values

    def value(self, node: Expr, dtype: Datatype, width: int = 0) -> Expr:
        """A constant: single, range, prefix, list of flags, operators on these. ``width`` may widen what fits."""
        kind = type(node)
        if type(dtype) is ConcatType and kind not in (ConcatExpr, CatchAllExpr):
            fail(node, f"datatype mismatch, expected concatenation of ({_names(dtype)}), expression is a single value")
        if kind is SymbolExpr:
            return self._symbol(node, dtype, width)  # type: ignore[arg-type]
        if kind is ConstantExpr:
            return self._number(node, dtype, width)  # type: ignore[arg-type]
        handler = _VALUES.get(kind)
        if handler is None:
            return self._not_constant(node)
        return handler(self, node, dtype, width)

    def _not_constant(self, node: Expr) -> Expr:
        fail(node, "Right hand side of relational expression (==) must be constant")

    def _symbol(self, node: SymbolExpr, dtype: Datatype, width: int) -> Expr:
        text = node.name
        if dtype.is_string:
            return self._string(node, dtype)
        try:
            value = dtype.parse(text, self.names)
        except ValueError as problem:
            fail(node, str(problem))
        return self._bounded(node, value, dtype, width)

    def _number(self, node: ConstantExpr, dtype: Datatype, width: int) -> Expr:
        value = node.value
        if isinstance(value, bytes):
            if dtype.is_string:
                return ConstantExpr(value, loc=node.loc, dtype=dtype)
            fail(node, f"datatype mismatch, expected {dtype.desc}, expression has type string")
        if dtype.is_string:
            return self._string(SymbolExpr(str(value), loc=node.loc), dtype)
        try:
            value = dtype.from_int(value)
        except ValueError as problem:
            fail(node, str(problem))
        return self._bounded(node, value, dtype, width)

    def _bounded(self, node: Expr, value: int | bytes, dtype: Datatype, width: int) -> ConstantExpr:
        bits = width or dtype.width
        if bits and isinstance(value, int) and value >> bits:
            fail(node, f"Value {value} exceeds valid range 0-{(1 << bits) - 1}")
        return ConstantExpr(value, loc=node.loc, dtype=dtype)

    def _string(self, node: SymbolExpr, dtype: Datatype) -> Expr:
        text = node.name
        wildcard = text.endswith("*") and not text.endswith("\\*")
        if text.endswith("\\*"):
            text = text[:-2] + "*"
        elif wildcard:
            text = text[:-1]
            if not text:
                fail(node, "All-wildcard strings are not supported")
        try:
            value = dtype.parse(text, self.names)
        except ValueError as problem:
            fail(node, str(problem))
        constant = ConstantExpr(value, loc=node.loc, dtype=dtype)
        if not wildcard:
            return constant
        assert isinstance(value, bytes)
        return PrefixExpr(constant, len(value) * 8, loc=node.loc, dtype=dtype)

    def _range(self, node: RangeExpr, dtype: Datatype, width: int) -> Expr:
        left = self.value(node.left, dtype, width)
        right = self.value(node.right, dtype, width)
        if not isinstance(left, ConstantExpr) or not isinstance(right, ConstantExpr):
            fail(node, "Range needs single values on both sides")
        low, high = left.value, right.value
        if isinstance(low, bytes) or isinstance(high, bytes):
            fail(node, "Range of strings is not supported")
        if low > high:
            fail(node, "Range negative size")
        if low == high:
            return ConstantExpr(low, loc=node.loc, dtype=dtype)
        return RangeExpr(left, right, loc=node.loc, dtype=dtype)

    def _prefix(self, node: PrefixExpr, dtype: Datatype, width: int) -> Expr:
        inner = self.value(node.expr, dtype, width)
        if not isinstance(inner, ConstantExpr):
            fail(node, "Prefix expression is undefined for this kind of value")
        if dtype.is_string or isinstance(inner.value, bytes):
            fail(node, f"Prefix expression is undefined for {dtype.name} type")
        if dtype.root.name not in ("integer",) and dtype.root.name != dtype.name:
            fail(node, f"Prefix expression expected integer value for {dtype.name} type")
        bits = dtype.width
        if node.length > bits:
            fail(node, f"Prefix length {node.length} is invalid for type of {bits} bits width")
        mask = ((1 << node.length) - 1) << (bits - node.length)
        constant = ConstantExpr(inner.value & mask, loc=inner.loc, dtype=dtype)
        if node.length == bits:
            return constant
        return PrefixExpr(constant, node.length, loc=node.loc, dtype=dtype)

    def _list(self, node: ListExpr, dtype: Datatype, width: int) -> Expr:
        if not dtype.is_bitmask:
            fail(node, "basetype of type " + dtype.desc + " is not bitmask")
        total = 0
        for item in node.items:
            part = self.value(item, dtype, width)
            if not isinstance(part, ConstantExpr) or not isinstance(part.value, int):
                fail(item, "List member must be a single value")
            total |= part.value
        return ConstantExpr(total, loc=node.loc, dtype=dtype)

    def _constant_binop(self, node: BinopExpr, dtype: Datatype, width: int) -> Expr:
        left = self.value(node.left, dtype, width)
        right = self._shift_count(node.right) if node.op in ("<<", ">>") else self.value(node.right, dtype, width)
        if not isinstance(left, ConstantExpr) or not isinstance(right, ConstantExpr):
            fail(node, "Binary operation is undefined for this kind of value")
        if isinstance(left.value, bytes) or isinstance(right.value, bytes):
            fail(node, f"Binary operation ({node.op}) is undefined for {dtype.name} types")
        bits = width or dtype.width
        if node.op in ("<<", ">>") and right.value >= (bits or _MAX_SHIFT):
            name = "Left" if node.op == "<<" else "Right"
            fail(node.right, f"{name} shift of {right.value} bits is undefined for type of {bits} bits width", node.left.loc)
        value = _OPS[node.op](left.value, right.value)
        if node.op == "<<" and bits:
            value &= (1 << bits) - 1
        return ConstantExpr(value, loc=node.loc, dtype=dtype)

    def _shift_count(self, node: Expr) -> ConstantExpr:
        found = self.value(node, integer(32, HOST))
        if not isinstance(found, ConstantExpr):
            fail(node, "Right hand side of binary operation must be constant")
        return found

    def _concat_value(self, node: ConcatExpr, dtype: Datatype, width: int) -> Expr:
        if not isinstance(dtype, ConcatType):
            fail(node, f"unexpected concat component, expecting {dtype.desc}")
        if len(node.items) > len(dtype.parts):
            fail(node.items[len(dtype.parts)], f"unexpected concat component, expecting {len(dtype.parts)} components")
        if len(node.items) < len(dtype.parts):
            fail(node, f"datatype mismatch, expected concatenation of ({_names(dtype)}), expression has fewer components")
        items = [self.value(item, part) for item, part in zip(node.items, dtype.parts, strict=True)]
        return ConcatExpr(items, loc=node.loc, dtype=dtype)

    def _verdict(self, node: VerdictExpr, dtype: Datatype, width: int) -> Expr:
        return self.verdict(node)

    def verdict(self, node: VerdictExpr) -> VerdictExpr:
        """A verdict: jumps name chains."""
        raise NotImplementedError

    def _catch_all(self, node: CatchAllExpr, dtype: Datatype, width: int) -> Expr:
        return CatchAllExpr(loc=node.loc, dtype=dtype)

    # --- anything that yields a value

    def operand(self, node: Expr, dtype: Datatype, width: int = 0) -> Expr:
        """A constant of ``dtype`` or something computed; the types of loads are their own."""
        kind = type(node)
        if kind in (SymbolExpr, ConstantExpr, RangeExpr, PrefixExpr, ListExpr):
            if kind in (RangeExpr, PrefixExpr) and not _constant(node):
                fail(node, "Range needs constants")
            return self.value(node, dtype, width)
        if kind is BinopExpr:
            assert isinstance(node, BinopExpr)
            if _constant(node):
                return self.value(node, dtype, width)
            return self.binop(node, dtype, width or dtype.width)
        if kind is MapExpr:
            assert isinstance(node, MapExpr)
            return self.map_expr(node, dtype)
        if kind is SetExpr:
            fail(node, "set is not allowed here, you can only use it on the right hand side of a match")
        if kind is HashExpr:
            return self.hash_expr(node)
        if kind is ConcatExpr:
            assert isinstance(node, ConcatExpr)
            return self.concat(node, dtype)
        return self.load(node)

    def lhs(self, node: Expr) -> Expr:
        """The left-hand side of a match: a load, a concatenation, operators on loads."""
        kind = type(node)
        if kind is ConcatExpr:
            assert isinstance(node, ConcatExpr)
            return self.concat(node, None)
        if kind is BinopExpr:
            assert isinstance(node, BinopExpr)
            return self.binop(node, None, 0)
        if kind is HashExpr:
            return self.hash_expr(node)
        if kind is MapExpr:
            fail(node, "map is not allowed on the left hand side of a match")
        if kind in (SymbolExpr, ConstantExpr, RangeExpr, PrefixExpr, ListExpr, SetExpr, SetRefExpr):
            fail(node, "Relational expression has constant value on its left hand side")
        return self.load(node)

    def binop(self, node: BinopExpr, dtype: Datatype | None, width: int) -> Expr:
        """``left op right`` with a load somewhere; the constant part ends on the right."""
        left, right = node.left, node.right
        if node.op in ("<<", ">>"):
            return self._shift(node, dtype, width)
        if _constant(left):
            if _constant(right):
                fail(node, "Binary operation on constants needs a type")
            left, right = right, left
        base = self._binop_side(left, dtype, width)
        kind: Datatype = base.dtype
        if isinstance(kind, ConcatType) or kind.is_string:
            fail(node, f"Binary operation ({node.op}) is undefined for {kind.name} types")
        if _constant(right):
            other = self.value(right, kind, max(width, kind.width))
            if not isinstance(other, ConstantExpr):
                fail(right, "Right hand side of binary operation must be a single value")
            return BinopExpr(node.op, base, other, loc=node.loc, dtype=kind, width=width or kind.width)
        second = self._binop_side(right, dtype, width)
        return BinopExpr(node.op, base, second, loc=node.loc, dtype=kind, width=width or kind.width)

    def _binop_side(self, node: Expr, dtype: Datatype | None, width: int) -> Expr:
        if isinstance(node, BinopExpr):
            return self.binop(node, dtype, width)
        if isinstance(node, ConcatExpr | SetExpr | SetRefExpr | RangeExpr | PrefixExpr):
            fail(node, "Binary operation is undefined for this kind of expression")
        if isinstance(node, MapExpr):
            if dtype is None:
                fail(node, "map is not allowed here")
            return self.map_expr(node, dtype)
        return self.load(node)

    def _shift(self, node: BinopExpr, dtype: Datatype | None, width: int) -> Expr:
        if not _constant(node.right):
            fail(node.right, "Right hand side of shift must be constant")
        base = self._binop_side(node.left, dtype, width)
        count = self._shift_count(node.right)
        kind: Datatype = base.dtype
        bits = max(width, base.width or kind.width)
        assert isinstance(count.value, int)
        if count.value >= bits:
            name = "Left" if node.op == "<<" else "Right"
            fail(node.right, f"{name} shift of {count.value} bits is undefined for type of {bits} bits width")
        result = integer(bits, kind.byteorder, hexadecimal=True)
        return BinopExpr(node.op, base, count, loc=node.loc, dtype=result, width=bits)

    def concat(self, node: ConcatExpr, dtype: Datatype | None) -> ConcatExpr:
        """``a . b``: loads; with ``dtype`` a concatenation type, its parts may be constants."""
        parts = dtype.parts if isinstance(dtype, ConcatType) else ()
        if parts and len(parts) != len(node.items):
            fail(
                node, f"datatype mismatch, expected concatenation of ({_names(dtype)}), expression has {len(node.items)} components"
            )
        items = []
        for number, item in enumerate(node.items):
            if parts:
                items.append(self.operand(item, parts[number]))
            elif _constant(item):
                fail(item, "constant in a concatenation of loads")
            else:
                items.append(self.lhs(item))
            if items[-1].dtype.width == 0:
                fail(item, f"cannot use {items[-1].dtype.name} without a size in concat expressions")
        kinds = tuple(item.dtype for item in items)
        return ConcatExpr(items, loc=node.loc, dtype=concat_type(kinds))

    def hash_expr(self, node: Expr) -> Expr:
        """``jhash … mod N`` and ``symhash mod N``."""
        assert isinstance(node, HashExpr)
        lone, self.lone = self.lone, type(node.expr) is CtExpr  # one key: its family is the packet's
        try:
            expr = None if node.expr is None else self.lhs(node.expr)
        finally:
            self.lone = lone
        if node.modulus < 1:
            fail(node, "modulus must be at least 1")
        if node.offset + node.modulus - 1 > 0xFFFFFFFF:
            fail(node, "overflow: offset + modulus")
        kind = integer(32, HOST)
        return HashExpr(node.kind, expr, node.modulus, node.seed, node.offset, loc=node.loc, dtype=kind)

    def map_expr(self, node: MapExpr, dtype: Datatype) -> Expr:
        """``key map mapping`` that yields ``dtype``."""
        raise NotImplementedError


def _constant(node: Expr) -> bool:
    """Whether nothing in the expression reads the packet."""
    kind = type(node)
    if kind in (SymbolExpr, ConstantExpr, VerdictExpr, CatchAllExpr):
        return True
    if kind is BinopExpr or kind is RangeExpr:
        return _constant(node.left) and _constant(node.right)  # type: ignore[attr-defined]
    if kind is PrefixExpr:
        return _constant(node.expr)  # type: ignore[attr-defined]
    if kind is ListExpr or kind is ConcatExpr:
        return all(_constant(item) for item in node.items)  # type: ignore[attr-defined]
    return False


def _names(dtype: Datatype | None) -> str:
    return ", ".join(part.desc for part in dtype.parts) if isinstance(dtype, ConcatType) else ""


_VALUES: dict[type[Any], Callable[..., Expr]] = {
    RangeExpr: ExprChecker._range,
    PrefixExpr: ExprChecker._prefix,
    ListExpr: ExprChecker._list,
    BinopExpr: ExprChecker._constant_binop,
    ConcatExpr: ExprChecker._concat_value,
    VerdictExpr: ExprChecker._verdict,
    CatchAllExpr: ExprChecker._catch_all,
}

constant = _constant

__all__ = ["ExprChecker", "constant"]
