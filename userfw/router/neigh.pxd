from userfw.core.const cimport ARPHRD_ETHER, NFPROTO_IPV4, NFPROTO_IPV6, U32_MASK
from userfw.core.drop cimport DROP_NEIGH_FAILED, DROP_NEIGH_QUEUE_FULL
from userfw.core.packet cimport Device, Packet
from userfw.router.base cimport Router, compact
from userfw.router.const cimport (
    ICMP_DEST_UNREACH, ICMP_HOST_UNREACH, ICMPV6_ADDR_UNREACH, ICMPV6_DEST_UNREACH,
    NUD_CONNECTED, NUD_DELAY, NUD_FAILED, NUD_INCOMPLETE, NUD_NOARP, NUD_NONE, NUD_PERMANENT, NUD_PROBE, NUD_REACHABLE,
    NUD_STALE, NUD_VALID, OVERRIDE_WEAK, OVERRIDE_YES,
)
from userfw.router.types cimport Dst, Neighbour

cdef class Solicitor:
    cpdef int solicit(self, Neighbour neigh, Packet pkt, bint unicast) except -1

cdef class NeighbourTable:
    cdef Router router
    cdef public dict entries
    cdef list heap
    cdef unsigned long long serial, last_flush, next_gc, next_draw, reachable_time
    cdef readonly int permanent
    cdef public Solicitor arp, ndisc
    cdef public object watcher
    cpdef Neighbour get(self, Device device, int family, unsigned long long hi, unsigned long long lo)
    cpdef Neighbour obtain(self, Device device, int family, unsigned long long hi, unsigned long long lo)
    cpdef Neighbour of_dst(self, Dst dst, unsigned long long hi, unsigned long long lo)
    cdef Neighbour _mapped(self, Device device, int family, unsigned long long hi, unsigned long long lo)
    cpdef int resolve(self, Neighbour neigh, Packet pkt) except -1
    cpdef use(self, Neighbour neigh)
    cdef _queue(self, Neighbour neigh, Packet pkt)
    cdef _probe(self, Neighbour neigh)
    cpdef bint update(
        self, Neighbour neigh, unsigned int mac_hi, unsigned int mac_lo, bint has_mac, int state, int override) except? -1
    cdef _enter(self, Neighbour neigh, int state)
    cdef unsigned long long _reachable(self, unsigned long long now) except? 0
    cdef _release(self, Neighbour neigh)
    cdef _arm(self, Neighbour neigh, unsigned long long deadline)
    cpdef tick(self, unsigned long long now)
    cdef _timer(self, Neighbour neigh, unsigned long long now)
    cdef _collect(self, unsigned long long now, bint forced)
    cdef _fail(self, Neighbour neigh, unsigned long long now)

cpdef bint has_link_address(Device device) noexcept
