from userfw.core.const cimport NFT_BREAK, NFT_CONTINUE
from userfw.core.packet cimport Packet
from userfw.engine.const cimport CMP_EQ, CMP_GT, CMP_LT, CMP_LTE, CMP_NEQ
from userfw.engine.context cimport Context
from userfw.engine.expr cimport Expr

cdef int memcmp(bytearray regs, int src, bytes data, int length) except? -100

cdef class Cmp(Expr):
    cdef readonly int op, sreg, src, length
    cdef readonly bytes data
    cpdef int evaluate(self, Context ctx, Packet pkt) except? -100
    cpdef Cmp with_data(self, bytes data)

cdef class Range(Expr):
    cdef readonly int op, sreg, src, length
    cdef readonly bytes low, high
    cpdef int evaluate(self, Context ctx, Packet pkt) except? -100
