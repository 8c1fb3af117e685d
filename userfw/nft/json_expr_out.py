"""Expressions and statements as libnftables-json(5) objects.

Laws:
- The input is a checked tree; numbers of integer types become JSON numbers, names strings, booleans booleans, as nft 1.1.6 does.
- One function per node class. What JSON cannot say (a bound chain) is its text, as nft itself does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Final

from userfw.nft import syntax as s
from userfw.nft.datatype import IPv4Type
from userfw.nft.element_run import ElementRun
from userfw.nft.printer_expr import NEVER, PLAIN, Style, catch_all_last, format_expr
from userfw.nft.printer_stmt import LOG_FLAGS_ALL, in_units

Json = Any

_HEX: Final = re.compile(r"0x[0-9a-f]+\Z")
_LIMIT_U64: Final = 1 << 64
_REJECTS: Final = {"ip": "icmp", "ip6": "icmpv6"}
_TUNNELED: Final = frozenset(("vxlan", "geneve", "gretap"))


def expr_json(expr: s.Expr, style: Style = PLAIN) -> Json:
    """The JSON of an expression."""
    return _EXPRS[type(expr)](expr, style)


def stmt_json(stmt: s.Stmt, style: Style = PLAIN) -> Json:
    """The JSON of a statement."""
    return _STMTS[type(stmt)](stmt, style)


# --- values


def value_json(text: str) -> Json:
    """A printed value: numbers as numbers, words and addresses as strings."""
    if text[:1] == '"':
        return text[1:-1]
    if text.isdecimal():
        value = int(text)
    elif text[:2] == "0x" and _HEX.match(text):
        value = int(text, 16)
    else:
        return text
    return value if value < _LIMIT_U64 else f"0x{value:x}"


def _constant(expr: s.ConstantExpr, style: Style) -> Json:
    dtype = expr.dtype
    if dtype is not None:
        if dtype.name == "boolean":
            return bool(expr.value)
        if dtype.name == "time" and dtype.width == 32 and isinstance(expr.value, int):
            return expr.value // 1000  # a duration; a date of 64 bits is its text
        if dtype.name == "iface_index":
            return format_expr(expr, style).strip('"')  # an index without a name is a string too
    return value_json(format_expr(expr, style))


def _symbol(expr: s.SymbolExpr, style: Style) -> Json:
    return expr.name


def _range(expr: s.RangeExpr, style: Style) -> Json:
    return {"range": [expr_json(expr.left, style), expr_json(expr.right, style)]}


def _prefix(expr: s.PrefixExpr, style: Style) -> Json:
    if isinstance(expr.expr, s.ConstantExpr) and isinstance(expr.expr.value, bytes):
        return expr.expr.value.decode("utf-8", "surrogateescape") + "*"
    return {"prefix": {"addr": expr_json(expr.expr, style), "len": expr.length}}


def _catch_all(expr: s.CatchAllExpr, style: Style) -> Json:
    return "*"


def _list(expr: s.ListExpr, style: Style) -> Json:
    return [expr_json(item, style) for item in expr.items]


def _concat(expr: s.ConcatExpr, style: Style) -> Json:
    return {"concat": [expr_json(item, style) for item in expr.items]}


def _set(expr: s.SetExpr, style: Style) -> Json:
    return {"set": elements_json(expr.elements, style)}


def elements_json(elements: Sequence[s.SetElemExpr], style: Style) -> list[Json]:
    """All elements in the order of a listing."""
    if isinstance(elements, ElementRun) and type(elements.dtype) is IPv4Type and not style.out.marked:
        return [_address(text) for text in elements.texts()]
    return [element_json(element, style) for element in catch_all_last(elements)]


def _address(text: str) -> Json:
    """An address, prefix or range of addresses from its text."""
    address, slash, length = text.partition("/")
    if slash:
        return {"prefix": {"addr": address, "len": int(length)}}
    first, dash, last = text.partition("-")
    return {"range": [first, last]} if dash else text


def element_json(element: s.SetElemExpr, style: Style) -> Json:
    """An element: its value, ``[key, data]``, with an ``elem`` object around the key when there is more to say."""
    key = _element(element, style)
    return key if element.data is None else [key, expr_json(element.data, style)]


def _element(expr: s.SetElemExpr, style: Style) -> Json:
    key = expr_json(expr.key, style)
    more: dict[str, Json] = {}
    if expr.timeout:
        more["timeout"] = "never" if expr.timeout == NEVER else expr.timeout // 1000
    if expr.expires and not style.stateless:
        more["expires"] = expr.expires // 1000
    if expr.comment is not None:
        more["comment"] = expr.comment
    for stmt in expr.stmts:
        more.update(stmt_json(stmt, style))
    return {"elem": {"val": key, **more}} if more else key


def _set_reference(expr: s.SetRefExpr, style: Style) -> Json:
    return f"@{expr.name}"


def _verdict(expr: s.VerdictExpr, style: Style) -> Json:
    if expr.block is not None:
        return format_expr(expr, style)
    return {expr.kind: None if expr.chain is None else {"target": expr.chain}}


# --- operators


def _binop(expr: s.BinopExpr, style: Style) -> Json:
    items: list[Json] = []
    node: s.Expr = expr
    while isinstance(node, s.BinopExpr) and node.op == expr.op:
        items.append(expr_json(node.right, style))
        node = node.left
    items.append(expr_json(node, style))
    return {expr.op: items[::-1]}


def _unary(expr: s.UnaryExpr, style: Style) -> Json:
    return expr_json(expr.arg, style)


def _relational(expr: s.RelationalExpr, style: Style) -> Json:
    left: s.Expr = expr.left
    op = expr.op
    if isinstance(left, s.FibExpr) and left.result == "check":
        left = s.FibExpr(left.flags, "oif")  # nft's word for the existence of a route in a match
    if (op == "" and _tests_bits(expr)) or (op != "!=" and _over_midnight(expr.right)):
        op = "in"
    return {"op": op or "==", "left": expr_json(left, style), "right": expr_json(expr.right, style)}


def _tests_bits(expr: s.RelationalExpr) -> bool:
    if isinstance(expr.right, s.ListExpr):
        return True
    dtype = expr.right.dtype
    return dtype is not None and bool(dtype.is_bitmask) and isinstance(expr.right, s.ConstantExpr | s.BinopExpr)


def _over_midnight(expr: s.Expr) -> bool:
    """Whether a range of hours ends before it begins, in UTC."""
    if not isinstance(expr, s.RangeExpr):
        return False
    left, right = expr.left, expr.right
    if not isinstance(left, s.ConstantExpr) or not isinstance(right, s.ConstantExpr):
        return False
    low, high = left.value, right.value
    return isinstance(low, int) and isinstance(high, int) and low > high


def _alternatives(expr: s.Expr, style: Style) -> Json:
    if isinstance(expr, s.ListExpr):
        return {"|": [expr_json(item, style) for item in expr.items]}
    return expr_json(expr, style)


def _flagcmp(expr: s.FlagcmpExpr, style: Style) -> Json:
    left = {"&": [expr_json(expr.expr, style), _alternatives(expr.mask, style)]}
    return {"op": expr.op, "left": left, "right": _alternatives(expr.value, style)}


def _map(expr: s.MapExpr, style: Style) -> Json:
    body = {"key": expr_json(expr.key, style), "data": expr_json(expr.mapping, style)}
    return {"vmap" if expr.vmap else "map": body}


# --- loads


def _payload(expr: s.PayloadExpr, style: Style) -> Json:
    body = {"protocol": expr.protocol, "field": expr.field}
    tunnel = expr.inner or (expr.protocol if expr.protocol in _TUNNELED else None)
    if tunnel is not None:
        body["tunnel"] = tunnel
    return {"payload": body}


def _raw_payload(expr: s.RawPayloadExpr, style: Style) -> Json:
    return {"payload": {"base": expr.base, "offset": expr.offset, "len": expr.length}}


def _named(kind: str, name: Json, field: str | None) -> Json:
    return {kind: {"name": name} if field is None else {"name": name, "field": field}}


def _exthdr(expr: s.ExthdrExpr, style: Style) -> Json:
    if expr.field is not None and expr.header == "rt0" and expr.field.startswith("addr["):
        return {"exthdr": {"name": "rt0", "field": "addr", "offset": int(expr.field[5:-1])}}
    return _named("exthdr", expr.header, expr.field)


def _ip_option(expr: s.IpOptionExpr, style: Style) -> Json:
    return _named("ip option", expr.option, expr.field)


def _tcp_option(expr: s.TcpOptionExpr, style: Style) -> Json:
    if expr.raw is not None:
        return {"tcp option": {"base": expr.option, "offset": expr.raw[0], "len": expr.raw[1]}}
    if isinstance(expr.option, int):
        return {"tcp option": {"base": expr.option, "offset": 0, "len": 8}}
    return _named("tcp option", expr.option, expr.field)


def _sctp_chunk(expr: s.SctpChunkExpr, style: Style) -> Json:
    return _named("sctp chunk", expr.chunk, expr.field)


def _dccp_option(expr: s.DccpOptionExpr, style: Style) -> Json:
    return {"dccp option": {"type": expr.number}}


def _meta(expr: s.MetaExpr, style: Style) -> Json:
    return {"meta": {"key": expr.key}}


def _ct(expr: s.CtExpr, style: Style) -> Json:
    body: dict[str, Json] = {"key": expr.key if expr.family is None or expr.implied else f"{expr.family} {expr.key}"}
    if expr.direction is not None:
        body["dir"] = expr.direction
    return {"ct": body}


def _rt(expr: s.RtExpr, style: Style) -> Json:
    return {"rt": {"key": expr.key} if expr.family is None else {"key": expr.key, "family": expr.family}}


def _fib(expr: s.FibExpr, style: Style) -> Json:
    return {"fib": {"result": expr.result, "flags": _flags(expr.flags)}}


def _socket(expr: s.SocketExpr, style: Style) -> Json:
    return {"socket": {"key": expr.key} if expr.level is None else {"key": expr.key, "level": expr.level}}


def _osf(expr: s.OsfExpr, style: Style) -> Json:
    return {"osf": {"key": expr.key} if expr.ttl is None else {"key": expr.key, "ttl": expr.ttl}}


def _numgen(expr: s.NumgenExpr, style: Style) -> Json:
    return {"numgen": {"mode": expr.mode, "mod": expr.modulus, "offset": expr.offset}}


def _hash(expr: s.HashExpr, style: Style) -> Json:
    body: dict[str, Json] = {"mod": expr.modulus}
    if expr.expr is not None:
        body["expr"] = expr_json(expr.expr, style)
    if expr.seed is not None:
        body["seed"] = expr.seed
    if expr.offset:
        body["offset"] = expr.offset
    return {expr.kind: body}


def _xfrm(expr: s.XfrmExpr, style: Style) -> Json:
    body: dict[str, Json] = {"key": expr.key, "dir": expr.direction, "spnum": expr.spnum}
    if expr.family is not None:
        body["family"] = expr.family
    return {"ipsec": body}


def _tunnel(expr: s.TunnelExpr, style: Style) -> Json:
    return {"tunnel": {"key": expr.key}}


def _type(expr: s.TypeExpr, style: Style) -> Json:
    return expr.names[0] if len(expr.names) == 1 else list(expr.names)


def _typeof(expr: s.TypeofExpr, style: Style) -> Json:
    return {"typeof": expr_json(expr.expr, style)}


_EXPRS: Final[dict[type[s.Expr], Callable[[Any, Style], Json]]] = {
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


# --- statements


def _flags(flags: tuple[str, ...]) -> Json:
    """Flags are a list, one alone too (since nft 1.1.6)."""
    return list(flags)


def _or_null(kind: str, body: dict[str, Json]) -> Json:
    return {kind: body or None}


def _match(stmt: s.MatchStmt, style: Style) -> Json:
    return {"match": expr_json(stmt.expr, style)}


def _verdict_stmt(stmt: s.VerdictStmt, style: Style) -> Json:
    return expr_json(stmt.expr, style)


def _mangle(stmt: s.MangleStmt, style: Style) -> Json:
    return {"mangle": {"key": expr_json(stmt.target, style), "value": expr_json(stmt.value, style)}}


def _optstrip(stmt: s.OptstripStmt, style: Style) -> Json:
    if isinstance(stmt.target, s.TcpOptionExpr) and isinstance(stmt.target.option, int):
        return {"reset": {"tcp option": {"base": stmt.target.option, "offset": 0, "len": 0}}}
    return {"reset": expr_json(stmt.target, style)}


def _notrack(stmt: s.NotrackStmt, style: Style) -> Json:
    return {"notrack": None}


def _counter(stmt: s.CounterStmt, style: Style) -> Json:
    return {"counter": None if style.stateless else {"packets": stmt.packets, "bytes": stmt.bytes}}


def _quota(stmt: s.QuotaStmt, style: Style) -> Json:
    value, unit = in_units(stmt.bytes)
    body: dict[str, Json] = {"val": value, "val_unit": unit}
    if stmt.over:
        body["inv"] = True
    if stmt.used and not style.stateless:
        body["used"], body["used_unit"] = in_units(stmt.used)
    return {"quota": body}


def limit_body(stmt: s.LimitStmt) -> dict[str, Json]:
    """The properties of a limit, in nft's order."""
    rate_unit = burst_unit = None
    rate, burst = stmt.rate, 5 if stmt.burst is None and not stmt.bytes else stmt.burst or 0
    if stmt.bytes:
        rate, rate_unit = in_units(rate)
        burst, burst_unit = in_units(burst)
    body: dict[str, Json] = {"rate": rate, "burst": burst, "per": stmt.per}
    if stmt.over:
        body["inv"] = True
    if rate_unit is not None:
        body["rate_unit"] = rate_unit
        body["burst_unit"] = burst_unit
    return body


