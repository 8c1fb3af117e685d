"""RangeSet: concatenations with ranges in any field (the job of Linux's nft_set_pipapo).

Each element is cut into at most MAX_PIECES pieces with a bit mask each: a range is covered by prefixes at steps of 4 bits, and what
would make too many pieces by its common prefix instead. Pieces with the same mask form a group with a hash table over the masked
key.
A lookup probes each group once and then compares the candidates field by field with the element's real bounds, so the answer is
exact
whatever the cutting. Of several elements that contain a key, the one added first is found, as in Linux.

Linux refuses an element whose start or end lies in another one (ENOTEMPTY), not one that encloses others.
"""

from __future__ import annotations

import itertools
from typing import Any

import cython

from userfw.core.clock import Clock
from userfw.engine.sets.base import Set

if not cython.compiled:
    from userfw.engine.const import U32_MASK
    from userfw.engine.sets.elements import Store, load32, load64, store32, store64

MAX_PIECES = 16
Piece = tuple[bytes, bytes]


def prefixes(low: int, high: int, bits: int) -> list[tuple[int, int]]:
    """The fewest (value, mask) prefixes that make up `low` to `high`."""
    result = []
    full = (1 << bits) - 1
    while low <= high:
        size = low & -low if low else 1 << bits
        while size > high - low + 1:
            size >>= 1
        result.append((low, full & ~(size - 1)))
        low += size
    return result


def cover(low: int, high: int, length: int) -> dict[tuple[int, int], None]:
    """Prefixes (value, mask) that together contain `low` to `high` of a field of `length` bytes, cut at steps of 4 bits (8 in long
    fields) so that few different masks arise; in order, without repetition."""
    bits = length * 8
    full = (1 << bits) - 1
    if low == high:
        return {(low, full): None}
    step = 4 if length <= 4 else 8
    parts = prefixes(low, high, bits)
    if len(parts) > MAX_PIECES:
        mask = full & ~((1 << (low ^ high).bit_length()) - 1)
        parts = [(low & mask, mask)]
    result: dict[tuple[int, int], None] = {}
    for value, mask in parts:
        free = ((full ^ mask).bit_length() + step - 1) // step * step
        coarse = full >> free << free
        result[value & coarse, coarse] = None
    return result


def pieces(key: bytes, end: bytes, fields: tuple[tuple[int, int], ...]) -> list[Piece]:
    """(masked key, mask) of every piece of the element `key` to `end`; at most MAX_PIECES."""
    cut: list[list[Piece]] = []
    counts: list[int] = []
    for offset, length in fields:
        low = int.from_bytes(key[offset : offset + length], "big")
        high = int.from_bytes(end[offset : offset + length], "big")
        size = (length + 3) // 4 * 4
        parts = cover(low, high, length)
        cut.append([(v.to_bytes(length, "big").ljust(size, b"\0"), m.to_bytes(length, "big").ljust(size, b"\0")) for v, m in parts])
        counts.append(len(parts))
    while _product(counts) > MAX_PIECES:
        worst = counts.index(max(counts))
        cut[worst] = [_common(cut[worst])]
        counts[worst] = 1
    if _product(counts) == 1:
        return [(b"".join(parts[0][0] for parts in cut), b"".join(parts[0][1] for parts in cut))]
    return [
        (b"".join(value for value, _ in combination), b"".join(mask for _, mask in combination))
        for combination in itertools.product(*cut)
    ]


def _common(parts: list[Piece]) -> Piece:
    """The shortest prefix, in whole steps of 4 bits, that contains all `parts`."""
    size = len(parts[0][0])
    values = [int.from_bytes(value, "big") for value, _ in parts]
    mask = min(int.from_bytes(m, "big") for _, m in parts)
    while len({value & mask for value in values}) > 1:
        mask = mask << 4 & ((1 << size * 8) - 1)
    return (values[0] & mask).to_bytes(size, "big"), mask.to_bytes(size, "big")


def _product(numbers: list[int]) -> int:
    total = 1
    for number in numbers:
        total *= number
    return total


