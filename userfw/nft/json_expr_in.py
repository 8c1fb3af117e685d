"""Expressions and statements from libnftables-json(5) objects, as the untyped tree that the text parser would build.

Laws:
- Nesting is bounded; every other shape of document is an ``NftError`` that names the property.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from userfw.nft import keywords as kw
from userfw.nft import syntax as s
from userfw.nft.json_base import (
    JSON_LOC,
    MAX_DEPTH,
    Json,
    Object,
    as_object,
    fail,
    flag,
    number,
    one_of,
    optional_number,
    optional_text,
    single,
    text,
    words,
)
from userfw.nft.parser_base import COMMENT_MAX, NAME_MAX
from userfw.nft.parser_expr import NEVER

_HEX: Final = re.compile(r"0[xX][0-9a-fA-F]{1,16}\Z")
_OPERATORS: Final = frozenset(("|", "^", "&", "<<", ">>"))
_MAX_OPERATORS: Final = 128
_U32: Final = 1 << 32
_SIDED: Final = re.compile(r"(addr|sid)\[[0-9]{1,3}\]\Z")


class JsonExprParser:
    """Expressions."""

    def __init__(self) -> None:
        self.depth = 0

    def stmt(self, value: Json) -> s.Stmt:
        """A statement."""
        raise NotImplementedError

    def stateful(self, kind: str, value: Json) -> s.Stmt:
        """A statement that may belong to a set element."""
        raise NotImplementedError

    def expr(self, value: Json) -> s.Expr:
        """Any expression."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise fail(f"nested too deeply, maximum is {MAX_DEPTH} levels")
        try:
            return self._expr(value)
        finally:
            self.depth -= 1

    def _expr(self, value: Json) -> s.Expr:
        if isinstance(value, str):
            return self._string(value)
        if isinstance(value, bool):
            return s.SymbolExpr("exists" if value else "missing", loc=JSON_LOC)
        if isinstance(value, int):
            if not -(1 << 63) <= value < 1 << 64:
                raise fail("number out of range")
            return s.ConstantExpr(value, loc=JSON_LOC)
        if isinstance(value, list):
            if not value:
                raise fail("empty list")
            items = [self.expr(item) for item in value]
            return items[0] if len(items) == 1 else s.ListExpr(items, loc=JSON_LOC)
        kind, body = single(value, "expression")
        if kind in _OPERATORS:
            return self._binop(kind, body)
        handler = _EXPRS.get(kind)
        if handler is not None:
            return handler(self, body)
        if kind in kw.VERDICTS:
            return self.verdict(kind, body)
        raise fail(f"unknown expression type '{kind}'")

    def _string(self, value: str) -> s.Expr:
        if value[:1] == "@":
            return s.SetRefExpr(checked_name(value[1:], "set"), loc=JSON_LOC)
        if value == "*":
            return s.CatchAllExpr(loc=JSON_LOC)
        if _HEX.match(value):
            return s.ConstantExpr(int(value, 16), loc=JSON_LOC)
        return s.SymbolExpr(value, loc=JSON_LOC)

    def verdict(self, kind: str, body: Json) -> s.VerdictExpr:
        """``{"accept": null}``, ``{"jump": {"target": "chain"}}``."""
        if kind not in ("jump", "goto"):
            return s.VerdictExpr(kind, loc=JSON_LOC)
        target = checked_name(text(as_object(body, kind), "target", kind), "chain")
        return s.VerdictExpr(kind, target, loc=JSON_LOC)

    def _binop(self, op: str, body: Json) -> s.Expr:
        if not isinstance(body, list) or not 2 <= len(body) <= _MAX_OPERATORS:
            raise fail(f"binary operation '{op}' needs a list of two or more expressions")
        result = self.expr(body[0])
        for item in body[1:]:
            result = s.BinopExpr(op, result, self.expr(item), loc=JSON_LOC)
        return result

    # --- values

    def _concat(self, body: Json) -> s.Expr:
        if not isinstance(body, list) or len(body) < 2:
            raise fail("concatenation needs a list of two or more expressions")
        return s.ConcatExpr([self.expr(item) for item in body], loc=JSON_LOC)

    def _set(self, body: Json) -> s.Expr:
        elements = self.elements(body)
        if not elements:
            raise fail("Set is empty")
        return s.SetExpr(elements, loc=JSON_LOC)

    def elements(self, body: Json) -> list[s.SetElemExpr]:
        """Elements of a set or map: one, or a list."""
        if isinstance(body, dict) and len(body) == 1 and "set" in body:
            body = body["set"]
        if isinstance(body, str | int):
            body = [body]
        if isinstance(body, dict):
            body = [body]
        if not isinstance(body, list):
            raise fail("set elements must be a list")
        result = []
        for item in body:
            if isinstance(item, list):
                if len(item) != 2:
                    raise fail("a mapping must be a list of key and value")
                element = self.element(item[0])
                element.data = self.expr(item[1])
                if isinstance(element.data, s.CatchAllExpr):
                    raise fail("'*' cannot be a value of a map")
                result.append(element)
            else:
                result.append(self.element(item))
        return result

    def element(self, value: Json) -> s.SetElemExpr:
        """One element without its data."""
        if not (isinstance(value, dict) and "elem" in value):
            return s.SetElemExpr(self.expr(value), loc=JSON_LOC)
        body = as_object(value["elem"], "elem")
        if "val" not in body:
            raise fail("elem: property 'val' is missing")
        element = s.SetElemExpr(self.expr(body["val"]), loc=JSON_LOC)
        if body.get("timeout") == "never":
            element.timeout = NEVER
        else:
            timeout = optional_number(body, "timeout", "elem", 1 << 54)
            element.timeout = None if timeout is None else timeout * 1000
        expires = optional_number(body, "expires", "elem", 1 << 54)
        element.expires = None if expires is None else expires * 1000
        element.comment = comment(body, "elem")
        for kind in ("counter", "limit", "quota", "last", "ct count"):
            if kind in body:
                element.stmts.append(self.stateful(kind, body[kind]))
        return element

    def _elem_expr(self, body: Json) -> s.Expr:
        return self.element({"elem": body})

    def _range(self, body: Json) -> s.Expr:
        if not isinstance(body, list) or len(body) != 2:
            raise fail("a range must be a list of two expressions")
        return s.RangeExpr(self.expr(body[0]), self.expr(body[1]), loc=JSON_LOC)

    def _prefix(self, body: Json) -> s.Expr:
        obj = as_object(body, "prefix")
        addr = self.expr(obj.get("addr"))
        return s.PrefixExpr(addr, number(obj, "len", "prefix", 1 << 16), loc=JSON_LOC)

    def _map(self, body: Json) -> s.Expr:
        obj = as_object(body, "map")
        return self.map_of(obj, False)

    def map_of(self, obj: Object, vmap: bool) -> s.MapExpr:
        """``{"key": …, "data": …}``."""
        if "key" not in obj or "data" not in obj:
            raise fail("a map needs the properties 'key' and 'data'")
        mapping = self.expr(obj["data"])
        if not isinstance(mapping, s.SetExpr | s.SetRefExpr):
            raise fail("map: property 'data' must be a set or a reference to a map")
        return s.MapExpr(self.expr(obj["key"]), mapping, vmap, loc=JSON_LOC)

    # --- loads

    def _payload(self, body: Json) -> s.Expr:
        obj = as_object(body, "payload")
        if "base" in obj:
            base = one_of(text(obj, "base", "payload"), ("ll", "nh", "th", "ih"), "payload base")
            offset, length = number(obj, "offset", "payload", 1 << 16), number(obj, "len", "payload", 1 << 16)
            return s.RawPayloadExpr(base, offset, length, loc=JSON_LOC)
        protocol, field = text(obj, "protocol", "payload"), text(obj, "field", "payload")
        fields = kw.FIELDS.get(protocol)
        if fields is None:
            raise fail(f"unknown payload protocol '{protocol}'")
        if field not in fields and not (protocol == "arp" and re.fullmatch("[sd]addr (ip|ether)", field)):
            raise fail(f"unknown {protocol} field '{field}'")
        tunnel = optional_text(obj, "tunnel", "payload")
        if tunnel is not None:
            one_of(tunnel, kw.TUNNELS, "payload tunnel")
        return s.PayloadExpr(protocol, field, None if tunnel == protocol else tunnel, loc=JSON_LOC)

    def _named(self, body: Json, kind: str, known: dict[str, frozenset[str]]) -> tuple[str, str | None]:
        obj = as_object(body, kind)
        name = text(obj, "name", kind)
        if name not in known:
            raise fail(f"unknown {kind} '{name}'")
        field = optional_text(obj, "field", kind)
        if field is not None and field not in known[name] and not _SIDED.match(field):
            raise fail(f"unknown {kind} field '{field}'")
        return name, field

    def _exthdr(self, body: Json) -> s.Expr:
        name, field = self._named(body, "exthdr", kw.EXTHDRS)
        if field is None and name not in kw.EXTHDR_EXISTS:
            raise fail(f"exthdr: property 'field' is missing for '{name}'")
        if field in ("addr", "sid"):
            field = f"{field}[{optional_number(body, 'offset', 'exthdr', 256) or 0}]"
        return s.ExthdrExpr(name, field, loc=JSON_LOC)

    def _ip_option(self, body: Json) -> s.Expr:
        name, field = self._named(body, "ip option", kw.IP_OPTIONS)
        return s.IpOptionExpr(name, field, loc=JSON_LOC)

    def _tcp_option(self, body: Json) -> s.Expr:
        obj = as_object(body, "tcp option")
        if "base" in obj:
            kind = number(obj, "base", "tcp option", 256)
            offset, length = number(obj, "offset", "tcp option", 1 << 16), number(obj, "len", "tcp option", 1 << 16)
            if (offset, length) == (0, 8):
                return s.TcpOptionExpr(kind, None, loc=JSON_LOC)
            return s.TcpOptionExpr(kind, None, (offset, length), loc=JSON_LOC)
        name = text(obj, "name", "tcp option")
        name = kw.TCP_OPTION_ALIASES.get(name, name)
        _, field = self._named({**obj, "name": name}, "tcp option", kw.TCP_OPTIONS)
        return s.TcpOptionExpr(name, field, loc=JSON_LOC)

    def _sctp_chunk(self, body: Json) -> s.Expr:
        name, field = self._named(body, "sctp chunk", kw.SCTP_CHUNKS)
        return s.SctpChunkExpr(name, field, loc=JSON_LOC)

    def _dccp_option(self, body: Json) -> s.Expr:
        return s.DccpOptionExpr(number(as_object(body, "dccp option"), "type", "dccp option", 256), loc=JSON_LOC)

    def _meta(self, body: Json) -> s.Expr:
        key = text(as_object(body, "meta"), "key", "meta")
        key = {"ibridgename": "ibrname", "obridgename": "obrname"}.get(key, kw.META_ALIASES.get(key, key))
        return s.MetaExpr(one_of(key, kw.META_KEYS, "meta key"), loc=JSON_LOC)

    def _ct(self, body: Json) -> s.Expr:
        obj = as_object(body, "ct")
        key = text(obj, "key", "ct")
        family = optional_text(obj, "family", "ct")
        head, _, tail = key.partition(" ")
        if head in ("ip", "ip6") and tail in ("saddr", "daddr"):
            family, key = head, tail
        direction = optional_text(obj, "dir", "ct")
        if direction is not None:
            one_of(direction, ("original", "reply"), "ct direction")
        one_of(key, kw.CT_KEYS_DIRECTION if direction else kw.CT_KEYS, "ct key")
        if family is not None:
            one_of(family, ("ip", "ip6"), "ct family")
        return s.CtExpr(key, direction, family, loc=JSON_LOC)

    def _rt(self, body: Json) -> s.Expr:
        obj = as_object(body, "rt")
        key = one_of(text(obj, "key", "rt"), ("classid", "nexthop", "mtu", "ipsec"), "rt key")
        family = optional_text(obj, "family", "rt")
        if family is not None:
            one_of(family, ("ip", "ip6"), "rt family")
        return s.RtExpr(key, family, loc=JSON_LOC)

    def _fib(self, body: Json) -> s.Expr:
        obj = as_object(body, "fib")
        flags = words(obj, "flags", "fib", ("saddr", "daddr", "mark", "iif", "oif"))
        result = one_of(text(obj, "result", "fib"), ("oif", "oifname", "type", "check"), "fib result")
        if not flags:
            raise fail("fib: property 'flags' is missing")
        return s.FibExpr(flags, result, loc=JSON_LOC)

    def _socket(self, body: Json) -> s.Expr:
        obj = as_object(body, "socket")
        key = one_of(text(obj, "key", "socket"), ("transparent", "mark", "wildcard", "cgroupv2"), "socket key")
        level = number(obj, "level", "socket", 256) if key == "cgroupv2" else None
        return s.SocketExpr(key, level, loc=JSON_LOC)

    def _osf(self, body: Json) -> s.Expr:
        obj = as_object(body, "osf")
        ttl = optional_text(obj, "ttl", "osf")
        if ttl is not None:
            one_of(ttl, ("loose", "skip"), "osf ttl")
        return s.OsfExpr(one_of(text(obj, "key", "osf"), ("name", "version"), "osf key"), ttl, loc=JSON_LOC)

    def _numgen(self, body: Json) -> s.Expr:
        obj = as_object(body, "numgen")
        mode = one_of(text(obj, "mode", "numgen"), ("inc", "random"), "numgen mode")
        offset = optional_number(obj, "offset", "numgen", _U32) or 0
        return s.NumgenExpr(mode, number(obj, "mod", "numgen", _U32), offset, loc=JSON_LOC)

    def _jhash(self, body: Json) -> s.Expr:
        obj = as_object(body, "jhash")
        modulus = number(obj, "mod", "jhash", _U32)
        seed, offset = optional_number(obj, "seed", "jhash", _U32), optional_number(obj, "offset", "jhash", _U32)
        return s.HashExpr("jhash", self.expr(obj.get("expr")), modulus, seed, offset or 0, loc=JSON_LOC)

    def _symhash(self, body: Json) -> s.Expr:
        obj = as_object(body, "symhash")
        offset = optional_number(obj, "offset", "symhash", _U32) or 0
        return s.HashExpr("symhash", None, number(obj, "mod", "symhash", _U32), None, offset, loc=JSON_LOC)

    def _ipsec(self, body: Json) -> s.Expr:
        obj = as_object(body, "ipsec")
        direction = one_of(text(obj, "dir", "ipsec"), ("in", "out"), "ipsec direction")
        key = one_of(text(obj, "key", "ipsec"), ("saddr", "daddr", "spi", "reqid"), "ipsec key")
        family = optional_text(obj, "family", "ipsec")
        if (family is not None) != (key in ("saddr", "daddr")):
            raise fail("ipsec: addresses, and only they, need the property 'family'")
        if family is not None:
            one_of(family, ("ip", "ip6"), "ipsec family")
        return s.XfrmExpr(direction, key, family, optional_number(obj, "spnum", "ipsec", 256) or 0, loc=JSON_LOC)

    def _tunnel(self, body: Json) -> s.Expr:
        key = text(as_object(body, "tunnel"), "key", "tunnel")
        return s.TunnelExpr(one_of(key, ("path", "id"), "tunnel key"), loc=JSON_LOC)


