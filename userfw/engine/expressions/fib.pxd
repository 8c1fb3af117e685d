from userfw.core.const cimport (
    ARPHRD_LOOPBACK, ETH_P_IP, ETH_P_IPV6, IPPROTO_ICMPV6, NF_INET_INGRESS, NF_INET_LOCAL_IN, NF_INET_PRE_ROUTING, NFPROTO_IPV4, NFPROTO_IPV6, NFPROTO_NETDEV, NFT_BREAK, NFT_CONTINUE,
    PACKET_LOOPBACK,
)
from userfw.core.packet cimport Device, Packet
from userfw.engine.const cimport FIB_ADDRTYPE, FIB_F_DADDR, FIB_F_IIF, FIB_F_MARK, FIB_F_OIF, FIB_OIF, RTN_LOCAL, U32_MASK
from userfw.engine.context cimport Context
from userfw.engine.expr cimport Expr
from userfw.engine.expressions.meta cimport store_name
from userfw.engine.services cimport FibResult

cdef class Fib(Expr):
    cdef readonly int result, length, dst, dreg, flags
    cdef readonly bint present
    cdef FibResult answer
    cpdef int evaluate(self, Context ctx, Packet pkt) except? -100
    cdef bint _goes_back(self, Context ctx, Packet pkt, int family) except -1
    cdef int _store(self, Context ctx, Device device) except? -100
