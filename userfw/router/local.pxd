from userfw.core.const cimport (
    CT_NONE,
    IPPROTO_AH, IPPROTO_FRAGMENT, IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_IGMP, IPPROTO_NONE, IPPROTO_TCP, IPPROTO_UDP, IPPROTO_UDPLITE, NFPROTO_IPV4,
    NFPROTO_IPV6, PACKET_HOST, TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN, U32_MASK, VNET_F_NEEDS_CSUM,
)
from userfw.core.drop cimport DROP_CHECKSUM, DROP_MALFORMED, DROP_NO_PROTOCOL, DROP_NOT_SPECIFIED
from userfw.core.packet cimport Device, Packet
from userfw.router.base cimport Router, set_start
from userfw.router.const cimport (
    ICMP_DEST_UNREACH, ICMP_PORT_UNREACH, ICMP_PROT_UNREACH, ICMPV6_DEST_UNREACH, ICMPV6_PARAMPROB, ICMPV6_PKT_TOOBIG,
    ICMPV6_PORT_UNREACH, ICMPV6_UNK_NEXTHDR, NDISC_REDIRECT, NDISC_RS, RTN_LOCAL,
)
from userfw.router.icmp cimport Icmp, is_echo
from userfw.router.inspect cimport ipv6_local_headers
from userfw.router.nd cimport Ndisc
from userfw.router.options cimport echoed
from userfw.router.types cimport Dst
from userfw.wire._raw cimport add_words
from userfw.wire.build cimport ipv4, ipv4_options, leave_checksum, ipv6, tcp_reset
from userfw.wire.checksum cimport fold, pseudo_sum

cdef class Local:
    cdef Router router
    cdef Icmp icmp
    cdef Ndisc ndisc
    cdef object paths
    cdef public Device device
    cdef readonly unsigned long long delivered, resets
    cpdef int deliver_untrusted(self, Packet pkt) except -1
    cpdef int hand_over(self, Packet pkt) except -1
    cdef int _icmp(self, Packet pkt) except -1
    cdef int _tcp(self, Packet pkt) except -1
    cdef int _udp(self, Packet pkt) except -1

cpdef bint checksum_ok(Packet pkt, int proto) except? -1
cpdef int reset(Packet reply, Packet pkt, int ttl, int tos, bytes options) except -1
cpdef unsigned int next_header_offset(Packet pkt) except? 0xFFFFFFFF