class Group:
    """All pieces with one mask: chained hash table; piece number p has its element in `ids`, its masked key in `masked`."""

    def __init__(self, mask: bytes) -> None:
        self.mask = mask
        self.key = mask
        self.length = len(mask)
        self.heads = bytearray(16 * 4)
        self.nexts = bytearray()
        self.ids = bytearray()
        self.masked = bytearray()
        self.buckets = 16
        self.top = 0
        self.count = 0
        self.free_head = 0

    def copy(self) -> Group:
        """Arrays of its own."""
        other: Group = Group(self.mask)
        other.key = self.key
        other.length = self.length
        other.heads = bytearray(self.heads)
        other.nexts = bytearray(self.nexts)
        other.ids = bytearray(self.ids)
        other.masked = bytearray(self.masked)
        other.buckets = self.buckets
        other.top = self.top
        other.count = self.count
        other.free_head = self.free_head
        return other

    def slot(self, data: bytearray, at: cython.Py_ssize_t, seed: cython.uint) -> cython.uint:
        """Hash of the masked key at `data[at]`, without a copy: FNV over the bytes, then murmur's final mix."""
        h: cython.ulonglong = seed
        mask: bytes = self.mask
        i: cython.int
        m: cython.int
        for i in range(self.length):
            m = mask[i]
            if m:
                h = ((h ^ (data[at + i] & m)) * 0x01000193) & U32_MASK
        h ^= h >> 16
        h = (h * 0x45D9F3B) & U32_MASK
        h ^= h >> 13
        return h & (self.buckets - 1) & U32_MASK

    def insert(self, id: cython.Py_ssize_t, piece: bytearray, seed: cython.uint) -> cython.int:
        """Enter a piece of element `id` with this masked key."""
        p: cython.Py_ssize_t
        if self.count >= self.buckets:
            self.grow(seed)
        if self.free_head:
            p = self.free_head - 1
            self.free_head = load32(self.nexts, p * 4)
        else:
            p = self.top
            self.top += 1
            if p * 4 >= len(self.nexts):
                more: cython.Py_ssize_t = p // 2 + 16
                self.nexts.extend(bytes(more * 4))
                self.ids.extend(bytes(more * 4))
                self.masked.extend(bytes(more * self.length))
        self.masked[p * self.length : (p + 1) * self.length] = piece
        store32(self.ids, p * 4, id)
        bucket: cython.Py_ssize_t = self.slot(piece, 0, seed)
        store32(self.nexts, p * 4, load32(self.heads, bucket * 4))
        store32(self.heads, bucket * 4, p + 1)
        self.count += 1
        return 0

    def erase(self, id: cython.Py_ssize_t, piece: bytearray, seed: cython.uint) -> cython.int:
        """Take out the piece of element `id` with this masked key."""
        bucket: cython.Py_ssize_t = self.slot(piece, 0, seed)
        before: cython.Py_ssize_t = 0
        p: cython.Py_ssize_t = load32(self.heads, bucket * 4)
        while p:
            if load32(self.ids, (p - 1) * 4) == id and self.masked[(p - 1) * self.length : p * self.length] == piece:
                if before:
                    store32(self.nexts, (before - 1) * 4, load32(self.nexts, (p - 1) * 4))
                else:
                    store32(self.heads, bucket * 4, load32(self.nexts, (p - 1) * 4))
                store32(self.nexts, (p - 1) * 4, self.free_head)
                store32(self.ids, (p - 1) * 4, 0)
                self.free_head = p
                self.count -= 1
                return 0
            before = p
            p = load32(self.nexts, (p - 1) * 4)
        return 0

    def grow(self, seed: cython.uint) -> cython.int:
        """Four times the buckets."""
        old: bytearray = self.heads
        size: cython.Py_ssize_t = self.buckets
        self.buckets = size * 4
        self.heads = bytearray(self.buckets * 4)
        i: cython.Py_ssize_t
        p: cython.Py_ssize_t
        following: cython.Py_ssize_t
        bucket: cython.Py_ssize_t
        for i in range(size):
            p = load32(old, i * 4)
            while p:
                following = load32(self.nexts, (p - 1) * 4)
                bucket = self.slot(self.masked, (p - 1) * self.length, seed)
                store32(self.nexts, (p - 1) * 4, load32(self.heads, bucket * 4))
                store32(self.heads, bucket * 4, p)
                p = following
        return 0


