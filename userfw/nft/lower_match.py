"""Lowering matches: comparisons, ranges, prefixes, bit tests, lookups.

Laws:
- Ordering and ranges compare bytes from the left, so numbers in host order are turned round first.
- A prefix of whole bytes is a shorter comparison; another is a mask.
- An anonymous set becomes a ``SetBlock`` named ``__setN``, ``__mapN`` or ``__objmapN`` within its rule; keys that are
  fields of bits stand where the field stands in its bytes.
"""

from __future__ import annotations

from userfw.engine.expressions import Bitwise, Cmp, Lookup, Payload, Range
from userfw.nft.check_merge import MergedMatch
from userfw.nft.datatype import BIG, HOST_IS, Datatype
from userfw.nft.datatype_tables import BOOLEAN, integer
from userfw.nft.lower_expr import BASE, ExprLowering, Held, Place, place_of, reg
from userfw.nft.syntax import (
    BinopExpr,
    ConcatExpr,
    ConstantExpr,
    Expr,
    FibExpr,
    MapExpr,
    MatchStmt,
    PayloadExpr,
    PrefixExpr,
    RangeExpr,
    RawPayloadExpr,
    RelationalExpr,
    SetBlock,
    SetElemExpr,
    SetExpr,
    SetRefExpr,
)

_CMP = {"==": "eq", "!=": "neq", "<": "lt", "<=": "lte", ">": "gt", ">=": "gte"}


