from userfw.core.const cimport NFT_BREAK
from userfw.core.packet cimport Packet
from userfw.engine.context cimport Context
from userfw.engine.expr cimport Expr

cdef class Xfrm(Expr):
    cdef readonly int length, dst, dreg, spnum
    cdef readonly str key, direction
    cpdef int evaluate(self, Context ctx, Packet pkt) except? -100