def _limit(stmt: s.LimitStmt, style: Style) -> Json:
    return {"limit": limit_body(stmt)}


def _last(stmt: s.LastStmt, style: Style) -> Json:
    return {"last": None if style.stateless or stmt.used is None else {"used": stmt.used}}


def _connlimit(stmt: s.ConnlimitStmt, style: Style) -> Json:
    return {"ct count": {"val": stmt.count, "inv": True} if stmt.over else {"val": stmt.count}}


def _objref(stmt: s.ObjrefStmt, style: Style) -> Json:
    return {stmt.kind: expr_json(stmt.expr, style)}


def _log(stmt: s.LogStmt, style: Style) -> Json:
    body: dict[str, Json] = {}
    if stmt.prefix is not None:
        body["prefix"] = stmt.prefix
    if stmt.group is not None:
        body["group"] = stmt.group
    if stmt.snaplen is not None:
        body["snaplen"] = stmt.snaplen
    if stmt.queue_threshold is not None:
        body["queue-threshold"] = stmt.queue_threshold
    if stmt.level not in (None, "warn"):
        body["level"] = stmt.level
    if stmt.flags:
        words = tuple(flag.replace("-", " ", 1) for flag in stmt.flags)
        body["flags"] = ["all"] if frozenset(stmt.flags) == LOG_FLAGS_ALL else _flags(words)
    return _or_null("log", body)


