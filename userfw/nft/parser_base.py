"""Token handling of the parser: look-ahead, expectations, scopes of variables, includes, recovery.

Laws:
- One token of look-ahead (``tok``), a second on demand (``peek``).
- The first error in a statement aborts that statement only; the parser then goes on at the next separator of the same
  brace level, so that one run reports every problem.
- Nesting of any kind is bounded by ``MAX_DEPTH``; includes by ``MAX_INCLUDES``.
"""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Mapping, Sequence
from typing import Final

from userfw.nft.keywords import RESERVED_NAMES
from userfw.nft.location import Location, NftError, Source
from userfw.nft.rule_form import Forms
from userfw.nft.scanner import Scanner, Token, number
from userfw.nft.syntax import ConstantExpr, Expr, RuleBlock, SetExpr, SymbolExpr

MAX_DEPTH: Final = 64
MAX_INCLUDES: Final = 16
MAX_SCOPES: Final = 4
"""File, table, chain, and a chain bound by a rule (libnftables SCOPE_NEST_MAX)."""
MAX_ERRORS: Final = 100
NAME_MAX: Final = 127
COMMENT_MAX: Final = 128
DEVICE_MAX: Final = 15

_SHOWN: Final = {
    "nl": "newline", "eof": "end of file", "word": "string", "str": "string", "num": "number", "junk": "junk",
    "quoted": "quoted string", "star": "string with a trailing asterisk", ",": "comma", ":": "colon", ";": "semicolon",
    "{": "'{'", "}": "'}'", "(": "'('", ")": "')'", "[": "'['", "]": "']'", "$": "'$'", "=": "'='",
}  # fmt: skip
"""Tokens as nft's grammar calls them; operators are called what they look like."""
_MAX_EXPECTED: Final = 4
MAX_EXPANDED: Final = 1 << 22
"""Elements that the variables of one input may stand for: short texts shall not become large sets of sets of sets."""
_UNITS: Final = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}


def shown_word(word: str) -> str:
    """What an error calls a word: itself if it is one of the language."""
    return word if word in RESERVED_NAMES else _SHOWN["word"]


class Scope:
    """Variables of a block; a lookup goes outwards."""

    __slots__ = ("depth", "outer", "values")

    def __init__(self, outer: Scope | None = None) -> None:
        self.outer = outer
        self.depth: int = 1 if outer is None else outer.depth + 1
        self.values: dict[str, Expr] = {}

    def find(self, name: str) -> Expr | None:
        scope: Scope | None = self
        while scope is not None:
            value = scope.values.get(name)
            if value is not None:
                return value
            scope = scope.outer
        return None


class TooManyErrors(Exception):
    """Ends a run that has nothing useful left to say."""


