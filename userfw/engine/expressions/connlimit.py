"""connlimit: `ct count`, how many live connections reach the rule (Linux: nft_connlimit.c, nf_conncount.c)."""

from __future__ import annotations

from collections import deque

import cython

from userfw.engine.expr import Expr
from userfw.engine.registry import TRACKED, Row, register

if not cython.compiled:
    from userfw.conntrack.conn import Conn, Tuple
    from userfw.conntrack.const import TCP_CLOSE, TCP_TIME_WAIT
    from userfw.conntrack.tuples import inner_l4, inner_proto, read_tuple
    from userfw.core.const import (
        IPPROTO_AH,
        IPPROTO_NONE,
        IPPROTO_TCP,
        IPS_CONFIRMED,
        IPS_DYING,
        IPS_OFFLOAD,
        IPS_TEMPLATE,
        NF_DROP,
        NFPROTO_IPV6,
        NFT_BREAK,
        NFT_CONTINUE,
    )
    from userfw.core.drop import DROP_RULE
    from userfw.core.packet import Packet
    from userfw.engine.context import Context
    from userfw.engine.expr import Expr
    from userfw.engine.shared import Shared


_NODES = 8
_MORE_NODES = 64


def _over(conn: Conn, now: cython.ulonglong) -> cython.bint:
    """Whether a counted connection is gone: destroyed, expired, closed, or never confirmed, which is known as soon as
    the next packet is looked at by the same processor (Linux: find_or_evict)."""
    if conn.status & IPS_DYING:
        return True
    if not conn.status & IPS_CONFIRMED:
        return True
    if conn.timeout <= now and not conn.status & IPS_OFFLOAD:
        return True
    return conn.orig.l4proto == IPPROTO_TCP and (conn.state == TCP_TIME_WAIT or conn.state == TCP_CLOSE)


def _has_tuple(pkt: Packet) -> cython.bint:
    """What conntrack would take for the connection's addresses and ports can be read; it looks behind an authentication header,
    where rules do not, and finds nothing where nothing follows (Linux: nf_ct_get_tuplepr, ipv6_skip_exthdr)."""
    at: cython.Py_ssize_t = pkt.l4
    proto: cython.int = pkt.l4proto
    if proto == IPPROTO_AH:
        at = inner_l4(pkt, pkt.nfproto, pkt.l3)
        if at < 0:
            return False
        proto = inner_proto(pkt, pkt.nfproto, pkt.l3)
    if proto == IPPROTO_NONE and pkt.nfproto == NFPROTO_IPV6:
        return False
    return read_tuple(pkt, pkt.nfproto, pkt.l3, at, proto, Tuple())


class Connlimit(Expr):
    """Goes on while there are at most `count` connections (`over`: when there are more). `slot`: the sum of several processes, each
    of which knows its own connections (`members`)."""

    kind = "connlimit"

    def __init__(self, count: int, over: bool = False) -> None:
        self.slot: Shared | None = None
        if not 0 <= count <= 0xFFFFFFFF:
            raise ValueError("count is 32 bits")
        self.count = count
        self.over = over
        self.members: dict[Conn, int] = {}
        self.queue: deque[Conn] = deque()

    def __del__(self) -> None:
        self.join(None)

    def evaluate(self, ctx: Context, pkt: Packet) -> cython.int:
        conn: Conn | None = pkt.ct
        now: cython.ulonglong = ctx.clock.now
        untracked: cython.int = 0
        if conn is None or conn.status & IPS_TEMPLATE:
            if not ctx.l4 or pkt.fragoff or not _has_tuple(pkt):
                pkt.drop_reason = DROP_RULE
                return NF_DROP
            untracked = 1
        elif conn not in self.members:
            self.collect(now, _NODES)
            if len(self.members) >= self.count:
                self.collect(now, _MORE_NODES)
            self.members[conn] = now
            self.queue.append(conn)
            if self.slot is not None:
                self.slot.add(1)
        count: cython.Py_ssize_t = len(self.members) + untracked
        if self.slot is not None:
            count = cython.cast(cython.Py_ssize_t, self.slot.load()) + untracked
        return NFT_CONTINUE if (count > self.count) == self.over else NFT_BREAK

    def collect(self, now: cython.ulonglong, budget: cython.int) -> cython.int:
        """Forget up to `budget` connections that are over (Linux: CONNCOUNT_GC_MAX_NODES for each packet)."""
        conn: Conn
        if budget > len(self.queue):
            budget = len(self.queue)
        while budget > 0:
            budget -= 1
            conn = self.queue.popleft()
            if _over(conn, now):
                del self.members[conn]
                if self.slot is not None:
                    self.slot.add(cython.cast(cython.ulonglong, 0) - 1)
            else:
                self.queue.append(conn)
        return 0

    def initial(self) -> int:
        """What a slot for this count starts with."""
        return 0

    def join(self, slot: Shared | None) -> None:
        """Add up there from now on; None: alone."""
        if self.slot is not None:
            self.slot.add(cython.cast(cython.ulonglong, 0) - cython.cast(cython.ulonglong, len(self.members)))
        self.slot = slot
        if slot is not None:
            slot.add(len(self.members))

    def clone(self) -> Connlimit:
        return Connlimit(self.count, self.over)

    def operands(self) -> str:
        return f"count {self.count} flags {int(self.over)}"


register(Row("connlimit", Connlimit, hooks=TRACKED, reason="EPROTO"))
