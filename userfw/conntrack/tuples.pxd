# Reading tuples from packets, turning them round, hashing them. Explained in tuples.py.
from userfw.conntrack.conn cimport Tuple, U32_MASK
from userfw.core.const cimport (
    IPPROTO_AH, IPPROTO_DSTOPTS, IPPROTO_FRAGMENT, IPPROTO_GRE, IPPROTO_HOPOPTS, IPPROTO_ICMP, IPPROTO_ICMPV6,
    IPPROTO_NONE, IPPROTO_ROUTING, IPPROTO_SCTP, IPPROTO_TCP, IPPROTO_UDP, IPPROTO_UDPLITE, NFPROTO_IPV4, NFPROTO_IPV6,
)
from userfw.core.packet cimport Packet

cdef extern from *:
    """
    #define U64_MASK 0xFFFFFFFFFFFFFFFFULL
    #define SIP_0 0x736F6D6570736575ULL
    #define SIP_1 0x646F72616E646F6DULL
    #define SIP_2 0x6C7967656E657261ULL
    #define SIP_3 0x7465646279746573ULL
    """
    const unsigned long long U64_MASK, SIP_0, SIP_1, SIP_2, SIP_3

cpdef bint read_tuple(Packet pkt, int family, Py_ssize_t l3, Py_ssize_t l4, int l4proto, Tuple into) except? -1
cpdef Py_ssize_t inner_l4(Packet pkt, int family, Py_ssize_t l3) except? -2
cpdef int inner_proto(Packet pkt, int family, Py_ssize_t l3) except? -2
cpdef bint invert(Tuple tuple, Tuple into) except? -1
cpdef unsigned int hash_tuple(Tuple tuple, unsigned long long k0, unsigned long long k1) noexcept
cpdef unsigned int hash_words(unsigned long long k0, unsigned long long k1, unsigned long long a, unsigned long long b, unsigned long long c) noexcept
cdef unsigned int _sip(unsigned long long k0, unsigned long long k1, int n, unsigned long long a, unsigned long long b, unsigned long long c, unsigned long long d, unsigned long long e) noexcept
cdef int _icmp_answer(int type) noexcept
cdef int _icmpv6_answer(int type) noexcept
