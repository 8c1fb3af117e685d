from userfw.core.ahead cimport Lookahead
from userfw.core.const cimport ETH_P_8021AD
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
    cpdef int emit_through(self, Packet pkt, Device device, unsigned int tags) except -1
    cpdef CachedRoute route_back(self, Packet pkt)

cpdef unsigned int tag_code(int proto, int vid) noexcept
cpdef unsigned int tags_of(Packet pkt) except? 0xFFFFFFFF
cpdef unsigned int untag(Device device, Device lowest) except? 0xFFFFFFFF
