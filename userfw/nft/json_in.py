"""libnftables-json(5) documents to commands.

Laws:
- ``parse_json`` returns the commands that the same request in text would give, or raises ``NftErrors``; nothing else.
- A bare object (as a listing has them) means ``add``.
"""

from __future__ import annotations

import json
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
    flag,
    number,
    one_of,
    optional_number,
    optional_text,
    single,
    text,
    words,
)
from userfw.nft.json_expr_in import checked_name, comment
from userfw.nft.json_stmt_in import JsonStmtParser, limit_from, synproxy_from
from userfw.nft.location import NftError, NftErrors
from userfw.nft.parser_base import DEVICE_MAX, MAX_ERRORS
from userfw.nft.parser_object import tunnel_lacks

_OPS: Final = ("add", "create", "insert", "replace", "delete", "destroy", "get", "list", "reset", "flush", "rename")
_SET_FLAGS: Final = ("constant", "interval", "timeout", "dynamic")
_TABLE_FLAGS: Final = ("dormant", "owner", "persist")
_HOOKS: Final = ("prerouting", "input", "forward", "output", "postrouting", "ingress", "egress")
_PLURALS: Final = (
    "tables", "chains", "rules", "sets", "maps", "meters", "flowtables", *kw.OBJECT_PLURALS, "ct helpers",
    "ct timeouts", "ct expectations",
)  # fmt: skip
_NAMED: Final = (*kw.OBJECT_KINDS, "ct helper", "ct timeout", "ct expectation")
_SCHEMA: Final = 1
_U32: Final = 1 << 32


def is_json(document: str) -> bool:
    """Whether a text is meant as JSON (it begins with a brace; no nft ruleset does)."""
    return document.lstrip()[:1] == "{"


def parse_json(document: str) -> list[s.Command]:
    """The commands of a JSON document. Raises ``NftErrors`` with all problems."""
    try:
        root = json.loads(document)
    except (ValueError, RecursionError) as error:
        raise NftErrors([fail(f"Invalid JSON: {error}")]) from None
    if not isinstance(root, dict) or not isinstance(root.get("nftables"), list):
        raise NftErrors([fail("Invalid JSON schema: property 'nftables' with a list is needed")])
    if not _encodable(document, root):
        raise NftErrors([fail("Invalid JSON: a string is no valid Unicode")])
    parser = JsonParser()
    commands: list[s.Command] = []
    errors: list[NftError] = []
    for item in root["nftables"]:
        try:
            command = parser.command(item)
            if command is not None:
                commands.append(command)
        except NftError as error:
            errors.append(error)
            parser.depth = 0
            if len(errors) >= MAX_ERRORS:
                break
    if errors:
        raise NftErrors(errors)
    return commands


def _encodable(document: str, root: Json) -> bool:
    """Whether every string can be written as bytes: half a surrogate pair, written out or as an escape, cannot."""
    try:
        document.encode("utf-8", "surrogateescape")
        if "\\u" in document:
            json.dumps(root, ensure_ascii=False).encode("utf-8", "surrogateescape")
    except (UnicodeEncodeError, RecursionError):
        return False
    return True


