from userfw.engine.const cimport U32_MASK
from userfw.engine.sets.base cimport Set
from userfw.engine.sets.elements cimport Store, load32, store32

cdef unsigned int hash_key(bytearray data, Py_ssize_t at, int length, unsigned int seed) except? 0xFFFFFFFF

cdef unsigned long long mix(unsigned long long h, unsigned long long k) noexcept

cdef class HashSet(Set):
    cdef bytearray slots
    cdef Py_ssize_t mask
    cdef unsigned int seed
    cdef int _grow(self) except -1

cdef class SmallSet(HashSet):
    cdef bytearray bits
    cdef Py_ssize_t plain
    cdef int _bit(self, Py_ssize_t id, bint on) except -1
