# ruff: noqa: RUF009  (the field makers are this file's way of saying what a key holds)
"""The configuration's shape: what each key may hold, as plain dataclasses, and the readers of single values.

Laws: a reader returns the value as the program wants it or raises ValueError with a reason a user understands; defaults stand
here and nowhere else. `docs/configuration.md` tells each key (a test compares).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from userfw.ports.ethtool import FLOWS, Steer

Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Reader = Callable[[Any], Any]

CAPTURES = ("socket", "tc", "clsact")
NIC_PROFILES = ("full", "no-ipv6-nat", "tiny", "slow")
NIC_FAILURES = ("unsupported", "full", "gone", "fault")
PORT_TYPES = ("tap", "tun", "packet", "xdp", "pcap", "memory")
INTERFACE_TYPES = ("packet", "xdp")  # on an interface that exists
GRO_MODES = ("off", "tcp", "all")
XDP_MODES = ("auto", "native", "generic")
ROUTE_TYPES = ("unicast", "local", "blackhole", "unreachable", "prohibit")
LOG_LEVELS = {"debug": 10, "info": 20, "notice": 20, "warning": 30, "error": 40}  # by the numbers of logging


def text(value: Any) -> str:
    """A string that is not empty."""
    if not isinstance(value, str):
        raise ValueError(f"a string is expected, not {_kind(value)}")
    if not value:
        raise ValueError("the string is empty")
    return value


def flag(value: Any) -> bool:
    """true or false."""
    if not isinstance(value, bool):
        raise ValueError(f"true or false is expected, not {_kind(value)}")
    return value


def number(low: int, high: int) -> Reader:
    """A whole number from `low` to `high`."""

    def read(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"a whole number is expected, not {_kind(value)}")
        if not low <= value <= high:
            raise ValueError(f"{value} is outside {low} to {high}")
        return value

    return read


def seconds(value: Any) -> float:
    """A time in seconds, 0 or more."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"a number of seconds is expected, not {_kind(value)}")
    if not 0 <= value <= 10**9:
        raise ValueError(f"{value} is not a time in seconds")
    return float(value)


def choice(names: tuple[str, ...]) -> Reader:
    """One of some words."""

    def read(value: Any) -> str:
        if value not in names:
            raise ValueError(f"{value!r} is none of {', '.join(names)}")
        return str(value)

    return read


def interface_name(value: Any) -> str:
    """An interface name as Linux allows it (dev_valid_name)."""
    name = text(value)
    if len(name.encode()) > 15 or name in (".", "..") or re.search(r"[/:\s]", name):
        raise ValueError(f"{name!r} cannot be an interface's name (at most 15 bytes, no '/', ':' or spaces)")
    return name


def mac_address(value: Any) -> bytes:
    """A unicast Ethernet address."""
    word = text(value)
    if not re.fullmatch(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}", word):
        raise ValueError(f"{word!r} is no Ethernet address (aa:bb:cc:dd:ee:ff)")
    octets = bytes.fromhex(word.replace(":", ""))
    if octets[0] & 1 or not any(octets):
        raise ValueError(f"{word!r} is a group address or zero; an interface needs a unicast address")
    return octets


def interface_address(value: Any) -> Interface:
    """An address with its prefix length."""
    word = text(value)
    if "/" not in word:
        raise ValueError(f"{word!r} has no prefix length (192.168.1.1/24, fd00::1/64)")
    return _parsed(ipaddress.ip_interface, word)  # type: ignore[no-any-return]


def plain_address(value: Any) -> Address:
    """An address."""
    return _parsed(ipaddress.ip_address, text(value))  # type: ignore[no-any-return]


def network(value: Any) -> Network | None:
    """A network; None is `default`, whose family the next hop tells."""
    word = text(value)
    if word == "default":
        return None
    return _parsed(ipaddress.ip_network, word)  # type: ignore[no-any-return]


