from userfw.core.ahead cimport Lookahead
from userfw.core.packet cimport Device, Packet

cdef class CachedRoute:
    cdef public Device oif
    cdef public int mtu
    cpdef bint valid(self) except? -1

cdef class FastPath:
    cdef public Lookahead ahead
    cpdef int forward(self, Packet pkt) except -1

cdef class Sender:
    cpdef int emit(self, Packet pkt) except -1
    cpdef CachedRoute route_back(self, Packet pkt)
