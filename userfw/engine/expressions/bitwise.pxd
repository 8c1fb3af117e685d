from userfw.engine.const cimport U32_MASK
from userfw.core.const cimport NFT_CONTINUE
from userfw.core.packet cimport Packet
from userfw.engine.context cimport Context
from userfw.engine.expr cimport Expr

cdef class Bitwise(Expr):
    cdef readonly int sreg, dreg, src, dst, length
    cdef readonly bytes mask, xor
    cpdef int evaluate(self, Context ctx, Packet pkt) except? -100

cdef class BitwiseShift(Expr):
    cdef readonly str op
    cdef readonly bint left
    cdef readonly int sreg, dreg, src, dst, length, bits, words
    cpdef int evaluate(self, Context ctx, Packet pkt) except? -100

cdef class BitwiseBool(Expr):
    cdef readonly str op
    cdef readonly int code, sreg, sreg2, dreg, src, src2, dst, length, padded
    cpdef int evaluate(self, Context ctx, Packet pkt) except? -100
