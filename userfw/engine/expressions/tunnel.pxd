from userfw.core.const cimport NFT_BREAK, NFT_CONTINUE
from userfw.core.packet cimport Packet
from userfw.engine.context cimport Context
from userfw.engine.expr cimport Expr

cdef class Tunnel(Expr):
    cdef readonly int length, dst, dreg
    cdef readonly str key, mode
    cdef readonly bint path
    cpdef int evaluate(self, Context ctx, Packet pkt) except? -100
