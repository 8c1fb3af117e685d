"""Set: what all sets and maps share; subclasses index keys (hash, interval, ranges).

Laws:
- `find` and the packet-path methods take the key from registers; nothing is allocated for a lookup.
- The control plane changes a set within a transaction: `begin`, `add`/`remove`/`flush`, then `commit` (cannot fail) or `rollback`
  (puts everything back). Both ends happen between two batches of packets.
- Ranges are closed: `key` to `key_end` inclusive, each field of a concatenation by itself.
- Several sets of elements may overlap only where Linux allows it; SetError carries Linux's errno name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import cython

from userfw.core.clock import Clock
from userfw.engine.sets.elements import Element

if not cython.compiled:
    from userfw.core.const import NFT_BREAK, NFT_CONTINUE
    from userfw.core.packet import Packet
    from userfw.engine.context import Context
    from userfw.engine.expr import Expr
    from userfw.engine.sets.elements import Rich, Store, Verdict

DATA_NONE, DATA_VALUE, DATA_VERDICT, DATA_OBJECT = range(4)


class SetError(Exception):
    """An element cannot be added or removed. `errno`: Linux's name (EEXIST, ENOENT, EBUSY, ENFILE, ENOTEMPTY, EINVAL)."""

    def __init__(self, errno: str, text: str) -> None:
        super().__init__(f"{text} ({errno})")
        self.errno = errno


