from userfw.core.const cimport (
    IPPROTO_ICMP, IPPROTO_ICMPV6, NFPROTO_IPV4, PACKET_HOST, VNET_GSO_NONE, VNET_GSO_TCPV4, VNET_GSO_TCPV6,
)
from userfw.core.drop cimport DROP_IP_OPTIONS, DROP_MALFORMED, DROP_NO_PROTOCOL, DROP_NOT_SPECIFIED
from userfw.core.packet cimport Packet
from userfw.router.base cimport Router
from userfw.router.const cimport ICMPV6_HDR_FIELD, ICMPV6_PARAMPROB, ICMPV6_UNK_NEXTHDR, ICMPV6_UNK_OPTION
from userfw.router.lpm cimport mix

cpdef bint exceeds(Packet pkt, int mtu) except? -1
cpdef unsigned int flow_hash(Packet pkt) except? 0xFFFFFFFF
cdef unsigned int _pair4(Packet pkt, Py_ssize_t src, Py_ssize_t dst) except? 0xFFFFFFFF
cdef unsigned int _pair6(Packet pkt, Py_ssize_t src, Py_ssize_t dst) except? 0xFFFFFFFF
cpdef int ipv6_hop_options(Router router, Packet pkt) except -1
cpdef int ipv6_local_headers(Router router, Packet pkt, bint alone) except -1
cdef int _tlv(Router router, Packet pkt, Py_ssize_t header, bint hop) except -1
cdef int _jumbo(Router router, Packet pkt, Py_ssize_t off, Py_ssize_t length) except -1
cdef bint _zeros(Packet pkt, Py_ssize_t off, Py_ssize_t end) except? -1
