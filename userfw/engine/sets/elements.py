"""Elements of sets as columns: element number `id` has its key at `id * klen`, its data at `id * dlen`, and so on.

Laws:
- A plain element costs its key, its data and one byte. Columns for timeouts exist once an element has one; a Rich object
  (expressions, verdict, named object, comment) exists for elements that have any of these.
- An id is stable for the life of the element and reused after it.
- An element past its deadline is dead for every lookup; it is removed when somebody meets it or by `Set.sweep`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import cython

if not cython.compiled:
    from userfw.engine.const import U32_MASK
    from userfw.engine.expr import Expr


class Verdict:
    """Data of a verdict map: `code` NF_ACCEPT, NF_DROP or NFT_*; `chain` and `target` (engine.chain.Chain) for jump and goto."""

    def __init__(self, code: int, chain: str = "", target: Any = None) -> None:
        self.code = code
        self.chain = chain
        self.target = target

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Verdict) and (self.code, self.chain) == (other.code, other.chain)

    def __hash__(self) -> int:
        return hash((self.code, self.chain))

    def __repr__(self) -> str:
        return f"Verdict({self.code}, {self.chain!r})"


class Rich:
    """What few elements have: stateful expressions, a verdict, a named object, comment, userdata."""

    def __init__(
        self,
        exprs: tuple[Expr, ...] = (),
        verdict: Verdict | None = None,
        object: Any = None,
        comment: Any = None,
        userdata: Any = None,
        flags: int = 0,
    ) -> None:
        self.exprs = exprs
        self.count = len(exprs)
        self.verdict = verdict
        self.object = object
        self.comment = comment
        self.userdata = userdata
        self.flags = flags


@dataclass(slots=True, unsafe_hash=True)
class Element:
    """A copy of one element, never changed, for listings and transactions. `key_end` is inclusive (None: one key); `key` None: the
    catch-all.

    `data`: bytes, a Verdict, a named object, or None. `timeout`: lifetime in ns (0: forever); `expires`: ns left, 0 if it never
    dies.
    """

    key: bytes | None
    key_end: bytes | None = None
    data: Any = None
    timeout: int = 0
    expires: int = 0
    exprs: tuple[Any, ...] = field(default=(), compare=False)
    comment: Any = None
    userdata: Any = None
    flags: int = 0


def load32(column: bytearray, at: cython.Py_ssize_t) -> cython.uint:
    """The 32-bit number at byte `at`."""
    lo: cython.uint = column[at] | (column[at + 1] << 8)
    hi: cython.uint = column[at + 2] | (column[at + 3] << 8)
    return lo | (hi << 16)


def store32(column: bytearray, at: cython.Py_ssize_t, value: cython.uint) -> cython.int:
    """Write a 32-bit number at byte `at`."""
    column[at] = value & 0xFF
    column[at + 1] = (value >> 8) & 0xFF
    column[at + 2] = (value >> 16) & 0xFF
    column[at + 3] = (value >> 24) & 0xFF
    return 0


def load64(column: bytearray, at: cython.Py_ssize_t) -> cython.ulonglong:
    """The 64-bit number at byte `at`."""
    lo: cython.ulonglong = load32(column, at)
    hi: cython.ulonglong = load32(column, at + 4)
    return lo | (hi << 32)


def store64(column: bytearray, at: cython.Py_ssize_t, value: cython.ulonglong) -> cython.int:
    """Write a 64-bit number at byte `at`."""
    store32(column, at, value & U32_MASK)
    store32(column, at + 4, (value >> 32) & U32_MASK)
    return 0


class Store:
    """The columns. `count`: elements alive in the index, `top`: ids ever used."""

    def __init__(self, klen: int, dlen: int, ranged: bool) -> None:
        self.klen = klen
        self.dlen = dlen
        self.ranged = ranged
        self.count = 0
        self.top = 0
        self.capacity = 0
        self.keys = bytearray()
        self.ends = bytearray()
        self.data = bytearray()
        self.live = bytearray()
        self.deadline = bytearray()
        self.lifetime = bytearray()
        self.rich: list[Rich | None] = []
        self.free: list[int] = []
        self.timed = False
        self.rich_count = 0
        self.expr_count = 0

    def copy(self) -> Store:
        """Columns of their own; the Rich objects (counters and the like) are shared."""
        other: Store = Store(self.klen, self.dlen, self.ranged)
        other.count = self.count
        other.top = self.top
        other.capacity = self.capacity
        other.keys = bytearray(self.keys)
        other.ends = bytearray(self.ends)
        other.data = bytearray(self.data)
        other.live = bytearray(self.live)
        other.deadline = bytearray(self.deadline)
        other.lifetime = bytearray(self.lifetime)
        other.rich = list(self.rich)
        other.free = list(self.free)
        other.timed = self.timed
        other.rich_count = self.rich_count
        other.expr_count = self.expr_count
        return other

    def allocate(self) -> cython.Py_ssize_t:
        """A fresh id; columns grow by half."""
        id: cython.Py_ssize_t
        self.count += 1
        if self.free:
            id = self.free.pop()
            self.live[id] = 1
            return id
        id = self.top
        if id == self.capacity:
            more: cython.Py_ssize_t = self.capacity // 2 + 16
            self.capacity += more
            self.keys.extend(bytes(more * self.klen))
            self.live.extend(bytes(more))
            if self.ranged:
                self.ends.extend(bytes(more * self.klen))
            if self.dlen:
                self.data.extend(bytes(more * self.dlen))
            if self.timed:
                self.deadline.extend(bytes(more * 8))
                self.lifetime.extend(bytes(more * 8))
            if self.rich:
                self.rich.extend([None] * more)
        self.top += 1
        self.live[id] = 1
        return id

    def release(self, id: cython.Py_ssize_t) -> cython.int:
        """Forget element `id`."""
        self.put_rich(id, None)
        if self.timed:
            store64(self.deadline, id * 8, 0)
            store64(self.lifetime, id * 8, 0)
        self.live[id] = 0
        self.count -= 1
        self.free.append(id)
        return 0

    def put_key(self, id: cython.Py_ssize_t, key: bytes, end: bytes) -> cython.int:
        """Key of `id`, and the inclusive end of its range."""
        at: cython.Py_ssize_t = id * self.klen
        self.keys[at : at + self.klen] = key
        if self.ranged:
            self.ends[at : at + self.klen] = end
        return 0

    def put_register_key(self, id: cython.Py_ssize_t, regs: bytearray, src: cython.int) -> cython.int:
        """Key of `id` from registers."""
        at: cython.Py_ssize_t = id * self.klen
        i: cython.int
        for i in range(self.klen):
            self.keys[at + i] = regs[src + i]
            if self.ranged:
                self.ends[at + i] = regs[src + i]
        return 0

    def put_register_data(self, id: cython.Py_ssize_t, regs: bytearray, src: cython.int) -> cython.int:
        """Data of `id` from registers."""
        at: cython.Py_ssize_t = id * self.dlen
        i: cython.int
        for i in range(self.dlen):
            self.data[at + i] = regs[src + i]
        return 0

    def put_data(self, id: cython.Py_ssize_t, data: bytes) -> cython.int:
        """Data of `id`."""
        at: cython.Py_ssize_t = id * self.dlen
        self.data[at : at + self.dlen] = data
        return 0

    def put_time(self, id: cython.Py_ssize_t, lifetime: cython.ulonglong, deadline: cython.ulonglong) -> cython.int:
        """Lifetime (ns) and deadline (ns of the clock) of `id`; zeros: forever."""
        if not self.timed:
            if not deadline and not lifetime:
                return 0
            self.timed = True
            self.deadline = bytearray(self.capacity * 8)
            self.lifetime = bytearray(self.capacity * 8)
        store64(self.deadline, id * 8, deadline)
        store64(self.lifetime, id * 8, lifetime)
        return 0

    def put_rich(self, id: cython.Py_ssize_t, rich: Rich | None) -> cython.int:
        """The Rich of `id`, or None."""
        if not self.rich:
            if rich is None:
                return 0
            self.rich = [None] * self.capacity
        old: Rich | None = self.rich[id]
        if old is not None:
            self.rich_count -= 1
            self.expr_count -= old.count
        if rich is not None:
            self.rich_count += 1
            self.expr_count += rich.count
        self.rich[id] = rich
        return 0

    def same_key(self, id: cython.Py_ssize_t, regs: bytearray, src: cython.int) -> cython.bint:
        """Whether the key of `id` equals the register bytes at `src`."""
        at: cython.Py_ssize_t = id * self.klen
        keys: bytearray = self.keys
        i: cython.int
        for i in range(self.klen):  # noqa: SIM110 - a generator would cost an allocation
            if keys[at + i] != regs[src + i]:
                return False
        return True

    def alive(self, id: cython.Py_ssize_t, now: cython.ulonglong) -> cython.bint:
        """Whether `id` has not expired."""
        if not self.timed:
            return True
        deadline: cython.ulonglong = load64(self.deadline, id * 8)
        return deadline == 0 or now < deadline

    def deadline_of(self, id: cython.Py_ssize_t) -> cython.ulonglong:
        """Deadline in ns of the clock, 0: never."""
        return load64(self.deadline, id * 8) if self.timed else 0

    def lifetime_of(self, id: cython.Py_ssize_t) -> cython.ulonglong:
        """Lifetime in ns, 0: forever."""
        return load64(self.lifetime, id * 8) if self.timed else 0

    def rich_of(self, id: cython.Py_ssize_t) -> Rich:
        """The Rich of `id`, or None."""
        return self.rich[id] if self.rich else None  # type: ignore[return-value]

    def copy_data(self, id: cython.Py_ssize_t, regs: bytearray, dst: cython.int) -> cython.int:
        """Data of `id` into registers; the rest of the last word becomes zero."""
        at: cython.Py_ssize_t = id * self.dlen
        i: cython.int
        for i in range(self.dlen):
            regs[dst + i] = self.data[at + i]
        i = self.dlen
        while i & 3:
            regs[dst + i] = 0
            i += 1
        return 0
