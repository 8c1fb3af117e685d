# Ways through a bridge. Explained in crossing.py.
from userfw.core.fastpath cimport Crossing, tag_code
from userfw.core.packet cimport Packet
from userfw.router.bridge cimport Bridge, FdbEntry, Members
from userfw.router.types cimport Neighbour

cdef class BridgeCrossing(Crossing):
    cdef Bridge of
    cdef FdbEntry entry
    cdef Members member
    cdef Neighbour neighbour
    cdef unsigned int mac_hi, mac_lo, generation
    cdef int vlan
    cpdef bint valid(self) except? -1
    cpdef bint hear(self, Packet pkt) except? -1
    cpdef int heard(self, unsigned long long when) except -1

cpdef object walk(Bridge bridge, Neighbour neighbour, unsigned int tags)