class Set:
    """One named or anonymous set.

    - `klen`: bytes of a key; `fields`: for a concatenation the (offset, length) of each field in the key, each padded to 4 bytes.
    - `data_type`: DATA_NONE (set), DATA_VALUE of `dlen` bytes, DATA_VERDICT, DATA_OBJECT. `flags`: SET_*.
    - `timeout`: ns given to elements without one of their own (0: none); `size`: most elements (0: no limit); `exprs`: stateful
      expressions of which every element gets its own copy.
    """

    def __init__(
        self,
        name: str,
        klen: int,
        clock: Clock,
        flags: int = 0,
        dlen: int = 0,
        data_type: int = DATA_NONE,
        fields: tuple[tuple[int, int], ...] = (),
        timeout: int = 0,
        size: int = 0,
        exprs: tuple[Expr, ...] = (),
        table: str = "",
        ranged: bool = False,
    ) -> None:
        if not 1 <= klen <= 64:
            raise ValueError(f"a key has 1 to 64 bytes, not {klen}")
        if data_type == DATA_VALUE and not 1 <= dlen <= 64:
            raise ValueError(f"data has 1 to 64 bytes, not {dlen}")
        self.name = name
        self.table = table
        self.flags = flags
        self.klen = klen
        self.dlen = dlen if data_type == DATA_VALUE else 0
        self.data_type = data_type
        self.fields = fields or ((0, klen),)
        self.clock = clock
        self.timeout = timeout
        self.gc_interval = 0
        self.size = size
        self.handle = 0
        self.owner: Any = None
        self.comment: Any = None
        self.sharing: Any = None  # engine.shared.Sharing, where several processes have this set
        self.exprs = exprs
        self.store = Store(klen, self.dlen, ranged)
        self.catchall = -1
        self.hand = 0
        self.journal: list[Any] | None = None
        self.scratch = bytearray(64)

    # what indexes implement

    def seek(self, regs: bytearray, src: cython.int) -> cython.Py_ssize_t:
        """The element that holds the key at `src`, expired or not; -1 if none."""
        raise NotImplementedError

    def index(self, id: cython.Py_ssize_t) -> cython.int:
        """Enter element `id`, whose key is stored."""
        raise NotImplementedError

    def unindex(self, id: cython.Py_ssize_t) -> cython.int:
        """Take out element `id`."""
        raise NotImplementedError

    def clear_index(self) -> cython.int:
        """Take out all elements."""
        raise NotImplementedError

    def match(self, key: bytes, end: bytes) -> cython.Py_ssize_t:
        """The element with exactly this key (and end), or -1."""
        self.scratch[: self.klen] = key
        return self.seek(self.scratch, 0)

    def overlap(self, key: bytes, end: bytes) -> cython.Py_ssize_t:
        """An element that overlaps `key` to `end`, or -1."""
        return self.match(key, end)

    # the packet path

    def find(self, regs: bytearray, src: cython.int) -> cython.Py_ssize_t:
        """The live element for the key at `src` (or the catch-all), or -1."""
        id: cython.Py_ssize_t = self.seek(regs, src)
        if id >= 0 and (not self.store.timed or self.store.alive(id, self.clock.now)):
            return id
        id = self.catchall
        if id >= 0 and self.store.alive(id, self.clock.now):
            return id
        return -1

    def contains(self, regs: bytearray, src: cython.int) -> cython.bint:
        """Whether `find` finds one."""
        return self.find(regs, src) >= 0

    def rich(self, id: cython.Py_ssize_t) -> Rich:
        """What element `id` has beyond key and data, or None."""
        return self.store.rich_of(id)

    def run_exprs(self, id: cython.Py_ssize_t, ctx: Context, pkt: Packet) -> cython.int:
        """The element's stateful expressions: NFT_BREAK if one breaks, another verdict if one gave it (Linux:
        nft_set_elem_update_expr)."""
        rich: Rich | None = self.store.rich_of(id)
        if rich is None:
            return NFT_CONTINUE
        i: cython.int
        verdict: cython.int
        result: cython.int = NFT_CONTINUE
        for i in range(rich.count):
            verdict = cython.cast(Expr, rich.exprs[i]).evaluate(ctx, pkt)
            if verdict == NFT_BREAK:
                return NFT_BREAK
            if verdict != NFT_CONTINUE:
                result = verdict
        return result

    def obtain(
        self, regs: bytearray, src: cython.int, data_src: cython.int, lifetime: cython.ulonglong, exprs: Any
    ) -> cython.Py_ssize_t:
        """The live element of the key at `src`, made if absent (Linux: nft_dynset_new); -1 if the set is full."""
        store: Store = self.store
        id: cython.Py_ssize_t = self.seek(regs, src)
        if id >= 0:
            if store.alive(id, self.clock.now):
                return id
            self._drop(id)
        limit: cython.Py_ssize_t = self.size if self.size else 0xFFFF
        if store.count - (self.catchall >= 0) >= limit:
            self.sweep(128)
            if store.count - (self.catchall >= 0) >= limit:
                return -1
        id = store.allocate()
        store.put_register_key(id, regs, src)
        if data_src >= 0 and self.dlen:
            store.put_register_data(id, regs, data_src)
        if lifetime == 0:
            lifetime = self.timeout
        if lifetime:
            store.put_time(id, lifetime, self.clock.now + lifetime)
        if exprs:
            fresh: tuple[Expr, ...] = _fresh(exprs)
            store.put_rich(id, Rich(fresh))
            if self.sharing is not None:
                self.sharing.element(fresh, bytes(regs[src : src + self.klen]))
        self.index(id)
        if self.journal is not None:
            self.journal.append(("added", id))
        return id

    def renew(self, id: cython.Py_ssize_t, lifetime: cython.ulonglong) -> cython.int:
        """Start the lifetime of an element with a timeout again; `lifetime` 0: the set's default (Linux: NFT_DYNSET_OP_UPDATE)."""
        if self.store.lifetime_of(id) == 0:
            return 0
        if lifetime == 0:
            lifetime = self.timeout
        if lifetime:
            self.store.put_time(id, self.store.lifetime_of(id), self.clock.now + lifetime)
        return 0

    def forget(self, regs: bytearray, src: cython.int) -> cython.int:
        """Remove the element of the key at `src`, if there is one."""
        id: cython.Py_ssize_t = self.seek(regs, src)
        if id >= 0:
            self._drop(id)
        return 0

    def sweep(self, budget: cython.Py_ssize_t) -> cython.int:
        """Look at up to `budget` ids and remove the expired; returns how many went."""
        store: Store = self.store
        removed: cython.int = 0
        if not store.timed or self.journal is not None:
            return 0
        if budget > store.top:
            budget = store.top
        while budget > 0:
            budget -= 1
            if self.hand >= store.top:
                self.hand = 0
            if store.live[self.hand] and not store.alive(self.hand, self.clock.now):
                self._drop(self.hand)
                removed += 1
            self.hand += 1
        return removed

    def _drop(self, id: cython.Py_ssize_t) -> cython.int:
        if self.journal is not None:
            self.journal.append(("removed", self._copy(id), self.store.rich_of(id), self.store.deadline_of(id)))
        if id == self.catchall:
            self.catchall = -1
        else:
            self.unindex(id)
        self.store.release(id)
        return 0

    # the control plane

    def add(
        self,
        key: bytes | None,
        key_end: bytes | None = None,
        data: Any = None,
        timeout: int | None = None,
        expires: int | None = None,
        exprs: tuple[Expr, ...] | None = None,
        comment: Any = None,
        userdata: Any = None,
        flags: int = 0,
        exclusive: bool = False,
    ) -> bool:
        """Add one element; True if it is new, False if it was there already (then a given timeout is taken over).

        `key` None: the catch-all. `timeout` in ns (None: the set's; 0: lives for ever); `expires`: ns left, None: all of it.
        `exprs` None:
        copies of the set's own. SetError: EEXIST (there, and `exclusive`; or overlaps), EBUSY (there with other data), ENFILE
        (full),
        ENOTEMPTY (overlaps in part, ranges in concatenations), EINVAL.
        """
        end = key if key_end is None else key_end
        self._check(key, end, data)
        id = self._present(key, end)
        if id >= 0:
            if exclusive:
                raise SetError("EEXIST", f"element exists in {self.name}")
            if self.data_type != DATA_NONE and self._data(id) != data:
                raise SetError("EBUSY", f"element exists in {self.name} with other data")
            if timeout is not None:
                self._retime(id, timeout, expires)
            return False
        if self.size and self.store.count - (self.catchall >= 0) >= self.size:
            self.sweep(self.store.top)
            if self.store.count - (self.catchall >= 0) >= self.size:
                raise SetError("ENFILE", f"set {self.name} is full")
        rich = Rich(
            _fresh(self.exprs) if exprs is None else tuple(exprs),
            data if self.data_type == DATA_VERDICT else None,
            data if self.data_type == DATA_OBJECT else None,
            comment,
            userdata,
            flags,
        )
        lifetime = self.timeout if timeout is None else timeout
        self._enter(key, end, data, lifetime, lifetime if expires is None else expires, rich)
        return True

    def load(self, elements: Iterable[Element]) -> int:
        """Add many; returns how many were new. Subclasses do it in one go where the set was empty."""
        return sum(
            self.add(
                e.key, e.key_end, e.data, e.timeout or None, e.expires or None, e.exprs or None, e.comment, e.userdata, e.flags
            )
            for e in elements
        )

    def remove(self, key: bytes | None, key_end: bytes | None = None, missing_ok: bool = False) -> bool:
        """Remove one element (None: the catch-all). SetError ENOENT if it is not there, unless `missing_ok`."""
        id = self._present(key, key if key_end is None else key_end, exact=True)
        if id < 0:
            if missing_ok:
                return False
            raise SetError("ENOENT", f"no such element in {self.name}")
        self._drop(id)
        return True

    def get(self, key: bytes | None, key_end: bytes | None = None) -> Element | None:
        """The element of exactly this key or range; with only a `key`, the element that contains it."""
        if key is None:
            id = self.catchall
        elif key_end is None:
            self.scratch[: self.klen] = key
            id = self.seek(self.scratch, 0)
        else:
            id = self.match(key, key_end)
        if id < 0 or not self.store.alive(id, self.clock.now):
            return None
        return self._copy(id)

    def __iter__(self) -> Iterator[Element]:
        """Copies of all live elements, by id."""
        for id in range(self.store.top):
            if self.store.live[id] and self.store.alive(id, self.clock.now):
                yield self._copy(id)

    def __len__(self) -> int:
        return self.store.count

    def flush(self) -> None:
        """Remove everything (also undone by `rollback`)."""
        if self.journal is not None:
            self.journal.append(("flushed", self.store, self.catchall))
        self.store = Store(self.klen, self.dlen, self.store.ranged)
        self.catchall = -1
        self.hand = 0
        self.clear_index()

    def reset(self) -> None:
        """Reset the elements' stateful expressions."""
        for id in range(self.store.top):
            rich = self.store.rich_of(id)
            for expr in rich.exprs if rich is not None else ():
                expr.reset()

    def targets(self) -> Iterator[tuple[Any, int]]:
        """Chains that a verdict map leads to, with 1 for jump and 0 for goto."""
        if self.data_type == DATA_VERDICT:
            for id in range(self.store.top):
                rich = self.store.rich_of(id)
                if rich is not None and rich.verdict is not None and rich.verdict.target is not None:
                    yield rich.verdict.target, int(rich.verdict.code == -3)

    # large changes: made to a copy, slice by slice while packets use this one, and taken over in one go

    def fork(self) -> Set:
        """A copy to change; counters and other state of elements is shared with this one."""
        other: Set = type(self)(
            self.name, self.klen, self.clock, flags=self.flags, dlen=self.dlen, data_type=self.data_type, fields=self.fields,
            timeout=self.timeout, size=self.size, exprs=self.exprs, table=self.table,
        )  # fmt: skip
        other.sharing = self.sharing
        other.store = self.store.copy()
        other.catchall = self.catchall
        other.take_index(self, True)
        return other

    def adopt(self, other: Set) -> None:
        """Hold what `other`, a changed copy of this set that nobody else uses, holds. Takes the time of a few assignments."""
        self.store = other.store
        self.catchall = other.catchall
        self.hand = 0
        self.take_index(other, False)

    def take_index(self, other: Set, copied: cython.bint) -> cython.int:
        """The index of `other` (of the same class), its arrays copied or as they are."""
        raise NotImplementedError

    def begin_change(self) -> None:
        """`take_out` and `put_in` follow, in this order, and then `settle`; lookups are undefined in between."""

    def take_out(self, elements: list[Element]) -> None:
        """Remove some elements; those that are not there are passed over."""
        e: Element
        for e in elements:
            self.remove(e.key, e.key_end, True)

    def put_in(self, elements: list[Element]) -> None:
        """Enter some elements that are known to be new and to overlap nothing."""
        e: Element
        for e in elements:
            rich = None
            if e.exprs or self.exprs or self.data_type >= DATA_VERDICT or e.comment or e.userdata or e.flags:
                rich = self._rich_for(e)
            lifetime = e.timeout or self.timeout
            self._enter(e.key, e.key if e.key_end is None else e.key_end, e.data, lifetime, e.expires or lifetime, rich)

    def put_columns(self, lows: bytearray, highs: bytearray, at: int, count: int, swapped: bool) -> list[int]:
        """Enter up to `count` plain keys, one behind the other in `lows` (ends in `highs`; empty: single keys), from number `at`
        on, ascending for intervals. Returns the numbers of those that are there already; -1 first if one overlaps
        something else: then nothing was entered. `swapped`: the columns have the highest byte first, keys the lowest."""
        known: list[int] = []
        klen: cython.int = self.klen
        number: cython.Py_ssize_t
        first: cython.Py_ssize_t = at
        stop: cython.Py_ssize_t = min(first + count, len(lows) // klen)
        store: Store = self.store
        id: cython.Py_ssize_t
        i: cython.int
        turned: cython.bint = swapped
        for number in range(first, stop):
            for i in range(klen):
                self.scratch[i] = lows[number * klen + (klen - 1 - i if turned else i)]
            id = self.seek(self.scratch, 0)
            if id >= 0 and store.alive(id, self.clock.now):
                known.append(number)
                continue
            if id >= 0:
                self._drop(id)
            id = store.allocate()
            store.put_register_key(id, self.scratch, 0)
            self.index(id)
        return known

    def columns(self, at: int, count: int) -> tuple[bytearray, bytearray]:
        """Keys and ends of up to `count` ids from `at` on, as they lie in the store; ends empty if the set has no ranges."""
        store: Store = self.store
        keys = bytearray()
        klen: cython.int = self.klen
        id: cython.Py_ssize_t
        first: cython.Py_ssize_t = at
        for id in range(first, min(first + count, store.top)):
            if store.live[id]:
                keys += store.keys[id * klen : (id + 1) * klen]
        return keys, bytearray()

    @property
    def plain(self) -> bool:
        """Whether the elements are nothing but keys."""
        return self.catchall < 0 and not self.store.timed and not self.store.rich_count

    @property
    def extent(self) -> int:
        """Where `columns` ends."""
        return self.store.top

    def overlapping(self, key: bytes, end: bytes) -> Element | None:
        """The last element that shares a value with `key` to `end`."""
        id: cython.Py_ssize_t = self.overlap(key, end)
        return self._copy(id) if id >= 0 else None

    def settle(self, budget: int) -> bool:
        """Bring up to `budget` entries of the index in order; True when all are."""
        return True

    def _rich_for(self, e: Element) -> Any:
        return Rich(
            tuple(e.exprs) or _fresh(self.exprs),
            e.data if self.data_type == DATA_VERDICT else None,
            e.data if self.data_type == DATA_OBJECT else None,
            e.comment,
            e.userdata,
            e.flags,
        )

    # transactions

    def begin(self) -> None:
        """Remember what follows, so that it can be undone."""
        if self.journal is None:
            self.journal = []

    def commit(self) -> None:
        """Keep everything since `begin`."""
        self.journal = None

    def rollback(self) -> None:
        """Undo everything since `begin`, last change first."""
        journal, self.journal = self.journal or [], None
        for entry in reversed(journal):
            if entry[0] == "added":
                self._drop(entry[1])
            elif entry[0] == "removed":
                e: Element = entry[1]
                self._enter(e.key, e.key if e.key_end is None else e.key_end, e.data, e.timeout, 0, entry[2], entry[3])
            elif entry[0] == "retimed":
                self.store.put_time(entry[1], entry[2], entry[3])
            else:
                self.store, self.catchall = entry[1], entry[2]
                self.clear_index()
                for id in range(self.store.top):
                    if self.store.live[id] and id != self.catchall:
                        self.index(id)

    # inside

    def _check(self, key: bytes | None, end: bytes | None, data: Any) -> None:
        if key is not None and end is not None:
            if len(key) != self.klen or len(end) != self.klen:
                raise SetError("EINVAL", f"keys of {self.name} have {self.klen} bytes")
            if key != end and not self.store.ranged:
                raise SetError("EINVAL", f"{self.name} holds no ranges")
            for offset, length in self.fields:
                if key[offset : offset + length] > end[offset : offset + length]:
                    raise SetError("EINVAL", "Range negative size")
        if self.data_type == DATA_VALUE and (not isinstance(data, bytes) or len(data) != self.dlen):
            raise SetError("EINVAL", f"data of {self.name} has {self.dlen} bytes")
        if self.data_type == DATA_VERDICT and not isinstance(data, Verdict):
            raise SetError("EINVAL", f"{self.name} maps to verdicts")
        if (self.data_type == DATA_NONE) != (data is None):
            raise SetError("EINVAL", f"{self.name}: data missing or not wanted")

    def _present(self, key: bytes | None, end: bytes | None, exact: bool = False) -> int:
        """The live element with this key, or -1; expired ones in the way are removed. SetError for a forbidden overlap."""
        while True:
            id: int
            if key is None or end is None:
                id = self.catchall
            else:
                id = self.match(key, end)
                if id < 0 and not exact:
                    id = self.overlap(key, end)
            if id < 0:
                return -1
            if self.store.alive(id, self.clock.now):
                break
            self._drop(id)
        if key is not None and not exact and self._copy(id).key is not None:
            found = self._copy(id)
            if found.key != key or (found.key if found.key_end is None else found.key_end) != end:
                errno = "ENOTEMPTY" if len(self.fields) > 1 else "EEXIST"
                raise SetError(errno, f"interval overlaps with an existing one in {self.name}")
        return id

    def _enter(
        self, key: bytes | None, end: bytes | None, data: Any, lifetime: int, expires: int, rich: Any, deadline: int = -1
    ) -> None:
        id = self.store.allocate()
        if self.dlen:
            self.store.put_data(id, data)
        if lifetime:
            self.store.put_time(id, lifetime, self.clock.now + expires if deadline < 0 else deadline)
        if rich is not None and (
            rich.count
            or rich.verdict is not None
            or rich.object is not None
            or rich.comment is not None
            or rich.userdata is not None
            or rich.flags
        ):
            self.store.put_rich(id, rich)
        if key is None or end is None:
            self.catchall = id
        else:
            self.store.put_key(id, key, end)
            self.index(id)
        if self.journal is not None:
            self.journal.append(("added", id))

    def _retime(self, id: int, timeout: int, expires: int | None) -> None:
        if self.journal is not None:
            self.journal.append(("retimed", id, self.store.lifetime_of(id), self.store.deadline_of(id)))
        left = timeout if expires is None else expires
        self.store.put_time(id, timeout, self.clock.now + left if timeout else 0)

    def _data(self, id: int) -> Any:
        if self.data_type == DATA_VALUE:
            return bytes(self.store.data[id * self.dlen : (id + 1) * self.dlen])
        rich = self.store.rich_of(id)
        if self.data_type == DATA_NONE or rich is None:
            return None
        return rich.verdict if self.data_type == DATA_VERDICT else rich.object

    def _copy(self, id: int) -> Element:
        at = id * self.klen
        key = end = None
        if id != self.catchall:
            key = bytes(self.store.keys[at : at + self.klen])
            if self.store.ranged:
                end = bytes(self.store.ends[at : at + self.klen])
        rich = self.store.rich_of(id)
        deadline = self.store.deadline_of(id)
        return Element(
            key,
            None if end == key else end,
            self._data(id),
            self.store.lifetime_of(id),
            max(deadline - self.clock.now, 0) if deadline else 0,
            rich.exprs if rich is not None else (),
            rich.comment if rich is not None else None,
            rich.userdata if rich is not None else None,
            rich.flags if rich is not None else 0,
        )


def _fresh(exprs: tuple[Expr, ...]) -> tuple[Expr, ...]:
    return tuple(expr.clone() for expr in exprs)
