"""Named objects and flowtables as the engine's own."""

from __future__ import annotations

import errno
from typing import Any

from userfw.conntrack.settings import TimeoutPolicy
from userfw.core.const import NFPROTO_IPV4, NFPROTO_IPV6
from userfw.engine.expr import Expr
from userfw.engine.objects.conntrack import CtExpectation, CtHelper, CtTimeout
from userfw.engine.objects.secmark import Secmark, TunnelObject
from userfw.nft.location import NftError
from userfw.nft.syntax import (
    CtExpectationBody,
    CtHelperBody,
    CtTimeoutBody,
    FlowtableBlock,
    ObjectBlock,
    SecmarkBody,
    Stmt,
    TunnelBody,
)
from userfw.ruleset.compile import FAMILY_NUMBERS
from userfw.ruleset.model import priority_of
from userfw.ruleset.platform import Platform
from userfw.ruleset.problems import refused
from userfw.ruleset.stateful import stateful_expr

PROTOCOLS = {
    "tcp": 6, "udp": 17, "dccp": 33, "sctp": 132, "gre": 47, "icmp": 1, "icmpv6": 58, "udplite": 136, "generic": 255,
}  # fmt: skip
FAMILIES = {"ip": NFPROTO_IPV4, "ip6": NFPROTO_IPV6}
NSEC_PER_MSEC = 1_000_000

_secmarks: dict[str, int] = {}


def object_expr(node: ObjectBlock, family: str, platform: Platform, now: int) -> Expr:
    """What a named object does. NftError for what does not exist here (a helper of that type, a state of that protocol)."""
    body = node.body
    if isinstance(body, Stmt):
        return stateful_expr(body, now)
    l3num = FAMILIES.get(getattr(body, "l3proto", None) or family, 0)
    try:
        if isinstance(body, CtTimeoutBody):
            settings = platform.conns.settings if platform.conns is not None else None
            return CtTimeout(TimeoutPolicy(node.name, l3num, PROTOCOLS[body.protocol], body.policy, settings))
        if isinstance(body, CtHelperBody):
            l4proto = PROTOCOLS[body.protocol]
            helper = platform.helpers.get(body.helper, l4proto, l3num) if platform.helpers is not None else None
            return CtHelper(body.helper, l4proto, helper, l3num)
        if isinstance(body, CtExpectationBody):
            if not l3num:
                raise refused(errno.EAFNOSUPPORT, node.loc)
            lifetime = body.timeout * NSEC_PER_MSEC
            return CtExpectation(PROTOCOLS[body.protocol], body.dport, lifetime, body.size, l3num)
    except (KeyError, ValueError) as problem:
        raise NftError(str(problem), node.loc) from None
    if isinstance(body, SecmarkBody):
        return Secmark(body.context, _secmarks.setdefault(body.context, len(_secmarks) + 1))
    if isinstance(body, TunnelBody):
        return TunnelObject(body)
    raise NftError(f"{node.kind} {node.name} has no body", node.loc)


def flowtable_engine(node: FlowtableBlock, family: str, platform: Platform) -> Any:
    """The flowtable that devices point to; None on a platform without connections. NftError if it cannot do what its flags ask."""
    if platform.conns is None:
        return None
    from userfw.flowtable.ahead import FlowAhead
    from userfw.flowtable.table import FlowTable

    made = FlowTable(
        node.name, FAMILY_NUMBERS[family], priority_of(node), list(node.devices), counter=node.counter,
        conns=platform.conns, sender=platform.sender,
    )  # fmt: skip
    made.ahead = FlowAhead(made)
    offload = getattr(platform, "offload", None)
    if "offload" in node.flags:
        if offload is None:
            raise NftError("Could not process rule: Operation not supported", node.loc)
        offload(node, made)
    return made
