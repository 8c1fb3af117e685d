"""Reading the configuration: the whole file is checked before anything starts, and every mistake is reported at once.

Laws: `load` touches nothing but the file; an error names the file, the key, the reason, and for a key that does not exist the
nearest one that does. Relative paths are relative to the file.
"""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
from collections.abc import Collection
from pathlib import Path
from typing import Any, cast

from userfw.daemon import schema
from userfw.daemon.schema import INTERFACE_TYPES, Config, Ethtool
from userfw.ports.ethtool import TABLES


class ConfigError(Exception):
    """What is wrong with a configuration: one sentence for each mistake."""

    def __init__(self, path: str, problems: list[str]) -> None:
        self.path = path
        self.problems = problems
        super().__init__("\n".join(f"{path}: {problem}" for problem in problems))


def load(path: str | Path, sysctls: Collection[str] = ()) -> Config:
    """The configuration in file `path`; `sysctls` are the names `[sysctl]` may hold (none given: any). ConfigError."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(str(path), [error.strerror or str(error)]) from None
    return parse(data.decode(errors="replace"), str(path), sysctls)


def parse(text: str, path: str = "userfw.toml", sysctls: Collection[str] = ()) -> Config:
    """As `load`, from the file's text."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(path, [str(error)]) from None
    problems: list[str] = []
    config = cast(Config, _table(raw, Config, "", problems))
    if not problems:
        config.path = path
        _check(config, problems, sysctls)
    if problems:
        raise ConfigError(path, problems)
    return config


def _table(raw: Any, kind: type, where: str, problems: list[str]) -> Any:
    """An instance of dataclass `kind` from a TOML table; what is wrong goes into `problems`."""
    if not isinstance(raw, dict):
        problems.append(f"{where}: a table is expected")
        return None
    fields = {f.name: f for f in dataclasses.fields(kind) if not f.metadata.get("internal")}
    values: dict[str, Any] = {}
    for name, value in raw.items():
        path = f"{where}.{name}" if where else name
        if name not in fields:
            problems.append(f"{path}: no such key{nearest(name, fields)}")
            continue
        values[name] = _value(value, fields[name], path, problems)
    for name, f in fields.items():
        if f.metadata.get("required") and name not in raw:
            problems.append(f"{where}: key {name!r} is missing")
            values[name] = None
    return kind(**values)


def _value(value: Any, field: Any, path: str, problems: list[str]) -> Any:
    """One key's value: a table, a list of tables, a table of names, or what its reader makes of it."""
    meta = field.metadata
    if "table" in meta:
        return _table(value, meta["table"], path, problems)
    if "tables" in meta:
        if not isinstance(value, list):
            problems.append(f"{path}: write [[{path}]] for each one")
            return []
        label = f"{path}[{{}}]"
        return [_table(item, meta["tables"], _label(label.format(i), item), problems) for i, item in enumerate(value)]
    if "keyed" in meta:
        if not isinstance(value, dict):
            problems.append(f"{path}: a table is expected")
            return {}
        return {name: _table(item, meta["keyed"], f"{path}.{name}", problems) for name, item in value.items()}
    if "names" in meta:
        if not isinstance(value, dict):
            problems.append(f"{path}: a table is expected")
            return {}
        return {name: _read(meta["names"], item, f"{path}.{name}", problems) for name, item in _flat(value).items()}
    return _read(meta["reader"], value, path, problems)


def _label(path: str, item: Any) -> str:
    name = item.get("name") if isinstance(item, dict) else None
    return f"{path} ({name})" if isinstance(name, str) else path


