"""The nouns of connection tracking: Tuple, TupleNode, Conn.

Laws:
- A Conn has two TupleNodes, `orig` and `reply`. Both enter the table at confirmation or neither does.
- A node's `conn` is set while the node is in the table and None otherwise, so an unconfirmed connection has no reference cycle.
  These classes are hidden from the garbage collector (a million of them must not be walked); whoever takes a connection
  out of the table unlinks it (`ConnTable.destroy`).
- A tuple in the table is never changed. NAT changes `reply` before confirmation only.
- Addresses are two 64-bit halves in host order, IPv4 in the low 32 bits of `lo`.
"""

from typing import Any

import cython

if not cython.compiled:
    from userfw.conntrack.settings import TimeoutPolicy

    U32_MASK = 0xFFFFFFFF


@cython.no_gc
@cython.cclass
class Tuple:
    """One direction of a connection, as packets of that direction look before this box rewrites them.

    - `sport`, `dport`: ports; ICMP: `sport` is the identifier, `dport` is type << 8 | code; GRE: call ids of PPTP or 0; else 0.
    - `l3num`: NFPROTO_IPV4 or NFPROTO_IPV6; `l4proto`: IP protocol number; `zone`: conntrack zone of this direction.
    - `hash`: seeded hash of the above, filled by the table; `dir`: CT_DIR_*.
    """

    def __init__(self) -> None:
        if not cython.compiled:
            self.src_hi = self.src_lo = self.dst_hi = self.dst_lo = 0
            self.sport = self.dport = self.zone = 0
            self.l3num = self.l4proto = self.hash = self.dir = 0

    def __repr__(self) -> str:
        return (
            f"<tuple {self.l3num}/{self.l4proto} {self.src_hi << 64 | self.src_lo:x}:{self.sport} -> "
            f"{self.dst_hi << 64 | self.dst_lo:x}:{self.dport} zone {self.zone}>"
        )


@cython.no_gc
@cython.cclass
class TupleNode(Tuple):
    """A tuple as a member of a hash chain: `next` in the chain, `conn` it belongs to (None while not in the table)."""

    def __init__(self) -> None:
        if not cython.compiled:
            super().__init__()
            self.next: TupleNode | None = None
            self.conn: Any = None


@cython.no_gc
@cython.cclass
class Conn:
    """One connection, like Linux's nf_conn.

    - `status`: IPS_*; `state`: TCP_* or SCTP_* state; `mark`, `labels_hi`, `labels_lo`, `secmark`: what rules set. Change them
      with
      `ConnTable.set_mark` and friends, so that listeners hear of it.
    - `zone` and `zone_dir` (bit 0 original, bit 1 reply: the directions it applies to).
    - `timeout`: deadline, ns of `Clock.now`; `start`: ns of its first packet; `id`: unique, never 0.
    - `packets`, `bytes`: [original, reply]; bytes are of the network layer.
    - `helper`, `helper_data`; `master`: the connection that expected this one; `expectations`: list of Expectation or None.
    - `seqadj`: SeqAdj or None. `policy`: TimeoutPolicy or None. `flow`: flowtable entry or None. `ext`: dict of rarities or None.
    - `masq_index`: index of the device whose address masquerade took, or 0. `src_next`: NAT's chain of mappings by source.
    - `td_*`, `last_*`, `retrans`: TCP window tracking (Linux: struct ip_ct_tcp); SCTP keeps its verification tags in `td_end`.
    - `events`: CT_EVENT_* not yet told to listeners. `wheel_*`: place in the timer wheel.
    """

    def __init__(self) -> None:
        if not cython.compiled:
            self._plain()

    def _plain(self) -> None:
        """Interpreted mode only; a compiled object is born zeroed."""
        self.orig: TupleNode = TupleNode()
        self.reply: TupleNode = TupleNode()
        self.master: Conn | None = None
        self.helper: Any = None
        self.helper_data: Any = None
        self.flow: Any = None
        self.ext: Any = None
        self.expectations: Any = None
        self.seqadj: SeqAdj | None = None
        self.policy: TimeoutPolicy | None = None
        self.src_next: Conn | None = None
        self.timeout = self.start = 0
        self.labels_hi = self.labels_lo = 0
        self.packets = [0, 0]
        self.bytes = [0, 0]
        self.id = self.status = self.mark = self.secmark = 0
        self.td_end = [0, 0]
        self.td_maxend = [0, 0]
        self.td_maxwin = [0, 0]
        self.td_maxack = [0, 0]
        self.td_scale = [0, 0]
        self.td_flags = [0, 0]
        self.last_seq = self.last_ack = self.last_end = self.last_win = 0
        self.zone = self.events = self.wheel_slot = self.wheel_tick = self.wheel_pos = 0
        self.state = self.last_index = self.last_dir = self.last_flags = self.last_wscale = 0
        self.retrans = self.zone_dir = self.masq_index = 0


