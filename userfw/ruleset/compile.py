"""From the model to hooks: which entries stand at which hook, in which order.

Laws:
- Base chains of equal priority: the one registered last runs first (Linux 6.18: nf_hook_entries_grow, seen on the kernel).
- Conntrack, defragmentation and NAT stand on a hook only if a rule needs them: a ruleset without ct, NAT or flow
  statements tracks nothing, whatever chains it has. An empty nat chain tracks nothing.
- Chains of type nat do not stand on their hook: they are what the one NAT entry of the hook consults, in their order.
- Dormant tables have no chains on hooks; what their rules need stays (Linux takes it when the rule is made).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from userfw.core.const import (
    NF_ARP_IN,
    NF_ARP_OUT,
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
from userfw.ruleset.model import Chain, Flowtable, Ruleset, Table, priority_of
from userfw.ruleset.references import (
    NEED_CONNTRACK,
    NEED_CONNTRACK_OF,
    NEED_DEFRAG,
    NEED_DEFRAG_OF,
    NEED_SYNPROXY,
)

FAMILY_NUMBERS = {
    "inet": NFPROTO_INET,
    "ip": NFPROTO_IPV4,
    "ip6": NFPROTO_IPV6,
    "arp": NFPROTO_ARP,
    "bridge": NFPROTO_BRIDGE,
    "netdev": NFPROTO_NETDEV,
}
CHAIN_TYPES = {"filter": CHAIN_FILTER, "nat": CHAIN_NAT, "route": CHAIN_ROUTE}
_INET = {
    "prerouting": NF_INET_PRE_ROUTING,
    "input": NF_INET_LOCAL_IN,
    "forward": NF_INET_FORWARD,
    "output": NF_INET_LOCAL_OUT,
    "postrouting": NF_INET_POST_ROUTING,
    "ingress": NF_INET_INGRESS,
}
HOOK_NUMBERS = {
    "ip": _INET,
    "ip6": _INET,
    "inet": _INET,
    "bridge": _INET,
    "arp": {"input": NF_ARP_IN, "output": NF_ARP_OUT},
    "netdev": {"ingress": NF_NETDEV_INGRESS, "egress": NF_NETDEV_EGRESS},
}
NETWORK_FAMILIES = {"ip": (NFPROTO_IPV4,), "ip6": (NFPROTO_IPV6,), "inet": (NFPROTO_IPV4, NFPROTO_IPV6)}
TRACKED_HOOKS = (NF_INET_PRE_ROUTING, NF_INET_LOCAL_OUT, NF_INET_LOCAL_IN, NF_INET_POST_ROUTING)


@dataclass(slots=True)
class Hooks:
    """What stands at the hooks of one ruleset, before platforms add conntrack, NAT and the like.

    - `chains`: (family number, hook number) to base chains, in running order within a priority.
    - `nat`: the same for chains of type nat. `netdev`: base chains of netdev and inet ingress, with their device patterns.
    - `flowtables`: with their device patterns. `tracked`, `defrag`, `synproxy`: families that need these.
    """

    chains: dict[tuple[int, int], list[Any]] = field(default_factory=dict)
    nat: dict[tuple[int, int], list[Any]] = field(default_factory=dict)
    netdev: list[tuple[Chain, int, Any]] = field(default_factory=list)
    flowtables: list[Flowtable] = field(default_factory=list)
    tracked: frozenset[int] = frozenset()
    defrag: frozenset[int] = frozenset()
    synproxy: frozenset[int] = frozenset()

    def on_device(self, name: str, hook: int, hardware: Any = None) -> list[Any]:
        """The base chains at a device's ingress or egress (NF_NETDEV_*), in running order within a priority; without those that
        `hardware` runs there."""
        return [
            entry
            for chain, number, entry in self.netdev
            if number == hook and matches(chain.node.devices, name) and not (hardware is not None and hardware.holds(chain, name))
        ]

    def flowtable_on(self, name: str) -> Any:
        """The flowtable of a device: the one of least priority that names it, or None."""
        found = [entry for entry in self.flowtables if matches(entry.node.devices, name)]
        return min(found, key=lambda entry: priority_of(entry.node)).engine if found else None


def matches(patterns: Iterable[str], name: str) -> bool:
    """Whether a device is among those that a chain or flowtable names; `eth*` is every name that begins so."""
    return any(name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern for pattern in patterns)


def build(rules: Ruleset) -> Hooks:
    """The hooks of a ruleset whose chains have their engine objects."""
    hooks = Hooks()
    tracked: set[int] = set()
    defrag: set[int] = set()
    synproxy: set[int] = set()
    for table in rules.tables.values():
        families = NETWORK_FAMILIES.get(table.family, (NFPROTO_BRIDGE,) if table.family == "bridge" else ())
        if table.uses.get(NEED_CONNTRACK):
            tracked.update(families)
        for name, need in NEED_CONNTRACK_OF.items():
            if table.uses.get(need):
                tracked.update(NETWORK_FAMILIES[name])
        if table.uses.get(NEED_DEFRAG):
            defrag.update(families)
        if table.uses.get(NEED_SYNPROXY):
            synproxy.update(families)
        for name, need in NEED_DEFRAG_OF.items():
            if table.uses.get(need):
                defrag.update(NETWORK_FAMILIES[name])
        hooks.flowtables += table.flowtables.values()
    for table, chain in registered(rules):
        _place(hooks, table, chain)
    hooks.tracked = frozenset(tracked)
    hooks.defrag = frozenset(defrag | tracked)
    hooks.synproxy = frozenset(synproxy)
    return hooks


def registered(rules: Ruleset) -> Iterator[tuple[Table, Chain]]:
    """The base chains that stand on hooks, the one registered last first."""
    found = [(table, chain) for table in rules.tables.values() if not table.dormant for chain in table.base_chains()]
    yield from sorted(found, key=lambda pair: -pair[1].registered)


def offloaded(rules: Ruleset) -> list[tuple[Table, Chain]]:
    """The base chains with `flags offload`."""
    return [(table, chain) for table, chain in registered(rules) if "offload" in chain.node.flags]


def _place(hooks: Hooks, table: Table, chain: Chain) -> None:
    node = chain.node
    number = HOOK_NUMBERS[table.family][node.hook or ""]
    if node.hook in ("ingress", "egress"):
        hooks.netdev.append((chain, NF_NETDEV_INGRESS if node.hook == "ingress" else NF_NETDEV_EGRESS, chain.base))
        return
    target = hooks.nat if node.type == "nat" else hooks.chains
    for family in NETWORK_FAMILIES.get(table.family, (FAMILY_NUMBERS[table.family],)):
        target.setdefault((family, number), []).append(chain.base)
