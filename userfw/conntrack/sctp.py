"""SCTP (RFC 9260): one state table over chunk x state x direction, and the verification tags (Linux: nf_conntrack_proto_sctp.c
of 6.18).

Laws: the tags that packets of a direction must carry are kept in `Conn.td_end[direction]` (0: not known yet);
`Conn.last_flags` remembers
which sides sent INIT and whether a HEARTBEAT with another tag went through. A chunk that the tables or tags refuse makes the
packet INVALID.
"""

import cython

if not cython.compiled:
    from userfw.conntrack.check import checksum_ok
    from userfw.conntrack.conn import Conn
    from userfw.conntrack.const import (
        CT_EVENT_ASSURED,
        CT_EVENT_PROTOINFO,
        CT_PKT_ACCEPT,
        CT_PKT_INVALID,
        SCTP_CLOSED,
        SCTP_ESTABLISHED,
        SCTP_MAX,
        SCTP_NONE,
        T_SCTP,
    )
    from userfw.conntrack.table import ConnTable
    from userfw.core.const import (
        IPPROTO_SCTP,
        IPS_ASSURED,
        IPS_CONFIRMED,
        NF_INET_PRE_ROUTING,
    )
    from userfw.core.packet import Packet

    SCTP_F_INIT_0, SCTP_F_INIT_1, SCTP_F_VTAG_FAILED = 1, 2, 4

_CODES = {"NO": 0, "CL": 1, "CW": 2, "CE": 3, "ES": 4, "SS": 5, "SR": 6, "SA": 7, "HS": 8, "--": 10}
# Columns: NO CL CW CE ES SS SR SA HS. Rows: init, init_ack, abort, shutdown, shutdown_ack, error, cookie_echo, cookie_ack,
# shutdown_complete, heartbeat, heartbeat_ack. Other chunks change nothing.
_ORIGINAL = (
    "CL CL CW CE ES CL CL SA CW",
    "CL CL CW CE ES SS SR SA CL",
    "CL CL CL CL CL CL CL CL CL",
    "CL CL CW CE SS SS SR SA CL",
    "SA CL CW CE ES SA SA SA SA",
    "CL CL CW CE ES SS SR SA CL",
    "CL CL CE CE ES SS SR SA CL",
    "CL CL CW ES ES SS SR SA CL",
    "CL CL CW CE ES SS SR CL CL",
    "HS CL CW CE ES SS SR SA HS",
    "CL CL CW CE ES SS SR SA HS",
)
_REPLY = (
    "-- CL CW CE ES SS SR SA --",
    # the INIT is answered: COOKIE_WAIT
    "-- CW CW CE ES SS SR SA --",
    "-- CL CL CL CL CL CL CL --",
    "-- CL CW CE SR SS SR SA --",
    "-- CL CW CE ES SA SA SA --",
    # ERROR in COOKIE_ECHOED is a stale cookie
    "-- CL CW CL ES SS SR SA --",
    "-- CL CE CE ES SS SR SA --",
    "-- CL CW ES ES SS SR SA --",
    "-- CL CW CE ES SS SR CL --",
    "-- CL CW CE ES SS SR SA HS",
    # a path found alive by heartbeats is as good as an association whose start was seen
    "-- CL CW CE ES SS SR SA ES",
)
_STATES = bytes(_CODES[cell] for rows in (_ORIGINAL, _REPLY) for row in rows for cell in row.split())


def _event(type: cython.int) -> cython.int:
    """Row of a chunk type, -1: it does not matter."""
    if type == 1 or type == 2:  # INIT, INIT ACK
        return type - 1
    if 6 <= type <= 11:  # ABORT, SHUTDOWN, SHUTDOWN ACK, ERROR, COOKIE ECHO, COOKIE ACK
        return type - 4
    if type == 14:  # SHUTDOWN COMPLETE
        return 8
    if type == 4 or type == 5:  # HEARTBEAT, HEARTBEAT ACK
        return type + 5
    return -1


def _state(event: cython.int, direction: cython.int, state: cython.int) -> cython.int:
    if event < 0:
        return state
    states: bytes = _STATES
    return states[(direction * 11 + event) * 9 + state]


def _chunks(pkt: Packet) -> cython.Py_ssize_t:
    """Bit mask of the chunk types below 15 that are present, 0 if the packet breaks the bundling rules (Linux:
    do_basic_checks)."""
    seen: cython.Py_ssize_t = 0
    count: cython.int = 0
    lone: cython.bint = False
    at: cython.Py_ssize_t = pkt.l4 + 12
    type: cython.int
    length: cython.Py_ssize_t
    while at + 4 <= pkt.end:
        type = pkt.get8(at)
        length = pkt.get16(at + 2)
        if type in (1, 2, 14):
            lone = True
        if length == 0 or (count and (lone or type == 10 or type == 11)):
            return 0
        if type < 15:
            seen |= 1 << type
        else:
            seen |= 1 << 15
        at += (length + 3) & ~3
        count += 1
    return seen


def _new(pkt: Packet, conn: Conn, seen: cython.uint, vtag: cython.uint) -> cython.bint:
    """Start tracking (Linux: sctp_new). Every chunk must be able to begin something."""
    if seen & (1 << 6 | 1 << 14 | 1 << 11):
        return False
    at: cython.Py_ssize_t = pkt.l4 + 12
    type: cython.int
    conn.td_end[0] = conn.td_end[1] = 0
    conn.last_flags = 0
    conn.state = SCTP_NONE
    while at + 4 <= pkt.end:
        type = pkt.get8(at)
        if _state(_event(type), 0, SCTP_NONE) in (SCTP_NONE, SCTP_MAX):
            return False
        if type == 1:
            if vtag or at + 8 > pkt.end:
                return False
            conn.td_end[1] = pkt.get32(at + 4)
        elif type in (4, 5):
            conn.td_end[0] = vtag
        else:
            conn.td_end[1] = vtag
        at += (pkt.get16(at + 2) + 3) & ~3
    return True


