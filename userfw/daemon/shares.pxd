from libc.stdint cimport INT64_MAX as NOBODY

cdef enum:
    TURN_NS = 250000
    CREDIT_NS = 2000000
    CHARGE_MAX_NS = 1000000
    FEWEST = 8

cdef class Share:
    cdef readonly unsigned long long served, frame_ns

cdef class Shares:
    cdef readonly unsigned long long floor, least
    cpdef int look(self) noexcept
    cpdef int join(self, Share share) noexcept
    cpdef bint turn(self, Share share) noexcept
    cpdef int budget(self, Share share, int most) noexcept
    cpdef int charge(self, Share share, unsigned long long ns, int frames, int opened) noexcept
