from userfw.core.const cimport NFPROTO_IPV4, U32_MASK
from userfw.core.packet cimport Device
from userfw.router.const cimport RTN_LOCAL
from userfw.router.types cimport NextHop, Route

cpdef unsigned int mix(unsigned long long hi, unsigned long long lo, unsigned int seed) noexcept
cpdef bint leaves_by(Route route, Device oif) except? -1

cdef class PrefixHash:
    cdef readonly int length
    cdef readonly Py_ssize_t count, size
    cdef public list slots
    cdef Py_ssize_t filled
    cdef unsigned int seed
    cdef public unsigned long long mask_hi, mask_lo
    cdef unsigned long long[::1] his, los
    cdef bytearray states
    cdef _allocate(self, Py_ssize_t size)
    cdef Py_ssize_t find(self, unsigned long long hi, unsigned long long lo) except? -2
    cpdef Route head(self, unsigned long long hi, unsigned long long lo)
    cpdef store(self, unsigned long long hi, unsigned long long lo, Route head)
    cdef _put(self, unsigned long long hi, unsigned long long lo, Route head)
    cdef _grow(self)

cdef class Table:
    cdef readonly int family, number
    cdef unsigned int seed
    cdef public dict by_length
    cdef public list order
    cpdef Route lookup(self, unsigned long long hi, unsigned long long lo, Device oif, int tos)
