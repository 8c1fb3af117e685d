from userfw.conntrack.conn cimport Conn, TupleNode
from userfw.conntrack.settings cimport TimeoutPolicy
from userfw.conntrack.table cimport ConnTable
from userfw.conntrack.tuples cimport U64_MASK
from userfw.core.const cimport (
    IPPROTO_TCP, IPS_CONFIRMED, IPS_HELPER, IPS_TEMPLATE, NF_DROP, NFPROTO_INET, NFPROTO_IPV4, NFT_BREAK, NFT_CONTINUE, U32_MASK,
)
from userfw.core.drop cimport DROP_RULE
from userfw.core.packet cimport Packet
from userfw.engine.context cimport Context
from userfw.engine.expr cimport Expr

cdef class CtHelper(Expr):
    cdef readonly str helper_name
    cdef readonly int l4proto, l3num
    cdef public object helper
    cpdef int evaluate(self, Context ctx, Packet pkt) except? -100

cdef class CtTimeout(Expr):
    cdef readonly TimeoutPolicy policy
    cpdef int evaluate(self, Context ctx, Packet pkt) except? -100

cdef class CtExpectation(Expr):
    cdef readonly int l3num, l4proto, dport, size
    cdef readonly unsigned long long timeout
    cpdef int evaluate(self, Context ctx, Packet pkt) except? -100
