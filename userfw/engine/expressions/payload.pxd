from userfw.core.const cimport (
    IPPROTO_GRE, IPPROTO_IPIP, IPPROTO_TCP, IPPROTO_UDP, NF_NETDEV_EGRESS, NFPROTO_IPV6, NFPROTO_NETDEV, NFT_BREAK, NFT_CONTINUE,
)
from userfw.core.packet cimport Packet
from userfw.engine.const cimport BASE_INNER, BASE_LINK, BASE_NETWORK, BASE_TRANSPORT
from userfw.engine.context cimport Context
from userfw.engine.expr cimport Expr

cdef Py_ssize_t base_offset(Context ctx, Packet pkt, int base) except? -100
cdef Py_ssize_t fast_transport(Context ctx, Packet pkt) except? -100
cdef Py_ssize_t inner_offset(Context ctx, Packet pkt) except? -100
cdef int copy_to_register(Context ctx, Packet pkt, Py_ssize_t start, int length, int dst) except? -100
cdef int copy_link(Context ctx, Packet pkt, int offset, int length, int dst) except? -100

cdef class Payload(Expr):
    cdef readonly int dreg, dst, base, offset, length
    cdef readonly bint fast
    cpdef int evaluate(self, Context ctx, Packet pkt) except? -100
