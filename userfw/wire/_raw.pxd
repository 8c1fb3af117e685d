from cpython.bytearray cimport PyByteArray_AS_STRING
from libc.stdint cimport uint64_t
from libc.string cimport memcpy
from userfw.core.const cimport U32_MASK

cpdef unsigned int add_words(unsigned int total, bytearray data, Py_ssize_t off, Py_ssize_t length) except? 0xFFFFFFFF
cpdef int copy(bytearray to, Py_ssize_t to_off, bytearray source, Py_ssize_t off, Py_ssize_t length) except -1