def mark_and_mask(value: Any) -> tuple[int, int]:
    """`0x1`, `0x10/0xf0`, or a number."""
    if isinstance(value, int) and not isinstance(value, bool):
        mark, mask = value, 0xFFFFFFFF
    else:
        first, _, second = text(value).partition("/")
        try:
            mark, mask = int(first, 0), int(second, 0) if second else 0xFFFFFFFF
        except ValueError:
            raise ValueError(f"{value!r} is no mark (0x1, or 0x10/0xf0)") from None
    if not (0 <= mark <= 0xFFFFFFFF and 0 < mask <= 0xFFFFFFFF):
        raise ValueError(f"{value!r}: mark and mask have 32 bits, and the mask is not zero")
    return mark, mask


def permissions(value: Any) -> int:
    """File permissions as a string of octal digits."""
    word = text(value)
    if not re.fullmatch(r"0?[0-7]{3}", word):
        raise ValueError(f"{word!r} are no permissions (as in \"0660\")")
    return int(word, 8)


def listing(reader: Reader) -> Reader:
    """A list whose members `reader` reads."""

    def read(value: Any) -> list[Any]:
        if not isinstance(value, list):
            raise ValueError(f"a list is expected, not {_kind(value)}")
        return [reader(item) for item in value]

    return read


def _parsed(parse: Callable[[str], Any], word: str) -> Any:
    try:
        return parse(word)
    except ValueError as error:
        raise ValueError(str(error)) from None


def _kind(value: Any) -> str:
    names = {bool: "true or false", int: "a number", float: "a number", str: "a string", list: "a list", dict: "a table"}
    return names.get(type(value), type(value).__name__)


def key(reader: Reader, default: Any = None, *, required: bool = False) -> Any:
    """A dataclass field with its reader."""
    return field(default=default, metadata={"reader": reader, "required": required})


def keys(reader: Reader) -> Any:
    """A dataclass field that is a list, empty by default."""
    return field(default_factory=list, metadata={"reader": listing(reader)})


def maybe_keys(reader: Reader) -> Any:
    """A dataclass field that is a list, or None if it is not given."""
    return field(default=None, metadata={"reader": listing(reader)})


def tables(kind: type) -> Any:
    """A dataclass field that is a list of tables of `kind`."""
    return field(default_factory=list, metadata={"tables": kind})


def one_table(kind: type) -> Any:
    """A dataclass field that is one table of `kind`."""
    return field(default_factory=kind, metadata={"table": kind})


@dataclass
class Daemon:
    """`[daemon]`"""

    control: str = key(text, "/run/userfw/control.sock")
    control_group: str | None = key(text)
    control_mode: int = key(permissions, 0o660)
    queue_socket: str | None = key(text)
    state_dir: str | None = key(text)
    ruleset: str | None = key(text)
    pidfile: str | None = key(text)
    restore_ruleset: bool = key(flag, False)
    restore_connections: bool = key(flag, True)
    save_interval: float = key(seconds, 60.0)
    log_level: str = key(choice(tuple(LOG_LEVELS)), "info")
    batch: int = key(number(1, 64), 64)
    busy_poll_us: int = key(number(0, 10000), 50)
    workers: int = key(number(1, 16), 1)
    osf_fingerprints: str | None = key(text)


@dataclass
class Vlan:
    """`[[port.vlan]]`: a device for the frames of one tag."""

    name: str = key(interface_name, required=True)
    id: int = key(number(1, 4094), required=True)
    protocol: str = key(choice(("802.1Q", "802.1ad")), "802.1Q")
    mtu: int | None = key(number(68, 65535))
    group: int = key(number(0, 2**32 - 1), 0)
    addresses: list[Interface] = keys(interface_address)


@dataclass
class Advertisement:
    """`[port.ra]`: router advertisements on this port (RFC 4861 6.2.1)."""

    enabled: bool = key(flag, True)
    min_interval: float = key(seconds, 200.0)
    max_interval: float = key(seconds, 600.0)
    lifetime: float = key(seconds, 1800.0)
    managed: bool = key(flag, False)
    other: bool = key(flag, False)
    prefixes: list[Network] = keys(network)


@dataclass
class Ntuple:
    """`[[port.ethtool.ntuple]]`: frames of these ends to one receive queue of the card, or nowhere (`drop`)."""

    flow: str = key(choice(tuple(FLOWS)), required=True)
    src: Address | None = key(plain_address)
    dst: Address | None = key(plain_address)
    sport: int | None = key(number(0, 65535))
    dport: int | None = key(number(0, 65535))
    queue: int | None = key(number(0, 65535))
    drop: bool = key(flag, False)
    location: int | None = key(number(0, 65535))

    def steer(self) -> Steer:
        """As the port's side knows it. ValueError: an address of the wrong family."""
        return Steer(self.flow, self.queue, self.src, self.dst, self.sport, self.dport, self.location)


