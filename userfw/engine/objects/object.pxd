from userfw.engine.expr cimport Expr

cdef class NamedObject:
    cdef readonly str name, table
    cdef readonly int type, family
    cdef public unsigned long long handle
    cdef public Expr expr
    cdef public object comment, owner
