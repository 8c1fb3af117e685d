from userfw.engine.const cimport U32_MASK
from userfw.core.const cimport NFT_CONTINUE
from userfw.core.packet cimport Packet
from userfw.engine.context cimport Context
from userfw.engine.expr cimport Expr

cdef class Numgen(Expr):
    cdef readonly int dreg, dst
    cdef readonly bint random
    cdef readonly unsigned long long modulus, offset
    cdef public unsigned long long counter
    cpdef int evaluate(self, Context ctx, Packet pkt) except? -100
