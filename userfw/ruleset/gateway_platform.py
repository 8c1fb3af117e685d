"""The platform of a ruleset that packets meet: a gateway, its connection table, NAT.

Laws:
- `install` makes the hook lists of all families and devices anew and swaps them in; it never fails.
- Entries that are not chains were registered before them: at equal priority chains run first among equals as Linux
  registers conntrack when the first rule needs it (the order among different kinds at one priority is nft's "undefined").
- A device that comes later gets its hooks when the gateway tells of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from userfw.conntrack.ahead import ConnAhead
from userfw.conntrack.helper import Helpers
from userfw.conntrack.table import ConnTable
from userfw.conntrack.track import Confirm, ConntrackIn
from userfw.core.const import (
    NF_INET_LOCAL_IN,
    NF_INET_LOCAL_OUT,
    NF_INET_POST_ROUTING,
    NF_INET_PRE_ROUTING,
    NF_NETDEV_EGRESS,
    NF_NETDEV_INGRESS,
    NFPROTO_ARP,
    NFPROTO_BRIDGE,
    NFPROTO_IPV4,
    NFPROTO_IPV6,
)
from userfw.core.hook import HookEntry, HookList
from userfw.core.packet import Device, Packet
from userfw.engine.expressions.meta import META_NAMES, MetaSet
from userfw.engine.expressions.objref import OBJECT_TYPES
from userfw.engine.expressions.rt import RT_NAMES
from userfw.engine.services import Services
from userfw.engine.shared import Pool
from userfw.flowtable.table import FlowEntry
from userfw.nat.entry import NatEntry
from userfw.nat.helper import HelperTools
from userfw.nat.mapping import AddressChoice, Nat
from userfw.nft.datatype import Names
from userfw.router.bridge_track import BridgeConfirm, BridgeTrack
from userfw.router.gateway import Gateway
from userfw.router.pipeline import Pipeline
from userfw.router.routing import Reroute
from userfw.router.source import select_ipv4
from userfw.router.synproxy import SynproxyEntry
from userfw.ruleset.compile import Hooks, matches
from userfw.ruleset.share import Counted

NAT_HOOKS = (NF_INET_PRE_ROUTING, NF_INET_LOCAL_IN, NF_INET_LOCAL_OUT, NF_INET_POST_ROUTING)
INERT = {
    "xfrm": "`ipsec` matches nothing: userfw has no IPsec",
    "tunnel": "`tunnel` matches nothing: userfw has no tunnel devices",
    "meta sdif": "`sdif` matches nothing: userfw has no VRF devices",
    "meta sdifname": "`sdifname` matches nothing: userfw has no VRF devices",
    "meta secpath": "`meta ipsec` is always missing: userfw has no IPsec",
    "meta rtclassid": "`rtclassid` is always 0: userfw's routes have no realms",
    "rt classid": "`rt classid` is always 0: userfw's routes have no realms",
    "rt ipsec": "`rt ipsec` is always missing: userfw has no IPsec",
    "meta priority set": "`meta priority set` is for later rules only: frames are handed to the kernel without a priority",
}
NO_SOCKETS = "matches nothing: there are no sockets without a port of type `tun`"
OF_SOCKETS = {
    "socket": "`socket`", "tproxy": "`tproxy`", "meta skuid": "`skuid`", "meta skgid": "`skgid`", "meta cgroup": "`cgroup`",
}  # fmt: skip
NO_FINGERPRINTS = "`osf` knows no system: there is no file of fingerprints (`osf_fingerprints` in the configuration)"
ELEMENTS_OF_WORKERS = (
    "with several workers an element that packets add is known to the worker whose packets added it; "
    "limits, quotas and `ct count` in elements are common to all"
)
NO_OBJECTS = {OBJECT_TYPES["tunnel"]: "userfw has no tunnel devices"}
TRACK_HOOKS = (NF_INET_PRE_ROUTING, NF_INET_LOCAL_OUT)
CONFIRM_HOOKS = (NF_INET_LOCAL_IN, NF_INET_POST_ROUTING)


class GatewayNames(Names):
    """Interfaces are the gateway's devices."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway

    def ifindex(self, name: str) -> int | None:
        device = self.gateway.names.get(name)
        return int(device.index) if device is not None else None

    def ifname(self, index: int) -> str | None:
        device = self.gateway.devices.get(index)
        return str(device.name) if device is not None else None


