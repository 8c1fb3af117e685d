from userfw.core.const cimport NFT_BREAK, NFT_CONTINUE
from userfw.core.packet cimport Packet
from userfw.engine.context cimport Context
from userfw.engine.expr cimport Expr

cdef class FlowOffload(Expr):
    cdef readonly str flowtable
    cdef public object table
    cpdef int evaluate(self, Context ctx, Packet pkt) except? -100