def _reject(stmt: s.RejectStmt, style: Style) -> Json:
    body: dict[str, Json] = {}
    if stmt.kind is not None:
        body["type"] = stmt.kind
    elif style.family is not None:
        body |= {"type": _REJECTS.get(style.family, "icmpx"), "expr": "port-unreachable"}
    if stmt.code is not None:
        body["expr"] = expr_json(stmt.code, style)
    return _or_null("reject", body)


def _nat(stmt: s.NatStmt, style: Style) -> Json:
    body: dict[str, Json] = {}
    if stmt.family is not None and stmt.kind in ("snat", "dnat"):
        body["family"] = stmt.family
    if stmt.addr is not None:
        body["addr"] = expr_json(stmt.addr, style)
    if stmt.port is not None:
        body["port"] = expr_json(stmt.port, style)
    flags = (*stmt.flags, "netmap") if stmt.form == "prefix" else stmt.flags
    if flags:
        body["flags"] = _flags(flags)
    forms = {"prefix": ("prefix",), "interval": ("interval",), "concat": ("concat",)}.get(stmt.form)
    if forms:
        body["type_flags"] = _flags(forms)
    return _or_null(stmt.kind, body)


def _tproxy(stmt: s.TproxyStmt, style: Style) -> Json:
    body: dict[str, Json] = {}
    if stmt.family is not None:
        body["family"] = stmt.family
    if stmt.addr is not None:
        body["addr"] = expr_json(stmt.addr, style)
    if stmt.port is not None:
        body["port"] = expr_json(stmt.port, style)
    return {"tproxy": body}


