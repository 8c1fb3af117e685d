"""Objects that act on a new connection: ct helper, ct timeout, ct expectation (Linux: nft_ct.c). Confirmed connections are left
alone."""

from __future__ import annotations

from typing import Any

import cython

from userfw.conntrack.conn import Tuple
from userfw.conntrack.expect import Expectation
from userfw.engine.expr import Expr

if not cython.compiled:
    from userfw.conntrack.conn import Conn, TupleNode
    from userfw.conntrack.settings import TimeoutPolicy
    from userfw.conntrack.table import ConnTable
    from userfw.conntrack.tuples import U64_MASK
    from userfw.core.const import (
        IPPROTO_TCP,
        IPS_CONFIRMED,
        IPS_HELPER,
        IPS_TEMPLATE,
        NF_DROP,
        NFPROTO_INET,
        NFPROTO_IPV4,
        NFT_BREAK,
        NFT_CONTINUE,
        U32_MASK,
    )
    from userfw.core.drop import DROP_RULE
    from userfw.core.packet import Packet
    from userfw.engine.context import Context


class CtHelper(Expr):
    """`ct helper set`: the connection gets `helper` (what the conntrack room knows under `helper_name`) if protocol and family fit.

    `l3num` 0: both families.
    """

    kind = "ct helper"

    def __init__(self, helper_name: str, l4proto: int, helper: Any, l3num: int = 0) -> None:
        self.helper_name = helper_name
        self.l4proto = l4proto
        self.l3num = l3num
        self.helper = helper

    def evaluate(self, ctx: Context, pkt: Packet) -> cython.int:
        conn: Conn | None = pkt.ct
        table: ConnTable
        if conn is None or conn.status & (IPS_CONFIRMED | IPS_TEMPLATE | IPS_HELPER):
            return NFT_CONTINUE
        if conn.orig.l4proto != self.l4proto or (self.l3num != 0 and self.l3num != conn.orig.l3num):
            return NFT_CONTINUE
        table = ctx.services.conntrack
        if table is None:
            return NFT_CONTINUE
        table.set_helper(conn, self.helper)
        conn.status |= IPS_HELPER
        return NFT_CONTINUE

    def operands(self) -> str:
        return f"name {self.helper_name} protocol {self.l4proto}"


class CtTimeout(Expr):
    """`ct timeout set`: the connection's states last as `policy` says."""

    kind = "ct timeout"

    def __init__(self, policy: TimeoutPolicy) -> None:
        self.policy = policy

    def evaluate(self, ctx: Context, pkt: Packet) -> cython.int:
        conn: Conn | None = pkt.ct
        policy: TimeoutPolicy = self.policy
        if conn is None or conn.status & (IPS_CONFIRMED | IPS_TEMPLATE):
            return NFT_CONTINUE
        if policy.l4proto == conn.orig.l4proto and (policy.l3num == 0 or policy.l3num == conn.orig.l3num):
            conn.policy = policy
            # TCP's first state has the time of the second (Linux: tcp_timeout_nlattr_to_obj)
            conn.timeout = ctx.clock.now + policy.t[1 if policy.l4proto == IPPROTO_TCP else 0]
        return NFT_CONTINUE

    def operands(self) -> str:
        return f"name {self.policy.name}"


class CtExpectation(Expr):
    """`ct expectation set`: the peer may open a connection of `l4proto` to `dport` within `timeout` ns; at most `size` at a
    time."""

    kind = "ct expectation"

    def __init__(self, l4proto: int, dport: int, timeout: int, size: int, l3num: int = 1) -> None:
        if not 0 <= size <= 255:
            raise ValueError("size is 0 to 255")
        self.l4proto = l4proto
        self.dport = dport
        self.timeout = timeout
        self.size = size
        self.l3num = l3num

    def evaluate(self, ctx: Context, pkt: Packet) -> cython.int:
        conn: Conn | None = pkt.ct
        back: TupleNode
        if conn is None or conn.status & (IPS_CONFIRMED | IPS_TEMPLATE):
            return NFT_BREAK
        if len(conn.expectations or ()) >= self.size:
            return NFT_BREAK
        back = conn.orig if pkt.ctdir else conn.reply
        wanted = Tuple()
        wanted.l3num = conn.orig.l3num if self.l3num == NFPROTO_INET else self.l3num
        wanted.l4proto = self.l4proto
        wanted.src_hi, wanted.src_lo, wanted.dst_hi, wanted.dst_lo = back.src_hi, back.src_lo, back.dst_hi, back.dst_lo
        wanted.dport = self.dport
        wanted.zone = back.zone
        expectation = Expectation(conn, wanted)
        four = wanted.l3num == NFPROTO_IPV4
        expectation.mask_hi = 0 if four else U64_MASK
        expectation.mask_lo = U32_MASK if four else U64_MASK
        expectation.dir = pkt.ctdir
        expectation.deadline = ctx.clock.now + self.timeout
        if ctx.services.conntrack.expects.add(expectation, ctx.clock.now) < 0:
            pkt.drop_reason = DROP_RULE
            return NF_DROP
        return NFT_CONTINUE

    def operands(self) -> str:
        return f"protocol {self.l4proto} dport {self.dport} timeout {self.timeout // 1_000_000}ms size {self.size}"
