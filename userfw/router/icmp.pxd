from userfw.core.const cimport (
    ARPHRD_LOOPBACK, CT_RELATED, IPPROTO_AH, IPPROTO_DSTOPTS, IPPROTO_FRAGMENT, IPPROTO_HOPOPTS, IPPROTO_ICMP, IPPROTO_ICMPV6,
    IPPROTO_NONE, IPPROTO_ROUTING, NFPROTO_IPV4, NFPROTO_IPV6, NSEC_PER_SEC, PACKET_HOST, U32_MASK,
    VNET_F_NEEDS_CSUM,
)
from userfw.core.packet cimport Device, Packet
from userfw.engine.services cimport Copy
from userfw.router.base cimport Router
from userfw.router.const cimport (
    ICMP_DEST_UNREACH, ICMP_ECHO, ICMP_ECHOREPLY, ICMP_FRAG_NEEDED, ICMP_TIMESTAMP, ICMP_TIMESTAMPREPLY, ICMPV6_ECHO_REPLY, ICMPV6_ECHO_REQUEST,
    ICMPV6_PARAMPROB, ICMPV6_PKT_TOOBIG, ICMPV6_UNK_OPTION, IPV6_MIN_MTU, RTN_ANYCAST, RTN_BROADCAST, RTN_LOCAL, RTN_MULTICAST,
    RTN_UNICAST,
)
from userfw.router.options cimport echoed, midnight
from userfw.router.ratelimit cimport ErrorLimits
from userfw.router.types cimport Dst
from userfw.wire.build cimport copy_bytes, icmp_checksum, icmp_checksum_ok, ipv4, ipv4_options, ipv6

cdef class Icmp:
    cdef Router router
    cdef readonly ErrorLimits limits
    cdef readonly unsigned long long sent, limited, echoes
    cpdef int error(self, Packet pkt, int type, int code, unsigned int info) except -1
    cpdef int route_error(self, Packet pkt, int code) except -1
    cdef int _error4(self, Packet pkt, int type, int code, unsigned int info) except -1
    cdef bint _answerable4(self, Packet pkt, unsigned int source) except? -1
    cdef unsigned int _own_source4(self, Packet pkt, Dst dst) except? 0xFFFFFFFF
    cdef int _error6(self, Packet pkt, int type, int code, unsigned int info) except -1
    cdef bint _answerable6(self, Packet pkt, int type, int code, unsigned int info, unsigned long long hi, unsigned long long lo) except? -1
    cdef bint _is_error6(self, Packet pkt) except? -1
    cpdef Dst route_back6(self, Packet pkt, unsigned long long hi, unsigned long long lo)
    cdef tuple _own_source6(self, Packet pkt, Dst dst)
    cdef bint _from_loopback(self, Packet pkt) except? -1
    cdef bint _peer_ok(self, Dst dst, unsigned long long hi, unsigned long long lo, unsigned long long cost) except? -1
    cdef _fill(self, Packet reply, Packet pkt, int type, int code, unsigned int info, Py_ssize_t quoted)
    cdef _attach(self, Packet reply, Packet pkt)
    cdef int sending
    cdef _out(self, Packet reply)
    cdef int _send(self, Packet reply) except -1
    cpdef bint echo4(self, Packet pkt) except? -1
    cpdef bint echo6(self, Packet pkt) except? -1
    cdef bint _echo(self, Packet reply, Packet pkt, int type, Py_ssize_t length) except? -1
    cdef bint _time(self, Packet reply, Packet pkt) except? -1
    cpdef bint valid(self, Packet pkt) except? -1

cpdef bint is_echo(Packet pkt) except? -1
