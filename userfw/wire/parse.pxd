from userfw.core.const cimport (
    ETH_P_8021AD, ETH_P_8021Q, ETH_P_ARP, ETH_P_IP, ETH_P_IPV6, ARPHRD_ETHER, ARPHRD_LOOPBACK,
    IPPROTO_AH, IPPROTO_DSTOPTS, IPPROTO_FRAGMENT, IPPROTO_HOPOPTS, IPPROTO_MH, IPPROTO_NONE, IPPROTO_ROUTING,
    NFPROTO_ARP, NFPROTO_IPV4, NFPROTO_IPV6, NFPROTO_UNSPEC,
    PACKET_BROADCAST, PACKET_HOST, PACKET_MULTICAST, PACKET_OTHERHOST,
)
from userfw.core.drop cimport DROP_CHECKSUM, DROP_MALFORMED, DROP_NOT_SPECIFIED, DROP_UNKNOWN_ETHERTYPE
from userfw.core.packet cimport Device, Packet
from userfw.wire.checksum cimport add_bytes, fold

cpdef int parse_untrusted(Packet pkt) except -1
cpdef int parse_link_untrusted(Packet pkt) except -1
cpdef bint cut_tag_untrusted(Packet pkt) except? -1
cpdef int parse_network_untrusted(Packet pkt) except -1
cpdef int trim(Packet pkt) except -1
cdef int _ipv4(Packet pkt) except -1
cdef int _ipv6(Packet pkt) except -1
cdef int _headless(Packet pkt, Py_ssize_t off, int proto) except -1
cdef int _bare(Packet pkt) except -1
