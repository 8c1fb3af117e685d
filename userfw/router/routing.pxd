# Which way. Explained in routing.py.
from userfw.conntrack.conn cimport Conn, TupleNode
from userfw.core.const cimport (
    ARPHRD_LOOPBACK, CT_DIR_ORIGINAL, IPPROTO_IGMP, IPS_DST_NAT, IPS_SRC_NAT, NF_ACCEPT, NF_DROP, NFPROTO_IPV4, NFPROTO_IPV6, U32_MASK,
)
from userfw.core.drop cimport DROP_FORWARDING_OFF, DROP_MARTIAN, DROP_NO_ROUTE, DROP_NOT_SPECIFIED, DROP_SOURCE_FILTER
from userfw.core.fastpath cimport CachedRoute
from userfw.core.hook cimport HookEntry
from userfw.core.packet cimport Device, Packet
from userfw.router.const cimport (
    RTN_BLACKHOLE, RTN_BROADCAST, RTN_LOCAL, RTN_MULTICAST, RTN_PROHIBIT, RTN_UNICAST, RTN_UNREACHABLE, RTN_UNSPEC,
)
from userfw.router.egress cimport Egress
from userfw.router.inspect cimport flow_hash
from userfw.router.types cimport Dst

cdef class Routing(Egress)

cdef class Reroute(HookEntry):
    cdef Routing router
    cpdef int run(self, Packet pkt, int hook) except -1

cdef class Routing(Egress):
    cdef bint still_for(self, Packet pkt, Dst dst) except? -1
    cdef Dst route_ipv4(self, Packet pkt)
    cdef bint _source_to_group(self, Packet pkt, unsigned int src, unsigned int to, Device device) except? -1
    cdef bint _source_ok(self, Packet pkt, unsigned int src, Device device) except? -1
    cdef Dst _broadcast(self, unsigned int to)
    cdef Dst _multicast(self, Packet pkt, unsigned long long hi, unsigned long long lo)
    cdef Dst route_ipv6(self, Packet pkt)
    cpdef CachedRoute route_back(self, Packet pkt)
    cpdef Dst route_output(self, Packet pkt)
    cdef Dst route_again(self, Packet pkt)
    cpdef Dst looping(self, Dst dst)
