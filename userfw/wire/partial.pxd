from userfw.core.const cimport (
    ETH_P_IP, ETH_P_IPV6, IPPROTO_DSTOPTS, IPPROTO_HOPOPTS, IPPROTO_ROUTING, IPPROTO_TCP, IPPROTO_UDP, VNET_F_NEEDS_CSUM,
)
from userfw.core.packet cimport Packet
from userfw.wire._raw cimport add_words
from userfw.wire.checksum cimport fold

cpdef bint mark_untrusted(Packet pkt) except -1
cdef bint _mark(Packet pkt, Py_ssize_t l3, Py_ssize_t l4, Py_ssize_t end, int protocol, Py_ssize_t source, Py_ssize_t size) except -1
