"""The parser of the nft language: text to commands.

Laws:
- ``parse`` returns every command of the text in order, or raises ``NftErrors`` with every problem found; never both,
  and never another exception, whatever the text.
- The language is that of nft 1.1.6. What it does not contain is refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from userfw.nft import keywords as kw
from userfw.nft.location import Location, NftError, NftErrors, Source
from userfw.nft.parser_base import TooManyErrors, shown_word
from userfw.nft.parser_block import BlockParser
from userfw.nft.parser_expr import LOAD
from userfw.nft.syntax import (
    ChainBlock,
    Command,
    DescribeSpec,
    ElementsBlock,
    FlowtableBlock,
    HooksSpec,
    MonitorSpec,
    ObjectBlock,
    RuleBlock,
    SetBlock,
    TableBlock,
)

_OPS: Final = (
    "add", "create", "insert", "replace", "delete", "destroy", "get", "list", "reset", "flush", "rename", "describe",
    "monitor", "import", "export",
)  # fmt: skip
_LIST_PLURALS: Final = ("tables", "chains", "sets", "maps", "meters", "flowtables")
_HOOKS: Final = ("prerouting", "input", "forward", "output", "postrouting", "ingress", "egress")
_MONITOR_OBJECTS: Final = ("tables", "chains", "sets", "rules", "elements", "ruleset", "trace")


class Parser(BlockParser):
    """Commands."""

    def parse_commands(self) -> list[Command]:
        """All commands up to the end, with recovery after each problem."""
        commands: list[Command] = []
        while True:
            while self.tok[0] in ("nl", ";"):
                self.advance()
            if self.tok[0] == "eof":
                return commands
            depth = self.depth
            braces = self.braces = 0
            try:
                if self.tok[0] == "}":
                    self.advance()
                    self.braces = 0
                    raise self.fail("syntax error, unexpected '}'", self.span(self.last_end - 1))
                if not self.parse_common():
                    commands.append(self._command())
                    self.end_statement()
            except NftError as error:
                self.record(error)
                self.depth = depth
                self.recover(braces)

    def _command(self) -> Command:
        start = self.tok[2]
        source = self.source
        op = self.word if self.word in _OPS else "add"
        if self.word == op:
            self.advance()
        handler = _COMMANDS[op]
        command = handler(self, op)
        command.loc = Location(source, start, self.last_end if self.source is source else start + 1)
        return command

    # --- who is meant

    def _family(self) -> str | None:
        return self.advance()[1] if self.word in kw.FAMILIES else None

    def _table_spec(self, command: Command) -> None:
        """``[family] table``; no family is ip."""
        command.family = self._family() or "ip"
        loc = self.here()
        command.table = self.parse_name("table")
        command.table_loc = loc

    def _name_spec(self, command: Command, what: str) -> str:
        """``[family] table name``."""
        self._table_spec(command)
        loc = self.here()
        command.name = self.parse_name(what)
        command.name_loc = loc
        return command.name

    def _handle(self, command: Command) -> None:
        self.expect_word("handle")
        command.handle_loc = self.here()
        command.handle = self.parse_number()

    def _family_or_table(self, command: Command) -> None:
        """``[family]``, or ``table [family] name``, for listings of all of a kind."""
        if self.accept_word("table"):
            self._table_spec(command)
        else:
            command.family = self._family()

    def _end(self) -> bool:
        return self.tok[0] in ("nl", ";", "eof")

    # --- add, create, insert, replace

    def _add(self, op: str) -> Command:
        word = self.word
        command = Command(op, word)
        if word == "table":
            self.advance()
            self._add_table(command)
        elif word == "chain":
            self.advance()
            name = self._name_spec(command, "chain")
            chain = ChainBlock(name, loc=command.name_loc)
            if self.tok[0] == "{":
                self._enclosed(lambda: self.parse_chain_body(chain))
            command.node = chain
        elif word in ("set", "map"):
            self.advance()
            block = SetBlock(self._name_spec(command, word), is_map=word == "map", loc=command.name_loc)
            self._enclosed(lambda: self.parse_set_body(block))
            command.node = block
        elif word == "element":
            self.advance()
            self._elements(command)
        elif word == "flowtable":
            self.advance()
            flowtable = FlowtableBlock(self._name_spec(command, "flowtable"), loc=command.name_loc)
            self._enclosed(lambda: self.parse_flowtable_body(flowtable))
            command.node = flowtable
        elif word in kw.OBJECT_KINDS and not (self.peek()[0] != "word" and self.peek()[0] != "quoted"):
            self.advance()
            self._add_object(command, word)
        elif word == "ct" and self.peek()[1] in kw.CT_OBJECTS:
            self.advance()
            command.obj = f"ct {self.advance()[1]}"
            self._add_object(command, command.obj)
        elif op == "add":
            self._rule(command)
        else:
            raise self.unexpected()
        return command

    def _add_table(self, command: Command) -> None:
        self._table_spec(command)
        assert command.family and command.table
        table = TableBlock(command.family, command.table, loc=command.table_loc)
        if self.tok[0] == "{":
            table.declared = True
            self._enclosed(lambda: self.parse_table_body(table))
        command.node = table

    def _add_object(self, command: Command, kind: str) -> None:
        block = ObjectBlock(kind, self._name_spec(command, kind), loc=command.name_loc)
        if self.tok[0] == "{":
            self._enclosed(lambda: self.parse_object_body(block))
        elif not self._end() and kind in ("counter", "quota", "limit", "synproxy", "secmark"):
            self.parse_object_args(block)
        elif kind == "counter":
            block.body = self.parse_counter_args()
        elif kind != "counter":
            raise self.unexpected("'{'")
        command.node = block

    def _elements(self, command: Command) -> None:
        self._name_spec(command, "set")
        start = self.tok[2]
        elements = self.parse_elements()
        command.node = ElementsBlock(elements, loc=self.span(start))

    def _rule(self, command: Command) -> None:
        """``[rule] [family] table chain [handle|position|index N] statements``."""
        command.obj = "rule"
        self.accept_word("rule")
        self._name_spec(command, "chain")
        if self.word in ("handle", "position", "index") and self.peek()[0] == "num":
            start = self.tok[2]
            word = self.advance()[1]
            command.handle_loc = self.here()
            setattr(command, word, self.parse_number())
            if word != "handle":
                command.handle_loc = self.span(start)
        command.node = self.parse_rule()

    def _insert(self, op: str) -> Command:
        if self.word != "rule":
            raise self.unexpected("rule")
        command = Command(op, "rule")
        self._rule(command)
        return command

    def _replace(self, op: str) -> Command:
        command = Command(op, "rule")
        self.expect_word("rule")
        self._name_spec(command, "chain")
        self._handle(command)
        command.node = self.parse_rule()
        return command

    # --- delete, destroy, flush, rename, get, reset

    def _delete(self, op: str) -> Command:
        obj = self._object_word()
        command = Command(op, obj)
        if obj == "rule":
            self._name_spec(command, "chain")
            self._handle(command)
        elif obj == "element":
            self._elements(command)
        elif obj == "table":
            command.family = self._family() or "ip"
            if self.word == "handle" and self.peek()[0] == "num":
                self._handle(command)
            else:
                loc = self.here()
                command.table = self.parse_name("table")
                command.table_loc = loc
        elif obj in ("chain", "set", "map", "flowtable") or obj in kw.OBJECT_KINDS or obj.startswith("ct "):
            self._named_or_handle(command, obj)
        else:
            raise self.unexpected()
        return command

    def _object_word(self) -> str:
        word = self.expect_word()
        return f"ct {self.expect_word(*kw.CT_OBJECTS)}" if word == "ct" else word

    def _named_or_handle(self, command: Command, obj: str) -> None:
        self._table_spec(command)
        if self.word == "handle" and self.peek()[0] == "num":
            self._handle(command)
            return
        loc = self.here()
        command.name = self.parse_name(obj)
        command.name_loc = loc
        if self.tok[0] != "{":
            return
        if obj == "chain":
            chain = ChainBlock(command.name, loc=loc)
            self._enclosed(lambda: self.parse_chain_body(chain))
            command.node = chain
        elif obj == "flowtable":
            flowtable = FlowtableBlock(command.name, loc=loc)
            self._enclosed(lambda: self.parse_flowtable_body(flowtable))
            command.node = flowtable

    def _get(self, op: str) -> Command:
        command = Command(op, "element")
        self.expect_word("element")
        self._elements(command)
        return command

    def _flush(self, op: str) -> Command:
        obj = self.expect_word("table", "chain", "set", "map", "meter", "ruleset", "flow")
        command = Command(op, obj)
        if obj == "ruleset":
            command.family = self._family()
        elif obj == "table":
            self._table_spec(command)
        else:
            if obj == "flow":
                self.expect_word("table")
                command.obj = "meter"
            self._name_spec(command, obj)
        return command

    def _rename(self, op: str) -> Command:
        command = Command(op, "chain")
        self.expect_word("chain")
        self._name_spec(command, "chain")
        command.new_name = self.parse_name("chain")
        return command

    def _reset_command(self, op: str) -> Command:
        obj = self.expect_word("rule", "rules", "counter", "counters", "quota", "quotas", "element", "set", "map")
        command = Command(op, obj)
        if obj == "rules":
            if self.accept_word("chain"):
                self._name_spec(command, "chain")
            elif self.accept_word("table"):
                self._table_spec(command)
            else:
                self._rules_of(command)
        elif obj == "rule":
            self._name_spec(command, "chain")
            self._handle(command)
        elif obj in ("counters", "quotas"):
            self._family_or_table(command)
        elif obj == "element":
            self._elements(command)
        else:
            self._name_spec(command, obj)
        return command

    def _rules_of(self, command: Command) -> None:
        """``reset rules [family] [table [chain]]``."""
        command.family = self._family()
        if self._end():
            return
        command.family = command.family or "ip"
        command.table_loc = self.here()
        command.table = self.parse_name("table")
        if not self._end():
            command.name_loc = self.here()
            command.name = self.parse_name("chain")

    # --- list, describe, monitor, import, export

    def _list(self, op: str) -> Command:
        obj = self._list_word()
        command = Command(op, obj)
        if obj == "ruleset" or obj in ("tables", "chains", "meters", "flowtables"):
            command.family = self._family()
        elif obj in ("sets", "maps") or obj in kw.OBJECT_PLURALS:
            self._family_or_table(command)
        elif obj in ("ct helpers", "ct timeouts", "ct expectations"):
            if not self._end():
                self._family_or_table(command)
        elif obj == "table":
            self._table_spec(command)
        elif obj == "hooks":
            self._hooks(command)
        elif obj in ("chain", "set", "map", "meter", "flowtable") or obj in kw.OBJECT_KINDS or obj.startswith("ct "):
            self._name_spec(command, obj)
        else:
            raise self.fail(f"syntax error, unexpected {shown_word(obj)}", self.span(self.last_end - len(obj)))
        return command

    def _list_word(self) -> str:
        word = self.expect_word()
        if word == "ct":
            kind = self.expect_word("helper", "helpers", "timeout", "timeouts", "expectation", "expectations")
            # nft writes "list ct timeout table …" for all of a table.
            if not kind.endswith("s") and self.word == "table":
                kind += "s"
            return f"ct {kind}"
        if word == "flow":
            return "meters" if self.expect_word("table", "tables") == "tables" else "meter"
        return word

    def _hooks(self, command: Command) -> None:
        """``list hooks [family] [hook] [device D]``."""
        start = self.tok[2]
        spec = HooksSpec()
        command.family = self._family()
        if self.word in _HOOKS:
            spec.hook = self.advance()[1]
        if self.accept_word("device") or self.accept_word("devices"):
            spec.device = self.parse_string()
        spec.loc = self.span(start)
        command.node = spec

    def _describe(self, op: str) -> Command:
        start = self.tok[2]
        command = Command(op, "expression")
        command.node = DescribeSpec(self.parse_concat(LOAD), loc=self.span(start))
        return command

    def _monitor(self, op: str) -> Command:
        start = self.tok[2]
        spec = MonitorSpec()
        if self.word and self.word not in (*_MONITOR_OBJECTS, "xml", "json", "vm"):
            word = self.advance()[1]
            if word not in ("new", "destroy"):
                raise self.fail("monitor event is not supported", self.span(start))
            spec.event = word
        if self.word in _MONITOR_OBJECTS:
            spec.objects = self.advance()[1]
        if self.word in ("xml", "json", "vm"):
            spec.format = self.advance()[1]
        return Command(op, "monitor", node=spec)

    def _transfer(self, op: str) -> Command:
        """``import``/``export [ruleset] vm|json|xml``: parsed, so that the refusal names them."""
        self.accept_word("ruleset")
        return Command(op, "ruleset", flags=(self.expect_word("xml", "json", "vm"),))


_COMMANDS: Final = {
    "add": Parser._add,
    "create": Parser._add,
    "insert": Parser._insert,
    "replace": Parser._replace,
    "delete": Parser._delete,
    "destroy": Parser._delete,
    "get": Parser._get,
    "list": Parser._list,
    "reset": Parser._reset_command,
    "flush": Parser._flush,
    "rename": Parser._rename,
    "describe": Parser._describe,
    "monitor": Parser._monitor,
    "import": Parser._transfer,
    "export": Parser._transfer,
}


def parse(
    text: str,
    *,
    filename: str = "<cmdline>",
    include_path: Sequence[str] = (),
    defines: Mapping[str, str] | None = None,
) -> list[Command]:
    """The commands of a ruleset text.

    ``include_path`` are folders for ``include "name"``; ``defines`` are variables as text (``nft --define``).
    Raises ``NftErrors`` with all problems.
    """
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        source = Source(filename, text)
        raise NftErrors.one("invalid character", Location(source, error.start, error.start + 1)) from None
    parser = Parser(Source(filename, text), include_path, defines)
    commands: list[Command] = []
    try:
        commands = parser.parse_commands()
    except TooManyErrors:
        parser.errors.append(NftError("too many errors, giving up"))
    except RecursionError:
        parser.errors.append(parser.fail("nested too deeply"))
    if parser.errors:
        raise NftErrors(parser.errors)
    return commands


def parse_rule(text: str) -> RuleBlock:
    """One rule's statements, for tests and tools. Raises ``NftErrors``."""
    parser = Parser(Source("<rule>", text))
    try:
        rule = parser.parse_rule()
        parser.end_statement()
    except NftError as error:
        raise NftErrors([*parser.errors, error]) from None
    if parser.errors:
        raise NftErrors(parser.errors)
    return rule


__all__ = ["parse", "parse_rule"]