def synproxy_body(stmt: s.SynproxyStmt) -> dict[str, Json]:
    """The properties of a synproxy."""
    body: dict[str, Json] = {}
    if stmt.mss is not None:
        body["mss"] = stmt.mss
    if stmt.wscale is not None:
        body["wscale"] = stmt.wscale
    flags = tuple(word for word, on in (("timestamp", stmt.timestamp), ("sack-perm", stmt.sack_perm)) if on)
    if flags:
        body["flags"] = _flags(flags)
    return body


def _synproxy(stmt: s.SynproxyStmt, style: Style) -> Json:
    return _or_null("synproxy", synproxy_body(stmt))


def _dup(stmt: s.DupStmt, style: Style) -> Json:
    body = {"addr": expr_json(stmt.to, style)}
    if stmt.dev is not None:
        body["dev"] = expr_json(stmt.dev, style)
    return {"dup": body}


def _fwd(stmt: s.FwdStmt, style: Style) -> Json:
    body = {"dev": expr_json(stmt.dev, style)}
    if stmt.addr is not None:
        body |= {"addr": expr_json(stmt.addr, style), "family": stmt.family}
    return {"fwd": body}


def _queue(stmt: s.QueueStmt, style: Style) -> Json:
    body: dict[str, Json] = {"num": 0 if stmt.expr is None else expr_json(stmt.expr, style)}
    if stmt.flags:
        body["flags"] = _flags(stmt.flags)
    return {"queue": body}


