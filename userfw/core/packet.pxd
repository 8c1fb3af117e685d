cimport cython
from userfw.core.const cimport ARPHRD_ETHER, CT_NONE, HEADROOM, MAX_FRAME, NFPROTO_UNSPEC, PACKET_HOST, U32_MASK
from userfw.core.drop cimport DROP_NOT_SPECIFIED

# C layout of the nouns of the packet path. Meanings, units and owners are told in packet.py.

@cython.final
cdef class Packet:
    cdef public bytearray data
    cdef public Py_ssize_t start, end, l3, l4
    cdef public int protocol, nfproto, l4proto, fragoff, vlan_tci, pkttype
    cdef public bint is_fragment, has_l4, nat_done, trace, stolen, looped, rewritten
    cdef public unsigned int mark, priority, secmark
    cdef public int ip_options
    # virtio-net header
    cdef public int vnet_flags, gso_type, gso_size, csum_start, csum_offset
    # where from, where to
    cdef public Device iif, oif
    cdef public object route, nexthop
    # conntrack
    cdef public object ct
    cdef public int ctinfo, ctdir, ahead, checked
    cdef public int drop_reason
    cdef public unsigned short frag_max_size
    cdef public object extra

    cpdef void reset(self) noexcept
    cpdef unsigned int get8(self, Py_ssize_t off) except? 0xFFFFFFFF
    cpdef unsigned int get16(self, Py_ssize_t off) except? 0xFFFFFFFF
    cpdef unsigned int get32(self, Py_ssize_t off) except? 0xFFFFFFFF
    cpdef unsigned long long get64(self, Py_ssize_t off) except? 0xFFFFFFFF
    cpdef int put8(self, Py_ssize_t off, unsigned int value) except -1
    cpdef int put16(self, Py_ssize_t off, unsigned int value) except -1
    cpdef int put32(self, Py_ssize_t off, unsigned int value) except -1
    cpdef int put64(self, Py_ssize_t off, unsigned long long value) except -1
    cpdef bytes frame(self)
    cpdef int load_frame(self, object frame) except -1
    cpdef Packet clone(self)
    cpdef int copy_meta(self, Packet other) except -1

cdef class Port:
    cdef public Device device
    cdef public list refused
    cpdef int transmit(self, Packet pkt) except -1
    cpdef int flush(self) except -1

cdef class Device:
    cdef public int index, mtu, type, group, features
    cdef public str name, kind
    cdef public bytes ifname, mac
    cdef public unsigned int mac_hi, mac_lo
    cdef public bint up, promisc
    cdef public list addresses
    cdef public Port port
    cdef public Device parent, master
    cdef public int vlan_id, vlan_proto
    cdef public object ingress, egress, flowtable, router, bridge
    cdef public unsigned long long rx_packets, rx_bytes, tx_packets, tx_bytes
    cdef public unsigned long long rx_dropped, tx_dropped, rx_host_packets

cdef class Address:
    cdef public unsigned long long hi, lo
    cdef public int family, prefixlen, scope
    cdef public bint secondary, deprecated
    cdef public object peer
