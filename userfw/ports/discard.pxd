from userfw.core.drop cimport DROP_NOT_SPECIFIED
from userfw.core.packet cimport Packet, Port

cdef class DiscardPort(Port):
    cdef public unsigned long long packets, bytes
    cpdef int transmit(self, Packet pkt) except -1
