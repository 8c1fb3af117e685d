from userfw.core.const cimport IPPROTO_TCP, NF_ACCEPT, NF_DROP, NFT_BREAK, NFT_CONTINUE
from userfw.core.drop cimport DROP_SYNPROXY
from userfw.core.packet cimport Packet
from userfw.engine.context cimport Context
from userfw.engine.expr cimport Expr

cdef class Synproxy(Expr):
    cdef readonly int mss, wscale, flags
    cpdef int evaluate(self, Context ctx, Packet pkt) except? -100
