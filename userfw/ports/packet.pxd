from userfw.core.const cimport (
    HEADROOM, MAX_FRAME, VNET_F_NEEDS_CSUM, VNET_GSO_ECN, VNET_GSO_NONE, VNET_GSO_UDP_L4,
)
from userfw.core.drop cimport DROP_NOT_SPECIFIED, DROP_TX_FAILED
from userfw.core.packet cimport Device, Packet
from userfw.ports._io cimport Batch, write_at
from userfw.ports.base cimport IoPort
from userfw.ports.vnet cimport VNET_SIZE, read_header, write_header

cdef class PacketPort(IoPort):
    cdef readonly int prefix
    cdef readonly bint tx_uso, offloads
    cdef readonly object sock, isolation
    cdef public str ifname, netns
    cdef Batch batch
    cdef list pending
    cpdef int receive(self, list slots, int budget) except -1
    cpdef int transmit(self, Packet pkt) except -1
    cpdef int transmit_plain(self, Packet pkt) except -1
    cpdef int flush(self) except -1

cpdef int insert_tag(Packet pkt, int tci, int protocol) except -1
