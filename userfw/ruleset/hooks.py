"""`list hooks`: what stands at each hook, with priorities (nft 1.1.6; Linux: nfnetlink_hook)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from userfw.core.const import (
    NF_INET_FORWARD,
    NF_INET_LOCAL_IN,
    NF_INET_LOCAL_OUT,
    NF_INET_POST_ROUTING,
    NF_INET_PRE_ROUTING,
    NFPROTO_ARP,
    NFPROTO_BRIDGE,
    NFPROTO_IPV4,
    NFPROTO_IPV6,
)
from userfw.nft.syntax import Command, HooksSpec
from userfw.ruleset.compile import HOOK_NUMBERS, matches, registered
from userfw.ruleset.model import Chain, Ruleset, Table, priority_of

_NAMES = {
    NFPROTO_IPV4: "ip", NFPROTO_IPV6: "ip6", NFPROTO_ARP: "arp", NFPROTO_BRIDGE: "bridge",
}  # fmt: skip
_INET = ("prerouting", "input", "forward", "output", "postrouting")
_BRIDGE = {
    NF_INET_PRE_ROUTING: ((-200, "conntrack_in"),),
    NF_INET_LOCAL_IN: ((2147483647, "confirm"),),
    NF_INET_POST_ROUTING: ((2147483647, "confirm"),),
}
_BUILTIN = {
    "conntrack": {
        NF_INET_PRE_ROUTING: ((-400, "defrag"), (-200, "conntrack_in")),
        NF_INET_LOCAL_OUT: ((-400, "defrag"), (-200, "conntrack_in")),
        NF_INET_LOCAL_IN: ((2147483647, "confirm"),),
        NF_INET_POST_ROUTING: ((2147483647, "confirm"),),
        NF_INET_FORWARD: (),
    },
    "nat": {
        NF_INET_PRE_ROUTING: ((-100, "nat"),),
        NF_INET_LOCAL_OUT: ((-100, "nat"),),
        NF_INET_LOCAL_IN: ((100, "nat"),),
        NF_INET_POST_ROUTING: ((100, "nat"),),
        NF_INET_FORWARD: (),
    },
}


def hooks_text(rules: Ruleset, backend: Any, command: Command) -> str:
    """The listing of all hooks, or of a family, hook or device."""
    spec = command.node if isinstance(command.node, HooksSpec) else HooksSpec()
    wanted = command.family
    lines: list[str] = []
    for family in ("ip", "ip6", "arp", "bridge"):
        if wanted is None or wanted == family or (wanted == "inet" and family in ("ip", "ip6")):
            lines += _family(rules, backend, family, spec.hook)
    if wanted in (None, "netdev", "inet"):
        lines += _devices(rules, spec, _present(backend))
    return "".join(line + "\n" for line in lines)


def _family(rules: Ruleset, backend: Any, family: str, only: str | None) -> list[str]:
    lines: list[str] = []
    built = getattr(backend, "hooks", None)
    for hook in ("input", "output") if family == "arp" else _INET:
        if only is not None and only != hook:
            continue
        number = HOOK_NUMBERS[family][hook]
        entries = [(priority_of(chain.node, table.family), _label(table, chain)) for table, chain in _chains(rules, family, hook)]
        entries += _builtin(built, family, number)
        entries.sort(key=lambda entry: entry[0])
        if entries:
            lines.append(f"\thook {hook} {{")
            lines += map(_line, entries)
            lines.append("\t}")
    return [f"family {family} {{", *lines, "}"] if lines else []


def _chains(rules: Ruleset, family: str, hook: str) -> list[tuple[Table, Chain]]:
    families = (family, "inet") if family in ("ip", "ip6") else (family,)
    return [(table, chain) for table, chain in registered(rules) if table.family in families and chain.node.hook == hook]


def _line(entry: tuple[int, str]) -> str:
    priority, label = entry
    return f"\t\t{priority:+011d} {label}" if priority else f"\t\t 0000000000 {label}"


def _label(table: Table, chain: Chain) -> str:
    return f"chain {table.family} {table.name} {chain.name} [nf_tables]"


def _builtin(built: Any, family: str, number: int) -> list[tuple[int, str]]:
    if built is not None and family == "bridge" and NFPROTO_BRIDGE in built.tracked:
        return [(priority, f"bridge_{name} [userfw]") for priority, name in _BRIDGE.get(number, ())]
    if built is None or family not in ("ip", "ip6"):
        return []
    code = NFPROTO_IPV4 if family == "ip" else NFPROTO_IPV6
    prefix = "ipv4" if family == "ip" else "ipv6"
    found: list[tuple[int, str]] = []
    if code in built.synproxy and number in (NF_INET_LOCAL_IN, NF_INET_POST_ROUTING):
        found.append((2147483646, f"{prefix}_synproxy [userfw]"))
    if code in built.tracked:
        found += [(priority, f"{prefix}_{name} [userfw]") for priority, name in _BUILTIN["conntrack"][number]]
        if any(key[0] == code for key in built.nat):
            found += [(priority, f"{prefix}_{name} [userfw]") for priority, name in _BUILTIN["nat"][number]]
    elif code in built.defrag and number in (NF_INET_PRE_ROUTING, NF_INET_LOCAL_OUT):
        found.append((-400, f"{prefix}_defrag [userfw]"))
    return found


def _present(backend: Any) -> list[str]:
    """The devices that there are; none on a private ruleset, where every name stands for itself."""
    platform = getattr(backend, "platform", None)
    return [str(device.name) for device in platform.devices()] if platform is not None else []


def _named(patterns: Iterable[str], present: list[str]) -> Iterable[str]:
    """The devices that a chain or flowtable hangs on: a name that ends in a star stands for several."""
    return [name for name in present if matches(patterns, name)] if present else patterns


def _devices(rules: Ruleset, spec: HooksSpec, present: list[str]) -> list[str]:
    by_device: dict[str, dict[str, list[tuple[int, str]]]] = {}
    for table, chain in registered(rules):
        hook = chain.node.hook or ""
        if hook not in ("ingress", "egress") or (spec.hook is not None and spec.hook != hook):
            continue
        for device in _named(chain.node.devices, present):
            if spec.device in (None, device):
                entry = priority_of(chain.node, table.family), _label(table, chain)
                by_device.setdefault(device, {}).setdefault(hook, []).append(entry)
    for table in rules.tables.values():
        for flowtable in table.flowtables.values():
            for device in _named(flowtable.node.devices, present):
                if spec.device in (None, device) and spec.hook in (None, "ingress"):
                    label = f"flowtable {table.family} {table.name} {flowtable.name} [nf_tables]"
                    entry = (priority_of(flowtable.node), label)
                    by_device.setdefault(device, {}).setdefault("ingress", []).append(entry)
    lines: list[str] = []
    for device, hooks in by_device.items():
        lines.append("family netdev {")
        for hook, entries in hooks.items():
            lines.append(f"\thook {hook} device {device} {{")
            lines += map(_line, sorted(entries))
            lines.append("\t}")
        lines.append("}")
    return lines