class RangeSet(Set):
    """Ranges in concatenations: `fields` gives offset and length of each."""

    def __init__(self, name: str, klen: int, clock: Clock, seed: int = 0x9E3779B9, **options: Any) -> None:
        super().__init__(name, klen, clock, ranged=True, **options)
        self.seed = seed & 0xFFFFFFFF
        self.nfields = len(self.fields)
        self.starts = bytearray(offset for offset, _ in self.fields)
        self.lengths = bytearray(length for _, length in self.fields)
        self.groups: list[Group] = []
        self.by_mask: dict[bytes, Group] = {}
        self.sequence = bytearray()
        self.serial = 0

    def clear_index(self) -> cython.int:
        self.groups = []
        self.by_mask = {}
        self.sequence = bytearray()
        return 0

    def take_index(self, other: Set, copied: cython.bint) -> cython.int:
        own: RangeSet = cython.cast(RangeSet, other)
        self.seed = own.seed
        self.sequence = bytearray(own.sequence) if copied else own.sequence
        self.serial = own.serial
        self.groups = own.groups
        self.by_mask = own.by_mask
        if copied:
            twins = {id(group): group.copy() for group in own.groups}
            self.groups = [twins[id(group)] for group in own.groups]
            self.by_mask = {mask: twins[id(group)] for mask, group in own.by_mask.items()}
        return 0

    def _inside(self, id: cython.Py_ssize_t, regs: bytearray, src: cython.int) -> cython.bint:
        """Whether every field of the key is within the bounds of element `id`."""
        store: Store = self.store
        base: cython.Py_ssize_t = id * self.klen
        field: cython.int
        i: cython.int
        start: cython.int
        length: cython.int
        k: cython.int
        b: cython.int
        for field in range(self.nfields):
            start = self.starts[field]
            length = self.lengths[field]
            for i in range(start, start + length):
                k = regs[src + i]
                b = store.keys[base + i]
                if k < b:
                    return False
                if k > b:
                    break
            for i in range(start, start + length):
                k = regs[src + i]
                b = store.ends[base + i]
                if k > b:
                    return False
                if k < b:
                    break
        return True

    def seek(self, regs: bytearray, src: cython.int) -> cython.Py_ssize_t:
        found: cython.Py_ssize_t = -1
        first: cython.ulonglong = 0
        number: cython.ulonglong
        p: cython.Py_ssize_t
        id: cython.Py_ssize_t
        group: Group
        now: cython.ulonglong = self.clock.now
        for group in self.groups:
            if group.count == 0:
                continue
            p = load32(group.heads, cython.cast(cython.Py_ssize_t, group.slot(regs, src, self.seed)) * 4)
            while p:
                id = load32(group.ids, (p - 1) * 4)
                if self._inside(id, regs, src) and self.store.alive(id, now):
                    number = load64(self.sequence, id * 8)
                    if found < 0 or number < first:
                        found = id
                        first = number
                p = load32(group.nexts, (p - 1) * 4)
        return found

    def match(self, key: bytes, end: bytes) -> cython.Py_ssize_t:
        group: Group
        store: Store = self.store
        p: cython.Py_ssize_t
        id: cython.Py_ssize_t
        at: cython.Py_ssize_t
        self.scratch[: self.klen] = key
        for group in self.groups:
            p = load32(group.heads, cython.cast(cython.Py_ssize_t, group.slot(self.scratch, 0, self.seed)) * 4)
            while p:
                id = load32(group.ids, (p - 1) * 4)
                at = id * self.klen
                if store.same_key(id, self.scratch, 0) and store.ends[at : at + self.klen] == end:
                    return id
                p = load32(group.nexts, (p - 1) * 4)
        return -1

    def overlap(self, key: bytes, end: bytes) -> cython.Py_ssize_t:
        """An element that contains the start or the end (Linux: nft_pipapo_insert)."""
        self.scratch[: self.klen] = key
        id: cython.Py_ssize_t = self.seek(self.scratch, 0)
        if id < 0:
            self.scratch[: self.klen] = end
            id = self.seek(self.scratch, 0)
        return id

    def index(self, id: cython.Py_ssize_t) -> cython.int:
        at: cython.Py_ssize_t = id * self.klen
        if len(self.sequence) < (id + 1) * 8:
            self.sequence.extend(bytes(self.store.capacity * 8 - len(self.sequence)))
        self.serial += 1
        store64(self.sequence, id * 8, self.serial)
        key = bytes(self.store.keys[at : at + self.klen])
        end = bytes(self.store.ends[at : at + self.klen])
        group: Group
        for value, mask in pieces(key, end, self.fields):
            if mask not in self.by_mask:
                self.by_mask[mask] = Group(mask)
                self.groups = list(self.by_mask.values())
            group = self.by_mask[mask]
            group.insert(id, bytearray(value), self.seed)
        return 0

    def unindex(self, id: cython.Py_ssize_t) -> cython.int:
        at: cython.Py_ssize_t = id * self.klen
        key = bytes(self.store.keys[at : at + self.klen])
        end = bytes(self.store.ends[at : at + self.klen])
        group: Group
        for value, mask in pieces(key, end, self.fields):
            group = self.by_mask[mask]
            group.erase(id, bytearray(value), self.seed)
            if group.count == 0:
                del self.by_mask[mask]
                self.groups = list(self.by_mask.values())
        return 0
