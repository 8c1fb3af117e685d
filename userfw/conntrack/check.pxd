# Checksums of transport headers before conntrack believes them. Explained in check.py.
from userfw.core.const cimport (
    IPPROTO_ICMP, IPPROTO_SCTP, IPPROTO_UDP, IPPROTO_UDPLITE, NFPROTO_IPV4, VNET_F_DATA_VALID, VNET_F_NEEDS_CSUM,
)
from userfw.core.packet cimport Packet
from userfw.wire.checksum cimport add_bytes, fold, pseudo_sum

cpdef bint checksum_ok(Packet pkt, int l4proto) except? -1
cpdef unsigned int crc32c(bytearray data, Py_ssize_t off, Py_ssize_t length) except? 0xFFFFFFFE
