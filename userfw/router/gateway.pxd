from userfw.core.drop cimport DROP_FRAG_NEEDED, DROP_NO_PROTOCOL
from userfw.core.packet cimport Packet
from userfw.router.interfaces cimport Interfaces
from userfw.router.types cimport Dst

cdef class Gateway(Interfaces):
    pass
