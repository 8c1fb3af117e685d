from userfw.core.const cimport NFPROTO_IPV4, U32_MASK
from userfw.core.packet cimport Packet

cpdef unsigned int add_bytes(unsigned int total, bytearray data, Py_ssize_t off, Py_ssize_t length) except? 0xFFFFFFFF
cpdef unsigned int fold(unsigned int total) noexcept
cpdef unsigned int pseudo_sum(Packet pkt, int l4proto, Py_ssize_t length) except? 0xFFFFFFFF
cpdef int replace16(Packet pkt, Py_ssize_t off, unsigned int old, unsigned int new) except -1
cpdef int replace32(Packet pkt, Py_ssize_t off, unsigned int old, unsigned int new) except -1
cpdef int write_ipv4(Packet pkt) except -1
