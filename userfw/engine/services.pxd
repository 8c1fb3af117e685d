from userfw.core.clock cimport Clock
from userfw.core.const cimport NF_ACCEPT, NF_DROP
from userfw.core.fastpath cimport Sender
from userfw.core.hook cimport HookEntry
from userfw.core.packet cimport Device, Packet

cdef class FibResult:
    cdef public int type
    cdef public Device oif

cdef class RouteInfo:
    cdef public int family
    cdef public bytes nexthop
    cdef public unsigned int classid, mtu
    cdef public bint ipsec
    cdef public Device oif

cdef class Origin:
    cdef public bint bound

cdef class Copy(Origin):
    cdef public Device entered
    cdef public bint made_whole, for_host

cdef class SocketInfo(Origin):
    cdef public bint transparent, wildcard, established, time_wait
    cdef public unsigned int mark, classid, inode
    cdef public long long uid, gid
    cdef public list cgroups
    cdef public object owner, group_of

cdef class Services(Sender):
    cdef public Clock clock
    cdef public object trace, conntrack, nat, fingerprints, drop_chain, drop_rule
    cdef public unsigned int cpu, cgroup

    cpdef unsigned int random(self) except? 0xFFFFFFFF
    cpdef Device device_by_index(self, int index)
    cpdef Device device_by_name(self, bytes ifname)
    cpdef bint fib(self, Packet pkt, int family, Py_ssize_t address, Py_ssize_t source, Device device, unsigned int mark, FibResult result) except -1
    cpdef RouteInfo route_info(self, Packet pkt)
    cpdef SocketInfo socket(self, Packet pkt)
    cpdef int send_reject(self, Packet pkt, int hook, int family, int type, int code) except -1
    cpdef int send_duplicate(self, Packet pkt, int hook, int family, bytes gateway, Device device) except -1
    cpdef int forward_device(self, Packet pkt, Device device) except -1
    cpdef int forward_neighbour(self, Packet pkt, Device device, int family, bytes nexthop) except -1
    cpdef int log(self, Packet pkt, int hook, int family, object request) except -1
    cpdef int enqueue(self, Packet pkt, int hook, HookEntry entry, int number, bint bypass) except -1
    cpdef int tproxy(self, Packet pkt, int family, bytes address, int port) except -1
    cpdef int synproxy(self, Packet pkt, int hook, int mss, int wscale, int flags) except -1
    cpdef int reroute(self, Packet pkt, int hook) except -1
    cpdef int broute(self, Packet pkt, bint on) except -1
    cpdef int quota_depleted(self, object quota) except -1
