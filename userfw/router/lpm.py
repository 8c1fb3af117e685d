"""Longest-prefix match: one open-addressing hash for each prefix length that occurs, asked from the longest to the shortest.

Laws: one code path for IPv4 and IPv6 (an IPv4 prefix of length n has length 96 + n here). A lookup costs at most one probe
sequence per length present and allocates nothing; results of the packet path are cached above (fib.Fib), so a full table of a
million prefixes is asked once per destination, not once per packet. Routes of one prefix form a list by rising metric.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator

import cython

if not cython.compiled:
    from userfw.core.const import NFPROTO_IPV4, U32_MASK
    from userfw.core.packet import Device
    from userfw.router.const import RTN_LOCAL
    from userfw.router.types import NextHop, Route


def mix(hi: cython.ulonglong, lo: cython.ulonglong, seed: cython.uint) -> cython.uint:
    """A 32-bit hash of an address."""
    h: cython.ulonglong = (seed ^ (lo & U32_MASK)) & U32_MASK
    h = (h * 0x45D9F3B) & U32_MASK
    h ^= (h >> 16) ^ (lo >> 32)
    h = (h * 0x45D9F3B) & U32_MASK
    if hi:
        h ^= (h >> 16) ^ (hi & U32_MASK)
        h = (h * 0x45D9F3B) & U32_MASK
        h ^= (h >> 16) ^ (hi >> 32)
        h = (h * 0x45D9F3B) & U32_MASK
    return (h ^ (h >> 16)) & U32_MASK


def prefix_length(family: int, prefixlen: int) -> int:
    """`prefixlen` of the family as a length of 128-bit addresses."""
    return prefixlen + 96 if family == NFPROTO_IPV4 else prefixlen


def prefix_masks(length: int) -> tuple[int, int]:
    """The two 64-bit halves of a 128-bit mask with `length` leading ones."""
    mask = ((1 << 128) - 1) ^ ((1 << (128 - length)) - 1)
    return mask >> 64, mask & ((1 << 64) - 1)


class PrefixHash:
    """All prefixes of one length."""

    def __init__(self, length: int, seed: int) -> None:
        self.length = length
        self.mask_hi, self.mask_lo = prefix_masks(length)
        self.seed = seed
        self.count = 0
        self._allocate(8)

    def _allocate(self, size: cython.Py_ssize_t) -> None:
        self.size = size
        self.filled = 0
        self.his = array("Q", bytes(8 * size))
        self.los = array("Q", bytes(8 * size))
        self.slots: list[Route | None] = [None] * size
        self.states = bytearray(size)  # 0: free, 1: deleted, else a few bits of the hash: a miss touches nothing but this

    def find(self, hi: cython.ulonglong, lo: cython.ulonglong) -> cython.Py_ssize_t:
        """Slot of the prefix that holds the address, or -1."""
        hi &= self.mask_hi
        lo &= self.mask_lo
        mask: cython.Py_ssize_t = self.size - 1
        h: cython.uint = mix(hi, lo, self.seed)
        tag: cython.uchar = (h >> 24) | 2
        i: cython.Py_ssize_t = h & mask
        while self.states[i]:
            if self.states[i] == tag and self.los[i] == lo and self.his[i] == hi:
                return i
            i = (i + 1) & mask
        return -1

    def head(self, hi: cython.ulonglong, lo: cython.ulonglong) -> Route | None:
        """First route of the prefix that holds the address."""
        i: cython.Py_ssize_t = self.find(hi, lo)
        return self.slots[i] if i >= 0 else None

    def store(self, hi: cython.ulonglong, lo: cython.ulonglong, head: Route | None) -> None:
        """Set the list of routes of a prefix; None removes the prefix."""
        i: cython.Py_ssize_t = self.find(hi, lo)
        if i >= 0:
            self.slots[i] = head
            if head is None:
                self.states[i] = 1
                self.count -= 1
            return
        if head is None:
            return
        if (self.filled + 1) * 2 > self.size:
            self._grow()
        self._put(hi & self.mask_hi, lo & self.mask_lo, head)
        self.count += 1

    def _put(self, hi: cython.ulonglong, lo: cython.ulonglong, head: Route | None) -> None:
        mask: cython.Py_ssize_t = self.size - 1
        h: cython.uint = mix(hi, lo, self.seed)
        i: cython.Py_ssize_t = h & mask
        while self.states[i] > 1:
            i = (i + 1) & mask
        if self.states[i] == 0:
            self.filled += 1
        self.states[i] = (h >> 24) | 2
        self.his[i] = hi
        self.los[i] = lo
        self.slots[i] = head

    def _grow(self) -> None:
        old_his, old_los, old_slots, old_states = self.his, self.los, self.slots, self.states
        size: cython.Py_ssize_t = self.size
        i: cython.Py_ssize_t
        self._allocate(size * 2 if self.count * 4 > size else size)
        for i in range(size):
            if old_states[i] > 1:
                self._put(old_his[i], old_los[i], old_slots[i])


class Table:
    """One routing table of one family (Linux: struct fib_table)."""

    def __init__(self, family: int, number: int, seed: int = 0) -> None:
        self.family = family
        self.number = number
        self.seed = seed
        self.by_length: dict[int, PrefixHash] = {}
        self.order: list[PrefixHash] = []

    def add(self, route: Route, replace: bool = False) -> None:
        """Insert in order of metric. Same prefix, tos and metric: replaced if `replace`, else ValueError."""
        length = prefix_length(self.family, route.prefixlen)
        prefixes = self.by_length.get(length)
        if prefixes is None:
            prefixes = self.by_length[length] = PrefixHash(length, self.seed)
            self.order = sorted(self.by_length.values(), key=lambda p: -p.length)
        chain = [r for r in self._chain(prefixes, route) if not (replace and _same(r, route))]
        if any(_same(r, route) for r in chain):
            raise ValueError("route exists")
        self._rebuild(prefixes, route, [*chain, route])

    def remove(self, route: Route) -> None:
        """Take out this very route; KeyError if it is not here."""
        prefixes = self.by_length.get(prefix_length(self.family, route.prefixlen))
        chain = self._chain(prefixes, route) if prefixes is not None else []
        if prefixes is None or all(r is not route for r in chain):
            raise KeyError("no such route")
        self._rebuild(prefixes, route, [r for r in chain if r is not route])

    def of_prefix(self, hi: int, lo: int, prefixlen: int) -> list[Route]:
        """All routes of exactly this prefix, best first."""
        prefixes = self.by_length.get(prefix_length(self.family, prefixlen))
        if prefixes is None:
            return []
        return self._chain(prefixes, Route(self.family, hi, lo, prefixlen, []))

    def _chain(self, prefixes: PrefixHash, route: Route) -> list[Route]:
        chain: list[Route] = []
        item: Route | None = prefixes.head(route.hi, route.lo)
        while item is not None:
            chain.append(item)
            item = item.next
        return chain

    def _rebuild(self, prefixes: PrefixHash, route: Route, chain: list[Route]) -> None:
        chain.sort(key=lambda r: (-r.tos, r.metric))
        following: Route | None = None
        for item in reversed(chain):
            item.next = following
            following = item
        prefixes.store(route.hi, route.lo, following)

    def lookup(self, hi: cython.ulonglong, lo: cython.ulonglong, oif: Device | None, tos: cython.int) -> Route | None:
        """The most specific usable route of the address; with `oif`, only routes that leave there."""
        i: cython.Py_ssize_t
        prefixes: PrefixHash
        route: Route | None
        for i in range(len(self.order)):
            prefixes = self.order[i]
            route = prefixes.head(hi, lo)
            while route is not None:
                if (route.tos == 0 or route.tos == tos) and route.usable() and (oif is None or leaves_by(route, oif)):
                    return route
                route = route.next
        return None

    def routes(self) -> Iterator[Route]:
        """All routes, most specific prefixes first."""
        for prefixes in self.order:
            for head in prefixes.slots:
                item = head
                while item is not None:
                    yield item
                    item = item.next


def leaves_by(route: Route, oif: Device) -> cython.bint:
    """One of the route's ways uses the device, or it is a route without ways."""
    i: cython.Py_ssize_t
    hop: NextHop
    if not route.nexthops:
        return True
    if route.type == RTN_LOCAL and route.family == NFPROTO_IPV4:
        return True
    for i in range(len(route.nexthops)):
        hop = route.nexthops[i]
        if hop.device is oif:
            return True
    return False


def _same(a: Route, b: Route) -> bool:
    return bool(a.metric == b.metric and a.tos == b.tos)
