from userfw.core.const cimport NFPROTO_IPV4, NSEC_PER_SEC, U32_MASK
from userfw.core.drop cimport DROP_IP_OPTIONS, DROP_NOT_SPECIFIED
from userfw.core.packet cimport Packet
from userfw.router.base cimport Router
from userfw.router.const cimport ICMP_PARAMETERPROB, RTN_LOCAL, RTN_UNICAST
from userfw.router.types cimport Dst
from userfw.wire.checksum cimport write_ipv4

cpdef int ipv4_options(Router router, Packet pkt) except -1
cpdef int record(Router router, Packet pkt, Dst dst) except -1
cdef unsigned int _bit(int kind) noexcept
cdef Py_ssize_t _wrong_at(Packet pkt, Py_ssize_t off, int kind, Py_ssize_t length) except? -100
cdef int _bad_option(Router router, Packet pkt, Py_ssize_t pointer) except -1
cdef unsigned int _address(Router router, Packet pkt, Dst dst) except? 0xFFFFFFFF
cdef bint _record_route(Router router, Packet pkt, Dst dst, Py_ssize_t off) except? -1
cdef bint _stamp(Router router, Packet pkt, Dst dst, Py_ssize_t off) except? -1
cdef unsigned int _midnight(Router router) except? 0xFFFFFFFF
