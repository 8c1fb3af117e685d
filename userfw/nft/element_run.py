"""Plain elements of a large set as columns, and as the nodes that they stand for wherever somebody wants nodes.

Laws:
- A run is a sequence of `SetElemExpr` like any list of elements; nodes are made when they are asked for and not kept.
- A run without `dtype` is as written: its nodes are those that the parser makes (a test compares them). A run with one is
  checked: its nodes are what the checker makes of them.
- Runs are never changed; what sorts, merges or types one gives another.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, overload

from userfw.nft.columns import GROUPS, NUMBER, QUAD, SLICE, Columns
from userfw.nft.datatype import Datatype, IPv4Type, IPv6Type
from userfw.nft.location import NOWHERE, Source
from userfw.nft.parser_fast import written
from userfw.nft.spans import span
from userfw.nft.syntax_expr import SetElemExpr

FEW = 64
"""Elements that are not worth a run."""


class ElementRun(Sequence[SetElemExpr]):
    """See the laws above. `source`: the text that the places of the elements are in."""

    __slots__ = ("columns", "dtype", "source")

    def __init__(self, columns: Columns, source: Source | None = None, dtype: Datatype | None = None) -> None:
        self.columns = columns
        self.source = source
        self.dtype = dtype

    def __len__(self) -> int:
        return self.columns.count

    @overload
    def __getitem__(self, index: int) -> SetElemExpr: ...
    @overload
    def __getitem__(self, index: slice) -> list[SetElemExpr]: ...
    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self._node(at) for at in range(*index.indices(len(self)))]
        at = index + len(self) if index < 0 else index
        if not 0 <= at < len(self):
            raise IndexError(index)
        return self._node(at)

    def __iter__(self) -> Iterator[SetElemExpr]:
        return (self._node(at) for at in range(len(self)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def _node(self, at: int) -> SetElemExpr:
        columns = self.columns
        start = columns.start(at)
        if self.dtype is None:
            assert self.source is not None
            return written(self.source, start)
        loc = NOWHERE if self.source is None or start < 0 else written(self.source, start).loc
        key = span(columns.low(at), columns.high(at), self.dtype, loc)
        return SetElemExpr(key, loc=loc, dtype=self.dtype)

    @property
    def ranged(self) -> bool:
        """Whether an element covers more than one value."""
        return self.columns.ranged

    # --- what the checker does

    def typed(self, dtype: Datatype) -> ElementRun | None:
        """The run as values of a type; None if they are not plainly that, so that each has to be looked at."""
        kind = self.columns.kind
        if kind == NUMBER:
            if dtype.is_string or dtype.is_bitmask or not dtype.width or type(dtype).from_int is not Datatype.from_int:
                return None
            columns = self._narrowed(dtype)
        elif (kind == QUAD and type(dtype) is IPv4Type) or (kind == GROUPS and type(dtype) is IPv6Type):
            columns = self.columns
        else:
            return None
        return ElementRun(columns, self.source, dtype) if columns is not None else None

    def _narrowed(self, dtype: Datatype) -> Columns | None:
        columns = Columns(NUMBER, dtype.octets)
        if dtype.octets > self.columns.octets:
            return None
        for at in range(0, len(self), SLICE):
            if not columns.narrow(self.columns, at, dtype.width):
                return None
        return columns

    def in_order(self, *, merge: bool) -> ElementRun | None:
        """The elements by value, each once; with `merge` what overlaps or touches is one. None if elements overlap otherwise."""
        columns = self.columns
        if all(columns.apart(at, merge) < 0 for at in range(0, len(self), SLICE)):
            return self
        if any(columns.apart(at, False) >= 0 for at in range(0, len(self), SLICE)):
            order = self._order()
        else:
            order = bytearray()
        made = Columns(columns.kind, columns.octets)
        for at in range(0, len(self), SLICE):
            if not made.fold(columns, order, at, merge, merge):
                return None
        return ElementRun(made, self.source, self.dtype)

    def by_value(self) -> ElementRun:
        """The elements in order of their first values."""
        columns = self.columns
        if all(columns.apart(at, False) < 0 for at in range(0, len(self), SLICE)):
            return self
        order = self._order()
        made = Columns(columns.kind, columns.octets)
        for at in range(0, len(self), SLICE):
            made.pick(columns, order, at)
        return ElementRun(made, self.source, self.dtype)

    def without(self, rows: Sequence[int]) -> ElementRun:
        """All elements but some."""
        gone = set(rows)
        kept = [row for row in range(len(self)) if row not in gone]
        order = bytearray(b"".join(row.to_bytes(4, "little") for row in kept))
        made = Columns(self.columns.kind, self.columns.octets)
        for at in range(0, len(kept), SLICE):
            made.pick(self.columns, order[at * 4 : (at + SLICE) * 4], 0)
        return ElementRun(made, self.source, self.dtype)

    def texts(self) -> list[str]:
        """IPv4 addresses as text."""
        return [text for at in range(0, len(self), SLICE) for text in self.columns.quads(at)]

    def _order(self) -> bytearray:
        """Rows sorted by their first value: a radix sort, last byte first."""
        columns, count = self.columns, len(self)
        order = bytearray(b"".join(row.to_bytes(4, "little") for row in range(count)))
        for byte in reversed(range(columns.octets)):
            counts = bytearray(1024)
            for at in range(0, count, SLICE):
                columns.tally(counts, byte, at)
            numbers = [int.from_bytes(counts[at : at + 4], "little") for at in range(0, 1024, 4)]
            if max(numbers) == count:
                continue
            places, total = bytearray(), 0
            for number in numbers:
                places += total.to_bytes(4, "little")
                total += number
            into = bytearray(count * 4)
            for at in range(0, count, SLICE):
                columns.place(places, byte, at, order, into)
            order = into
        return order


def take_run(source: Source, octets: bytes, pos: int) -> tuple[ElementRun, int]:
    """The plain elements from `pos` on, and where the next one begins or the closing brace stands.

    `octets`: the source's text with a byte for each character.
    """
    columns = Columns()
    while True:
        after = columns.scan(octets, pos)
        if after == pos:
            return ElementRun(columns, source), pos
        pos = after


__all__ = ["FEW", "ElementRun", "take_run"]
