"""Source mappings by what they map: the connections of one address and port of a client (Linux: nf_nat_bysource).

Laws: a connection is in the index while it is in the table, and only if its source mapping changes something: one that does not
can never be chosen for another; one whose first packet is dropped leaves nothing behind. It grows bucket by bucket (linear
hashing), as the connection table does.
"""

from random import Random
from typing import Any

import cython

if not cython.compiled:
    from userfw.conntrack.conn import Conn, Tuple
    from userfw.conntrack.table import ConnObserver
    from userfw.conntrack.tuples import hash_words
    from userfw.core.const import IPS_SRC_NAT

    SOURCE_SEGMENT, SOURCE_SHIFT = 1024, 10


class SourceIndex(ConnObserver):
    """Chains of connections through `Conn.src_next`."""

    def __init__(self, rng: Random) -> None:
        self.k0 = rng.getrandbits(64)
        self.k1 = rng.getrandbits(64)
        self.directory: list[Any] = [[None] * SOURCE_SEGMENT]
        self.mask = SOURCE_SEGMENT - 1
        self.split = 0
        self.buckets = SOURCE_SEGMENT
        self.count = 0

    def _hash(self, t: Tuple) -> cython.uint:
        word: cython.ulonglong = t.sport
        word = (word << 16) | t.zone
        word = (word << 8) | t.l4proto
        word = (word << 8) | t.l3num
        return hash_words(self.k0, self.k1, t.src_hi, t.src_lo, word)

    def _index(self, hash: cython.uint) -> cython.Py_ssize_t:
        i: cython.Py_ssize_t = hash & self.mask
        if i < self.split:
            i = hash & (self.mask * 2 + 1)
        return i

    def add(self, conn: Conn) -> cython.int:
        """Enter `conn`; one without a source mapping is left out."""
        if not conn.status & IPS_SRC_NAT:
            return 0
        index: cython.Py_ssize_t = self._index(self._hash(conn.orig))
        segment: list[Any] = self.directory[index >> SOURCE_SHIFT]
        conn.src_next = segment[index & (SOURCE_SEGMENT - 1)]
        segment[index & (SOURCE_SEGMENT - 1)] = conn
        self.count += 1
        if self.count > self.buckets:
            self._grow()
        return 0

    def _grow(self) -> cython.int:
        if self.buckets & (SOURCE_SEGMENT - 1) == 0 and (self.buckets >> SOURCE_SHIFT) == len(self.directory):
            self.directory.append([None] * SOURCE_SEGMENT)
        segment: list[Any] = self.directory[self.split >> SOURCE_SHIFT]
        conn: Conn | None = segment[self.split & (SOURCE_SEGMENT - 1)]
        segment[self.split & (SOURCE_SEGMENT - 1)] = None
        self.split += 1
        self.buckets += 1
        if self.split > self.mask:
            self.mask = self.mask * 2 + 1
            self.split = 0
        following: Conn | None
        index: cython.Py_ssize_t
        while conn is not None:
            following = conn.src_next
            index = self._index(self._hash(conn.orig))
            segment = self.directory[index >> SOURCE_SHIFT]
            conn.src_next = segment[index & (SOURCE_SEGMENT - 1)]
            segment[index & (SOURCE_SEGMENT - 1)] = conn
            conn = following
        return 0

    def first(self, orig: Tuple) -> Conn | None:
        """A connection of the same source address and port, protocol and zone as `orig`, or None."""
        index: cython.Py_ssize_t = self._index(self._hash(orig))
        segment: list[Any] = self.directory[index >> SOURCE_SHIFT]
        conn: Conn | None = segment[index & (SOURCE_SEGMENT - 1)]
        if conn is None or _same(conn.orig, orig):
            return conn
        return self.after(conn, orig)

    def after(self, conn: Conn, orig: Tuple) -> Conn | None:
        """The next one after `conn`, or None."""
        at: Conn | None = conn.src_next
        while at is not None and not _same(at.orig, orig):
            at = at.src_next
        return at

    def confirmed(self, conn: Conn) -> cython.int:
        """Enter `conn`."""
        return self.add(conn)

    def destroyed(self, conn: Conn) -> cython.int:
        """Forget `conn`."""
        if not conn.status & IPS_SRC_NAT:
            return 0
        index: cython.Py_ssize_t = self._index(self._hash(conn.orig))
        segment: list[Any] = self.directory[index >> SOURCE_SHIFT]
        at: Conn | None = segment[index & (SOURCE_SEGMENT - 1)]
        if at is conn:
            segment[index & (SOURCE_SEGMENT - 1)] = conn.src_next
            conn.src_next = None
            self.count -= 1
            return 0
        while at is not None:
            if at.src_next is conn:
                at.src_next = conn.src_next
                conn.src_next = None
                self.count -= 1
                return 0
            at = at.src_next
        return 0


def _same(a: Tuple, b: Tuple) -> cython.bint:
    """Linux: same_src."""
    return (
        a.src_lo == b.src_lo
        and a.sport == b.sport
        and a.l4proto == b.l4proto
        and a.l3num == b.l3num
        and a.zone == b.zone
        and a.src_hi == b.src_hi
    )
