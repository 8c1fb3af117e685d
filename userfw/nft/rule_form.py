"""Rules of one form: lines that differ only in addresses, numbers, counts and comments are parsed once.

Laws:
- A line's *form* is its text with a mark for each *hole*: a decimal number, an IPv4 or IPv6 address, the text of a comment, each
  between blanks. Only a line that holds one whole rule and nothing else has a form.
- The first line of a form goes through the parser. Each of its holes that has a *role* (the value that a plain header field is
  compared with, a counter's numbers, the comment) may be any value in the lines after it; every other hole must be what it was.
- No value in a role can make the parser refuse the line. Whether it fits the field is for the checker to say, as ever.
- A ``FormedRule`` stands for the line: its statements are parsed when somebody asks, and are those that the parser makes.
"""

from __future__ import annotations

import re
from typing import Any, Final

import cython

from userfw.nft import proto
from userfw.nft.datatype import Datatype
from userfw.nft.datatype_tables import INET_SERVICE, IPV4_ADDR, IPV6_ADDR, integer
from userfw.nft.location import Location, Source
from userfw.nft.syntax import (
    ConstantExpr,
    CounterStmt,
    Expr,
    MatchStmt,
    PayloadExpr,
    PrefixExpr,
    RelationalExpr,
    RuleBlock,
    Stmt,
    SymbolExpr,
)

if not cython.compiled:
    from userfw.nft.columns import decimal, groups, quad

NUMBER, ADDRESS, ADDRESS6, COMMENT = 1, 2, 3, 4
VALUE, PACKETS, BYTES, NOTE = range(4)
"""Roles: what a field is compared with, a counter's numbers, the rule's comment."""
MOST: Final = 400
"""Characters of a form; longer lines are left to the parser."""
MOST_COMMENT: Final = 128
_COUNTER: Final = re.compile(r"counter[ \t]+packets[ \t]+([0-9]+)[ \t]+bytes[ \t]+([0-9]+)\Z")
_PROTOCOLS: Final = frozenset(("ip", "ip6", "tcp", "udp", "udplite", "sctp", "th"))


class FormedRule(RuleBlock):
    """A rule of a form that is known: ``values`` stand in the form's holes, in their order."""

    __slots__ = ("_stmts", "form", "values")

    _stmts: list[Stmt] | None
    form: Any
    values: tuple[Any, ...]

    @property
    def stmts(self) -> list[Stmt]:
        found = self._stmts
        if found is None:
            found = self._stmts = parsed_at(self.loc.source, self.loc.start).stmts
        return found

    @stmts.setter
    def stmts(self, value: list[Stmt]) -> None:
        self._stmts = value
        self.form = None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RuleBlock):
            return NotImplemented
        return (self.stmts, self.comment, self.handle) == (other.stmts, other.comment, other.handle)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"RuleBlock(stmts={self.stmts!r}, comment={self.comment!r}, handle={self.handle!r})"


def parsed_at(source: Source, start: int) -> RuleBlock:
    """The rule that begins there, by the parser."""
    from userfw.nft.parser import Parser

    parser = Parser(source)
    parser.resume_at(start)
    return parser.parse_rule()


def parsed_places(source: Source, start: int) -> list[tuple[int, int, int]]:
    """The holes of the rule that begins there: start, end, kind."""
    end = source.text.index("\n", start) + 1
    alone = Source(source.name, source.text[start:end])
    line = Line()
    line.look(alone)
    return [(start + first, start + last, kind) for first, last, kind in line.places]


