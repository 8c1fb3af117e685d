"""Plain set elements straight from the text, as nodes: concatenations, elements of maps and with times, and what a run stands for.

Laws:
- Only what cannot mean anything else is taken: decimal numbers, addresses with prefix or range, their concatenations, each between
  blanks, `timeout` and `expires`, and as data also verdicts. Everything else is left to the parser.
- An element is taken only together with the comma after it, so a set never ends here.
- The nodes and places are those that the parser would make; a test compares them.
"""

from __future__ import annotations

import re
from typing import Any, Final

import cython

from userfw.nft.keywords import RESERVED_NAMES
from userfw.nft.location import Location, Source
from userfw.nft.syntax import (
    ConcatExpr,
    ConstantExpr,
    PrefixExpr,
    RangeExpr,
    SetElemExpr,
    SymbolExpr,
    VerdictExpr,
)

if not cython.compiled:
    from userfw.nft.columns import decimal, groups, quad

_NUMBER, _QUAD, _GROUPS = range(3)
_TIME: Final = re.compile(r"(?:[0-9]{1,5}d)?(?:[0-9]{1,6}h)?(?:[0-9]{1,8}m(?!s))?(?:[0-9]{1,9}s)?(?:[0-9]{1,9}ms)?")
_NAME: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]{0,100}(?=[ \t,])")
_VERDICT: Final = re.compile(r"(accept|drop|return|continue|jump|goto)(?=[ \t,])")
_OPTION: Final = re.compile(r"(timeout|expires)[ \t]+")
_MILLISECONDS: Final = (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1))


def take_elements(source: Source, octets: bytes, pos: int, elements: list[SetElemExpr]) -> int:
    """Append plain elements from ``pos`` on; the offset after the comma of the last one, ``pos`` if there is none. `octets`: the
    text with a byte for each character."""
    taker: Taker = Taker(source, octets, pos)
    append = elements.append
    while True:
        element = taker.element()
        if element is None:
            return pos
        append(element)
        pos = taker.at


def written(source: Source, pos: int) -> SetElemExpr:
    """The plain element that stands at `pos`."""
    end = pos
    text = source.text
    while end < len(text) and text[end] not in " \t\r\n,}#":
        end += 1
    word = text[pos:end] + ", "
    alone: Taker = Taker(source, word.encode("latin-1", "replace"), 0)
    alone.text = word
    alone.shift = pos
    found = alone.element()
    assert found is not None
    return found  # type: ignore[no-any-return]


