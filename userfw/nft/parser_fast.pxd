from userfw.nft.columns cimport decimal, groups, quad
from userfw.nft.location cimport Location, Source

cdef class Taker:
    cdef Source source
    cdef str text
    cdef bytes octets
    cdef bytearray item
    cdef Py_ssize_t at, shift
    cdef dict times
    cdef object element(self)
    cdef Location _span(self, Py_ssize_t start, Py_ssize_t end)
    cdef object _joined(self, bint data)
    cdef object _word(self, bint data)
    cdef object _verdict(self, int c)
    cdef bint _blanks(self) except -1
    cdef Py_ssize_t _number(self, Py_ssize_t at) except -2
    cdef Py_ssize_t _time(self, Py_ssize_t at) except -2
    cdef object _value(self, int kind, Py_ssize_t start, Py_ssize_t end)

cdef object _symbol(str name, Location loc)
cdef object _constant(object value, Location loc)
cdef object _element(object key, Location loc)
