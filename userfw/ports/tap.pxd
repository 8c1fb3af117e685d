from userfw.core.const cimport (
    HEADROOM, MAX_FRAME, VNET_F_NEEDS_CSUM, VNET_GSO_ECN, VNET_GSO_NONE, VNET_GSO_UDP_L4,
)
from userfw.core.drop cimport DROP_NOT_SPECIFIED, DROP_TX_FAILED
from userfw.core.packet cimport Packet
from userfw.ports._io cimport read_at, write_at
from userfw.ports.base cimport BATCH_BYTES, IoPort
from userfw.ports.vnet cimport VNET_SIZE, read_header, write_header
from userfw.wire.gso cimport complete_checksum

cdef class TunTapPort(IoPort):
    cdef readonly int prefix
    cdef public bint tx_tso, tx_uso
    cdef readonly int offloads
    cdef public str ifname, netns
    cpdef int receive(self, list slots, int budget) except -1
    cpdef int transmit(self, Packet pkt) except -1
    cpdef int transmit_plain(self, Packet pkt) except -1
