cdef class Source:
    cdef public str name, text
    cdef public object included_from
    cdef list _starts

cdef class Location:
    cdef public Source source
    cdef public Py_ssize_t start, end
