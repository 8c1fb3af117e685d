from userfw.engine.const cimport U32_MASK
from userfw.engine.sets.base cimport Set
from userfw.engine.sets.elements cimport Store, load32, load64, store32, store64
from userfw.engine.sets.hash cimport hash_key

cdef class Group:
    cdef bytes mask
    cdef readonly object key
    cdef int length
    cdef bytearray heads, nexts, ids, masked
    cdef Py_ssize_t buckets, top
    cdef readonly Py_ssize_t count
    cdef Py_ssize_t free_head
    cpdef Group copy(self)
    cdef unsigned int slot(self, bytearray data, Py_ssize_t at, unsigned int seed) except? 0xFFFFFFFF
    cdef int insert(self, Py_ssize_t id, bytearray piece, unsigned int seed) except -1
    cdef int erase(self, Py_ssize_t id, bytearray piece, unsigned int seed) except -1
    cdef int grow(self, unsigned int seed) except -1

cdef class RangeSet(Set):
    cdef unsigned int seed
    cdef list groups
    cdef readonly dict by_mask
    cdef bytearray sequence, starts, lengths
    cdef unsigned long long serial
    cdef int nfields
    cdef bint _inside(self, Py_ssize_t id, bytearray regs, int src) except -1
