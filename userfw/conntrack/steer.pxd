cimport cython
from userfw.conntrack.conn cimport Conn, Tuple
from userfw.conntrack.tuples cimport inner_l4, inner_proto
from userfw.core.const cimport IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_TCP, IPPROTO_UDP, NFPROTO_IPV4, NFPROTO_IPV6
from userfw.core.packet cimport Packet

cdef extern from *:
    """
    #define STEER_FACTOR 0x9E3779B1U
    """
    const unsigned int STEER_FACTOR

cdef class Steering:
    cdef readonly int index, count
    cpdef int home(self, int l4proto, unsigned int sport, unsigned int dport) noexcept
    cpdef bint ours(self, Tuple key) noexcept
    cpdef int of_packet(self, Packet pkt) except -1
    cpdef int strayed(self, Conn conn) except -1