def sctp_packet(table: ConnTable, pkt: Packet, conn: Conn, direction: cython.int, hook: cython.int) -> cython.int:
    """Track one SCTP packet; CT_PKT_*. Linux: nf_conntrack_sctp_packet."""
    if pkt.l4 + 12 > pkt.end:
        return CT_PKT_INVALID
    if hook == NF_INET_PRE_ROUTING and table.settings.checksum and not checksum_ok(pkt, IPPROTO_SCTP):
        return CT_PKT_INVALID
    vtag: cython.uint = pkt.get32(pkt.l4 + 4)
    seen: cython.uint = _chunks(pkt)
    if seen == 0:
        return CT_PKT_INVALID
    if not conn.status & IPS_CONFIRMED:
        if not _new(pkt, conn, seen, vtag):
            return CT_PKT_INVALID
    # chunks with rules of their own aside, the tag must be the one announced; a first packet's is none
    if not seen & (1 << 1 | 1 << 14 | 1 << 10 | 1 << 6 | 1 << 8 | 1 << 4 | 1 << 5) and vtag != conn.td_end[direction]:
        return CT_PKT_INVALID
    ignore: cython.bint = False
    assured: cython.bint = False
    old: cython.int = SCTP_NONE
    new: cython.int = SCTP_NONE
    type: cython.int
    at: cython.Py_ssize_t = pkt.l4 + 12
    while at + 4 <= pkt.end:
        type = pkt.get8(at)
        verdict: cython.int = _vtag(pkt, conn, at, direction, vtag, seen, ignore)
        if verdict == 0:
            return CT_PKT_INVALID
        if verdict == 2:
            ignore = True
        else:
            old = conn.state
            new = _state(_event(type), direction, old)
            if new == SCTP_MAX or not _init_tag(pkt, conn, at, direction):
                return CT_PKT_INVALID
            if type == 1 and new == SCTP_CLOSED and old == SCTP_CLOSED and conn.status & IPS_CONFIRMED:
                ignore = True
            conn.state = new
            if new == SCTP_ESTABLISHED:
                assured = True
            if old != new and table.listening:
                conn.events |= CT_EVENT_PROTOINFO
        at += (pkt.get16(at + 2) + 3) & ~3
    if ignore:
        return CT_PKT_ACCEPT
    table.refresh(conn, conn.policy.t[new] if conn.policy is not None else table.settings.t[T_SCTP + new])
    table.account(conn, direction, pkt)
    if assured and not conn.status & IPS_ASSURED:
        conn.status |= IPS_ASSURED
        if table.listening:
            conn.events |= CT_EVENT_ASSURED
    return CT_PKT_ACCEPT


def _vtag(
    pkt: Packet,
    conn: Conn,
    at: cython.Py_ssize_t,
    direction: cython.int,
    vtag: cython.uint,
    seen: cython.uint,
    ignore: cython.bint,
) -> cython.int:
    """The special rules for the tag (RFC 9260 8.5.1): 0 refuse, 1 go on, 2 let pass and learn nothing."""
    type: cython.int = pkt.get8(at)
    own: cython.uint = conn.td_end[direction]
    peer: cython.uint = conn.td_end[1 - direction]
    if type == 1:
        return vtag == 0
    if type in (6, 14):  # the T bit says that the sender reflects the tag it was sent
        return vtag == (peer if pkt.get8(at + 1) & 1 else own)
    if type == 10:
        return vtag == own
    if type not in (4, 5):
        return 1
    if own == 0:
        conn.td_end[direction] = vtag
    elif vtag == own:
        conn.last_flags &= ~SCTP_F_VTAG_FAILED & 0xFF
    elif seen & 1 or ignore:
        return 0
    elif type == 4:
        # perhaps the association was set up again over another path: its acknowledgement will show
        conn.last_flags |= SCTP_F_VTAG_FAILED
        conn.last_dir = direction
        return 2
    elif not conn.last_flags & SCTP_F_VTAG_FAILED or conn.last_dir == direction:
        return 0
    else:
        conn.last_flags &= ~SCTP_F_VTAG_FAILED & 0xFF
        conn.td_end[direction] = vtag
        conn.td_end[1 - direction] = 0
    return 1


def _init_tag(pkt: Packet, conn: Conn, at: cython.Py_ssize_t, direction: cython.int) -> cython.bint:
    """INIT and INIT ACK announce the tag that the other direction must carry."""
    type: cython.int = pkt.get8(at)
    other: cython.int = 1 - direction
    if type not in (1, 2):
        return True
    if at + 8 > pkt.end:
        return False
    tag: cython.uint = pkt.get32(at + 4)
    mine: cython.int = SCTP_F_INIT_1 if direction else SCTP_F_INIT_0
    theirs: cython.int = SCTP_F_INIT_0 if direction else SCTP_F_INIT_1
    if type == 1:
        if conn.last_flags & mine and conn.last_flags & theirs:
            conn.last_flags &= ~theirs & 0xFF
        conn.last_flags |= mine
    else:
        known: cython.uint = conn.td_end[other]
        if known != tag and (
            (known != 0 and not conn.last_flags & theirs) or (conn.last_flags & mine and conn.last_flags & theirs)
        ):
            return False
    conn.td_end[other] = tag
    return True
