from userfw.core.clock cimport Clock
from userfw.core.const cimport NFT_BREAK, NFT_CONTINUE
from userfw.core.packet cimport Packet
from userfw.engine.const cimport DYNSET_DELETE, DYNSET_UPDATE
from userfw.engine.context cimport Context
from userfw.engine.expr cimport Expr
from userfw.engine.sets.elements cimport Rich, Store, Verdict

cdef class Set:
    cdef readonly str name, table
    cdef readonly int flags, klen, dlen, data_type
    cdef readonly tuple fields
    cdef public Clock clock
    cdef public unsigned long long timeout, gc_interval
    cdef public Py_ssize_t size
    cdef public unsigned long long handle
    cdef public object owner, comment, sharing
    cdef public tuple exprs
    cdef readonly Store store
    cdef Py_ssize_t catchall, hand
    cdef list journal
    cdef bytearray scratch

    cpdef Py_ssize_t find(self, bytearray regs, int src) except -2
    cpdef bint contains(self, bytearray regs, int src) except -1
    cdef Py_ssize_t seek(self, bytearray regs, int src) except -2
    cdef int index(self, Py_ssize_t id) except -1
    cdef int unindex(self, Py_ssize_t id) except -1
    cdef int clear_index(self) except -1
    cdef int take_index(self, Set other, bint copied) except -1
    cdef Py_ssize_t overlap(self, bytes key, bytes end) except -3
    cdef Py_ssize_t match(self, bytes key, bytes end) except -2
    cdef Rich rich(self, Py_ssize_t id)
    cdef int run_exprs(self, Py_ssize_t id, Context ctx, Packet pkt) except? -100
    cdef Py_ssize_t obtain(self, bytearray regs, int src, int data_src, unsigned long long lifetime, object exprs) except -2
    cdef int renew(self, Py_ssize_t id, unsigned long long lifetime) except -1
    cdef int forget(self, bytearray regs, int src) except -1
    cdef int _drop(self, Py_ssize_t id) except -1
    cpdef int sweep(self, Py_ssize_t budget) except -1
