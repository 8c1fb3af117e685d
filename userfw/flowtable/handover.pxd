from userfw.conntrack.conn cimport Conn, TupleNode
from userfw.conntrack.const cimport (
    CT_REPLIED, CT_UNREPLIED, IPS_NAT_CLASH, TCP_ESTABLISHED, TCP_F_BE_LIBERAL, TCP_F_MAXACK_SET,
)
from userfw.conntrack.table cimport ConnTable
from userfw.core.const cimport (
    IPPROTO_TCP, IPPROTO_UDP, IPS_CONFIRMED, IPS_DYING, IPS_OFFLOAD, IPS_SEEN_REPLY, IPS_SEQ_ADJUST, NSEC_PER_SEC, TCP_FIN, TCP_RST,
)
from userfw.core.packet cimport Packet
from userfw.flowtable.flow cimport Flow, FlowTuple

cpdef bint allowed(Conn conn, Packet pkt) except? -1
cpdef int describe(Conn conn, FlowTuple entry) except -1
cpdef int begin(Conn conn, Flow flow, ConnTable conns) except -1
cpdef int hold(Conn conn, ConnTable conns) except -1
cpdef int end(Conn conn, Flow flow, ConnTable conns, unsigned long long idle) except -1

cdef enum:
    _UDP_ROW = 32
