"""Objects that act on connections and packets: ct helper, ct timeout, ct expectation, secmark, tunnel.

Each is an engine expression that a NamedObject holds (Linux: nft_ct.c, nft_meta.c, nft_tunnel.c). They run for the first
packets of connections, so they are plain Python.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from userfw.conntrack.conn import Tuple
from userfw.conntrack.expect import Expectation
from userfw.conntrack.settings import TimeoutPolicy
from userfw.core.const import (
    CT_DIR_ORIGINAL,
    IPS_CONFIRMED,
    IPS_TEMPLATE,
    NF_DROP,
    NFPROTO_IPV4,
    NFPROTO_IPV6,
    NFT_BREAK,
    NFT_CONTINUE,
)
from userfw.core.packet import Packet
from userfw.engine.context import Context
from userfw.engine.expr import Expr
from userfw.nft.location import NftError
from userfw.nft.syntax import CtExpectationBody, CtHelperBody, CtTimeoutBody, ObjectBlock, SecmarkBody, TunnelBody
from userfw.ruleset.platform import Platform

PROTOCOLS = {
    "tcp": 6, "udp": 17, "dccp": 33, "sctp": 132, "gre": 47, "icmp": 1, "icmpv6": 58, "udplite": 136, "generic": 255,
}  # fmt: skip
FAMILIES = {"ip": NFPROTO_IPV4, "ip6": NFPROTO_IPV6}
NSEC_PER_MSEC = 1_000_000
FULL_64 = (1 << 64) - 1


def new_connection(pkt: Packet) -> Any:
    """The packet's connection if it is new (not yet confirmed), else None."""
    conn = pkt.ct
    if conn is None or conn.status & (IPS_TEMPLATE | IPS_CONFIRMED):
        return None
    return conn


class CtTimeoutObject(Expr):
    """Gives new connections the timeouts of a policy, and the first of them at once (Linux: nft_ct_timeout_obj_eval)."""

    kind = "ct timeout"

    def __init__(self, policy: TimeoutPolicy, conns: Any) -> None:
        self.policy = policy
        self.conns = conns

    def evaluate(self, ctx: Context, pkt: Packet) -> int:
        conn = new_connection(pkt)
        if conn is not None and pkt.l4proto == self.policy.l4proto and self.policy.l3num in (0, pkt.nfproto):
            conn.policy = self.policy
        return NFT_CONTINUE


class CtHelperObject(Expr):
    """Assigns a helper to new connections of its protocol (Linux: nft_ct_helper_obj_eval)."""

    kind = "ct helper"

    def __init__(self, helper: Any, l4proto: int, l3num: int, conns: Any) -> None:
        self.helper = helper
        self.l4proto = l4proto
        self.l3num = l3num
        self.conns = conns

    def evaluate(self, ctx: Context, pkt: Packet) -> int:
        conn = new_connection(pkt)
        if conn is None or self.helper is None or pkt.l4proto != self.l4proto or self.l3num not in (0, pkt.nfproto):
            return NFT_CONTINUE
        if self.conns is not None:
            self.conns.set_helper(conn, self.helper)
        return NFT_CONTINUE


class CtExpectationObject(Expr):
    """Announces a connection back to the originator of a new one (Linux: nft_ct_expect_obj_eval)."""

    kind = "ct expectation"

    def __init__(self, body: CtExpectationBody, conns: Any) -> None:
        self.l4proto = PROTOCOLS[body.protocol]
        self.dport = body.dport
        self.lifetime = body.timeout * NSEC_PER_MSEC
        self.size = body.size
        self.conns = conns

    def evaluate(self, ctx: Context, pkt: Packet) -> int:
        conn = new_connection(pkt)
        if conn is None or self.conns is None:
            return NFT_BREAK
        if conn.expectations is not None and len(conn.expectations) >= self.size:
            return NFT_BREAK
        back = conn.reply if pkt.ctdir == CT_DIR_ORIGINAL else conn.orig
        wanted = Tuple()
        wanted.src_hi, wanted.src_lo = back.src_hi, back.src_lo
        wanted.dst_hi, wanted.dst_lo = back.dst_hi, back.dst_lo
        wanted.sport, wanted.dport = 0, self.dport
        wanted.l3num, wanted.l4proto, wanted.zone = back.l3num, self.l4proto, back.zone
        expected = Expectation(conn, wanted)
        expected.mask_hi = expected.mask_lo = FULL_64
        now = ctx.clock.now
        expected.deadline = now + self.lifetime
        expected.dir = pkt.ctdir
        if self.conns.expects.add(expected, now):
            return NF_DROP
        return NFT_CONTINUE


class SecmarkObject(Expr):
    """Labels packets with a security context: `marks` numbers the contexts of this process (there is no SELinux here)."""

    kind = "secmark"
    marks: dict[str, int] = {}  # noqa: RUF012 - shared on purpose

    def __init__(self, context: str) -> None:
        self.context = context
        self.mark = self.marks.setdefault(context, len(self.marks) + 1)

    def evaluate(self, ctx: Context, pkt: Packet) -> int:
        pkt.secmark = self.mark
        return NFT_CONTINUE


class TunnelObject(Expr):
    """Metadata for a tunnel device. userfw has no tunnel devices: the packet goes on as it is."""

    kind = "tunnel"

    def __init__(self, body: TunnelBody) -> None:
        self.body = body

    def evaluate(self, ctx: Context, pkt: Packet) -> int:
        return NFT_CONTINUE


def ct_object(node: ObjectBlock, family: str, platform: Platform) -> Expr:
    """The expression of an object that is no stateful statement. NftError for what does not exist."""
    body = node.body
    try:
        if isinstance(body, CtTimeoutBody):
            l3num = FAMILIES.get(body.l3proto or family, 0)
            settings = platform.conns.settings if platform.conns is not None else None
            policy = TimeoutPolicy(node.name, l3num, PROTOCOLS[body.protocol], body.policy, settings)
            return CtTimeoutObject(policy, platform.conns)
        if isinstance(body, CtHelperBody):
            l3num = FAMILIES.get(body.l3proto or family, 0)
            l4proto = PROTOCOLS[body.protocol]
            return CtHelperObject(_helper(body.helper, l3num, l4proto), l4proto, l3num, platform.conns)
        if isinstance(body, CtExpectationBody):
            return CtExpectationObject(body, platform.conns)
    except (KeyError, ValueError) as problem:
        raise NftError(str(problem), node.loc) from None
    if isinstance(body, SecmarkBody):
        return SecmarkObject(body.context)
    assert isinstance(body, TunnelBody)
    return TunnelObject(body)


def _helper(name: str, l3num: int, l4proto: int) -> Any:
    """Conntrack's helper of that name, None if it has none (the object can be listed, and does nothing)."""
    if find_spec("userfw.conntrack.helper") is None:
        return None
    module: Any = import_module("userfw.conntrack.helper")
    find = getattr(module, "find_helper", None)
    return find(name, l3num, l4proto) if find is not None else None
