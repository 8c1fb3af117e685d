"""TCP: what happens to a segment, and window tracking (Linux: nf_conntrack_proto_tcp.c of 6.18).

Laws:
- The table of tcp_states.py decides every state change; `packet` only asks further questions where the table alone would be fooled:
  reopening, packets let through unlearnt, challenge ACKs, resets.
- A segment outside the windows changes no state. It is INVALID if its sequence or acknowledgement is ahead of what can be
  (somebody guesses), or passes unlearnt if it is behind (somebody repeats).
- Sequence numbers are compared modulo 2**32; windows are in bytes, after scaling.

The window of a direction (G. van Rooij, "Real stateful TCP packet filtering in IP Filter"): `td_end` highest sequence sent + 1,
`td_maxend` highest sequence the receiver allowed, `td_maxwin` largest window it ever offered, `td_maxack` highest
acknowledgement sent.
"""

import cython

from userfw.conntrack.tcp_states import TABLE

if not cython.compiled:
    from userfw.conntrack.check import checksum_ok
    from userfw.conntrack.conn import U32_MASK, Conn, ack_offset
    from userfw.conntrack.const import (
        CT_EVENT_ASSURED,
        CT_EVENT_PROTOINFO,
        CT_PKT_ACCEPT,
        CT_PKT_INVALID,
        CT_PKT_REPEAT,
        TCP_CLOSE,
        TCP_ESTABLISHED,
        TCP_EV_ACK,
        TCP_EV_FIN,
        TCP_EV_NONE,
        TCP_EV_RST,
        TCP_EV_SYN,
        TCP_EV_SYNACK,
        TCP_F_BE_LIBERAL,
        TCP_F_CHALLENGE_ACK,
        TCP_F_CLOSE_INIT,
        TCP_F_DATA_UNACKNOWLEDGED,
        TCP_F_MAXACK_SET,
        TCP_F_SACK_PERM,
        TCP_F_SIMULTANEOUS_OPEN,
        TCP_F_WINDOW_SCALE,
        TCP_FIN_WAIT,
        TCP_IGNORE,
        TCP_LAST_ACK,
        TCP_MAX,
        TCP_NONE,
        TCP_SYN_RECV,
        TCP_SYN_SENT,
        TCP_SYN_SENT2,
        TCP_T_RETRANS,
        TCP_T_UNACK,
        TCP_TIME_WAIT,
    )
    from userfw.conntrack.settings import Settings
    from userfw.conntrack.table import ConnTable
    from userfw.core.const import (
        CT_DIR_ORIGINAL,
        CT_DIR_REPLY,
        IPPROTO_TCP,
        IPS_ASSURED,
        IPS_CONFIRMED,
        IPS_FIXED_TIMEOUT,
        IPS_SEEN_REPLY,
        NF_INET_PRE_ROUTING,
        TCP_ACK,
        TCP_FIN,
        TCP_RST,
        TCP_SYN,
    )
    from userfw.core.packet import Packet
    from userfw.wire.options import next_option

    WINDOW_OK, WINDOW_IGNORE, WINDOW_INVALID, VERDICT_GO_ON, VERDICT_SKIP_WINDOW = 0, 1, 2, 100, 101
    MAX_ACK_WINDOW = 66000
    SHRINK_LEAST = 120 * 1000000000

STATES = TABLE


def before(a: cython.uint, b: cython.uint) -> cython.bint:
    """Whether sequence number `a` comes before `b`."""
    distance: cython.uint = (a - b) & U32_MASK
    return distance >> 31 != 0


