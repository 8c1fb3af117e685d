# Mappings by source. Explained in source.py.
cimport cython
from userfw.conntrack.conn cimport Conn, Tuple
from userfw.conntrack.table cimport ConnObserver
from userfw.conntrack.tuples cimport hash_words
from userfw.core.const cimport IPS_SRC_NAT

cdef enum:
    SOURCE_SEGMENT = 1024
    SOURCE_SHIFT = 10

cdef class SourceIndex(ConnObserver):
    cdef list directory
    cdef Py_ssize_t mask, split
    cdef readonly Py_ssize_t buckets, count
    cdef unsigned long long k0, k1
    cpdef int add(self, Conn conn) except -1
    cpdef Conn first(self, Tuple orig)
    cpdef Conn after(self, Conn conn, Tuple orig)
    cpdef int confirmed(self, Conn conn) except -1
    cpdef int destroyed(self, Conn conn) except -1
    cdef unsigned int _hash(self, Tuple t) noexcept
    cdef Py_ssize_t _index(self, unsigned int hash) noexcept
    cdef int _grow(self) except -1
cdef bint _same(Tuple a, Tuple b) noexcept
