from userfw.core.const cimport ARPHRD_ETHER, IPPROTO_ICMPV6, NFPROTO_IPV6
from userfw.core.drop cimport DROP_HOP_LIMIT, DROP_MALFORMED, DROP_NOT_SPECIFIED
from userfw.core.packet cimport Address, Device, Packet
from userfw.router.base cimport Router
from userfw.router.const cimport (
    NDISC_NA, NDISC_NS, NDISC_RS, NUD_FAILED, NUD_REACHABLE, NUD_STALE, OVERRIDE_WEAK, OVERRIDE_YES, RTN_ANYCAST,
    RTN_UNICAST,
)
from userfw.router.neigh cimport NeighbourTable, Solicitor
from userfw.router.ra cimport Advertiser
from userfw.router.types cimport Dst, Neighbour
from userfw.wire.build cimport icmp_checksum, ipv6

cdef class Ndisc(Solicitor):
    cdef Router router
    cdef NeighbourTable table
    cdef public Advertiser advertiser
    cdef int _solicit(
        self, Device device, Neighbour neigh, unsigned long long src_hi, unsigned long long src_lo, unsigned long long hi,
        unsigned long long lo) except -1
    cpdef int advertise(
        self, Device device, unsigned long long to_hi, unsigned long long to_lo, unsigned long long target_hi,
        unsigned long long target_lo, unsigned int flags, bint option) except -1
    cpdef int announce(self, Device device, unsigned long long hi, unsigned long long lo) except -1
    cpdef int send(self, Packet pkt, Device device, unsigned long long hi, unsigned long long lo) except -1
    cpdef int receive_untrusted(self, Packet pkt) except -1
    cdef int _solicited(self, Packet pkt, Device device) except -1
    cdef int _advertised(self, Packet pkt, Device device) except -1
    cdef int _router_solicited(self, Packet pkt, Device device) except -1
    cdef _learn(self, Packet pkt, Neighbour neigh, Py_ssize_t option, int state, int override)
    cdef bint _anycast(self, Device device, unsigned long long hi, unsigned long long lo) except? -1

cpdef bint owns(Device device, unsigned long long hi, unsigned long long lo) except? -1
cpdef unsigned long long solicited_hi() noexcept
cpdef unsigned long long solicited_lo(unsigned long long lo) noexcept
cpdef Py_ssize_t find_option(Packet pkt, Py_ssize_t off, int kind) except? -100
cdef _lla_option(Packet pkt, Py_ssize_t off, int kind, Device device)
cpdef tuple link_local_of(Device device)
