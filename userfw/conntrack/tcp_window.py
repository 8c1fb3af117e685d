"""TCP windows: whether a segment lies within what both ends allow, and what it teaches (Linux: tcp_in_window of 6.18).

Laws:
- Sequence numbers are compared modulo 2**32; windows are in bytes, after scaling.
- A segment outside is INVALID if its sequence or acknowledgement is ahead of what can be (somebody guesses), or passes unlearnt
  if it is behind (somebody repeats). It moves nothing, but for a slight excess whose acknowledgement will come.

The window of a direction (G. van Rooij, "Real stateful TCP packet filtering in IP Filter"): `td_end` highest sequence sent + 1,
`td_maxend` highest sequence the receiver allowed, `td_maxwin` largest window it ever offered, `td_maxack` highest
acknowledgement sent.
"""

import cython

if not cython.compiled:
    from userfw.conntrack.conn import U32_MASK, Conn, ack_offset
    from userfw.conntrack.const import (
        TCP_EV_ACK,
        TCP_EV_NONE,
        TCP_F_BE_LIBERAL,
        TCP_F_DATA_UNACKNOWLEDGED,
        TCP_F_MAXACK_SET,
        TCP_F_SACK_PERM,
        TCP_F_WINDOW_SCALE,
        TCP_SYN_RECV,
        TCP_SYN_SENT,
    )
    from userfw.conntrack.settings import Settings
    from userfw.core.const import CT_DIR_REPLY, TCP_ACK, TCP_RST, TCP_SYN
    from userfw.core.packet import Packet
    from userfw.wire.options import next_option

    WINDOW_OK, WINDOW_IGNORE, WINDOW_INVALID = 0, 1, 2
    MAX_ACK_WINDOW = 66000


def before(a: cython.uint, b: cython.uint) -> cython.bint:
    """Whether sequence number `a` comes before `b`."""
    distance: cython.uint = (a - b) & U32_MASK
    return distance >> 31 != 0


