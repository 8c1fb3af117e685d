"""Expectations: connections that a helper has announced, like FTP's data connection (Linux: nf_conntrack_expect).

Laws: the destination of an expected tuple is exact, its source is compared under a mask. An expectation serves one connection,
then it is
gone (unless permanent). It dies with its master. A helper's class limits how many a master may have: the oldest makes room.
"""

from typing import Any

import cython

if not cython.compiled:
    from userfw.conntrack.conn import Conn, Tuple
    from userfw.conntrack.const import EXPECT_INACTIVE
    from userfw.conntrack.settings import Settings
    from userfw.conntrack.tuples import hash_words
    from userfw.conntrack.wheel import NEVER
    from userfw.core.const import IPS_CONFIRMED

    EXPECT_BUCKETS = 1024


class Expectation:
    """A connection to come.

    - `tuple`: its original tuple; `mask_hi`, `mask_lo`, `mask_sport`: which bits of the source count (0: any).
    - `master`: the connection that announced it; `helper`: the helper which did; `klass`: index into the helper's limits.
    - `assign_helper`: helper that the new connection gets, or None. `flags`: EXPECT_*; `deadline`: ns.
    - `expectfn(conn, expectation)`: called with the new unconfirmed connection (NAT sets it). `dir`: direction of the packet
      that announced it.
    - `saved_*`: the destination before NAT changed it.
    """

    def __init__(self, master: Conn, tuple: Tuple) -> None:
        self.tuple = tuple
        self.mask_hi = 0
        self.mask_lo = 0
        self.mask_sport = 0
        self.deadline = 0
        self.master: Any = master
        self.helper: Any = None
        self.assign_helper: Any = None
        self.expectfn: Any = None
        self.flags = 0
        self.klass = 0
        self.dir = 0
        self.saved_hi = 0
        self.saved_lo = 0
        self.saved_port = 0
        self.linked = False


