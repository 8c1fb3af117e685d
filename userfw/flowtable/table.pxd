from userfw.conntrack.conn cimport Conn
from userfw.conntrack.table cimport ConnObserver, ConnTable
from userfw.core.clock cimport Clock
from userfw.core.const cimport (
    CT_DIR_ORIGINAL, CT_DIR_REPLY, IPPROTO_TCP, IPPROTO_UDP, NF_ACCEPT, NF_INET_LOCAL_IN, NF_INET_LOCAL_OUT, NF_STOLEN, NFPROTO_IPV4, NFPROTO_IPV6, NSEC_PER_SEC, PACKET_HOST, TCP_FIN, TCP_RST,
)
from userfw.core.fastpath cimport CachedRoute, Crossing, FastPath, Sender, tag_code, tags_of, untag
from userfw.core.hook cimport HookEntry
from userfw.core.packet cimport Device, Packet
from userfw.flowtable.flow cimport Flow, FlowTuple, hash_key
from userfw.flowtable.handover cimport allowed, begin, describe, end, hold

cdef class FlowTable(FastPath):
    cdef public str name
    cdef public int family, priority
    cdef public bint counter
    cdef public object devices, offloader
    cdef public Sender sender
    cdef readonly ConnTable conns
    cdef readonly Clock clock
    cdef public unsigned long long k0, k1, tcp_timeout, udp_timeout
    cdef list _buckets, _old
    cdef Py_ssize_t _mask, _old_mask, _migrated, _sweep
    cdef public Py_ssize_t count
    cdef public unsigned long long forwarded, added, torn_down, expired, refused, threshold
    cdef public unsigned int epoch
    cdef unsigned int _next_id, _tags
    cdef bint _crossed

    cpdef int forward(self, Packet pkt) except -1
    cdef int _send(self, Packet pkt, FlowTuple entry, Py_ssize_t length) except -1
    cpdef FlowTuple find(self, unsigned int hash, unsigned long long src_hi, unsigned long long src_lo,
        unsigned long long dst_hi, unsigned long long dst_lo, unsigned int ports, unsigned int key)
    cpdef int add(self, Packet pkt, int hook) except -1
    cdef int _make(self, Packet pkt, Conn conn, CachedRoute back, int hook) except -1
    cdef int _way(self, Flow flow, FlowTuple there, FlowTuple back) except -1
    cdef Device _bridge_of(self, Device device)
    cdef Crossing _cross(self, FlowTuple there, Device device)
    cdef bint _closes(self, Flow flow) except? -1
    cdef Device _lowest(self, Device device, bint inward, Crossing crossing)
    cpdef bint has_port(self, Device device) except? -1
    cdef bint _hooked(self, str name) except? -1
    cdef int _insert(self, FlowTuple entry) except -1
    cdef int _unlink(self, FlowTuple entry) except -1
    cdef int _grow(self) except -1
    cdef int _migrate(self, Py_ssize_t buckets) except -1
    cpdef int teardown(self, Flow flow) except -1
    cpdef int credit(self, Flow flow, int dir, unsigned long long packets, unsigned long long octets) except -1
    cpdef int sweep(self, Py_ssize_t budget) except -1

cdef class FlowObserver(ConnObserver):
    cpdef int destroyed(self, Conn conn) except -1

cdef bint _for_master(Packet pkt) except? -1
cdef int _count_arrival(FlowTuple entry, Py_ssize_t length) except -1

cdef enum:
    _MINIMUM = 1024
    _STEP = 64
    _ANY_LENGTH = 0x7FFFFFFF

cdef class FlowEntry(HookEntry):
    cdef readonly FlowTable table
    cpdef int run(self, Packet pkt, int hook) except -1
