# The stateless and two-state protocols. Explained in proto.py.
cimport cython
from userfw.conntrack.check cimport checksum_ok
from userfw.conntrack.conn cimport Conn
from userfw.conntrack.const cimport (
    CT_EVENT_ASSURED, CT_PKT_ACCEPT, CT_PKT_INVALID, CT_REPLIED, CT_UNREPLIED, IPS_NAT_CLASH, T_GENERIC, T_GRE, T_ICMP, T_ICMPV6,
    T_UDP, T_UDPLITE,
)
from userfw.conntrack.table cimport ConnTable
from userfw.core.const cimport (
    CT_NEW, IPPROTO_GRE, IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_UDP, IPPROTO_UDPLITE, IPS_ASSURED, IPS_CONFIRMED, IPS_SEEN_REPLY,
    NFPROTO_IPV4, NFPROTO_IPV6, NF_INET_PRE_ROUTING,
)
from userfw.core.packet cimport Packet

cdef extern from *:
    """
    #define UDP_STREAM_AFTER 2000000000ULL
    """
    const unsigned long long UDP_STREAM_AFTER

cpdef int udp_packet(ConnTable table, Packet pkt, Conn conn, int direction, int hook) except -100
cpdef int icmp_packet(ConnTable table, Packet pkt, Conn conn, int direction, int ctinfo) except -100
cpdef int gre_packet(ConnTable table, Packet pkt, Conn conn, int direction) except -100
cpdef int generic_packet(ConnTable table, Packet pkt, Conn conn, int direction) except -100
cdef unsigned long long _t(ConnTable table, Conn conn, int base, int offset) noexcept
