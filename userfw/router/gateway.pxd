from userfw.conntrack.conn cimport Conn, TupleNode
from userfw.core.clock cimport Clock
from userfw.core.const cimport CT_DIR_ORIGINAL, ETH_P_8021AD, ETH_P_8021Q, NF_DROP
from userfw.core.drop cimport DROP_CHECKSUM
from userfw.core.fastpath cimport CachedRoute, Crossing, Sender
from userfw.core.packet cimport Device, Packet
from userfw.engine.services cimport SocketInfo
from userfw.router.answers cimport Answers
from userfw.router.const cimport NUD_VALID, RTN_LOCAL, RTN_UNICAST
from userfw.router.crossing cimport BridgeCrossing, walk
from userfw.router.icmp cimport Icmp
from userfw.router.local cimport Local
from userfw.router.nd cimport Ndisc
from userfw.router.ra cimport Advertiser
from userfw.router.settings cimport Settings
from userfw.router.synproxy cimport Synproxy
from userfw.router.types cimport Dst, Neighbour

cdef class GatewaySender(Sender):
    cdef Gateway gateway

cdef class Gateway(Answers):
    cdef readonly Icmp icmp
    cdef readonly Ndisc ndisc
    cdef readonly Advertiser advertiser
    cdef readonly Local local
    cdef readonly GatewaySender sender
    cdef readonly Synproxy proxy
    cdef readonly object defrag, queues, sockets, paths
    cpdef object walk_bridge(self, CachedRoute route, unsigned long long hi, unsigned long long lo, Device device, unsigned int tags)
    cpdef CachedRoute route_local(self, Packet pkt, bint out)
