from userfw.core.const cimport (
    ETH_P_IP, ETH_P_IPV6, IPPROTO_TCP, IPPROTO_UDP, NFPROTO_IPV4, NFPROTO_IPV6, TCP_CWR, TCP_FIN, TCP_PSH,
    VNET_F_DATA_VALID, VNET_F_NEEDS_CSUM, VNET_GSO_ECN, VNET_GSO_NONE, VNET_GSO_TCPV4, VNET_GSO_TCPV6, VNET_GSO_UDP_L4,
)
from userfw.core.drop cimport DROP_CHECKSUM, DROP_MALFORMED, DROP_NOT_SPECIFIED
from userfw.core.packet cimport Packet
from userfw.wire._raw cimport add_words, copy
from userfw.wire.checksum cimport add_bytes, fold, pseudo_sum, write_ipv4

cdef enum:
    MIN_TCP_SEGMENT = 48
    MAX_UDP_SEGMENTS = 128

cpdef int check_untrusted(Packet pkt) except -1
cpdef int complete_checksum(Packet pkt) except -1
cpdef Py_ssize_t header_length(Packet pkt) except -1
cpdef int segment_count(Packet pkt) except -1
cpdef Py_ssize_t segment_network_length(Packet pkt) except -1
cpdef int segment(Packet pkt, int index, Packet out) except -1
cpdef list segments(Packet pkt, list pool)
cdef int _finish_tcp(Packet pkt, int index, Packet out, bint last) except -1
cdef int _finish_udp(Packet out) except -1
cdef bint _gso_fits(Packet pkt, int field) except -1
