"""Elements of named sets as the ruleset knows them: what was written, found by value.

Laws:
- A key is the value of an element, whatever way it was written: `key_of` gives an int or bytes for one value, a
  `(low, high)` pair for what covers several, a tuple of these (tagged "concat") for a concatenation.
- `Elements` is only written by `Overlay.apply`, at commit. During a transaction an `Overlay` on top of it holds what the
  transaction adds and takes away, so an element costs O(log n) to plan and a failed transaction leaves nothing behind.
- Interval sets (one dimension) keep their elements sorted by low end and free of overlaps. Concatenated ranges are
  sought by exact value only and compared with those that share a first field (Linux: nft_pipapo_insert).
- Sets of plain keys have no copy of their elements here at all (`bulk.EngineElements`).
- Sets whose elements packets add, delete or let expire are `live`: their elements are in the engine's set alone, and an
  overlay of one only logs what to do there.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

from userfw.nft.location import Location
from userfw.nft.syntax import (
    CatchAllExpr,
    ConcatExpr,
    ConstantExpr,
    Expr,
    PrefixExpr,
    RangeExpr,
    SetElemExpr,
    SymbolExpr,
)

if TYPE_CHECKING:
    from userfw.ruleset.bulk import EngineElements

Key = Any
Span = tuple[int, int]
CATCH_ALL: Key = "*"


def keys_of(nodes: Iterable[SetElemExpr], interval: bool) -> list[tuple[Key, SetElemExpr]]:
    """`key_of` of many elements, quick for plain numbers and prefixes of them."""
    pairs: list[tuple[Key, SetElemExpr]] = []
    append = pairs.append
    for node in nodes:
        key = node.key
        kind = type(key)
        if kind is ConstantExpr and type(key.value) is int:  # type: ignore[attr-defined]
            value = key.value  # type: ignore[attr-defined]
            append(((value, value) if interval else value, node))
        else:
            append((key_of(key, interval), node))
    return pairs


def width_of(expr: Expr) -> int:
    """The width of a checked value in bits: its own, else its type's."""
    if expr.width:
        return expr.width
    for name in ("size", "width", "bits"):
        size = getattr(expr.dtype, name, 0)
        if size:
            return int(size)
    return 0


def number(expr: ConstantExpr, width: int = 0) -> int:
    """A constant as a number; strings are read as their padded bytes, first byte highest."""
    if isinstance(expr.value, bytes):
        size = (width or width_of(expr) or 128) // 8
        return int.from_bytes(expr.value.ljust(size, b"\0")[:size], "big")
    return expr.value


def span_of(expr: Expr) -> Span:
    """The first and last value that a constant, range or prefix covers."""
    if isinstance(expr, ConstantExpr):
        value = number(expr)
        return value, value
    if isinstance(expr, RangeExpr):
        return span_of(expr.left)[0], span_of(expr.right)[1]
    if isinstance(expr, PrefixExpr):
        width = width_of(expr) or width_of(expr.expr)
        value = number(expr.expr, width) if isinstance(expr.expr, ConstantExpr) else span_of(expr.expr)[0]
        below = (1 << max(width - expr.length, 0)) - 1
        return value & ~below, value | below
    raise TypeError(f"{type(expr).__name__} is not a value")


def _field(expr: Expr) -> Key:
    if isinstance(expr, ConstantExpr):
        return expr.value
    if isinstance(expr, SymbolExpr):
        return expr.name.encode("utf-8", "surrogateescape")
    low, high = span_of(expr)
    return low if low == high else (low, high)


def key_of(expr: Expr, interval: bool = False) -> Key:
    """The canonical key of a set element's key; for interval sets always a span."""
    if isinstance(expr, SetElemExpr):
        return key_of(expr.key, interval)
    if isinstance(expr, CatchAllExpr):
        return CATCH_ALL
    if isinstance(expr, ConcatExpr):
        return ("concat", *(_field(item) for item in expr.items))
    if interval:
        return span_of(expr)
    return _field(expr)


def key_place(node: SetElemExpr) -> Location:
    """Where the key of an element was written: nft points there when an element is refused."""
    return node.key.loc if node.key.loc.known else node.loc


