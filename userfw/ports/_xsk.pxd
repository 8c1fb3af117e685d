cimport cython
from libc.errno cimport errno
from libc.string cimport memcpy
from cpython.bytearray cimport PyByteArray_AS_STRING
from userfw.core.const cimport HEADROOM, MAX_FRAME, U32_MASK
from userfw.core.packet cimport Packet

cdef extern from *:
    """
    #include <stdint.h>
    static inline unsigned int ring_load(const unsigned char *p) { return __atomic_load_n((const uint32_t *)p, __ATOMIC_ACQUIRE); }
    static inline void ring_store(unsigned char *p, unsigned int v) { __atomic_store_n((uint32_t *)p, v, __ATOMIC_RELEASE); }
    """
    unsigned int ring_load(const unsigned char *p) noexcept nogil
    void ring_store(unsigned char *p, unsigned int value) noexcept nogil

cdef extern from "sys/socket.h" nogil:
    ssize_t sys_send "send"(int fd, const void *buf, size_t count, int flags)

cpdef int kick(int fd) except? -10000

@cython.final
cdef class Ring:
    cdef unsigned char[::1] memory
    cdef unsigned char *base
    cdef Py_ssize_t length
    cdef readonly unsigned int size
    cdef public unsigned int at
    cdef unsigned int mask
    cdef readonly bint producing
    cdef Py_ssize_t producer, consumer, desc, flags, step
    cpdef unsigned int load32(self, Py_ssize_t off) except? 0xFFFFFFFF
    cpdef int store32(self, Py_ssize_t off, unsigned int value) except -1
    cpdef unsigned long long load64(self, Py_ssize_t off) except? 0xFFFFFFFF
    cpdef int store64(self, Py_ssize_t off, unsigned long long value) except -1
    cpdef unsigned int available(self) except? 0xFFFFFFFF
    cpdef int publish(self) except -1
    cpdef Py_ssize_t slot(self) except? -1
    cpdef bint wants_wakeup(self) except? -1

@cython.final
cdef class Umem:
    cdef readonly Ring fill, completion, rx, tx
    cdef unsigned char[::1] memory
    cdef readonly Py_ssize_t size, chunk
    cdef unsigned long long[::1] free
    cdef readonly unsigned int spare
    cdef public unsigned long long refused
    cpdef int receive(self, list slots, int count) except -1
    cdef int _refill(self, unsigned long long address) except -1
    cdef int _copy_in(self, Packet pkt, Py_ssize_t where, Py_ssize_t length) except -1
    cpdef int put(self, Packet pkt) except -1
    cpdef int submit(self) except -1
    cpdef int reclaim(self) except -1
    cpdef unsigned int pending(self) except? 0xFFFFFFFF