@dataclass
class Ethtool:
    """`[port.ethtool]`: the interface's settings while the port is open. Names as the kernel has them (`userfw ports --json`)."""

    features: dict[str, bool] = field(default_factory=dict, metadata={"names": flag})
    channels: dict[str, int] = field(default_factory=dict, metadata={"names": number(0, 65535)})
    rings: dict[str, int] = field(default_factory=dict, metadata={"names": number(0, 2**20)})
    autoneg: bool | None = key(flag)
    speed: int | None = key(number(1, 10**6))
    duplex: str | None = key(choice(("half", "full")))
    ntuple: list[Ntuple] = tables(Ntuple)


@dataclass
class Port:
    """`[[port]]`"""

    name: str = key(interface_name, required=True)
    type: str = key(choice(PORT_TYPES), required=True)
    netns: str = key(text, "")
    device: str | None = key(interface_name)
    mac: bytes | None = key(mac_address)
    mtu: int | None = key(number(68, 65535))
    group: int = key(number(0, 2**32 - 1), 0)
    addresses: list[Interface] = keys(interface_address)
    persist: bool = key(flag, False)
    queues: int = key(number(1, 64), 1)
    offloads: bool = key(flag, True)
    gro: str = key(choice(GRO_MODES), "tcp")
    sndbuf: int = key(number(0, 2**31 - 1), 0)
    isolate: bool = key(flag, True)
    promiscuous: bool = key(flag, False)
    capture: str = key(choice(CAPTURES), "socket")
    xdp_mode: str = key(choice(XDP_MODES), "auto")
    device_mac: bytes | None = key(mac_address)
    device_addresses: list[Interface] | None = maybe_keys(interface_address)
    device_routes: list[Network | None] | None = maybe_keys(network)
    transparent: bool = key(flag, False)
    read: str | None = key(text)
    write: str | None = key(text)
    vlan: list[Vlan] = tables(Vlan)
    ra: Advertisement | None = field(default=None, metadata={"table": Advertisement})
    ethtool: Ethtool | None = field(default=None, metadata={"table": Ethtool})


@dataclass
class BridgeVlan:
    """`[[bridge.vlan]]`: the VLANs of a port, or (without `port`) of the bridge itself."""

    port: str | None = key(interface_name)
    pvid: int = key(number(0, 4094), 1)
    tagged: list[int] = keys(number(1, 4094))
    untagged: list[int] = keys(number(1, 4094))


@dataclass
class BridgeFdb:
    """`[[bridge.fdb]]`: where an address is, for good."""

    mac: bytes | None = key(mac_address, required=True)
    port: str = key(interface_name, required=True)
    vlan: int = key(number(0, 4094), 0)


@dataclass
class Bridge:
    """`[[bridge]]`"""

    name: str = key(interface_name, required=True)
    ports: list[str] = keys(interface_name)
    mac: bytes | None = key(mac_address)
    mtu: int | None = key(number(68, 65535))
    group: int = key(number(0, 2**32 - 1), 0)
    addresses: list[Interface] = keys(interface_address)
    ageing: float = key(seconds, 300.0)
    fdb_max: int = key(number(1, 2**24), 16384)
    group_fwd_mask: int = key(number(0, 0xFFFF), 0)
    vlan_filtering: bool = key(flag, False)
    vlan_protocol: str = key(choice(("802.1Q", "802.1ad")), "802.1Q")
    hairpin: list[str] = keys(interface_name)
    isolated: list[str] = keys(interface_name)
    no_learning: list[str] = keys(interface_name)
    no_flood: list[str] = keys(interface_name)
    vlan: list[BridgeVlan] = tables(BridgeVlan)
    fdb: list[BridgeFdb] = tables(BridgeFdb)


