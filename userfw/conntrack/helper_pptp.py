"""PPTP (RFC 2637): the enhanced GRE tunnels that a control connection sets up (Linux: nf_conntrack_pptp.c, nf_nat_pptp.c).

Laws: both ends choose a call id, and GRE packets carry only the receiver's, so a call's ids are kept as keys of the expectation
table, which tells the sender's. Under NAT the client's call id becomes the control connection's outer port, so that two clients
with equal ids can reach one server; a control connection therefore carries one translated call, as in Linux. The calls end with
their control connection.
"""

from __future__ import annotations

from functools import partial

from userfw.conntrack.conn import Conn, Tuple, node_of
from userfw.conntrack.expect import Expectation
from userfw.conntrack.helper import IPPROTO_TCP, Helper, source_of, target_of, translated
from userfw.conntrack.table import ConnTable
from userfw.core.const import CT_DIR_ORIGINAL, CT_DIR_REPLY, CT_ESTABLISHED, IPPROTO_GRE, NF_ACCEPT, NF_DROP
from userfw.core.packet import Packet

MAGIC = 0x1A2B3C4D
(START_REQUEST, START_REPLY, STOP_REQUEST, STOP_REPLY, ECHO_REQUEST, ECHO_REPLY, OUT_CALL_REQUEST, OUT_CALL_REPLY) = range(1, 9)
(IN_CALL_REQUEST, IN_CALL_REPLY, IN_CALL_CONNECT, CALL_CLEAR, CALL_DISCONNECT, WAN_ERROR, SET_LINK_INFO) = range(9, 16)
# least octets of each message's own part
SIZES = (0, 144, 144, 4, 4, 4, 8, 156, 20, 208, 12, 16, 4, 136, 28, 12)
# session states in their order, then those of the call
NONE, ERROR, STOPPING, REQUESTED, CONFIRMED = range(5)
IDLE, OUT_REQUESTED, OUT_CONFIRMED, IN_REQUESTED, IN_ANSWERED, IN_CONFIRMED, CLEARING = range(7)
SUCCESS = 1
FIRST = 12  # offset of a message's first own field, mostly a call id
PEER, RESULT = FIRST + 2, FIRST + 4


class Call:
    """Where a control connection stands. `pns`, `pac`: call ids of client and server as the server knows them; `inner`: the
    client's own."""

    def __init__(self) -> None:
        self.session = NONE
        self.state = IDLE
        self.pns = self.pac = self.inner = 0


