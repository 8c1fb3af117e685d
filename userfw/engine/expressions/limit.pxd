from userfw.core.const cimport NFT_BREAK, NFT_CONTINUE
from userfw.core.packet cimport Packet
from userfw.engine.context cimport Context
from userfw.engine.expr cimport Expr
from userfw.engine.expressions.counter cimport packet_length
from userfw.engine.shared cimport Shared

cdef class Limit(Expr):
    cdef readonly unsigned long long rate, unit, burst, nsecs, tokens_max, cost
    cdef readonly bint by_bytes, invert
    cdef public unsigned long long tokens, last
    cdef readonly Shared slot
    cpdef int evaluate(self, Context ctx, Packet pkt) except? -100
