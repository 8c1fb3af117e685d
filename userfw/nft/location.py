"""Where a piece of a ruleset was written, and errors that point there.

Laws:
- Offsets are character offsets into ``Source.text``; lines and columns are counted from 1, columns by character,
  as nft prints them.
- A ``Location`` costs nothing until somebody asks for its line: only errors and the tracer do.
- ``NftErrors`` is the only exception the language rooms raise for bad input, and it carries every problem found, in
  order of discovery.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable


class Source:
    """One input: a file, a command line, or a JSON document (``text`` empty: errors have no line to show)."""

    __slots__ = ("_starts", "included_from", "name", "text")

    def __init__(self, name: str, text: str, included_from: Location | None = None) -> None:
        self.name = name
        self.text = text
        self.included_from = included_from
        self._starts: list[int] | None = None

    def position(self, offset: int) -> tuple[int, int]:
        """(line, column) of a character offset, both counted from 1."""
        starts = self._starts
        if starts is None:
            starts = [0]
            find = self.text.find
            at = find("\n")
            while at >= 0:
                starts.append(at + 1)
                at = find("\n", at + 1)
            self._starts = starts
        line = bisect_right(starts, offset)
        return line, offset - starts[line - 1] + 1

    def line_text(self, line: int) -> str:
        """The text of a line without its end; empty when there is no such line."""
        lines = self.text.split("\n", line)
        return lines[line - 1].rstrip("\r") if line - 1 < len(lines) else ""


class Location:
    """The half-open span ``[start, end)`` of characters of a source."""

    __slots__ = ("end", "source", "start")

    def __init__(self, source: Source, start: int, end: int) -> None:
        self.source = source
        self.start = start
        self.end = end

    @property
    def line(self) -> int:
        return self.source.position(self.start)[0]

    @property
    def column(self) -> int:
        return self.source.position(self.start)[1]

    @property
    def known(self) -> bool:
        return bool(self.source.text)

    def to(self, other: Location) -> Location:
        """The span from the start of this one to the end of ``other``; this one when they are of different sources."""
        if other.source is not self.source:
            return self
        return Location(self.source, self.start, max(self.end, other.end))

    def __str__(self) -> str:
        """``file:line:column-column``, nft's form (the last column is inside the span)."""
        if not self.known:
            return self.source.name
        line, column = self.source.position(self.start)
        last_line, last = self.source.position(max(self.start, self.end - 1))
        if last_line != line:
            last = len(self.source.line_text(line)) or column
        return f"{self.source.name}:{line}:{column}-{last}"

    def __repr__(self) -> str:
        return f"<{self}>"


NOWHERE = Location(Source("internal", ""), 0, 0)
"""The location of what was not written by anybody."""


class NftError(Exception):
    """One problem: a message, the place, and further places that explain it (``nft`` prints a caret line for all).

    ``severity``: "Error", or "Warning" for what is loaded all the same.
    """

    severity = "Error"

    def __init__(self, message: str, loc: Location = NOWHERE, *, also: Iterable[Location] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.loc = loc
        self.also = tuple(also)

    def __str__(self) -> str:
        return self.render()

    def render(self) -> str:
        """The error as nft prints it, without a final newline."""
        loc = self.loc
        if not loc.known:
            prefix = "" if loc.source.name == "internal" else f"{loc.source.name}: "
            return f"{prefix}{self.severity}: {self.message}"
        head = []
        outer, words = loc.source.included_from, "In file included from"
        while outer is not None:
            head.append(f"{words} {outer}:")
            outer, words = outer.source.included_from, "                 from"
        head.append(f"{loc}: {self.severity}: {self.message}")
        line = loc.line
        text = loc.source.line_text(line)
        if not text and loc.start >= len(loc.source.text):
            return "\n".join(head)
        return "\n".join([*head, text, self._carets(line, text)])

    def _carets(self, line: int, text: str) -> str:
        width = len(text)
        marks = ["\t" if char == "\t" else " " for char in text] + [" "]
        for place, mark in [*((other, "~") for other in self.also), (self.loc, "^")]:
            if place.source is not self.loc.source or not place.known or place.line != line:
                continue
            first = place.column - 1
            last = min(first + max(place.end - place.start, 1), max(width + 1, first + 1))
            for at in range(first, min(last, len(marks))):
                marks[at] = mark
        return "".join(marks).rstrip()


class NftErrors(Exception):
    """All problems of one run, in order of discovery."""

    def __init__(self, errors: Iterable[NftError]) -> None:
        self.errors = list(errors)
        super().__init__("\n".join(error.render() for error in self.errors))

    @classmethod
    def one(cls, message: str, loc: Location = NOWHERE) -> NftErrors:
        return cls([NftError(message, loc)])