@dataclass
class Route:
    """`[[route]]`"""

    to: Network | None = key(network, required=True)
    via: Address | None = key(plain_address)
    dev: str | None = key(interface_name)
    type: str = key(choice(ROUTE_TYPES), "unicast")
    metric: int = key(number(0, 2**32 - 1), 0)
    table: int = key(number(1, 2**32 - 1), 254)
    src: Address | None = key(plain_address)
    mtu: int = key(number(0, 65535), 0)


@dataclass
class Rule:
    """`[[rule]]`: a policy routing rule. `fwmark`: mark, or mark and mask."""

    priority: int = key(number(1, 32765), required=True)
    table: int = key(number(1, 2**32 - 1), required=True)
    family: str = key(choice(("any", "ipv4", "ipv6")), "any")
    fwmark: tuple[int, int] | None = key(mark_and_mask)
    iif: str | None = key(interface_name)
    src: Network | None = key(network)
    dst: Network | None = key(network)


@dataclass
class Mirror:
    """`[mirror]`: routes taken from a kernel's table."""

    netns: str = key(text, "")
    table: int = key(number(1, 2**32 - 1), 254)
    devices: dict[str, str] = field(default_factory=dict, metadata={"names": interface_name})


@dataclass
class Limits:
    """`[limits]`"""

    conntrack_max: int = key(number(1, 2**28), 262144)
    expect_max: int = key(number(1, 2**24), 4096)
    neighbours: int = key(number(16, 2**24), 1024)
    fragment_memory: int = key(number(65536, 2**32), 4 << 20)


@dataclass
class Offload:
    """`[offload]`, for flowtables with `flags offload`. `threshold`: packets before a flow is offered; `rate`: flows a second.
    `xdp`, `tc`: ports whose program is attached there; the others as the driver chooses. `local_delivery`: `flow add` may also
    stand in input and output chains, for connections of the gateway's own services."""

    threshold: int = key(number(0, 2**31 - 1), 16)
    rate: int = key(number(1, 10**6), 1000)
    xdp: list[str] = keys(interface_name)
    tc: list[str] = keys(interface_name)
    flower: list[str] = keys(interface_name)
    local_delivery: bool = key(flag, False)


@dataclass
class QueueListener:
    """`[queue.N]`: who listens on queue N, and what its queue is like."""

    python: str | None = key(text)
    program: list[str] = keys(text)
    length: int = key(number(1, 65536), 1024)
    fail_open: bool = key(flag, False)
    copy_range: int = key(number(1, 65535), 65535)
    gso: bool = key(flag, False)


@dataclass
class LogGroup:
    """`[log.N]`: nflog group N into a file."""

    file: str = key(text, required=True)
    threshold: int = key(number(1, 100000), 1)
    snaplen: int = key(number(1, 65535), 65535)
    max_size: int = key(number(4096, 2**40), 1 << 30)


@dataclass
class Nic:
    """`[[nic]]`: a switch chip in software between `ports` and the host, to try hardware offload without hardware.

    Times in seconds; what is not given is the profile's. `fail`: how the first installations fail.
    """

    name: str = key(interface_name, required=True)
    ports: list[str] = keys(interface_name)
    profile: str = key(choice(NIC_PROFILES), "full")
    capacity: int | None = key(number(1, 2**20))
    latency: float | None = key(seconds)
    counter_delay: float | None = key(seconds)
    idle: float | None = key(seconds)
    fail: list[str] = keys(choice(NIC_FAILURES))


@dataclass
class Config:
    """The whole file. `sysctl` holds numbers by the names of /proc/sys/net/netfilter and net.ipv4."""

    path: str = field(default="", metadata={"internal": True})
    daemon: Daemon = one_table(Daemon)
    port: list[Port] = tables(Port)
    bridge: list[Bridge] = tables(Bridge)
    route: list[Route] = tables(Route)
    rule: list[Rule] = tables(Rule)
    mirror: Mirror | None = field(default=None, metadata={"table": Mirror})
    limits: Limits = one_table(Limits)
    offload: Offload = one_table(Offload)
    nic: list[Nic] = tables(Nic)
    queue: dict[str, QueueListener] = field(default_factory=dict, metadata={"keyed": QueueListener})
    log: dict[str, LogGroup] = field(default_factory=dict, metadata={"keyed": LogGroup})
    sysctl: dict[str, int] = field(default_factory=dict, metadata={"names": number(-1, 2**31 - 1)})
