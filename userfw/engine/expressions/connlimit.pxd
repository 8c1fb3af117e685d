from userfw.conntrack.conn cimport Conn, Tuple
from userfw.conntrack.const cimport TCP_CLOSE, TCP_TIME_WAIT
from userfw.conntrack.tuples cimport inner_l4, inner_proto, read_tuple
from userfw.core.const cimport (
    IPPROTO_AH, IPPROTO_NONE, IPPROTO_TCP, IPS_CONFIRMED, IPS_DYING, IPS_OFFLOAD, IPS_TEMPLATE, NFPROTO_IPV6, NF_DROP, NFT_BREAK,
    NFT_CONTINUE,
)
from userfw.core.drop cimport DROP_RULE
from userfw.core.packet cimport Packet
from userfw.engine.context cimport Context
from userfw.engine.expr cimport Expr
from userfw.engine.shared cimport Shared

cdef bint _over(Conn conn, unsigned long long now) except -1

cdef bint _has_tuple(Packet pkt) except? -1

cdef class Connlimit(Expr):
    cdef readonly unsigned int count
    cdef readonly bint over
    cdef readonly dict members
    cdef object queue, __weakref__
    cdef readonly Shared slot
    cpdef int evaluate(self, Context ctx, Packet pkt) except? -100
    cpdef int collect(self, unsigned long long now, int budget) except -1
