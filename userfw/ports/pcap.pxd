from userfw.core.const cimport HEADROOM, MAX_FRAME
from userfw.core.drop cimport DROP_NOT_SPECIFIED, DROP_TX_FAILED
from userfw.core.packet cimport Device, Packet
from userfw.ports.base cimport IoPort

cdef class PcapPort(IoPort):
    cdef object reader, writer, source
    cdef public bint finished
    cdef readonly unsigned long long frames_in, frames_out
    cpdef int receive(self, list slots, int budget) except -1
    cpdef int transmit(self, Packet pkt) except -1
    cpdef int transmit_plain(self, Packet pkt) except -1
    cpdef int flush(self) except -1