class Tcp:
    """The TCP tracker of one table; holds the fields of the segment in hand."""

    def __init__(self, table: ConnTable) -> None:
        self.table = table
        self.settings: Settings = table.settings
        self.l4 = self.options = self.header_end = 0
        self.seq = self.ack = self.sack = self.end = self.win = self.raw_win = 0
        self.flags = 0
        self.event = TCP_EV_NONE
        self.old_state = self.new_state = TCP_NONE

    def packet(self, pkt: Packet, conn: Conn, direction: cython.int, hook: cython.int) -> cython.int:
        """Track one segment of `conn`; CT_PKT_* (Linux: nf_conntrack_tcp_packet)."""
        if not self._read(pkt, hook):
            return CT_PKT_INVALID
        if not conn.status & IPS_CONFIRMED and not self.new(conn, pkt):
            return CT_PKT_INVALID
        self.old_state = conn.state
        self.new_state = STATES[(direction * 6 + self.event) * 10 + conn.state]
        verdict: cython.int = self._judge(pkt, conn, direction)
        if verdict == VERDICT_GO_ON:
            verdict = self._in_window(pkt, conn, direction)
            if verdict == WINDOW_IGNORE:
                return CT_PKT_ACCEPT
            if verdict == WINDOW_INVALID:
                self._invalid(conn, direction)
                return CT_PKT_INVALID
        elif verdict != VERDICT_SKIP_WINDOW:
            # _judge returns CT_PKT_* plus 10, for -1 is how C functions report an exception
            return verdict - 10
        return self._accept(pkt, conn, direction)

    def _read(self, pkt: Packet, hook: cython.int) -> cython.bint:
        """The segment's fields; False: cut short, impossible flags, bad checksum (Linux: tcp_error)."""
        l4: cython.Py_ssize_t = pkt.l4
        if l4 + 20 > pkt.end:
            return False
        size: cython.Py_ssize_t = (pkt.get8(l4 + 12) >> 4) * 4
        if size < 20 or l4 + size > pkt.end:
            return False
        flags: cython.uint = pkt.get8(l4 + 13)
        kind: cython.uint = flags & 0x37
        # combinations that can be meant seriously, PSH, ECE and CWR aside (Linux: tcp_valid_flags)
        if kind not in (0x10, 0x02, 0x22, 0x12, 0x04, 0x14, 0x11, 0x31, 0x30):
            return False
        if hook == NF_INET_PRE_ROUTING and self.settings.checksum and not checksum_ok(pkt, IPPROTO_TCP):
            return False
        self.l4 = l4
        self.header_end = l4 + size
        self.flags = flags
        self.seq = pkt.get32(l4 + 4)
        self.ack = pkt.get32(l4 + 8)
        self.raw_win = pkt.get16(l4 + 14)
        self.end = (self.seq + (pkt.end - l4 - size)) & U32_MASK
        if flags & TCP_SYN:
            self.end = (self.end + 1) & U32_MASK
        if flags & TCP_FIN:
            self.end = (self.end + 1) & U32_MASK
        if flags & TCP_RST:
            self.event = TCP_EV_RST
        elif flags & TCP_SYN:
            self.event = TCP_EV_SYNACK if flags & TCP_ACK else TCP_EV_SYN
        elif flags & TCP_FIN:
            self.event = TCP_EV_FIN
        elif flags & TCP_ACK:
            self.event = TCP_EV_ACK
        else:
            self.event = TCP_EV_NONE
        return True

    def new(self, conn: Conn, pkt: Packet) -> cython.bint:
        """Start tracking by the first segment seen; False if it cannot be one (Linux: tcp_new)."""
        state: cython.int = STATES[self.event * 10]
        if state >= TCP_MAX:
            return False
        if state != TCP_SYN_SENT and not self.settings.tcp_loose:
            return False
        self._forget(conn)
        conn.td_end[0] = self.end
        conn.td_maxwin[0] = self.raw_win if self.raw_win else 1
        conn.td_maxend[0] = self.end
        if state == TCP_SYN_SENT:
            self._options(pkt, conn, 0)
        else:
            # picked up in the middle: its scaling and SACK are unknown, so assume the lenient case
            conn.td_maxend[0] = (self.end + conn.td_maxwin[0]) & U32_MASK
            conn.td_flags[0] = TCP_F_SACK_PERM | TCP_F_BE_LIBERAL
            conn.td_flags[1] = TCP_F_SACK_PERM | TCP_F_BE_LIBERAL
        conn.last_index = TCP_EV_NONE
        return True

    def _forget(self, conn: Conn) -> cython.int:
        i: cython.int
        for i in range(2):
            conn.td_end[i] = 0
            conn.td_maxend[i] = 0
            conn.td_maxwin[i] = 0
            conn.td_maxack[i] = 0
            conn.td_scale[i] = 0
            conn.td_flags[i] = 0
        conn.state = TCP_NONE
        conn.last_seq = conn.last_ack = conn.last_end = conn.last_win = 0
        conn.last_dir = conn.last_flags = conn.last_wscale = conn.retrans = 0
        return 0

    def midstream(self, conn: Conn) -> cython.int:
        """Forget the windows and believe what comes next: after a time in the flowtable (Linux: flow_offload_fixup_tcp) or a
        restore."""
        i: cython.int
        for i in range(2):
            conn.td_maxwin[i] = 0
        return 0

    # -- what the table alone cannot decide

    def _judge(self, pkt: Packet, conn: Conn, direction: cython.int) -> cython.int:
        """VERDICT_GO_ON: look at the window; VERDICT_SKIP_WINDOW: accept without; else 10 + CT_PKT_*. May set new_state."""
        state: cython.int = self.new_state
        if state == TCP_SYN_SENT:
            if self.old_state < TCP_TIME_WAIT:
                return VERDICT_GO_ON
            # A fresh SYN after a close or an abort: the old connection ends, the packet starts over as a new one
            # (RFC 9293 3.6.1). Otherwise it may be a stray: let the server judge.
            if (conn.td_flags[0] | conn.td_flags[1]) & TCP_F_CLOSE_INIT or (
                conn.last_dir == direction and conn.last_index == TCP_EV_RST
            ):
                self.table.destroy(conn)
                return 10 + CT_PKT_REPEAT
            return self._ignored(pkt, conn, direction)
        if state == TCP_IGNORE:
            return self._ignored(pkt, conn, direction)
        if state == TCP_MAX:
            if self._synproxy_keepalive(conn, direction):
                return 10 + CT_PKT_ACCEPT
            return 10 + CT_PKT_INVALID
        if state == TCP_TIME_WAIT:
            # A challenge ACK to a SYN seen in LAST_ACK does not acknowledge the FIN (RFC 5961).
            if (
                self.old_state == TCP_LAST_ACK
                and self.event == TCP_EV_ACK
                and conn.last_dir != direction
                and conn.last_index == TCP_EV_SYN
                and conn.last_flags & TCP_F_CHALLENGE_ACK
            ):
                conn.last_flags &= ~TCP_F_CHALLENGE_ACK & 0xFF
                return 10 + CT_PKT_ACCEPT
        elif state == TCP_SYN_SENT2:
            conn.last_flags |= TCP_F_SIMULTANEOUS_OPEN
        elif state == TCP_SYN_RECV:
            if direction == CT_DIR_REPLY and self.event == TCP_EV_ACK and conn.last_flags & TCP_F_SIMULTANEOUS_OPEN:
                self.new_state = TCP_ESTABLISHED
        elif state == TCP_CLOSE and self.event == TCP_EV_RST:
            return self._reset(conn, direction)
        return VERDICT_GO_ON

    def _synproxy_keepalive(self, conn: Conn, direction: cython.int) -> cython.bint:
        """A client that synproxy has answered asks again before the server did: the ACK belongs to the entry."""
        return (
            conn.ext is not None
            and "synproxy" in conn.ext
            and self.old_state == TCP_SYN_SENT
            and self.event == TCP_EV_ACK
            and direction == CT_DIR_ORIGINAL
            and conn.last_dir == CT_DIR_ORIGINAL
            and (conn.td_end[0] - 1) & U32_MASK == self.seq
        )

    def _ignored(self, pkt: Packet, conn: Conn, direction: cython.int) -> cython.int:
        """Let pass a packet that may show that we, not the two ends, are out of step; note what it said."""
        last: cython.int = conn.last_dir
        if (
            self.event == TCP_EV_SYNACK
            and conn.last_index == TCP_EV_SYN
            and last != direction
            and self.ack == conn.last_end
        ):
            # The server accepts a SYN that we had let through: take its connection over from the notes.
            self.old_state = TCP_SYN_SENT
            self.new_state = TCP_SYN_RECV
            conn.td_end[last] = conn.last_end
            conn.td_maxend[last] = conn.last_end
            conn.td_maxwin[last] = conn.last_win if conn.last_win else 1
            conn.td_scale[last] = conn.last_wscale
            conn.last_flags &= ~TCP_F_CHALLENGE_ACK & 0xFF
            conn.td_flags[last] = conn.last_flags
            conn.td_end[direction] = 0
            conn.td_maxend[direction] = 0
            conn.td_maxwin[direction] = 0
            conn.td_maxack[direction] = 0
            conn.td_scale[direction] = 0
            conn.td_flags[direction] &= TCP_F_BE_LIBERAL
            return VERDICT_GO_ON
        conn.last_index = self.event
        conn.last_dir = direction
        conn.last_seq = self.seq
        conn.last_end = self.end
        conn.last_win = self.raw_win
        if self.event == TCP_EV_SYN and direction == CT_DIR_ORIGINAL:
            self._note_syn(pkt, conn)
        if self.old_state == TCP_SYN_SENT and self.event == TCP_EV_ACK and direction == CT_DIR_REPLY:
            conn.last_ack = self.ack
        return 10 + CT_PKT_ACCEPT

    def _note_syn(self, pkt: Packet, conn: Conn) -> cython.int:
        """Keep the options of a SYN that is let through, in case its SYN+ACK comes."""
        scale: cython.uint = conn.td_scale[0]
        flags: cython.uint = conn.td_flags[0]
        conn.td_flags[0] = 0
        conn.td_scale[0] = 0
        self._options(pkt, conn, 0)
        conn.last_flags = conn.td_flags[0] & (TCP_F_WINDOW_SCALE | TCP_F_SACK_PERM)
        conn.last_wscale = conn.td_scale[0] if conn.td_flags[0] & TCP_F_WINDOW_SCALE else 0
        conn.td_scale[0] = scale
        conn.td_flags[0] = flags
        if self.old_state == TCP_LAST_ACK:
            conn.last_flags |= TCP_F_CHALLENGE_ACK
        return 0

    def _reset(self, conn: Conn, direction: cython.int) -> cython.int:
        """A RST must be where the other side expects the next byte (RFC 5961 section 3); elsewhere it is a guess."""
        other: cython.int = 1 - direction
        if TCP_FIN_WAIT <= conn.state <= TCP_CLOSE:
            # closing: the ports may be in use again already, what we remember is worth little
            return VERDICT_SKIP_WINDOW
        if conn.td_flags[other] & TCP_F_MAXACK_SET and conn.last_index != TCP_EV_SYN:
            established: cython.bint = conn.state == TCP_ESTABLISHED and conn.status & IPS_ASSURED != 0
            if self.seq == 0 and not established:
                return VERDICT_GO_ON
            if before(self.seq, conn.td_maxack[other]) and not self.settings.tcp_ignore_invalid_rst:
                return 10 + CT_PKT_INVALID
            if not established or self.seq == conn.td_maxack[other]:
                return VERDICT_GO_ON
            # right behind data of its own that is still on the way
            if conn.last_index == TCP_EV_ACK and conn.last_dir == direction and self.seq == conn.last_end:
                return VERDICT_GO_ON
            # in the window but not exact: the receiver will send a challenge ACK, the connection may well live on
            self.new_state = self.old_state
        if self.ack == conn.last_end and conn.last_dir != direction and (
            (conn.status & IPS_SEEN_REPLY and conn.last_index == TCP_EV_SYN)
            or (not conn.status & IPS_ASSURED and conn.last_index == TCP_EV_ACK)
        ):
            # it answers a SYN or ACK that we let through unlearnt
            return VERDICT_SKIP_WINDOW
        if (
            self.old_state == TCP_SYN_SENT
            and conn.last_index == TCP_EV_ACK
            and conn.last_dir == CT_DIR_REPLY
            and self.seq == conn.last_ack
        ):
            # it answers a challenge ACK that we let through
            return VERDICT_SKIP_WINDOW
        return VERDICT_GO_ON

    # -- the window

    def _in_window(self, pkt: Packet, conn: Conn, direction: cython.int) -> cython.int:
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
        self._options(pkt, conn, direction)
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

    # -- options

    def _options(self, pkt: Packet, conn: Conn, direction: cython.int) -> cython.int:
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

    # -- the end of it

    def _invalid(self, conn: Conn, direction: cython.int) -> cython.int:
        """A FIN or RST out of window, answered by one from the other side: both ends are probably through, so do not wait for
        days."""
        if not conn.status & IPS_ASSURED or conn.status & IPS_FIXED_TIMEOUT:
            return 0
        if self.event not in (TCP_EV_RST, TCP_EV_FIN):
            return 0
        if conn.last_dir != direction and (conn.last_index == TCP_EV_FIN or conn.last_index == TCP_EV_RST):
            now: cython.ulonglong = self.table.clock.now
            unack: cython.ulonglong = self._t(conn, TCP_T_UNACK)
            if conn.timeout < now + SHRINK_LEAST:
                return 0
            if conn.timeout > now + unack:
                self.table.refresh(conn, unack)
        else:
            conn.last_index = self.event
            conn.last_dir = direction
        return 0

    def _t(self, conn: Conn, row: cython.int) -> cython.ulonglong:
        if conn.policy is not None:
            return conn.policy.t[row]
        return self.settings.t[row]

    def _timeout(self, conn: Conn) -> cython.ulonglong:
        """How long to wait in the new state."""
        timeout: cython.ulonglong = self._t(conn, self.new_state)
        limit: cython.ulonglong
        if conn.retrans >= self.settings.tcp_max_retrans:
            limit = self._t(conn, TCP_T_RETRANS)
            if limit < timeout:
                return limit
        if self.event == TCP_EV_RST:
            return self._t(conn, TCP_CLOSE)
        if (conn.td_flags[0] | conn.td_flags[1]) & TCP_F_DATA_UNACKNOWLEDGED:
            limit = self._t(conn, TCP_T_UNACK)
            if limit < timeout:
                return limit
        if conn.last_win == 0:
            limit = self._t(conn, TCP_T_RETRANS)
            if limit < timeout:
                return limit
        return timeout

    def _accept(self, pkt: Packet, conn: Conn, direction: cython.int) -> cython.int:
        """The segment is believed: state, timeout, ASSURED, accounting."""
        table: ConnTable = self.table
        conn.last_index = self.event
        conn.last_dir = direction
        conn.state = self.new_state
        changed: cython.bint = self.old_state != self.new_state
        if changed:
            if self.new_state == TCP_FIN_WAIT:
                conn.td_flags[direction] |= TCP_F_CLOSE_INIT
            if table.listening:
                conn.events |= CT_EVENT_PROTOINFO
        timeout: cython.ulonglong = self._timeout(conn)
        if not conn.status & IPS_SEEN_REPLY:
            if self.flags & TCP_RST:
                # nothing but a reset came back: there is no connection
                table.account(conn, direction, pkt)
                table.destroy(conn)
                return CT_PKT_ACCEPT
            if self.event == TCP_EV_SYN and self.old_state == TCP_SYN_SENT:
                # a repeated SYN does not keep an unanswered entry (and its mapping) alive
                return CT_PKT_ACCEPT
            if self.new_state == TCP_ESTABLISHED and timeout > self._t(conn, TCP_T_UNACK):
                timeout = self._t(conn, TCP_T_UNACK)
        elif (
            not conn.status & IPS_ASSURED
            and (self.old_state == TCP_SYN_RECV or self.old_state == TCP_ESTABLISHED)
            and self.new_state == TCP_ESTABLISHED
        ):
            conn.status |= IPS_ASSURED
            if table.listening:
                conn.events |= CT_EVENT_ASSURED
        table.refresh(conn, timeout)
        table.account(conn, direction, pkt)
        return CT_PKT_ACCEPT
