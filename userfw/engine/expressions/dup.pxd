from userfw.core.const cimport ETH_P_IP, ETH_P_IPV6, NF_DROP, NFPROTO_IPV4, NFPROTO_IPV6, NFT_BREAK, NFT_CONTINUE
from userfw.core.drop cimport DROP_DEVICE_DOWN, DROP_MALFORMED, DROP_NEIGH_FAILED, DROP_NOT_SPECIFIED, DROP_TTL_EXPIRED, DROP_TX_FAILED
from userfw.core.packet cimport Device, Packet
from userfw.engine.context cimport Context
from userfw.engine.expr cimport Expr
from userfw.wire.checksum cimport replace16

cdef class Dup(Expr):
    cdef readonly int addr, dev, size, addr_reg, dev_reg
    cpdef int evaluate(self, Context ctx, Packet pkt) except? -100

cdef class Fwd(Expr):
    cdef readonly int family, addr, dev, addr_reg, dev_reg
    cpdef int evaluate(self, Context ctx, Packet pkt) except? -100
    cdef int _to_neighbour(self, Context ctx, Packet pkt) except? -100
