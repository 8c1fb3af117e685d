# NAT's hook entry. Explained in entry.py.
from userfw.conntrack.conn cimport Conn
from userfw.core.const cimport (
    CT_DIR_ORIGINAL, CT_ESTABLISHED, CT_NEW, CT_RELATED, IPPROTO_ICMP, IPPROTO_ICMPV6, IPS_DST_NAT_DONE, IPS_SRC_NAT_DONE, IPS_TEMPLATE,
    NAT_MANIP_DST, NAT_MANIP_SRC, NF_ACCEPT, NF_DROP, NF_INET_LOCAL_IN, NF_INET_POST_ROUTING,
    NF_INET_PRE_ROUTING, NFPROTO_IPV4,
)
from userfw.core.drop cimport DROP_NAT_FAILED
from userfw.core.hook cimport HookEntry
from userfw.core.packet cimport Packet
from userfw.nat.mangle cimport mangle
from userfw.nat.mapping cimport Nat

cdef class NatEntry(HookEntry):
    cdef readonly Nat nat
    cdef readonly int hook, manip
    cdef readonly list chains
    cdef unsigned int done
    cpdef int run(self, Packet pkt, int hook) except -1
    cdef int _looped(self, Packet pkt, Conn conn, int hook) except -1
    cdef int _translate(self, Packet pkt, Conn conn, int hook) except -1
    cdef int _new(self, Packet pkt, Conn conn, int hook) except -1
