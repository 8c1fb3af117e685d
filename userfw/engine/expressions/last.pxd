from userfw.core.const cimport NFT_CONTINUE
from userfw.core.packet cimport Packet
from userfw.engine.context cimport Context
from userfw.engine.expr cimport Expr

cdef class Last(Expr):
    cdef public bint seen
    cdef public long long when
    cdef readonly long long given
    cpdef int evaluate(self, Context ctx, Packet pkt) except? -100