class JsonParser(JsonStmtParser):
    """Commands and the objects they speak of."""

    def command(self, item: Json) -> s.Command | None:
        """One entry of the document; None for what is no command."""
        op, body = single(item, "command")
        if op == "metainfo":
            version = optional_number(as_object(body, op), "json_schema_version", op)
            if version is not None and version > _SCHEMA:
                raise fail(f"JSON schema version {version} is not supported, maximum is {_SCHEMA}")
            return None
        listed = op not in _OPS
        if listed:
            op, body = "add", item
        kind, value = single(body, op)
        if listed and isinstance(value, dict):
            value = {name: part for name, part in value.items() if name != "handle"}  # a listing's handles place nothing
        command = s.Command(op, kind, loc=JSON_LOC, table_loc=JSON_LOC, name_loc=JSON_LOC, handle_loc=JSON_LOC)
        if kind == "ruleset" or kind in _PLURALS:
            self._whole(command, value)
            return command
        handler = _OBJECTS.get(kind)
        if handler is None:
            raise fail(f"unknown object '{kind}'")
        handler(self, command, as_object(value, kind))
        return command

    def _whole(self, command: s.Command, value: Json) -> None:
        """All objects of a kind."""
        if command.op not in ("list", "flush", "reset"):
            raise fail(f"'{command.obj}' cannot be used with '{command.op}'")
        obj = {} if value is None else as_object(value, command.obj)
        command.family = self._family_of(obj, None)
        if "table" in obj:
            command.table = checked_name(text(obj, "table", command.obj), "table")
            command.family = command.family or "ip"
        command.name = optional_text(obj, "chain", command.obj)

    def _family_of(self, obj: Object, default: str | None) -> str | None:
        family = optional_text(obj, "family", "object")
        return default if family is None else one_of(family, kw.FAMILIES, "family")

    def _where(self, command: s.Command, obj: Object) -> bool:
        """Family, table, name and handle of something in a table; whether it is only named, not described."""
        what = command.obj
        command.family = self._family_of(obj, "ip")
        command.table = checked_name(text(obj, "table", what), "table")
        command.handle = optional_number(obj, "handle", what)
        if "name" in obj or command.op not in ("delete", "destroy") or command.handle is None:
            command.name = checked_name(text(obj, "name", what), what)
        if command.op in ("add", "create"):
            command.handle = None
            return False
        if command.name is not None:
            command.handle = None
        return True

    # --- tables, chains, rules

    def _table(self, command: s.Command, obj: Object) -> None:
        family = command.family = self._family_of(obj, "ip") or "ip"
        if command.op in ("delete", "destroy") and "name" not in obj:
            command.handle = number(obj, "handle", "table")
            return
        command.table = checked_name(text(obj, "name", "table"), "table")
        if command.op not in ("add", "create"):
            return
        block = s.TableBlock(family, command.table, words(obj, "flags", "table", _TABLE_FLAGS), loc=JSON_LOC)
        block.comment = comment(obj, "table")
        command.node = block

    def _chain(self, command: s.Command, obj: Object) -> None:
        named = self._where(command, obj)
        if command.op == "rename":
            command.new_name = checked_name(text(obj, "newname", "chain"), "chain")
            return
        has_hook = any(name in obj for name in ("type", "hook", "prio"))
        if named and not (command.op in ("delete", "destroy") and has_hook):
            return
        chain = s.ChainBlock(command.name or "", comment=comment(obj, "chain"), loc=JSON_LOC)
        if has_hook:
            chain.type = one_of(text(obj, "type", "chain"), ("filter", "nat", "route"), "chain type")
            chain.hook = one_of(text(obj, "hook", "chain"), _HOOKS, "chain hook")
            chain.priority = self._priority(obj, "chain")
            chain.devices = self._devices(obj, "chain")
            policy = optional_text(obj, "policy", "chain")
            chain.policy = None if policy is None else one_of(policy, ("accept", "drop"), "chain policy")
        elif "policy" in obj or "dev" in obj:
            raise fail("chain: a policy or device needs type, hook and priority")
        command.node = chain

    def _priority(self, obj: Object, what: str) -> s.Priority:
        value = obj.get("prio")
        if isinstance(value, str):
            return s.Priority(value, 0, loc=JSON_LOC)
        if isinstance(value, bool) or not isinstance(value, int) or not -(1 << 31) <= value < 1 << 31:
            raise fail(f"{what}: property 'prio' must be a number")
        return s.Priority(None, value, loc=JSON_LOC)

    def _devices(self, obj: Object, what: str) -> list[str]:
        devices = list(words(obj, "dev", what))
        for device in devices:
            if not 0 < len(device) <= DEVICE_MAX:
                raise fail(f"{what}: device name must have 1 to {DEVICE_MAX} characters")
        return devices

    def _rule(self, command: s.Command, obj: Object) -> None:
        command.family = self._family_of(obj, "ip")
        command.table = checked_name(text(obj, "table", "rule"), "table")
        command.name = checked_name(text(obj, "chain", "rule"), "chain")
        handle = optional_number(obj, "handle", "rule")
        if command.op in ("delete", "destroy", "replace", "reset", "list"):
            if handle is None and command.op != "list":
                raise fail("rule: property 'handle' is missing")
            command.handle = handle
        elif command.op in ("add", "insert", "create"):
            command.handle = handle or None
            command.index = optional_number(obj, "index", "rule", _U32)
        if command.op in ("add", "insert", "create", "replace"):
            stmts = self.stmts(obj.get("expr"), "rule: property 'expr'")
            command.node = s.RuleBlock(stmts, comment(obj, "rule"), loc=JSON_LOC)

    # --- sets and elements

    def _set_block(self, command: s.Command, obj: Object) -> None:
        if self._where(command, obj):
            return
        what = command.obj
        block = s.SetBlock(command.name or "", is_map=what == "map", comment=comment(obj, what), loc=JSON_LOC)
        if "type" not in obj:
            raise fail(f"{what}: property 'type' is missing")
        block.key = self._type(obj["type"])
        if block.is_map:
            self._map_data(block, obj)
        block.flags = words(obj, "flags", what, _SET_FLAGS)
        policy = optional_text(obj, "policy", what)
        block.policy = None if policy is None else one_of(policy, ("performance", "memory"), "set policy")
        block.size = optional_number(obj, "size", what, _U32)
        for name, field in (("timeout", "timeout"), ("gc-interval", "gc_interval")):
            seconds = optional_number(obj, name, what, 1 << 54)
            setattr(block, field, None if seconds is None else seconds * 1000)
        block.auto_merge = flag(obj, "auto-merge", what)
        if "elem" in obj:
            block.elements = self.elements(obj["elem"])
        if "stmt" in obj:
            block.stmts = self.stateful_list(obj["stmt"], what)
        command.node = block

    def _type(self, value: Json) -> s.Expr:
        if isinstance(value, dict):
            kind, body = single(value, "set type")
            one_of(kind, ("typeof",), "set type")
            return s.TypeofExpr(self.expr(body), loc=JSON_LOC)
        items = value if isinstance(value, list) else [value]
        if not items or not all(isinstance(item, str) and item for item in items):
            raise fail("set type must be a string, a list of strings, or a typeof object")
        return s.TypeExpr(list(items), loc=JSON_LOC)

    def _map_data(self, block: s.SetBlock, obj: Object) -> None:
        value = obj.get("map")
        if value is None:
            raise fail("map: property 'map' is missing")
        if isinstance(value, str) and value in _NAMED:
            block.objtype = value
        else:
            block.data = self._type(value)

    def _element(self, command: s.Command, obj: Object) -> None:
        command.family = self._family_of(obj, "ip")
        command.table = checked_name(text(obj, "table", "element"), "table")
        command.name = checked_name(text(obj, "name", "element"), "set")
        if "elem" not in obj:
            raise fail("element: property 'elem' is missing")
        command.node = s.ElementsBlock(self.elements(obj["elem"]), loc=JSON_LOC)

    # --- flowtables and objects

    def _flowtable(self, command: s.Command, obj: Object) -> None:
        named = self._where(command, obj)
        if named and "hook" not in obj:
            return
        block = s.FlowtableBlock(command.name or "", devices=self._devices(obj, "flowtable"), loc=JSON_LOC)
        block.hook = one_of(text(obj, "hook", "flowtable"), ("ingress",), "flowtable hook")
        block.priority = self._priority(obj, "flowtable")
        block.flags = words(obj, "flags", "flowtable", ("offload",))
        command.node = block

    def _object(self, command: s.Command, obj: Object) -> None:
        if self._where(command, obj):
            return
        kind = command.obj
        block = s.ObjectBlock(kind, command.name or "", comment=comment(obj, kind), loc=JSON_LOC)
        block.body = _BODIES[kind](self, obj)
        block.body.loc = JSON_LOC
        command.node = block

    def _counter_body(self, obj: Object) -> s.CounterStmt:
        packets, size = optional_number(obj, "packets", "counter"), optional_number(obj, "bytes", "counter")
        return s.CounterStmt(packets or 0, size or 0)

    def _quota_body(self, obj: Object) -> s.QuotaStmt:
        used = optional_number(obj, "used", "quota") or 0
        return s.QuotaStmt(number(obj, "bytes", "quota"), used, flag(obj, "inv", "quota"))

    def _limit_body(self, obj: Object) -> s.LimitStmt:
        return limit_from(obj)

    def _synproxy_body(self, obj: Object) -> s.SynproxyStmt:
        return synproxy_from(obj)

    def _secmark_body(self, obj: Object) -> s.SecmarkBody:
        return s.SecmarkBody(text(obj, "context", "secmark"))

    def _protocol(self, obj: Object, what: str) -> str:
        return one_of(text(obj, "protocol", what), ("tcp", "udp"), f"{what} protocol")

    def _l3proto(self, obj: Object, what: str) -> str | None:
        l3proto = optional_text(obj, "l3proto", what)
        return None if l3proto is None else one_of(l3proto, kw.FAMILIES, f"{what} l3proto")

    def _helper_body(self, obj: Object) -> s.CtHelperBody:
        helper = text(obj, "type", "ct helper")
        return s.CtHelperBody(helper, self._protocol(obj, "ct helper"), self._l3proto(obj, "ct helper"))

    def _timeout_body(self, obj: Object) -> s.CtTimeoutBody:
        what = "ct timeout"
        policy = as_object(obj.get("policy", {}), "ct timeout policy")
        seconds = {state: number(policy, state, "ct timeout policy", _U32) for state in policy}
        return s.CtTimeoutBody(self._protocol(obj, what), self._l3proto(obj, what), seconds)

    def _expectation_body(self, obj: Object) -> s.CtExpectationBody:
        what = "ct expectation"
        dport, timeout = number(obj, "dport", what, 1 << 16), number(obj, "timeout", what, 1 << 54)
        size = number(obj, "size", what, 256)
        return s.CtExpectationBody(self._protocol(obj, what), dport, timeout, size, self._l3proto(obj, what))

    def _tunnel_body(self, obj: Object) -> s.TunnelBody:
        body = s.TunnelBody(number(obj, "id", "tunnel", 1 << 24))
        for side, family in (("ipv4", "ip"), ("ipv6", "ip6")):
            for name, field in (("src", "saddr"), ("dst", "daddr")):
                address = optional_text(obj, f"{name}-{side}", "tunnel")
                if address is not None:
                    if body.family not in (None, family):
                        raise fail("a tunnel has addresses of one family")
                    body.family = family
                    setattr(body, field, s.SymbolExpr(address, loc=JSON_LOC))
        for name, limit in (("sport", 1 << 16), ("dport", 1 << 16), ("tos", 256), ("ttl", 256)):
            setattr(body, name, optional_number(obj, name, "tunnel", limit))
        kind = optional_text(obj, "type", "tunnel")
        if kind is not None:
            self._tunnel_kind(body, one_of(kind, ("vxlan", "erspan", "geneve"), "tunnel type"), obj.get("tunnel"))
        missing = tunnel_lacks(body)
        if missing:
            raise fail(f"tunnel has no {missing}")
        return body

    def _tunnel_kind(self, body: s.TunnelBody, kind: str, value: Json) -> None:
        if kind == "geneve":
            if not isinstance(value, list):
                raise fail("tunnel: geneve needs a list of options")
            body.geneve = [self._geneve_option(as_object(item, "geneve option")) for item in value]
            return
        obj = as_object(value, "tunnel")
        if kind == "vxlan":
            body.vxlan_gbp = number(obj, "gbp", "vxlan", _U32)
            return
        body.erspan_version = number(obj, "version", "erspan", 3)
        if body.erspan_version == 1:
            body.erspan_index = number(obj, "index", "erspan", 1 << 20)
        else:
            direction = text(obj, "direction", "erspan")
            body.erspan_direction = one_of(direction, ("ingress", "egress"), "erspan direction")
            body.erspan_hwid = number(obj, "hwid", "erspan", 64)

    def _geneve_option(self, obj: Object) -> tuple[int, int, bytes]:
        try:
            data = bytes.fromhex(text(obj, "data", "geneve").removeprefix("0x"))
        except ValueError:
            raise fail("geneve: property 'data' must be hexadecimal") from None
        if not data or len(data) % 4 or len(data) > 127:
            raise fail("geneve option data must be a multiple of 4 bytes")
        return number(obj, "class", "geneve", 1 << 16), number(obj, "opt-type", "geneve", 256), data


_BODIES: Final[dict[str, Callable[[JsonParser, Object], s.Stmt | s.ObjectBody]]] = {
    "counter": JsonParser._counter_body,
    "quota": JsonParser._quota_body,
    "limit": JsonParser._limit_body,
    "synproxy": JsonParser._synproxy_body,
    "secmark": JsonParser._secmark_body,
    "tunnel": JsonParser._tunnel_body,
    "ct helper": JsonParser._helper_body,
    "ct timeout": JsonParser._timeout_body,
    "ct expectation": JsonParser._expectation_body,
}
_OBJECTS: Final[dict[str, Callable[[JsonParser, s.Command, Object], None]]] = {
    "table": JsonParser._table,
    "chain": JsonParser._chain,
    "rule": JsonParser._rule,
    "set": JsonParser._set_block,
    "map": JsonParser._set_block,
    "meter": JsonParser._set_block,
    "element": JsonParser._element,
    "flowtable": JsonParser._flowtable,
    **dict.fromkeys(_NAMED, JsonParser._object),
}
