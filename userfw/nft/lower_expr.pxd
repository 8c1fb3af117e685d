cdef class ExprLowering:
    cdef public str family
    cdef public list out, sets, bound
    cdef public int free
    cdef public object object_kind
    cdef public bint data_interval
