from userfw.core.const cimport (
    IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_SCTP, IPPROTO_TCP, IPPROTO_UDP, IPPROTO_UDPLITE, NFPROTO_IPV4, NFPROTO_IPV6, NFT_BREAK, NFT_CONTINUE,
    VNET_F_NEEDS_CSUM,
)
from userfw.core.packet cimport Packet
from userfw.engine.const cimport BASE_INNER, BASE_LINK, BASE_NETWORK, BASE_TRANSPORT, CSUM_INET, CSUM_SCTP, U32_MASK
from userfw.engine.context cimport Context
from userfw.engine.expr cimport Expr
from userfw.engine.expressions.payload cimport base_offset
from userfw.engine.sets.elements cimport load32, store32
from userfw.wire.checksum cimport add_bytes, fold

cdef bytearray CRC_TABLE
cdef Py_ssize_t link_position(Packet pkt, int offset) except? -100
cdef int replace_sum(Packet pkt, Py_ssize_t at, unsigned int old, unsigned int new) except -100
cdef int update_transport(Context ctx, Packet pkt, unsigned int old, unsigned int new, bint partial) except -100
cdef int _refresh(Packet pkt, int base, int offset, int length) except -1
cdef int write_crc(Packet pkt) except -1

cdef class PayloadSet(Expr):
    cdef readonly int sreg, src, base, offset, length, csum_type, csum_offset, csum_flags
    cdef int _forget_sum(self, Packet pkt) except -1
    cpdef int evaluate(self, Context ctx, Packet pkt) except? -100
