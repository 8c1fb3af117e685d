from userfw.core.const cimport NFT_CONTINUE, NFT_GOTO, NFT_JUMP
from userfw.core.packet cimport Packet
from userfw.engine.context cimport Context
from userfw.engine.expr cimport Expr

cdef class Immediate(Expr):
    cdef readonly int dreg, dst, length
    cdef readonly bytes data, padded
    cpdef int evaluate(self, Context ctx, Packet pkt) except? -100

cdef class ImmediateVerdict(Expr):
    cdef readonly int code
    cdef readonly str chain
    cdef public object target
    cpdef int evaluate(self, Context ctx, Packet pkt) except? -100
