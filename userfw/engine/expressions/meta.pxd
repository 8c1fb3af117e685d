from userfw.core.const cimport (
    NFPROTO_ARP, NFPROTO_BRIDGE, NFPROTO_INET, NFPROTO_IPV4, NFPROTO_NETDEV, NFT_BREAK, NFT_CONTINUE, NF_ARP_OUT, NF_INET_LOCAL_IN, NF_INET_LOCAL_OUT, NF_INET_POST_ROUTING,
    NF_NETDEV_EGRESS, PACKET_BROADCAST, PACKET_LOOPBACK,
    PACKET_MULTICAST, PACKET_OTHERHOST,
)
from userfw.core.packet cimport Device, Packet
from userfw.engine.const cimport (
    META_BRI_IIFHWADDR, META_BRI_IIFNAME, META_BRI_IIFPVID, META_BRI_OIFNAME, META_CGROUP, META_CPU, META_IIF, META_IIFGROUP, META_IIFKIND,
    META_IIFNAME, META_IIFTYPE, META_L4PROTO, META_LEN, META_MARK, META_NFPROTO, META_NFTRACE, META_OIF, META_OIFGROUP, META_OIFKIND,
    META_OIFNAME, META_OIFTYPE, META_PKTTYPE, META_PRANDOM, META_PRIORITY, META_PROTOCOL, META_RTCLASSID, META_SDIF, META_SDIFNAME,
    META_SECMARK, META_SECPATH, META_SKGID, META_SKUID, META_TIME_DAY, META_TIME_HOUR, META_TIME_NS,
)
from userfw.engine.context cimport Context
from userfw.engine.expr cimport Expr
from userfw.engine.expressions.counter cimport packet_length
from userfw.engine.services cimport Origin, RouteInfo, SocketInfo

cdef int network_family(Context ctx, Packet pkt) except? -100
cdef int packet_type(Packet pkt) except? -100
cdef int store_name(Context ctx, int dst, Device device) except? -100
cdef int _store_time(Context ctx, int dst, int key) except? -100
cdef int _store_from_services(Context ctx, Packet pkt, int dst, int key) except? -100
cdef bint _leaves(Context ctx, Packet pkt) except? -1
cdef int _store_device(Context ctx, Packet pkt, int dst, int key) except? -100

cdef class Meta(Expr):
    cdef readonly int key, length, dst, dreg
    cpdef int evaluate(self, Context ctx, Packet pkt) except? -100

cdef class MetaSet(Expr):
    cdef readonly int key, length, src, sreg
    cpdef int evaluate(self, Context ctx, Packet pkt) except? -100
