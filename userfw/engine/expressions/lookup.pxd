from userfw.core.const cimport NFT_BREAK, NFT_CONTINUE
from userfw.core.packet cimport Packet
from userfw.engine.context cimport Context
from userfw.engine.expr cimport Expr
from userfw.engine.sets.base cimport Set
from userfw.engine.sets.elements cimport Rich, Verdict

cdef class Lookup(Expr):
    cdef readonly int sreg, dreg, src, dst
    cdef readonly bint invert, map, verdict
    cdef readonly str set_name
    cdef public Set set
    cpdef int evaluate(self, Context ctx, Packet pkt) except? -100
