from userfw.core.const cimport (
    ETH_P_8021Q, ETH_P_IP, ETH_P_IPV6, IPPROTO_AH, IPPROTO_DSTOPTS, IPPROTO_FRAGMENT, IPPROTO_GRE, IPPROTO_HOPOPTS,
    IPPROTO_ROUTING, IPPROTO_UDP, NFT_BREAK, NFT_CONTINUE,
)
from userfw.core.packet cimport Packet
from userfw.engine.const cimport (
    BASE_LINK, BASE_NETWORK, BASE_TRANSPORT, BASE_TUNNEL, INNER_GENEVE, INNER_HDRSIZE, INNER_LL, META_PROTOCOL,
)
from userfw.engine.context cimport Context
from userfw.engine.expr cimport Expr
from userfw.engine.expressions.meta cimport Meta
from userfw.engine.expressions.payload cimport Payload, copy_to_register, inner_offset

cdef class Inner(Expr):
    cdef readonly int type, hdrsize, flags
    cdef readonly Expr expr
    cdef readonly bint is_meta
    cdef Meta meta
    cdef Payload payload
    cpdef int evaluate(self, Context ctx, Packet pkt) except? -100
    cdef int _load(self, Context ctx, Packet pkt, Payload expr) except? -100
    cdef bint _parse(self, Context ctx, Packet pkt) except -1
    cdef bint _parse_ethernet(self, Context ctx, Packet pkt, Py_ssize_t off) except -1
    cdef bint _parse_network(self, Context ctx, Packet pkt, int protocol, Py_ssize_t off) except -1
    cdef bint _walk_ipv6(self, Context ctx, Packet pkt, int proto, Py_ssize_t off) except -1
