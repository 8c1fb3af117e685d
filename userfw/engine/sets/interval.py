"""IntervalSet: ranges over a single field (or a concatenation seen as one number is not allowed: see ranges.py).

The low bounds are kept sorted in one array beside the ids; ranges do not overlap, so the last low bound not above the key decides.
From TOP_LIMIT elements on, a table over the first two bytes narrows the search. Bulk loads sort once.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Any

import cython

from userfw.core.clock import Clock
from userfw.engine.sets.base import Set, SetError
from userfw.engine.sets.elements import Element

if not cython.compiled:
    from userfw.engine.sets.elements import Store, load32, store32

TOP_LIMIT = 2048
MAX_DRIFT = 512
"""Changes one by one until the table is made again: a search is at most nine steps longer meanwhile."""


class IntervalSet(Set):
    """Closed ranges `key` to `key_end`; a single key is a range of one."""

    def __init__(self, name: str, klen: int, clock: Clock, **options: Any) -> None:
        super().__init__(name, klen, clock, ranged=True, **options)
        self.lows = bytearray()
        self.order = bytearray()
        self.top = bytearray()
        self.n = 0
        self.deferred = False
        self.pending: list[int] | None = None
        self.gone: list[int] = []
        self.ascending = True
        self.latest = 0
        self.entered = 0
        self.left = 0
        self.merged = bytearray()
        self.merged_order = bytearray()
        self.old_at = 0
        self.new_at = 0
        self.filled = 0

    def take_index(self, other: Set, copied: cython.bint) -> cython.int:
        own: IntervalSet = cython.cast(IntervalSet, other)
        self.lows = bytearray(own.lows) if copied else own.lows
        self.order = bytearray(own.order) if copied else own.order
        self.top = bytearray(own.top) if copied else own.top
        self.n = own.n
        self.entered = own.entered
        self.left = own.left
        return 0

    def begin_change(self) -> None:
        self.pending = []
        self.gone = []
        self.ascending = True

    def take_out(self, elements: list[Element]) -> None:
        """The ids are given back by `settle`, when nothing of the old index is needed any more."""
        e: Element
        id: cython.Py_ssize_t
        for e in elements:
            if e.key is None:
                self.remove(None, None, True)
                continue
            id = self.match(e.key, e.key if e.key_end is None else e.key_end)
            if id >= 0:
                self.store.live[id] = 0
                self.gone.append(id)

    def settle(self, budget: int) -> bool:
        """Merge the sorted old index with the new elements, `budget` places at a time."""
        if self.pending is None:
            return True
        if not self.filled and not self.old_at and not self.new_at:
            self._start_merge()
        if not self._merge(budget):
            return False
        klen: cython.int = self.klen
        self.lows = self.merged[: self.filled * klen]
        self.order = self.merged_order[: self.filled * 4]
        self.n = self.filled
        for id in self.gone:
            self.store.live[id] = 1
            self.store.release(id)
        self.pending = None
        self.gone = []
        self.merged = bytearray()
        self.merged_order = bytearray()
        self.old_at = self.new_at = self.filled = 0
        self.top = bytearray()
        if self.n >= TOP_LIMIT and klen >= 2:
            self._build_top()
        return True

    def _start_merge(self) -> None:
        """Room for the result; the new elements in order, unless they came so."""
        klen = self.klen
        keys = self.store.keys
        pending: list[int] = self.pending or []
        if not self.ascending:
            pending.sort(key=lambda id: bytes(keys[id * klen : id * klen + klen]))
        room = self.n + len(pending)
        self.merged = bytearray(room * klen)
        self.merged_order = bytearray(room * 4)

    def put_columns(self, lows: bytearray, highs: bytearray, at: int, count: int, swapped: bool) -> list[int]:
        klen: cython.int = self.klen
        ends: bytearray = highs if highs else lows
        store: Store = self.store
        number: cython.Py_ssize_t
        first: cython.Py_ssize_t = at
        stop: cython.Py_ssize_t = min(first + count, len(lows) // klen)
        id: cython.Py_ssize_t
        i: cython.int
        known: list[int] = []
        if self.n:
            known = self._known(lows, ends, first, stop)
            if known and known[0] < 0:
                return known
        skip = set(known)
        for number in range(first, stop):
            if known and number in skip:
                continue
            id = store.allocate()
            for i in range(klen):
                store.keys[id * klen + i] = lows[number * klen + i]
                store.ends[id * klen + i] = ends[number * klen + i]
            self.index(id)
        return known

    def _known(self, lows: bytearray, ends: bytearray, first: cython.Py_ssize_t, stop: cython.Py_ssize_t) -> list[int]:
        """The numbers of the ranges that are there; [-1] if one overlaps another."""
        klen: cython.int = self.klen
        number: cython.Py_ssize_t
        position: cython.Py_ssize_t
        id: cython.Py_ssize_t
        known: list[int] = []
        for number in range(first, stop):
            position = self._last_not_above(ends, number * klen)
            if position < 0:
                continue
            id = load32(self.order, position * 4)
            if self._compare(self.store.ends, id * klen, lows, number * klen) < 0:
                continue
            if self._compare(self.store.keys, id * klen, lows, number * klen) or self._compare(
                self.store.ends, id * klen, ends, number * klen
            ):
                return [-1]
            known.append(number)
        return known

    def columns(self, at: int, count: int) -> tuple[bytearray, bytearray]:
        ends = bytearray()
        klen: cython.int = self.klen
        position: cython.Py_ssize_t
        id: cython.Py_ssize_t
        first: cython.Py_ssize_t = at
        last: cython.Py_ssize_t = min(first + count, self.n)
        for position in range(first, last):
            id = load32(self.order, position * 4)
            ends += self.store.ends[id * klen : (id + 1) * klen]
        return self.lows[first * klen : max(first, last) * klen], ends

    @property
    def extent(self) -> int:
        return self.n

    def __iter__(self) -> Iterator[Element]:
        """Copies of all elements in order of their low ends, the catch-all last."""
        for position in range(self.n):
            id = load32(self.order, position * 4)
            if self.store.alive(id, self.clock.now):
                yield self._copy(id)
        if self.catchall >= 0:
            yield self._copy(self.catchall)

    def _merge(self, budget: cython.Py_ssize_t) -> cython.bint:
        """Up to `budget` places of the merged index; whether it is whole."""
        klen: cython.int = self.klen
        pending: list[int] = cython.cast(list, self.pending)
        waiting: cython.Py_ssize_t = len(pending)
        live: bytearray = self.store.live
        keys: bytearray = self.store.keys
        id: cython.Py_ssize_t
        i: cython.int
        while budget > 0:
            budget -= 1
            if self.old_at < self.n and not live[load32(self.order, self.old_at * 4)]:
                self.old_at += 1
                continue
            if self.old_at >= self.n and self.new_at >= waiting:
                return True
            if self.new_at >= waiting:
                id = load32(self.order, self.old_at * 4)
                self.old_at += 1
            elif self.old_at >= self.n:
                id = pending[self.new_at]
                self.new_at += 1
            else:
                id = pending[self.new_at]
                if self._compare(self.lows, self.old_at * klen, keys, id * klen) < 0:
                    id = load32(self.order, self.old_at * 4)
                    self.old_at += 1
                else:
                    self.new_at += 1
            for i in range(klen):
                self.merged[self.filled * klen + i] = keys[id * klen + i]
            store32(self.merged_order, self.filled * 4, id)
            self.filled += 1
        return False

    def clear_index(self) -> cython.int:
        self.lows = bytearray()
        self.order = bytearray()
        self.top = bytearray()
        self.n = 0
        return 0

    def _compare(self, column: bytearray, where: cython.Py_ssize_t, data: bytearray, at: cython.Py_ssize_t) -> cython.int:
        """-1, 0, 1 as the key at `column[where]` is below, at or above `data[at]`."""
        i: cython.int
        a: cython.int
        b: cython.int
        for i in range(self.klen):
            a = column[where + i]
            b = data[at + i]
            if a != b:
                return -1 if a < b else 1
        return 0

    def _last_not_above(self, data: bytearray, at: cython.Py_ssize_t) -> cython.Py_ssize_t:
        """Position of the last low bound that is not above the key at `data[at]`, or -1."""
        low: cython.Py_ssize_t = 0
        high: cython.Py_ssize_t = self.n
        middle: cython.Py_ssize_t
        prefix: cython.Py_ssize_t
        if self.top:
            prefix = (data[at] << 8) | data[at + 1]
            low = load32(self.top, prefix * 4) - self.left
            high = load32(self.top, prefix * 4 + 4) + self.entered
            if low < 0:
                low = 0
            if high > self.n:
                high = self.n
        while low < high:
            middle = (low + high) >> 1
            if self._compare(self.lows, middle * self.klen, data, at) <= 0:
                low = middle + 1
            else:
                high = middle
        return low - 1

    def seek(self, regs: bytearray, src: cython.int) -> cython.Py_ssize_t:
        position: cython.Py_ssize_t = self._last_not_above(regs, src)
        if position < 0:
            return -1
        id: cython.Py_ssize_t = load32(self.order, position * 4)
        if self._compare(self.store.ends, id * self.klen, regs, src) < 0:
            return -1
        return id

    def match(self, key: bytes, end: bytes) -> cython.Py_ssize_t:
        self.scratch[: self.klen] = key
        id: cython.Py_ssize_t = self.seek(self.scratch, 0)
        at: cython.Py_ssize_t = id * self.klen
        if id < 0 or self.store.keys[at : at + self.klen] != key or self.store.ends[at : at + self.klen] != end:
            return -1
        return id

    def overlap(self, key: bytes, end: bytes) -> cython.Py_ssize_t:
        """The last range that starts at or below `end`, if it reaches `key`."""
        self.scratch[: self.klen] = end
        position: cython.Py_ssize_t = self._last_not_above(self.scratch, 0)
        if position < 0:
            return -1
        id: cython.Py_ssize_t = load32(self.order, position * 4)
        self.scratch[: self.klen] = key
        if self._compare(self.store.ends, id * self.klen, self.scratch, 0) < 0:
            return -1
        return id

    def index(self, id: cython.Py_ssize_t) -> cython.int:
        if self.deferred:
            return 0
        if self.pending is not None:
            klen: cython.int = self.klen
            if self.pending and self.ascending:
                self.ascending = self._compare(self.store.keys, self.latest * klen, self.store.keys, id * klen) <= 0
            self.latest = id
            self.pending.append(id)
            return 0
        at: cython.Py_ssize_t = id * self.klen
        position: cython.Py_ssize_t = self._last_not_above(self.store.keys, at) + 1
        where: cython.Py_ssize_t = position * self.klen
        self.lows[where:where] = self.store.keys[at : at + self.klen]
        word = bytearray(4)
        store32(word, 0, id)
        self.order[position * 4 : position * 4] = word
        self.n += 1
        if self.top:
            self.entered += 1
            self._drift()
        elif self.n >= TOP_LIMIT and self.klen >= 2:
            self._build_top()
        return 0

    def unindex(self, id: cython.Py_ssize_t) -> cython.int:
        position: cython.Py_ssize_t = self._last_not_above(self.store.keys, id * self.klen)
        if position < 0 or load32(self.order, position * 4) != id:
            raise SetError("EINVAL", f"index of {self.name} is damaged")
        del self.lows[position * self.klen : (position + 1) * self.klen]
        del self.order[position * 4 : position * 4 + 4]
        self.n -= 1
        if self.top:
            self.left += 1
            self._drift()
        return 0

    def _build_top(self) -> cython.int:
        """`top[p]`: how many low bounds have a first half-word below `p`."""
        self.top = bytearray((65536 + 1) * 4)
        self.entered = 0
        self.left = 0
        position: cython.Py_ssize_t = 0
        prefix: cython.Py_ssize_t = 0
        own: cython.Py_ssize_t
        for position in range(self.n):
            own = (self.lows[position * self.klen] << 8) | self.lows[position * self.klen + 1]
            while prefix <= own:
                store32(self.top, prefix * 4, position)
                prefix += 1
        while prefix <= 65536:
            store32(self.top, prefix * 4, self.n)
            prefix += 1
        # a key's range may start under an earlier prefix, so the search goes from there: see _last_not_above, which answers low - 1
        return 0

    def _drift(self) -> cython.int:
        """Positions differ from the table's by what came and went since; it is made again before that slows the search."""
        if self.entered + self.left >= MAX_DRIFT:
            self._build_top()
        return 0

    def load(self, elements: Iterable[Element]) -> int:
        """Many at once: checked against each other and against what is there, then sorted once. All or nothing."""
        batch = list(elements)
        if any(e.key is None for e in batch) or len(batch) * 8 < self.n or (self.size and self.n + len(batch) > self.size):
            return Set.load(self, batch)
        batch.sort(key=_bounds)
        fresh = self._checked(batch)
        self.deferred = True
        try:
            for e in fresh:
                key, end = _bounds(e)
                rich = None
                if e.exprs or self.exprs or self.data_type >= 2 or e.comment or e.userdata or e.flags:
                    rich = self._rich_for(e)
                lifetime = e.timeout or self.timeout
                self._enter(key, end, e.data, lifetime, e.expires or lifetime, rich)
        finally:
            self.deferred = False
        self._rebuild()
        return len(fresh)

    def _checked(self, batch: list[Element]) -> list[Element]:
        """What of the sorted `batch` is new; SetError if anything overlaps."""
        fresh = []
        last: tuple[bytes, bytes] | None = None
        for e in batch:
            key, end = _bounds(e)
            self._check(key, end, e.data)
            if last is not None and key <= last[1]:
                if (key, end) == last and e.data is None:
                    continue
                raise SetError("EEXIST", f"interval overlaps with an existing one in {self.name}")
            last = (key, end)
            if self.n and self._present(key, end) >= 0:
                if self.data_type and self._data(self.match(key, end)) != e.data:
                    raise SetError("EBUSY", f"element exists in {self.name} with other data")
                continue
            fresh.append(e)
        return fresh

    def _rebuild(self) -> None:
        """The sorted arrays from the store."""
        klen = self.klen
        keys = bytes(self.store.keys)
        live = self.store.live
        ids = [id for id in range(self.store.top) if live[id] and id != self.catchall]
        ids.sort(key=lambda id: keys[id * klen : (id + 1) * klen])
        self.lows = bytearray(b"".join([keys[id * klen : (id + 1) * klen] for id in ids]))
        self.order = bytearray(struct.pack(f"<{len(ids)}I", *ids))
        self.n = len(ids)
        self.top = bytearray()
        if self.n >= TOP_LIMIT and klen >= 2:
            self._build_top()


def _bounds(e: Element) -> tuple[bytes, bytes]:
    key = e.key or b""
    return key, key if e.key_end is None else e.key_end
