from userfw.core.clock cimport Clock
from userfw.core.fastpath cimport CachedRoute, Sender
from userfw.core.packet cimport Device, Packet
from userfw.engine.services cimport SocketInfo
from userfw.router.answers cimport Answers
from userfw.router.icmp cimport Icmp
from userfw.router.local cimport Local
from userfw.router.nd cimport Ndisc
from userfw.router.ra cimport Advertiser
from userfw.router.settings cimport Settings
from userfw.router.synproxy cimport Synproxy

cdef class GatewaySender(Sender):
    cdef Gateway gateway

cdef class Gateway(Answers):
    cdef readonly Icmp icmp
    cdef readonly Ndisc ndisc
    cdef readonly Advertiser advertiser
    cdef readonly Local local
    cdef readonly GatewaySender sender
    cdef readonly Synproxy proxy
    cdef readonly object defrag, queues, sockets
