from userfw.engine.const cimport JHASH_INITVAL, U32_MASK
from userfw.core.const cimport (
    IPPROTO_DCCP, IPPROTO_SCTP, IPPROTO_TCP, IPPROTO_UDP, IPPROTO_UDPLITE, NFPROTO_IPV4, NFPROTO_IPV6, NFT_CONTINUE,
)
from userfw.core.packet cimport Packet
from userfw.engine.context cimport Context
from userfw.engine.expr cimport Expr

cdef unsigned int rol(unsigned int word, int bits) noexcept
cpdef unsigned int jhash(bytearray data, Py_ssize_t at, int length, unsigned int initval) except? 0xFFFFFFFF
cdef unsigned int _word(bytearray data, Py_ssize_t at, int left) except? 0xFFFFFFFF
cdef unsigned int symmetric_hash(Context ctx, Packet pkt, bytearray words, unsigned int secret) except? 0xFFFFFFFF
cdef bint _has_ports(int proto) noexcept

cdef class Jhash(Expr):
    cdef readonly int sreg, dreg, src, dst, length
    cdef readonly unsigned long long modulus, offset
    cdef readonly unsigned int seed
    cdef bint seeded
    cdef unsigned int secret
    cpdef int evaluate(self, Context ctx, Packet pkt) except? -100

cdef class Symhash(Expr):
    cdef readonly int dreg, dst
    cdef readonly unsigned long long modulus, offset
    cdef unsigned int secret
    cdef bytearray words
    cpdef int evaluate(self, Context ctx, Packet pkt) except? -100
