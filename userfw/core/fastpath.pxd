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

cdef class Crossing:
    cdef public Device bridge, port
    cdef public unsigned int tags
    cdef public bint both
    cdef public object anchor
    cpdef bint valid(self) except? -1
    cpdef bint hear(self, Packet pkt) except? -1
    cpdef int heard(self, unsigned long long when) except -1

cdef class Sender:
    cdef public Device host
    cpdef int emit(self, Packet pkt) except -1
    cpdef int emit_through(self, Packet pkt, Device device, unsigned int tags, Crossing crossing) except -1
    cpdef int deliver(self, Packet pkt) except -1
    cpdef Crossing cross(self, CachedRoute route, unsigned long long hi, unsigned long long lo, Device bridge, unsigned int tags)
    cpdef CachedRoute route_local(self, Packet pkt, bint out)
    cpdef CachedRoute route_back(self, Packet pkt)

cpdef unsigned int tag_code(int proto, int vid) noexcept
cpdef unsigned int tags_of(Packet pkt) except? 0xFFFFFFFF
cpdef unsigned int untag(Device device, Device lowest) except? 0xFFFFFFFF
