from userfw.conntrack.table cimport ConnTable
from userfw.core.clock cimport Clock
from userfw.core.const cimport (
    ARPHRD_LOOPBACK, CT_DIR_ORIGINAL, CT_RELATED, CT_UNTRACKED, IPPROTO_AH, IPPROTO_DSTOPTS, IPPROTO_ESP, IPPROTO_GRE,
    IPPROTO_HOPOPTS, IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_NONE, IPPROTO_ROUTING, IPPROTO_SCTP,
    IPPROTO_TCP, IPPROTO_UDP, IPPROTO_UDPLITE, NF_ACCEPT, NF_DROP, NF_INET_INGRESS, NF_INET_LOCAL_IN, NF_INET_LOCAL_OUT, NF_INET_PRE_ROUTING, NF_STOLEN,
    NFPROTO_BRIDGE, NFPROTO_IPV4, NFPROTO_IPV6, NFPROTO_NETDEV, PACKET_LOOPBACK, TCP_RST, U32_MASK, VNET_F_DATA_VALID, VNET_F_NEEDS_CSUM,
)
from userfw.core.drop cimport DROP_NO_ROUTE
from userfw.core.hook cimport HookEntry
from userfw.core.packet cimport Device, Packet
from userfw.engine.services cimport Copy, FibResult, RouteInfo
from userfw.router.base cimport set_start
from userfw.router.bridge cimport Members
from userfw.router.const cimport (
    ICMP_DEST_UNREACH, ICMPV6_DEST_UNREACH, IP_DF, RTN_ANYCAST, RTN_BLACKHOLE, RTN_BROADCAST, RTN_LOCAL,
    RTN_MULTICAST, RTN_PROHIBIT, RTN_UNICAST, RTN_UNREACHABLE, RTN_UNSPEC,
)
from userfw.router.interfaces cimport Interfaces
from userfw.router.local cimport checksum_ok, reset
from userfw.router.reassembly cimport FragmentSizes, whole_fragment
from userfw.router.settings cimport Settings
from userfw.router.types cimport Dst, NextHop, Route
from userfw.wire._raw cimport add_words
from userfw.wire.build cimport copy_bytes, ethernet, icmp_checksum, ipv4, ipv6, leave_checksum
from userfw.wire.checksum cimport fold, pseudo_sum, write_ipv4

cdef class Answers(Interfaces):
    cdef public object on_log, on_queue
    cdef RouteInfo route_answer
    cdef bint duplicating, bridged
    cdef int nested
    cdef int _answer_bridged(self, Packet reply, Packet pkt, Device device) except -1
    cdef Route _fib_route(
        self, int family, unsigned long long hi, unsigned long long lo, unsigned long long src_hi, unsigned long long src_lo,
        unsigned int mark, Packet pkt, Device device)
    cdef int _type4(self, unsigned long long lo, Device device) except -1
    cdef int _type6(self, unsigned long long hi, unsigned long long lo, Route route, Device device) except -1
    cdef bint _intact(self, Packet pkt) except? -1
    cdef bint _segment_intact(self, Packet pkt, int hook) except? -1
    cdef unsigned int _mtu_back(self, Packet pkt) except? 0xFFFFFFFE
    cdef bint _fib_group(self, Packet pkt, unsigned long long hi, Device device, FibResult result) except? -1
    cdef int _reject_reset(self, Packet pkt, int hook, bint direct) except -1
    cdef bint _direct_answerable(self, Packet pkt) except? -1
    cdef int _reject_direct(self, Packet pkt, int code) except -1
    cdef int _send_direct(self, Packet reply, Packet pkt) except -1
    cdef _transmit_nested(self, Packet pkt, Device device)
    cdef Copy _copied(self, Packet pkt)
    cdef _duplicate_routed(self, Packet copy, int hook, bytes gateway, Device device)
    cdef Dst _towards(self, bytes nexthop, Device device)

cdef bint _one_host(Packet pkt, Py_ssize_t at) except? -1
cdef bint _is_unreachable6(Packet pkt) except? -1
cdef bint _uses(Route route, Device device) except? -1
