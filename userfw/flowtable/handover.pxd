from userfw.conntrack.conn cimport Conn, TupleNode
from userfw.conntrack.const cimport (
    CT_REPLIED, CT_UNREPLIED, IPS_NAT_CLASH, TCP_ESTABLISHED, TCP_F_BE_LIBERAL, TCP_F_MAXACK_SET,
)
from userfw.conntrack.settings cimport Settings
from userfw.core.const cimport (
    IPPROTO_TCP, IPPROTO_UDP, IPS_CONFIRMED, IPS_DYING, IPS_OFFLOAD, IPS_SEEN_REPLY, IPS_SEQ_ADJUST, NSEC_PER_SEC, TCP_FIN, TCP_RST,
)
from userfw.core.packet cimport Packet
from userfw.flowtable.flow cimport Flow, FlowTuple

cpdef bint allowed(Conn conn, Packet pkt) except? -1
cpdef int describe(Conn conn, FlowTuple entry) except -1
cpdef int begin(Conn conn, Flow flow, unsigned long long now) except -1
cpdef int end(Conn conn, Flow flow, unsigned long long now, unsigned long long idle, Settings settings) except -1
