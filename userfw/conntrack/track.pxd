# The two hook entries of connection tracking. Explained in track.py.
cimport cython
from userfw.conntrack.check cimport checksum_ok
from userfw.conntrack.conn cimport Conn, Tuple, TupleNode, node_of, same_tuple
from userfw.conntrack.const cimport CT_EVENT_HELPER, CT_EVENT_REPLY, EXPECT_PERMANENT, CT_PKT_ACCEPT, CT_PKT_DROP, CT_PKT_INVALID, CT_PKT_REPEAT
from userfw.conntrack.expect cimport Expectation
from userfw.conntrack.proto cimport generic_packet, gre_packet, icmp_packet, udp_packet
from userfw.conntrack.sctp cimport sctp_packet
from userfw.conntrack.seqadj cimport seq_adjust
from userfw.conntrack.settings cimport Settings
from userfw.conntrack.table cimport ConnTable
from userfw.conntrack.tcp cimport Tcp
from userfw.conntrack.tuples cimport inner_l4, inner_proto, invert, read_tuple
from userfw.core.const cimport (
    CT_DIR_ORIGINAL, CT_DIR_REPLY, CT_ESTABLISHED, CT_INVALID, CT_NEW, CT_NONE, CT_RELATED, CT_UNTRACKED,
    IPPROTO_GRE, IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_ROUTING, IPPROTO_SCTP, IPPROTO_TCP, IPPROTO_UDP, IPPROTO_UDPLITE,
    IPS_CONFIRMED, IPS_DYING, IPS_EXPECTED, IPS_HELPER, IPS_SEEN_REPLY, IPS_SEQ_ADJUST, IPS_TEMPLATE,
    NFPROTO_IPV4, NFPROTO_IPV6, NF_ACCEPT, NF_DROP, NF_INET_PRE_ROUTING, NF_PRI_CONNTRACK, NF_PRI_CONNTRACK_CONFIRM,
)
from userfw.core.drop cimport DROP_CT_CLASH, DROP_CT_INVALID, DROP_CT_TABLE_FULL, DROP_MALFORMED
from userfw.core.hook cimport HookEntry
from userfw.core.packet cimport Packet

cdef bint _behind(Packet pkt) except? -1
cdef bint _strict(int proto) noexcept
cdef bint _cut_routing(Packet pkt) except? -1

cdef class ConntrackIn(HookEntry):
    cdef readonly ConnTable table
    cdef readonly Tcp tcp
    cdef Settings settings
    cdef Tuple key, other
    cpdef int run(self, Packet pkt, int hook) except -1
    cdef int _past_cut(self, Packet pkt, int hook) except -1
    cdef int _resolve(self, Packet pkt, int zone, int zone_dir) except -1
    cdef Conn _open(self, Packet pkt, int zone, int zone_dir)
    cdef int _packet(self, Packet pkt, Conn conn, int direction, int hook) except -100
    cdef int _icmp(self, Packet pkt, int hook, int zone, int zone_dir) except -1
    cdef int _icmp_error(self, Packet pkt, int zone, int zone_dir) except -1
    cdef bint _related(self, Packet pkt, Py_ssize_t inner, int zone, int zone_dir) except? -1
    cdef bint _fulfil(self, Conn conn) except? -1
    cdef int _invalid(self) except -1
    cdef int _redirect(self, Packet pkt, int zone, int zone_dir) except -1
    cdef TupleNode _find(self, int zone, int zone_dir, Py_ssize_t ahead)

cdef class Confirm(HookEntry):
    cdef readonly ConnTable table
    cpdef int run(self, Packet pkt, int hook) except -1
    cdef int _help(self, Packet pkt, Conn conn) except -1
    cdef int _clash(self, Packet pkt, Conn loser, Conn winner) except -1
