from userfw.core.const cimport NFT_CONTINUE
from userfw.core.packet cimport Packet
from userfw.engine.context cimport Context
from userfw.engine.expr cimport Expr

cdef class Log(Expr):
    cdef readonly str prefix
    cdef readonly int level, flags, group
    cdef readonly unsigned int snaplen, qthreshold
    cpdef int evaluate(self, Context ctx, Packet pkt) except? -100
