from userfw.core.const cimport NFT_BREAK, NFT_CONTINUE
from userfw.core.packet cimport Device, Packet
from userfw.engine.const cimport (
    BASE_LINK, BASE_NETWORK, BASE_TRANSPORT, CMP_EQ, CMP_GT, CMP_GTE, CMP_LT, CMP_LTE, CMP_NEQ, META_IIF, META_IIFNAME, META_L4PROTO,
    META_MARK, META_NFPROTO, META_OIF, META_OIFNAME, META_PKTTYPE, META_PROTOCOL,
)
from userfw.engine.context cimport Context
from userfw.engine.expr cimport Expr
from userfw.engine.expressions.ct cimport state_bit
from userfw.engine.expressions.meta cimport network_family, packet_type
from userfw.engine.expressions.payload cimport base_offset, fast_transport

cdef bint compare(unsigned long long value, int op, unsigned long long low, unsigned long long high) noexcept

cdef class PayloadTest(Expr):
    cdef readonly int family, proto, base, offset, length, op
    cdef readonly unsigned long long mask, xor, low, high
    cdef readonly bint fast
    cpdef int evaluate(self, Context ctx, Packet pkt) except? -100
    cpdef PayloadTest with_data(self, bytes data)

cdef class PayloadBytes(Expr):
    cdef readonly int family, base, offset, length
    cdef readonly bint equal
    cdef readonly bytes data
    cpdef int evaluate(self, Context ctx, Packet pkt) except? -100
    cpdef PayloadBytes with_data(self, bytes data)

cdef class MetaTest(Expr):
    cdef readonly int key, op
    cdef readonly unsigned long long mask, xor, value
    cpdef int evaluate(self, Context ctx, Packet pkt) except? -100

cdef class NameTest(Expr):
    cdef readonly int length
    cdef readonly bint out, equal
    cdef readonly bytes name
    cpdef int evaluate(self, Context ctx, Packet pkt) except? -100

cdef class StateTest(Expr):
    cdef readonly unsigned int mask, value
    cdef readonly bint equal
    cpdef int evaluate(self, Context ctx, Packet pkt) except? -100
