# The way out. Explained in egress.py.
from userfw.core.clock cimport Clock
from userfw.core.const cimport (
    ARPHRD_ETHER, ARPHRD_LOOPBACK, ETH_P_8021AD, ETH_P_8021Q, ETH_P_IP, ETH_P_IPV6, NF_ACCEPT, NF_DROP, NF_INET_POST_ROUTING,
    NFPROTO_IPV4, NFPROTO_IPV6, PACKET_LOOPBACK, VNET_F_DATA_VALID, VNET_F_NEEDS_CSUM,
)
from userfw.core.drop cimport DROP_DEVICE_DOWN, DROP_NEIGH_FAILED, DROP_NOT_SPECIFIED, DROP_RULE, DROP_MARTIAN, DROP_TX_FAILED
from userfw.core.fastpath cimport Crossing
from userfw.core.hook cimport HookList
from userfw.core.packet cimport Device, Packet, Port
from userfw.engine.services cimport Origin
from userfw.router.arp cimport Arp
from userfw.router.base cimport Router, compact, set_start
from userfw.router.bridge cimport Bridge, Leaving
from userfw.router.fragment cimport Fragmenter
from userfw.router.neigh cimport NeighbourTable
from userfw.router.pipeline cimport Pipeline
from userfw.router.settings cimport Settings
from userfw.router.types cimport Dst, Neighbour
from userfw.wire.gso cimport complete_checksum

cdef class Egress(Router):
    cdef public Pipeline pipeline
    cdef readonly NeighbourTable neighbours
    cdef readonly Arp arp
    cdef readonly Fragmenter fragments
    cdef list backlog
    cdef bint _to_group(self, Packet pkt) except? -1
    cdef _loop_back(self, Packet pkt, Device device)
    cpdef bint listens(self, Device device, int family, unsigned long long hi, unsigned long long lo) except? -1
    cdef int _emit_bridged(self, Packet pkt) except -1
    cdef Neighbour _neighbour(self, Packet pkt, Dst dst)
    cpdef int emit_through(self, Packet pkt, Device device, unsigned int tags, Crossing crossing) except -1
    cdef _touch(self, Port port)
    cdef _tag(self, Packet pkt, Device device)
    cdef int _virtual(self, Packet pkt, Device device) except -1