class ExpectTable:
    """All expectations, found by destination. `count`: how many. `gre_keys`: call ids of PPTP's calls.

    `observer`: None, or who tells other workers: `clashes(expectation)`, `added(expectation)`, `removed(expectation)`.
    """

    def __init__(self, settings: Settings, k0: cython.ulonglong, k1: cython.ulonglong) -> None:
        self.settings = settings
        self.buckets: list[Any] = [[] for _ in range(EXPECT_BUCKETS)]
        self.count = 0
        self.k0 = k0
        self.k1 = k1
        self.gre_keys: dict[Any, Any] = {}
        self.observer: Any = None

    def _bucket(self, key: Tuple) -> list[Any]:
        word: cython.ulonglong = key.dport
        word = (word << 8) | key.l4proto
        word = (word << 8) | key.l3num
        bucket: list[Any] = self.buckets[hash_words(self.k1, self.k0, key.dst_hi, key.dst_lo, word) & (EXPECT_BUCKETS - 1)]
        return bucket

    def find(self, key: Tuple, now: cython.ulonglong) -> Expectation | None:
        """The active expectation that the new connection `key` fulfils, or None (Linux: nf_ct_find_expectation, less its
        removal)."""
        if self.count == 0:
            return None
        members: list[Any] = self._bucket(key)
        e: Expectation
        t: Tuple
        i: cython.Py_ssize_t
        for i in range(len(members)):
            e = members[i]
            t = e.tuple
            if (
                t.dst_lo == key.dst_lo
                and t.dst_hi == key.dst_hi
                and t.dport == key.dport
                and t.l4proto == key.l4proto
                and t.l3num == key.l3num
                and t.zone == key.zone
                and (t.src_lo ^ key.src_lo) & e.mask_lo == 0
                and (t.src_hi ^ key.src_hi) & e.mask_hi == 0
                and (t.sport ^ key.sport) & e.mask_sport == 0
                and not e.flags & EXPECT_INACTIVE
                and e.deadline > now
                and cython.cast(Conn, e.master).status & IPS_CONFIRMED
            ):
                return e
        return None

    def add(self, expectation: Expectation, now: cython.ulonglong, shared: cython.bint = False) -> cython.int:
        """Link `expectation`; 0, -1 if it clashes with another's, -2 at a limit, -3 if its master has announced an equal one of
        another class (Linux: nf_ct_expect_related).

        An equal one of the same master and class is replaced; the oldest of a full class makes room. With `shared`, an equal
        one of any master gives -3 (NF_CT_EXP_F_SKIP_MASTER).
        """
        master: Conn = expectation.master
        members: list[Any] = self._bucket(expectation.tuple)
        other: Expectation
        for other in list(members):
            if not _overlaps(expectation, other):
                continue
            if other.master is not master and not other.master.status & IPS_CONFIRMED:
                self.remove(other)  # its first packet was dropped (Linux: nf_ct_destroy)
                continue
            if not (shared or other.master is master) or not _equal(expectation, other):
                return -1
            if other.master is not master or other.klass != expectation.klass:
                return -3
            self.remove(other)
            break
        limit: Any = expectation.helper.limits(expectation.klass) if expectation.helper is not None else (0, 0)
        allowed: cython.int
        seconds: cython.ulonglong
        allowed, seconds = limit
        if allowed and master.expectations is not None:
            mine: list[Any] = [x for x in master.expectations if x.klass == expectation.klass and x.helper is expectation.helper]
            if len(mine) >= allowed:
                self.remove(mine[0])
        if self.count >= self.settings.expect_max:
            return -2
        if self.observer is not None and self.observer.clashes(expectation):
            return -1
        if expectation.deadline == 0:
            expectation.deadline = now + (seconds or 300) * 1000000000
        expectation.linked = True
        members.append(expectation)
        if master.expectations is None:
            master.expectations = []
        master.expectations.append(expectation)
        self.count += 1
        if self.observer is not None:
            self.observer.added(expectation)
        return 0

    def remove(self, expectation: Expectation) -> cython.int:
        """Unlink, if linked (Linux: nf_ct_unexpect_related)."""
        if not expectation.linked:
            return 0
        expectation.linked = False
        if self.observer is not None:
            self.observer.removed(expectation)
        self._bucket(expectation.tuple).remove(expectation)
        master: Conn = expectation.master
        if master is not None and master.expectations is not None:
            master.expectations.remove(expectation)
            if not master.expectations:
                master.expectations = None
        self.count -= 1
        return 0

    def forget_master(self, master: Conn) -> cython.int:
        """`master` ends: so do its expectations (Linux: nf_ct_remove_expectations)."""
        if master.expectations is None:
            return 0
        for expectation in list(master.expectations):
            self.remove(expectation)
            expectation.master = None
        return 0

    def add_gre_key(self, master: Conn, key: Tuple) -> None:
        """Enhanced GRE packets that look like `key` come from its `sport`, which they do not carry (Linux:
        nf_ct_gre_keymap_add)."""
        self.gre_keys[_gre_index(key)] = (key.sport, master)

    def remove_gre_keys(self, master: Conn) -> None:
        """Forget the keys that `master` announced (Linux: nf_ct_gre_keymap_destroy)."""
        self.gre_keys = {index: value for index, value in self.gre_keys.items() if value[1] is not master}

    def gre_source(self, key: Tuple) -> cython.int:
        """The source key of enhanced GRE packets that look like `key`; 0: not known (Linux: gre_keymap_lookup)."""
        found: Any = self.gre_keys.get(_gre_index(key))
        return 0 if found is None else found[0]

    def entries(self) -> list[Expectation]:
        """All expectations (`userfw conntrack -L expect`)."""
        return [e for members in self.buckets for e in members]

    def next_deadline(self) -> cython.ulonglong:
        """The earliest deadline, ns; 2**63 - 1 if there is none."""
        soonest: cython.ulonglong = NEVER
        if self.count:
            for e in self.entries():
                if e.deadline < soonest:
                    soonest = e.deadline
        return soonest

    def reap(self, now: cython.ulonglong) -> cython.int:
        """Remove what has expired; how many that were."""
        gone: cython.int = 0
        if self.count:
            for e in self.entries():
                if e.deadline <= now:
                    self.remove(e)
                    gone += 1
        return gone


def _gre_index(key: Tuple) -> tuple[int, int, int, int, int, int]:
    return key.l3num, key.src_hi, key.src_lo, key.dst_hi, key.dst_lo, key.dport


def _equal(a: Expectation, b: Expectation) -> bool:
    return (
        (a.mask_hi, a.mask_lo, a.mask_sport) == (b.mask_hi, b.mask_lo, b.mask_sport)
        and (a.tuple.src_hi, a.tuple.src_lo, a.tuple.sport) == (b.tuple.src_hi, b.tuple.src_lo, b.tuple.sport)
        and (a.tuple.dst_hi, a.tuple.dst_lo, a.tuple.dport) == (b.tuple.dst_hi, b.tuple.dst_lo, b.tuple.dport)
        and (a.tuple.l3num, a.tuple.l4proto, a.tuple.zone) == (b.tuple.l3num, b.tuple.l4proto, b.tuple.zone)
    )


def _overlaps(a: Expectation, b: Expectation) -> bool:
    """Whether some packet could fulfil both (Linux: expect_clash)."""
    lo: int = a.mask_lo & b.mask_lo
    hi: int = a.mask_hi & b.mask_hi
    port: int = a.mask_sport & b.mask_sport
    return (
        (a.tuple.dst_hi, a.tuple.dst_lo, a.tuple.dport) == (b.tuple.dst_hi, b.tuple.dst_lo, b.tuple.dport)
        and (a.tuple.l3num, a.tuple.l4proto, a.tuple.zone) == (b.tuple.l3num, b.tuple.l4proto, b.tuple.zone)
        and (a.tuple.src_lo ^ b.tuple.src_lo) & lo == 0
        and (a.tuple.src_hi ^ b.tuple.src_hi) & hi == 0
        and (a.tuple.sport ^ b.tuple.sport) & port == 0
    )
