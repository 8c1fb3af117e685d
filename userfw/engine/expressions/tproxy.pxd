from userfw.core.const cimport IPPROTO_TCP, IPPROTO_UDP, NFPROTO_IPV6, NFT_BREAK, NFT_CONTINUE
from userfw.core.packet cimport Packet
from userfw.engine.context cimport Context
from userfw.engine.expr cimport Expr

cdef class Tproxy(Expr):
    cdef readonly int family, addr, port, addr_reg, port_reg
    cpdef int evaluate(self, Context ctx, Packet pkt) except? -100
