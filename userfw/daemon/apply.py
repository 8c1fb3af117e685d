"""From one configuration to the next: start is the step from the empty one, a reload the step from the one that runs.

Law: all or nothing. Every step that is taken leaves its own undoing behind; when a later step fails, what was done is undone in
reverse and the daemon goes on as before. The ruleset comes last, because its transaction is atomic by itself.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from userfw.core.packet import Device
from userfw.daemon import portset, schema
from userfw.daemon.fingerprints import load_fingerprints
from userfw.daemon.portset import OpenPort, PortError
from userfw.router.interfaces import parse_address

if TYPE_CHECKING:
    from userfw.daemon.server import Server

log = logging.getLogger("userfw.config")

# What a running port may change; anything else of [[port]] needs a restart.
LIVE_KEYS = {"group", "mtu", "mac", "addresses", "vlan", "ra", "gro"}


class ApplyError(Exception):
    """A configuration that could not be put into force; nothing was changed."""


class Step:
    """A configuration change under way: do, and remember how to undo."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.undo: list[Callable[[], Any]] = []
        self.finish: list[Callable[[], Any]] = []

    def rollback(self) -> None:
        """Undo everything, last first; a failing undo is logged and the rest goes on."""
        for action in reversed(self.undo):
            try:
                action()
            except Exception:
                log.exception("undoing a failed change")
        self.undo.clear()

    def commit(self) -> None:
        """Do what can no longer fail (close what is not needed any more)."""
        for action in self.finish:
            try:
                action()
            except Exception:
                log.exception("finishing a change")


def apply(server: Server, old: schema.Config, new: schema.Config) -> None:
    """Go from `old`, which is in force, to `new`. ApplyError, and nothing has changed."""
    step = Step(server)
    try:
        _daemon(step, old, new)
        _settings(step, old, new)
        _remove_routes(step, old, new)
        _nics(step, old, new)
        _remove_bridges(step, old, new)
        _ports(step, old, new)
        _add_bridges(step, old, new)
        _add_routes(step, old, new)
        _rules(step, old, new)
        _mirror(step, old, new)
        _queues(step, old, new)
        server.assembly.configure_offload(new)
        _fingerprints(step, old, new)
        _ruleset(step, new)
    except (PortError, ValueError, KeyError, OSError) as error:
        step.rollback()
        server.assembly.configure_offload(old)
        _restore_routes(server, old)
        raise ApplyError(str(error)) from error
    except BaseException:
        step.rollback()
        _restore_routes(server, old)
        raise
    step.commit()
    portset.agree_on_gro(server.ports.values())
    server.sync_local()


# -- the daemon's own keys

LIVE_DAEMON_KEYS = {"ruleset", "save_interval", "log_level", "batch", "busy_poll_us", "restore_ruleset", "restore_connections",
                    "osf_fingerprints"}  # fmt: skip


def _daemon(step: Step, old: schema.Config, new: schema.Config) -> None:
    server = step.server
    if not server.running:
        return
    changed = {f.name for f in dataclasses.fields(new.daemon) if getattr(new.daemon, f.name) != getattr(old.daemon, f.name)}
    if fixed := changed - LIVE_DAEMON_KEYS:
        raise ValueError(f"daemon: a change of {', '.join(sorted(fixed))} needs a restart of the daemon")
    server.tune(new.daemon)
    step.undo.append(lambda: server.tune(old.daemon))


def _rules(step: Step, old: schema.Config, new: schema.Config) -> None:
    step.server.assembly.set_rules(new.rule)
    step.undo.append(lambda: step.server.assembly.set_rules(old.rule))


def _mirror(step: Step, old: schema.Config, new: schema.Config) -> None:
    server = step.server
    if new.mirror == old.mirror:
        return
    server.set_mirror(new.mirror)
    step.undo.append(lambda: server.set_mirror(old.mirror))


def _queues(step: Step, old: schema.Config, new: schema.Config) -> None:
    server = step.server
    server.queues.configure(new.queue)
    step.undo.append(lambda: server.queues.configure(old.queue))
    server.captures.configure(new.log)
    step.undo.append(lambda: server.captures.configure(old.log))


# -- sysctl and limits