class Windows:
    """The segment in hand, and the windows of the connection that it belongs to; `tcp.Tcp` fills the fields."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.l4 = self.header_end = 0
        self.seq = self.ack = self.sack = self.end = self.win = self.raw_win = 0
        self.flags = 0
        self.event = TCP_EV_NONE

    def in_window(self, pkt: Packet, conn: Conn, direction: cython.int) -> cython.int:
        """Whether the segment lies within both windows, and what it teaches (Linux: tcp_in_window). WINDOW_*."""
        other: cython.int = 1 - direction
        offset: cython.int = ack_offset(conn.seqadj, other, self.ack) if conn.seqadj is not None else 0
        self.win = self.raw_win
        self.sack = self.ack
        if conn.td_flags[other] & TCP_F_SACK_PERM and self.header_end > self.l4 + 20:
            self._sack_edge(pkt, conn, direction)
        self.ack = (self.ack - offset) & U32_MASK
        self.sack = (self.sack - offset) & U32_MASK

        if conn.td_maxwin[direction] == 0:
            if self.flags & TCP_SYN:
                self._init_sender(pkt, conn, direction)
                if not self.flags & TCP_ACK:
                    return WINDOW_OK
            else:
                self._pick_up_sender(conn, direction)
        elif (
            self.flags & TCP_SYN
            and before(conn.td_end[direction], self.end)
            and (conn.state == TCP_SYN_SENT or conn.state == TCP_SYN_RECV)
        ):
            # another attempt with another initial sequence number
            self._init_sender(pkt, conn, direction)
            if direction == CT_DIR_REPLY and not self.flags & TCP_ACK:
                return WINDOW_OK

        if not self.flags & TCP_ACK or (self.flags & TCP_RST and self.ack == 0):
            # no acknowledgement, or a stack that sets the flag without one
            self.ack = self.sack = conn.td_end[other]
        if self.flags & TCP_RST and self.seq == 0 and conn.state == TCP_SYN_SENT:
            self.seq = self.end = conn.td_end[direction]

        result: cython.int = WINDOW_OK
        ack_window: cython.uint = conn.td_maxwin[direction]
        if ack_window < MAX_ACK_WINDOW:
            ack_window = MAX_ACK_WINDOW
        ack_low: cython.bint = not before((conn.td_end[other] - ack_window - 1) & U32_MASK, self.sack)
        if not before(self.seq, (conn.td_maxend[direction] + 1) & U32_MASK):
            result = self._beyond(conn, direction, not ack_low)
        elif not before(self.sack, (conn.td_end[other] + 1) & U32_MASK):
            result = self._outside(conn, direction, WINDOW_INVALID)
        elif (conn.td_maxwin[other] and not before(
            (conn.td_end[direction] - conn.td_maxwin[other] - 1) & U32_MASK, self.end
        )) or ack_low:
            return self._outside(conn, direction, WINDOW_IGNORE)
        else:
            return self._learn(conn, direction)
        return result

    def _outside(self, conn: Conn, direction: cython.int, result: cython.int) -> cython.int:
        """`result`, unless this connection or all are to be judged liberally."""
        if conn.td_flags[direction] & TCP_F_BE_LIBERAL or self.settings.tcp_be_liberal:
            return WINDOW_OK
        return result

    def _beyond(self, conn: Conn, direction: cython.int, ack_ok: cython.bint) -> cython.int:
        """More data than the receiver's window allows: INVALID, but remember a slight excess, for its acknowledgement will
        come."""
        other: cython.int = 1 - direction
        window: cython.uint = conn.td_maxwin[other]
        overshot: cython.uint = (self.end - conn.td_maxend[direction] + 1) & U32_MASK
        in_receive: cython.bint = window != 0 and before((conn.td_end[direction] - window - 1) & U32_MASK, self.end)
        if (
            in_receive
            and ack_ok
            and overshot <= window
            and before(self.sack, (conn.td_end[other] + 1) & U32_MASK)
        ):
            conn.td_end[direction] = self.end
            conn.td_flags[direction] |= TCP_F_DATA_UNACKNOWLEDGED
            return self._outside(conn, direction, WINDOW_IGNORE)
        return self._outside(conn, direction, WINDOW_INVALID)

    def _learn(self, conn: Conn, direction: cython.int) -> cython.int:
        """The segment is in the windows: move them."""
        other: cython.int = 1 - direction
        win: cython.uint = self.win
        if not self.flags & TCP_SYN:
            win = win << conn.td_scale[direction]
        reach: cython.uint = (win + self.sack - self.ack) & U32_MASK
        if conn.td_maxwin[direction] < reach:
            conn.td_maxwin[direction] = reach
        if before(conn.td_end[direction], self.end):
            conn.td_end[direction] = self.end
            conn.td_flags[direction] |= TCP_F_DATA_UNACKNOWLEDGED
        if self.flags & TCP_ACK:
            if not conn.td_flags[direction] & TCP_F_MAXACK_SET:
                conn.td_maxack[direction] = self.ack
                conn.td_flags[direction] |= TCP_F_MAXACK_SET
            elif before(conn.td_maxack[direction], self.ack):
                conn.td_maxack[direction] = self.ack

        if conn.td_maxwin[other] != 0 and before(conn.td_maxend[direction], self.end):
            conn.td_maxwin[other] = (conn.td_maxwin[other] + self.end - conn.td_maxend[direction]) & U32_MASK
        allowed: cython.uint = (self.sack + win) & U32_MASK
        if not before(allowed, conn.td_maxend[other]):
            conn.td_maxend[other] = (allowed + 1) & U32_MASK if win == 0 else allowed
        if self.ack == conn.td_end[other]:
            conn.td_flags[other] &= ~TCP_F_DATA_UNACKNOWLEDGED & 0xFF

        if self.event == TCP_EV_ACK:
            if (
                conn.last_dir == direction
                and conn.last_seq == self.seq
                and conn.last_ack == self.ack
                and conn.last_end == self.end
                and conn.last_win == self.raw_win
            ):
                if conn.retrans < 255:
                    conn.retrans += 1
            else:
                conn.last_dir = direction
                conn.last_seq = self.seq
                conn.last_ack = self.ack
                conn.last_end = self.end
                conn.last_win = self.raw_win
                conn.retrans = 0
        return WINDOW_OK

    def _init_sender(self, pkt: Packet, conn: Conn, direction: cython.int) -> cython.int:
        """A SYN opens the sender's window. Scaling holds only if both sides offer it (RFC 7323 2.2)."""
        conn.td_end[direction] = self.end
        conn.td_maxend[direction] = self.end
        conn.td_maxwin[direction] = self.win if self.win else 1
        self.syn_options(pkt, conn, direction)
        if direction == CT_DIR_REPLY and not (conn.td_flags[0] & conn.td_flags[1] & TCP_F_WINDOW_SCALE):
            conn.td_scale[0] = 0
            conn.td_scale[1] = 0
        return 0

    def _pick_up_sender(self, conn: Conn, direction: cython.int) -> cython.int:
        """In the middle of a connection whose history is unknown: take the segment's word."""
        other: cython.int = 1 - direction
        window: cython.uint = self.win << conn.td_scale[direction]
        conn.td_end[direction] = self.end
        conn.td_maxwin[direction] = window if window else 1
        conn.td_maxend[direction] = (self.end + conn.td_maxwin[direction]) & U32_MASK
        if conn.td_maxwin[other] == 0:
            conn.td_end[other] = self.sack
            conn.td_maxend[other] = self.sack
        elif self.sack == (conn.td_end[other] + 1) & U32_MASK:
            # probably the answer to a keepalive
            conn.td_end[other] = self.sack
        return 0

    def midstream(self, conn: Conn) -> cython.int:
        """Forget the windows and believe what comes next: after a time in the flowtable (Linux: flow_offload_fixup_tcp) or a
        restore."""
        i: cython.int
        for i in range(2):
            conn.td_maxwin[i] = 0
        return 0

    # -- options

    def syn_options(self, pkt: Packet, conn: Conn, direction: cython.int) -> cython.int:
        """Window scale and SACK-permitted of a SYN, into td_scale and td_flags."""
        at: cython.Py_ssize_t = self.l4 + 20
        end: cython.Py_ssize_t = self.header_end
        kind: cython.uint
        size: cython.uint
        if at == end:
            return 0  # a SYN without any options takes nothing back (Linux: tcp_options)
        conn.td_scale[direction] = 0
        conn.td_flags[direction] &= TCP_F_BE_LIBERAL
        at = next_option(pkt, at, end)
        while at >= 0:
            kind = pkt.get8(at)
            size = pkt.get8(at + 1)
            if kind == 4 and size == 2:
                conn.td_flags[direction] |= TCP_F_SACK_PERM
            elif kind == 3 and size == 3:
                scale: cython.uint = pkt.get8(at + 2)
                conn.td_scale[direction] = scale if scale < 14 else 14
                conn.td_flags[direction] |= TCP_F_WINDOW_SCALE
            at = next_option(pkt, at + size, end)
        return 0

    def _sack_edge(self, pkt: Packet, conn: Conn, direction: cython.int) -> cython.int:
        """Raise `sack` to the highest right edge of the SACK blocks (RFC 2018), as the sender's peer counts."""
        at: cython.Py_ssize_t = self.l4 + 20
        end: cython.Py_ssize_t = self.header_end
        size: cython.uint
        block: cython.uint
        edge: cython.uint
        if end == at + 12 and pkt.get32(at) == 0x0101080A:
            return 0  # only a timestamp, the usual case
        at = next_option(pkt, at, end)
        while at >= 0:
            size = pkt.get8(at + 1)
            if pkt.get8(at) == 5 and size >= 10 and (size - 2) % 8 == 0:
                for block in range(2, size, 8):
                    edge = pkt.get32(at + block + 4)
                    if before(self.sack, edge):
                        self.sack = edge
                return 0
            at = next_option(pkt, at + size, end)
        return 0
