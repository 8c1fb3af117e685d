# C layout of the nouns of connection tracking. Meanings, units and owners are told in conn.py.
# A million connections must fit in 500 MB: no virtual table on Tuple and TupleNode, no garbage collector header on any of them.
cimport cython
from userfw.conntrack.settings cimport TimeoutPolicy

cdef class Tuple:
    cdef public unsigned long long src_hi, src_lo, dst_hi, dst_lo
    cdef public unsigned short sport, dport, zone
    cdef public unsigned char l3num, l4proto
    cdef public unsigned int hash
    cdef public unsigned char dir

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
    cdef public TupleNode orig, reply
    cdef public Conn master
    cdef public object helper, helper_data, flow, ext
    cdef public list expectations
    cdef public SeqAdj seqadj
    cdef public TimeoutPolicy policy
    cdef public Conn src_next
    cdef public unsigned long long timeout, start
    cdef public unsigned long long labels_hi, labels_lo
    cdef public unsigned long long packets[2]
    cdef public unsigned long long bytes[2]
    cdef public unsigned int id, status, mark, secmark
    cdef public unsigned int td_end[2]
    cdef public unsigned int td_maxend[2]
    cdef public unsigned int td_maxwin[2]
    cdef public unsigned int td_maxack[2]
    cdef public unsigned int last_seq, last_ack, last_end
    # (arrays of unsigned char would read as C strings)
    cdef public unsigned short td_scale[2]
    cdef public unsigned short td_flags[2]
    cdef public unsigned short last_win, zone, events, wheel_slot
    cdef public unsigned char state, last_index, last_dir, last_flags, last_wscale, retrans, zone_dir
    cdef public unsigned int wheel_tick, wheel_pos
    cdef public int masq_index

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