def _flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted names, as TOML nests them, made flat again."""
    flat: dict[str, Any] = {}
    for name, item in value.items():
        if isinstance(item, dict):
            flat.update(_flat(item, f"{prefix}{name}."))
        else:
            flat[prefix + name] = item
    return flat


def _read(reader: schema.Reader, value: Any, path: str, problems: list[str]) -> Any:
    try:
        return reader(value)
    except ValueError as error:
        problems.append(f"{path}: {error}")
        return None


def nearest(name: str, known: Collection[str]) -> str:
    """`; did you mean 'x'?`, or the list of what there is if nothing is near."""
    close = difflib.get_close_matches(name, list(known), 1, 0.6)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known are {', '.join(sorted(known))}" if len(known) <= 24 else ""


# -- what single values cannot tell


def _check(config: Config, problems: list[str], sysctls: Collection[str]) -> None:
    seen: dict[str, str] = {}
    for i, port in enumerate(config.port):
        where = f"port[{i}] ({port.name})"
        for name, place in [(port.name, where)] + [(v.name, f"{where}.vlan") for v in port.vlan]:
            if name in seen:
                problems.append(f"{place}: the name {name!r} is already used by {seen[name]}")
            seen.setdefault(name, place)
        _check_port(port, where, problems)
    _check_bridges(config, seen, problems)
    held: dict[tuple[str, str], str] = {}
    for i, port in enumerate(config.port):
        if port.device and port.type in ("tap", "tun", *INTERFACE_TYPES):
            other = held.setdefault((port.netns, port.device), port.name)
            if other != port.name:
                problems.append(f"port[{i}] ({port.name}): device {port.device!r} is already used by port {other!r}")
    if config.daemon.workers > 1:
        _check_workers(config, problems)
    for i, route in enumerate(config.route):
        _check_route(route, f"route[{i}]", seen, problems)
    plugged: dict[str, str] = {}
    names = [port.name for port in config.port if port.type in ("tap", "packet")]
    for i, nic in enumerate(config.nic):
        for name in nic.ports:
            if name not in names:
                problems.append(f"nic[{i}] ({nic.name}): no port {name!r} of type tap or packet{nearest(name, names)}")
            if plugged.setdefault(name, nic.name) != nic.name:
                problems.append(f"nic[{i}] ({nic.name}): port {name!r} is already one of {plugged[name]!r}")
    for name in [*config.offload.xdp, *config.offload.tc]:
        if name not in seen:
            problems.append(f"offload: no port {name!r}{nearest(name, seen)}")
        if name in config.offload.xdp and name in config.offload.tc:
            problems.append(f"offload: port {name!r} is given to both xdp and tc")
    for i, rule in enumerate(config.rule):
        if rule.iif and rule.iif not in seen:
            problems.append(f"rule[{i}].iif: no port {rule.iif!r}{nearest(rule.iif, seen)}")
        versions = {net.version for net in (rule.src, rule.dst) if net is not None}
        if len(versions) > 1 or (versions and rule.family == ("ipv6" if 4 in versions else "ipv4")):
            problems.append(f"rule[{i}]: IPv4 and IPv6 are mixed")
    if config.mirror:
        for name in config.mirror.devices.values():
            if name not in seen:
                problems.append(f"mirror.devices: no port {name!r}{nearest(name, seen)}")
    for name in config.sysctl:
        if sysctls and name not in sysctls:
            problems.append(f"sysctl.{name}: no such setting{nearest(name, sysctls)}")
    for name in ("ruleset", "state_dir", "pidfile"):
        value = getattr(config.daemon, name)
        if value and not Path(value).is_absolute():
            setattr(config.daemon, name, str(Path(config.path).parent / value))
    if config.daemon.queue_socket is None:
        config.daemon.queue_socket = str(Path(config.daemon.control).with_suffix(".queue"))
    for name in ("control", "queue_socket"):
        if not Path(getattr(config.daemon, name)).is_absolute():
            setattr(config.daemon, name, str(Path(config.path).parent / getattr(config.daemon, name)))
    _check_queues(config, problems)


def _check_bridges(config: Config, seen: dict[str, str], problems: list[str]) -> None:
    kinds = {port.name: port.type for port in config.port}
    taken: dict[str, str] = {}
    for i, bridge in enumerate(config.bridge):
        where = f"bridge[{i}] ({bridge.name})"
        if bridge.name in seen:
            problems.append(f"{where}: the name {bridge.name!r} is already used by {seen[bridge.name]}")
        seen.setdefault(bridge.name, where)
        for name in bridge.ports:
            if name not in seen or kinds.get(name) == "tun" or name == bridge.name:
                problems.append(f"{where}.ports: no port {name!r} with a link layer{nearest(name, kinds)}")
            elif name in taken:
                problems.append(f"{where}.ports: {name!r} is a port of {taken[name]!r} already")
            taken[name] = bridge.name
        for key in ("hairpin", "isolated", "no_learning", "no_flood"):
            problems += [f"{where}.{key}: {name!r} is no port of it" for name in getattr(bridge, key) if name not in bridge.ports]
        named = [vlan.port for vlan in bridge.vlan if vlan.port is not None] + [entry.port for entry in bridge.fdb]
        problems += [f"{where}: {name!r} is no port of it" for name in named if name not in bridge.ports]
        if bridge.vlan and not bridge.vlan_filtering:
            problems.append(f"{where}: 'vlan' has a meaning with vlan_filtering = true only")
        for vlan in bridge.vlan:
            if vlan.pvid and vlan.pvid not in {*vlan.tagged, *vlan.untagged, 1}:
                problems.append(f"{where}.vlan: pvid {vlan.pvid} is neither tagged nor untagged")


def _check_queues(config: Config, problems: list[str]) -> None:
    for kind, names in (("queue", config.queue), ("log", config.log)):
        for name in names:
            if not name.isdecimal() or int(name) > 65535 or name != str(int(name)):
                problems.append(f"{kind}.{name}: {kind}s are numbered 0 to 65535")
    for group in config.log.values():
        if group.file and not Path(group.file).is_absolute():
            group.file = str(Path(config.path).parent / group.file)
    for name, queue in config.queue.items():
        if queue.python and queue.program:
            problems.append(f"queue.{name}: either 'python' or 'program'")


def _check_workers(config: Config, problems: list[str]) -> None:
    """What several workers cannot share (docs/workers.md)."""
    for i, port in enumerate(config.port):
        where = f"port[{i}] ({port.name})"
        if port.type not in ("tap", "tun", "packet") or port.capture != "socket":
            what = f"capture {port.capture!r}" if port.type == "packet" else f"type {port.type!r}"
            problems.append(f"{where}: {what} needs daemon.workers = 1; tap, tun and packet ports can be shared")
        if port.queues > 1:
            problems.append(f"{where}: 'queues' is as many as daemon.workers")
    if config.bridge:
        problems.append("bridge: needs daemon.workers = 1: each worker would learn addresses of its own")
    if config.queue or config.daemon.queue_socket:
        problems.append("queue: a queue's program talks to one process; it needs daemon.workers = 1")
    if config.bridge:
        problems.append("bridge: each process would learn its own addresses; it needs daemon.workers = 1")
    if config.log:
        problems.append("log: files of nflog groups need daemon.workers = 1; `userfw log` shows every worker's")


ONLY = {
    "queues": ("tap", "tun"),
    "persist": ("tap", "tun"),
    "sndbuf": ("tap", "tun"),
    "gro": ("tap", *INTERFACE_TYPES),
    "device_mac": ("tap",),
    "device_addresses": ("tap", "tun"),
    "device_routes": ("tap", "tun"),
    "transparent": ("tun",),
    "promiscuous": INTERFACE_TYPES,
    "isolate": INTERFACE_TYPES,
    "capture": ("packet",),
    "ethtool": INTERFACE_TYPES,
    "xdp_mode": ("xdp",),
    "read": ("pcap",),
    "write": ("pcap",),
    "netns": ("tap", "tun", *INTERFACE_TYPES),
    "device": ("tap", "tun", *INTERFACE_TYPES),
}


def _check_ethtool(settings: Ethtool, where: str, problems: list[str]) -> None:
    """Names that do not exist, and rules that cannot be."""
    for what in ("channels", "rings"):
        known = [name for name in TABLES[what][0] if not name.endswith("-max")]
        for name in getattr(settings, what):
            if name not in known:
                problems.append(f"{where}.{what}: no {name!r}{nearest(name, known)}")
    for i, rule in enumerate(settings.ntuple):
        try:
            rule.steer()
        except ValueError as error:
            problems.append(f"{where}.ntuple[{i}]: {error}")
        if (rule.queue is None) != rule.drop:
            problems.append(f"{where}.ntuple[{i}]: either 'queue' or 'drop = true'")


def _check_port(port: schema.Port, where: str, problems: list[str]) -> None:
    for f in dataclasses.fields(port):
        default = f.default if f.default is not dataclasses.MISSING else None
        if f.name in ONLY and port.type not in ONLY[f.name] and getattr(port, f.name) != default:
            problems.append(f"{where}: {f.name!r} has no meaning for a port of type {port.type!r}")
    if port.type in ("tap", "tun", *INTERFACE_TYPES) and not port.device:
        problems.append(f"{where}: key 'device' is missing")
    if port.type == "pcap" and not (port.read or port.write):
        problems.append(f"{where}: a pcap port needs 'read' or 'write'")
    if port.type == "tun" and (port.mac or port.vlan):
        problems.append(f"{where}: a tun port has no link layer, so neither 'mac' nor 'vlan'")
    if port.type == "xdp" and port.vlan:
        problems.append(f"{where}: 'vlan' needs type \"packet\": XDP does not see the tags that drivers keep beside a frame")
    if port.ethtool is not None:
        _check_ethtool(port.ethtool, f"{where}.ethtool", problems)
    if port.mtu is not None and port.mtu < 1280 and any(a.version == 6 for a in port.addresses):
        problems.append(f"{where}: IPv6 needs an MTU of 1280 at least (RFC 8200 5)")


def _check_route(route: schema.Route, where: str, ports: Collection[str], problems: list[str]) -> None:
    if route.dev and route.dev not in ports and route.dev != "lo":
        problems.append(f"{where}: no port {route.dev!r}{nearest(route.dev, ports)}")
    if route.type == "local" and (route.via or route.dev not in (None, "lo")):
        problems.append(f"{where}: a local route has no 'via', and 'dev' is lo if anything")
    elif route.type == "unicast" and not (route.via or route.dev):
        problems.append(f"{where}: 'via' or 'dev' is missing")
    if route.type not in ("unicast", "local") and (route.via or route.dev):
        problems.append(f"{where}: a {route.type} route has neither 'via' nor 'dev'")
    if route.to is None and not (route.via or route.src):
        problems.append(f"{where}: 'default' without 'via' does not tell the family; write 0.0.0.0/0 or ::/0")
    versions = {a.version for a in (route.to, route.via, route.src) if a is not None}
    if len(versions) > 1:
        problems.append(f"{where}: IPv4 and IPv6 are mixed")
