from userfw.nft.location cimport Location, Source
from userfw.nft.scanner cimport Scanner

cdef class Scope:
    cdef public Scope outer
    cdef public int depth
    cdef public dict values

cdef class ParserBase:
    cdef public Source source
    cdef public Scanner scanner
    cdef public tuple include_path, tok
    cdef public list errors
    cdef public object forms
    cdef public Scope scope
    cdef public int braces, depth
    cdef list _stack, _line
    cdef bytes _octets
    cdef Source _octets_of
    cdef public bint _ends_file
    cdef Py_ssize_t _next
    cdef public Py_ssize_t last_end
    cpdef tuple advance(self)
    cpdef bint accept(self, str kind) except -1
