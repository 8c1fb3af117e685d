# The bridge. Explained in bridge.py.
from userfw.core.const cimport (
    ETH_P_8021AD, ETH_P_8021Q, NF_ACCEPT, NF_INET_FORWARD, NF_INET_LOCAL_IN, NF_INET_LOCAL_OUT, NF_INET_POST_ROUTING,
    NF_INET_PRE_ROUTING, NFPROTO_BRIDGE, NFPROTO_IPV4, NFPROTO_IPV6, PACKET_HOST,
)
from userfw.core.drop cimport (
    DROP_BRIDGE_FILTER, DROP_DEVICE_DOWN, DROP_MALFORMED, DROP_NOT_SPECIFIED, DROP_OTHERHOST, DROP_TX_MTU,
)
from userfw.core.packet cimport Device, Packet
from userfw.router.base cimport Router, set_start
from userfw.wire._raw cimport copy
from userfw.wire.gso cimport segment_network_length

cdef class Members:
    cdef readonly Bridge bridge
    cdef readonly Device device
    cdef public int pvid
    cdef public set vlans, untagged
    cdef public bint learning, flood, hairpin, isolated

cdef class FdbEntry:
    cdef readonly unsigned long long mac
    cdef readonly int vlan
    cdef public Members port
    cdef public unsigned long long updated, used
    cdef public bint fixed, dead

cdef class Leaving:
    cdef readonly bytes header
    cdef readonly Device device

cdef class Bridge:
    cdef readonly Router router
    cdef readonly Device device
    cdef readonly Members own
    cdef readonly list ports
    cdef readonly dict fdb, local
    cdef public unsigned long long ageing, learned, refused
    cdef public unsigned int generation
    cdef public object watcher
    cdef public Py_ssize_t fdb_max
    cdef public bint filtering, brouted
    cdef public int vlan_proto, group_fwd_mask
    cpdef int receive(self, Packet pkt, int reason) except -1
    cpdef int finish(self, Packet pkt) except -1
    cpdef int up(self, Packet pkt, int vid) except -1
    cpdef int enter(self, Packet pkt) except -1
    cpdef int learn(self, Packet pkt, Members port, int vid) except -1
    cpdef FdbEntry find(self, unsigned long long mac, int vid)
    cpdef int transmit(self, Packet pkt) except -1
    cpdef int send(self, Packet pkt, Device device) except -1
    cpdef bint deliverable(self, Members to, Members source, int vid) except? -1
    cdef int _flood(self, Packet pkt, int vid, Members source, bint keep) except -1
    cdef int _copy_to(self, Packet pkt, Members port, int vid, bint own) except -1
    cdef int _forward(self, Packet pkt, Members port, int vid, bint own) except -1
    cdef int _output(self, Packet pkt) except -1
    cdef int _to_port(self, Packet pkt, int reason, int kind) except -1
    cpdef int post(self, Packet pkt) except -1
    cpdef int push(self, Packet pkt) except -1
    cdef int _ingress(self, Packet pkt, Members port) except? -2
    cdef int _dress(self, Packet pkt, Members port, int vid) except -1
