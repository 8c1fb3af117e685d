from userfw.core.const cimport IPPROTO_TCP, NFPROTO_IPV4, NFT_BREAK, NFT_CONTINUE, TCP_SYN
from userfw.core.packet cimport Packet
from userfw.engine.context cimport Context
from userfw.engine.expr cimport Expr

cdef class Osf(Expr):
    cdef readonly int dreg, dst, ttl
    cdef readonly bint version
    cpdef int evaluate(self, Context ctx, Packet pkt) except? -100
