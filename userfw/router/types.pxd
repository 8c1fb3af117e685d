from userfw.core.const cimport ETH_P_IP, ETH_P_IPV6, NFPROTO_IPV4, U32_MASK
from userfw.core.fastpath cimport CachedRoute
from userfw.core.packet cimport Device, Packet
from userfw.router.const cimport NUD_NONE, RTN_UNICAST, TABLE_MAIN

cdef class Generation:
    cdef public unsigned int value

cdef class NextHop:
    cdef public Device device
    cdef public int gw_family, weight
    cdef public unsigned long long gw_hi, gw_lo
    cdef public bint onlink
    cpdef bint alive(self) except? -1

cdef class Route:
    cdef public int family, prefixlen, type, table, scope, protocol, mtu, tos
    cdef public unsigned int metric
    cdef public unsigned long long hi, lo, src_hi, src_lo
    cdef public list nexthops
    cdef public Route next
    cpdef bint usable(self) except? -1

cdef class Neighbour:
    cdef public int family, state, probes
    cdef public unsigned long long hi, lo
    cdef public Device device
    cdef public bint connected, dead, is_router
    cdef public unsigned int mac_hi, mac_lo, mid
    cdef public unsigned long long head
    cdef public list queue
    cdef public Py_ssize_t queued
    cdef public unsigned long long confirmed, used, updated, deadline
    cpdef int set_mac(self, unsigned int mac_hi, unsigned int mac_lo) except -1

cdef class PathMtu:
    cdef public int mtu
    cdef public bint locked
    cdef public unsigned long long expires

cdef class Dst(CachedRoute):
    cdef public Generation generation
    cdef public unsigned int gen, key_mark
    cdef public int family, type, key_iif, via_family, prefixlen, weights
    cdef public bint gateway
    cdef public unsigned long long key_hi, key_lo, via_hi, via_lo, src_hi, src_lo
    cdef public Neighbour neigh
    cdef public Route source
    cdef public list ways
    cdef public Dst own
    cpdef retire(self)
    cpdef Dst narrowed(self, int mtu)

cpdef int ethertype_of(int family) noexcept
