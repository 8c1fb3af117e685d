"""Statements from libnftables-json(5) objects."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from userfw.nft import keywords as kw
from userfw.nft import syntax as s
from userfw.nft.json_base import (
    JSON_LOC,
    Json,
    Object,
    as_object,
    fail,
    number,
    one_of,
    optional_number,
    optional_text,
    single,
    text,
    words,
)
from userfw.nft.json_expr_in import JsonExprParser, inverted

_U32: Final = 1 << 32
_U64: Final = 1 << 64
_UNITS: Final = {"bytes": 1, "kbytes": 1024, "mbytes": 1024 * 1024}
_PER: Final = ("second", "minute", "hour", "day", "week")
_LEVELS: Final = ("emerg", "alert", "crit", "err", "warn", "notice", "info", "debug", "audit")
_LOG_FLAGS: Final = ("tcp sequence", "tcp options", "ip options", "skuid", "ether")
_NAT_FLAGS: Final = ("random", "fully-random", "persistent")
_RELATIONS: Final = ("==", "!=", "<", ">", "<=", ">=", "in", "!")


class JsonStmtParser(JsonExprParser):
    """Statements."""

    def stmt(self, value: Json) -> s.Stmt:
        if isinstance(value, str):
            raise fail(f"statement '{value[:40]}' cannot be given as JSON")
        kind, body = single(value, "statement")
        handler = _STMTS.get(kind)
        if handler is None:
            raise fail(f"unknown statement '{kind}'")
        stmt = handler(self, kind, body)
        stmt.loc = JSON_LOC
        return stmt

    def stmts(self, value: Json, what: str) -> list[s.Stmt]:
        """A list of statements."""
        if not isinstance(value, list):
            raise fail(f"{what} must be a list of statements")
        return [self.stmt(item) for item in value]

    def stateful(self, kind: str, value: Json) -> s.Stmt:
        if kind not in ("counter", "limit", "quota", "last", "ct count"):
            raise fail(f"'{kind}' is not a stateful statement")
        stmt = _STMTS[kind](self, kind, value)
        if isinstance(stmt, s.ObjrefStmt):
            raise fail(f"{kind}: a named object cannot belong to an element")
        stmt.loc = JSON_LOC
        return stmt

    def stateful_list(self, value: Json, what: str) -> list[s.Stmt]:
        """``stmt`` of a set or of a set update: one statement or a list."""
        items = value if isinstance(value, list) else [value]
        return [self.stateful(*single(item, what)) for item in items]

    # --- match, verdict, mangle

    def _match(self, kind: str, body: Json) -> s.Stmt:
        obj = as_object(body, kind)
        op = one_of(text(obj, "op", kind), _RELATIONS, "match operator")
        if "left" not in obj or "right" not in obj:
            raise fail("match: properties 'left' and 'right' are needed")
        left, right = self.expr(obj["left"]), self.expr(obj["right"])
        relation = s.RelationalExpr("" if op == "in" else op, left, right, loc=JSON_LOC)
        return s.MatchStmt(relation)

    def _verdict(self, kind: str, body: Json) -> s.Stmt:
        return s.VerdictStmt(self.verdict(kind, body))

    def _vmap(self, kind: str, body: Json) -> s.Stmt:
        return s.VerdictStmt(self.map_of(as_object(body, kind), True))

    def _mangle(self, kind: str, body: Json) -> s.Stmt:
        obj = as_object(body, kind)
        if "key" not in obj or "value" not in obj:
            raise fail("mangle: properties 'key' and 'value' are needed")
        target = self.expr(obj["key"])
        allowed = (
            s.PayloadExpr,
            s.RawPayloadExpr,
            s.MetaExpr,
            s.CtExpr,
            s.TcpOptionExpr,
            s.ExthdrExpr,
            s.IpOptionExpr,
        )
        if not isinstance(target, allowed):
            raise fail("mangle: this key cannot be set")
        value = self.expr(obj["value"])
        if isinstance(target, s.CtExpr) and target.key == "helper":
            return s.ObjrefStmt("ct helper", value)
        return s.MangleStmt(target, value)

    def _reset(self, kind: str, body: Json) -> s.Stmt:
        target = self.expr(body)
        if isinstance(target, s.TcpOptionExpr) and target.raw == (0, 0):
            target.raw = None
        if not isinstance(target, s.TcpOptionExpr) or target.field is not None or target.raw is not None:
            raise fail("reset: only a whole TCP option can be reset")
        return s.OptstripStmt(target)

    def _notrack(self, kind: str, body: Json) -> s.Stmt:
        return s.NotrackStmt()

    # --- counters and limits

    def objref(self, kind: str, body: Json) -> s.Stmt | None:
        """A reference to a named object: a string or a map."""
        if isinstance(body, str):
            return s.ObjrefStmt(kind, s.SymbolExpr(body, True, loc=JSON_LOC))
        if isinstance(body, dict) and "map" in body:
            return s.ObjrefStmt(kind, self.expr(body))
        return None

    def _counter(self, kind: str, body: Json) -> s.Stmt:
        found = self.objref(kind, body)
        if found is not None:
            return found
        obj = {} if body is None else as_object(body, kind)
        packets, size = optional_number(obj, "packets", kind), optional_number(obj, "bytes", kind)
        return s.CounterStmt(packets or 0, size or 0)

    def _quota(self, kind: str, body: Json) -> s.Stmt:
        found = self.objref(kind, body)
        if found is not None:
            return found
        obj = as_object(body, kind)
        used = in_bytes(obj, "used", "used_unit", kind) if "used" in obj else 0
        return s.QuotaStmt(in_bytes(obj, "val", "val_unit", kind), used, inverted(obj, kind))

    def _limit(self, kind: str, body: Json) -> s.Stmt:
        found = self.objref(kind, body)
        return limit_from(as_object(body, kind)) if found is None else found

    def _last(self, kind: str, body: Json) -> s.Stmt:
        return s.LastStmt(None if body is None else optional_number(as_object(body, kind), "used", kind))

    def _ct_count(self, kind: str, body: Json) -> s.Stmt:
        obj = as_object(body, kind)
        return s.ConnlimitStmt(number(obj, "val", kind, _U32), inverted(obj, kind))

    def _reference(self, kind: str, body: Json) -> s.Stmt:
        found = self.objref(kind, body)
        if found is None:
            raise fail(f"{kind}: expected a name or a map")
        return found

    # --- log, reject, queue

    def _log(self, kind: str, body: Json) -> s.Stmt:
        obj = {} if body is None else as_object(body, kind)
        stmt = s.LogStmt(optional_text(obj, "prefix", kind))
        level = optional_text(obj, "level", kind)
        stmt.level = None if level is None else one_of(level, _LEVELS, "log level")
        stmt.group = optional_number(obj, "group", kind, 1 << 16)
        stmt.snaplen = optional_number(obj, "snaplen", kind, _U32)
        stmt.queue_threshold = optional_number(obj, "queue-threshold", kind, 1 << 16)
        flags = words(obj, "flags", kind, (*_LOG_FLAGS, "all"))
        chosen = _LOG_FLAGS if "all" in flags else tuple(flag for flag in _LOG_FLAGS if flag in flags)
        stmt.flags = tuple(flag.replace(" ", "-") for flag in chosen)
        return stmt

    def _reject(self, kind: str, body: Json) -> s.Stmt:
        if body is None:
            return s.RejectStmt()
        obj = as_object(body, kind)
        name = optional_text(obj, "type", kind)
        if name is not None:
            one_of(name, ("tcp reset", "icmpx", "icmp", "icmpv6"), "reject type")
        code = None if obj.get("expr") is None else self.expr(obj["expr"])
        if code is not None and not isinstance(code, s.SymbolExpr | s.ConstantExpr):
            raise fail("reject: property 'expr' must be a code")
        if name in ("icmpx", "icmp", "icmpv6") and code is None:
            raise fail("reject: property 'expr' is missing")
        if code is not None and name in (None, "tcp reset"):
            raise fail("reject: property 'expr' needs an ICMP type")
        return s.RejectStmt(name, code)

    def _queue(self, kind: str, body: Json) -> s.Stmt:
        if body is None:
            return s.QueueStmt()
        obj = as_object(body, kind)
        chosen = words(obj, "flags", kind, ("bypass", "fanout"))
        flags = tuple(flag for flag in ("bypass", "fanout") if flag in chosen)
        return s.QueueStmt(self.optional(obj, "num"), flags)

    def optional(self, obj: Object, name: str) -> s.Expr | None:
        """An expression property that may be absent."""
        return None if obj.get(name) is None else self.expr(obj[name])

    def needed(self, obj: Object, name: str, what: str) -> s.Expr:
        """An expression property that must be there."""
        if obj.get(name) is None:
            raise fail(f"{what}: property '{name}' is missing")
        return self.expr(obj[name])

    # --- translation and redirection

    def _nat(self, kind: str, body: Json) -> s.Stmt:
        stmt = s.NatStmt(kind)
        if body is None:
            if kind in ("snat", "dnat"):
                raise fail(f"{kind}: an address or port is needed")
            return stmt
        obj = as_object(body, kind)
        stmt.family = self._family(obj, kind)
        stmt.addr, stmt.port = self.optional(obj, "addr"), self.optional(obj, "port")
        if kind in ("masquerade", "redirect") and stmt.addr is not None:
            raise fail(f"{kind}: takes no address")
        if kind in ("snat", "dnat") and stmt.addr is None and stmt.port is None:
            raise fail(f"{kind}: an address or port is needed")
        chosen = words(obj, "flags", kind, (*_NAT_FLAGS, "netmap"))  # netmap is what a prefix form means
        stmt.flags = tuple(flag for flag in _NAT_FLAGS if flag in chosen)
        forms = words(obj, "type_flags", kind, ("interval", "prefix", "concat"))
        stmt.form = "prefix" if "prefix" in forms else "interval" if "interval" in forms else "".join(forms[:1])
        return stmt

    def _family(self, obj: Object, kind: str) -> str | None:
        family = optional_text(obj, "family", kind)
        return None if family is None else one_of(family, ("ip", "ip6"), f"{kind} family")

    def _tproxy(self, kind: str, body: Json) -> s.Stmt:
        obj = as_object(body, kind)
        stmt = s.TproxyStmt(self._family(obj, kind), self.optional(obj, "addr"), self.optional(obj, "port"))
        if stmt.addr is None and stmt.port is None:
            raise fail("tproxy: an address or port is needed")
        return stmt

    def _synproxy(self, kind: str, body: Json) -> s.Stmt:
        found = self.objref(kind, body)
        if found is not None:
            return found
        return synproxy_from({} if body is None else as_object(body, kind))

    def _dup(self, kind: str, body: Json) -> s.Stmt:
        obj = as_object(body, kind)
        return s.DupStmt(self.needed(obj, "addr", kind), self.optional(obj, "dev"))

    def _fwd(self, kind: str, body: Json) -> s.Stmt:
        obj = as_object(body, kind)
        dev, addr, family = self.needed(obj, "dev", kind), self.optional(obj, "addr"), self._family(obj, kind)
        if (addr is None) != (family is None):
            raise fail("fwd: 'addr' and 'family' belong together")
        return s.FwdStmt(dev, addr, family)

    # --- flows and sets

    def _flow(self, kind: str, body: Json) -> s.Stmt:
        obj = as_object(body, kind)
        one_of(text(obj, "op", kind), ("add",), "flow operation")
        name = text(obj, "flowtable", kind)
        if name[:1] != "@" or len(name) < 2:
            raise fail("flow: property 'flowtable' must be a reference such as @name")
        return s.FlowStmt(name[1:])

    def _update_parts(self, obj: Object, what: str) -> tuple[str, s.SetElemExpr, s.SetRefExpr, list[s.Stmt]]:
        op = one_of(text(obj, "op", what), ("add", "update", "delete"), f"{what} operation")
        if "elem" not in obj:
            raise fail(f"{what}: property 'elem' is missing")
        elem = self.element(obj["elem"])
        ref = self.expr(text(obj, what, what))
        if not isinstance(ref, s.SetRefExpr):
            raise fail(f"{what}: property '{what}' must be a reference such as @name")
        stmts = self.stateful_list(obj["stmt"], what) if "stmt" in obj else []
        return op, elem, ref, stmts

    def _set_update(self, kind: str, body: Json) -> s.Stmt:
        op, elem, ref, stmts = self._update_parts(as_object(body, kind), kind)
        return s.SetUpdateStmt(op, ref, elem, stmts)

    def _map_update(self, kind: str, body: Json) -> s.Stmt:
        obj = as_object(body, kind)
        op, elem, ref, stmts = self._update_parts(obj, kind)
        return s.MapUpdateStmt(op, ref, elem, self.needed(obj, "data", kind), stmts)

    def _meter(self, kind: str, body: Json) -> s.Stmt:
        obj = as_object(body, kind)
        if "key" not in obj or "stmt" not in obj:
            raise fail("meter: properties 'key' and 'stmt' are needed")
        elem, stmt = self.element(obj["key"]), self.stmt(obj["stmt"])
        return s.MeterStmt(text(obj, "name", kind), elem, [stmt], optional_number(obj, "size", kind, _U32))

    def _xt(self, kind: str, body: Json) -> s.Stmt:
        if body is None:
            raise fail("xt: unsupported xtables compat expression, use iptables-nft with this ruleset")
        obj = as_object(body, kind)
        return s.XtStmt(text(obj, "type", kind), text(obj, "name", kind))


def in_bytes(obj: Object, name: str, unit_name: str, what: str) -> int:
    """A size with its unit."""
    unit = optional_text(obj, unit_name, what) or "bytes"
    if unit not in _UNITS:
        raise fail(f"{what}: unknown unit '{unit}'")
    value = number(obj, name, what) * _UNITS[unit]
    if value >= _U64:
        raise fail(f"{what}: property '{name}' is too large")
    return value


def limit_from(obj: Object) -> s.LimitStmt:
    """A limit, in a rule or as an object."""
    unit = optional_text(obj, "rate_unit", "limit") or "packets"
    over = inverted(obj, "limit")
    per = one_of(optional_text(obj, "per", "limit") or "second", _PER, "limit time unit")
    if unit == "packets":
        rate, burst = number(obj, "rate", "limit"), optional_number(obj, "burst", "limit", _U32)
        result = s.LimitStmt(rate, per, False, burst, over, loc=JSON_LOC)
    else:
        rate = in_bytes(obj, "rate", "rate_unit", "limit")
        burst = in_bytes(obj, "burst", "burst_unit", "limit") if "burst" in obj else None
        if burst is not None and burst >= _U32:
            raise fail("limit: property 'burst' is too large")
        result = s.LimitStmt(rate, per, True, burst or None, over, loc=JSON_LOC)
    if result.rate == 0:
        raise fail("limit rate must be > 0")
    return result


def synproxy_from(obj: Object) -> s.SynproxyStmt:
    """A synproxy, in a rule or as an object."""
    flags = words(obj, "flags", "synproxy", ("timestamp", "sack-perm"))
    mss, wscale = optional_number(obj, "mss", "synproxy", 1 << 16), optional_number(obj, "wscale", "synproxy", 256)
    return s.SynproxyStmt(mss, wscale, "timestamp" in flags, "sack-perm" in flags, loc=JSON_LOC)


_STMTS: Final[dict[str, Callable[[JsonStmtParser, str, Json], s.Stmt]]] = {
    "match": JsonStmtParser._match,
    **dict.fromkeys(kw.VERDICTS, JsonStmtParser._verdict),
    "vmap": JsonStmtParser._vmap,
    "mangle": JsonStmtParser._mangle,
    "reset": JsonStmtParser._reset,
    "notrack": JsonStmtParser._notrack,
    "counter": JsonStmtParser._counter,
    "quota": JsonStmtParser._quota,
    "limit": JsonStmtParser._limit,
    "last": JsonStmtParser._last,
    "ct count": JsonStmtParser._ct_count,
    "ct helper": JsonStmtParser._reference,
    "ct timeout": JsonStmtParser._reference,
    "ct expectation": JsonStmtParser._reference,
    "secmark": JsonStmtParser._reference,
    "tunnel": JsonStmtParser._reference,
    "log": JsonStmtParser._log,
    "reject": JsonStmtParser._reject,
    "queue": JsonStmtParser._queue,
    "snat": JsonStmtParser._nat,
    "dnat": JsonStmtParser._nat,
    "masquerade": JsonStmtParser._nat,
    "redirect": JsonStmtParser._nat,
    "tproxy": JsonStmtParser._tproxy,
    "synproxy": JsonStmtParser._synproxy,
    "dup": JsonStmtParser._dup,
    "fwd": JsonStmtParser._fwd,
    "flow": JsonStmtParser._flow,
    "set": JsonStmtParser._set_update,
    "map": JsonStmtParser._map_update,
    "meter": JsonStmtParser._meter,
    "xt": JsonStmtParser._xt,
}