@cython.no_gc
@cython.cclass
class SeqAdj:
    """Per direction: by how much a helper has lengthened the TCP stream (Linux: struct nf_ct_seqadj).

    Sequence numbers after `correction_pos` are moved by `offset_after`, those up to it by `offset_before`.
    """

    def __init__(self) -> None:
        if not cython.compiled:
            self.correction_pos = [0, 0]
            self.offset_before = [0, 0]
            self.offset_after = [0, 0]


def node_of(conn: Conn, direction: cython.int) -> TupleNode:
    """The tuple of `conn` for CT_DIR_ORIGINAL or CT_DIR_REPLY."""
    return conn.reply if direction else conn.orig


def same_tuple(a: Tuple, b: Tuple) -> cython.bint:
    """Whether both describe the same packets; neither `hash` nor `dir` count."""
    return (
        a.src_lo == b.src_lo
        and a.dst_lo == b.dst_lo
        and a.sport == b.sport
        and a.dport == b.dport
        and a.l4proto == b.l4proto
        and a.l3num == b.l3num
        and a.zone == b.zone
        and a.src_hi == b.src_hi
        and a.dst_hi == b.dst_hi
    )


def copy_tuple(to: Tuple, frm: Tuple) -> cython.int:
    """Make `to` equal to `frm`, `hash` and `zone` included, `dir` excluded."""
    to.src_hi = frm.src_hi
    to.src_lo = frm.src_lo
    to.dst_hi = frm.dst_hi
    to.dst_lo = frm.dst_lo
    to.sport = frm.sport
    to.dport = frm.dport
    to.zone = frm.zone
    to.l3num = frm.l3num
    to.l4proto = frm.l4proto
    to.hash = frm.hash
    return 0


def seq_offset(conn: Conn, direction: cython.int, seq: cython.uint) -> cython.int:
    """By how much packets of `direction` are moved at sequence number `seq` (Linux: nf_ct_seq_offset)."""
    adj: SeqAdj | None = conn.seqadj
    if adj is None:
        return 0
    # after(seq, correction_pos), modulo 2**32
    behind: cython.uint = (seq - adj.correction_pos[direction] - 1) & U32_MASK
    if behind < 0x7FFFFFFF:
        return adj.offset_after[direction]
    return adj.offset_before[direction]


def ack_offset(adj: SeqAdj, direction: cython.int, ack: cython.uint) -> cython.int:
    """By how much packets of `direction` are moved at what the other side acknowledges with `ack`, in the numbers that it sees.

    Linux asks its window tracking with the translated number (nf_ct_seq_offset) and so can take an honest acknowledgement for
    one of
    data not sent yet; here both window tracking and rewriting count as nf_ct_seq_adjust does.
    """
    beyond: cython.uint = (ack - adj.offset_before[direction] - adj.correction_pos[direction] - 1) & U32_MASK
    return adj.offset_after[direction] if beyond < 0x7FFFFFFF else adj.offset_before[direction]
