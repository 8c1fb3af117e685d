"""The registry: one row for each expression, saying where Linux allows it and what it answers elsewhere.

tests/engine/test_registry.py demands, for every row: a test that evaluates it, a rendering in the corpus or in a test,
and a refusal on each hook that the row excludes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from userfw.core.const import (
    NF_INET_FORWARD,
    NF_INET_INGRESS,
    NF_INET_LOCAL_IN,
    NF_INET_LOCAL_OUT,
    NF_INET_POST_ROUTING,
    NF_INET_PRE_ROUTING,
    NF_NETDEV_EGRESS,
    NF_NETDEV_INGRESS,
    NFPROTO_ARP,
    NFPROTO_BRIDGE,
    NFPROTO_INET,
    NFPROTO_IPV4,
    NFPROTO_IPV6,
    NFPROTO_NETDEV,
)
from userfw.engine.const import CHAIN_FILTER, CHAIN_NAT, CHAIN_ROUTE

FAMILIES = (NFPROTO_INET, NFPROTO_IPV4, NFPROTO_ARP, NFPROTO_NETDEV, NFPROTO_BRIDGE, NFPROTO_IPV6)
INET = (NFPROTO_INET, NFPROTO_IPV4, NFPROTO_IPV6)
PRE, IN, FWD, OUT, POST, INGRESS = (
    NF_INET_PRE_ROUTING,
    NF_INET_LOCAL_IN,
    NF_INET_FORWARD,
    NF_INET_LOCAL_OUT,
    NF_INET_POST_ROUTING,
    NF_INET_INGRESS,
)
_INET_HOOKS = frozenset((PRE, IN, FWD, OUT, POST))
HOOKS: Mapping[int, frozenset[int]] = {
    NFPROTO_INET: _INET_HOOKS | {INGRESS},
    NFPROTO_IPV4: _INET_HOOKS,
    NFPROTO_IPV6: _INET_HOOKS,
    NFPROTO_BRIDGE: _INET_HOOKS,
    NFPROTO_ARP: frozenset((0, 1)),
    NFPROTO_NETDEV: frozenset((NF_NETDEV_INGRESS, NF_NETDEV_EGRESS)),
}
EVERYWHERE: Mapping[int, frozenset[int]] = HOOKS
INET_ONLY: Mapping[int, frozenset[int]] = dict.fromkeys(INET, _INET_HOOKS)
TRACKED: Mapping[int, frozenset[int]] = {family: HOOKS[family] for family in (*INET, NFPROTO_BRIDGE)}
"""Families that have connections (Linux: nf_ct_netns_get, EPROTO elsewhere)."""
ANY_TYPE = (CHAIN_FILTER, CHAIN_ROUTE, CHAIN_NAT)


@dataclass(frozen=True)
class Row:
    """`hooks`: family to the hooks where it is legal (a family that is absent: nowhere); `types`: chain types;
    `reason`: Linux's errno name when it is used elsewhere."""

    name: str
    cls: type[Any]
    hooks: Mapping[int, frozenset[int]] = field(default_factory=lambda: EVERYWHERE)
    types: tuple[int, ...] = ANY_TYPE
    reason: str = "EOPNOTSUPP"
    variant: str = ""

    def refusal(self, family: int, hook: int, chain_type: int) -> str | None:
        """Why a chain at (family, hook) of this type cannot hold the expression, or None if it can."""
        legal = self.hooks.get(family)
        if legal is None:
            return f"{self.name}: not supported in this family ({self.reason})"
        if hook not in legal:
            return f"{self.name}: not supported at this hook ({self.reason})"
        if chain_type not in self.types:
            return f"{self.name}: not supported in chains of this type ({self.reason})"
        return None


ROWS: dict[type[Any], Row] = {}


def register(row: Row) -> Row:
    """Add a row; ValueError if the class already has one."""
    if row.cls in ROWS:
        raise ValueError(f"{row.cls.__name__} is registered twice")
    ROWS[row.cls] = row
    return row


def hooks(*numbers: int, families: tuple[int, ...] = INET) -> Mapping[int, frozenset[int]]:
    """The same hooks in each of `families`."""
    return {family: frozenset(numbers) for family in families}
