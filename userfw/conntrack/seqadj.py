"""TCP sequence numbers after a helper has made a payload longer or shorter (Linux: nf_conntrack_seqadj.c).

Laws: what one direction sends later is moved by the change; what the other direction acknowledges, SACK blocks included, is
moved back.
The checksum is fixed incrementally, and not at all while it is still to be completed: the pseudo-header does not change.
"""

import cython

if not cython.compiled:
    from userfw.conntrack.conn import U32_MASK, Conn, SeqAdj, ack_offset, seq_offset
    from userfw.conntrack.const import CT_EVENT_SEQADJ
    from userfw.core.const import IPS_SEQ_ADJUST, VNET_F_NEEDS_CSUM
    from userfw.core.packet import Packet
    from userfw.wire.checksum import replace32
    from userfw.wire.options import next_option


def seq_set(conn: Conn, direction: cython.int, seq: cython.uint, delta: cython.int) -> cython.int:
    """The segment of `direction` at sequence `seq` (as the sender counts) grew by `delta` bytes (Linux: nf_ct_seqadj_set)."""
    if delta == 0:
        return 0
    adj: SeqAdj
    if conn.seqadj is None:
        conn.seqadj = SeqAdj()
    adj = conn.seqadj
    conn.status |= IPS_SEQ_ADJUST
    conn.events |= CT_EVENT_SEQADJ
    ahead: cython.uint = (seq - adj.correction_pos[direction]) & U32_MASK
    # a retransmission of the segment changed last brings no new change
    if adj.offset_before[direction] == adj.offset_after[direction] or 0 < ahead < 0x7FFFFFFF:
        adj.correction_pos[direction] = seq
        adj.offset_before[direction] = adj.offset_after[direction]
        adj.offset_after[direction] += delta
    return 0


def _rewrite(pkt: Packet, off: cython.Py_ssize_t, new: cython.uint) -> cython.int:
    old: cython.uint = pkt.get32(off)
    if old != new:
        pkt.put32(off, new)
        if not pkt.vnet_flags & VNET_F_NEEDS_CSUM:
            replace32(pkt, pkt.l4 + 16, old, new)
    return 0


def seq_adjust(pkt: Packet, conn: Conn, direction: cython.int) -> cython.bint:
    """Rewrite sequence, acknowledgement and SACK of a TCP segment; False if it is malformed (Linux: nf_ct_seq_adjust)."""
    adj: SeqAdj | None = conn.seqadj
    if adj is None:
        return True
    l4: cython.Py_ssize_t = pkt.l4
    if l4 + 20 > pkt.end:
        return False
    other: cython.int = 1 - direction
    seq: cython.uint = pkt.get32(l4 + 4)
    ack: cython.uint = pkt.get32(l4 + 8)
    _rewrite(pkt, l4 + 4, (seq + seq_offset(conn, direction, seq)) & U32_MASK)
    if not pkt.get8(l4 + 13) & 16:
        return True
    _rewrite(pkt, l4 + 8, (ack - ack_offset(adj, other, ack)) & U32_MASK)
    size: cython.Py_ssize_t = (pkt.get8(l4 + 12) >> 4) * 4
    if l4 + size > pkt.end:
        return False
    if size > 20:
        _sack(pkt, adj, other, l4 + size)
    return True


def _sack(pkt: Packet, adj: SeqAdj, other: cython.int, end: cython.Py_ssize_t) -> cython.int:
    """Move every edge of the SACK blocks back."""
    at: cython.Py_ssize_t = next_option(pkt, pkt.l4 + 20, end)
    size: cython.uint
    off: cython.Py_ssize_t
    edge: cython.uint
    while at >= 0:
        size = pkt.get8(at + 1)
        if pkt.get8(at) == 5 and size >= 10 and (size - 2) % 8 == 0:
            off = at + 2
            while off < at + size:
                edge = pkt.get32(off)
                _rewrite(pkt, off, (edge - ack_offset(adj, other, edge)) & U32_MASK)
                off += 4
        at = next_option(pkt, at + size, end)
    return 0
