"""The parser of named objects (counters, quotas, helpers, tunnels …), and the frame that all blocks share.

Laws:
- A problem inside a block ends the item it is in; the block goes on at the next line.
- Each block has a scope of variables of its own; it may ``define`` and ``include``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from userfw.nft.location import Location, NftError
from userfw.nft.parser_base import MAX_SCOPES, Scope, shown_word
from userfw.nft.parser_expr import VALUE
from userfw.nft.parser_stmt import StmtParser
from userfw.nft.syntax import (
    ConstantExpr,
    CtExpectationBody,
    CtHelperBody,
    CtTimeoutBody,
    Expr,
    ObjectBlock,
    SecmarkBody,
    SetExpr,
    SymbolExpr,
    SynproxyStmt,
    TunnelBody,
)

_DEFINES: Final = ("include", "define", "redefine", "undefine")
_L3: Final = ("ip", "ip6", "inet", "arp", "bridge")


class ObjectParser(StmtParser):
    """Blocks in general, and those of named objects."""

    # --- define, include

    def parse_common(self) -> bool:
        """``include``, ``define``, ``redefine``, ``undefine``, if one is here."""
        word = self.word
        if word not in _DEFINES:
            return False
        start = self.advance()[2]
        if word == "include":
            token = self.expect("quoted")
            self.end_statement()
            self.include(token[1], self.span(start))
            return True
        if self.tok[0] != "word":
            raise self.unexpected("string")
        token = self.advance()
        name, loc = token[1], self.at(token)
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
        if outer.depth >= MAX_SCOPES:
            raise self.fail("too many levels of nesting", Location(self.source, self.last_end - 1, self.last_end))
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

    def _enclosed(self, body: Callable[[], None]) -> None:
        self.expect("{")
        body()
        self.expect("}")

    def _separator_or_end(self) -> None:
        """After items whose end is clear without a separator."""
        if self.tok[0] in ("nl", ";"):
            self.advance()

    # --- named objects

    def parse_object_body(self, block: ObjectBlock) -> None:
        """The inside of an object's braces."""
        kind = block.kind
        if kind.startswith("ct "):
            self._ct_object(block, kind[3:])
        elif kind == "tunnel":
            block.body = TunnelBody()
            braces = self.tok[2]
            errors = len(self.errors)
            self.parse_block(lambda: self._tunnel_item(block))
            missing = tunnel_lacks(block.body)
            if missing and errors == len(self.errors):
                raise self.fail(f"tunnel {block.name} has no {missing}", Location(self.source, braces, braces + 1))
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
                raise self.fail(f"syntax error, unexpected {shown_word(word)}", self.span(start))
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
            raise self.fail(f"syntax error, unexpected {shown_word(word)}")
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


def tunnel_lacks(body: TunnelBody) -> str:
    """What a tunnel needs and this one has not (Linux: nft_tunnel_obj_init); empty when it is complete."""
    if body.id is None:
        return "id"
    return "" if body.daddr is not None else "destination address"
