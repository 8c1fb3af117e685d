from userfw.conntrack.conn cimport Tuple, copy_tuple

cdef enum:
    DESTINATIONS = 8
    MEMORY_NS = 250000000
    PORT_BYTES = 8192

cdef class TakenPorts:
    cdef readonly Tuple key
    cdef readonly unsigned long long until
    cdef bytearray bits
    cpdef bint seen(self, int port) except -1
    cpdef int mark(self, int port) except -1

cdef class TakenMemory:
    cdef readonly list members
    cdef readonly unsigned long long until
    cpdef TakenPorts find(self, Tuple wanted, unsigned long long now)
    cpdef TakenPorts begin(self, Tuple wanted, unsigned long long now)

cdef bint _same_but_port(Tuple a, Tuple b) noexcept
