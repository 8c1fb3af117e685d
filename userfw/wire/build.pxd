from userfw.core.const cimport (
    ETH_P_ARP, ETH_P_IP, ETH_P_IPV6, HEADROOM, IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_TCP, NFPROTO_ARP, NFPROTO_IPV4, NFPROTO_IPV6,
    VNET_F_NEEDS_CSUM,
)
from userfw.core.packet cimport Packet
from userfw.wire.checksum cimport add_bytes, fold, pseudo_sum, write_ipv4

cpdef int leave_checksum(Packet pkt, int offset) except -1
cpdef int ethernet(Packet pkt, unsigned int dst_hi, unsigned int dst_lo, unsigned int src_hi, unsigned int src_lo) except -1
cpdef int arp(
    Packet pkt, int op, unsigned int sender_hi, unsigned int sender_lo, unsigned int sender, unsigned int target_hi,
    unsigned int target_lo, unsigned int target) except -1
cpdef int ipv4(
    Packet pkt, int l4proto, Py_ssize_t payload, unsigned int src, unsigned int dst, int ttl, int tos, unsigned int ident,
    bint df) except -1
cpdef int ipv4_options(Packet pkt, bytes options) except -1
cpdef int ipv6(
    Packet pkt, int l4proto, Py_ssize_t payload, unsigned long long src_hi, unsigned long long src_lo,
    unsigned long long dst_hi, unsigned long long dst_lo, int hop_limit, int tclass) except -1
cpdef int icmp_checksum(Packet pkt) except -1
cpdef bint icmp_checksum_ok(Packet pkt) except? -1
cpdef int copy_bytes(Packet target, Py_ssize_t to, Packet source, Py_ssize_t off, Py_ssize_t length) except -1
cpdef int tcp_reset(Packet pkt, int source, int dest, unsigned int seq, unsigned int ack, int flags) except -1
cpdef bint is_icmp(Packet pkt) except? -1
