# Moving TCP sequence numbers after a helper changed a payload's length. Explained in seqadj.py.
from userfw.conntrack.conn cimport Conn, SeqAdj, U32_MASK, ack_offset, seq_offset
from userfw.conntrack.const cimport CT_EVENT_SEQADJ
from userfw.core.const cimport IPS_SEQ_ADJUST, VNET_F_NEEDS_CSUM
from userfw.core.packet cimport Packet
from userfw.wire.checksum cimport replace32
from userfw.wire.options cimport next_option

cpdef int seq_set(Conn conn, int direction, unsigned int seq, int delta) except -1
cpdef bint seq_adjust(Packet pkt, Conn conn, int direction) except? -1
cdef int _rewrite(Packet pkt, Py_ssize_t off, unsigned int new) except -1
cdef int _sack(Packet pkt, SeqAdj adj, int other, Py_ssize_t end) except -1