class Line:
    """What the scan of one line found: ``values`` and, if asked for, ``places`` (start, end, kind) of its holes; where the rule
    ends."""

    def __init__(self) -> None:
        self.shape = bytearray()
        self.item = bytearray(16)
        self.values: list[Any] = []
        self.places: list[tuple[int, int, int]] = []
        self.placing = False
        self.end = 0

    def look(self, source: Source) -> None:
        """Find the holes of a text of one line."""
        self.placing = True
        self.places = []
        self.scan(source, source.text.encode("latin-1", "replace"), 0)
        self.placing = False

    def key(self) -> bytes:
        return bytes(self.shape)

    def scan(self, source: Source, text: bytes, at: cython.Py_ssize_t) -> cython.Py_ssize_t:
        """Look at the line whose first word is at ``at``; its end, or -1 if it has no form."""
        size: cython.Py_ssize_t = len(text)
        shape: bytearray = self.shape
        fresh: cython.bint = True
        c: cython.int
        after: cython.Py_ssize_t
        kept: cython.Py_ssize_t = 0
        del shape[:]
        self.values = []
        self.end = at
        while at < size:
            c = text[at]
            if c == 10:
                del shape[kept:]  # blanks at the end
                return at
            if c == 32 or c == 9:
                fresh = True
            elif c == 34:
                at = self._quoted(source, text, at, size)
                if at < 0:
                    return -1
                fresh = False
                kept = len(shape)
                continue
            elif c < 32 or c > 126 or c == 35 or c == 36 or c == 59 or c == 63 or c == 64 or c == 92 or c == 123 or c == 125:
                return -1  # control characters, letters beyond ASCII, # $ ; ? @ \ { }
            elif fresh:
                fresh = False
                if c < 59 or (97 <= c <= 102) or (65 <= c <= 70):
                    after = self._hole(text, at)
                    if after > 0:
                        self.end = at = after
                        kept = len(shape)
                        continue
            shape.append(c)
            at += 1
            if not fresh:
                self.end = at
                kept = len(shape)
                if kept > MOST:
                    return -1
        return -1

    def _hole(self, text: bytes, at: cython.Py_ssize_t) -> cython.Py_ssize_t:
        """A number or address; where it ends, or -1 if the word is none."""
        size: cython.Py_ssize_t = len(text)
        end: cython.Py_ssize_t
        kind: cython.int
        i: cython.int
        c: cython.int
        value: cython.ulonglong = 0
        c = text[at]
        end = quad(text, at, self.item) if 48 <= c <= 57 else -1
        if end > 0:
            kind = ADDRESS
            for i in range(4):
                value = value << 8 | self.item[i]
        else:
            end = decimal(text, at, self.item) if 48 <= c <= 57 else -1
            kind = NUMBER
            if end > 0 and (end >= size or text[end] == 32 or text[end] == 9 or text[end] == 10):
                for i in range(8):
                    value = value << 8 | self.item[i]
            else:
                i = 0
                while i < 5 and at + i < size and text[at + i] != 58:
                    i += 1
                if i == 5 or at + i >= size:
                    return -1
                end = groups(text, at, self.item)
                kind = ADDRESS6
        if end < 0 or end >= size:
            return -1
        c = text[end]
        if c != 32 and c != 9 and c != 10 and (c != 47 or kind == NUMBER):
            return -1
        self.values.append(int.from_bytes(self.item, "big") if kind == ADDRESS6 else value)
        if self.placing:
            self.places.append((at, end, kind))
        self.shape.append(kind)
        return end

    def _quoted(self, source: Source, text: bytes, at: cython.Py_ssize_t, size: cython.Py_ssize_t) -> cython.Py_ssize_t:
        """A quoted string: a comment is a hole, any other stays. Where it ends, or -1."""
        shape: bytearray = self.shape
        end: cython.Py_ssize_t = text.find(b'"', at + 1)
        c: cython.int
        i: cython.Py_ssize_t
        if end < 0 or end - at > MOST:
            return -1
        note: cython.bint = shape.endswith(b" comment ")
        for i in range(at + 1, end):
            c = text[i]
            if c == 10 or c == 92 or (not note and (c < 32 or c > 126 or c == 63)):
                return -1
        self.end = end + 1
        if not note:
            shape += text[at : end + 1]
            return end + 1
        if end - at - 1 > MOST_COMMENT or end == at + 1:
            return -1
        self.values.append(source.text[at + 1 : end])
        if self.placing:
            self.places.append((at, end + 1, COMMENT))
        shape.append(COMMENT)
        return end + 1


class RuleForm:
    """The first rule of a form, and what its holes are: ``roles`` (hole to role and number of the statement), ``fixed`` holes,
    ``variants`` by the values of these."""

    def __init__(self, rule: RuleBlock, start: int, places: list[tuple[int, int, int]], values: tuple[Any, ...]) -> None:
        self.rule = rule
        self.start = start
        self.places = places
        self.values = values
        self.roles: dict[int, tuple[int, int]] = {}
        self.fixed: tuple[int, ...] = ()
        self.variants: dict[tuple[Any, ...], RuleForm] = {}
        self.comment = -1
        self.settled = False

    def settle(self) -> int:
        """Find the roles; done when a second rule of the form comes."""
        self.settled = True
        holes = {start: (number, end, kind) for number, (start, end, kind) in enumerate(self.places)}
        for at, stmt in enumerate(self.rule.stmts):
            if type(stmt) is MatchStmt:
                number = _compared(stmt.expr, holes)
                if number >= 0:
                    self.roles[number] = VALUE, at
            elif type(stmt) is CounterStmt:
                self._counter(stmt, at, holes)
        last = len(self.places) - 1
        if last >= 0 and self.places[last][2] == COMMENT and self.rule.comment == self.values[last]:
            self.comment = last
            self.roles[last] = NOTE, 0
        self.fixed = tuple(number for number in range(len(self.places)) if number not in self.roles)
        self.variants[tuple(self.values[number] for number in self.fixed)] = self
        return 0

    def _counter(self, stmt: CounterStmt, at: int, holes: dict[int, tuple[int, int, int]]) -> None:
        written = _COUNTER.match(stmt.loc.source.text[stmt.loc.start : stmt.loc.end])
        if written is None:
            return
        found = [holes.get(stmt.loc.start + written.start(group)) for group in (1, 2)]
        for role, hole in zip((PACKETS, BYTES), found, strict=True):
            if hole is not None and hole[2] == NUMBER:
                self.roles[hole[0]] = role, at


