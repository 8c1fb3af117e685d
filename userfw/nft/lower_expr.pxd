cdef class Place:
    cdef public int octets, below

cdef class Held:
    cdef public int octets
    cdef public str order

cdef class ExprLowering:
    cdef public str family
    cdef public list out, sets, bound
    cdef public int free
    cdef public object object_kind
    cdef public bint data_interval
