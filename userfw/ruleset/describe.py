"""`describe`: what an expression or a data type is (libnftables: expr_describe, symbol_table_print)."""

from __future__ import annotations

from typing import Any

from userfw.nft.check_context import ChainInfo, NothingThere
from userfw.nft.check_stmt import RuleChecker
from userfw.nft.datatype import ProtocolType
from userfw.nft.datatype_tables import TYPES
from userfw.nft.location import NftError
from userfw.nft.syntax import Command, ConstantExpr, DescribeSpec, Expr, SymbolExpr

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
    "ExthdrExpr": "exthdr expression",
    "TcpOptionExpr": "exthdr expression",
    "IpOptionExpr": "exthdr expression",
    "SctpChunkExpr": "exthdr expression",
    "DccpOptionExpr": "exthdr expression",
    "XfrmExpr": "ipsec expression",
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
    checked = _checked(expr)
    return _type(checked.dtype, _KINDS.get(type(checked).__name__, "expression"), _width(checked))


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
    return int(expr.width or getattr(expr.dtype, "width", 0))


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
    if width:
        text += f", {width // 8} characters" if dtype.is_string else f", {width} bits"
    text += "\n"
    return text + _symbols(dtype, width) if dtype.symbols else text


def _symbols(dtype: Any, width: int) -> str:
    """The names of a type's values. Protocols come without a heading, as nft prints them."""
    if isinstance(dtype, ProtocolType):
        first = {value: word for word, value in reversed(dtype.symbols.items())}
        return "".join(f"\t{word:<30}\t{value}\n" for word, value in dtype.symbols.items() if first[value] == word)
    hexadecimal = dtype.hexadecimal or dtype.is_bitmask
    lines = [f"\npre-defined symbolic constants (in {'hexadecimal' if hexadecimal else 'decimal'}):\n"]
    digits = max(2, (width or dtype.width) // 4)
    for word, value in dtype.symbols.items():
        number = f"0x{value:0{digits}x}" if hexadecimal else f"{value:>20}"
        lines.append(f"\t{word:<30}\t{number}\n")
    return "".join(lines)
