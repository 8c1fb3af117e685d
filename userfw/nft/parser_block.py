"""The parser of blocks: what stands between the braces of tables, chains, sets, maps, flowtables and objects.

Laws:
- A problem inside a block ends the item it is in; the block goes on at the next line, the table with its next chain.
- Each block has a scope of variables of its own; it may ``define`` and ``include``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from userfw.nft import keywords as kw
from userfw.nft.location import NftError
from userfw.nft.parser_base import DEVICE_MAX, Scope
from userfw.nft.parser_expr import LOAD, VALUE
from userfw.nft.parser_stmt import StmtParser
from userfw.nft.syntax import (
    ChainBlock,
    ConstantExpr,
    CtExpectationBody,
    CtHelperBody,
    CtTimeoutBody,
    Expr,
    FlowtableBlock,
    ObjectBlock,
    Priority,
    SecmarkBody,
    SetBlock,
    SetElemExpr,
    SetExpr,
    SymbolExpr,
    SynproxyStmt,
    TableBlock,
    TunnelBody,
    TypeExpr,
    TypeofExpr,
)

_SET_FLAGS: Final = ("constant", "interval", "timeout", "dynamic")
_TABLE_FLAGS: Final = ("dormant", "owner", "persist")
_HOOKS: Final = ("prerouting", "input", "forward", "output", "postrouting", "ingress", "egress")
_CHAIN_TYPES: Final = ("filter", "nat", "route")
_DEFINES: Final = ("include", "define", "redefine", "undefine")
_L3: Final = ("ip", "ip6", "inet", "arp", "bridge")


class BlockParser(StmtParser):
    """Declarative blocks."""

    # --- define, include

    def parse_common(self) -> bool:
        """``include``, ``define``, ``redefine``, ``undefine``, if one is here."""
        word = self.word
        if word not in _DEFINES:
            return False
        start = self.advance()[2]
        if word == "include":
            token = self.expect("quoted")
            loc = self.at(token)
            self.end_statement()
            self.include(token[1], loc)
            return True
        if self.tok[0] != "word":
            raise self.unexpected("string")
        name = self.advance()[1]
        loc = self.span(start)
        if word == "undefine":
            if self.scope.values.pop(name, None) is None:
                raise self.fail(f"undefined symbol '{name}'", loc)
        else:
            self.expect("=")
            value = self.parse_initializer()
            if word == "define" and name in self.scope.values:
                raise self.fail(f"redefinition of symbol '{name}'", loc)
            self.scope.values[name] = value
        self.end_statement()
        return True

    def parse_initializer(self) -> Expr:
        start = self.tok[2]
        if self.tok[0] == "{":
            source = self.source
            mark = self.peek()[0]
            if mark == "}":
                self.advance()
                self.advance()
                return SetExpr([], loc=self.span(start))
            value = self.parse_set()
            if self.source is not source:
                raise self.fail("a set must end in the file that it begins in")
            return value
        if self.tok[0] == "-":
            self.advance()
            return ConstantExpr(-self.parse_number(1 << 31), loc=self.span(start))
        return self.parse_rhs()

    # --- the frame of all blocks

    def parse_block(self, item: Callable[[], None]) -> None:
        """Items up to the closing brace, which the caller consumes. An item consumes its own separator."""
        outer = self.scope
        self.scope = Scope(outer)
        self.enter()
        try:
            while True:
                while self.tok[0] in ("nl", ";"):
                    self.advance()
                if self.tok[0] in ("}", "eof"):
                    return
                braces, depth = self.braces, self.depth
                try:
                    if not self.parse_common():
                        item()
                except NftError as error:
                    self.record(error)
                    self.depth = depth
                    self.recover(braces)
        finally:
            self.leave()
            self.scope = outer

    def braced(self, item: Callable[[], None]) -> None:
        """``{ items }``."""
        self.expect("{")
        self.parse_block(item)
        self.expect("}")

    def once(self, given: object, what: str) -> None:
        """Refuse a second value for the same thing."""
        if given:
            raise self.fail(f"You can only specify this once. This statement is already set for {what}.")

    # --- tables

    def parse_table_body(self, table: TableBlock) -> None:
        """The inside of a table's braces."""
        self.parse_block(lambda: self._table_item(table))

    def _table_item(self, table: TableBlock) -> None:
        start = self.tok[2]
        word = self.expect_word()
        if word == "flags":
            table.flags = tuple(dict.fromkeys((*table.flags, *self._words(_TABLE_FLAGS, "table flag"))))
        elif word == "comment":
            self.once(table.comment, f"table {table.name}")
            table.comment = self.parse_comment()
        elif word == "chain":
            chain = ChainBlock(self.parse_name("chain"))
            self._enclosed(lambda: self.parse_chain_body(chain))
            chain.loc = self.span(start)
            table.chains.append(chain)
        elif word in ("set", "map"):
            block = SetBlock(self.parse_name(word), is_map=word == "map")
            self._enclosed(lambda: self.parse_set_body(block))
            block.loc = self.span(start)
            table.sets.append(block)
        elif word == "flowtable":
            flowtable = FlowtableBlock(self.parse_name("flowtable"))
            self._enclosed(lambda: self.parse_flowtable_body(flowtable))
            flowtable.loc = self.span(start)
            table.flowtables.append(flowtable)
        elif word in kw.OBJECT_KINDS or word == "ct":
            kind = f"ct {self.expect_word(*kw.CT_OBJECTS)}" if word == "ct" else word
            obj = ObjectBlock(kind, self.parse_name(kind))
            self._enclosed(lambda: self.parse_object_body(obj))
            obj.loc = self.span(start)
            table.objects.append(obj)
        else:
            raise self.fail(f"syntax error, unexpected {word}", self.span(start))
        self.end_statement()

    def _enclosed(self, body: Callable[[], None]) -> None:
        self.expect("{")
        body()
        self.expect("}")

    def _words(self, allowed: tuple[str, ...], what: str) -> tuple[str, ...]:
        """``a, b, c`` of known words."""
        words = []
        while True:
            token = self.tok
            if token[0] != "word":
                raise self.unexpected()
            if token[1] not in allowed:
                raise self.fail(f"unknown {what} '{token[1]}'")
            self.advance()
            words.append(token[1])
            if not self.accept(","):
                return tuple(dict.fromkeys(words))

    # --- chains

    def parse_chain_body(self, chain: ChainBlock) -> None:
        self.parse_block(lambda: self._chain_item(chain))

    def _chain_item(self, chain: ChainBlock) -> None:
        word = self.word
        following = self.peek()
        if word == "type" and following[0] == "word":
            self._hook_spec(chain)
        elif word == "policy":
            self.advance()
            self._policy(chain)
        elif word == "flags":
            self.advance()
            chain.flags = self._words(("offload",), "chain flag")
        elif word == "devices" and following[0] == "=":
            self.advance()
            self.advance()
            chain.devices = self._devices()
        elif word == "comment":
            self.advance()
            self.once(chain.comment, f"chain {chain.name}")
            chain.comment = self.parse_comment()
        else:
            chain.rules.append(self.parse_rule())
        self.end_statement()

    def _hook_spec(self, chain: ChainBlock) -> None:
        start = self.advance()[2]
        self.once(chain.hook, f"chain {chain.name}")
        kind = self.expect_word()
        if kind not in _CHAIN_TYPES:
            raise self.fail(f"unknown chain type {kind}", self.span(start))
        at = self.tok[2]
        self.expect_word("hook")
        hook = self.expect_word()
        if hook not in _HOOKS:
            raise self.fail(f"unknown chain hook {hook}", self.span(at))
        if self.accept_word("device"):
            chain.devices = [self._device()]
        elif self.word == "devices":
            self.advance()
            self.expect("=")
            chain.devices = self._devices()
        chain.priority = self.parse_priority()
        chain.type = kind
        chain.hook = hook

    def _policy(self, chain: ChainBlock) -> None:
        start = self.tok[2]
        text = self.variable_text() if self.tok[0] == "$" else self.expect_word()
        if text not in ("accept", "drop"):
            raise self.fail(f"invalid policy '{text}', expecting accept or drop", self.span(start))
        self.once(chain.policy, f"chain {chain.name}")
        chain.policy = text

    def parse_priority(self) -> Priority:
        """``priority NAME|N [+-N]``."""
        start = self.tok[2]
        self.expect_word("priority")
        name: str | None = None
        if self.tok[0] == "$":
            at = self.tok[2]
            value = self.variable()
            if isinstance(value, ConstantExpr) and isinstance(value.value, int):
                return Priority(None, self._int32(value.value), loc=self.span(start))
            if not isinstance(value, SymbolExpr):
                raise self.fail("invalid priority expression", self.span(at))
            return self._priority_text(value.name, start)
        if self.tok[0] == "word":
            name = self.advance()[1]
            if len(name) > 32:
                raise self.fail("invalid priority expression")
            if self.tok[0] not in ("+", "-"):
                return Priority(name, 0, loc=self.span(start))
            sign = -1 if self.advance()[0] == "-" else 1
        else:
            sign = -1 if self.accept("-") else 1
        return Priority(name, self._int32(sign * self.parse_number(1 << 32)), loc=self.span(start))

    def _priority_text(self, text: str, start: int) -> Priority:
        """A priority from a variable: ``"filter - 150"``."""
        words = text.replace("+", " + ").replace("-", " - ").split()
        loc = self.span(start)
        if len(words) == 1 and not words[0].isdigit():
            return Priority(words[0], 0, loc=loc)
        if words and words[-1].isdigit() and len(words[-1]) < 12 and len(words) <= 3:
            if len(words) > 1 and words[-2] not in ("+", "-"):
                raise self.fail("invalid priority expression", loc)
            offset = int(words[-1]) * (-1 if "-" in words else 1)
            return Priority(words[0] if len(words) == 3 else None, self._int32(offset), loc=loc)
        raise self.fail("invalid priority expression", loc)

    def _int32(self, value: int) -> int:
        if not -(1 << 31) <= value < 1 << 31:
            raise self.fail("priority out of range")
        return value

    def _device(self) -> str:
        start = self.tok[2]
        name = self.parse_string()
        self._check_device(name, start)
        return name

    def _check_device(self, name: str, start: int) -> None:
        if not name:
            raise self.fail("you cannot set an empty interface name", self.span(start))
        if len(name) > DEVICE_MAX:
            raise self.fail(f"device name exceeds {DEVICE_MAX} characters", self.span(start))

    def _devices(self) -> list[str]:
        """``{ a, b }`` or a variable that holds names."""
        start = self.tok[2]
        if self.tok[0] == "$":
            return self._device_names(self.variable(), start)
        self.expect("{")
        devices: list[str] = []
        self.skip_newlines()
        while self.tok[0] != "}":
            at = self.tok[2]
            if self.tok[0] == "$":
                devices += self._device_names(self.variable(), at)
            else:
                devices.append(self._device())
            self.skip_newlines()
            if not self.accept(","):
                break
            self.skip_newlines()
        self.expect("}")
        if not devices:
            raise self.fail("empty list of devices", self.span(start))
        return devices

    def _device_names(self, value: Expr, start: int) -> list[str]:
        items = [element.key for element in value.elements] if isinstance(value, SetExpr) else [value]
        names = []
        for item in items:
            if not isinstance(item, SymbolExpr):
                raise self.fail("a device name is needed here", self.span(start))
            self._check_device(item.name, start)
            names.append(item.name)
        return names

    # --- sets and maps

    def parse_set_body(self, block: SetBlock) -> None:
        """The inside of the braces of a set or map."""
        self.parse_block(lambda: self._set_item(block))

    def _set_item(self, block: SetBlock) -> None:
        start = self.tok[2]
        word = self.word
        what = f"{'map' if block.is_map else 'set'} {block.name}"
        if word in ("type", "typeof"):
            self.advance()
            self.once(block.key, what)
            block.key = self._type() if word == "type" else self._typeof()
            if block.is_map:
                self.expect(":")
                self._data_type(block, word)
        elif word == "flags":
            self.advance()
            block.flags = tuple(dict.fromkeys((*block.flags, *self._words(_SET_FLAGS, "set flag"))))
        elif word == "timeout":
            self.advance()
            block.timeout = self.parse_time()
        elif word == "gc-interval":
            self.advance()
            block.gc_interval = self.parse_time()
        elif word == "size":
            self.advance()
            block.size = self.parse_number(1 << 32)
        elif word == "policy":
            self.advance()
            block.policy = self.expect_word("performance", "memory")
        elif word == "elements":
            self.advance()
            self.expect("=")
            self.once(block.elements, what)
            block.elements = self.parse_elements()
            self._separator_or_end()
            return
        elif word == "auto-merge":
            self.advance()
            block.auto_merge = True
            self._separator_or_end()
            return
        elif word == "comment":
            self.advance()
            self.once(block.comment, what)
            block.comment = self.parse_comment()
            self._separator_or_end()
            return
        else:
            stmt = self.parse_stateful_stmt()
            if stmt is None:
                raise self.unexpected()
            while stmt is not None:
                stmt.loc = self.span(start)
                block.stmts.append(stmt)
                stmt = self.parse_stateful_stmt()
        self.end_statement()

    def _separator_or_end(self) -> None:
        """After items whose end is clear without a separator."""
        if self.tok[0] in ("nl", ";"):
            self.advance()

    def parse_elements(self) -> list[SetElemExpr]:
        """``{ … }`` or a variable that holds a set."""
        if self.tok[0] == "$":
            start = self.tok[2]
            value = self.variable()
            if not isinstance(value, SetExpr):
                raise self.fail("a set is needed here", self.span(start))
            return list(value.elements)
        if self.tok[0] != "{":
            raise self.unexpected("'{' or '$'")
        return self.parse_set().elements

    def _type(self) -> Expr:
        start = self.tok[2]
        names = []
        while True:
            name = self.expect_word()
            if self.tok[0] == "," and self.peek()[0] == "num":
                self.advance()
                name += f",{self.parse_number(1 << 16)}"
            names.append(name)
            if not self.accept("."):
                return TypeExpr(names, loc=self.span(start))

    def _typeof(self) -> Expr:
        start = self.tok[2]
        return TypeofExpr(self.parse_concat(LOAD), loc=self.span(start))

    def _data_type(self, block: SetBlock, word: str) -> None:
        start = self.tok[2]
        text = self.word
        if text == "interval":
            self.advance()
            block.data_interval = True
        elif text in kw.OBJECT_KINDS:
            self.advance()
            block.objtype = text
            return
        elif text == "ct" and self.peek()[1] in kw.CT_OBJECTS:
            self.advance()
            block.objtype = f"ct {self.advance()[1]}"
            return
        if self.word == "verdict":
            self.advance()
            block.data = TypeExpr(["verdict"], loc=self.span(start))
        else:
            block.data = self._type() if word == "type" else self._typeof()

    # --- flowtables

    def parse_flowtable_body(self, block: FlowtableBlock) -> None:
        """The inside of a flowtable's braces."""
        self.parse_block(lambda: self._flowtable_item(block))

    def _flowtable_item(self, block: FlowtableBlock) -> None:
        start = self.tok[2]
        word = self.expect_word("hook", "devices", "counter", "flags")
        if word == "hook":
            self.once(block.hook, f"flowtable {block.name}")
            hook = self.expect_word()
            if hook != "ingress":
                raise self.fail(f"unknown chain hook {hook}", self.span(start))
            block.priority = self.parse_priority()
            block.hook = hook
        elif word == "devices":
            self.expect("=")
            block.devices = self._devices()
        elif word == "counter":
            block.counter = True
            self._separator_or_end()
            return
        else:
            block.flags = self._words(("offload",), "flowtable flag")
        self.end_statement()

    # --- named objects

    def parse_object_body(self, block: ObjectBlock) -> None:
        """The inside of an object's braces."""
        kind = block.kind
        if kind.startswith("ct "):
            self._ct_object(block, kind[3:])
        elif kind == "tunnel":
            block.body = TunnelBody()
            self.parse_block(lambda: self._tunnel_item(block))
        else:
            self.parse_block(lambda: self._object_item(block))
        if block.body is None and kind == "counter":
            block.body = self.parse_counter_args()
        elif block.body is None and not self.errors:
            raise self.fail(f"{kind} {block.name} is empty")

    def _object_item(self, block: ObjectBlock) -> None:
        if self.accept_word("comment"):
            self.once(block.comment, f"{block.kind} {block.name}")
            block.comment = self.parse_comment()
            self._separator_or_end()
            return
        self.once(block.body, f"{block.kind} {block.name}")
        self.parse_object_args(block)
        self._separator_or_end()

    def parse_object_args(self, block: ObjectBlock) -> None:
        """What may also stand without braces: ``packets 0 bytes 0``, ``over 25 mbytes``, ``rate 10/second`` …"""
        start = self.tok[2]
        kind = block.kind
        if kind == "counter":
            if self.word not in ("packets", "bytes"):
                raise self.unexpected("packets or bytes")
            block.body = self.parse_counter_args()
        elif kind == "quota":
            block.body = self.parse_quota_args()
        elif kind == "limit":
            block.body = self.parse_limit_args()
        elif kind == "synproxy":
            block.body = self._synproxy_lines()
        elif kind == "secmark":
            block.body = SecmarkBody(self.parse_string())
        else:
            raise self.unexpected()
        block.body.loc = self.span(start)

    def _synproxy_lines(self) -> SynproxyStmt:
        """Options of a synproxy object, which may take several lines."""
        start = self.tok[2]
        stmt = self.parse_synproxy_args()
        if self.tok[2] == start:
            raise self.unexpected("mss")
        while self.tok[0] in ("nl", ";"):
            self.advance()
            more = self.parse_synproxy_args()
            stmt.mss = stmt.mss if more.mss is None else more.mss
            stmt.wscale = stmt.wscale if more.wscale is None else more.wscale
            stmt.timestamp |= more.timestamp
            stmt.sack_perm |= more.sack_perm
        return stmt

    def _ct_object(self, block: ObjectBlock, kind: str) -> None:
        values: dict[str, str] = {}
        numbers: dict[str, int] = {}
        policy: dict[str, int] = {}
        start = self.tok[2]

        def item() -> None:
            word = self.expect_word()
            if word == "comment":
                self.once(block.comment, f"{block.kind} {block.name}")
                block.comment = self.parse_comment()
                self._separator_or_end()
                return
            if word == "l3proto":
                values[word] = self.expect_word(*_L3)
            elif word == "type" and kind == "helper":
                values[word] = self.expect("quoted")[1]
                self.expect_word("protocol")
                values["protocol"] = self._ct_protocol()
            elif word == "protocol" and kind != "helper":
                values[word] = self._ct_protocol()
            elif word == "policy" and kind == "timeout":
                self._timeout_policy(policy)
            elif word in ("dport", "size") and kind == "expectation":
                numbers[word] = self.parse_number(1 << 16 if word == "dport" else 256)
            elif word == "timeout" and kind == "expectation":
                numbers[word] = self.parse_time()
            else:
                raise self.fail(f"syntax error, unexpected {word}", self.span(start))
            self.end_statement()

        self.parse_block(item)
        if self.errors:
            return
        block.body = self._ct_body(block, kind, values, numbers, policy)
        block.body.loc = self.span(start)

    def _ct_body(
        self, block: ObjectBlock, kind: str, values: dict[str, str], numbers: dict[str, int], policy: dict[str, int]
    ) -> CtHelperBody | CtTimeoutBody | CtExpectationBody:
        needed = {
            "helper": ("type", "protocol"),
            "timeout": ("protocol",),
            "expectation": ("protocol", "dport", "timeout", "size"),
        }
        for name in needed[kind]:
            if name not in values and name not in numbers:
                raise self.fail(f"ct {kind} {block.name} has no {name}")
        l3proto = values.get("l3proto")
        if kind == "helper":
            return CtHelperBody(values["type"], values["protocol"], l3proto)
        if kind == "timeout":
            return CtTimeoutBody(values["protocol"], l3proto, policy)
        return CtExpectationBody(values["protocol"], numbers["dport"], numbers["timeout"], numbers["size"], l3proto)

    def _ct_protocol(self) -> str:
        return self.expect_word("tcp", "udp")

    def _timeout_policy(self, policy: dict[str, int]) -> None:
        self.expect("=")
        self.expect("{")
        self.skip_newlines()
        while self.tok[0] != "}":
            state = self.expect_word()
            self.expect(":")
            policy[state] = self.parse_time() // 1000
            self.skip_newlines()
            if not self.accept(","):
                break
            self.skip_newlines()
        self.expect("}")

    # --- tunnels

    def _tunnel_item(self, block: ObjectBlock) -> None:
        body = block.body
        assert isinstance(body, TunnelBody)
        word = self.expect_word()
        if word == "comment":
            block.comment = self.parse_comment()
        elif word in ("id", "sport", "dport", "tos", "ttl"):
            limits = {"id": 1 << 24, "sport": 1 << 16, "dport": 1 << 16}
            setattr(body, word, self.parse_number(limits.get(word, 256)))
        elif word in ("ip", "ip6"):
            which = self.expect_word("saddr", "daddr")
            if body.family not in (None, word):
                raise self.fail("a tunnel has addresses of one family")
            self.once(getattr(body, which), f"tunnel {block.name}")
            at = self.tok[2]
            address = self.parse_primary(VALUE)
            if not isinstance(address, SymbolExpr):
                raise self.fail("an address is needed here", self.span(at))
            body.family = word
            setattr(body, which, address)
        elif word in ("vxlan", "erspan", "geneve"):
            if body.vxlan_gbp is not None or body.erspan_version is not None or body.geneve is not None:
                raise self.fail("a tunnel is of one kind")
            self._enclosed({"vxlan": self._vxlan, "erspan": self._erspan, "geneve": self._geneve}[word](body))
        else:
            raise self.fail(f"syntax error, unexpected {word}")
        self._separator_or_end()

    def _vxlan(self, body: TunnelBody) -> Callable[[], None]:
        def item() -> None:
            self.expect_word("gbp")
            body.vxlan_gbp = self.parse_number(1 << 32)
            self._separator_or_end()

        return lambda: self.parse_block(item)

    def _erspan(self, body: TunnelBody) -> Callable[[], None]:
        def item() -> None:
            word = self.expect_word("version", "index", "direction", "hwid")
            if word == "version":
                body.erspan_version = self.parse_number(3)
            elif word == "index":
                body.erspan_index = self.parse_number(1 << 20)
            elif word == "direction":
                body.erspan_direction = self.expect_word("ingress", "egress")
            else:
                body.erspan_hwid = self.parse_number(64)
            self._separator_or_end()

        return lambda: self.parse_block(item)

    def _geneve(self, body: TunnelBody) -> Callable[[], None]:
        body.geneve = []

        def item() -> None:
            self.expect_word("class")
            klass = self.parse_number(1 << 16)
            self.expect_word("opt-type")
            kind = self.parse_number(256)
            self.expect_word("data")
            loc = self.here()
            text = self.expect("quoted")[1]
            try:
                data = bytes.fromhex(text.removeprefix("0x"))
            except ValueError:
                raise self.fail("invalid hexadecimal data", loc) from None
            if not data or len(data) % 4 or len(data) > 127:
                raise self.fail("geneve option data must be a multiple of 4 bytes", loc)
            assert body.geneve is not None
            body.geneve.append((klass, kind, data))
            self._separator_or_end()

        return lambda: self.parse_block(item)

