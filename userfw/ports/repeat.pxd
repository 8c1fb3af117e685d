from userfw.core.const cimport HEADROOM
from userfw.core.packet cimport Packet
from userfw.ports.base cimport IoPort
from userfw.wire._raw cimport copy

cdef class RepeatPort(IoPort):
    cdef bytearray _store
    cdef list _lengths
    cdef Py_ssize_t _stride, _next
    cdef public Py_ssize_t count
    cpdef int receive(self, list slots, int budget) except -1

cdef class SpreadPort(IoPort):
    cdef bytearray _frame
    cdef unsigned int _base, _sum
    cdef unsigned long long _at, _mask
    cdef public unsigned long long count
    cpdef int receive(self, list slots, int budget) except -1
