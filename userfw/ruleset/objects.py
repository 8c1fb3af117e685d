"""Named objects and flowtables as the engine's own."""

from __future__ import annotations

from typing import Any

from userfw.engine.expr import Expr
from userfw.nft.location import NftError
from userfw.nft.syntax import FlowtableBlock, ObjectBlock, Stmt
from userfw.ruleset.compile import FAMILY_NUMBERS
from userfw.ruleset.model import priority_of
from userfw.ruleset.platform import Platform
from userfw.ruleset.stateful import stateful_expr


def object_expr(node: ObjectBlock, family: str, platform: Platform, now: int) -> Expr:
    """What a named object does."""
    body = node.body
    if isinstance(body, Stmt):
        return stateful_expr(body, now)
    if body is None:
        raise NftError(f"{node.kind} {node.name} has no body", node.loc)
    from userfw.ruleset.ct_objects import ct_object

    return ct_object(node, family, platform)


def flowtable_engine(node: FlowtableBlock, family: str, platform: Platform) -> Any:
    """The flowtable that devices point to; None on a platform without connections. NftError if it cannot do what its flags ask."""
    if platform.conns is None:
        return None
    from userfw.flowtable.table import FlowTable

    made = FlowTable(
        node.name, FAMILY_NUMBERS[family], priority_of(node), list(node.devices), counter=node.counter,
        conns=platform.conns, sender=platform.sender,
    )  # fmt: skip
    offload = getattr(platform, "offload", None)
    if "offload" in node.flags:
        if offload is None:
            raise NftError("Could not process rule: Operation not supported", node.loc)
        offload(node, made)
    return made
