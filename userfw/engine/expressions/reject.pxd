from userfw.core.const cimport NF_DROP, NFPROTO_IPV4
from userfw.core.drop cimport DROP_REJECT
from userfw.engine.const cimport REJECT_ICMP_UNREACH, REJECT_ICMPX_UNREACH
from userfw.core.packet cimport Packet
from userfw.engine.context cimport Context
from userfw.engine.expr cimport Expr

cdef bytes ICMPX_TO_ICMP, ICMPX_TO_ICMPV6

cdef class Reject(Expr):
    cdef readonly int type, code
    cpdef int evaluate(self, Context ctx, Packet pkt) except? -100
