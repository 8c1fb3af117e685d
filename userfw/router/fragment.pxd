from userfw.engine.services cimport Copy
from userfw.core.const cimport IPPROTO_FRAGMENT, NFPROTO_IPV4, VNET_GSO_NONE
from userfw.core.drop cimport DROP_FRAG_NEEDED, DROP_MALFORMED, DROP_NOT_SPECIFIED
from userfw.core.packet cimport Packet
from userfw.router.base cimport Router
from userfw.router.const cimport ICMP_DEST_UNREACH, ICMP_FRAG_NEEDED, ICMPV6_PKT_TOOBIG, IP_DF, IP_MF, IPV6_MIN_MTU
from userfw.router.inspect cimport exceeds
from userfw.router.reassembly cimport FragmentSizes
from userfw.wire._raw cimport copy
from userfw.wire.checksum cimport write_ipv4
from userfw.wire.gso cimport complete_checksum, segment, segment_count
from userfw.wire.parse cimport parse_network_untrusted

cdef class Fragmenter:
    cdef Router router
    cdef readonly unsigned long long packets, fragments, refused
    cpdef int output(self, Packet pkt, int mtu) except -1
    cdef int _refuse(self, Packet pkt, int mtu) except -1
    cdef int _segments(self, Packet pkt, int mtu) except -1
    cdef int _output4(self, Packet pkt, int mtu) except -1
    cdef int _piece4(self, Packet pkt, int head, int off, int size, bint more, int field) except -1
    cdef int _output6(self, Packet pkt, int mtu) except -1
    cdef int _piece6(self, Packet pkt, int head, Py_ssize_t slot, int off, int size, bint more, unsigned int ident) except -1

cpdef list fitting(Packet pkt, int room, int total)
cpdef tuple unfragmentable(Packet pkt)
cdef _begin(Packet piece, Packet pkt, int head)
cdef _inherit(Packet piece, Packet pkt)
cdef _quiet_options(Packet piece, int head)
