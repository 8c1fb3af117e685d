# TCP: windows. Explained in tcp_window.py.
cimport cython
from userfw.conntrack.conn cimport Conn, U32_MASK, ack_offset
from userfw.conntrack.const cimport *
from userfw.conntrack.settings cimport Settings
from userfw.core.const cimport CT_DIR_REPLY, TCP_ACK, TCP_RST, TCP_SYN
from userfw.core.packet cimport Packet
from userfw.wire.options cimport next_option

cdef enum:
    WINDOW_OK = 0
    WINDOW_IGNORE = 1
    WINDOW_INVALID = 2
    MAX_ACK_WINDOW = 66000

cdef bint before(unsigned int a, unsigned int b) noexcept

cdef class Windows:
    cdef Settings settings
    cdef Py_ssize_t l4, header_end
    cdef unsigned int seq, ack, sack, end, win, raw_win
    cdef unsigned char flags
    cdef int event
    cdef int in_window(self, Packet pkt, Conn conn, int direction) except -1
    cpdef int midstream(self, Conn conn) except -1
    cdef int syn_options(self, Packet pkt, Conn conn, int direction) except -1
    @cython.final
    cdef int _beyond(self, Conn conn, int direction, bint ack_may) except -1
    @cython.final
    cdef int _outside(self, Conn conn, int direction, int result) noexcept
    @cython.final
    cdef int _learn(self, Conn conn, int direction) except -1
    @cython.final
    cdef int _init_sender(self, Packet pkt, Conn conn, int direction) except -1
    @cython.final
    cdef int _pick_up_sender(self, Conn conn, int direction) except -1
    @cython.final
    cdef int _sack_edge(self, Packet pkt, Conn conn, int direction) except -1
