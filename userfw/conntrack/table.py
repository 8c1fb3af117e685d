"""The connection table: both tuples of every confirmed connection, found in one hash lookup; its timer wheel; its listeners.

Laws:
- Linear hashing: the table grows and shrinks by one bucket at a time, so no packet ever waits for a resize.
- Both nodes enter (`insert`) or neither; `destroy` takes out both, breaks every reference cycle and tells everybody once.
- An expired connection is never found; it is destroyed where it is met, or by `reap(budget)`.
- Listeners `f(events, conn)` are called from `deliver` (after the packet's last hook) and `destroy`; without listeners events
  cost a test of one flag.
- Zones apply to a direction; a lookup under a zone that applies to one direction only tries both (Linux: resolve_normal_ct).
"""

from collections.abc import Callable
from random import Random
from typing import Any

import cython

if not cython.compiled:
    from userfw.conntrack.conn import Conn, Tuple, TupleNode, copy_tuple, same_tuple
    from userfw.conntrack.const import (
        CT_EVENT_DESTROY,
        CT_EVENT_HELPER,
        CT_EVENT_LABEL,
        CT_EVENT_MARK,
        CT_EVENT_NEW,
        CT_EVENT_PROTOINFO,
        CT_EVENT_RELATED,
        CT_EVENT_SECMARK,
        IPS_NAT_CLASH,
        TCP_CLOSE,
        TCP_FIN_WAIT,
    )
    from userfw.conntrack.expect import ExpectTable
    from userfw.conntrack.settings import Settings
    from userfw.conntrack.steer import Steering
    from userfw.conntrack.tuples import hash_tuple, invert
    from userfw.conntrack.wheel import Wheel
    from userfw.core.ahead import AHEAD
    from userfw.core.clock import Clock
    from userfw.core.const import (
        CT_DIR_ORIGINAL,
        CT_DIR_REPLY,
        IPPROTO_TCP,
        IPS_ASSURED,
        IPS_CONFIRMED,
        IPS_DYING,
        IPS_FIXED_TIMEOUT,
        IPS_HELPER,
        IPS_HW_OFFLOAD,
        IPS_OFFLOAD,
        IPS_SRC_NAT,
        IPS_TEMPLATE,
        NSEC_PER_SEC,
    )
    from userfw.core.packet import Packet

    SEGMENT, SEGMENT_SHIFT = 1024, 10
    OFFLOAD_GRACE = 86400 * 1000000000


class ConnObserver:
    """Another room that keeps something per connection; register with `ConnTable.observe`."""

    def confirmed(self, conn: Conn) -> cython.int:
        """`conn` has entered the table and carries a source mapping (IPS_SRC_NAT)."""
        return 0

    def destroyed(self, conn: Conn) -> cython.int:
        """`conn` has left the table and carries a NAT mapping (IPS_SRC_NAT) or a flow (`conn.flow`): forget it."""
        return 0


class Stats:
    """Counters, named as in `conntrack -S`. `delete` counts connections removed for any reason."""

    def __init__(self) -> None:
        self.found = self.invalid = self.insert = self.insert_failed = self.drop = 0
        self.early_drop = self.clash_resolve = self.expired = self.delete = 0


