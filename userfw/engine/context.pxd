from userfw.engine.const cimport U32_MASK
from userfw.core.const cimport IPPROTO_AH, IPPROTO_DSTOPTS, IPPROTO_FRAGMENT, IPPROTO_HOPOPTS, IPPROTO_ROUTING
from userfw.core.const cimport ETH_P_IP, ETH_P_IPV6, NFPROTO_BRIDGE, NFPROTO_IPV4, NFPROTO_IPV6, NFPROTO_NETDEV, NFPROTO_UNSPEC
from userfw.core.clock cimport Clock
from userfw.core.packet cimport Device, Packet
from userfw.engine.services cimport Services

cdef class Context:
    cdef public bytearray regs
    cdef public Services services
    cdef public Clock clock
    cdef public int family, hook, chain_type
    cdef public bint busy
    cdef public object target, chain, rule
    cdef public int queue, queue_flags
    cdef public bint l4
    cdef public int protocol
    cdef public Py_ssize_t inner_tunnel, inner_link, inner_network, inner_transport
    cdef public int inner_protocol, inner_l4proto, inner_flags, inner_ready
    cdef public Context deeper
    cdef public Py_ssize_t saved_l4
    cdef public Py_ssize_t saved_l3
    cdef public int saved_proto, saved_nfproto

    cpdef Context nested(self)
    cpdef int begin(self, Packet pkt, int hook) except -1
    cdef int _stop_at_ah(self, Packet pkt) except -1
    cdef int _stop_at_tag(self, Packet pkt) except -1
    cdef int _go_by_type(self, Packet pkt) except -1
    cpdef int end(self, Packet pkt) except -1
    cpdef unsigned int read32(self, int reg) except? 0xFFFFFFFF
    cpdef int write32(self, int reg, unsigned int value) except -1
    cpdef int write16(self, int reg, unsigned int value) except -1
    cpdef int write8(self, int reg, unsigned int value) except -1
    cpdef int write64(self, int reg, unsigned long long value) except -1
    cpdef unsigned long long read64(self, int reg) except? 0xFFFFFFFFFFFFFFFF
    cpdef unsigned int read_be32(self, int reg) except? 0xFFFFFFFF
    cpdef unsigned long long read_be64(self, int reg) except? 0xFFFFFFFFFFFFFFFF
    cpdef int write_be16(self, int reg, unsigned int value) except -1
    cpdef int write_be32(self, int reg, unsigned int value) except -1
    cpdef int write_be64(self, int reg, unsigned long long value) except -1
    cpdef int write_bytes(self, int reg, bytes value, int length) except -1
