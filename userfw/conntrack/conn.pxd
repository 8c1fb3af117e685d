# C layout of the nouns of connection tracking. Meanings, units and owners are told in conn.py.
# A million connections must fit in 500 MB: no virtual table on Tuple and TupleNode, no garbage collector header on any of them.
cimport cython
from userfw.conntrack.settings cimport TimeoutPolicy

cdef class Tuple:
    cdef public unsigned int hash
    cdef public unsigned short sport, dport, zone
    cdef public unsigned char l3num, l4proto
    cdef public unsigned char dir
    cdef public unsigned long long src_lo, dst_lo, src_hi, dst_hi

cdef extern from *:
    """
    #define U32_MASK 0xFFFFFFFFU
    """
    const unsigned int U32_MASK

@cython.final
cdef class TupleNode(Tuple):
    cdef public TupleNode next
    cdef public Conn conn

@cython.final
cdef class Conn:
    # what every packet reads or writes comes first, then what TCP does, then what few do
    cdef public TupleNode orig, reply
    cdef public object helper, flow
    cdef public TimeoutPolicy policy
    cdef public unsigned long long timeout
    cdef public unsigned int status, mark
    cdef public unsigned int wheel_tick
    cdef public int masq_index
    cdef public unsigned short events, zone
    cdef public unsigned char state, zone_dir, last_dir, last_index
    cdef public unsigned long long packets[2]
    cdef public unsigned long long bytes[2]
    cdef public unsigned long long start
    # (arrays of unsigned char would read as C strings)
    cdef public unsigned short td_scale[2]
    cdef public unsigned short td_flags[2]
    cdef public unsigned int td_end[2]
    cdef public unsigned int td_maxend[2]
    cdef public unsigned int td_maxwin[2]
    cdef public unsigned int td_maxack[2]
    cdef public unsigned int last_seq, last_ack, last_end
    cdef public unsigned short last_win
    cdef public unsigned char last_flags, last_wscale, retrans
    cdef public SeqAdj seqadj
    cdef public unsigned short wheel_slot
    cdef public unsigned int wheel_pos, id, secmark
    cdef public Conn master, src_next
    cdef public object helper_data, ext
    cdef public list expectations
    cdef public unsigned long long labels_hi, labels_lo

@cython.final
cdef class SeqAdj:
    cdef public unsigned int correction_pos[2]
    cdef public int offset_before[2]
    cdef public int offset_after[2]

cpdef TupleNode node_of(Conn conn, int direction)
cpdef bint same_tuple(Tuple a, Tuple b) noexcept
cpdef int copy_tuple(Tuple to, Tuple frm) except -1
cpdef int ack_offset(SeqAdj adj, int direction, unsigned int ack) noexcept
cpdef int seq_offset(Conn conn, int direction, unsigned int seq) noexcept
