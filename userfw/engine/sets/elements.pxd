from userfw.engine.const cimport U32_MASK
from userfw.engine.context cimport Context
from userfw.core.packet cimport Packet
from userfw.engine.expr cimport Expr

cdef class Verdict:
    cdef readonly int code
    cdef readonly str chain
    cdef public object target

cdef class Rich:
    cdef public tuple exprs
    cdef public int count
    cdef public Verdict verdict
    cdef public object object, comment, userdata
    cdef public int flags

cdef class Store:
    cdef readonly int klen, dlen
    cdef readonly bint ranged
    cdef readonly Py_ssize_t count, top, capacity
    cdef bytearray keys, ends, data, live, deadline, lifetime
    cdef list rich, free
    cdef readonly bint timed
    cdef readonly Py_ssize_t rich_count, expr_count

    cpdef Store copy(self)
    cdef Py_ssize_t allocate(self) except -1
    cdef int release(self, Py_ssize_t id) except -1
    cdef int put_key(self, Py_ssize_t id, bytes key, bytes end) except -1
    cdef int put_register_key(self, Py_ssize_t id, bytearray regs, int src) except -1
    cdef int put_register_data(self, Py_ssize_t id, bytearray regs, int src) except -1
    cdef int put_data(self, Py_ssize_t id, bytes data) except -1
    cdef int put_time(self, Py_ssize_t id, unsigned long long lifetime, unsigned long long deadline) except -1
    cdef int put_rich(self, Py_ssize_t id, Rich rich) except -1
    cdef bint same_key(self, Py_ssize_t id, bytearray regs, int src) except -1
    cdef bint alive(self, Py_ssize_t id, unsigned long long now) except -1
    cdef unsigned long long deadline_of(self, Py_ssize_t id) except? 0xFFFFFFFF
    cdef unsigned long long lifetime_of(self, Py_ssize_t id) except? 0xFFFFFFFF
    cdef Rich rich_of(self, Py_ssize_t id)
    cdef int copy_data(self, Py_ssize_t id, bytearray regs, int dst) except -1

cdef unsigned long long load64(bytearray column, Py_ssize_t at) except? 0xFFFFFFFF
cdef int store64(bytearray column, Py_ssize_t at, unsigned long long value) except -1
cdef unsigned int load32(bytearray column, Py_ssize_t at) except? 0xFFFFFFFF
cdef int store32(bytearray column, Py_ssize_t at, unsigned int value) except -1