class MatchLowering(ExprLowering):
    """Matches and lookups."""

    def match(self, stmt: MatchStmt) -> None:
        """The instructions of a match."""
        expr = stmt.expr
        assert isinstance(expr, RelationalExpr)
        self.free = 0
        right = expr.right
        if isinstance(right, SetExpr | SetRefExpr):
            self._lookup(expr)
        elif isinstance(right, RangeExpr):
            self._range(expr, right)
        elif isinstance(right, PrefixExpr):
            self._prefix(expr, right)
        elif expr.op in ("", "!"):
            self._bits(expr, right)
        else:
            self._compare(expr, right)

    def merged(self, stmt: MergedMatch) -> None:
        """One load and one comparison for neighbouring fields."""
        self.free = 0
        first = stmt.parts[0].expr.left  # type: ignore[attr-defined]
        data = bytearray()
        for part in stmt.parts:
            expr = part.expr
            assert isinstance(expr, RelationalExpr) and isinstance(expr.right, ConstantExpr)
            assert isinstance(expr.left, PayloadExpr | RawPayloadExpr) and isinstance(expr.right.value, int)
            data += expr.right.value.to_bytes(expr.left.width // 8, "big")
        self.emit(Payload(1, BASE[first.base], first.offset // 8, len(data)))
        self.emit(Cmp("eq", 1, bytes(data)))

    # --- one value

    def _left(self, left: Expr, unit: int) -> tuple[Held, Place | None]:
        """The left side; a field of bits is masked and left in place."""
        place = place_of(left)
        if place is None:
            return self.gen(left, unit), None
        held = self.load(left, unit)
        self.mask_bits(left, place, unit)
        return held, place

    def _encode(self, value: ConstantExpr, held: Held, place: Place | None, order: str) -> bytes:
        if isinstance(value.value, bytes):
            return value.value.ljust(held.octets, b"\0")
        number = value.value << place.below if place is not None else value.value
        return number.to_bytes(held.octets, "big" if order == BIG else HOST_IS)

    def _compare(self, expr: RelationalExpr, right: Expr) -> None:
        assert isinstance(right, ConstantExpr)
        left = expr.left
        if isinstance(left, FibExpr) and right.dtype is BOOLEAN and left.dtype is not BOOLEAN:
            left = FibExpr(left.flags, left.result, loc=left.loc, dtype=BOOLEAN)
        held, place = self._left(left, 0)
        order = held.order
        if expr.op not in ("==", "!=") and place is None:
            order = self.want(left, 0, held, BIG).order if held.octets > 1 else order
        self.emit(Cmp(_CMP[expr.op], 1, self._encode(right, held, place, order)))

    def _bits(self, expr: RelationalExpr, right: Expr) -> None:
        assert isinstance(right, ConstantExpr)
        held, place = self._left(expr.left, 0)
        mask = self._encode(right, held, place, held.order)
        zero = bytes(len(mask))
        self.emit(Bitwise(1, 1, mask, zero))
        self.emit(Cmp("eq" if expr.op == "!" else "neq", 1, zero))

    def _range(self, expr: RelationalExpr, right: RangeExpr) -> None:
        held, place = self._left(expr.left, 0)
        order = held.order
        if place is None and held.octets > 1:
            order = self.want(expr.left, 0, held, BIG).order
        low, high = right.left, right.right
        assert isinstance(low, ConstantExpr) and isinstance(high, ConstantExpr)
        self.emit(
            Range(
                "neq" if expr.op == "!=" else "eq", 1, self._encode(low, held, place, order), self._encode(high, held, place, order)
            )
        )

    def _prefix(self, expr: RelationalExpr, right: PrefixExpr) -> None:
        value = right.expr
        assert isinstance(value, ConstantExpr)
        op = _CMP[expr.op]
        dtype: Datatype = right.dtype
        if isinstance(value.value, bytes):
            self.gen(expr.left, 0)
            self.emit(Cmp(op, 1, value.value))
            return
        if (
            right.length
            and right.length % 8 == 0
            and dtype.byteorder == BIG
            and place_of(expr.left) is None
            and not isinstance(expr.left, BinopExpr)
        ):
            octets = right.length // 8
            self.load(expr.left, 0, octets)
            self.emit(Cmp(op, 1, dtype.encode(value.value)[:octets]))
            return
        held, place = self._left(expr.left, 0)
        mask = ((1 << right.length) - 1) << (dtype.width - right.length)
        self.emit(Bitwise(1, 1, self._encode(ConstantExpr(mask, dtype=dtype), held, place, held.order), bytes(held.octets)))
        self.emit(Cmp(op, 1, self._encode(value, held, place, held.order)))

    # --- sets

    def _lookup(self, expr: RelationalExpr) -> None:
        unit = self.key_register(expr.left)
        name = self.lookup_key(expr.left, expr.right, unit, expr)
        self.emit(Lookup(reg(unit), name, invert=expr.op == "!="))

    def lookup_key(self, key: Expr, mapping: Expr, unit: int, owner: Expr) -> str:
        if isinstance(mapping, SetRefExpr):
            self.key(key, unit, "interval" in mapping.target.flags, mapping.target.key_dtype)
            return mapping.name
        assert isinstance(mapping, SetExpr)
        interval = is_interval(mapping)
        place = place_of(key)
        if place is not None:
            self.load(key, unit)
            self.mask_bits(key, place, unit)
        else:
            self.key(key, unit, interval, key.dtype)
        return self._declare(mapping, key.dtype, place, owner, interval)

    def _declare(self, node: SetExpr, dtype: Datatype, place: Place | None, owner: Expr, interval: bool) -> str:
        """Make the anonymous set; its name."""
        is_map = isinstance(owner, MapExpr)
        elements = node.elements
        data: Datatype | None = None
        objtype: str | None = None
        kind = "__set"
        if is_map:
            assert isinstance(owner, MapExpr)
            objtype = self.object_kind
            kind = "__objmap" if objtype is not None else "__map"
            data = None if objtype is not None else owner.dtype
        if place is not None:
            dtype = integer(place.octets * 8)
            elements = [_raised(elem, place.below, dtype) for elem in elements]
        name = f"{kind}{len(self.sets)}"
        flags = ("constant", "interval") if interval else ("constant",)
        self.sets.append(
            SetBlock(
                name, is_map, objtype=objtype, data_interval=is_map and self.data_interval, flags=flags, size=len(elements),
                elements=elements, loc=node.loc, key_dtype=dtype, data_dtype=data,
            )
        )  # fmt: skip
        return name


def is_interval(node: SetExpr) -> bool:
    """Whether an element of an anonymous set covers more than one value."""
    for elem in node.elements:
        key = elem.key
        if isinstance(key, RangeExpr | PrefixExpr):
            return True
        if isinstance(key, ConcatExpr) and any(isinstance(item, RangeExpr | PrefixExpr) for item in key.items):
            return True
    return False


def _raised(elem: SetElemExpr, below: int, dtype: Datatype) -> SetElemExpr:
    key = _shift(elem.key, below, dtype)
    return SetElemExpr(key, elem.data, elem.stmts, elem.timeout, elem.expires, elem.comment, loc=elem.loc, dtype=dtype)


def _shift(key: Expr, below: int, dtype: Datatype) -> Expr:
    if isinstance(key, ConstantExpr) and isinstance(key.value, int):
        return ConstantExpr(key.value << below, loc=key.loc, dtype=dtype)
    if isinstance(key, RangeExpr):
        return RangeExpr(_shift(key.left, below, dtype), _shift(key.right, below, dtype), loc=key.loc, dtype=dtype)
    return key


__all__ = ["MatchLowering", "is_interval"]
