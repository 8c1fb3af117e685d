"""The engine put together: gateway, conntrack, NAT, rules; and what the shell asks of them.

This is the one place that knows how the rooms fit. It touches no socket and no event loop, so tests use it as it is.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any, cast

from userfw.conntrack.settings import Settings as ConntrackSettings
from userfw.conntrack.table import ConnTable
from userfw.core.clock import Clock
from userfw.core.const import ETH_P_8021AD, ETH_P_8021Q, NFPROTO_IPV4, NFPROTO_IPV6, NSEC_PER_SEC
from userfw.core.drop import DESCRIPTIONS, DropReason
from userfw.core.packet import Address, Device, Port
from userfw.daemon import portset, schema, snapshot
from userfw.daemon.names import DaemonNames
from userfw.flowtable.flow import FlowTuple
from userfw.flowtable.table import FlowObserver, FlowTable
from userfw.nft.location import NftError, NftErrors
from userfw.nft.syntax import FlowtableBlock
from userfw.offload.contract import Driver, Target
from userfw.offload.describe import untagged
from userfw.offload.drivers import load as load_drivers
from userfw.offload.hardware import HardwareChains
from userfw.offload.manager import OffloadManager
from userfw.ports.netlink import Netlink
from userfw.ports.redirect import LocalSockets
from userfw.router.bridge import Bridge
from userfw.router.const import RTN_BLACKHOLE, RTN_LOCAL, RTN_PROHIBIT, RTN_UNICAST, RTN_UNREACHABLE
from userfw.router.fib import Rule as PolicyRule
from userfw.router.gateway import Gateway
from userfw.router.interfaces import parse_address
from userfw.router.ra import AdvertisedPrefix, Advertisement
from userfw.router.types import Route
from userfw.ruleset.gateway_platform import GatewayPlatform
from userfw.ruleset.inputs import parse_input
from userfw.ruleset.manager import RulesetManager, render
from userfw.ruleset.options import Options
from userfw.ruleset.service import NftService

NEVER = (1 << 63) - 1
REAP_BUDGET = 1024  # connections looked at in one go; the rest follows at once, after waiting packets
SWEEP_BUDGET = 4096  # flowtable buckets and set elements looked at each time
SWEEP_BRIDGES_NS = 10 * NSEC_PER_SEC
SAVE_SLICE = 512  # connections saved in one step
RULES_FILE = "ruleset.nft"
CONNECTIONS_FILE = "connections.msgpack"
WORKER_FILES = "connections*.msgpack"
ROUTE_TYPES = {
    "unicast": RTN_UNICAST, "local": RTN_LOCAL, "blackhole": RTN_BLACKHOLE, "unreachable": RTN_UNREACHABLE,
    "prohibit": RTN_PROHIBIT,
}  # fmt: skip

# Linux: NUD_*
NUD_NAMES = {1: "INCOMPLETE", 2: "REACHABLE", 4: "STALE", 8: "DELAY", 16: "PROBE", 32: "FAILED", 64: "NOARP", 128: "PERMANENT"}

log = logging.getLogger("userfw")


class Assembly:
    """Gateway, connection table and rules of one daemon; `on_event` is called when a timer may have been set."""

    def __init__(self, clock: Clock, rng: random.Random, fault: Callable[[BaseException, str], None]) -> None:
        self.clock = clock
        self.gateway = Gateway(clock, rng, None, fault)
        self.conntrack_settings: ConntrackSettings = ConntrackSettings()
        self.conntrack: ConnTable = ConnTable(clock, self.conntrack_settings, rng)
        self.conntrack.observers.append(FlowObserver())  # what ends a connection ends its flow
        self.rules: RulesetManager = RulesetManager(self.gateway, self.conntrack, names=DaemonNames(self.gateway))
        self.platform: GatewayPlatform = cast(Any, self.rules.backend).platform
        self.nft = NftService(self.rules)
        self.routes: dict[tuple[Any, ...], Route] = {}
        self.bridges: dict[str, Bridge] = {}
        self.bridge_configs: dict[str, schema.Bridge] = {}
        self.bridges_swept = 0
        self.on_event: Callable[[], None] = _nothing
        self.offload_options: dict[str, Any] = {}
        self.capture: Callable[[str], Any] | None = None
        self.nics: list[Any] = []
        self.offload = OffloadManager(clock, [], self._target, self._generation, use=self._use, cross=self.gateway.walk_bridge)
        self.platform.offload = self._offload
        self.hardware = HardwareChains(self._drivers, self._target, self._numbers, self.platform.hang)
        self.platform.hardware = self.hardware
        self.offload.watchers.append(self.hardware.lost)
        self.gateway.routes.watchers.append(self.offload.revalidate)
        self.gateway.neighbours.watcher = self.offload.neighbour_changed
        self.rules.watch(self.offload.doubt)
        self.connections_file = CONNECTIONS_FILE
        self.gateway.listeners.append(self._device_changed)

    # -- time

    def next_deadline(self) -> int:
        """When `tick` has something to do, in nanoseconds of the clock; 0 if never."""
        due = int(self.gateway.next_deadline())
        reap = int(self.conntrack.next_deadline())
        if reap < NEVER and (not due or reap < due):
            due = reap
        return due

    def tick(self, now: int) -> None:
        """Run what is due."""
        self.gateway.tick(now)
        self.gateway.end_batch()
        self.conntrack.reap(REAP_BUDGET)

    def sweep(self) -> None:
        """Age flowtables and sets with timeouts, a part of each; several times a second."""
        for entry in self.platform.hooks.flowtables:
            if entry.engine is not None:
                entry.engine.sweep(SWEEP_BUDGET)
        for bridge in self.bridges.values():
            if self.clock.now - self.bridges_swept > SWEEP_BRIDGES_NS:
                bridge.sweep(self.clock.now)
        if self.clock.now - self.bridges_swept > SWEEP_BRIDGES_NS:
            self.bridges_swept = self.clock.now
        for table in self.rules.rules.tables.values():
            for item in table.sets.values():
                if item.engine is not None:
                    item.engine.sweep(SWEEP_BUDGET)

    # -- offload

    def configure_offload(self, config: schema.Config) -> None:
        """Take over `[offload]`; drivers are loaded when a ruleset first asks for them."""
        self.offload.threshold, self.offload.rate = config.offload.threshold, config.offload.rate
        self.platform.local_flows = config.offload.local_delivery
        self.offload_options = {
            "xdp": list(config.offload.xdp),
            "tc": list(config.offload.tc),
            "flower": list(config.offload.flower),
            "capture": self.capture,
            "nics": self.nics,
        }

    def _offload(self, node: FlowtableBlock, table: FlowTable) -> None:
        """A flowtable with `flags offload`. NftError names the device that cannot, and what it lacks."""
        self._drivers()
        reasons = self.offload.check(table.devices)
        if reasons:
            raise NftError(f"Could not process rule: Operation not supported: {reasons[0]}", node.loc)
        table.offloader = self.offload
        table.threshold = self.offload.threshold

    def _drivers(self) -> list[Driver]:
        if not self.offload.drivers:
            self.offload.drivers = load_drivers(self.offload_options)
        return self.offload.drivers

    def _numbers(self) -> list[tuple[str, int]]:
        return [(device.name, int(device.index)) for device in self.gateway.devices.values()]

    def _target(self, name: str) -> Target | None:
        device = self.gateway.names.get(name)
        if device is None:
            return None
        device, tags = untagged(device)
        port: Any = device.port
        vlans = any(other.parent is device for other in self.gateway.devices.values())
        target = Target(device.name, 0, getattr(port, "netns", None) or None, "", port, vlans, tags)
        if getattr(port, "kind", "") in ("packet", "capture", "xdp"):
            netlink = Netlink(port.netns)
            try:
                target.ifindex, target.system_name = netlink.link(port.ifname).index, port.ifname
            except OSError:
                return None
            finally:
                netlink.close()
        return target

    def _use(self, side: FlowTuple) -> None:
        """Keep the neighbour of a flow's direction in use, or find it."""
        route = side.route
        if route.neigh is None or route.neigh.dead:
            self.gateway.neighbours.of_dst(route, side.new_dst_hi, side.new_dst_lo)
        if route.neigh is not None:
            self.gateway.neighbours.use(route.neigh)

    def _generation(self) -> int:
        return int(self.gateway.routes.generation.value)

    def close(self) -> None:
        """Take every flow out of every device."""
        self.hardware.close()
        self.offload.close()

    # -- ports and routes

    def add_port(self, device: Device, kind: str, port: Port | None) -> None:
        """Take a device in. ValueError if its name or index is taken."""
        self.gateway.add_device(device, port)
        if kind == "tun":
            self.gateway.set_local_port(device)
            self._provide_sockets(port)
        self.hardware.appeared()

    def remove_port(self, device: Device) -> None:
        """Forget a device, its addresses and routes; flows over it end, and nothing stays in it."""
        self.offload.forget(device.name)
        for entry in self.platform.hooks.flowtables:
            if entry.engine is not None:
                entry.engine.flush(device.index)
        if self.gateway.local_device is device:
            self._provide_sockets(None)
        self.gateway.remove_device(device)

    def _device_changed(self, event: str, device: Device, address: Address | None) -> None:
        if device.master is not None and event.startswith("device"):
            bridge = device.bridge.bridge
            if event == "device-remove":
                bridge.remove_port(device)
            elif not device.up:
                bridge.forget(device.bridge)
            bridge.addresses()
            self._bridge_link(bridge)
        elif device.bridge is not None and device.master is None:
            device.bridge.addresses()
        self._forget_mappings(event, device, address)

    def _forget_mappings(self, event: str, device: Device, address: Address | None) -> None:
        """Masquerade forgets mappings to an address that is gone (Linux: masq_device_event, masq_inet_event)."""
        if event in ("device-down", "address-remove", "device-remove") and self.platform.nat is not None:
            self.platform.nat.forget_device(device.index, address if event == "address-remove" else None)

    def set_advertisement(self, device: Device, ra: schema.Advertisement | None) -> None:
        """Router advertisements of a device; the prefixes of its addresses if none are given."""
        if ra is None or not ra.enabled:
            self.gateway.advertise(device, None)
            return
        prefixes = [(int(p.network_address), p.prefixlen) for p in ra.prefixes if p.version == 6]
        if not prefixes:
            for address in device.addresses:
                if address.family == NFPROTO_IPV6 and address.hi >> 54 != 0x3FA:
                    shift = 128 - address.prefixlen
                    prefixes.append((((address.hi << 64 | address.lo) >> shift) << shift, address.prefixlen))
        item = Advertisement([AdvertisedPrefix(n >> 64, n & ((1 << 64) - 1), length) for n, length in prefixes])
        item.lifetime = int(ra.lifetime)
        item.managed, item.other = ra.managed, ra.other
        item.min_interval, item.max_interval = int(ra.min_interval), int(ra.max_interval)
        self.gateway.advertise(device, item)

    def _key(self, route: schema.Route) -> tuple[Any, ...]:
        return (route.to, route.via, route.dev, route.type, route.metric, route.table, route.src, route.mtu)

    def has_route(self, route: schema.Route) -> bool:
        """Whether the route was added and is still in its table."""
        known = self.routes.get(self._key(route))
        return known is not None and any(known is other for other in self.gateway.routes.all())

    def add_route(self, route: schema.Route) -> None:
        """ValueError says what is wrong with it."""
        prefix = str(route.to) if route.to is not None else ""
        if route.to is None:
            family = route.via or route.src
            prefix = "0.0.0.0/0" if family is not None and family.version == 4 else "::/0"
        self.routes[self._key(route)] = self.gateway.add_route(
            prefix,
            via=str(route.via) if route.via else "",
            dev=route.dev or ("lo" if route.type == "local" else ""),
            type=ROUTE_TYPES[route.type],
            metric=route.metric or -1,
            table=route.table,
            src=f"{route.src}" if route.src else "",
            mtu=route.mtu,
        )

    def remove_route(self, route: schema.Route) -> None:
        """Nothing if it is not there."""
        known = self.routes.pop(self._key(route), None)
        if known is not None and any(known is other for other in self.gateway.routes.all()):
            self.gateway.routes.remove(known)

    def add_bridge(self, config: schema.Bridge, index: int) -> None:
        """Make a bridge of ports that are there. ValueError."""
        members = [self.gateway.names[name] for name in config.ports]
        mac = config.mac or min((device.mac for device in members), default=portset.stable_mac(config.name))
        mtu = config.mtu or min((device.mtu for device in members), default=1500)
        device = Device(config.name, index, mac, mtu)
        device.group = config.group
        bridge = Bridge(self.gateway, device)
        bridge.watcher = self.offload.bridge_changed
        self.gateway.add_device(device)
        self.bridges[config.name], self.bridge_configs[config.name] = bridge, config
        try:
            for member in members:
                bridge.add_port(member)
        except ValueError:
            self.remove_bridge(config)
            raise
        bridge.addresses()
        bridge.ageing, bridge.fdb_max = int(config.ageing * NSEC_PER_SEC), config.fdb_max
        bridge.group_fwd_mask, bridge.filtering = config.group_fwd_mask, config.vlan_filtering
        bridge.vlan_proto = ETH_P_8021AD if config.vlan_protocol == "802.1ad" else ETH_P_8021Q
        ports = {port.device.name: port for port in bridge.ports}
        for name in config.ports:
            port = ports[name]
            port.hairpin, port.isolated = name in config.hairpin, name in config.isolated
            port.learning, port.flood = name not in config.no_learning, name not in config.no_flood
        for vlan in config.vlan:
            who = bridge.own if vlan.port is None else ports[vlan.port]
            who.pvid, who.untagged, who.vlans = vlan.pvid, set(vlan.untagged), {*vlan.tagged, *vlan.untagged}
            if vlan.pvid == 1 and 1 not in who.vlans:
                who.vlans.add(1)
                who.untagged.add(1)
        for entry in config.fdb:
            bridge.add_static(int.from_bytes(entry.mac or b"", "big"), entry.vlan or int(config.vlan_filtering), ports[entry.port])
        for address in config.addresses:
            self.gateway.add_address(device, parse_address(str(address)))
        bridge.changed()
        self._bridge_link(bridge)

    def remove_bridge(self, config: schema.Bridge) -> None:
        """Its ports are plain devices again."""
        bridge = self.bridges.pop(config.name, None)
        self.bridge_configs.pop(config.name, None)
        if bridge is not None:
            for port in list(bridge.ports):
                bridge.remove_port(port.device)
            self.gateway.remove_device(bridge.device)

    def _bridge_link(self, bridge: Bridge) -> None:
        """A bridge is up when one of its ports is."""
        self.gateway.set_up(bridge.device, any(port.device.up for port in bridge.ports))

    def set_rules(self, rules: list[schema.Rule]) -> None:
        """Put policy routing rules in force."""
        found = []
        for rule in rules:
            version = next((net.version for net in (rule.src, rule.dst) if net is not None), 0)
            for family, number, word in ((NFPROTO_IPV4, 4, "ipv4"), (NFPROTO_IPV6, 6, "ipv6")):
                if version in (0, number) and rule.family in ("any", word):
                    mark, mask = rule.fwmark or (0, 0)
                    iif = self.gateway.names[rule.iif].index if rule.iif else 0
                    found.append(
                        PolicyRule(
                            rule.priority, family, rule.table, RTN_UNICAST, mark, mask, iif, _prefix(rule.src), _prefix(rule.dst)
                        )
                    )
        self.gateway.routes.set_rules(found)

    def _provide_sockets(self, port: Any) -> None:
        """Ask the kernel behind a TUN port for sockets; None: there are none."""
        sockets = self.gateway.sockets
        if sockets.provider is not None:
            sockets.provider.close()
        sockets.provider = LocalSockets(port.netns, port.ifname) if port is not None else None
        sockets.cache.clear()

    # -- rules

    def load_ruleset(self, path: str, text: str) -> None:
        """Replace the whole ruleset by `text`; `path` is what errors call it. ValueError with every problem."""
        options = Options(filename=path, include_path=(str(Path(path).parent),), process="userfw")
        try:
            commands = parse_input("flush ruleset", Options()) + parse_input(text, options)
        except NftErrors as problem:
            raise ValueError("\n".join(render(error) for error in problem.errors)) from None
        result = self.rules.execute_commands(commands, options)
        if result.status:
            raise ValueError(result.errors.rstrip())
        if result.errors:
            log.warning("%s", result.errors.rstrip())

    def ruleset_text(self) -> str:
        """The rules as they are now, with counters and elements that packets added, as one text that loads."""
        result = self.rules.execute("list ruleset", Options(numeric_priority=False))
        return result.output

    # -- state

    def restore(self, config: schema.Config) -> None:
        """Bring back what was saved, as configured. A file that cannot be read is told and left alone."""
        if config.daemon.state_dir is None:
            return
        state = Path(config.daemon.state_dir)
        if config.daemon.restore_ruleset and (state / RULES_FILE).exists():
            try:
                self.load_ruleset(str(state / RULES_FILE), (state / RULES_FILE).read_text())
                log.info("rules restored from %s", state / RULES_FILE)
            except (OSError, ValueError) as error:
                log.error("rules not restored: %s", error)
        if config.daemon.restore_connections:
            restored = left = 0
            files = sorted(state.glob(WORKER_FILES))  # of every worker that there was, however many there are now
            for file in files:
                try:
                    for block in snapshot.decode_untrusted(file.read_bytes()):
                        good, bad = snapshot.restore(block, self.conntrack, time.time_ns(), self._index_of)
                        restored, left = restored + good, left + bad
                except (OSError, snapshot.SnapshotError) as error:
                    log.error("connections not restored beyond %d: %s: %s", restored, file, error)
            if files:
                log.info("%d connections restored, %d left out", restored, left)

    def _index_of(self, name: str) -> int:
        device = self.gateway.names.get(name)
        return device.index if device is not None else 0

    def save(self, config: schema.Config) -> Iterator[Callable[[], None] | None]:
        """Save the ruleset and the connections into the state directory, if there is one, in steps that are short.

        What a step yields, if anything, may be run in another thread before the next one. Failures are logged.
        """
        if config.daemon.state_dir is None:
            return
        state = Path(config.daemon.state_dir)
        try:
            if self.connections_file == CONNECTIONS_FILE:
                rules = self.ruleset_text().encode()
                yield lambda: snapshot.write(state / RULES_FILE, rules)
            writer = snapshot.Writer(state / self.connections_file)
        except OSError as error:
            log.error("state not saved: %s", error)
            return
        try:
            slices = 1
            while slices * SAVE_SLICE < self.conntrack.count:
                slices *= 2
            for base in range(slices):
                conns = self.conntrack.members(base, slices - 1)
                writer.write(snapshot.encode(conns, self.clock.now, time.time_ns(), self._name_of))
                yield None
            yield writer.commit
            if self.connections_file == CONNECTIONS_FILE:
                kept = {f"connections-{n}.msgpack" for n in range(1, config.daemon.workers)} | {CONNECTIONS_FILE}
                for file in state.glob(WORKER_FILES):
                    if file.name not in kept:
                        file.unlink(missing_ok=True)
        except OSError as error:
            writer.abandon()
            log.error("state not saved: %s", error)
        except GeneratorExit:
            writer.abandon()
            raise

    def _name_of(self, index: int) -> str:
        device = self.gateway.devices.get(index)
        return device.name if device is not None else ""

    # -- facts

    def neighbours(self) -> list[dict[str, Any]]:
        """Every neighbour as it goes over the control socket; ages in seconds."""
        now = self.clock.now
        return [
            {
                "device": n["device"],
                "address": str(IPv4Address(n["lo"]) if n["family"] == NFPROTO_IPV4 else IPv6Address((n["hi"] << 64) | n["lo"])),
                "mac": n["mac"].hex(":"),
                "state": NUD_NAMES.get(n["state"], str(n["state"])),
                "router": n["router"],
                "queued": n["queued"],
                "used": max(0, now - n["used"]) // NSEC_PER_SEC,
            }
            for n in self.gateway.list_neighbours()
        ]

    def drop_report(self, everything: bool = False, ports: bool = False) -> dict[str, Any]:
        """Packets dropped, by reason with its sentence; with `ports`, also for each device."""
        total = self._drops(self.gateway.drop_counts(), everything)
        if not ports:
            return {"drops": total}
        each = {
            self.gateway.devices[index].name: self._drops([int(n) for n in counts], everything)
            for index, counts in self.gateway.device_drops.items()
            if index in self.gateway.devices
        }
        return {"drops": total, "ports": each}

    def _drops(self, counts: list[int], everything: bool) -> list[dict[str, Any]]:
        return [
            {"reason": reason.name, "packets": counts[reason], "description": sentence}
            for reason, sentence in DESCRIPTIONS.items()
            if reason != DropReason.NOT_SPECIFIED and (everything or counts[reason])
        ]

    def rungs(self) -> dict[str, int]:
        """Frames that each rung of the ladder forwarded: the flowtable, and the pipeline for all others."""
        fast = sum(int(e.engine.forwarded) for e in self.platform.hooks.flowtables if e.engine is not None)
        received = sum(device.rx_packets for device in self.gateway.devices.values() if device.port is not None)
        return {"pipeline": max(0, received - fast), "flowtable": fast, "hardware": self.offload.packets}

    def status(self) -> dict[str, Any]:
        """What `userfw status` shows of the engine."""
        return {
            "connections": self.conntrack.count,
            "connections_max": self.conntrack_settings.max,
            "generation": self.rules.rules.generation,
            "rungs": self.rungs(),
            "drops": sum(self.gateway.drop_counts()),
            "routes": sum(1 for _ in self.gateway.routes.all()),
            **self.gateway.statistics(),
        }


def _prefix(net: schema.Network | None) -> tuple[int, int, int] | None:
    if net is None:
        return None
    value = int(net.network_address)
    return value >> 64, value & ((1 << 64) - 1), net.prefixlen


def _nothing() -> None:
    pass
