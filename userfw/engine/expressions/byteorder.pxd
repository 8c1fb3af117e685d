from userfw.core.const cimport NFT_CONTINUE
from userfw.core.packet cimport Packet
from userfw.engine.context cimport Context
from userfw.engine.expr cimport Expr

cdef class Byteorder(Expr):
    cdef readonly str op
    cdef readonly int sreg, dreg, src, dst, length, size
    cpdef int evaluate(self, Context ctx, Packet pkt) except? -100
