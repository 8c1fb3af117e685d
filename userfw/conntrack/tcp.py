"""TCP: what happens to a segment (Linux: nf_conntrack_proto_tcp.c of 6.18).

Laws:
- The table of tcp_states.py decides every state change; `packet` only asks further questions where the table alone would be fooled:
  reopening, packets let through unlearnt, challenge ACKs, resets.
- A segment outside the windows (tcp_window.py) changes no state.
"""

import cython

from userfw.conntrack.tcp_states import TABLE

if not cython.compiled:
    from userfw.conntrack.check import checksum_ok
    from userfw.conntrack.conn import U32_MASK, Conn
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
    from userfw.conntrack.table import ConnTable
    from userfw.conntrack.tcp_window import WINDOW_IGNORE, WINDOW_INVALID, Windows, before
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

    VERDICT_GO_ON, VERDICT_SKIP_WINDOW = 100, 101
    SHRINK_LEAST = 120 * 1000000000

STATES = TABLE


class Tcp(Windows):
    """The TCP tracker of one table."""

    def __init__(self, table: ConnTable) -> None:
        super().__init__(table.settings)
        self.table = table
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
            verdict = self.in_window(pkt, conn, direction)
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
        if hook == NF_INET_PRE_ROUTING and self.settings.checksum and not checksum_ok(pkt, IPPROTO_TCP):
            return False
        if kind not in (0x10, 0x02, 0x22, 0x12, 0x04, 0x14, 0x11, 0x31, 0x30):
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
            self.syn_options(pkt, conn, 0)
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
        self.syn_options(pkt, conn, 0)
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
        if self.ack == conn.last_end and (
            (conn.status & IPS_SEEN_REPLY and conn.last_index == TCP_EV_SYN and conn.last_dir != direction)
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
