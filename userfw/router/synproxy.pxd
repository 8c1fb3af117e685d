# SYN proxy. Explained in synproxy.py.
from userfw.conntrack.conn cimport Conn, SeqAdj
from userfw.conntrack.const cimport CT_EVENT_SEQADJ, TCP_CLOSE, TCP_SYN_RECV, TCP_SYN_SENT
from userfw.core.const cimport (
    ARPHRD_LOOPBACK, CT_DIR_ORIGINAL, CT_DIR_REPLY, CT_ESTABLISHED, CT_NEW, CT_NONE, IPPROTO_TCP, IPS_SEQ_ADJUST, IPS_TEMPLATE,
    NF_ACCEPT, NF_DROP, NF_STOLEN, NFPROTO_IPV4, TCP_ACK, TCP_CWR, TCP_ECE, TCP_RST, TCP_SYN, U32_MASK, VNET_F_NEEDS_CSUM,
)
from userfw.core.drop cimport DROP_MALFORMED, DROP_SYNPROXY
from userfw.core.hook cimport HookEntry
from userfw.core.packet cimport Packet
from userfw.router.base cimport Router
from userfw.wire.build cimport ipv4, ipv6, leave_checksum
from userfw.wire.checksum cimport replace32
from userfw.wire.options cimport next_option

cdef extern from *:
    """
    #define SYNPROXY_MINUTE 60000000000LL
    """
    const long long MINUTE "SYNPROXY_MINUTE"

cdef enum:
    MAX_AGE = 2
    OPT_MSS = 1
    OPT_WSCALE = 2
    OPT_SACK = 4
    OPT_TIMESTAMP = 8
    OPT_ECN = 16

cdef class Options:
    cdef public int given, mss, encode, wscale
    cdef public unsigned int tsval, tsecr
    cpdef bint read_untrusted(self, Packet pkt) except? -1
    cdef int size(self) except -1
    cdef int write(self, Packet pkt, Py_ssize_t at) except -1

cdef class Synproxy:
    cdef Router router
    cdef bytes secret
    cdef Options options
    cdef Conn template
    cdef readonly unsigned long long syns, valid, invalid, reopened
    cpdef int statement(self, Packet pkt, int mss, int wscale, int flags) except -1
    cdef int _timestamp_cookie(self, int wscale) except -1
    cdef int _answer_syn(self, Packet pkt) except -1
    cdef bint _client_ack(self, Packet pkt, unsigned int seq) except? -1
    cdef int _send(self, Packet pkt, bint back, unsigned int seq, unsigned int ack, int flags, int window, object conn, int ctinfo, int direction) except -1
    cdef unsigned int _hash(self, Packet pkt, long long count, int which) except? 0xFFFFFFFF
    cpdef unsigned int cookie(self, Packet pkt, int mss, unsigned int seq) except? 0xFFFFFFFF
    cpdef int check(self, Packet pkt, unsigned int cookie, unsigned int seq) except -1
    cpdef int hook(self, Packet pkt, Conn conn) except -1
    cdef int _opening(self, Packet pkt, list state, int bits) except -1
    cdef int _server_answers(self, Packet pkt, Conn conn, list state) except -1
    cdef int _move(self, Conn conn, int direction, unsigned int offset) except -1
    cdef int _timestamps(self, Packet pkt, unsigned int offset) except -1

cdef class SynproxyEntry(HookEntry):
    cdef Synproxy proxy