class Taker:
    """Takes one element after the other, from `at` on. `shift`: where the text begins in the source."""

    def __init__(self, source: Source, octets: bytes, at: int) -> None:
        self.source = source
        self.text = source.text
        self.octets = octets
        self.item = bytearray(16)
        self.at = at
        self.shift = 0
        self.times: dict[str, int | None] = {}

    def _span(self, start: cython.Py_ssize_t, end: cython.Py_ssize_t) -> Location:
        return Location(self.source, self.shift + start, self.shift + end)

    def element(self) -> Any:
        """The element at `at`, which is then behind its comma; None if it is for the parser."""
        octets: bytes = self.octets
        size: cython.Py_ssize_t = len(octets)
        at: cython.Py_ssize_t = self.at
        while at < size and (octets[at] == 32 or octets[at] == 9 or octets[at] == 10 or octets[at] == 13):
            at += 1
        self.at = at
        key = self._joined(False)
        if key is None:
            return None
        loc: Location = key.loc
        made = _element(key, loc)
        more: cython.bint = False
        while self.at < size and (octets[self.at] == 116 or octets[self.at] == 101):  # timeout, expires
            option = _OPTION.match(self.text, self.at)
            if option is None:
                return None
            start: cython.Py_ssize_t = option.end()
            end: cython.Py_ssize_t = self._time(start)
            value = self.times.get(self.text[start:end]) if end > 0 else None
            if value is None or getattr(made, option[1]) is not None:
                return None
            setattr(made, option[1], value)
            self.at = end
            more = True
            if not self._blanks():
                return None
        last: cython.Py_ssize_t = loc.end
        if more:
            last = end
        if self.at + 1 < size and octets[self.at] == 58 and octets[self.at + 1] == 32:
            self.at += 1
            self._blanks()
            data = self._joined(True)
            if data is None:
                return None
            made.data = data
            last = cython.cast(Location, data.loc).end
            more = True
        if self.at + 1 >= size or octets[self.at] != 44:
            return None
        c: cython.int = octets[self.at + 1]
        if c != 32 and c != 9 and c != 10 and c != 13 and not 48 <= c <= 57:
            return None
        if more:
            made.loc = Location(self.source, loc.start, last)
        self.at += 1
        return made

    def _blanks(self) -> cython.bint:
        """Skip blanks; whether anything is left."""
        octets: bytes = self.octets
        at: cython.Py_ssize_t = self.at
        while at < len(octets) and (octets[at] == 32 or octets[at] == 9):
            at += 1
        self.at = at
        return at < len(octets)

    def _joined(self, data: cython.bint) -> Any:
        """A value, or several with dots between; None if it is something else. Blanks behind it are skipped."""
        octets: bytes = self.octets
        first = self._word(data)
        if first is None or not self._blanks():
            return None
        if octets[self.at] != 46:
            return first
        parts = [first]
        while octets[self.at] == 46:
            if self.at + 1 >= len(octets) or (octets[self.at + 1] != 32 and octets[self.at + 1] != 9):
                return None
            self.at += 1
            self._blanks()
            part = self._word(False)
            if part is None or not self._blanks():
                return None
            parts.append(part)
        start: Location = first.loc
        end: Location = part.loc
        return ConcatExpr(parts, loc=Location(self.source, start.start, end.end))

    def _word(self, data: cython.bint) -> Any:
        """A number, an address, a prefix or range of them; as data also a verdict. None if it is something else."""
        octets: bytes = self.octets
        size: cython.Py_ssize_t = len(octets)
        start: cython.Py_ssize_t = self.at
        end: cython.Py_ssize_t = -1
        stop: cython.Py_ssize_t
        kind: cython.int = _NUMBER
        c: cython.int
        if start >= size:
            return None
        c = octets[start]
        if 48 <= c <= 57:
            end = quad(octets, start, self.item)
            if end > 0:
                kind = _QUAD
            else:
                end = decimal(octets, start, self.item)
        if end < 0 or end >= size or octets[end] == 58 or 97 <= octets[end] | 32 <= 102:
            if data and 97 <= c <= 122:
                found = self._verdict(c)
                if found is not None:
                    return found
            end = groups(octets, start, self.item)
            kind = _GROUPS
        if end < 0 or end >= size:
            return None
        c = octets[end]
        value = self._value(kind, start, end)
        if c == 47 and kind != _NUMBER:
            stop = self._number(end + 1)
            if stop < 0 or stop > end + 4:
                return None
            value = PrefixExpr(value, int(octets[end + 1 : stop]), loc=self._span(start, stop))
            c, end = octets[stop], stop
        elif c == 45:
            stop = end + 1
            end = (
                quad(octets, stop, self.item) if kind == _QUAD
                else groups(octets, stop, self.item) if kind == _GROUPS
                else decimal(octets, stop, self.item)
            )  # fmt: skip
            if end < 0 or end >= size:
                return None
            value = RangeExpr(value, self._value(kind, stop, end), loc=self._span(start, end))
            c = octets[end]
        if c != 32 and c != 44 and c != 9:
            return None
        self.at = end
        return value

    def _value(self, kind: cython.int, start: cython.Py_ssize_t, end: cython.Py_ssize_t) -> Any:
        """The node of what was scanned last."""
        loc: Location = self._span(start, end)
        if kind != _NUMBER:
            return _symbol(self.text[start:end], loc)
        value: cython.ulonglong = 0
        i: cython.int
        for i in range(8):
            value = value << 8 | self.item[i]
        return _constant(value, loc)

    def _number(self, at: cython.Py_ssize_t) -> cython.Py_ssize_t:
        """The end of a decimal number without leading zeros, before the end of the text; -1 if there is none."""
        scratch: bytearray = bytearray(8)
        end: cython.Py_ssize_t = decimal(self.octets, at, scratch)
        return end if end < len(self.octets) else -1

    def _verdict(self, c: cython.int) -> Any:
        """A verdict; None if the word is none."""
        if c != 97 and c != 100 and c != 114 and c != 99 and c != 106 and c != 103:
            return None
        found = _VERDICT.match(self.text, self.at)
        if found is None:
            return None
        kind = found[1]
        start: cython.Py_ssize_t = self.at
        end: cython.Py_ssize_t = found.end()
        chain = None
        if kind == "jump" or kind == "goto":
            self.at = end
            if not self._blanks():
                return None
            name = _NAME.match(self.text, self.at)
            if name is None or name[0] in RESERVED_NAMES:
                self.at = start
                return None
            chain = name[0]
            end = name.end()
        self.at = end
        return VerdictExpr(kind, chain, loc=self._span(start, end))

    def _time(self, at: cython.Py_ssize_t) -> cython.Py_ssize_t:
        """The end of a time, whose milliseconds are in `times` then; -1 if there is none."""
        octets: bytes = self.octets
        size: cython.Py_ssize_t = len(octets)
        end: cython.Py_ssize_t = at
        c: cython.int
        while end < size:
            c = octets[end]
            if not 48 <= c <= 57 and c != 100 and c != 104 and c != 109 and c != 115:  # d, h, m, s
                break
            end += 1
        if end == at or end >= size or (octets[end] != 32 and octets[end] != 44 and octets[end] != 9):
            return -1
        word: str = self.text[at:end]
        if word not in self.times:
            self.times[word] = _milliseconds(word)
        return end


def _milliseconds(word: str) -> int | None:
    """The length of a time that is written in the usual order of units, or in seconds; None for any other word."""
    if word.isdigit():
        return int(word) * 1000 if len(word) < 9 and (word[0] != "0" or word == "0") else None
    if _TIME.fullmatch(word) is None:
        return None
    total = 0
    for digits, unit in re.findall("([0-9]+)([a-z]+)", word):
        total += int(digits) * dict(_MILLISECONDS)[unit]
    return total


def _symbol(name: str, loc: Location) -> Any:
    made: Any = SymbolExpr.__new__(SymbolExpr)
    made.loc = loc
    made.dtype = None
    made.width = 0
    made.name = name
    made.quoted = False
    return made


def _constant(value: Any, loc: Location) -> Any:
    made: Any = ConstantExpr.__new__(ConstantExpr)
    made.loc = loc
    made.dtype = None
    made.width = 0
    made.value = value
    return made


def _element(key: Any, loc: Location) -> Any:
    made: Any = SetElemExpr.__new__(SetElemExpr)
    made.loc = loc
    made.dtype = None
    made.width = 0
    made.key = key
    made.data = None
    made.stmts = []
    made.timeout = None
    made.expires = None
    made.comment = None
    return made
