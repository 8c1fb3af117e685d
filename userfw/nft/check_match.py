"""Checking matches: the operator, the two sides, and what a match tells about protocols.

Laws:
- After checking, op ``""`` is a test of bits, ``==`` and ``!=`` compare or look up, ``!`` is "none of these bits".
- An xor or shift with a constant on the left is worked into the right-hand side, as nft does.
- Only an equality with values teaches protocols; a set of values teaches alternatives.
"""

from __future__ import annotations

from userfw.nft import proto
from userfw.nft.check_context import fail, meta_update, payload_update
from userfw.nft.check_expr import constant
from userfw.nft.check_set import SetChecker
from userfw.nft.datatype import Datatype
from userfw.nft.datatype_tables import BOOLEAN, ConcatType
from userfw.nft.syntax import (
    BinopExpr,
    ConcatExpr,
    ConstantExpr,
    CtExpr,
    Expr,
    FibExpr,
    FlagcmpExpr,
    ListExpr,
    MatchStmt,
    MetaExpr,
    PayloadExpr,
    PrefixExpr,
    RangeExpr,
    RelationalExpr,
    SetExpr,
    SetRefExpr,
)

_ORDER = frozenset(("<", ">", "<=", ">="))
_FAMILY_TYPE = {"ip": 0x0800, "ip6": 0x86DD}