def checked_name(name: str, what: str) -> str:
    """A name of a table, chain, set or object."""
    if not name:
        raise fail(f"{what} name is empty")
    if len(name) > NAME_MAX:
        raise fail(f"{what} name exceeds {NAME_MAX} characters")
    return name


def comment(obj: Object, what: str) -> str | None:
    """The ``comment`` property."""
    value = optional_text(obj, "comment", what)
    if value is not None and len(value) > COMMENT_MAX:
        raise fail(f"comment too long, {COMMENT_MAX} characters maximum allowed")
    return value


def inverted(obj: Object, what: str) -> bool:
    """The ``inv`` property."""
    return flag(obj, "inv", what)


_EXPRS: Final[dict[str, Callable[[JsonExprParser, Json], s.Expr]]] = {
    "concat": JsonExprParser._concat,
    "set": JsonExprParser._set,
    "elem": JsonExprParser._elem_expr,
    "range": JsonExprParser._range,
    "prefix": JsonExprParser._prefix,
    "map": JsonExprParser._map,
    "payload": JsonExprParser._payload,
    "exthdr": JsonExprParser._exthdr,
    "ip option": JsonExprParser._ip_option,
    "tcp option": JsonExprParser._tcp_option,
    "sctp chunk": JsonExprParser._sctp_chunk,
    "dccp option": JsonExprParser._dccp_option,
    "meta": JsonExprParser._meta,
    "ct": JsonExprParser._ct,
    "rt": JsonExprParser._rt,
    "fib": JsonExprParser._fib,
    "socket": JsonExprParser._socket,
    "osf": JsonExprParser._osf,
    "numgen": JsonExprParser._numgen,
    "jhash": JsonExprParser._jhash,
    "symhash": JsonExprParser._symhash,
    "ipsec": JsonExprParser._ipsec,
    "tunnel": JsonExprParser._tunnel,
}
