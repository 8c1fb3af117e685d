from userfw.core.packet cimport Packet
from userfw.engine.context cimport Context
from userfw.engine.expr cimport Expr

cdef class Rule:
    cdef readonly tuple exprs
    cdef readonly tuple ops
    cdef readonly int count
    cdef public unsigned long long handle
    cdef public object location, comment, owner
