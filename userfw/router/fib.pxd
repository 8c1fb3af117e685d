from userfw.core.const cimport NFPROTO_IPV4, NFPROTO_IPV6, U32_MASK
from userfw.core.packet cimport Address, Device
from userfw.router.const cimport (
    RTN_BROADCAST, RTN_LOCAL, RTN_MULTICAST, RTN_THROW, RTN_UNICAST, RTN_UNREACHABLE, RTN_UNSPEC, TABLE_DEFAULT, TABLE_LOCAL, TABLE_MAIN,
)
from userfw.router.lpm cimport Table, mix
from userfw.router.types cimport Dst, Generation, NextHop, PathMtu, Route

cdef class Rule:
    cdef public int priority, family, table, type, iif
    cdef public unsigned int mark, mark_mask
    cdef public tuple source, destination
    cdef public bint invert

cdef class Fib:
    cdef readonly unsigned int seed
    cdef readonly Generation generation
    cdef public dict tables, paths
    cdef set asked
    cdef public list rules, watchers
    cdef readonly bint by_mark, by_source
    cdef Py_ssize_t cache_mask
    cdef list cache
    cdef readonly Table local4, main4, local6, main6
    cpdef Route lookup(
        self, int family, unsigned long long hi, unsigned long long lo, unsigned long long src_hi, unsigned long long src_lo,
        unsigned int mark, int iif, Device oif, int tos)
    cpdef bint broadcast4(self, unsigned long long lo) except? -1
    cdef Route _in_table(self, int family, int number, unsigned long long hi, unsigned long long lo, Device oif, int tos)
    cdef Route _lookup_rules(
        self, int family, unsigned long long hi, unsigned long long lo, unsigned long long src_hi, unsigned long long src_lo,
        unsigned int mark, int iif, Device oif, int tos)
    cdef bint _fits(
        self, Dst dst, int family, unsigned long long hi, unsigned long long lo, unsigned int mark, int index) noexcept
    cpdef Dst resolve(
        self, int family, unsigned long long hi, unsigned long long lo, unsigned long long src_hi, unsigned long long src_lo,
        unsigned int mark, Device iif)
    cpdef Dst resolve_out(
        self, int family, unsigned long long hi, unsigned long long lo, unsigned long long src_hi, unsigned long long src_lo,
        unsigned int mark, Device oif)
    cpdef Dst decide(self, Route route, int family, unsigned long long hi, unsigned long long lo)
    cdef Dst _decide(self, Route route, int family, unsigned long long hi, unsigned long long lo)
    cpdef forget(self, int family, unsigned long long hi, unsigned long long lo)
    cpdef Dst way(self, Dst dst, unsigned int flow)

cdef bint _link_scoped(unsigned long long hi) noexcept
cdef _take_hop(Dst dst, NextHop hop)
