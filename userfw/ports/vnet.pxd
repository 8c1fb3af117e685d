from userfw.core.const cimport (
    VNET_F_DATA_VALID, VNET_F_NEEDS_CSUM, VNET_GSO_ECN, VNET_GSO_NONE, VNET_GSO_TCPV4, VNET_GSO_TCPV6, VNET_GSO_UDP_L4,
)
from userfw.core.packet cimport Packet

cdef enum:
    VNET_SIZE = 10

cpdef int read_header(Packet pkt) except -1
cpdef int write_header(Packet pkt) except -1