def fits(kind: int, dtype: Datatype) -> bool:
    """Whether a hole of this kind is written as its type is, so that every value of the type may stand there."""
    if kind == ADDRESS:
        return dtype is IPV4_ADDR
    if kind == ADDRESS6:
        return dtype is IPV6_ADDR
    return kind == NUMBER and (dtype is INET_SERVICE or dtype is integer(dtype.width))


def _compared(expr: Expr, holes: dict[int, tuple[int, int, int]]) -> int:
    """The hole that a match compares a plain header field with, or -1."""
    if type(expr) is not RelationalExpr or expr.op not in ("", "==", "!="):
        return -1
    left, right = expr.left, expr.right
    if type(left) is not PayloadExpr or left.inner is not None or left.protocol not in _PROTOCOLS:
        return -1
    row = proto.field(left.protocol, left.field)
    if row is None or row.is_key or row.needs or row.offset % 8 or row.width % 8 or row.dtype.width != row.width:
        return -1
    if type(right) is PrefixExpr:
        if not 0 < right.length < row.width or not row.dtype.prefix:
            return -1
        right = right.expr
    if type(right) is not SymbolExpr and type(right) is not ConstantExpr:
        return -1
    hole = holes.get(right.loc.start)
    return hole[0] if hole is not None and hole[1] == right.loc.end and fits(hole[2], row.dtype) else -1


class Forms:
    """The forms of one input."""

    def __init__(self) -> None:
        self.known: dict[bytes, RuleForm] = {}
        self.line = Line()

    def learn(self, source: Source, text: bytes, rule: RuleBlock, end: cython.Py_ssize_t) -> cython.int:
        """Take notice of a rule that was parsed and whose line ends at ``end``; whether the line has a form."""
        line: Line = self.line
        start: cython.Py_ssize_t = rule.loc.start
        line.placing = True
        line.places = []
        found: cython.Py_ssize_t = line.scan(source, text, start)
        line.placing = False
        if found != end or line.end != rule.loc.end or not line.values:
            return 0
        key: bytes = line.key()
        known: RuleForm | None = self.known.get(key)
        if known is None:
            self.known[key] = RuleForm(rule, start, line.places, tuple(line.values))
        elif known.settled:
            values: tuple[Any, ...] = tuple(line.values)
            variant: tuple[Any, ...] = tuple([values[number] for number in known.fixed])
            if variant not in known.variants:
                known.variants[variant] = other = RuleForm(rule, start, line.places, values)
                other.settle()
        return 1

    def take(self, source: Source, text: bytes, at: cython.Py_ssize_t, rules: list[Any]) -> cython.Py_ssize_t:
        """Append the rules of known forms that the lines from ``at`` on hold; where the first other line begins."""
        size: cython.Py_ssize_t = len(text)
        line: Line = self.line
        begin: cython.Py_ssize_t
        stop: cython.Py_ssize_t
        form: RuleForm | None
        values: tuple[Any, ...]
        while True:
            begin = at
            while begin < size and (text[begin] == 32 or text[begin] == 9):
                begin += 1
            stop = line.scan(source, text, begin)
            if stop < 0 or not line.values:
                return at
            form = self.known.get(line.key())
            if form is None:
                return at
            if not form.settled:
                form.settle()
            values = tuple(line.values)
            if form.fixed:
                form = form.variants.get(tuple([values[number] for number in form.fixed]))
                if form is None:
                    return at
            rules.append(_formed(form, source, begin, line.end, values))
            at = stop + 1


def _formed(form: RuleForm, source: Source, start: cython.Py_ssize_t, end: cython.Py_ssize_t, values: tuple[Any, ...]) -> Any:
    made: Any = FormedRule.__new__(FormedRule)
    made.loc = Location(source, start, end)
    made.comment = values[form.comment] if form.comment >= 0 else form.rule.comment
    made.handle = None
    made._stmts = None
    made.form = form
    made.values = values
    return made
