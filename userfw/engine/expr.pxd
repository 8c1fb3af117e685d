from userfw.core.const cimport NFT_BREAK, NFT_CONTINUE
from userfw.core.packet cimport Packet
from userfw.engine.context cimport Context

cdef class Expr:
    cpdef int evaluate(self, Context ctx, Packet pkt) except? -100
