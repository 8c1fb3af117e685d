from userfw.core.const cimport (
    ETH_P_IP, ETH_P_IPV6, IPPROTO_AH, IPPROTO_DCCP, IPPROTO_DSTOPTS, IPPROTO_FRAGMENT, IPPROTO_HOPOPTS, IPPROTO_ROUTING,
    IPPROTO_SCTP, IPPROTO_TCP, NF_DROP, NF_NETDEV_EGRESS, NFPROTO_NETDEV, NFT_BREAK, NFT_CONTINUE, VNET_F_NEEDS_CSUM,
)
from userfw.core.packet cimport Packet
from userfw.engine.const cimport EXTHDR_IPV4, EXTHDR_IPV6, EXTHDR_SCTP, EXTHDR_TCPOPT
from userfw.engine.context cimport Context
from userfw.engine.expr cimport Expr
from userfw.engine.expressions.payload cimport copy_to_register, fast_transport
from userfw.wire.checksum cimport replace16

cdef Py_ssize_t find_ipv6(Packet pkt, int target) except? -100
cdef Py_ssize_t tcp_header_end(Context ctx, Packet pkt) except? -100
cdef int option_length(Packet pkt, Py_ssize_t at) except? -100
cdef Py_ssize_t walk_tcp_options(Packet pkt, Py_ssize_t end, int type) except? -100
cdef Py_ssize_t find_tcp_option(Context ctx, Packet pkt, int type, int needed) except? -100
cdef int change_tcp16(Packet pkt, Py_ssize_t at, unsigned int new) except -1
cdef Py_ssize_t find_ipv4_option(Context ctx, Packet pkt, int type) except? -100
cdef bint _option_right(Packet pkt, Py_ssize_t at, int kind, int size) except? -1
cdef Py_ssize_t find_sctp_chunk(Context ctx, Packet pkt, int type, int needed) except? -100
cdef Py_ssize_t find_dccp_option(Context ctx, Packet pkt, int type) except? -100

cdef class Exthdr(Expr):
    cdef readonly int dreg, dst, op, type, offset, length
    cdef readonly bint present
    cpdef int evaluate(self, Context ctx, Packet pkt) except? -100

cdef class ExthdrSet(Expr):
    cdef readonly int sreg, src, op, type, offset, length
    cpdef int evaluate(self, Context ctx, Packet pkt) except? -100

cdef class ExthdrReset(Expr):
    cdef readonly int op, type
    cpdef int evaluate(self, Context ctx, Packet pkt) except? -100
