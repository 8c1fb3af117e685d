from userfw.nft.columns cimport decimal, groups, quad
from userfw.nft.location cimport Location, Source

cdef class Line:
    cdef bytearray shape, item
    cdef public Py_ssize_t end
    cdef public list values, places
    cdef bint placing
    cdef bytes key(self)
    cdef Py_ssize_t scan(self, Source source, bytes text, Py_ssize_t at) except -2
    cdef Py_ssize_t _hole(self, bytes text, Py_ssize_t at) except -2
    cdef Py_ssize_t _quoted(self, Source source, bytes text, Py_ssize_t at, Py_ssize_t size) except -2

cdef class RuleForm:
    cdef public object rule
    cdef public Py_ssize_t start
    cdef public list places
    cdef public tuple values, fixed
    cdef public dict roles, variants
    cdef public int comment
    cdef bint settled
    cdef int settle(self) except -1

cdef class Forms:
    cdef dict known
    cdef Line line
    cpdef int learn(self, Source source, bytes text, object rule, Py_ssize_t end) except -1
    cpdef Py_ssize_t take(self, Source source, bytes text, Py_ssize_t at, list rules) except -1

cdef object _formed(RuleForm form, Source source, Py_ssize_t start, Py_ssize_t end, tuple values)
