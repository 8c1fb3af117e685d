"""The parser of blocks: what stands between the braces of tables, chains, sets, maps, flowtables and objects.

Laws:
- A problem inside a block ends the item it is in; the block goes on at the next line, the table with its next chain.
- Each block has a scope of variables of its own; it may ``define`` and ``include``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from userfw.nft import keywords as kw
from userfw.nft.parser_base import DEVICE_MAX, shown_word
from userfw.nft.parser_expr import LOAD
from userfw.nft.parser_object import ObjectParser
from userfw.nft.syntax import (
    ChainBlock,
    ConstantExpr,
    Expr,
    FlowtableBlock,
    ObjectBlock,
    Priority,
    SetBlock,
    SetElemExpr,
    SetExpr,
    SymbolExpr,
    TableBlock,
    TypeExpr,
    TypeofExpr,
)

_SET_FLAGS: Final = ("constant", "interval", "timeout", "dynamic")
_TABLE_FLAGS: Final = ("dormant", "owner", "persist")
_HOOKS: Final = ("prerouting", "input", "forward", "output", "postrouting", "ingress", "egress")
_CHAIN_TYPES: Final = ("filter", "nat", "route")


class BlockParser(ObjectParser):
    """Declarative blocks."""

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
            raise self.fail(f"syntax error, unexpected {shown_word(word)}", self.span(start))
        self.end_statement()

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
            self.take_formed(chain.rules)
        self.end_statement()

    def _hook_spec(self, chain: ChainBlock) -> None:
        self.advance()
        self.once(chain.hook, f"chain {chain.name}")
        loc = self.here()
        kind = self.expect_word()
        if kind not in _CHAIN_TYPES:
            raise self.fail("unknown chain type", loc)
        self.expect_word("hook")
        loc = self.here()
        hook = self.expect_word()
        if hook not in _HOOKS:
            raise self.fail("unknown chain hook", loc)
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
        elif word == "auto-merge" and not block.is_map:
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

    def parse_elements(self) -> Sequence[SetElemExpr]:
        """``{ … }`` or a variable that holds a set."""
        if self.tok[0] == "$":
            start = self.tok[2]
            value = self.variable()
            if not isinstance(value, SetExpr):
                raise self.fail("a set is needed here", self.span(start))
            return value.elements
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
        word = self.expect_word("hook", "devices", "counter", "flags")
        if word == "hook":
            self.once(block.hook, f"flowtable {block.name}")
            loc = self.here()
            hook = self.expect_word()
            if hook != "ingress":
                raise self.fail("unknown chain hook", loc)
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
