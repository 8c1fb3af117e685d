from userfw.core.const cimport NFT_BREAK, NFT_CONTINUE
from userfw.core.packet cimport Packet
from userfw.engine.context cimport Context
from userfw.engine.expr cimport Expr

cdef class Secmark(Expr):
    cdef readonly str context
    cdef readonly unsigned int id
    cpdef int evaluate(self, Context ctx, Packet pkt) except? -100

cdef class TunnelObject(Expr):
    cdef readonly object info
    cpdef int evaluate(self, Context ctx, Packet pkt) except? -100
