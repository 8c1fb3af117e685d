cdef class Columns:
    cdef readonly int kind, octets
    cdef readonly Py_ssize_t count
    cdef readonly bytearray lows, highs, starts
    cdef readonly bint ranged
    cdef bytearray item, other

    cdef Py_ssize_t _item(self, bytes text, Py_ssize_t at, bytearray into) except -2
    cdef Py_ssize_t _element(self, bytes text, Py_ssize_t at) except -2
    cdef int _put(self, Py_ssize_t start) except -1
    cdef int _cut(self, int length) except -1

cdef Py_ssize_t skip(bytes text, Py_ssize_t at) except -2
cdef Py_ssize_t quad(bytes text, Py_ssize_t at, bytearray into) except -2
cdef Py_ssize_t decimal(bytes text, Py_ssize_t at, bytearray into) except -2
cdef Py_ssize_t groups(bytes text, Py_ssize_t at, bytearray into) except -2
cdef int digit(int c) except -2
cdef int compare(bytearray a, Py_ssize_t i, bytearray b, Py_ssize_t j, int octets) except -2
cdef int follows(bytearray a, Py_ssize_t i, bytearray b, Py_ssize_t j, int octets) except -2
cdef int prefix(bytearray lows, bytearray highs, Py_ssize_t at) except -2
cdef Py_ssize_t _load(bytearray column, Py_ssize_t at) except -1
cdef int _store(bytearray column, Py_ssize_t at, Py_ssize_t value) except -1
cdef Py_ssize_t _add(bytearray column, Py_ssize_t at, Py_ssize_t more) except -1