def _flow(stmt: s.FlowStmt, style: Style) -> Json:
    return {"flow": {"op": "add", "flowtable": f"@{stmt.name}"}}


def _update_stmts(body: dict[str, Json], stmts: list[s.Stmt], style: Style) -> dict[str, Json]:
    if stmts:
        body["stmt"] = [stmt_json(stmt, style) for stmt in stmts]
    return body


def _set_update(stmt: s.SetUpdateStmt, style: Style) -> Json:
    body = {"op": stmt.op, "elem": expr_json(stmt.elem, style), "set": f"@{stmt.set.name}"}
    return {"set": _update_stmts(body, stmt.stmts, style)}


def _map_update(stmt: s.MapUpdateStmt, style: Style) -> Json:
    body = {
        "op": stmt.op,
        "elem": expr_json(stmt.elem, style),
        "data": expr_json(stmt.data, style),
        "map": f"@{stmt.map.name}",
    }
    return {"map": _update_stmts(body, stmt.stmts, style)}


def _meter(stmt: s.MeterStmt, style: Style) -> Json:
    body: dict[str, Json] = {"key": expr_json(stmt.elem, style)}
    body["stmt"] = stmt_json(stmt.stmts[0], style)
    if stmt.size is not None:
        body["size"] = stmt.size
    body["name"] = stmt.name
    return {"meter": body}


def _xt(stmt: s.XtStmt, style: Style) -> Json:
    return {"xt": {"type": stmt.kind, "name": stmt.name}}



_STMTS: Final[dict[type[s.Stmt], Callable[[Any, Style], Json]]] = {
    s.MatchStmt: _match,
    s.VerdictStmt: _verdict_stmt,
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
