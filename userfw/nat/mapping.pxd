# Choosing a mapping for a new connection. Explained in mapping.py.
#
# What expressions call, once for a new connection (ctinfo NEW or RELATED, unconfirmed); all return NF_ACCEPT, or NF_DROP with pkt.drop_reason:
#   nat.setup(pkt, conn, within, NAT_MANIP_SRC or NAT_MANIP_DST)      snat, dnat
#   nat.masquerade(pkt, conn, within)                                 masquerade (postrouting: address of pkt.oif)
#   nat.redirect(pkt, conn, within, hook)                             redirect (prerouting: address of pkt.iif; output: loopback)
# A range is built at commit and may be filled per packet from registers; ports in host order.
cimport cython
from userfw.conntrack.ahead cimport ConnAhead
from userfw.conntrack.conn cimport Conn, Tuple, TupleNode, U32_MASK, copy_tuple, same_tuple
from userfw.conntrack.const cimport TCP_TIME_WAIT
from userfw.conntrack.table cimport ConnTable
from userfw.conntrack.tuples cimport invert
from userfw.core.const cimport (
    CT_DIR_ORIGINAL, IPPROTO_GRE, IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_SCTP, IPPROTO_TCP, IPPROTO_UDP, IPPROTO_UDPLITE,
    IPS_CONFIRMED, IPS_DST_NAT, IPS_DST_NAT_DONE, IPS_DYING, IPS_FIXED_TIMEOUT, IPS_HW_OFFLOAD, IPS_OFFLOAD, IPS_SEQ_ADJUST,
    IPS_SRC_NAT, IPS_SRC_NAT_DONE,
    NAT_MANIP_DST, NAT_MANIP_SRC, NAT_RANGE_MAP_IPS, NAT_RANGE_NETMAP, NAT_RANGE_PERSISTENT, NAT_RANGE_PROTO_OFFSET,
    NAT_RANGE_PROTO_RANDOM, NAT_RANGE_PROTO_RANDOM_FULLY, NAT_RANGE_PROTO_SPECIFIED,
    NFPROTO_IPV4, NF_ACCEPT, NF_DROP, NF_INET_LOCAL_OUT,
)
from userfw.core.drop cimport DROP_NAT_FAILED
from userfw.core.packet cimport Address, Device, Packet
from userfw.nat.source cimport SourceIndex
from userfw.nat.taken cimport TakenMemory, TakenPorts

cdef enum:
    MAX_ATTEMPTS = 128
    HARDER_BELOW = 32
    RANDOM_ALL = 20
    PORTS_AHEAD = 16

cdef class NatRange:
    cdef public int flags, min_port, max_port, base_port
    cdef public unsigned long long min_hi, min_lo, max_hi, max_lo

cdef class AddressChoice:
    # Which of a device's addresses NAT uses; sets self.hi, self.lo. The router may put a better informed one into nat.addresses.
    cdef public unsigned long long hi, lo
    cpdef bint masquerade(self, Packet pkt, Device device) except? -1
    cpdef bint elsewhere(self, Packet pkt) except? -1
    cpdef bint redirect(self, Packet pkt, Device device) except? -1

cdef class Nat:
    cdef readonly ConnTable table
    cdef readonly SourceIndex sources
    cdef readonly TakenMemory taken
    cdef public AddressChoice addresses
    cdef object rng
    cdef readonly ConnAhead ahead
    cdef Tuple current, wanted, probe
    cdef NatRange own
    cpdef int setup(self, Packet pkt, Conn conn, NatRange within, int manip) except -1
    cpdef int null_binding(self, Packet pkt, Conn conn, int manip) except -1
    cpdef int masquerade(self, Packet pkt, Conn conn, NatRange within) except -1
    cpdef int redirect(self, Packet pkt, Conn conn, NatRange within, int hook) except -1
    cdef int _with_address(self, Packet pkt, Conn conn, NatRange within, int manip) except -1
    cdef bint _used(self, Tuple wanted, Conn conn) except? -1
    cdef bint _reverse(self, Conn conn) except? -1
    cdef bint _used_harder(self, Conn conn, int attempts_left) except? -1
    cdef bint _lasting(self, Conn conn) except? -1
    cdef bint _reuse(self, NatRange within, Conn conn) except? -1
    cdef int _choose(self, NatRange within, Conn conn, int manip) except -1
    cdef int _best_address(self, NatRange within, Conn conn, int manip) except -1
    cdef int _unique_port(self, NatRange within, Conn conn, int manip) except -1
    cdef int _search(self, Conn conn, bint source_key, int least, int size, int off, bint randomised) except -1
    cdef int _netmap(self, Packet pkt, NatRange within, int manip) except -1

cdef bint _in_range(Tuple t, NatRange within) noexcept
cdef bint _port_in_range(Tuple t, int manip, int least, int most) noexcept
cdef bint _address_in_range(unsigned long long hi, unsigned long long lo, NatRange within) noexcept
cdef unsigned int _swap32(unsigned int word) noexcept
cdef unsigned int _rol(unsigned int word, int bits) noexcept
cpdef unsigned int jhash_address(unsigned int w0, unsigned int w1, unsigned int w2, unsigned int w3, unsigned int initval) noexcept
cdef unsigned int _word(unsigned long long hi, unsigned long long lo, int index, bint ipv4) noexcept
