from userfw.core.const cimport NFT_BREAK, NFT_CONTINUE
from userfw.engine.const cimport DYNSET_DELETE, DYNSET_UPDATE
from userfw.core.packet cimport Packet
from userfw.engine.context cimport Context
from userfw.engine.expr cimport Expr
from userfw.engine.sets.base cimport Set

cdef class Dynset(Expr):
    cdef readonly int op, src, data_src, sreg_key, sreg_data
    cdef readonly bint invert
    cdef readonly unsigned long long timeout_ms, lifetime
    cdef readonly str set_name
    cdef readonly tuple exprs, given
    cdef public Set set
    cpdef int evaluate(self, Context ctx, Packet pkt) except? -100
