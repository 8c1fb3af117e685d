from userfw.core.clock cimport Clock
from userfw.core.const cimport ARPHRD_ETHER, ARPHRD_LOOPBACK, ETH_P_8021Q, NFPROTO_IPV4, NFPROTO_IPV6, U32_MASK
from userfw.core.packet cimport Address, Device, Packet, Port
from userfw.router.const cimport (
    RTN_ANYCAST, RTN_BROADCAST, RTN_LOCAL, RTN_MULTICAST, RTN_UNICAST, SCOPE_HOST, SCOPE_LINK, TABLE_LOCAL, TABLE_MAIN,
)
from userfw.router.batch cimport Batches
from userfw.router.settings cimport Settings
from userfw.router.types cimport Dst, NextHop, Route

cdef class Interfaces(Batches):
    cdef public list listeners
    cdef dict derived, groups
    cdef readonly Device lo
    cpdef bint has_anycast(self, Device device, unsigned long long lo) except? -1
