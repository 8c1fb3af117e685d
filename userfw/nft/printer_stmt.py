"""Statements as nft 1.1.6 lists them.

Laws:
- State (counter values, quota use, last use) is shown unless the style is stateless.
- Every statement prints as one line but for a bound chain, whose lines are indented for the rule they stand in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from userfw.nft import syntax as s
from userfw.nft.printer_expr import PLAIN, Style, format_expr, format_time, quote

_UNITS: Final = ("bytes", "kbytes", "mbytes")
_DEFAULT_BURST: Final = 5
LOG_FLAGS_ALL: Final = frozenset(("tcp-sequence", "tcp-options", "ip-options", "skuid", "ether"))


def format_stmt(stmt: s.Stmt, style: Style = PLAIN) -> str:
    """The text of a statement."""
    return _PRINTERS[type(stmt)](stmt, style)


def in_units(value: int) -> tuple[int, str]:
    """Bytes in the largest unit that divides them (libnftables ``get_rate``)."""
    unit = 0
    while value and value % 1024 == 0 and unit < len(_UNITS) - 1:
        value //= 1024
        unit += 1
    return value, _UNITS[unit]


def format_bytes(value: int) -> str:
    """``25 mbytes``."""
    number, unit = in_units(value)
    return f"{number} {unit}"


def _match(stmt: s.MatchStmt, style: Style) -> str:
    return format_expr(stmt.expr, style)


def _mangle(stmt: s.MangleStmt, style: Style) -> str:
    return f"{format_expr(stmt.target, style)} set {format_expr(stmt.value, style)}"


def _optstrip(stmt: s.OptstripStmt, style: Style) -> str:
    return f"reset {format_expr(stmt.target, style)}"


def _notrack(stmt: s.NotrackStmt, style: Style) -> str:
    return "notrack"


def _counter(stmt: s.CounterStmt, style: Style) -> str:
    return "counter" if style.stateless else f"counter {format_counter(stmt)}"


def format_counter(stmt: s.CounterStmt) -> str:
    """``packets N bytes M``."""
    return f"packets {stmt.packets} bytes {stmt.bytes}"


def _quota(stmt: s.QuotaStmt, style: Style) -> str:
    return f"quota {format_quota(stmt, style)}"


def format_quota(stmt: s.QuotaStmt, style: Style) -> str:
    """``[over ]25 mbytes[ used 10 bytes]``."""
    used = f" used {format_bytes(stmt.used)}" if stmt.used and not style.stateless else ""
    return f"{'over ' if stmt.over else ''}{format_bytes(stmt.bytes)}{used}"


def _limit(stmt: s.LimitStmt, style: Style) -> str:
    text = f"limit {format_limit(stmt)}"
    if not stmt.bytes and stmt.burst in (None, _DEFAULT_BURST):
        text += f" burst {_DEFAULT_BURST} packets"
    return text


def format_limit(stmt: s.LimitStmt) -> str:
    """``rate [over ]…`` with the burst where it is not the default: the form of a named limit."""
    over = "over " if stmt.over else ""
    if not stmt.bytes:
        burst = "" if stmt.burst in (None, _DEFAULT_BURST) else f" burst {stmt.burst} packets"
        return f"rate {over}{stmt.rate}/{stmt.per}{burst}"
    burst = f" burst {format_bytes(stmt.burst)}" if stmt.burst else ""
    return f"rate {over}{format_bytes(stmt.rate)}/{stmt.per}{burst}"


def _last(stmt: s.LastStmt, style: Style) -> str:
    if style.stateless:
        return "last"
    return f"last used {'never' if stmt.used is None else format_time(stmt.used, style)}"


def _connlimit(stmt: s.ConnlimitStmt, style: Style) -> str:
    return f"ct count {'over ' if stmt.over else ''}{stmt.count}"


_OBJREF: Final = {
    "ct helper": "ct helper set",
    "ct timeout": "ct timeout set",
    "ct expectation": "ct expectation set",
    "secmark": "meta secmark set",
}


def _objref(stmt: s.ObjrefStmt, style: Style) -> str:
    head = _OBJREF.get(stmt.kind) or f"{stmt.kind} name"
    if isinstance(stmt.expr, s.SymbolExpr):
        return f"{head} {quote(stmt.expr.name)}"
    return f"{head} {format_expr(stmt.expr, style)}"


def _log(stmt: s.LogStmt, style: Style) -> str:
    text = "log"
    if stmt.prefix is not None:
        text += f" prefix {quote(stmt.prefix)}"
    if stmt.group is not None:
        text += f" group {stmt.group}"
    if stmt.snaplen is not None:
        text += f" snaplen {stmt.snaplen}"
    if stmt.queue_threshold is not None:
        text += f" queue-threshold {stmt.queue_threshold}"
    if stmt.level not in (None, "warn"):
        text += f" level {stmt.level}"
    return text + _log_flags(frozenset(stmt.flags))


def _log_flags(flags: frozenset[str]) -> str:
    if flags == LOG_FLAGS_ALL:
        return " flags all"
    text = ""
    tcp = [word for word in ("sequence", "options") if f"tcp-{word}" in flags]
    if tcp:
        text += f" flags tcp {','.join(tcp)}"
    if "ip-options" in flags:
        text += " flags ip options"
    if "skuid" in flags:
        text += " flags skuid"
    if "ether" in flags:
        text += " flags ether"
    return text


def _reject(stmt: s.RejectStmt, style: Style) -> str:
    if stmt.kind is None:
        return "reject"
    if stmt.code is None:
        return f"reject with {stmt.kind}"
    return f"reject with {stmt.kind} {format_expr(stmt.code, style)}"


def _address(expr: s.Expr, style: Style) -> str:
    """An address, in brackets where a port after it could be taken for a part of it."""
    if isinstance(expr, s.RangeExpr):
        return f"{_address(expr.left, style)}-{_address(expr.right, style)}"
    text = format_expr(expr, style)
    if isinstance(expr, s.ConstantExpr | s.SymbolExpr | s.PrefixExpr) and ":" in text:
        host, slash, length = text.partition("/")
        return f"[{host}]{slash}{length}"
    return text


def _address_port(addr: s.Expr | None, port: s.Expr | None, style: Style, brackets: bool = False) -> str:
    if addr is None:
        text = ""
    elif port is not None or brackets:
        text = _address(addr, style)
    else:
        text = format_expr(addr, style)
    return text if port is None else f"{text}:{format_expr(port, style)}"


def _nat(stmt: s.NatStmt, style: Style) -> str:
    text = stmt.kind
    if stmt.addr is not None or stmt.port is not None:
        if stmt.family is not None and stmt.kind in ("snat", "dnat"):
            text += f" {stmt.family}"
        if stmt.form == "prefix":
            text += " prefix"
        text += f" to {_address_port(stmt.addr, stmt.port, style)}"
    if stmt.flags:
        text += f" {','.join(stmt.flags)}"
    return text


def _tproxy(stmt: s.TproxyStmt, style: Style) -> str:
    family = "" if stmt.family is None else f" {stmt.family}"
    return f"tproxy{family} to {_address_port(stmt.addr, stmt.port, style, brackets=True)}"


def _synproxy(stmt: s.SynproxyStmt, style: Style) -> str:
    return " ".join(["synproxy", *synproxy_options(stmt)])


def synproxy_options(stmt: s.SynproxyStmt) -> list[str]:
    """The options of a synproxy, each as one piece of text."""
    options = []
    if stmt.mss is not None and stmt.wscale is not None:
        options += [f"mss {stmt.mss}", f"wscale {stmt.wscale}"]
    elif stmt.mss is not None:
        options.append(f"mss {stmt.mss}")
    elif stmt.wscale is not None:
        options.append(f"wscale {stmt.wscale}")
    flags = [word for word, on in (("timestamp", stmt.timestamp), ("sack-perm", stmt.sack_perm)) if on]
    if flags:
        options.append(" ".join(flags))
    return options


def _dup(stmt: s.DupStmt, style: Style) -> str:
    device = "" if stmt.dev is None else f" device {format_expr(stmt.dev, style)}"
    return f"dup to {format_expr(stmt.to, style)}{device}"


def _fwd(stmt: s.FwdStmt, style: Style) -> str:
    if stmt.addr is None:
        return f"fwd to {format_expr(stmt.dev, style)}"
    return f"fwd {stmt.family} to {format_expr(stmt.addr, style)} device {format_expr(stmt.dev, style)}"


def _queue(stmt: s.QueueStmt, style: Style) -> str:
    flags = f" flags {','.join(stmt.flags)}" if stmt.flags else ""
    return f"queue{flags} to {'0' if stmt.expr is None else format_expr(stmt.expr, style)}"


def _flow(stmt: s.FlowStmt, style: Style) -> str:
    return f"flow add @{stmt.name}"


def _with_stmts(elem: s.SetElemExpr, stmts: list[s.Stmt], style: Style) -> str:
    """The element of a dynamic set; its statements are a pattern and have no state (libnftables: set_stmt_print)."""
    style = replace(style, stateless=True)
    return " ".join([format_expr(elem, style), *(format_stmt(stmt, style) for stmt in stmts)])


def _set_update(stmt: s.SetUpdateStmt, style: Style) -> str:
    return f"{stmt.op} @{stmt.set.name} {{ {_with_stmts(stmt.elem, stmt.stmts, style)} }}"


def _map_update(stmt: s.MapUpdateStmt, style: Style) -> str:
    head = f"{stmt.op} @{stmt.map.name} {{ {_with_stmts(stmt.elem, stmt.stmts, style)}"
    return f"{head} : {format_expr(stmt.data, style)} }}"


def _meter(stmt: s.MeterStmt, style: Style) -> str:
    size = "" if stmt.size is None else f" size {stmt.size}"
    return f"meter {stmt.name}{size} {{ {_with_stmts(stmt.elem, stmt.stmts, style)} }}"


def _xt(stmt: s.XtStmt, style: Style) -> str:
    return f"xt {stmt.kind} {quote(stmt.name)}"


_PRINTERS: Final[dict[type[s.Stmt], Callable[[Any, Style], str]]] = {
    s.MatchStmt: _match,
    s.VerdictStmt: _match,
    s.MangleStmt: _mangle,
    s.OptstripStmt: _optstrip,
    s.NotrackStmt: _notrack,
    s.CounterStmt: _counter,
    s.QuotaStmt: _quota,
    s.LimitStmt: _limit,
    s.LastStmt: _last,
    s.ConnlimitStmt: _connlimit,
    s.ObjrefStmt: _objref,
    s.LogStmt: _log,
    s.RejectStmt: _reject,
    s.NatStmt: _nat,
    s.TproxyStmt: _tproxy,
    s.SynproxyStmt: _synproxy,
    s.DupStmt: _dup,
    s.FwdStmt: _fwd,
    s.QueueStmt: _queue,
    s.FlowStmt: _flow,
    s.SetUpdateStmt: _set_update,
    s.MapUpdateStmt: _map_update,
    s.MeterStmt: _meter,
    s.XtStmt: _xt,
}
