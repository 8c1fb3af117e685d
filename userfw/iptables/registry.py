"""Every extension, by family and name."""

from __future__ import annotations

from userfw.iptables.bridge import BRIDGE_MATCHES, BRIDGE_TARGETS
from userfw.iptables.extension import Extension
from userfw.iptables.family import Family
from userfw.iptables.matches import MATCHES
from userfw.iptables.matches_state import STATE_MATCHES
from userfw.iptables.targets import TARGETS


def _index(rows: tuple[Extension, ...]) -> dict[tuple[str, str], Extension]:
    found = {}
    for row in rows:
        for family in row.families:
            assert (family, row.name) not in found, f"{family} {row.name} twice"
            found[family, row.name] = row
    return found


MATCH_TABLE = _index((*MATCHES, *STATE_MATCHES, *BRIDGE_MATCHES))
TARGET_TABLE = _index((*TARGETS, *BRIDGE_TARGETS))

# how -p names the match that it implies
PROTOCOL_MATCHES = {
    "icmpv6": "icmp6", "ipv6-icmp": "icmp6", "mobility-header": "mh", "ipv6-mh": "mh",
}  # fmt: skip


def find_match(family: Family, name: str) -> Extension | None:
    """The match of that name, None if there is none."""
    return MATCH_TABLE.get((family.name, PROTOCOL_MATCHES.get(name, name)))


def find_target(family: Family, name: str) -> Extension | None:
    """The target of that name, None if it is a chain."""
    return TARGET_TABLE.get((family.name, name))


def preloaded(family: Family) -> list[Extension]:
    """The matches whose options are known without -m."""
    return [row for (name, _), row in MATCH_TABLE.items() if name == family.name] if family.preloaded else []