class RouterAddresses(AddressChoice):
    """Addresses for NAT, of all devices of a router."""

    def __init__(self, gateway: Gateway) -> None:
        super().__init__()
        self.gateway = gateway

    def elsewhere(self, pkt: Packet) -> bool:
        """See AddressChoice. Linux: inet_select_addr; IPv6 chooses among all in the first place."""
        self.hi, self.lo = 0, select_ipv4(self.gateway, None) if pkt.nfproto == NFPROTO_IPV4 else 0
        return self.lo != 0


class GatewayPlatform:
    """Runs a ruleset on a gateway. `conns` None: a gateway that tracks nothing, whatever the rules need.

    `pool`: where the workers of a daemon keep what limits, quotas and `ct count` know, with `counted` for the latter.
    `local_flows`: `flow add` may stand at input and output.
    `steer`: none, or two entries right before and behind defragmentation, which hand packets to the worker that owns them.
    """

    def __init__(
        self, gateway: Gateway, conns: ConnTable | None = None, nat: Nat | None = None, names: Names | None = None
    ) -> None:
        self.gateway = gateway
        self.clock = gateway.clock
        self.services: Services = gateway
        self.conns = conns
        self.sender = gateway.sender
        self.names = names or GatewayNames(gateway)
        self.nat = nat if nat is not None or conns is None else Nat(conns)
        if self.nat is not None:
            self.nat.addresses = RouterAddresses(gateway)
        self.helpers = Helpers(HelperTools(self.nat)) if self.nat is not None else None
        self.hooks = Hooks()
        self.no_objects: Mapping[int, str] = NO_OBJECTS
        self.local_flows = False
        self.pool: Pool | None = None
        self.counted = Counted()
        self.steer: tuple[HookEntry, ...] = ()
        self.hardware: Any = None  # what runs netdev chains with `flags offload` (offload.hardware.HardwareChains)
        self._track: dict[str, HookEntry] = {}
        self._ahead = ConnAhead(conns) if conns is not None else None
        if conns is not None:
            track, confirm = ConntrackIn(conns), Confirm(conns)
            self._track = {
                "in": track,
                "confirm": confirm,
                "defrag": gateway.defrag,
                "bridge": BridgeTrack(track, gateway.reassembly),
                "bridge confirm": BridgeConfirm(confirm),
            }
            gateway.conntrack = conns
            gateway.nat = self.nat
        gateway.listeners.append(self._changed)

    def doubt(self, expr: Any) -> str | None:
        """See ruleset.platform.Platform: what the expression asks for is not there."""
        kind = str(expr.kind)
        if kind == "dynset" and self.pool is not None:
            return ELEMENTS_OF_WORKERS
        names = {"meta": META_NAMES, "rt": RT_NAMES}.get(kind)
        name = f"{kind} {names.get(expr.key)}" if names is not None and hasattr(expr, "key") else kind
        if isinstance(expr, MetaSet):
            name += " set"
        if name in OF_SOCKETS and self.gateway.sockets.provider is None:
            return f"{OF_SOCKETS[name]} {NO_SOCKETS}"
        if kind == "osf" and self.gateway.fingerprints is None:
            return NO_FINGERPRINTS
        return INERT.get(name)

    def devices(self) -> Iterable[Device]:
        return list(self.gateway.devices.values())

    def install(self, hooks: Hooks) -> None:
        before, self.hooks = self.hooks, hooks
        lists: dict[tuple[int, int], HookList] = {}
        for family in (NFPROTO_IPV4, NFPROTO_IPV6, NFPROTO_ARP, NFPROTO_BRIDGE):
            for hook in range(5):
                entries = self._entries(family, hook)
                if entries:
                    lists[family, hook] = HookList(hook, entries)
        tracked = bool(hooks.tracked) and self.conns is not None
        self.gateway.set_pipeline(Pipeline(lists, tracked, self._ahead if tracked else None))
        for device in self.devices():
            self._attach(device)
        self._end_flows(before)

    def _end_flows(self, before: Hooks) -> None:
        """Flows of a flowtable that is gone, or that lost a device, go back to conntrack (Linux: nf_flow_table_cleanup)."""
        kept = {id(entry.engine) for entry in self.hooks.flowtables}
        for entry in before.flowtables:
            if entry.engine is None:
                continue
            if id(entry.engine) not in kept:
                entry.engine.flush()
                continue
            for device in self.devices():
                if matches(entry.node.devices, device.name) and self.hooks.flowtable_on(device.name) is not entry.engine:
                    entry.engine.flush(device.index)

    def _entries(self, family: int, hook: int) -> list[HookEntry]:
        """The entries of one hook, in the order in which equal priorities run."""
        hooks = self.hooks
        entries: list[HookEntry] = list(hooks.chains.get((family, hook), ()))
        if family == NFPROTO_BRIDGE and family in hooks.tracked and self.conns is not None:
            if hook == NF_INET_PRE_ROUTING:
                return [self._track["bridge"], *entries]
            if hook == NF_INET_POST_ROUTING:
                return [self._track["confirm"], *entries]
            if hook == NF_INET_LOCAL_IN:
                return [self._track["bridge confirm"], *entries]
        if family not in (NFPROTO_IPV4, NFPROTO_IPV6) or self.conns is None:
            return entries
        builtin: list[HookEntry] = []
        if family in hooks.defrag and hook in TRACK_HOOKS:
            builtin += [*self.steer[:1], self._track["defrag"], *self.steer[1:]]
        if family in hooks.tracked:
            if hook in TRACK_HOOKS:
                builtin.append(self._track["in"])
            if hook in CONFIRM_HOOKS and family in hooks.synproxy:
                builtin.append(SynproxyEntry(self.gateway.proxy))
            if hook in CONFIRM_HOOKS:
                builtin.append(self._track["confirm"])
            if hook in NAT_HOOKS and self.nat is not None and any(key[0] == family for key in hooks.nat):
                chains = sorted(hooks.nat.get((family, hook), ()), key=lambda chain: int(chain.priority))
                builtin.append(NatEntry(self.nat, hook, chains))
                if hook == NF_INET_LOCAL_OUT:
                    builtin.append(Reroute(self.gateway))
        return builtin + entries

    def hang(self) -> None:
        """Hang netdev chains and flowtables on every device again."""
        for device in self.devices():
            self._attach(device)

    def _changed(self, event: str, device: Device, address: Any) -> None:
        if event.startswith("device") and event != "device-remove":
            self._attach(device)

    def _attach(self, device: Device) -> None:
        """Hang netdev chains and flowtable on a device. The flowtable stands among the chains if there are any."""
        hooks = self.hooks
        flowtable = hooks.flowtable_on(device.name)
        ingress: list[HookEntry] = hooks.on_device(device.name, NF_NETDEV_INGRESS, self.hardware)
        egress: list[HookEntry] = hooks.on_device(device.name, NF_NETDEV_EGRESS)
        if ingress and flowtable is not None:
            ingress = [FlowEntry(flowtable), *ingress]
            flowtable = None
        device.flowtable = flowtable
        device.ingress = HookList(NF_NETDEV_INGRESS, ingress) if ingress else None
        device.egress = HookList(NF_NETDEV_EGRESS, egress) if egress else None
