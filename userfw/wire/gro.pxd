from userfw.core.const cimport (
    ARPHRD_ETHER, ETH_P_IP, ETH_P_IPV6, HEADROOM, IPPROTO_TCP, IPPROTO_UDP, MAX_FRAME, NFPROTO_IPV4, NFPROTO_IPV6, TCP_ACK,
    TCP_ECE, TCP_PSH, U32_MASK, VNET_F_NEEDS_CSUM, VNET_GSO_NONE, VNET_GSO_TCPV4, VNET_GSO_TCPV6,
    VNET_GSO_UDP_L4,
)
from userfw.core.packet cimport Device, Packet
from userfw.wire._raw cimport add_words, copy
from userfw.wire.checksum cimport add_bytes, fold, pseudo_sum, write_ipv4
from userfw.wire.gso cimport MIN_TCP_SEGMENT

cdef enum:
    MAX_FLOWS = 8
    MAX_UDP_MERGED = 64
    MAX_NETWORK = 65535

cdef class Coalescer:
    cdef list heads
    cdef unsigned int ports[MAX_FLOWS]
    cdef unsigned int expected[MAX_FLOWS]
    cdef int count[MAX_FLOWS]
    cdef int header[MAX_FLOWS]
    cdef int size[MAX_FLOWS]
    cdef bint trusted[MAX_FLOWS]
    cdef int open
    cdef int transport
    cdef readonly unsigned long long merged, chains
    cpdef int run(self, list packets, int n, bint udp) except -1
    cdef int _offer(self, Packet pkt, bint udp) except -1
    cdef int _flow(self, Packet pkt) except -2
    cdef bint _follows(self, int flow, Packet pkt) except -1
    cdef bint _opens(self, Packet pkt, bint udp) except -1
    cdef int _open(self, Packet pkt) except -1
    cdef int _merge(self, int flow, Packet pkt) except -1
    cdef int _close(self, int flow) except -1

cdef bint _classify(Packet pkt) except -1
cdef bint _verified(Packet pkt) except -1
cdef bint _same(Packet one, Packet other, Py_ssize_t off, Py_ssize_t size) except -1
