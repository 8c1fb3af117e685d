# The timer wheel. Explained in wheel.py.
cimport cython
from userfw.conntrack.conn cimport Conn, U32_MASK

cdef enum:
    TICK_SHIFT = 28

cdef extern from *:
    """
    #define NEVER 0x7FFFFFFFFFFFFFFFULL
    """
    const unsigned long long NEVER

@cython.final
cdef class Wheel:
    cdef list slots
    cdef public unsigned int cursor, soonest
    cdef readonly Py_ssize_t size
    cpdef int add(self, Conn conn, unsigned long long deadline) except -1
    cpdef int remove(self, Conn conn) except -1
    cpdef int move(self, Conn conn, unsigned long long deadline) except -1
    cpdef Conn pop(self, unsigned long long now)
    cpdef unsigned long long next_deadline(self) noexcept
    cdef int _seek(self) except -1