class ParserBase:
    """The token window of the parser and its expectations."""

    def __init__(
        self, source: Source, include_path: Sequence[str] = (), defines: Mapping[str, str] | None = None
    ) -> None:
        self.source = source
        self.scanner = Scanner(source.text)
        self.include_path = tuple(include_path)
        self.errors: list[NftError] = []
        self.scope = Scope()
        self.braces = 0
        self.depth = 0
        self.expanded = 0
        self._stack: list[tuple[Source, Scanner]] = []
        self._ends_file = False
        self._line: list[Token] = []
        self._next = 1
        self._octets = b""
        self._octets_of: Source | None = None
        self.forms = Forms()
        self.tok: Token = ("nl", "", 0, 0)
        self._fetch()
        self.last_end = 0
        for name, text in (defines or {}).items():
            self.scope.values[name] = self._define_from_text(name, text)

    def _define_from_text(self, name: str, text: str) -> Expr:
        source = Source(f"--define {name}", text)
        inner = type(self)(source, self.include_path)
        inner.scope = self.scope
        try:
            value = inner.parse_initializer()
            if inner.tok[0] != "eof":
                raise inner.unexpected()
        except NftError as error:
            self.errors.append(error)
            return SymbolExpr(text)
        return value

    def parse_initializer(self) -> Expr:
        """The value of a ``define``."""
        raise NotImplementedError

    # --- tokens

    def advance(self) -> Token:
        """Consume the current token and return it."""
        token = self.tok
        kind = token[0]
        if kind == "{":
            self.braces += 1
        elif kind == "}":
            self.braces -= 1
        self.last_end = token[3]
        if self._next >= len(self._line):
            self._refill()
        else:
            self.tok = self._line[self._next]
            self._next += 1
        return token

    def _refill(self) -> None:
        if self._ends_file:
            self.source, self.scanner = self._stack.pop()
        elif self.tok[0] == "eof":
            return
        self._fetch()

    def _fetch(self) -> None:
        """Scan the next line. An included file ends like a line does; its source stays until that line is read."""
        self._line = line = self._scan()
        self.tok = line[0]
        self._next = 1

    def _scan(self) -> list[Token]:
        line = self.scanner.line()
        last = line[-1]
        self._ends_file = bool(self._stack) and last[0] == "eof"
        if self._ends_file:
            line[-1] = ("nl", "", last[2], last[3])
        return line

    def _ahead(self, distance: int) -> Token:
        """The token so far behind the current one, within its line."""
        at = self._next + distance - 1
        line = self._line
        while at >= len(line) and line[-1][0] not in ("nl", "eof"):
            line += self._scan()
        return line[at] if at < len(line) else ("nl", "\n", self.tok[3], self.tok[3])

    def peek(self) -> Token:
        """The token after the current one, within its line."""
        return self._ahead(1)

    def peek2(self) -> Token:
        """The second token after the current one, within its line."""
        return self._ahead(2)

    def resume_at(self, pos: int) -> None:
        """Go on scanning at a place of the current text; the caller has consumed everything before it."""
        self.scanner.pos = pos
        self.last_end = pos
        self._fetch()

    @property
    def word(self) -> str:
        """The current token if it is a word, else an empty string."""
        return self.tok[1] if self.tok[0] == "word" else ""

    def accept(self, kind: str) -> bool:
        if self.tok[0] == kind:
            self.advance()
            return True
        return False

    def accept_word(self, word: str) -> bool:
        if self.tok[0] == "word" and self.tok[1] == word:
            self.advance()
            return True
        return False

    def expect(self, kind: str) -> Token:
        if self.tok[0] != kind:
            raise self.unexpected(_SHOWN.get(kind, kind))
        return self.advance()

    def expect_word(self, *words: str) -> str:
        """One of the words; any word when none is given."""
        token = self.tok
        if token[0] != "word" or (words and token[1] not in words):
            raise self.unexpected(" or ".join(words or ("string",)) if len(words) <= _MAX_EXPECTED else "")
        self.advance()
        return token[1]

    def skip_newlines(self) -> None:
        while self.tok[0] == "nl":
            self.advance()

    def octets(self) -> bytes:
        """The current source's text with a byte for each character: what is not Latin is a question mark."""
        if self._octets_of is not self.source:
            self._octets_of = self.source
            self._octets = self.source.text.encode("latin-1", "replace")
        return self._octets

    def take_formed(self, rules: list[RuleBlock]) -> None:
        """Behind a rule that ends its line: the lines after it that differ only in what stands in the holes of a known form."""
        token = self.tok
        if token[0] != "nl" or self._ends_file or self._next < len(self._line):
            return
        text = self.octets()
        if not self.forms.learn(self.source, text, rules[-1], token[2]):
            return
        after = self.forms.take(self.source, text, token[3], rules)
        if after > token[3]:
            self.scanner.pos = after

    # --- places and errors

    def here(self) -> Location:
        return Location(self.source, self.tok[2], max(self.tok[3], self.tok[2] + 1))

    def span(self, start: int) -> Location:
        """From a token's start to the end of the last consumed token."""
        return Location(self.source, start, self.last_end)

    def at(self, token: Token) -> Location:
        return Location(self.source, token[2], token[3])

    def fail(self, message: str, loc: Location | None = None) -> NftError:
        return NftError(message, loc or self.here())

    def unexpected(self, expecting: str = "") -> NftError:
        """nft's syntax error for the current token."""
        kind, text = self.tok[0], self.tok[1]
        shown = text if kind == "word" and text in RESERVED_NAMES else _SHOWN.get(kind, kind)
        tail = f", expecting {expecting}" if expecting else ""
        return self.fail(f"syntax error, unexpected {shown}{tail}")

    def record(self, error: NftError) -> None:
        self.errors.append(error)
        if len(self.errors) >= MAX_ERRORS:
            raise TooManyErrors

    def recover(self, braces: int) -> None:
        """Skip to the separator that ends the broken statement, which began at the given brace level. Neither a closing
        brace of an outer level nor the end is consumed. A line that leaves a brace open without a comma or brace at its
        end is taken to have forgotten the closing one."""
        last = ""
        while True:
            kind = self.tok[0]
            if kind == "eof":
                return
            if self.braces <= braces:
                if kind == "}":
                    return
                if kind in ("nl", ";"):
                    self.advance()
                    return
            elif kind == "nl" and last not in (",", "{", "nl", ""):
                self.braces = braces
                self.advance()
                return
            last = kind
            self.advance()

    def enter(self) -> None:
        """Count one level of nesting; ``leave`` undoes it."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise self.fail(f"nested too deeply, maximum is {MAX_DEPTH} levels")

    def leave(self) -> None:
        self.depth -= 1

    def end_statement(self) -> None:
        """A newline or semicolon; the end of the input too."""
        if self.tok[0] in ("nl", ";"):
            self.advance()
        elif self.tok[0] != "eof":
            raise self.unexpected("newline or semicolon" if self.braces else "end of file or newline or semicolon")

    # --- small pieces used everywhere

    def parse_number(self, limit: int = 1 << 64) -> int:
        token = self.tok
        if token[0] != "num":
            raise self.unexpected("number")
        value = number(token[1])
        if value >= limit:
            raise self.fail(f"value too large, maximum is {limit - 1}")
        self.advance()
        return value

    def parse_string(self) -> str:
        """A word or quoted string (``string`` of the grammar), or a variable that holds one."""
        if self.tok[0] in ("word", "quoted", "star"):
            return self.advance()[1]
        if self.tok[0] == "$":
            return self.variable_text()
        raise self.unexpected("string")

    def parse_name(self, what: str) -> str:
        """The name of a table, chain, set or object."""
        token = self.tok
        if token[0] != "word" or token[1] in RESERVED_NAMES:
            raise self.unexpected("string")
        self.check_name(token[1], what, self.here())
        self.advance()
        return token[1]

    def check_name(self, name: str, what: str, loc: Location) -> None:
        if not name:
            raise self.fail(f"{what} name is empty", loc)
        if len(name) > NAME_MAX:
            raise self.fail(f"{what} name exceeds {NAME_MAX} characters", loc)

    def parse_comment(self) -> str:
        """``comment "text"`` after the keyword."""
        loc = self.here()
        text = self.parse_string()
        if len(text) > COMMENT_MAX:
            raise self.fail(f"comment too long, {COMMENT_MAX} characters maximum allowed", loc)
        return text

    def parse_time(self) -> int:
        """A time such as ``1d2h3m4s5ms``, or a number of seconds; milliseconds."""
        token = self.tok
        if token[0] == "num":
            return self.parse_number(1 << 54) * 1000
        value = parse_time_text(token[1]) if token[0] in ("str", "quoted") else None
        if value is None:
            raise self.unexpected("time") if token[0] not in ("str", "quoted") else self.fail("could not parse time")
        self.advance()
        return value

    def variable(self) -> Expr:
        """The value of ``$name``; the current token is the ``$``."""
        self.advance()
        if self.tok[0] not in ("word",):
            raise self.unexpected("string")
        token = self.advance()
        value = self.scope.find(token[1])
        if value is None:
            raise self.fail(f"unknown identifier '{token[1]}'", self.at(token))
        if isinstance(value, SetExpr):
            self.expanded += len(value.elements)
            if self.expanded > MAX_EXPANDED:
                raise self.fail(f"variables stand for too many elements, maximum is {MAX_EXPANDED}", self.at(token))
        return value

    def variable_text(self) -> str:
        """The value of ``$name`` where only a string can stand."""
        start = self.tok[2]
        value = self.variable()
        if isinstance(value, SymbolExpr):
            return value.name
        if isinstance(value, ConstantExpr):
            return str(value.value)
        raise self.fail("a string is needed here", self.span(start))

    # --- includes

    def include(self, pattern: str, loc: Location) -> None:
        """Go on in the files that match; the current line is complete."""
        if len(self._stack) >= MAX_INCLUDES:
            raise self.fail(f"Include nested too deeply, max {MAX_INCLUDES} levels", loc)
        sources = [self._read(path, loc) for path in self._matches(pattern, loc)]
        for source in reversed(sources):
            self._push(source)

    def _push(self, source: Source) -> None:
        # What is already scanned of the current text is scanned again later: the window restarts at the current token.
        self.scanner.pos = self.tok[2]
        self._stack.append((self.source, self.scanner))
        self.source = source
        self.scanner = Scanner(source.text)
        self._fetch()

    def _matches(self, pattern: str, loc: Location) -> list[str]:
        places = [pattern]
        if not pattern.startswith(("/", "./", "../")):
            places = [os.path.join(folder, pattern) for folder in self.include_path] + [pattern]
        magic = glob.has_magic(pattern)
        for place in places:
            found = sorted(glob.glob(place)) if magic else [place] if os.path.exists(place) else []
            if found:
                return [path for path in found if not (magic and os.path.isdir(path))]
        if magic:
            return []
        raise self.fail(f"File not found: {pattern}", loc)

    def _read(self, path: str, loc: Location) -> Source:
        try:
            if not stat.S_ISREG(os.stat(path).st_mode):
                raise self.fail(f'Not a regular file: "{path}"', loc)
            with open(path, encoding="utf-8", errors="surrogateescape") as file:
                text = file.read()
        except OSError as error:
            raise self.fail(f'Could not open file "{path}": {error.strerror}', loc) from None
        return Source(path, text, included_from=loc)


def parse_time_text(text: str) -> int | None:
    """Milliseconds of ``1d2h3m4s5ms`` or of a number of seconds; None when neither (libnftables ``time_parse``)."""
    total = 0
    at = 0
    units = list(_UNITS)
    size = len(text)
    if not size:
        return None
    while at < size:
        begin = at
        while at < size and text[at] in "0123456789":
            at += 1
        if begin == at or at - begin > 12:
            return None
        value = int(text[begin:at])
        begin = at
        while at < size and text[at] in "dhms":
            at += 1
        unit = text[begin:at]
        if not unit:
            return value * 1000 if total == 0 and at == size else None
        if unit not in units:
            return None
        units = units[units.index(unit) + 1 :]
        total += value * _UNITS[unit]
    return total
