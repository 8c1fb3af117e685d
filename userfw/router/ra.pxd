from userfw.core.const cimport IPPROTO_ICMPV6, NSEC_PER_SEC
from userfw.core.packet cimport Device, Packet
from userfw.router.base cimport Router
from userfw.router.const cimport NDISC_RA
from userfw.wire.build cimport ipv6

cdef class Advertiser:
    cdef Router router
    cdef object ndisc, source
    cdef public dict devices
    cpdef solicited(self, Device device)
