# TCP: state table and window tracking. Explained in tcp.py.
cimport cython
from userfw.conntrack.check cimport checksum_ok
from userfw.conntrack.conn cimport Conn, U32_MASK, ack_offset
from userfw.conntrack.const cimport *
from userfw.conntrack.settings cimport Settings, TimeoutPolicy
from userfw.conntrack.table cimport ConnTable
from userfw.core.const cimport (
    IPPROTO_TCP, IPS_ASSURED, IPS_CONFIRMED, IPS_FIXED_TIMEOUT, IPS_SEEN_REPLY, CT_DIR_ORIGINAL, CT_DIR_REPLY, NF_INET_PRE_ROUTING,
    TCP_ACK, TCP_CWR, TCP_ECE, TCP_FIN, TCP_PSH, TCP_RST, TCP_SYN, TCP_URG,
)
from userfw.core.packet cimport Packet
from userfw.wire.options cimport next_option

cdef enum:
    WINDOW_OK = 0
    WINDOW_IGNORE = 1
    WINDOW_INVALID = 2
    VERDICT_GO_ON = 100
    VERDICT_SKIP_WINDOW = 101
    MAX_ACK_WINDOW = 66000

cdef extern from *:
    """
    #define SHRINK_LEAST 120000000000ULL
    """
    const unsigned long long SHRINK_LEAST

cdef bytes STATES
cdef bint before(unsigned int a, unsigned int b) noexcept

@cython.final
cdef class Tcp:
    cdef ConnTable table
    cdef Settings settings
    cdef Py_ssize_t l4, options, header_end
    cdef unsigned int seq, ack, sack, end, win, raw_win
    cdef unsigned char flags
    cdef int event, old_state, new_state
    cpdef int packet(self, Packet pkt, Conn conn, int direction, int hook) except -100
    cpdef bint new(self, Conn conn, Packet pkt) except? -1
    cpdef int midstream(self, Conn conn) except -1
    cdef int _forget(self, Conn conn) except -1
    cdef int _note_syn(self, Packet pkt, Conn conn) except -1
    cdef bint _synproxy_keepalive(self, Conn conn, int direction) except? -1
    cdef bint _read(self, Packet pkt, int hook) except? -1
    cdef int _judge(self, Packet pkt, Conn conn, int direction) except -1
    cdef int _ignored(self, Packet pkt, Conn conn, int direction) except -1
    cdef int _reset(self, Conn conn, int direction) except -1
    cdef int _in_window(self, Packet pkt, Conn conn, int direction) except -1
    cdef int _beyond(self, Conn conn, int direction, bint ack_may) except -1
    cdef int _outside(self, Conn conn, int direction, int result) noexcept
    cdef int _learn(self, Conn conn, int direction) except -1
    cdef int _init_sender(self, Packet pkt, Conn conn, int direction) except -1
    cdef int _pick_up_sender(self, Conn conn, int direction) except -1
    cdef int _options(self, Packet pkt, Conn conn, int direction) except -1
    cdef int _sack_edge(self, Packet pkt, Conn conn, int direction) except -1
    cdef int _invalid(self, Conn conn, int direction) except -1
    cdef int _accept(self, Packet pkt, Conn conn, int direction) except -1
    cdef unsigned long long _timeout(self, Conn conn) noexcept
    cdef unsigned long long _t(self, Conn conn, int row) noexcept