class Element:
    """One element of a named set: the checked tree, its key, and what the lowering made of it."""

    __slots__ = ("engine", "key", "node")

    def __init__(self, key: Key, node: SetElemExpr, engine: Any = None) -> None:
        self.key = key
        self.node = node
        self.engine = engine


class Elements:
    """The committed elements of one set, in order of their addition and, for intervals, sorted."""

    __slots__ = ("by_key", "interval", "live", "lows")
    backed = False

    def __init__(self, interval: bool = False, live: bool = False) -> None:
        self.interval = interval
        self.live = live
        self.by_key: dict[Key, Element] = {}
        self.lows: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return len(self.by_key)

    def get(self, key: Key) -> Element | None:
        """The element with exactly this key."""
        return self.by_key.get(key)

    def overlapping(self, span: Span, gone: set[Key]) -> Element | None:
        """The last element that shares a value with `span` and is not in `gone` (interval sets)."""
        spans = self.lows
        at = bisect_right(spans, (span[1], _INFINITE)) - 1
        while at >= 0 and spans[at][1] >= span[0]:
            if spans[at] not in gone:
                return self.by_key[spans[at]]
            at -= 1
        return None

    def __iter__(self) -> Iterator[Element]:
        if self.interval:
            by_key = self.by_key
            for span in self.lows:
                yield by_key[span]
            if CATCH_ALL in by_key:
                yield by_key[CATCH_ALL]
        else:
            yield from self.by_key.values()


Base: TypeAlias = "Elements | EngineElements"
"""The committed elements of a set: as nodes, or the engine's own."""


