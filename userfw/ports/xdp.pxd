from userfw.core.const cimport VNET_F_NEEDS_CSUM, VNET_GSO_NONE
from userfw.core.drop cimport DROP_NOT_SPECIFIED, DROP_TX_MTU
from userfw.core.packet cimport Packet
from userfw.ports._xsk cimport Umem, kick
from userfw.ports.base cimport IoPort
from userfw.wire.gso cimport complete_checksum
from userfw.wire.partial cimport mark_untrusted

cdef class XdpPort(IoPort):
    cdef public str ifname, netns
    cdef readonly object sock, shared
    cdef readonly Umem umem
    cdef readonly bint partial
    cdef readonly int room
    cdef readonly unsigned long long completed
    cpdef int receive(self, list slots, int budget) except -1
    cpdef int transmit(self, Packet pkt) except -1
    cpdef int transmit_plain(self, Packet pkt) except -1
    cpdef int flush(self) except -1
