# compiled as it is: what every element of a map passes through
cdef class Element:
    cdef public object key, node, engine
