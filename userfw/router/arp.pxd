from userfw.core.const cimport (
    ARPHRD_ETHER, NF_ACCEPT, NF_ARP_IN, NF_ARP_OUT, NFPROTO_ARP, NFPROTO_IPV4, PACKET_HOST, PACKET_LOOPBACK,
    PACKET_OTHERHOST, U32_MASK,
)
from userfw.core.drop cimport DROP_MALFORMED, DROP_NOT_SPECIFIED, DROP_OTHERHOST
from userfw.core.packet cimport Device, Packet
from userfw.router.base cimport Router
from userfw.router.const cimport (
    ARPOP_REPLY, ARPOP_REQUEST, NUD_REACHABLE, NUD_STALE, OVERRIDE_NO, OVERRIDE_YES, RTN_LOCAL, SCOPE_LINK,
)
from userfw.router.neigh cimport NeighbourTable, Solicitor
from userfw.router.types cimport Dst, Neighbour
from userfw.wire.build cimport arp, ethernet

cdef class Arp(Solicitor):
    cdef Router router
    cdef NeighbourTable table
    cpdef int announce(self, Device device, unsigned int address) except -1
    cpdef int send(
        self, Device device, int op, unsigned int source, unsigned int target, unsigned int to_hi, unsigned int to_lo,
        unsigned int target_hi, unsigned int target_lo) except -1
    cpdef int receive_untrusted(self, Packet pkt) except -1
    cdef int _process(self, Packet pkt, Device device) except -1
    cdef bint _answers(self, Dst dst, Device device) except? -1
    cdef int _answer(
        self, Device device, Dst dst, unsigned int sip, unsigned int tip, unsigned int sha_hi, unsigned int sha_lo) except -1
    cdef _learn(
        self, Packet pkt, Device device, int op, unsigned int sip, unsigned int tip, unsigned int sha_hi, unsigned int sha_lo)