def _settings(step: Step, old: schema.Config, new: schema.Config) -> None:
    server = step.server
    wanted = {
        "nf_conntrack_max": -(-new.limits.conntrack_max // new.daemon.workers),
        "nf_conntrack_expect_max": new.limits.expect_max,
        "net.ipv4.neigh.default.gc_thresh3": new.limits.neighbours,
        "net.ipv4.ipfrag_high_thresh": new.limits.fragment_memory,
        "net.ipv4.ipfrag_low_thresh": new.limits.fragment_memory * 3 // 4,
        **new.sysctl,
    }
    for name in old.sysctl:
        if name not in wanted:
            wanted[name] = server.default_sysctls[name]
    for name, value in wanted.items():
        if name not in server.default_sysctls:
            server.default_sysctls[name] = server.get_sysctl(name)
        before = server.get_sysctl(name)
        if before == value:
            continue
        server.put_sysctl(name, value)
        step.undo.append(lambda n=name, v=before: server.put_sysctl(n, v))  # type: ignore[misc]


# -- ports


def _nics(step: Step, old: schema.Config, new: schema.Config) -> None:
    server = step.server
    if server.running and (new.nic != old.nic or (new.offload.xdp, new.offload.tc) != (old.offload.xdp, old.offload.tc)):
        raise ValueError("nic, offload.xdp and offload.tc: a change needs a restart of the daemon")
    if not server.running:
        server.make_nics(new.nic)


def _ports(step: Step, old: schema.Config, new: schema.Config) -> None:
    server = step.server
    before = {port.name: port for port in old.port}
    after = {port.name: port for port in new.port}
    for name, config in after.items():
        if name in before:
            changed = _changed(before[name], config) - LIVE_KEYS
            if changed:
                keys = ", ".join(sorted(changed))
                raise ValueError(f"port {name}: a change of {keys} needs a restart of the daemon")
    for name in before.keys() - after.keys():
        _close(step, server.ports[name])
    for name, config in after.items():
        if name in before:
            _change(step, server.ports[name], before[name], config)
        else:
            _open(step, config)


def _changed(a: schema.Port, b: schema.Port) -> set[str]:
    return {f.name for f in dataclasses.fields(a) if getattr(a, f.name) != getattr(b, f.name)}


def _open(step: Step, config: schema.Port) -> None:
    server = step.server
    opened = portset.open_port(config, server.next_index(), server.stored, server.part)
    try:
        server.plug(opened)
        server.attach(opened)
    except BaseException:
        opened.close()
        raise
    step.undo.append(lambda: server.detach(opened, close=True))
    opened.device.group = config.group
    for address in config.addresses:
        _add_address(step, opened.device, address)
    for vlan in config.vlan:
        _add_vlan(step, opened.device, vlan)
    if config.ra is not None:
        server.set_advertisement(opened.device, config.ra)


def _close(step: Step, opened: OpenPort) -> None:
    """Take the device out now, close the descriptors only when nothing can fail any more."""
    server = step.server
    up = opened.device.up
    server.detach(opened, close=False)

    def again() -> None:
        opened.device.up = up
        server.attach(opened)
        for address in opened.config.addresses:
            server.gateway.add_address(opened.device, parse_address(str(address)))
        for vlan in opened.config.vlan:
            _add_vlan(Step(server), opened.device, vlan)

    step.undo.append(again)
    step.finish.append(lambda: server.release(opened))


def _change(step: Step, opened: OpenPort, old: schema.Port, new: schema.Port) -> None:
    server, device = step.server, opened.device
    gateway = server.gateway
    if new.mtu is not None and new.mtu != old.mtu:
        before = device.mtu
        server.set_mtu(opened, new.mtu)
        step.undo.append(lambda: server.set_mtu(opened, before))
    if new.mac is not None and new.mac != device.mac:
        mac = device.mac
        gateway.set_mac(device, new.mac)
        step.undo.append(lambda: gateway.set_mac(device, mac))
    if new.group != old.group:
        device.group = new.group
        step.undo.append(lambda: setattr(device, "group", old.group))
    for address in old.addresses:
        if address not in new.addresses:
            _remove_address(step, device, address)
    for address in new.addresses:
        if address not in old.addresses:
            _add_address(step, device, address)
    vlans_before = {vlan.name: vlan for vlan in old.vlan}
    vlans_after = {vlan.name: vlan for vlan in new.vlan}
    for name, vlan in vlans_before.items():
        if vlans_after.get(name) != vlan:
            _remove_vlan(step, device, vlan)
    for name, vlan in vlans_after.items():
        if vlans_before.get(name) != vlan:
            _add_vlan(step, device, vlan)
    if new.ra != old.ra:
        server.set_advertisement(device, new.ra)
        step.undo.append(lambda: server.set_advertisement(device, old.ra))
    opened.config = new
    step.undo.append(lambda: setattr(opened, "config", old))


def _add_address(step: Step, device: Device, address: schema.Interface) -> None:
    gateway = step.server.gateway
    item = parse_address(str(address))
    gateway.add_address(device, item)
    step.undo.append(lambda: gateway.remove_address(device, item))


def _remove_address(step: Step, device: Device, address: schema.Interface) -> None:
    gateway = step.server.gateway
    wanted = parse_address(str(address))
    for item in list(device.addresses):
        if (item.family, item.hi, item.lo, item.prefixlen) == (wanted.family, wanted.hi, wanted.lo, wanted.prefixlen):
            gateway.remove_address(device, item)
            step.undo.append(lambda: gateway.add_address(device, wanted))


def _add_vlan(step: Step, parent: Device, vlan: schema.Vlan) -> None:
    server = step.server
    protocol = 0x8100 if vlan.protocol == "802.1Q" else 0x88A8
    device = server.gateway.add_vlan(parent, vlan.id, vlan.name, server.next_index(), protocol)
    step.undo.append(lambda: server.gateway.remove_device(device))
    device.group = vlan.group
    if vlan.mtu:
        server.gateway.set_mtu(device, vlan.mtu)
    for address in vlan.addresses:
        _add_address(step, device, address)


def _remove_vlan(step: Step, parent: Device, vlan: schema.Vlan) -> None:
    gateway = step.server.gateway
    gateway.remove_device(gateway.names[vlan.name])
    step.undo.append(lambda: _add_vlan(Step(step.server), parent, vlan))


# -- bridges: one that changed, or whose port is another now, is made anew


def _remove_bridges(step: Step, old: schema.Config, new: schema.Config) -> None:
    server = step.server
    ports = {port.name: port for port in new.port}
    before = {port.name: port for port in old.port}
    for bridge in old.bridge:
        same = bridge in new.bridge and all(before.get(name) == ports.get(name) for name in bridge.ports)
        if not same:
            server.assembly.remove_bridge(bridge)
            step.undo.append(lambda b=bridge: server.assembly.add_bridge(b, server.next_index()))  # type: ignore[misc]


def _add_bridges(step: Step, old: schema.Config, new: schema.Config) -> None:
    server = step.server
    for bridge in new.bridge:
        if bridge.name not in server.gateway.names:
            server.assembly.add_bridge(bridge, server.next_index())
            step.undo.append(lambda b=bridge: server.assembly.remove_bridge(b))  # type: ignore[misc]


# -- routes


def route_key(route: schema.Route) -> tuple[Any, ...]:
    """What makes two configured routes the same."""
    return dataclasses.astuple(route)


def _remove_routes(step: Step, old: schema.Config, new: schema.Config) -> None:
    keep = {route_key(route) for route in new.route}
    for route in old.route:
        if route_key(route) not in keep:
            step.server.remove_route(route)
            step.undo.append(lambda r=route: step.server.add_route(r))  # type: ignore[misc]


def _add_routes(step: Step, old: schema.Config, new: schema.Config) -> None:
    """Routes whose device came back anew are added again too: they went with the device."""
    for i, route in enumerate(new.route):
        if step.server.has_route(route):
            continue
        try:
            step.server.add_route(route)
        except ValueError as error:
            raise ValueError(f"route[{i}]: {error}") from None
        step.undo.append(lambda r=route: step.server.remove_route(r))  # type: ignore[misc]


def _restore_routes(server: Server, old: schema.Config) -> None:
    """Routes that went with a device which is back."""
    for route in old.route:
        if not server.has_route(route):
            try:
                server.add_route(route)
            except ValueError:
                log.exception("putting back route to %s", route.to)


# -- ruleset


def _fingerprints(step: Step, old: schema.Config, new: schema.Config) -> None:
    """Read the systems that `osf` knows: at the start, and when another file is named."""
    gateway, path = step.server.gateway, new.daemon.osf_fingerprints
    before = gateway.fingerprints
    if before is None or path != old.daemon.osf_fingerprints:
        gateway.fingerprints = load_fingerprints(path)
        step.undo.append(lambda: setattr(gateway, "fingerprints", before))


def _ruleset(step: Step, new: schema.Config) -> None:
    """Load the file if it is another one, or its content changed since it was loaded."""
    server = step.server
    path = new.daemon.ruleset
    if path is None:
        return
    try:
        text = Path(path).read_text()
    except OSError as error:
        raise ValueError(f"daemon.ruleset: {path}: {error.strerror}") from None
    if (path, text) == server.loaded_ruleset:
        return
    server.assembly.load_ruleset(path, text)
    server.loaded_ruleset = (path, text)
