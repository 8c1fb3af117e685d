# The connection table. Explained in table.py.
cimport cython
from userfw.conntrack.conn cimport Conn, Tuple, TupleNode, copy_tuple, same_tuple
from userfw.conntrack.const cimport (
    CT_EVENT_ASSURED, CT_EVENT_DESTROY, CT_EVENT_HELPER, CT_EVENT_LABEL, CT_EVENT_MARK, CT_EVENT_NEW, CT_EVENT_PROTOINFO,
    CT_EVENT_RELATED,
    CT_EVENT_SECMARK, TCP_FIN_WAIT, TCP_CLOSE, IPS_NAT_CLASH, IPS_UNCHANGEABLE, ZONE_BOTH,
)
from userfw.conntrack.expect cimport Expectation, ExpectTable
from userfw.conntrack.steer cimport Steering
from userfw.conntrack.settings cimport Settings, TimeoutPolicy
from userfw.conntrack.tuples cimport hash_tuple, invert
from userfw.conntrack.wheel cimport Wheel
from userfw.core.ahead cimport AHEAD
from userfw.core.clock cimport Clock
from userfw.core.const cimport (
    CT_DIR_ORIGINAL, CT_DIR_REPLY, IPPROTO_TCP, IPS_ASSURED, IPS_CONFIRMED, IPS_DYING, IPS_FIXED_TIMEOUT, IPS_HELPER, IPS_HW_OFFLOAD, IPS_OFFLOAD,
    IPS_SRC_NAT, IPS_TEMPLATE, NF_ACCEPT, NF_DROP, NSEC_PER_SEC,
)
from userfw.core.packet cimport Packet

cdef extern from *:
    """
    #define OFFLOAD_GRACE 86400000000000ULL
    """
    const unsigned long long OFFLOAD_GRACE

cdef enum:
    SEGMENT = 16384  # so few lists that their headers stay in the cache
    SEGMENT_SHIFT = 14

cdef class ConnObserver:
    # Told of every connection that carries state of another room: when it enters with a NAT mapping by source, and of its end with
    # that or a flowtable entry.
    cpdef int confirmed(self, Conn conn) except -1
    cpdef int destroyed(self, Conn conn) except -1

@cython.final
cdef class Stats:
    cdef public unsigned long long found, invalid, insert, insert_failed, drop, early_drop, clash_resolve, expired, delete

cdef class ConnTable:
    cdef readonly Clock clock
    cdef readonly Settings settings
    cdef readonly ExpectTable expects
    cdef readonly Stats stats
    cdef readonly object rng
    cdef readonly Py_ssize_t count, buckets
    cdef readonly list listeners, observers
    cdef public bint listening
    cdef readonly list keys
    cdef Wheel wheel
    cdef list directory
    cdef Py_ssize_t mask, split
    cdef unsigned long long k0, k1
    cdef public unsigned int last_id, id_step
    cdef public Steering steering
    cdef Tuple scratch

    # lookup
    cpdef unsigned int rehash(self, Tuple key) noexcept
    cpdef TupleNode find(self, Tuple key)
    cpdef TupleNode find_ahead(self, Tuple key, Py_ssize_t ahead)
    cpdef list members(self, Py_ssize_t base, Py_ssize_t mask)
    cpdef bint taken(self, Tuple key, Conn ignored) except? -1
    # life of a connection
    cpdef Conn new(self, Tuple orig, int zone, int zone_dir)
    cpdef Conn template(self, int zone, int zone_dir)
    cpdef Conn insert(self, Conn conn)
    cdef TupleNode _rival(self, Conn conn, TupleNode node)
    cpdef bint insert_reply(self, Conn conn) except -1
    cpdef int destroy(self, Conn conn) except -1
    cpdef int set_closing(self, Conn conn) except -1
    cpdef int refresh(self, Conn conn, unsigned long long timeout) except -1
    cpdef int account(self, Conn conn, int direction, Packet pkt) except -1
    cpdef bint room(self, unsigned int hash) except? -1
    # what rules and users change
    cpdef int set_mark(self, Conn conn, unsigned int mark) except -1
    cpdef int set_secmark(self, Conn conn, unsigned int secmark) except -1
    cpdef int set_labels(self, Conn conn, unsigned long long hi, unsigned long long lo) except -1
    cpdef int set_helper(self, Conn conn, object helper) except -1
    cpdef int deliver(self, Conn conn) except -1
    # reaping
    cpdef int reap(self, int budget) except -1
    cpdef unsigned long long next_deadline(self)
    # inside
    cdef TupleNode _walk(self, Tuple key)
    cdef Py_ssize_t _index(self, unsigned int hash) noexcept
    cdef int _link(self, TupleNode node) except -1
    cdef int _unlink(self, TupleNode node) except -1
    cdef int _grow(self) except -1
    cdef int _shrink(self) except -1
    cdef TupleNode _head(self, Py_ssize_t index)
    cdef int _tell(self, Conn conn, unsigned int events) except -1
