from userfw.core.const cimport (
    CT_UNTRACKED, HEADROOM, IPPROTO_FRAGMENT, IPPROTO_ICMPV6, IPPROTO_TCP, IPPROTO_UDP, MAX_FRAME, NF_ACCEPT, NF_DROP, NF_INET_PRE_ROUTING,
    NF_PRI_CONNTRACK_DEFRAG, NF_STOLEN, NFPROTO_IPV4,
)
from userfw.core.drop cimport (
    DROP_MALFORMED, DROP_NOT_SPECIFIED, DROP_REASM_LIMIT, DROP_REASM_OVERLAP, DROP_REASM_TIMEOUT,
)
from userfw.core.hook cimport HookEntry
from userfw.core.packet cimport Device, Packet
from userfw.router.base cimport Router, compact
from userfw.router.const cimport (
    ICMP_EXC_FRAGTIME, ICMP_TIME_EXCEEDED, ICMPV6_EXC_FRAGTIME, ICMPV6_HDR_FIELD, ICMPV6_HDR_INCOMP, ICMPV6_PARAMPROB,
    ICMPV6_TIME_EXCEED, IP_DF, RTN_LOCAL, USER_IN, USER_LOCAL, USER_OUT,
)
from userfw.wire.checksum cimport write_ipv4
from userfw.wire.parse cimport parse_network_untrusted

cdef class FragmentSizes:
    cdef public list sizes
    cdef public bint for_host

cdef class FragmentQueue:
    cdef public tuple key
    cdef public int family, user, total, meat, max_size, max_df, ecn, rid
    cdef public unsigned long long deadline
    cdef public list starts, ends, parts
    cdef public bytes header
    cdef public Packet first
    cdef public Py_ssize_t weight
    cdef public bint last_in

cdef class Reassembly:
    cdef Router router
    cdef public dict queues4, queues6, sources
    cdef readonly Py_ssize_t memory
    cdef readonly unsigned long long completed, failed
    cpdef int gather_untrusted(self, Packet pkt, int user) except? -100
    cdef int _gather4(self, Packet pkt, int user) except? -100
    cdef int _complete(self, FragmentQueue queue, Packet pkt) except? -100
    cdef _inherit(self, FragmentQueue queue, Packet pkt)
    cdef _rebuild(self, FragmentQueue queue, Packet pkt, Py_ssize_t head)
    cdef int _gather6(self, Packet pkt, int user) except? -100
    cdef int _problem(self, Packet pkt, Py_ssize_t pointer, int user) except? -100
    cdef FragmentQueue _find(self, Packet pkt, object key, int user, object source)
    cdef _distance(self, FragmentQueue queue, object source)
    cdef int _insert(self, FragmentQueue queue, Packet pkt, Py_ssize_t begin, int start, int end, bint more) except? -100
    cdef int _place(self, FragmentQueue queue, int start, int end) except? -100
    cdef int _kill(self, FragmentQueue queue, Packet pkt) except? -100
    cdef int _refuse(self, Packet pkt, int reason) except? -100
    cdef _lose(self, FragmentQueue queue, int reason)
    cdef dict _queues(self, int family)
    cdef _forget(self, FragmentQueue queue)
    cpdef tick(self, unsigned long long now)
    cdef _expired(self, FragmentQueue queue, Packet first)

cdef class Defrag(HookEntry):
    cdef Reassembly reassembly

cpdef Py_ssize_t fragment_header(Packet pkt) except? -2
cdef bytes _without(Packet pkt, Py_ssize_t where)
cpdef bint whole_fragment(Packet pkt) except? -1
cdef Py_ssize_t _cut_fragment(Packet pkt) except? -2
cdef bint _unreadable(Packet pkt) except? -1
cdef bint _incomplete(Packet pkt, Py_ssize_t where) except? -1
