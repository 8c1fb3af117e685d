from userfw.core.const cimport NSEC_PER_SEC
from userfw.router.settings cimport Settings

cdef class Bucket:
    cdef public unsigned long long tokens, last

cdef class ErrorLimits:
    cdef Settings settings
    cdef unsigned long long credit, stamp
    cdef dict peers
    cpdef bint global_allow(self, unsigned long long now) except? -1
    cpdef bint peer_allow(
        self, unsigned long long hi, unsigned long long lo, unsigned long long cost, unsigned long long now,
        int burst) except? -1
