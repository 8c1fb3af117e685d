from userfw.conntrack.conn cimport Conn, Tuple
from userfw.conntrack.table cimport ConnTable
from userfw.core.const cimport (
    CT_BIT_ESTABLISHED, CT_BIT_INVALID, CT_BIT_NEW, CT_BIT_RELATED, CT_BIT_UNTRACKED, CT_ESTABLISHED, CT_NEW, CT_RELATED,
    CT_UNTRACKED, IPS_CONFIRMED, IPS_TEMPLATE, NFPROTO_IPV4, NFPROTO_IPV6, NFT_BREAK, NFT_CONTINUE,
)
from userfw.core.packet cimport Packet
from userfw.engine.const cimport (
    U32_MASK,
    CT_KEY_AVGPKT, CT_KEY_BYTES, CT_KEY_DIRECTION, CT_KEY_DST, CT_KEY_DST_IP, CT_KEY_DST_IP6, CT_KEY_EXPIRATION, CT_KEY_HELPER, CT_KEY_ID,
    CT_KEY_L3PROTOCOL, CT_KEY_LABELS, CT_KEY_MARK, CT_KEY_PKTS, CT_KEY_PROTO_DST, CT_KEY_PROTO_SRC, CT_KEY_PROTOCOL, CT_KEY_SECMARK,
    CT_KEY_SRC, CT_KEY_SRC_IP, CT_KEY_SRC_IP6, CT_KEY_STATE, CT_KEY_STATUS, CT_KEY_ZONE,
)
from userfw.engine.context cimport Context
from userfw.engine.expr cimport Expr

cdef unsigned int state_bit(Packet pkt) except? 0xFFFFFFFF
cdef int _load(Context ctx, Packet pkt, Conn conn, int key, int direction, int dst) except? -100
cdef unsigned long long _count(Conn conn, int key, int direction) except? 0xFFFFFFFF
cdef int _helper_name(Context ctx, Conn conn, int dst) except? -100
cdef int _tuple_field(Context ctx, Tuple t, int key, int dst) except? -100
cdef int _use_zone(Context ctx, Packet pkt, int src, int direction) except? -100

cdef class Ct(Expr):
    cdef readonly int key, length, direction, dst, dreg
    cpdef int evaluate(self, Context ctx, Packet pkt) except? -100

cdef class CtSet(Expr):
    cdef readonly int key, length, direction, src, sreg
    cpdef int evaluate(self, Context ctx, Packet pkt) except? -100
