# Looking ahead in a flowtable. Explained in ahead.py.
from userfw.core.ahead cimport AHEAD, TAKEN_AHEAD, Lookahead, load, slot_of, some, touch
from userfw.core.const cimport IPPROTO_TCP, IPPROTO_UDP, NFPROTO_IPV4, NFPROTO_IPV6
from userfw.core.packet cimport Device, Packet
from userfw.flowtable.flow cimport Flow, FlowTuple, hash_key
from userfw.flowtable.table cimport FlowTable

cdef enum:
    KEY_BYTES = 64
    ENTRY_BYTES = 192
    FLOW_BYTES = 80

cdef class FlowAhead(Lookahead):
    cdef readonly FlowTable table
    cdef public Py_ssize_t many
    cdef void *at[AHEAD]
    cdef unsigned int hashes[AHEAD]
    cpdef bint useful(self) except -1
    cpdef int look(self, list[Packet] packets, Py_ssize_t first, Py_ssize_t n) except -1
    cdef unsigned int _hash(self, Packet pkt) except? 0xFFFFFFFF
    cdef int _entries(self, Py_ssize_t n) noexcept
