# SCTP: state table and verification tags. Explained in sctp.py.
cimport cython
from userfw.conntrack.check cimport checksum_ok
from userfw.conntrack.conn cimport Conn
from userfw.conntrack.const cimport (
    CT_EVENT_ASSURED, CT_EVENT_PROTOINFO, CT_PKT_ACCEPT, CT_PKT_DROP, CT_PKT_INVALID, CT_PKT_REPEAT, SCTP_CLOSED, SCTP_COOKIE_ECHOED,
    SCTP_COOKIE_WAIT, SCTP_ESTABLISHED, SCTP_HEARTBEAT_ACKED, SCTP_HEARTBEAT_SENT, SCTP_MAX, SCTP_NONE, SCTP_SHUTDOWN_ACK_SENT, T_SCTP,
)
from userfw.conntrack.table cimport ConnTable
from userfw.core.const cimport (
    CT_DIR_ORIGINAL, CT_DIR_REPLY, IPPROTO_SCTP, IPS_ASSURED, IPS_CONFIRMED, IPS_SEEN_REPLY, NF_INET_PRE_ROUTING,
)
from userfw.core.packet cimport Packet

cdef enum:
    SCTP_F_INIT_0 = 1
    SCTP_F_INIT_1 = 2
    SCTP_F_VTAG_FAILED = 4

cpdef int sctp_packet(ConnTable table, Packet pkt, Conn conn, int direction, int hook) except -100
cdef Py_ssize_t _chunks(Packet pkt) except -1
cdef bint _new(Packet pkt, Conn conn, unsigned int seen, unsigned int vtag) except? -1
cdef int _state(int event, int direction, int state) except -1
cdef int _event(int type) noexcept
cdef int _vtag(Packet pkt, Conn conn, Py_ssize_t at, int direction, unsigned int vtag, unsigned int seen, bint ignore) except -1
cdef bint _init_tag(Packet pkt, Conn conn, Py_ssize_t at, int direction) except? -1
