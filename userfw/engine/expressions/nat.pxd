from userfw.conntrack.conn cimport Conn
from userfw.core.const cimport (
    NAT_MANIP_DST, NAT_MANIP_SRC, NAT_RANGE_MAP_IPS, NAT_RANGE_PROTO_SPECIFIED, NFPROTO_INET, NFPROTO_IPV4, NFT_BREAK,
)
from userfw.core.packet cimport Packet
from userfw.engine.context cimport Context
from userfw.engine.expr cimport Expr
from userfw.nat.mapping cimport Nat as NatCore, NatRange

cdef int _ports(Context ctx, NatRange within, int least, int most) except -1
cdef int _addresses(Context ctx, NatRange within, bint four, int least, int most) except -1

cdef class Nat(Expr):
    cdef readonly int family, addr_min, addr_max, proto_min, proto_max, flags
    cdef readonly bint source_nat
    cdef readonly tuple regs
    cdef NatRange within
    cpdef int evaluate(self, Context ctx, Packet pkt) except? -100

cdef class Masq(Expr):
    cdef readonly int proto_min, proto_max, flags
    cdef readonly tuple regs
    cdef NatRange within
    cpdef int evaluate(self, Context ctx, Packet pkt) except? -100

cdef class Redir(Masq):
    cpdef int evaluate(self, Context ctx, Packet pkt) except? -100
