from userfw.core.const cimport NFT_BREAK, NFT_CONTINUE
from userfw.core.packet cimport Packet
from userfw.engine.context cimport Context
from userfw.engine.expr cimport Expr
from userfw.engine.expressions.counter cimport packet_length
from userfw.engine.shared cimport Shared

cdef class Quota(Expr):
    cdef readonly unsigned long long quota
    cdef readonly bint over
    cdef public unsigned long long used
    cdef public bint depleted
    cdef readonly Shared slot
    cpdef int evaluate(self, Context ctx, Packet pkt) except? -100
