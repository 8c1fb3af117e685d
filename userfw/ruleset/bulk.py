"""Sets whose elements are nothing but keys: the engine's set is the only copy of them, however many there are.

Laws:
- Such a set has single keys that are numbers or addresses, and no data, statements or timeouts (`keeps_keys_only`). A comment
  stays with the engine's element.
- Runs of elements go from columns of keys into a copy of the set, and come back as columns, a slice at a time. The loops over
  slices are here, in a module that is not compiled, so that packets flow in between.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from userfw.nft.columns import GROUPS, NUMBER, QUAD, SLICE, Columns
from userfw.nft.datatype import BIG, HOST_IS, Datatype, IPv4Type, IPv6Type
from userfw.nft.datatype_tables import ConcatType
from userfw.nft.element_run import FEW, ElementRun
from userfw.nft.syntax import SetBlock, SetElemExpr
from userfw.ruleset.elements import CATCH_ALL, Element, Key, Span
from userfw.ruleset.keys import decode_key


def keeps_keys_only(node: SetBlock) -> bool:
    """Whether the elements of a set are keys that the engine's copy says all about."""
    dtype: Datatype = node.key_dtype
    if node.is_map or node.objtype is not None or node.stmts or node.meter or node.timeout is not None:
        return False
    if {"dynamic", "timeout"} & set(node.flags) or isinstance(dtype, ConcatType):
        return False
    return not dtype.is_string and not dtype.is_bitmask and bool(dtype.width)


def byte_order(node: SetBlock) -> Any:
    """How keys of a set lie in the engine."""
    return BIG if "interval" in node.flags or node.key_dtype.byteorder == BIG else HOST_IS


class EngineElements:
    """The elements that an engine's set holds, in the form of `elements.Elements`."""

    __slots__ = ("engine", "interval", "node")
    live = False
    backed = True

    def __init__(self, node: SetBlock, engine: Any) -> None:
        self.node = node
        self.engine = engine
        self.interval = "interval" in node.flags

    def __len__(self) -> int:
        return len(self.engine)

    def __iter__(self) -> Iterator[Element]:
        return map(self._element, self.engine)

    def get(self, key: Key) -> Element | None:
        """The element with exactly this key."""
        if key == CATCH_ALL:
            found = self.engine.get(None)
            return self._element(found) if found is not None else None
        low, high = key if isinstance(key, tuple) else (key, key)
        if not isinstance(low, int) or low.bit_length() > 8 * self.engine.klen:
            return None
        found = self.engine.get(self._bytes(low), self._bytes(high))
        return self._element(found) if found is not None else None

    def overlapping(self, span: Span, gone: set[Key]) -> Element | None:
        """The last element that shares a value with `span` and is not in `gone`."""
        low, high = span
        top = (1 << 8 * self.engine.klen) - 1
        high = min(high, top)
        while low <= high:
            found = self.engine.overlapping(self._bytes(low), self._bytes(high))
            if found is None:
                return None
            element = self._element(found)
            if element.key not in gone:
                return element
            high = element.key[0] - 1
        return None

    def _bytes(self, value: int) -> bytes:
        data: bytes = value.to_bytes(self.engine.klen, byte_order(self.node))
        return data

    def _element(self, found: Any) -> Element:
        dtype = self.node.key_dtype
        key: Key = CATCH_ALL
        if found.key is not None:
            order = byte_order(self.node)
            low = int.from_bytes(found.key, order)
            key = (low, int.from_bytes(found.key_end or found.key, order)) if self.interval else low
        expr = decode_key(found.key, found.key_end, dtype, self.interval)
        return Element(key, SetElemExpr(expr, comment=found.comment, dtype=dtype), found)


def put_run(engine: Any, node: SetBlock, run: ElementRun) -> ElementRun | None:
    """Put a run (in order, for intervals) into a set that no packet uses; what of it is new. None if something overlaps an element
    that is there: then the set is of no use any more."""
    columns = run.columns
    swapped = byte_order(node) != BIG
    known: list[int] = []
    engine.begin_change()
    for at in range(0, len(run), SLICE):
        part = engine.put_columns(columns.lows, columns.highs, at, SLICE, swapped)
        if part and part[0] < 0:
            return None
        known += part
    while not engine.settle(SLICE):
        pass
    return run.without(known) if known else run


def run_of(node: SetBlock, engine: Any) -> ElementRun | None:
    """All elements of a set by value; None if they are few, or some are more than keys."""
    if len(engine) < FEW or not engine.plain or byte_order(node) != BIG:
        return None
    kind = QUAD if type(node.key_dtype) is IPv4Type else GROUPS if type(node.key_dtype) is IPv6Type else NUMBER
    columns = Columns(kind, engine.klen)
    for at in range(0, engine.extent, SLICE):
        columns.extend(*engine.columns(at, SLICE))
    run = ElementRun(columns, None, node.key_dtype)
    return run if "interval" in node.flags else run.by_value()