class MatchChecker(SetChecker):
    """Relational expressions."""

    def match(self, node: MatchStmt) -> MatchStmt:
        """A checked match."""
        expr = node.expr
        if isinstance(expr, FlagcmpExpr):
            checked = self._flagcmp(expr)
        elif isinstance(expr, RelationalExpr):
            checked = self._relational(expr)
        else:
            fail(node, "expression is not a match")
        return MatchStmt(checked, loc=node.loc)

    def _flagcmp(self, node: FlagcmpExpr) -> Expr:
        """``expr value / mask``: the same as ``expr & mask == value``."""
        left = self.lhs(node.expr)
        dtype: Datatype = left.dtype
        if isinstance(left, BinopExpr | ConcatExpr):
            fail(node, "flag comparison needs a single load on its left")
        value = self._one(self.value(node.value, dtype))
        mask = self._one(self.value(node.mask, dtype))
        if value.value & ~mask.value:  # type: ignore[operator]
            fail(node, "flag mismatch: mask does not cover the value")
        masked = BinopExpr("&", left, mask, loc=node.loc, dtype=dtype, width=dtype.width)
        return RelationalExpr(node.op or "==", masked, value, loc=node.loc)

    def _one(self, node: Expr) -> ConstantExpr:
        if not isinstance(node, ConstantExpr) or isinstance(node.value, bytes):
            fail(node, "single value expected")
        return node

    def _relational(self, node: RelationalExpr) -> RelationalExpr:
        left = self.match_lhs(node.left)
        right = node.right
        op = node.op
        if isinstance(right, SetRefExpr):
            return self._in_named(node, left, right)
        if isinstance(right, SetExpr):
            return self._in_anonymous(node, left, right)
        if not constant(right):
            fail(right, f"Right hand side of relational expression ({op or '=='}) must be constant")
        if isinstance(left, MetaExpr) and left.key == "hour" and isinstance(right, RangeExpr):
            op, value = self._hour_range(op, right, left.dtype)
        else:
            value = self._right(right, left)
        if isinstance(value, ConstantExpr) and isinstance(right, PrefixExpr) and _part_of_byte(left):
            mask = ConstantExpr((1 << left.width) - 1, loc=right.loc, dtype=left.dtype)
            left = BinopExpr("&", left, mask, loc=left.loc, dtype=left.dtype, width=left.width)
        return self._settled(node, op, left, value, isinstance(right, ListExpr))

    def _settled(self, node: RelationalExpr, op: str, left: Expr, value: Expr, listed: bool) -> RelationalExpr:
        """The operator's final meaning, and what the match teaches."""
        left, value = self._transfer(node, left, value)
        op = self._operator(node, op, left, value, listed)
        if op == "==":
            self.learn(left, value)
        return RelationalExpr(op, left, value, loc=node.loc)

    def match_lhs(self, node: Expr) -> Expr:
        """The left side; a lone ``ct original saddr`` may leave its family to the context."""
        self.lone = isinstance(node, CtExpr)
        try:
            return self.lhs(node)
        finally:
            self.lone = False

    def _right(self, right: Expr, left: Expr) -> Expr:
        dtype: Datatype = left.dtype
        if isinstance(left, FibExpr) and left.result == "oif" and _word(right) in ("exists", "missing"):
            dtype = BOOLEAN
        width = left.width if isinstance(left, BinopExpr) else 0
        return self.value(right, dtype, width if width > dtype.width else 0)

    def _operator(self, node: RelationalExpr, op: str, left: Expr, value: Expr, listed: bool) -> str:
        dtype: Datatype = left.dtype
        single = isinstance(value, ConstantExpr)
        if op in _ORDER:
            if isinstance(left, ConcatExpr) or not single:
                fail(value, f"Relational expression ({op}) is undefined for this kind of expression")
            if dtype.is_string:
                fail(value, f"Relational expression ({op}) is undefined for string types")
            return op
        if op == "!":
            if not dtype.is_bitmask or not single:
                fail(node, "negation of bits needs a bitmask")
            if isinstance(left, BinopExpr):
                fail(node, "cannot combine a mask with '!'")
            return op
        if isinstance(value, ConcatExpr):
            fail(value, "Use concatenations with sets and maps, not singleton values")
        if op == "!=":
            return op
        if op == "" and dtype.is_bitmask and single and not isinstance(left, BinopExpr | ConcatExpr):
            return ""
        return "=="

    def _hour_range(self, op: str, right: RangeExpr, dtype: Datatype) -> tuple[str, Expr]:
        """A span of hours may pass midnight (UTC): then it is everything but the span between."""
        first, last = self._one(self.value(right.left, dtype)), self._one(self.value(right.right, dtype))
        low, high = first.value, last.value
        assert isinstance(low, int) and isinstance(high, int)
        if low <= high:
            return op, RangeExpr(first, last, loc=right.loc, dtype=dtype) if low < high else first
        return ("==" if op == "!=" else "!="), RangeExpr(last, first, loc=right.loc, dtype=dtype)

    def _transfer(self, node: RelationalExpr, left: Expr, value: Expr) -> tuple[Expr, Expr]:
        """``X ^ c == v`` is ``X == v ^ c``; ``X << c == v`` is ``X == v >> c``."""
        while isinstance(left, BinopExpr) and left.op in ("^", "<<", ">>") and isinstance(left.right, ConstantExpr):
            if not isinstance(value, ConstantExpr) or isinstance(value.value, bytes):
                break
            amount, number = left.right.value, value.value
            assert isinstance(amount, int)
            if left.op == "^":
                number ^= amount
            elif left.op == "<<":
                if number & ((1 << amount) - 1):
                    fail(value, "Comparison is always false")
                number >>= amount
            else:
                width = left.left.dtype.width
                if number >> max(width - amount, 0):
                    fail(value, "Comparison is always false")
                number <<= amount
                mask = ((1 << width) - 1) & ~((1 << amount) - 1)
                value = ConstantExpr(number, loc=value.loc, dtype=left.left.dtype)
                cut = ConstantExpr(mask, loc=left.right.loc, dtype=left.left.dtype)
                return BinopExpr("&", left.left, cut, loc=left.loc, dtype=left.left.dtype, width=width), value
            left = left.left
            value = ConstantExpr(number, loc=value.loc, dtype=left.dtype)
        return left, value

    # --- sets

    def _set_operator(self, node: RelationalExpr) -> str:
        if node.op not in ("", "==", "!="):
            fail(node, f"Relational expression ({node.op}) is undefined for set expressions")
        return node.op or "=="

    def _in_named(self, node: RelationalExpr, left: Expr, right: SetRefExpr) -> RelationalExpr:
        op = self._set_operator(node)
        ref = self.set_ref(right)
        self.need_same_key(left, ref)
        return RelationalExpr(op, left, ref, loc=node.loc)

    def _in_anonymous(self, node: RelationalExpr, left: Expr, right: SetExpr) -> RelationalExpr:
        op = self._set_operator(node)
        self.need_sized(left)
        dtype: Datatype = left.dtype
        if isinstance(left, ConcatExpr):
            assert isinstance(dtype, ConcatType)
        choices = self.anonymous_set(right, dtype)
        if len(right.elements) == 1 and len(choices.elements) == 1:
            only = choices.elements[0].key
            if isinstance(only, ConstantExpr | RangeExpr | PrefixExpr) and not choices.elements[0].stmts:
                return self._settled(node, op, left, only, False)
        if op == "==":
            for elem in choices.elements:
                self.learn(left, elem.key)
        return RelationalExpr(op, left, choices, loc=node.loc)

    def redundant(self, stmt: MatchStmt) -> bool:
        """Whether a match says what the family says of every packet (``meta protocol ip`` in ip)."""
        expr = stmt.expr
        if not isinstance(expr, RelationalExpr) or expr.op != "==" or not isinstance(expr.left, MetaExpr):
            return False
        wanted = _FAMILY_TYPE.get(self.family)
        return expr.left.key == "protocol" and isinstance(expr.right, ConstantExpr) and expr.right.value == wanted

    # --- protocols

    def learn(self, left: Expr, value: Expr) -> None:
        """Take what ``left == value`` tells about protocols into the context."""
        if not isinstance(value, ConstantExpr) or isinstance(value.value, bytes):
            if isinstance(left, PayloadExpr) and left.protocol in ("icmp", "icmpv6") and left.field == "type":
                self.icmp_types[left.protocol] = ()
            return
        number = value.value
        if isinstance(left, MetaExpr):
            if left.inner is None:
                meta_update(self.proto, left.key, number)
        elif isinstance(left, CtExpr):
            if left.key == "protocol":
                meta_update(self.proto, "l4proto", number)
            elif left.key == "l3proto":
                meta_update(self.proto, "nfproto", number)
        elif isinstance(left, PayloadExpr):
            self._learn_payload(left, number)

    def _learn_payload(self, left: PayloadExpr, number: int) -> None:
        if left.protocol in ("icmp", "icmpv6") and left.field == "type" and left.inner is None:
            self.icmp_types[left.protocol] = (*self.icmp_types.get(left.protocol, ()), number)
        row = proto.PROTOCOLS[left.protocol].fields[left.field]
        if row.is_key and left.protocol not in ("icmp", "icmpv6"):
            context = self.proto if left.inner is None else self.tunnels[left.inner]
            payload_update(context, row, number)


def _part_of_byte(node: Expr) -> bool:
    return isinstance(node, PayloadExpr) and (node.offset % 8 != 0 or node.width % 8 != 0)


def _word(node: Expr) -> str:
    return getattr(node, "name", "")
