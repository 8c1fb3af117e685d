from userfw.engine.expr cimport Expr as Instruction
from userfw.engine.expressions.cmp cimport Cmp
from userfw.engine.expressions.counter cimport Counter
from userfw.engine.fused cimport PayloadBytes, PayloadTest

cdef class Test:
    cdef public Py_ssize_t expr, op
    cdef public list parts
    cdef public bytes data
    cdef bytes bytes_of(self, tuple values)

cdef class Part:
    cdef public Py_ssize_t hole, at, octets
    cdef public int width
    cdef public object mask
    cdef bint put(self, bytearray data, tuple values) except -1

cdef class Count:
    cdef public Py_ssize_t expr, op, packets, bytes

cdef class Pattern:
    cdef public object form
    cdef public str family
    cdef public tuple exprs, ops, refs
    cdef public list evaluated, tests, counts, clones, targets
    cdef public set legal
    cdef list _listed
    cpdef tuple program(self, tuple values)
