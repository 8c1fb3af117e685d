# Rewriting packets by the mapping of their connection. Explained in mangle.py.
#
#   mangle(pkt, conn, manip)          what NatEntry does to every packet of a translated connection
#   rewrite_of(conn, direction)       a Rewrite: all of it precomputed for one direction, for the flowtable; None if nothing changes
#   rewrite.apply(pkt)                addresses, ports and checksums at pkt.l3 and pkt.l4
cimport cython
from userfw.conntrack.check cimport crc32c
from userfw.conntrack.conn cimport Conn, Tuple, TupleNode, U32_MASK
from userfw.conntrack.tuples cimport inner_l4, inner_proto
from userfw.core.const cimport (
    CT_DIR_REPLY, CT_RELATED, IPPROTO_GRE, IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_SCTP, IPPROTO_TCP, IPPROTO_UDP, IPPROTO_UDPLITE,
    IPS_DST_NAT, IPS_DST_NAT_DONE, IPS_SRC_NAT, IPS_SRC_NAT_DONE, NAT_MANIP_DST, NAT_MANIP_SRC, NFPROTO_IPV4, NFPROTO_IPV6,
    NF_ACCEPT, NF_DROP, VNET_F_DATA_VALID, VNET_F_NEEDS_CSUM,
)
from userfw.core.drop cimport DROP_CHECKSUM, DROP_MALFORMED, DROP_NAT_FAILED
from userfw.core.packet cimport Packet
from userfw.wire.checksum cimport add_bytes, fold, pseudo_sum

cdef enum:
    CHANGE_SRC = 1
    CHANGE_DST = 2
    CHANGE_SPORT = 4
    CHANGE_DPORT = 8
    CHANGE_ID = 16

cpdef int mangle(Packet pkt, Conn conn, int manip) except -1
cpdef Rewrite rewrite_of(Conn conn, int direction)

@cython.final
cdef class Rewrite:
    cdef readonly unsigned long long src_hi, src_lo, dst_hi, dst_lo
    cdef readonly unsigned int sport, dport
    cdef readonly int changes, l3num, l4proto
    cdef readonly unsigned int address_delta, delta
    cpdef int apply(self, Packet pkt) except -1
    cpdef int apply_at(self, Packet pkt, Py_ssize_t l3, Py_ssize_t l4) except -1

cdef unsigned int _address(Packet pkt, Py_ssize_t off, bint ipv4, unsigned long long hi, unsigned long long lo) except? 0xFFFFFFFE
cdef unsigned int _sum64(unsigned long long word) noexcept
cdef int _header(Packet pkt, Py_ssize_t off, unsigned int delta) except -1
cdef int _transport(Packet pkt, Py_ssize_t l3, Py_ssize_t l4, int proto, int manip, Tuple target, bint reversed, unsigned int delta, bint outer) except -1
cdef int _port(Packet pkt, Py_ssize_t l4, Py_ssize_t check, Py_ssize_t off, unsigned int port, unsigned int delta, bint partial, bint zero_off, bint zero_to_ones) except -1
cdef int _fix(Packet pkt, Py_ssize_t off, unsigned int address_delta, unsigned int delta, bint partial, bint zero_to_ones) except -1
cdef int _icmp_error(Packet pkt, Conn conn, int manip) except -1
cdef bint _is_icmp_error(Packet pkt) except? -1
cdef int _short(Packet pkt) except -1
cdef int _icmp_checksum(Packet pkt, bint ipv4) except -1
cdef int _sctp(Packet pkt, Py_ssize_t l4, bint partial) except -1
