# No garbage collector header: a million flows must not be walked; FlowTable.teardown breaks the cycles.
cimport cython
from userfw.conntrack.conn cimport Conn
from userfw.conntrack.tuples cimport hash_words
from userfw.core.const cimport NFPROTO_IPV4, U32_MASK, VNET_F_NEEDS_CSUM
from userfw.core.fastpath cimport CachedRoute, Crossing
from userfw.core.packet cimport Device, Packet

@cython.final
cdef class FlowTuple:
    # the key and the chain first, then what a hit needs
    cdef public unsigned int hash, ports, key, tags, out_tags, new_ports
    cdef public unsigned long long src_lo, dst_lo
    cdef public FlowTuple next
    cdef public Flow flow
    cdef public CachedRoute route
    cdef public Device out, arrives
    cdef public Crossing comes, goes
    cdef public int dir, mtu, hops
    cdef public unsigned int l3_delta, l4_delta, pseudo_delta
    cdef public bint rewrites, judged, local
    cdef public unsigned long long new_src_lo, new_dst_lo
    cdef public unsigned long long packets, bytes
    cdef public unsigned long long src_hi, dst_hi, new_src_hi, new_dst_hi
    cpdef int set_key(self, int family, int l4proto, int iif, unsigned long long k0, unsigned long long k1) except -1
    cpdef int set_rewrite(self, int family) except -1
    cpdef int rewrite(self, Packet pkt) except -1
    cdef int _rewrite_ipv4(self, Packet pkt) except -1
    cdef int _rewrite_ipv6(self, Packet pkt) except -1

@cython.final
cdef class Flow:
    cdef public unsigned long long timeout
    cdef public int l4proto, family
    cdef public Conn conn
    cdef public FlowTuple original, reply
    cdef public object table, offload
    cdef public bint open, dead
    cdef public unsigned int id, epoch
    cpdef FlowTuple direction(self, int dir)

cpdef unsigned int hash_key(unsigned long long k0, unsigned long long k1, unsigned long long src_hi, unsigned long long src_lo,
    unsigned long long dst_hi, unsigned long long dst_lo, unsigned int ports, unsigned int key) noexcept
cpdef unsigned int delta16(unsigned int old, unsigned int new) noexcept
cpdef unsigned int delta64(unsigned long long old, unsigned long long new) noexcept
cdef unsigned int _fold(unsigned int total) noexcept
cdef int _ports(FlowTuple flow, Packet pkt) except -1
cdef enum:
    _TTL_DELTA = 0xFEFF
