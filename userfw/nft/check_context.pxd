cdef class ProtoContext:
    cdef public str family
    cdef public object ll, nh, th, ih
    cdef public list th_choices, stacked
    cdef public bint nh_asked
