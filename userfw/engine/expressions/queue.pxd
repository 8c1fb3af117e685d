from userfw.core.const cimport NF_QUEUE
from userfw.engine.const cimport QUEUE_BYPASS
from userfw.core.packet cimport Packet
from userfw.engine.context cimport Context
from userfw.engine.expr cimport Expr
from userfw.engine.expressions.hash cimport symmetric_hash

cdef class Queue(Expr):
    cdef readonly int num, total, src, sreg
    cdef readonly bint bypass, fanout
    cdef unsigned int secret
    cdef bytearray words
    cpdef int evaluate(self, Context ctx, Packet pkt) except? -100