class Pptp(Helper):
    """The control connection."""

    name = "pptp"
    port = 1723
    protocols = (IPPROTO_TCP,)
    policies = ((2, 300),)

    def read_untrusted(self, table: ConnTable, pkt: Packet, conn: Conn, direction: int) -> int:
        """One control message; what does not fit the state changes nothing."""
        data = self.payload(pkt)
        if pkt.ctinfo != CT_ESTABLISHED or len(data) < FIRST or conn.orig.l3num != 2:
            return NF_ACCEPT
        if _word(data, 2) != 1 or _word(data, 4) << 16 | _word(data, 6) != MAGIC:
            return NF_ACCEPT
        if conn.helper_data is None:
            conn.helper_data = Call()
        call: Call = conn.helper_data
        kind = _word(data, 8)
        if not 0 < kind < len(SIZES) or len(data) < FIRST + SIZES[kind]:
            return NF_ACCEPT
        if direction == CT_DIR_ORIGINAL:
            return self._asked(pkt, conn, call, kind, data)
        return self._answered(table, pkt, conn, call, kind, data)

    def ended(self, table: ConnTable, conn: Conn) -> None:
        """The calls end with their control connection (Linux: gre_pptp_destroy_siblings)."""
        self._end_calls(table, conn, conn.helper_data)

    def _asked(self, pkt: Packet, conn: Conn, call: Call, kind: int, data: bytes) -> int:
        """From the client (Linux: pptp_outbound_pkt)."""
        if kind == START_REQUEST and call.session == NONE:
            call.session = REQUESTED
        elif kind == STOP_REQUEST:
            call.session = STOPPING
        elif kind == OUT_CALL_REQUEST and call.session == CONFIRMED:
            call.state = OUT_REQUESTED
            call.inner = call.pns = _word(data, FIRST)
            if self.nat is not None and translated(conn):
                call.pns = conn.reply.dport  # its outer port, which no other client has
        elif kind == IN_CALL_REPLY and call.state in (IN_REQUESTED, IN_ANSWERED) and call.pac == _word(data, PEER):
            accepted = data[RESULT] == SUCCESS
            call.state = IN_ANSWERED if accepted else IDLE
            if accepted:
                call.inner = call.pns = _word(data, FIRST)
        elif kind == CALL_CLEAR and call.session == CONFIRMED:
            call.state = CLEARING
        else:
            return NF_ACCEPT
        if kind in (OUT_CALL_REQUEST, CALL_CLEAR):
            return self._write(pkt, conn, CT_DIR_ORIGINAL, FIRST, call.pns, data)
        return NF_ACCEPT

    def _answered(self, table: ConnTable, pkt: Packet, conn: Conn, call: Call, kind: int, data: bytes) -> int:
        """From the server (Linux: pptp_inbound_pkt)."""
        if kind == START_REPLY and call.session >= REQUESTED:
            call.session = CONFIRMED if data[FIRST + 2] == SUCCESS else ERROR
        elif kind == STOP_REPLY and call.session <= STOPPING:
            call.session = NONE if data[FIRST] == SUCCESS else ERROR
        elif kind == IN_CALL_REQUEST and call.session == CONFIRMED:
            call.state, call.pac = IN_REQUESTED, _word(data, FIRST)
        elif kind == OUT_CALL_REPLY:
            return self._call_answered(table, pkt, conn, call, data)
        elif kind == IN_CALL_CONNECT:
            if call.session == CONFIRMED and call.state in (IN_ANSWERED, IN_CONFIRMED) and call.pns == _word(data, FIRST):
                call.state = IN_CONFIRMED
                self._expect_tunnel(table, conn, call)
                return self._write(pkt, conn, CT_DIR_REPLY, FIRST, call.inner, data)
        elif kind == CALL_DISCONNECT:
            call.state = IDLE
            self._end_calls(table, conn, call)
            return self._write(pkt, conn, CT_DIR_REPLY, FIRST, call.inner, data)
        elif kind in (WAN_ERROR, SET_LINK_INFO):
            return self._write(pkt, conn, CT_DIR_REPLY, FIRST, call.inner, data)
        return NF_ACCEPT

    def _call_answered(self, table: ConnTable, pkt: Packet, conn: Conn, call: Call, data: bytes) -> int:
        """The server's answer to an outgoing call, which is the usual one."""
        if call.session != CONFIRMED or call.state not in (OUT_REQUESTED, OUT_CONFIRMED) or call.pns != _word(data, PEER):
            return NF_ACCEPT
        if data[RESULT] == SUCCESS:
            call.state, call.pac = OUT_CONFIRMED, _word(data, FIRST)
            self._expect_tunnel(table, conn, call)
        else:
            call.state = IDLE
        return self._write(pkt, conn, CT_DIR_REPLY, PEER, call.inner, data)

    def _write(self, pkt: Packet, conn: Conn, direction: int, at: int, number: int, data: bytes) -> int:
        """Put a call id into the message, if NAT changed it."""
        if self.nat is None or not translated(conn) or _word(data, at) == number:
            return NF_ACCEPT
        return NF_ACCEPT if self.nat.replace(pkt, conn, direction, at, 2, number.to_bytes(2, "big")) else NF_DROP

    def _expect_tunnel(self, table: ConnTable, conn: Conn, call: Call) -> None:
        """Expect GRE from either end (Linux: exp_gre, nf_nat_pptp_exp_gre)."""
        expects = table.expects
        pair: list[Expectation] = []
        for direction, sport, dport in ((CT_DIR_ORIGINAL, call.inner, call.pac), (CT_DIR_REPLY, call.pac, call.pns)):
            e = self.announce(conn, source_of(conn, direction), target_of(conn, direction), IPPROTO_GRE, sport, dport)
            e.dir = direction
            e.saved_port = call.pns if direction == CT_DIR_ORIGINAL else call.inner
            e.expectfn = partial(self._fulfilled, table)
            pair.append(e)
            if expects.add(e, table.clock.now) != 0:
                for known in pair:
                    expects.remove(known)
                return
        expects.remove_gre_keys(conn)
        for e in pair:
            expects.add_gre_key(conn, e.tuple)

    def _fulfilled(self, table: ConnTable, conn: Conn, expectation: Expectation) -> None:
        """One end's first packet came: the other's will belong to the same connection (Linux: pptp_expectfn)."""
        master = conn.master
        if master is None:
            return
        for other in list(master.expectations or ()):
            if other is not expectation and other.tuple.l4proto == IPPROTO_GRE:
                table.expects.remove(other)
        if self.nat is not None and translated(master):
            self.nat.follow_call(conn, expectation)

    def _end_calls(self, table: ConnTable, conn: Conn, call: Call) -> None:
        for e in list(conn.expectations or ()):
            table.expects.remove(e)
        for direction, sport, dport in ((CT_DIR_ORIGINAL, call.inner, call.pac), (CT_DIR_REPLY, call.pac, call.pns)):
            end, key = node_of(conn, direction), Tuple()
            key.l3num, key.l4proto, key.zone = end.l3num, IPPROTO_GRE, end.zone
            key.src_hi, key.src_lo, key.dst_hi, key.dst_lo = end.src_hi, end.src_lo, end.dst_hi, end.dst_lo
            key.sport, key.dport = sport, dport
            found = table.find(key)
            if found is not None and found.conn.master is conn:
                table.destroy(found.conn)
        table.expects.remove_gre_keys(conn)


def _word(data: bytes, at: int) -> int:
    return data[at] << 8 | data[at + 1]
