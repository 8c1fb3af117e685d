from userfw.core.const cimport (
    ETH_P_IP, ETH_P_IPV6, NF_ACCEPT, NF_DROP, NF_INET_INGRESS, NF_INET_LOCAL_OUT, NF_QUEUE, NF_STOLEN, NFPROTO_INET, NFPROTO_IPV4, NFPROTO_IPV6, NFPROTO_UNSPEC, NFT_BREAK, NFT_CONTINUE, NFT_GOTO,
    NFT_JUMP, NFT_RETURN,
)
from userfw.core.drop cimport DROP_JUMP_DEPTH, DROP_MALFORMED, DROP_NOT_SPECIFIED, DROP_POLICY, DROP_RULE
from userfw.core.hook cimport HookEntry
from userfw.core.packet cimport Packet
from userfw.engine.const cimport CHAIN_ROUTE, JUMP_STACK, TRACE_POLICY, TRACE_RETURN, TRACE_RULE
from userfw.engine.context cimport Context
from userfw.engine.expr cimport Expr
from userfw.engine.rule cimport Rule
from userfw.engine.services cimport Services

cdef class Chain:
    cdef readonly str name, table
    cdef readonly int family
    cdef public unsigned long long handle
    cdef public object owner
    cdef readonly tuple rules
    cdef readonly int count
    cdef readonly object base
    cpdef int run(self, Context ctx, Packet pkt, int depth) except? -100

cdef class BaseChain(HookEntry):
    cdef readonly Chain chain
    cdef readonly int family, hook, type
    cdef public int policy
    cdef public bint counting
    cdef public unsigned long long packets, bytes
    cdef public Context ctx
    cdef public object devices
    cpdef int run(self, Packet pkt, int hook) except -1
    cdef int _verdict(self, Context ctx, Packet pkt, int verdict) except -1
    cdef int _route_chain(self, Context ctx, Packet pkt) except -1
    cdef int _dropped_by_policy(self, Context ctx, Packet pkt) except -1

cdef int trace(int kind, Context ctx, Packet pkt, object chain, object rule, int verdict) except -1
