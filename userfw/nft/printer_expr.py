"""Expressions as nft 1.1.6 lists them.

Laws:
- The input is a checked tree; values print themselves through their data type. An untyped tree prints as it was written,
  which is what error messages and traces need.
- One function per node class, found in ``_PRINTERS``; a class without one is an error at once, not an empty string.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from userfw.nft import syntax as s
from userfw.nft.datatype import IPv4Type, Output
from userfw.nft.element_run import ElementRun

NEVER: Final = -1


@dataclass(frozen=True)
class Style:
    """How a listing is made: ``nft -a`` (handles), ``-s`` (stateless), ``-t`` (terse), and the numeric options in ``out``.
    ``family`` is set by those who know it: JSON spells out what text leaves to the table."""

    out: Output = field(default_factory=Output)
    stateless: bool = False
    handles: bool = False
    terse: bool = False
    family: str | None = None

    def for_range(self) -> Style:
        return replace(self, out=self.out.for_range())


PLAIN: Final = Style()

_UNQUALIFIED: Final = frozenset(("iif", "iifname", "iifgroup", "oif", "oifname", "oifgroup"))
_RANK: Final = {"|": 1, "^": 2, "&": 3, "<<": 4, ">>": 4}


def quote(text: str) -> str:
    """A string as a quoted token."""
    return f'"{text}"'


def format_time(milliseconds: int, style: Style = PLAIN) -> str:
    """``1d2h3m4s5ms``, or whole seconds with ``-T`` (libnftables ``time_print``)."""
    if style.out.numeric_time:
        return f"{milliseconds // 1000}s"
    days, rest = divmod(milliseconds, 86_400_000)
    hours, rest = divmod(rest, 3_600_000)
    minutes, rest = divmod(rest, 60_000)
    seconds, rest = divmod(rest, 1000)
    parts = ((days, "d"), (hours, "h"), (minutes, "m"), (seconds, "s"), (rest, "ms"))
    return "".join(f"{value}{unit}" for value, unit in parts if value) or "0s"


def format_expr(expr: s.Expr, style: Style = PLAIN) -> str:
    """The text of an expression."""
    return _PRINTERS[type(expr)](expr, style)


def format_value(value: int | bytes, dtype: Any, style: Style) -> str:
    """The text of a constant. A star that ends a string is escaped, or it would read as a wildcard."""
    if isinstance(value, bytes) and value.endswith(b"*"):
        return quote(value[:-1].decode("utf-8", "surrogateescape") + "\\*")
    if dtype is not None:
        return str(dtype.format(value, style.out))
    if isinstance(value, bytes):
        return quote(value.decode("utf-8", "surrogateescape"))
    return str(value)


# --- values


def _constant(expr: s.ConstantExpr, style: Style) -> str:
    return format_value(expr.value, expr.dtype, style)


def _symbol(expr: s.SymbolExpr, style: Style) -> str:
    return quote(expr.name) if expr.quoted else expr.name


def _range(expr: s.RangeExpr, style: Style) -> str:
    inner = style.for_range()
    return f"{format_expr(expr.left, inner)}-{format_expr(expr.right, inner)}"


def _prefix(expr: s.PrefixExpr, style: Style) -> str:
    if isinstance(expr.expr, s.ConstantExpr) and isinstance(expr.expr.value, bytes):
        return quote(expr.expr.value.decode("utf-8", "surrogateescape") + "*")
    return f"{format_expr(expr.expr, style.for_range())}/{expr.length}"


def _catch_all(expr: s.CatchAllExpr, style: Style) -> str:
    return "*"


def _list(expr: s.ListExpr, style: Style) -> str:
    return ",".join(format_expr(item, style) for item in expr.items)


def _concat(expr: s.ConcatExpr, style: Style) -> str:
    return " . ".join(format_expr(item, style) for item in expr.items)


def _set(expr: s.SetExpr, style: Style) -> str:
    if not expr.elements:
        return "{ }"
    return "{ " + ", ".join(element_texts(expr.elements, style)) + " }"


def catch_all_last(elements: Sequence[s.SetElemExpr]) -> Sequence[s.SetElemExpr]:
    """The elements in the order of a listing: ``*`` comes last, as the kernel hands it out."""
    if isinstance(elements, ElementRun):
        return elements
    for at, element in enumerate(elements):
        if type(element.key) is s.CatchAllExpr:
            return [*elements[:at], *elements[at + 1 :], element]
    return elements


def element_texts(elements: Sequence[s.SetElemExpr], style: Style) -> list[str]:
    """Each element as text, in the order of a listing."""
    if isinstance(elements, ElementRun) and type(elements.dtype) is IPv4Type and not style.out.marked:
        return elements.texts()
    return [format_expr(element, style) for element in catch_all_last(elements)]


def _element(expr: s.SetElemExpr, style: Style) -> str:
    text = format_expr(expr.key, style)
    if expr.stmts or expr.timeout is not None or expr.expires is not None or expr.comment is not None:
        text += _element_options(expr, style)
    if expr.data is not None:
        text += f" : {format_expr(expr.data, style)}"
    return text


def _element_options(expr: s.SetElemExpr, style: Style) -> str:
    from userfw.nft.printer_stmt import format_stmt

    text = "".join(f" {format_stmt(stmt, style)}" for stmt in expr.stmts)
    if expr.timeout:
        text += f" timeout {'never' if expr.timeout == NEVER else format_time(expr.timeout, style)}"
    if expr.expires and not style.stateless:
        text += f" expires {format_time(expr.expires, style)}"
    if expr.comment is not None:
        text += f" comment {quote(expr.comment)}"
    return text


def _set_reference(expr: s.SetRefExpr, style: Style) -> str:
    return f"@{expr.name}"


def _verdict(expr: s.VerdictExpr, style: Style) -> str:
    if expr.block is not None:
        from userfw.nft.printer import format_bound_chain

        return f"{expr.kind} {format_bound_chain(expr.block, style)}"
    return expr.kind if expr.chain is None else f"{expr.kind} {expr.chain}"


# --- operators


def _operand(expr: s.Expr, rank: int, style: Style, right: bool) -> str:
    text = format_expr(expr, style)
    if isinstance(expr, s.BinopExpr):
        inner = _RANK[expr.op]
        if inner < rank or (right and inner == rank):
            return f"({text})"
    elif isinstance(expr, s.ListExpr):
        return f"({' | '.join(format_expr(item, style) for item in expr.items)})"
    return text


def _binop(expr: s.BinopExpr, style: Style) -> str:
    rank = _RANK[expr.op]
    return f"{_operand(expr.left, rank, style, False)} {expr.op} {_operand(expr.right, rank, style, True)}"


def _unary(expr: s.UnaryExpr, style: Style) -> str:
    return format_expr(expr.arg, style)


def _shows_equal(expr: s.RelationalExpr) -> bool:
    """Whether ``==`` is written out (libnftables ``must_print_eq_op``)."""
    if isinstance(expr.left, s.BinopExpr):
        return True
    dtype = expr.right.dtype
    if dtype is None:
        return isinstance(expr.right, s.ConstantExpr | s.SymbolExpr)
    return bool(dtype.is_bitmask) and isinstance(expr.right, s.ConstantExpr)


def _relational(expr: s.RelationalExpr, style: Style) -> str:
    left, right = format_expr(expr.left, style), format_expr(expr.right, style)
    op = expr.op
    if op == "" or (op == "==" and not _shows_equal(expr)):
        return f"{left} {right}"
    return f"{left} {op} {right}"


def _flagcmp(expr: s.FlagcmpExpr, style: Style) -> str:
    """1.1.6 lists ``a flags / mask`` as a mask and a comparison."""
    left = format_expr(expr.expr, style)
    mask = _operand(_alternatives(expr.mask), 3, style, True)
    value = format_expr(_alternatives(expr.value), style)
    return f"{left} & {mask} {expr.op} {value}"


def _alternatives(expr: s.Expr) -> s.Expr:
    """``a,b`` as ``a | b``."""
    if not isinstance(expr, s.ListExpr):
        return expr
    result = expr.items[0]
    for item in expr.items[1:]:
        result = s.BinopExpr("|", result, item)
    return result


def _map(expr: s.MapExpr, style: Style) -> str:
    return f"{format_expr(expr.key, style)} {'vmap' if expr.vmap else 'map'} {format_expr(expr.mapping, style)}"


# --- loads


def _inner(inner: str | None) -> str:
    return "" if inner is None else f"{inner} "


def _payload(expr: s.PayloadExpr, style: Style) -> str:
    if expr.inner == expr.protocol:
        return f"{expr.protocol} {expr.field}"
    return f"{_inner(expr.inner)}{expr.protocol} {expr.field}"


def _raw_payload(expr: s.RawPayloadExpr, style: Style) -> str:
    return f"{_inner(expr.inner)}@{expr.base},{expr.offset},{expr.length}"


def _exthdr(expr: s.ExthdrExpr, style: Style) -> str:
    return f"exthdr {expr.header}" if expr.field is None else f"{expr.header} {expr.field}"


def _optional(head: str, field_name: str | None) -> str:
    return head if field_name is None else f"{head} {field_name}"


def _ip_option(expr: s.IpOptionExpr, style: Style) -> str:
    return _optional(f"ip option {expr.option}", expr.field)


def _tcp_option(expr: s.TcpOptionExpr, style: Style) -> str:
    if expr.raw is not None:
        return f"tcp option @{expr.option},{expr.raw[0]},{expr.raw[1]}"
    return _optional(f"tcp option {expr.option}", expr.field)


def _sctp_chunk(expr: s.SctpChunkExpr, style: Style) -> str:
    return _optional(f"sctp chunk {expr.chunk}", expr.field)


def _dccp_option(expr: s.DccpOptionExpr, style: Style) -> str:
    return f"dccp option {expr.number}"


def _meta(expr: s.MetaExpr, style: Style) -> str:
    name = expr.key if expr.key in _UNQUALIFIED else f"meta {expr.key}"
    return f"{_inner(expr.inner)}{name}"


def _words(*words: str | None) -> str:
    return " ".join(word for word in words if word)


def _ct(expr: s.CtExpr, style: Style) -> str:
    return _words("ct", expr.direction, expr.family, expr.key)


def _rt(expr: s.RtExpr, style: Style) -> str:
    return _words("rt", expr.family, expr.key)


def _fib(expr: s.FibExpr, style: Style) -> str:
    return f"fib {' . '.join(expr.flags)} {expr.result}"


def _socket(expr: s.SocketExpr, style: Style) -> str:
    return f"socket {expr.key}" if expr.level is None else f"socket {expr.key} level {expr.level}"


def _osf(expr: s.OsfExpr, style: Style) -> str:
    return f"osf {expr.key}" if expr.ttl is None else f"osf ttl {expr.ttl} {expr.key}"


def _offset(offset: int) -> str:
    return f" offset {offset}" if offset else ""


def _numgen(expr: s.NumgenExpr, style: Style) -> str:
    return f"numgen {expr.mode} mod {expr.modulus}{_offset(expr.offset)}"


def _hash(expr: s.HashExpr, style: Style) -> str:
    if expr.expr is None:
        return f"symhash mod {expr.modulus}{_offset(expr.offset)}"
    seed = "" if expr.seed is None else f" seed 0x{expr.seed:x}"
    return f"jhash {format_expr(expr.expr, style)} mod {expr.modulus}{seed}{_offset(expr.offset)}"


def _xfrm(expr: s.XfrmExpr, style: Style) -> str:
    return _words("ipsec", expr.direction, f"spnum {expr.spnum}" if expr.spnum else None, expr.family, expr.key)


def _tunnel(expr: s.TunnelExpr, style: Style) -> str:
    return f"tunnel {expr.key}"


def _type(expr: s.TypeExpr, style: Style) -> str:
    return " . ".join(expr.names)


def _typeof(expr: s.TypeofExpr, style: Style) -> str:
    return format_expr(expr.expr, style)


_PRINTERS: Final[dict[type[s.Expr], Callable[[Any, Style], str]]] = {
    s.ConstantExpr: _constant,
    s.SymbolExpr: _symbol,
    s.RangeExpr: _range,
    s.PrefixExpr: _prefix,
    s.CatchAllExpr: _catch_all,
    s.ListExpr: _list,
    s.ConcatExpr: _concat,
    s.SetExpr: _set,
    s.SetElemExpr: _element,
    s.SetRefExpr: _set_reference,
    s.VerdictExpr: _verdict,
    s.BinopExpr: _binop,
    s.UnaryExpr: _unary,
    s.RelationalExpr: _relational,
    s.FlagcmpExpr: _flagcmp,
    s.MapExpr: _map,
    s.PayloadExpr: _payload,
    s.RawPayloadExpr: _raw_payload,
    s.ExthdrExpr: _exthdr,
    s.IpOptionExpr: _ip_option,
    s.TcpOptionExpr: _tcp_option,
    s.SctpChunkExpr: _sctp_chunk,
    s.DccpOptionExpr: _dccp_option,
    s.MetaExpr: _meta,
    s.CtExpr: _ct,
    s.RtExpr: _rt,
    s.FibExpr: _fib,
    s.SocketExpr: _socket,
    s.OsfExpr: _osf,
    s.NumgenExpr: _numgen,
    s.HashExpr: _hash,
    s.XfrmExpr: _xfrm,
    s.TunnelExpr: _tunnel,
    s.TypeExpr: _type,
    s.TypeofExpr: _typeof,
}
