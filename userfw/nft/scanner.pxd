cdef class Scanner:
    cdef public str text
    cdef public Py_ssize_t pos
