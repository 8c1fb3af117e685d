# TCP: state table and window tracking. Explained in tcp.py.
cimport cython
from userfw.conntrack.check cimport checksum_ok
from userfw.conntrack.conn cimport Conn, U32_MASK
from userfw.conntrack.const cimport *
from userfw.conntrack.settings cimport TimeoutPolicy
from userfw.conntrack.table cimport ConnTable
from userfw.conntrack.tcp_window cimport WINDOW_IGNORE, WINDOW_INVALID, Windows, before
from userfw.core.const cimport (
    IPPROTO_TCP, IPS_ASSURED, IPS_CONFIRMED, IPS_FIXED_TIMEOUT, IPS_SEEN_REPLY, CT_DIR_ORIGINAL, CT_DIR_REPLY, NF_INET_PRE_ROUTING,
    TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN,
)
from userfw.core.packet cimport Packet

cdef enum:
    VERDICT_GO_ON = 100
    VERDICT_SKIP_WINDOW = 101

cdef extern from *:
    """
    #define SHRINK_LEAST 120000000000ULL
    """
    const unsigned long long SHRINK_LEAST

cdef bytes STATES

@cython.final
cdef class Tcp(Windows):
    cdef ConnTable table
    cdef int old_state, new_state
    cpdef int packet(self, Packet pkt, Conn conn, int direction, int hook) except -100
    cpdef bint new(self, Conn conn, Packet pkt) except? -1
    cdef int _forget(self, Conn conn) except -1
    cdef int _note_syn(self, Packet pkt, Conn conn) except -1
    cdef bint _synproxy_keepalive(self, Conn conn, int direction) except? -1
    cdef bint _read(self, Packet pkt, int hook) except? -1
    cdef int _judge(self, Packet pkt, Conn conn, int direction) except -1
    cdef int _ignored(self, Packet pkt, Conn conn, int direction) except -1
    cdef int _reset(self, Conn conn, int direction) except -1
    cdef int _invalid(self, Conn conn, int direction) except -1
    cdef int _accept(self, Packet pkt, Conn conn, int direction) except -1
    cdef unsigned long long _timeout(self, Conn conn) noexcept
    cdef unsigned long long _t(self, Conn conn, int row) noexcept
