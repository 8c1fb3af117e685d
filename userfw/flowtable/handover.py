"""A connection goes to the flowtable and comes back: what both must know (Linux: nft_flow_offload_eval, flow_offload_fixup_ct).

While a connection is offloaded conntrack does not see its packets: its timeout is held far away, and window tracking starts afresh
when it returns, because the sequence numbers moved on unseen.
"""

import cython

if not cython.compiled:
    from userfw.conntrack.conn import Conn, TupleNode
    from userfw.conntrack.const import (
        CT_REPLIED,
        CT_UNREPLIED,
        IPS_NAT_CLASH,
        TCP_ESTABLISHED,
        TCP_F_BE_LIBERAL,
        TCP_F_MAXACK_SET,
    )
    from userfw.conntrack.table import ConnTable
    from userfw.core.const import (
        IPPROTO_TCP,
        IPPROTO_UDP,
        IPS_CONFIRMED,
        IPS_DYING,
        IPS_OFFLOAD,
        IPS_SEEN_REPLY,
        IPS_SEQ_ADJUST,
        NSEC_PER_SEC,
        TCP_FIN,
        TCP_RST,
    )
    from userfw.core.packet import Packet
    from userfw.flowtable.flow import Flow, FlowTuple

if not cython.compiled:
    _UDP_ROW = 32  # conntrack.settings.TIMEOUTS: nf_conntrack_udp_timeout


def allowed(conn: Conn, pkt: Packet) -> cython.bint:
    """May the connection of `pkt` leave the pipeline? Confirmed, established if TCP, no helper, no sequence adjustment."""
    if not pkt.has_l4 or pkt.is_fragment or conn.flow is not None:
        return False
    if pkt.l4proto == IPPROTO_TCP:
        if pkt.end < pkt.l4 + 20 or pkt.get8(pkt.l4 + 13) & (TCP_FIN | TCP_RST) or conn.state != TCP_ESTABLISHED:
            return False
    elif pkt.l4proto != IPPROTO_UDP:
        return False
    if conn.status & (IPS_SEQ_ADJUST | IPS_NAT_CLASH | IPS_DYING | IPS_OFFLOAD):
        return False
    return conn.status & IPS_CONFIRMED != 0 and conn.helper is None and conn.seqadj is None


def describe(conn: Conn, entry: FlowTuple) -> cython.int:
    """Addresses and ports of `entry.dir`: as they arrive, and as the other end must see them (the other tuple, turned around)."""
    here: TupleNode = conn.orig if entry.dir == 0 else conn.reply
    there: TupleNode = conn.reply if entry.dir == 0 else conn.orig
    sport: cython.uint = here.sport
    entry.src_hi = here.src_hi
    entry.src_lo = here.src_lo
    entry.dst_hi = here.dst_hi
    entry.dst_lo = here.dst_lo
    entry.ports = (sport << 16) | here.dport
    sport = there.dport
    entry.new_src_hi = there.dst_hi
    entry.new_src_lo = there.dst_lo
    entry.new_dst_hi = there.src_hi
    entry.new_dst_lo = there.src_lo
    entry.new_ports = (sport << 16) | there.sport
    return 0


def begin(conn: Conn, flow: Flow, conns: ConnTable) -> cython.int:
    """Mark the connection as offloaded and keep the reaper away (Linux: flow_offload_ct_tcp, nf_ct_offload_timeout)."""
    conn.status |= IPS_OFFLOAD
    conn.flow = flow
    if flow.l4proto == IPPROTO_TCP:
        conn.td_flags[0] |= TCP_F_BE_LIBERAL
        conn.td_flags[1] |= TCP_F_BE_LIBERAL
    return hold(conn, conns)


def hold(conn: Conn, conns: ConnTable) -> cython.int:
    """Push the deadline of an offloaded connection a day away when less than half of that is left."""
    day: cython.ulonglong = 86400
    day *= NSEC_PER_SEC
    if conn.timeout < conns.clock.now + day // 2:
        conn.timeout = conns.clock.now + day
    return 0


def end(conn: Conn, flow: Flow, conns: ConnTable, idle: cython.ulonglong) -> cython.int:
    """Give the connection back: its protocol's timeout less `idle` (ns), the time that the flow may have been silent."""
    row: cython.int
    timeout: cython.ulonglong
    conn.status &= ~IPS_OFFLOAD
    conn.flow = None
    if flow.l4proto == IPPROTO_TCP:
        conn.td_maxwin[0] = 0
        conn.td_maxwin[1] = 0
        conn.td_flags[0] &= ~TCP_F_MAXACK_SET
        conn.td_flags[1] &= ~TCP_F_MAXACK_SET
        row = conn.state
    else:
        row = _UDP_ROW + (CT_REPLIED if conn.status & IPS_SEEN_REPLY else CT_UNREPLIED)
    timeout = conns.settings.t[row]
    timeout = timeout - idle if timeout > idle else 0
    if conn.status & IPS_DYING == 0 and conn.timeout > conns.clock.now + timeout:
        conns.refresh(conn, timeout)
    return 0
