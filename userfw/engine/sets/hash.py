"""HashSet: exact keys in an open-addressing table of element ids; SmallSet adds a bitmap for keys of one or two bytes.

Linear probing over a table at most two thirds full, deletion by shifting back (no tombstones), a secret seed against chosen keys.
"""

from __future__ import annotations

from typing import Any

import cython

from userfw.core.clock import Clock
from userfw.engine.sets.base import Set

if not cython.compiled:
    from userfw.engine.const import U32_MASK
    from userfw.engine.sets.elements import Store, load32, store32

_SEED = 0x9E3779B9


def hash_key(data: bytearray, at: cython.Py_ssize_t, length: cython.int, seed: cython.uint) -> cython.uint:
    """A seeded hash of `length` bytes: murmur3's shape over 32-bit words, with multipliers below 2**31 (C literals for Cython)."""
    h: cython.ulonglong = seed
    k: cython.ulonglong
    i: cython.int = 0
    while i + 4 <= length:
        h = mix(h, load32(data, at + i))
        i += 4
    if i < length:
        k = data[at + i]
        if i + 1 < length:
            k |= data[at + i + 1] << 8
        if i + 2 < length:
            k |= data[at + i + 2] << 16
        h = mix(h, k)
    h ^= length
    h ^= h >> 16
    h = (h * 0x45D9F3B) & U32_MASK
    h ^= h >> 13
    h = (h * 0x2B2AE35) & U32_MASK
    h ^= h >> 16
    return h & U32_MASK


def mix(h: cython.ulonglong, k: cython.ulonglong) -> cython.ulonglong:
    """One word into the hash."""
    k = (k * 0x4C9E2D51) & U32_MASK
    k = ((k << 15) | (k >> 17)) & U32_MASK
    k = (k * 0x1B873593) & U32_MASK
    h ^= k
    h = ((h << 13) | (h >> 19)) & U32_MASK
    return (h * 5 + 0x6546B64) & U32_MASK


class HashSet(Set):
    """Exact keys. `seed`: secret of the hash (a random number of the caller's)."""

    def __init__(self, name: str, klen: int, clock: Clock, seed: int = _SEED, **options: Any) -> None:
        super().__init__(name, klen, clock, **options)
        self.seed = seed & 0xFFFFFFFF
        self.slots = bytearray(16 * 4)
        self.mask = 15

    def clear_index(self) -> cython.int:
        self.slots = bytearray(16 * 4)
        self.mask = 15
        return 0

    def take_index(self, other: Set, copied: cython.bint) -> cython.int:
        own: HashSet = cython.cast(HashSet, other)
        self.slots = bytearray(own.slots) if copied else own.slots
        self.mask = own.mask
        self.seed = own.seed
        return 0

    def seek(self, regs: bytearray, src: cython.int) -> cython.Py_ssize_t:
        slots: bytearray = self.slots
        store: Store = self.store
        slot: cython.Py_ssize_t = hash_key(regs, src, self.klen, self.seed) & self.mask
        id: cython.Py_ssize_t
        while True:
            id = load32(slots, slot * 4)
            if id == 0:
                return -1
            if store.same_key(id - 1, regs, src):
                return id - 1
            slot = (slot + 1) & self.mask

    def index(self, id: cython.Py_ssize_t) -> cython.int:
        if self.store.count * 3 > (self.mask + 1) * 2:
            self._grow()
        slot: cython.Py_ssize_t = hash_key(self.store.keys, id * self.klen, self.klen, self.seed) & self.mask
        while load32(self.slots, slot * 4) != 0:
            slot = (slot + 1) & self.mask
        store32(self.slots, slot * 4, id + 1)
        return 0

    def unindex(self, id: cython.Py_ssize_t) -> cython.int:
        mask: cython.Py_ssize_t = self.mask
        slot: cython.Py_ssize_t = hash_key(self.store.keys, id * self.klen, self.klen, self.seed) & mask
        while load32(self.slots, slot * 4) != id + 1:
            slot = (slot + 1) & mask
        # Knuth 6.4 algorithm R: pull back what probed past the hole
        hole: cython.Py_ssize_t = slot
        other: cython.Py_ssize_t
        home: cython.Py_ssize_t
        while True:
            slot = (slot + 1) & mask
            other = load32(self.slots, slot * 4)
            if other == 0:
                break
            home = hash_key(self.store.keys, (other - 1) * self.klen, self.klen, self.seed) & mask
            if ((slot - home) & mask) >= ((slot - hole) & mask):
                store32(self.slots, hole * 4, other)
                hole = slot
        store32(self.slots, hole * 4, 0)
        return 0

    def _grow(self) -> cython.int:
        """Twice the table, entries moved over."""
        old: bytearray = self.slots
        size: cython.Py_ssize_t = self.mask + 1
        self.mask = size * 2 - 1
        self.slots = bytearray(size * 8)
        i: cython.Py_ssize_t
        id: cython.Py_ssize_t
        slot: cython.Py_ssize_t
        for i in range(size):
            id = load32(old, i * 4)
            if id != 0:
                slot = hash_key(self.store.keys, (id - 1) * self.klen, self.klen, self.seed) & self.mask
                while load32(self.slots, slot * 4) != 0:
                    slot = (slot + 1) & self.mask
                store32(self.slots, slot * 4, id)
        return 0


class SmallSet(HashSet):
    """Keys of one or two bytes: a bitmap answers `contains` while no element can expire and there is no catch-all."""

    def __init__(self, name: str, klen: int, clock: Clock, **options: Any) -> None:
        if klen > 2:
            raise ValueError("a bitmap is for keys of one or two bytes")
        super().__init__(name, klen, clock, **options)
        self.bits = bytearray(32 << (8 * (klen - 1)))

    def clear_index(self) -> cython.int:
        HashSet.clear_index(self)
        self.bits = bytearray(len(self.bits))
        return 0

    def take_index(self, other: Set, copied: cython.bint) -> cython.int:
        own: SmallSet = cython.cast(SmallSet, other)
        HashSet.take_index(self, other, copied)
        self.bits = bytearray(own.bits) if copied else own.bits
        return 0

    def contains(self, regs: bytearray, src: cython.int) -> cython.bint:
        value: cython.int = regs[src]
        if self.store.timed or self.catchall >= 0:
            return self.find(regs, src) >= 0
        if self.klen == 2:
            value |= regs[src + 1] << 8
        return (self.bits[value >> 3] >> (value & 7)) & 1 != 0

    def index(self, id: cython.Py_ssize_t) -> cython.int:
        HashSet.index(self, id)
        return self._bit(id, True)

    def unindex(self, id: cython.Py_ssize_t) -> cython.int:
        HashSet.unindex(self, id)
        return self._bit(id, False)

    def _bit(self, id: cython.Py_ssize_t, on: cython.bint) -> cython.int:
        value: cython.int = self.store.keys[id * self.klen]
        if self.klen == 2:
            value |= self.store.keys[id * 2 + 1] << 8
        if on:
            self.bits[value >> 3] = self.bits[value >> 3] | (1 << (value & 7))
        else:
            self.bits[value >> 3] = self.bits[value >> 3] & ~(1 << (value & 7)) & 0xFF
        return 0
