from userfw.conntrack.conn cimport Conn, Tuple, TupleNode
from userfw.conntrack.steer cimport Steering
from userfw.conntrack.table cimport ConnTable
from userfw.conntrack.tuples cimport inner_l4, inner_proto, invert, read_tuple
from userfw.core.const cimport (
    ARPHRD_ETHER, CT_UNTRACKED, HEADROOM, IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_TCP, IPPROTO_UDP, MAX_FRAME, NF_ACCEPT, NF_DROP, NF_INET_LOCAL_OUT, NF_STOLEN,
    NFPROTO_IPV4,
)
from userfw.core.drop cimport DROP_NOT_SPECIFIED, DROP_TX_QUEUE_FULL
from userfw.core.hook cimport HookEntry, HookList
from userfw.core.packet cimport Device, Packet
from userfw.ports._io cimport read_at, write_at
from userfw.ports.base cimport IoPort
from userfw.router.gateway cimport Gateway
from userfw.router.reassembly cimport FragmentSizes

cdef enum:
    HEADER = 48
    KIND_HOME = 1
    KIND_OWNER = 2
    KIND_COPY = 3
    KIND_TOLD = 4
    KIND_PIECE = 5

cdef class Pieces(HookEntry):
    cdef readonly Handover handover

cdef class Handover(HookEntry):
    cdef readonly Pieces pieces
    cdef readonly Gateway gateway
    cdef readonly ConnTable table
    cdef readonly Steering steering
    cdef readonly list fds
    cdef readonly int fd
    cdef public object told
    cdef readonly dict claims
    cdef readonly list foreign
    cdef public unsigned long long given, taken, lost, copies
    cdef list unsent
    cdef Packet slot, scratch
    cdef bint copying
    cdef Tuple key, other
    cpdef int give(self, Packet pkt, int hook, int worker, int kind) except -1
    cpdef int drain(self, int budget) except -1
    cpdef int spread(self, Packet pkt) except -1
    cpdef int owner(self, Packet pkt) except -2
    cdef Py_ssize_t _add_sizes(self, Packet pkt, object extra) except -1
    cdef int _fill(self, Packet pkt, int hook, int kind) except -1
    cdef int _restore(self, Packet pkt, Py_ssize_t got) except -1
    cdef int _go_on(self, Packet pkt, int hook, HookEntry entry) except -1

cdef class HandoverPort(IoPort):
    cdef readonly Handover handover
    cpdef int receive(self, list slots, int budget) except -1

cdef class Entrance:
    cdef readonly Handover handover
    cdef readonly Gateway gateway
    cpdef int receive_batch(self, list packets, Py_ssize_t n) except -1
    cpdef int end_batch(self) except -1

cdef bint _for_everyone(Packet pkt) except -1
