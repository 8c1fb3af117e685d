from userfw.engine.sets.base cimport Set
from userfw.engine.sets.elements cimport Store, load32, store32

cdef class IntervalSet(Set):
    cdef bytearray lows, order, top
    cdef readonly Py_ssize_t n
    cdef bint deferred, ascending
    cdef Py_ssize_t latest, entered, left
    cdef list pending, gone
    cdef bytearray merged, merged_order
    cdef Py_ssize_t old_at, new_at, filled
    cdef bint _merge(self, Py_ssize_t budget) except -1
    cdef Py_ssize_t _last_not_above(self, bytearray data, Py_ssize_t at) except -2
    cdef int _compare(self, bytearray column, Py_ssize_t where, bytearray data, Py_ssize_t at) except -100
    cdef int _build_top(self) except -1
    cdef int _drift(self) except -1
    cdef list _known(self, bytearray lows, bytearray ends, Py_ssize_t first, Py_ssize_t stop)
