from userfw.core.const cimport NF_ARP_OUT, NF_NETDEV_EGRESS, NFPROTO_ARP, NFPROTO_NETDEV, NFT_CONTINUE
from userfw.core.packet cimport Packet
from userfw.engine.context cimport Context
from userfw.engine.expr cimport Expr

cdef Py_ssize_t packet_length(Context ctx, Packet pkt) except? -100

cdef class Counter(Expr):
    cdef public unsigned long long packets, bytes
    cpdef int evaluate(self, Context ctx, Packet pkt) except? -100