class ConnTable:
    """All confirmed connections. `count`: how many; `buckets`: hash chains at the moment.

    `steering`: which of several workers this table belongs to, None if it is the only one. Identifiers go up by `id_step`.
    """

    def __init__(self, clock: Clock, settings: Settings | None = None, rng: Random | None = None) -> None:
        self.clock = clock
        self.settings = settings if settings is not None else Settings()
        self.rng = rng if rng is not None else Random(1)
        self.k0 = self.rng.getrandbits(64)
        self.k1 = self.rng.getrandbits(64)
        self.expects = ExpectTable(self.settings, self.k0, self.k1)
        self.stats = Stats()
        self.wheel = Wheel(clock.now)
        self.directory: list[Any] = [[None] * SEGMENT]
        self.mask = SEGMENT - 1
        self.split = 0
        self.buckets = SEGMENT
        self.count = 0
        self.last_id = 0
        self.id_step = 1
        self.steering: Steering | None = None
        self.listeners: list[Callable[[int, Conn], None]] = []
        self.observers: list[ConnObserver] = []
        self.listening = False
        self.scratch = Tuple()
        self.keys = [Tuple() for _ in range(AHEAD)]

    def __del__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Take every connection out without telling anybody (the end of the table)."""
        node: TupleNode | None
        following: TupleNode | None
        segment: list[Any]
        for segment in self.directory:
            for i in range(len(segment)):
                node = segment[i]
                segment[i] = None
                while node is not None:
                    following = node.next
                    node.next = None
                    if node.conn is not None:
                        node.conn.flow = None
                        node.conn.src_next = None
                        node.conn.expectations = None
                        node.conn = None
                    node = following
        self.count = 0
        self.wheel = Wheel(self.clock.now)

    # -- lookup

    def rehash(self, key: Tuple) -> cython.uint:
        """Fill and return `key.hash`."""
        key.hash = hash_tuple(key, self.k0, self.k1)
        return key.hash

    def find(self, key: Tuple) -> TupleNode | None:
        """The node of the live connection whose tuple `key` is (zone included), or None. Fills `key.hash`."""
        key.hash = hash_tuple(key, self.k0, self.k1)
        return self._walk(key)

    def find_ahead(self, key: Tuple, ahead: cython.Py_ssize_t) -> TupleNode | None:
        """As `find`, for a packet that `conntrack.ahead` has looked at: if `keys[ahead]` is the same tuple, its hash is good."""
        if ahead >= 0:
            seen: Tuple = self.keys[ahead]
            if same_tuple(seen, key):
                key.hash = seen.hash
                return self._walk(key)
        return self.find(key)

    def _index(self, hash: cython.uint) -> cython.Py_ssize_t:
        i: cython.Py_ssize_t = hash & self.mask
        if i < self.split:
            i = hash & (self.mask * 2 + 1)
        return i

    def _head(self, index: cython.Py_ssize_t) -> TupleNode | None:
        segment: list[Any] = self.directory[index >> SEGMENT_SHIFT]
        node: TupleNode | None = segment[index & (SEGMENT - 1)]
        return node

    def _walk(self, key: Tuple) -> TupleNode | None:
        node: TupleNode | None = self._head(self._index(key.hash))
        conn: Conn
        while node is not None:
            if node.hash == key.hash and same_tuple(node, key):
                conn = node.conn
                if conn.timeout > self.clock.now or conn.status & IPS_OFFLOAD:
                    return node
                self.stats.expired += 1
                self.destroy(conn)
                return None
            node = node.next
        return None

    def taken(self, key: Tuple, ignored: Conn) -> cython.bint:
        """Whether packets of `key` belong to a connection other than `ignored` (Linux: nf_conntrack_tuple_taken).

        One with the same original tuple does not count: it is the same flow, racing; confirmation sorts it out.
        """
        node: TupleNode | None = self.find(key)
        if node is None or node.conn is ignored:
            return False
        return not same_tuple(node.conn.orig, ignored.orig)

    def members(self, base: cython.Py_ssize_t, mask: cython.Py_ssize_t) -> list[Conn]:
        """Live connections whose original tuple's hash is `base` under `mask` (2**n - 1): a slice of the table that growing
        does not disturb."""
        result: list[Any] = []
        node: TupleNode | None
        index: cython.Py_ssize_t = base if base < self.buckets else self._index(base)
        while index < self.buckets:
            node = self._head(index)
            while node is not None:
                if node.dir == CT_DIR_ORIGINAL and (node.hash & mask) == base and node.conn.timeout > self.clock.now:
                    result.append(node.conn)
                node = node.next
            index += mask + 1
        return result

    # -- chains

    def _link(self, node: TupleNode) -> cython.int:
        index: cython.Py_ssize_t = self._index(node.hash)
        segment: list[Any] = self.directory[index >> SEGMENT_SHIFT]
        node.next = segment[index & (SEGMENT - 1)]
        segment[index & (SEGMENT - 1)] = node
        return 0

    def _unlink(self, node: TupleNode) -> cython.int:
        index: cython.Py_ssize_t = self._index(node.hash)
        segment: list[Any] = self.directory[index >> SEGMENT_SHIFT]
        at: TupleNode | None = segment[index & (SEGMENT - 1)]
        if at is node:
            segment[index & (SEGMENT - 1)] = node.next
            node.next = None
            return 0
        while at is not None:
            if at.next is node:
                at.next = node.next
                node.next = None
                return 0
            at = at.next
        return 0

    def _grow(self) -> cython.int:
        """Split one bucket."""
        if self.buckets & (SEGMENT - 1) == 0 and (self.buckets >> SEGMENT_SHIFT) == len(self.directory):
            self.directory.append([None] * SEGMENT)
        segment: list[Any] = self.directory[self.split >> SEGMENT_SHIFT]
        node: TupleNode | None = segment[self.split & (SEGMENT - 1)]
        segment[self.split & (SEGMENT - 1)] = None
        self.split += 1
        self.buckets += 1
        if self.split > self.mask:
            self.mask = self.mask * 2 + 1
            self.split = 0
        following: TupleNode | None
        while node is not None:
            following = node.next
            self._link(node)
            node = following
        return 0

    def _shrink(self) -> cython.int:
        """Join the last bucket to the one it was split from."""
        if self.split == 0:
            self.mask >>= 1
            self.split = self.mask + 1
        self.split -= 1
        self.buckets -= 1
        segment: list[Any] = self.directory[self.buckets >> SEGMENT_SHIFT]
        node: TupleNode | None = segment[self.buckets & (SEGMENT - 1)]
        segment[self.buckets & (SEGMENT - 1)] = None
        following: TupleNode | None
        while node is not None:
            following = node.next
            self._link(node)
            node = following
        if self.buckets & (SEGMENT - 1) == 0 and len(self.directory) > (self.buckets >> SEGMENT_SHIFT) + 1:
            self.directory.pop()
        return 0

    # -- life of a connection

    def new(self, orig: Tuple, zone: cython.int, zone_dir: cython.int) -> Conn | None:
        """An unconfirmed connection for packets of `orig`, or None if such packets have no answers. Linux: init_conntrack."""
        conn: Conn
        if cython.compiled:
            conn = Conn.__new__(Conn)
            conn.orig = TupleNode.__new__(TupleNode)
            conn.reply = TupleNode.__new__(TupleNode)
        else:
            conn = Conn()
        copy_tuple(conn.orig, orig)
        if not invert(orig, conn.reply):
            return None
        conn.reply.dir = CT_DIR_REPLY
        conn.zone = zone
        conn.zone_dir = zone_dir
        conn.orig.zone = zone if zone_dir & 1 else 0
        conn.reply.zone = zone if zone_dir & 2 else 0
        self.last_id += self.id_step
        if self.last_id > 0x7FFFFFFF:
            self.last_id = self.last_id % self.id_step + self.id_step
        conn.id = self.last_id
        conn.start = self.clock.now
        return conn

    def template(self, zone: cython.int, zone_dir: cython.int) -> Conn:
        """What `ct zone set` hangs on a packet before conntrack sees it: `pkt.ct` with IPS_TEMPLATE. `zone_dir`: bit 0
        original, bit 1 reply."""
        conn: Conn = Conn()
        conn.orig = TupleNode()
        conn.reply = TupleNode()
        conn.status = IPS_TEMPLATE | IPS_CONFIRMED
        conn.zone = zone
        conn.zone_dir = zone_dir
        return conn

    def insert(self, conn: Conn) -> Conn | None:
        """Confirm: both tuples enter, or the connection that already has one of them is returned. Linux:
        __nf_conntrack_confirm."""
        node: TupleNode | None
        # the NAT room may have changed `reply`; hashes are computed here, once
        node = self._rival(conn, self.find(conn.orig))
        if node is None:
            node = self._rival(conn, self.find(conn.reply))
        if node is not None:
            self.stats.insert_failed += 1
            winner: Conn = node.conn
            return winner
        conn.orig.conn = conn
        conn.reply.conn = conn
        conn.status |= IPS_CONFIRMED
        self._link(conn.orig)
        self._link(conn.reply)
        self.count += 1
        while self.buckets < self.count * 2:
            self._grow()
        self.wheel.add(conn, conn.timeout)
        self.stats.insert += 1
        if conn.status & IPS_SRC_NAT:
            for observer in self.observers:
                observer.confirmed(conn)
        if self.steering is not None and not (self.steering.ours(conn.orig) and self.steering.ours(conn.reply)):
            self.steering.strayed(conn)
        if self.listening:
            conn.events |= CT_EVENT_RELATED if conn.master is not None else CT_EVENT_NEW
            if conn.helper is not None:
                conn.events |= CT_EVENT_HELPER
        return None

    def _rival(self, conn: Conn, node: TupleNode | None) -> TupleNode | None:
        """`node` if `conn`'s zone is its zone in the direction of `node` (Linux: nf_ct_key_equal)."""
        if node is None or conn.zone == 0 or conn.zone_dir == 3:
            return node
        return node if node.zone == (conn.orig.zone if node.dir == CT_DIR_ORIGINAL else conn.reply.zone) else None

    def insert_reply(self, conn: Conn) -> cython.bint:
        """Lost to a connection with the same original tuple: answers find `conn` for a second, nothing else does. False if they
        would find another. Linux: nf_ct_resolve_clash_harder."""
        if self._rival(conn, self.find(conn.reply)) is not None:
            return False
        conn.orig.conn = conn
        conn.reply.conn = conn
        conn.status |= IPS_CONFIRMED | IPS_FIXED_TIMEOUT | IPS_NAT_CLASH
        conn.timeout = self.clock.now + NSEC_PER_SEC
        self._link(conn.reply)
        self.count += 1
        self.wheel.add(conn, conn.timeout)
        return True

    def destroy(self, conn: Conn) -> cython.int:
        """Take `conn` out (Linux: nf_ct_delete); unconfirmed or already destroyed ones are only marked."""
        if not conn.status & IPS_CONFIRMED or conn.status & IPS_DYING:
            conn.status |= IPS_DYING
            return 0
        conn.status |= IPS_DYING
        self._unlink(conn.orig)
        self._unlink(conn.reply)
        self.wheel.remove(conn)
        self.count -= 1
        self.stats.delete += 1
        if self.buckets > SEGMENT and self.buckets > self.count * 6:
            self._shrink()
            self._shrink()
            self._shrink()
            self._shrink()
        if conn.helper_data is not None and conn.helper is not None:
            conn.helper.ended(self, conn)
        if conn.expectations is not None:
            self.expects.forget_master(conn)
        if self.listening:
            self._tell(conn, CT_EVENT_DESTROY)
        if conn.status & IPS_SRC_NAT or conn.flow is not None:
            for observer in self.observers:
                observer.destroyed(conn)
        conn.flow = None
        conn.master = None
        conn.src_next = None
        conn.orig.conn = None
        conn.reply.conn = None
        return 0

    def refresh(self, conn: Conn, timeout: cython.ulonglong) -> cython.int:
        """The connection lives `timeout` ns from now (Linux: nf_ct_refresh)."""
        if conn.status & IPS_FIXED_TIMEOUT:
            return 0
        conn.timeout = self.clock.now + timeout
        if (conn.timeout >> 28) + 1 < conn.wheel_tick:
            self.wheel.move(conn, conn.timeout)
        return 0

    def set_closing(self, conn: Conn) -> cython.int:
        """A reset was sent in a rule's name: a TCP connection that is in the table is over (Linux: nf_conntrack_set_closing)."""
        before: cython.int = conn.state
        if conn.orig.l4proto != IPPROTO_TCP or not conn.status & IPS_CONFIRMED:
            return 0
        conn.state = TCP_CLOSE
        if before == TCP_CLOSE or conn.status & IPS_FIXED_TIMEOUT:
            return 0
        self.refresh(conn, conn.policy.t[TCP_CLOSE] if conn.policy is not None else self.settings.t[TCP_CLOSE])
        if self.listening:
            conn.events |= CT_EVENT_PROTOINFO
        return 0

    def account(self, conn: Conn, direction: cython.int, pkt: Packet) -> cython.int:
        """Count `pkt` for one direction; bytes of the network layer."""
        if self.settings.acct:
            conn.packets[direction] += 1
            conn.bytes[direction] += pkt.end - pkt.l3
        return 0

    def room(self, hash: cython.uint) -> cython.bint:
        """Whether one more connection fits, if need be by evicting one near `hash` that has not proved itself.

        Linux: early_drop looks at 8 chains for a connection that is not assured; its worker evicts closing TCP connections
        when nearly full.
        """
        if self.count < self.settings.max:
            return True
        node: TupleNode | None
        conn: Conn
        closing: Conn | None = None
        index: cython.Py_ssize_t = self._index(hash)
        for _ in range(8):
            node = self._head(index)
            while node is not None:
                conn = node.conn
                if conn.status & (IPS_ASSURED | IPS_OFFLOAD) == 0 or conn.timeout <= self.clock.now:
                    self.stats.early_drop += 1
                    self.destroy(conn)
                    return True
                if conn.orig.l4proto == IPPROTO_TCP and TCP_FIN_WAIT <= conn.state <= TCP_CLOSE:
                    closing = conn
                node = node.next
            index += 1
            if index >= self.buckets:
                index = 0
        if closing is not None:
            self.stats.early_drop += 1
            self.destroy(closing)
            return True
        return False

    # -- what rules and users change

    def set_mark(self, conn: Conn, mark: cython.uint) -> cython.int:
        """`ct mark set`."""
        if conn.mark != mark:
            conn.mark = mark
            if self.listening:
                conn.events |= CT_EVENT_MARK
        return 0

    def set_secmark(self, conn: Conn, secmark: cython.uint) -> cython.int:
        """`ct secmark set`."""
        if conn.secmark != secmark:
            conn.secmark = secmark
            if self.listening:
                conn.events |= CT_EVENT_SECMARK
        return 0

    def set_labels(self, conn: Conn, hi: cython.ulonglong, lo: cython.ulonglong) -> cython.int:
        """`ct label set`: all 128 bits; bit n of the label is bit n of hi << 64 | lo."""
        if conn.labels_hi != hi or conn.labels_lo != lo:
            conn.labels_hi = hi
            conn.labels_lo = lo
            if self.listening:
                conn.events |= CT_EVENT_LABEL
        return 0

    def set_helper(self, conn: Conn, helper: object) -> cython.int:
        """`ct helper set`, a helper.Helper; on unconfirmed connections only, as Linux."""
        if not conn.status & IPS_CONFIRMED:
            conn.helper = helper
            conn.status |= IPS_HELPER
        return 0

    # -- listeners

    def listen(self, listener: "Callable[[int, Conn], None]") -> None:
        """Call `listener(events, conn)` for every change from now on; it reads what it needs at once and changes nothing."""
        self.listeners.append(listener)
        self.listening = True

    def unlisten(self, listener: "Callable[[int, Conn], None]") -> None:
        """The reverse of `listen`."""
        self.listeners.remove(listener)
        self.listening = bool(self.listeners)

    def observe(self, observer: ConnObserver) -> None:
        """Tell `observer` of the end of connections it has a part in."""
        self.observers.append(observer)

    def deliver(self, conn: Conn) -> cython.int:
        """Tell listeners what happened to `conn` since the last time (Linux: nf_ct_deliver_cached_events)."""
        events: cython.uint = conn.events
        conn.events = 0
        if events and conn.status & IPS_CONFIRMED and self.settings.events:
            self._tell(conn, events)
        return 0

    def _tell(self, conn: Conn, events: cython.uint) -> cython.int:
        """All of `events` if any of them is in the connection's mask (Linux: nf_conntrack_eventmask_report; `ct event set`)."""
        if conn.ext is not None and not events & conn.ext.get("event_mask", events):
            return 0
        for listener in self.listeners:
            listener(events, conn)
        return 0

    # -- reaping

    def reap(self, budget: cython.int) -> cython.int:
        """Look at no more than `budget` connections that may have expired, destroy those that have; how many were looked at.

        Fewer than `budget` means: nothing more to do now.
        """
        done: cython.int = 0
        conn: Conn | None
        now: cython.ulonglong = self.clock.now
        while done < budget:
            conn = self.wheel.pop(now)
            if conn is None:
                if self.expects.count:
                    self.expects.reap(now)
                for _ in range(256):
                    if self.buckets <= SEGMENT or self.buckets <= self.count * 6:
                        break
                    self._shrink()
                break
            done += 1
            if conn.timeout > now:
                continue
            if conn.status & (IPS_OFFLOAD | IPS_HW_OFFLOAD):
                # the flowtable ages it (Linux: nf_ct_offload_timeout)
                conn.timeout = now + OFFLOAD_GRACE
                self.wheel.add(conn, conn.timeout)
                continue
            self.stats.expired += 1
            self.destroy(conn)
        return done

    def next_deadline(self) -> cython.ulonglong:
        """When `reap` next has something to do, ns of the clock; 2**63 - 1 if never."""
        due: cython.ulonglong = self.wheel.next_deadline()
        other: cython.ulonglong = self.expects.next_deadline()
        return due if due < other else other