class Overlay:
    """What a transaction adds to and takes from the elements of one set.

    `log` is what happened, in order: (True, element) for an addition, (False, element) for a removal.
    """

    __slots__ = ("added", "aside", "base", "flushed", "log", "lows", "removed", "scratch", "spans", "swapped", "table")

    def __init__(self, base: Base) -> None:
        self.base = base
        self.added: dict[Key, Element] = {}
        self.removed: set[Key] = set()
        self.flushed = False
        self.spans: list[Span] = []
        self.log: list[tuple[bool, Element]] = []
        self.swapped: dict[Key, Element] = {}
        self.lows: list[Span] | None = None
        self.table: dict[Key, Element] | None = None
        """What `Elements.lows` and `by_key` will be, if they were worked out beforehand."""
        self.aside: Any = None
        """The backend's own: the set as it will be, for the commit to swap in."""
        self.scratch: Any = None
        """The backend's own, to find overlaps among what is added."""

    def __len__(self) -> int:
        gone = 0 if self.base.live else len(self.removed)
        return (0 if self.flushed else len(self.base)) - gone + len(self.added)

    def __iter__(self) -> Iterator[Element]:
        """Every element, those of the base first."""
        if not self.flushed:
            removed = self.removed
            for element in self.base:
                if element.key not in removed:
                    yield self.swapped.get(element.key, element)
        yield from self.added.values()

    def get(self, key: Key) -> Element | None:
        """The element with exactly this key."""
        element = self.added.get(key)
        if element is None and not self.flushed and key not in self.removed:
            element = self.swapped.get(key) or self.base.get(key)
        return element

    def overlapping(self, span: Span) -> Element | None:
        """The first element that shares a value with `span` (interval sets)."""
        spans = self.spans
        at = bisect_right(spans, (span[1], _INFINITE)) - 1
        if at >= 0 and spans[at][1] >= span[0]:
            return self.added[spans[at]]
        return None if self.flushed else self.base.overlapping(span, self.removed)

    def containing(self, key: Key) -> Element | None:
        """The element whose key covers all of `key`: a span for interval sets, fields for concatenations."""
        if key == CATCH_ALL:
            return self.get(key)
        if isinstance(key, tuple) and key and key[0] == "concat":
            found = self.get(key)
            return found or next((element for element in self if _covers(element.key, key)), None)
        if not isinstance(key, tuple):
            return self.get(key)
        found = self.overlapping(key)
        return found if found is not None and found.key[0] <= key[0] and key[1] <= found.key[1] else None

    def add(self, element: Element) -> None:
        """Add an element whose key is not there yet."""
        self.added[element.key] = element
        if self.base.interval and element.key != CATCH_ALL:
            at = bisect_left(self.spans, element.key)
            self.spans.insert(at, element.key)
        self.log.append((True, element))

    def add_many(self, elements: list[Element]) -> None:
        """Add elements whose keys are not there and differ from each other, in order for intervals."""
        self.added.update((element.key, element) for element in elements)
        self.log += [(True, element) for element in elements]
        if self.base.interval:
            self.spans += [element.key for element in elements]
            self.spans.sort()

    def retime(self, element: Element) -> None:
        """Change the timeout of an element that is there."""
        if element.key in self.added:
            self.added[element.key] = element
        self.log.append((True, element))

    def remove(self, element: Element) -> None:
        """Take away an element that is there."""
        key = element.key
        self.scratch = None
        if key in self.added:
            del self.added[key]
            if self.base.interval and key != CATCH_ALL:
                del self.spans[bisect_left(self.spans, key)]
        else:
            self.removed.add(key)
        self.log.append((False, element))

    def replace(self, old: Element, new: Element) -> None:
        """Show another tree for an element of the same key; what packets match stays."""
        self.swapped[old.key] = new
        if old.key in self.added:
            self.added[old.key] = new

    def stand_on(self, base: Base, aside: Any) -> None:
        """Go on from `base`, the elements of `aside`, a copy of the set that has all changes so far."""
        self.base = base
        self.aside = aside
        self.flushed = False
        self.added = {}
        self.removed = set()
        self.spans = []
        self.log = []

    def flush(self, gone: list[Element]) -> None:
        """Take away all, which is `gone`."""
        self.flushed = True
        self.aside = None
        self.removed.clear()
        self.added.clear()
        self.spans.clear()
        self.swapped.clear()
        self.log.extend((False, element) for element in gone)

    def settle(self) -> None:
        """Work out the new order beforehand; no change may follow."""
        base = self.base
        if base.live or not isinstance(base, Elements):
            return
        if base.interval and (self.removed or self.spans):
            self.lows = self._new_lows(base)
        if len(base.by_key) < 4 * len(self.added):
            self.table = {} if self.flushed else dict(base.by_key)
            for key in self.removed:
                del self.table[key]
            self.table.update((key, element) for key, element in self.swapped.items() if key in self.table)
            self.table.update(self.added)

    def _new_lows(self, base: Elements) -> list[Span]:
        removed = self.removed
        lows = [] if self.flushed else [span for span in base.lows if span not in removed] if removed else list(base.lows)
        lows += self.spans
        lows.sort()
        return lows

    def moved(self, base: Base) -> Overlay:
        """The same changes on top of other elements (of a set that became live)."""
        other = Overlay(base)
        other.added, other.removed, other.flushed, other.log = self.added, self.removed, self.flushed, self.log
        other.aside = self.aside
        return other

    def apply(self) -> None:
        """Make it so in the base. The base was not changed by anybody else since this overlay was made."""
        base = self.base
        if base.live or not isinstance(base, Elements):
            return
        if self.table is not None:
            base.by_key = self.table
        else:
            self._change(base)
        if self.lows is not None:
            base.lows = self.lows
        elif base.interval and (self.removed or self.spans):
            if len(self.removed) > 8:
                base.lows = [span for span in base.lows if span not in self.removed]
            else:
                for key in self.removed:
                    if key != CATCH_ALL:
                        del base.lows[bisect_left(base.lows, key)]
            base.lows.extend(self.spans)
            base.lows.sort()

    def _change(self, base: Elements) -> None:
        if self.flushed:
            base.by_key.clear()
            base.lows.clear()
        for key in self.removed:
            del base.by_key[key]
        base.by_key.update((key, element) for key, element in self.swapped.items() if key in base.by_key)
        base.by_key.update(self.added)


_INFINITE = 1 << 200


def _covers(outer: Key, inner: Key) -> bool:
    if not isinstance(outer, tuple) or outer[0] != "concat" or len(outer) != len(inner):
        return False
    for mine, theirs in zip(outer[1:], inner[1:], strict=True):
        if mine == theirs:
            continue
        if not isinstance(mine, tuple):
            return False
        low, high = theirs if isinstance(theirs, tuple) else (theirs, theirs)
        if isinstance(low, bytes) or not (mine[0] <= low and high <= mine[1]):
            return False
    return True
