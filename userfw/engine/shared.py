"""State that several processes share: limits, quotas and counts of connections of a daemon with workers.

Laws:
- A `Pool` is a mapping that was made before the workers were forked: a table of slots, found by a key of 128 bits. Who attaches
  first makes the slot and sets its value; it is free again when the last holder lets go.
- A slot is one number that every process changes by atomic instructions; no packet ever waits for a lock. Only attaching and
  letting go take one, for as long as a search in the table takes.
- A limit is one number too: when its bucket will be full again. Tokens at a time are what the bucket holds, less what is missing
  until then; this is the bucket of `limit` to the nanosecond (Linux: nft_limit_eval), and works when a worker's clock is behind.
- This is the only module that reads the mapping. Uncompiled, its steps are not atomic; workers that count exactly are compiled.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import cython

if not cython.compiled:
    HEAD, SLOT = 8, 8  # words before the slots, and of a slot
    LOCK, USED = 0, 1
    KEY0, KEY1, REFS, VALUE, FLAG = range(5)
    SPINS = 1_000_000

    def shared_words(mapping: Any) -> Any:
        return memoryview(mapping).cast("Q")

    def shared_load(words: Any, at: int) -> int:
        return int(words[at])

    def shared_store(words: Any, at: int, value: int) -> int:
        words[at] = value
        return 0

    def shared_add(words: Any, at: int, value: int) -> int:
        words[at] = (words[at] + value) & 0xFFFFFFFFFFFFFFFF
        return int(words[at])

    def shared_swap(words: Any, at: int, old: int, value: int) -> bool:
        if words[at] != old:
            return False
        words[at] = value
        return True

    def shared_yield() -> int:
        return 0


SLOTS = 1 << 16


def size_of(slots: int = SLOTS) -> int:
    """Bytes of the mapping for so many slots, a power of two."""
    return 8 * (8 + 8 * slots)


def key_of(*parts: object) -> tuple[int, int]:
    """The key of what these numbers and bytes name: the same in every process."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=16).digest()
    return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")


class Pool:
    """The slots in `mapping`, an anonymous shared memory mapping of `size_of(slots)` bytes that was zero at first."""

    def __init__(self, mapping: Any, slots: int = SLOTS) -> None:
        if len(mapping) < size_of(slots) or slots & (slots - 1):
            raise ValueError("the mapping is too small for the slots")
        self.mapping = mapping
        self.slots = slots
        self.words = shared_words(mapping)

    def used(self) -> int:
        """How many slots somebody holds."""
        return shared_load(self.words, USED)

    def _lock(self) -> cython.bint:
        """The table's lock; False if whoever has it does not come back (then everything ends soon)."""
        tries: cython.int
        for tries in range(SPINS):
            if shared_swap(self.words, LOCK, 0, 1):
                return True
            if tries & 63 == 63:
                shared_yield()
        return False

    def attach(self, key0: cython.ulonglong, key1: cython.ulonglong, value: cython.ulonglong) -> Shared | None:
        """The slot of a key, with `value` if it is new; None if all are taken."""
        words = self.words
        mask: cython.Py_ssize_t = self.slots - 1
        number: cython.Py_ssize_t = cython.cast(cython.Py_ssize_t, key0 & cython.cast(cython.ulonglong, mask))
        _count: cython.Py_ssize_t
        at: cython.Py_ssize_t
        free: cython.Py_ssize_t = -1
        key0 |= 1  # 0: never used
        if not self._lock():
            return None
        for _count in range(self.slots):
            at = HEAD + SLOT * number
            if words[at + KEY0] == 0:
                if free < 0:
                    free = at
                break
            if words[at + REFS] == 0:
                if free < 0:
                    free = at
            elif words[at + KEY0] == key0 and words[at + KEY1] == key1:
                words[at + REFS] += 1
                shared_store(words, LOCK, 0)
                return Shared(self, at)
            number = (number + 1) & mask
        if free >= 0:
            words[free + KEY0] = key0
            words[free + KEY1] = key1
            words[free + REFS] = 1
            words[free + FLAG] = 0
            shared_store(words, free + VALUE, value)
            words[USED] += 1
        shared_store(words, LOCK, 0)
        return Shared(self, free) if free >= 0 else None

    def release(self, at: cython.Py_ssize_t) -> cython.int:
        """One holder of a slot less. Slots that nobody needs to search past become empty."""
        words = self.words
        mask: cython.Py_ssize_t = self.slots - 1
        number: cython.Py_ssize_t = (at - HEAD) // SLOT
        if not self._lock():
            return 0
        words[at + REFS] -= 1
        if words[at + REFS] == 0:
            words[USED] -= 1
            if words[HEAD + SLOT * ((number + 1) & mask) + KEY0] == 0:
                while words[at + KEY0] != 0 and words[at + REFS] == 0:
                    words[at + KEY0] = 0
                    number = (number - 1) & mask
                    at = HEAD + SLOT * number
        shared_store(words, LOCK, 0)
        return 0


class Shared:
    """One slot, held: a number, and a flag."""

    def __init__(self, pool: Pool, at: int) -> None:
        self.pool = pool
        self.at = at

    def __del__(self) -> None:
        self.pool.release(self.at)

    def load(self) -> cython.ulonglong:
        """The number."""
        return shared_load(self.pool.words, self.at + VALUE)

    def store(self, value: cython.ulonglong) -> cython.int:
        """Set the number; 0."""
        return shared_store(self.pool.words, self.at + VALUE, value)

    def add(self, value: cython.ulonglong) -> cython.ulonglong:
        """Add to the number, modulo 2**64; what it is then."""
        return shared_add(self.pool.words, self.at + VALUE, value)

    def take(self, now: cython.ulonglong, cost: cython.ulonglong, most: cython.ulonglong) -> cython.bint:
        """Take `cost` tokens of a bucket that holds `most` and gets one each nanosecond; whether they were there."""
        words = self.pool.words
        at: cython.Py_ssize_t = self.at + VALUE
        full: cython.ulonglong
        missing: cython.ulonglong
        while True:
            full = shared_load(words, at)
            missing = full - now if full > now else 0
            if missing > most:
                missing = most
            if most - missing < cost:
                return False
            if shared_swap(words, at, full, now + missing + cost):
                return True

    def first(self) -> cython.bint:
        """Raise the flag; whether it was down."""
        return shared_swap(self.pool.words, self.at + FLAG, 0, 1)

    def again(self) -> cython.int:
        """Lower the flag; 0."""
        return shared_store(self.pool.words, self.at + FLAG, 0)


def share(pool: Pool, exprs: Any, *name: object) -> int:
    """Give each expression that keeps state over packets the slot of its name and place; how many found none."""
    alone: cython.int = 0
    number: cython.int = 0
    slot: Shared | None
    for expr in exprs:
        number += 1
        if expr.kind not in ("limit", "quota", "connlimit") or expr.slot is not None:
            continue
        key0, key1 = key_of(*name, number)
        slot = pool.attach(key0, key1, expr.initial())
        if slot is None:
            alone += 1
        else:
            expr.join(slot)
    return alone


class Sharing:
    """How a set shares the state of its elements: by the set's name and the element's key. `watch` is told what was shared."""

    def __init__(self, pool: Pool, watch: Callable[[Any], None], *name: object) -> None:
        self.pool = pool
        self.watch = watch
        self.name = name

    def element(self, exprs: Any, key: bytes) -> int:
        """Share the state of one element."""
        alone = share(self.pool, exprs, *self.name, key)
        self.watch(exprs)
        return alone
