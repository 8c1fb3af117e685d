# The path of a packet. Explained in path.py.
from userfw.conntrack.conn cimport Conn
from userfw.core.clock cimport Clock
from userfw.core.const cimport (
    ARPHRD_LOOPBACK, IPS_DST_NAT, IPS_SRC_NAT, NF_ACCEPT, NF_INET_FORWARD, NF_INET_LOCAL_IN, NF_INET_LOCAL_OUT,
    NF_INET_POST_ROUTING, NF_INET_PRE_ROUTING, NFPROTO_ARP, NFPROTO_BRIDGE, NFPROTO_IPV4, NFPROTO_IPV6, NFPROTO_UNSPEC, PACKET_HOST,
    PACKET_LOOPBACK, PACKET_OTHERHOST,
)
from userfw.core.drop cimport (
    DROP_MALFORMED,
    DROP_DEVICE_DOWN, DROP_FRAG_NEEDED, DROP_INTERNAL_ERROR, DROP_MARTIAN, DROP_NO_ROUTE, DROP_NOT_SPECIFIED, DROP_OTHERHOST,
    DROP_PROHIBITED, DROP_SOCKET_ELSEWHERE, DROP_TTL_EXPIRED, DROP_TX_FAILED, DROP_UNKNOWN_ETHERTYPE,
)
from userfw.core.fastpath cimport FastPath
from userfw.core.hook cimport HookList
from userfw.core.packet cimport Device, Packet
from userfw.engine.services cimport Origin
from userfw.router.base cimport set_start
from userfw.router.bridge cimport Members
from userfw.router.const cimport (
    ICMP_DEST_UNREACH, ICMP_EXC_TTL, ICMP_FRAG_NEEDED, ICMP_HOST_UNREACH, ICMP_NET_UNREACH, ICMP_PKT_FILTERED, ICMP_TIME_EXCEEDED,
    ICMPV6_ADM_PROHIBITED, ICMPV6_DEST_UNREACH, ICMPV6_EXC_HOPLIMIT, ICMPV6_NOROUTE, ICMPV6_NOT_NEIGHBOUR, ICMPV6_PKT_TOOBIG,
    ICMPV6_TIME_EXCEED, IPV6_MIN_MTU, RTN_ANYCAST, RTN_BLACKHOLE, RTN_BROADCAST, RTN_LOCAL, RTN_MULTICAST, RTN_PROHIBIT,
    RTN_UNICAST, RTN_UNREACHABLE, RTN_UNSPEC, USER_LOCAL,
)
from userfw.router.inspect cimport exceeds, flow_hash, ipv6_hop_options
from userfw.router.options cimport forward_options, ipv4_options
from userfw.router.reassembly cimport Reassembly, whole_fragment
from userfw.router.routing cimport Routing
from userfw.router.settings cimport Settings
from userfw.router.types cimport Dst
from userfw.wire.gso cimport check_untrusted
from userfw.wire.parse cimport cut_tag_untrusted, parse_link_untrusted, parse_network_untrusted, trim

cdef class Path(Routing):
    cdef readonly Reassembly reassembly
    cdef public Device local_device
    cdef public bint pending, speaking
    cdef dict vlans
    cpdef int receive(self, Packet pkt) except -1
    cpdef int receive_batch(self, list[Packet] packets, Py_ssize_t n) except -1
    cpdef int end_batch(self) except -1
    cdef int _receive(self, Packet pkt) except -1
    cdef int _parse(self, Packet pkt, Device device) except -1
    cdef int _judge(self, Packet pkt, Device device, int reason) except -1
    cpdef int after_ingress(self, Packet pkt, int reason) except -1
    cdef bint _for_bridge(self, Packet pkt, Device port) except? -1
    cdef int _continue_bridged(self, Packet pkt, int hook) except -1
    cdef int _vlan(self, Packet pkt, int reason) except -1
    cdef int _check_ipv6(self, Packet pkt) except -1
    cdef int _hook_in(self, Packet pkt) except -1
    cpdef int after_prerouting(self, Packet pkt) except -1
    cdef int _no_way(self, Packet pkt, Dst dst) except -1
    cdef int _forward(self, Packet pkt, Dst dst) except -1
    cdef bint _source_forwards(self, Packet pkt) except? -1
    cpdef int after_forward(self, Packet pkt) except -1
    cdef int _postrouting(self, Packet pkt) except -1
    cpdef int after_postrouting(self, Packet pkt) except -1
    cdef int _local_in(self, Packet pkt) except -1
    cpdef int after_input(self, Packet pkt) except -1
    cdef int _unfinished(self, Packet pkt) except -1
    cdef int _from_local(self, Packet pkt, int reason) except -1
    cpdef int after_output(self, Packet pkt) except -1
    cpdef drain(self)
    cdef int receive_backlog(self) except -1
    cdef int settle(self) except -1
    cpdef run_held(self)
    cpdef int continue_after(self, Packet pkt, int family, int hook) except -1
    cpdef int route_error(self, Packet pkt, int code) except -1
    cpdef int deliver(self, Packet pkt) except -1
