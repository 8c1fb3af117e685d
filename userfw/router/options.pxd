from userfw.core.const cimport NFPROTO_IPV4, NSEC_PER_SEC, U32_MASK
from userfw.core.drop cimport DROP_IP_OPTIONS, DROP_NOT_SPECIFIED
from userfw.core.packet cimport Packet
from userfw.router.base cimport Router
from userfw.router.const cimport (
    ICMP_PARAMETERPROB, OPT_CHANGED, OPT_RR_ADDR, OPT_TS_ADDR, OPT_TS_TIME, RTN_LOCAL,
)
from userfw.router.types cimport Dst
from userfw.wire.checksum cimport write_ipv4

cpdef int ipv4_options(Router router, Packet pkt, Dst dst) except -1
cpdef int forward_options(Router router, Packet pkt, Dst dst) except -1
cpdef bytes echoed(Router router, Packet pkt, unsigned int own, Packet answer)
cpdef Py_ssize_t find_option(Packet pkt, int wanted) except? -100
cpdef unsigned int midnight(Router router) except? 0xFFFFFFFF
cdef _clear(Packet pkt, Py_ssize_t off, Py_ssize_t end)
cdef unsigned int _bit(int kind) noexcept
cdef Py_ssize_t _wrong_at(Packet pkt, Py_ssize_t off, int kind, Py_ssize_t length) except? -100
cdef int _bad_option(Router router, Packet pkt, Py_ssize_t where) except -1
cdef unsigned int _specific(Router router, Packet pkt, Dst dst) except? 0xFFFFFFFF
cdef _record_route(Router router, Packet pkt, Dst dst, Py_ssize_t off)
cdef _stamp(Router router, Packet pkt, Dst dst, Py_ssize_t off)
cdef int _echo_record(Packet pkt, bytearray option, unsigned int own) except -1
cdef int _echo_stamp(Router router, Packet pkt, bytearray option, unsigned int own) except -1
cdef bint _special(Router router, unsigned int address) except? -1
