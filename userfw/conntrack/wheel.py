"""The timer wheel: which connection may have expired, without ever walking them all.

Three levels of 256 slots; a tick is 2**28 ns (268 ms), so the levels span 69 seconds, 5 hours and 52 days. Laws:
- `Conn.timeout` is the truth. A connection's slot is never later than its deadline, but may be earlier: packets push the deadline
  without touching the wheel, and a connection found too early is put back (`pop` does so).
- Every operation is O(1); `pop` handles one connection, so the caller's budget bounds the time spent, cascades included.
"""

from typing import Any

import cython

if not cython.compiled:
    from userfw.conntrack.conn import U32_MASK, Conn

    TICK_SHIFT = 28
    NEVER = 0x7FFFFFFFFFFFFFFF


class Wheel:
    """Connections by the tick at which to look at them again. `cursor`: the tick reached; `soonest`: no work before this tick."""

    def __init__(self, now: cython.ulonglong) -> None:
        self.slots: list[Any] = [[] for _ in range(768)]
        self.cursor = now >> TICK_SHIFT
        self.soonest = U32_MASK
        self.size = 0

    def add(self, conn: Conn, deadline: cython.ulonglong) -> cython.int:
        """Put `conn` where it is found at the first tick not before `deadline` (ns)."""
        tick: cython.uint = (deadline >> TICK_SHIFT) + 1
        if tick < self.cursor:
            tick = self.cursor
        delta: cython.uint = tick - self.cursor
        slot: cython.uint
        due: cython.uint
        if delta < 256:
            slot = tick & 255
            due = tick
        elif delta < 65536:
            slot = 256 + ((tick >> 8) & 255)
            due = (tick >> 8) << 8
        else:
            if delta >= 0xFF0000:
                tick = self.cursor + 0xFEFFFF
            slot = 512 + ((tick >> 16) & 255)
            due = (tick >> 16) << 16
        members: list[Any] = self.slots[slot]
        conn.wheel_tick = tick
        conn.wheel_slot = slot
        conn.wheel_pos = len(members)
        members.append(conn)
        self.size += 1
        if due < self.soonest:
            self.soonest = due
        return 0

    def remove(self, conn: Conn) -> cython.int:
        """Take `conn` out, if it is in."""
        if conn.wheel_tick == 0:
            return 0
        members: list[Any] = self.slots[conn.wheel_slot]
        last: Conn = members.pop()
        if last is not conn:
            members[conn.wheel_pos] = last
            last.wheel_pos = conn.wheel_pos
        conn.wheel_tick = 0
        self.size -= 1
        return 0

    def move(self, conn: Conn, deadline: cython.ulonglong) -> cython.int:
        """The deadline of `conn` came nearer: find it earlier."""
        if conn.wheel_tick != 0 and (deadline >> TICK_SHIFT) + 1 < conn.wheel_tick:
            self.remove(conn)
            self.add(conn, deadline)
        return 0

    def pop(self, now: cython.ulonglong) -> Conn | None:
        """The next connection whose deadline has passed, taken out; one that has been put back instead; None: nothing due.

        The caller compares `conn.timeout` with `now` to know which.
        """
        target: cython.uint = now >> TICK_SHIFT
        members: list[Any]
        conn: Conn
        while self.soonest <= target:
            if self.cursor < self.soonest:
                self.cursor = self.soonest
            if self.cursor & 255 == 0:
                if self.cursor & 65535 == 0:
                    members = self.slots[512 + ((self.cursor >> 16) & 255)]
                    if members:
                        conn = members[len(members) - 1]
                        self.remove(conn)
                        self.add(conn, conn.timeout)
                        return conn
                members = self.slots[256 + ((self.cursor >> 8) & 255)]
                if members:
                    conn = members[len(members) - 1]
                    self.remove(conn)
                    if conn.timeout > now:
                        self.add(conn, conn.timeout)
                    return conn
            members = self.slots[self.cursor & 255]
            if members:
                conn = members[len(members) - 1]
                self.remove(conn)
                if conn.timeout > now:
                    self.add(conn, conn.timeout)
                return conn
            self._seek()
        if self.cursor < target:
            self.cursor = target
        return None

    def _seek(self) -> cython.int:
        """Set `soonest` to the next tick after `cursor` at which some slot has members."""
        tick: cython.uint = self.cursor
        members: list[Any]
        if self.size == 0:
            self.soonest = U32_MASK
            return 0
        for _ in range(256):
            tick += 1
            if tick & 255 == 0:
                # a cascade may be due here; if not, it costs one look
                self.soonest = tick
                return 0
            members = self.slots[tick & 255]
            if members:
                self.soonest = tick
                return 0
        self.soonest = tick
        return 0

    def next_deadline(self) -> cython.ulonglong:
        """When `pop` next has something to do, ns; 2**63 - 1 if never."""
        if self.size == 0:
            return NEVER
        due: cython.ulonglong = self.soonest
        return due << TICK_SHIFT
