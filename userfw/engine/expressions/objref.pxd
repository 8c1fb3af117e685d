from userfw.core.const cimport NFT_BREAK, NFT_CONTINUE
from userfw.core.packet cimport Packet
from userfw.engine.context cimport Context
from userfw.engine.expr cimport Expr
from userfw.engine.objects.object cimport NamedObject
from userfw.engine.sets.base cimport Set
from userfw.engine.sets.elements cimport Rich

cdef class Objref(Expr):
    cdef readonly int type
    cdef readonly str name
    cdef public NamedObject object
    cpdef int evaluate(self, Context ctx, Packet pkt) except? -100

cdef class ObjrefMap(Expr):
    cdef readonly int sreg, src
    cdef readonly str set_name
    cdef public Set set
    cpdef int evaluate(self, Context ctx, Packet pkt) except? -100
