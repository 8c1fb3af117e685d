from userfw.core.const cimport CT_UNTRACKED, NFT_CONTINUE
from userfw.core.packet cimport Packet
from userfw.engine.context cimport Context
from userfw.engine.expr cimport Expr

cdef class Notrack(Expr):
    cpdef int evaluate(self, Context ctx, Packet pkt) except? -100
