"""`describe`: what an expression or a data type is (libnftables: expr_describe, symbol_table_print)."""

from __future__ import annotations

from typing import Any

from userfw.nft import proto
from userfw.nft.check_context import ChainInfo, NothingThere
from userfw.nft.check_stmt import RuleChecker
from userfw.nft.datatype import ProtocolType
from userfw.nft.datatype_tables import BOOLEAN, TYPES, integer
from userfw.nft.datatype_time import DAYS, DayType
from userfw.nft.location import NftError
from userfw.nft.syntax import (
    Command,
    ConstantExpr,
    CtExpr,
    DescribeSpec,
    Expr,
    ExthdrExpr,
    MetaExpr,
    PayloadExpr,
    RtExpr,
    SocketExpr,
    SymbolExpr,
)

_OPTION = "exthdr expression"
_KINDS = {
    "PayloadExpr": "payload expression",
    "RawPayloadExpr": "payload expression",
    "MetaExpr": "meta expression",
    "CtExpr": "ct expression",
    "RtExpr": "rt expression",
    "FibExpr": "fib expression",
    "SocketExpr": "socket expression",
    "OsfExpr": "osf expression",
    "NumgenExpr": "numgen expression",
    "HashExpr": "hash expression",
    "ExthdrExpr": _OPTION,
    "TcpOptionExpr": _OPTION,
    "IpOptionExpr": _OPTION,
    "SctpChunkExpr": _OPTION,
    "DccpOptionExpr": _OPTION,
    "XfrmExpr": "xfrm expression",
    "TunnelExpr": "tunnel expression",
    "ConcatExpr": "concat expression",
}


_FAMILIES = ("ip", "inet", "bridge", "netdev", "arp", "ip6")


def describe(command: Command) -> str:
    """The description of a `describe` command. NftError if the expression means nothing in any family."""
    node = command.node
    assert isinstance(node, DescribeSpec)
    expr = node.expr
    if isinstance(expr, SymbolExpr | ConstantExpr):
        dtype = TYPES.get(expr.name) if isinstance(expr, SymbolExpr) else None
        if dtype is None:
            return "symbol expression, datatype invalid (invalid)\n"
        return _type(dtype, "", dtype.width)
    kind = _KINDS.get(type(expr).__name__, "expression")
    if isinstance(expr, RtExpr | CtExpr) and _depends_on_family(expr):
        return f"{kind}, datatype invalid (invalid)\n"
    if isinstance(expr, PayloadExpr):
        row = proto.field(expr.protocol, expr.field)
        if row is not None:
            return _type(row.dtype, kind, row.width)
    checked = _checked(expr)
    kind = _KINDS.get(type(checked).__name__, "expression")
    if checked.dtype is BOOLEAN and kind == _OPTION:  # whether it is there: nft describes the byte that says so
        return _type(TYPES["inet_proto"] if isinstance(checked, ExthdrExpr) else integer(8), kind, 8)
    return _type(checked.dtype, kind, _width(checked))


def _depends_on_family(expr: RtExpr | CtExpr) -> bool:
    if isinstance(expr, RtExpr):
        return expr.key == "nexthop" and expr.family is None
    return expr.key in ("saddr", "daddr") and expr.direction is not None and expr.family is None


def _checked(expr: Expr) -> Expr:
    problem: NftError | None = None
    for family in _FAMILIES:
        try:
            return RuleChecker(family, ChainInfo(), NothingThere()).lhs(expr)
        except NftError as error:
            problem = problem or error
    assert problem is not None
    raise problem


def _width(expr: Expr) -> int:
    width = int(expr.width or getattr(expr.dtype, "width", 0))
    return max(width, 8) if isinstance(expr, SocketExpr | MetaExpr | RtExpr) else width


def _type(dtype: Any, kind: str, width: int) -> str:
    text = f"{kind}, " if kind else ""
    text += f"datatype {dtype.name} ({dtype.desc})"
    bases = []
    base = dtype.base
    while base is not None:
        bases.append(base.desc)
        base = base.base
    if bases:
        text += f" (basetype {', '.join(bases)})"
    if kind and dtype.is_string:
        text += f", {width // 8} characters" if width else ", dynamic length"
    else:
        text += f", {width} bits"
    text += "\n"
    return text + _symbols(dtype, width) if _names(dtype) else text


def _names(dtype: Any) -> dict[str, int]:
    """The names of a type's values."""
    return {day: number for number, day in enumerate(DAYS)} if isinstance(dtype, DayType) else dtype.symbols


def _symbols(dtype: Any, width: int) -> str:
    """The names of a type's values. Protocols come without a heading, as nft prints them."""
    if isinstance(dtype, ProtocolType):
        first = {value: word for word, value in reversed(dtype.symbols.items())}
        return "".join(f"\t{word:<30}\t{value}\n" for word, value in dtype.symbols.items() if first[value] == word)
    hexadecimal = dtype.hexadecimal or dtype.is_bitmask
    lines = [f"\npre-defined symbolic constants (in {'hexadecimal' if hexadecimal else 'decimal'}):\n"]
    digits = max(2, (width or dtype.width) // 4)
    for word, value in _names(dtype).items():
        number = f"0x{value:0{digits}x}" if hexadecimal else f"{value:>20}"
        lines.append(f"\t{word:<30}\t{number}\n")
    return "".join(lines)
