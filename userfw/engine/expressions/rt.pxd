from userfw.core.const cimport NFPROTO_IPV4, NFPROTO_IPV6, NFT_BREAK, NFT_CONTINUE
from userfw.core.packet cimport Packet
from userfw.engine.const cimport RT_CLASSID, RT_NEXTHOP4, RT_NEXTHOP6, RT_TCPMSS
from userfw.engine.context cimport Context
from userfw.engine.expr cimport Expr
from userfw.engine.services cimport RouteInfo

cdef class Rt(Expr):
    cdef readonly int key, length, dst, dreg
    cpdef int evaluate(self, Context ctx, Packet pkt) except? -100
