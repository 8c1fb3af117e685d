# Looking ahead in the connection table. Explained in ahead.py.
from userfw.conntrack.conn cimport Conn, Tuple, TupleNode
from userfw.conntrack.table cimport SEGMENT, SEGMENT_SHIFT, ConnTable
from userfw.conntrack.tuples cimport hash_tuple, invert, read_tuple
from userfw.core.ahead cimport AHEAD, NOT_AHEAD, Lookahead, load, slot_of, some, touch
from userfw.core.const cimport IPPROTO_TCP, IPS_DST_NAT, IPS_SRC_NAT, NFPROTO_IPV4, NFPROTO_IPV6
from userfw.core.packet cimport Packet

cdef enum:
    NODE_BYTES = 80
    CONN_BYTES = 128  # what UDP and the others use
    CONN_BYTES_TCP = 208

cdef class ConnAhead(Lookahead):
    cdef readonly ConnTable table
    cdef public Py_ssize_t many
    cdef void *at[AHEAD]
    cdef unsigned int hashes[AHEAD]
    cdef int dirs[AHEAD]
    cpdef bint useful(self) except -1
    cpdef int look(self, list[Packet] packets, Py_ssize_t first, Py_ssize_t n) except -1
    cpdef int look_for_ports(self, Tuple wanted, Tuple probe, bint source_key, int least, int size, int off, int n) except -1
    cdef int _nodes(self, Py_ssize_t n) noexcept
    cdef int _conns(self, Py_ssize_t n) noexcept
