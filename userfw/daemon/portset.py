"""From configured ports to open ones: descriptors, the gateway's devices, and the namespace side of TAP and TUN.

Laws: opening a port changes only its own device; whatever was opened is closed again if a later step fails. A descriptor
that systemd kept for us is taken back instead of opened anew, so hosts notice nothing of a restart.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import importlib
import ipaddress
import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from userfw.core.const import ARPHRD_ETHER, ARPHRD_NONE
from userfw.core.packet import Device
from userfw.daemon import leftovers, schema
from userfw.daemon.interface import Settings
from userfw.daemon.leftovers import TRANSPARENT_TABLE
from userfw.ports import tap
from userfw.ports.base import GRO, IoPort
from userfw.ports.clsact import TrafficControl
from userfw.ports.netlink import Link, Netlink
from userfw.ports.netns import path_of
from userfw.ports.steering import steer_tap

if TYPE_CHECKING:
    from userfw.daemon.worker import Part

log = logging.getLogger("userfw.ports")

FIRST_INDEX = 2  # 1 is `lo`


class PortError(Exception):
    """A port that could not be opened, and why."""


def addresses_of(addresses: Iterable[schema.Interface]) -> set[tuple[bytes, int]]:
    """As host addresses (/32, /128), packed: the services' side has no networks of its own."""
    return {(address.ip.packed, address.max_prefixlen) for address in addresses}


class OpenPort:
    """One configured port while it is open.

    `queues`: its descriptors, the first is the one that sends. `device`: the gateway's. `link`: the kernel's interface, if any.
    """

    def __init__(self, config: schema.Port, device: Device, queues: list[IoPort], link: Link | None) -> None:
        self.config = config
        self.device = device
        self.queues = queues
        self.link = link
        self.carried: set[tuple[bytes, int]] = set()
        self.missed = 0
        self.namespace = _namespace_of(config)
        self.settings: Settings | None = None
        self.record: leftovers.Record | None = None

    @property
    def name(self) -> str:
        """The port's name, which is its device's."""
        return self.config.name

    def lost(self) -> bool:
        """The device was deleted, or its namespace is another one now (a container that was made anew)."""
        if self.link is None:
            return False
        return any(port.dead or port.fd < 0 for port in self.queues) or self.namespace != _namespace_of(self.config)

    def take_over(self, fresh: OpenPort) -> None:
        """Go on with the descriptors of `fresh`, which was opened from the same configuration."""
        self.queues, self.link, self.namespace, self.carried = fresh.queues, fresh.link, fresh.namespace, set()
        self.settings, self.record = fresh.settings, fresh.record
        for port in self.queues:
            port.attach(self.device)
        self.device.port = self.queues[0]

    def note(self) -> None:
        """Write down that the interface is in our hands, if something on it could outlive us."""
        if self.link is not None and (self.config.type in schema.INTERFACE_TYPES or self.config.transparent):
            self.record = leftovers.note(self.link.name, self.link.index, self.config.netns, self.config.transparent)

    def set_gro(self, most: int) -> None:
        """What is coalesced of what comes in: as configured, at most `most` (GRO_*)."""
        for port in self.queues:
            port.gro = min(GRO[self.config.gro], most) if self.config.offloads else GRO["off"]

    def carry(self, addresses: set[tuple[bytes, int]]) -> None:
        """Let the kernel's side have exactly these addresses (packed, prefix length) besides its own. OSError."""
        if self.link is None or addresses == self.carried:
            return
        netlink = Netlink(self.config.netns)
        try:
            for address, length in self.carried - addresses:
                netlink.remove_address(self.link.index, address, length)
            for address, length in addresses - self.carried:
                netlink.add_address(self.link.index, address, length)
        finally:
            netlink.close()
        self.carried = addresses

    def close(self) -> None:
        """Close every descriptor and undo what was done for it."""
        if self.config.transparent and self.config.device:
            with contextlib.suppress(OSError):
                netlink = Netlink(self.config.netns)
                netlink.remove_local_default(self.config.device, TRANSPARENT_TABLE)
                netlink.close()
        for port in self.queues:
            port.close()
        if self.settings is not None:
            self.settings.restore()
            self.settings = None
        if self.record is not None:
            self.record.forget()
            self.record = None


def _namespace_of(config: schema.Port) -> int:
    """What tells a namespace from a later one of the same name; 0 if there is none."""
    if not config.netns:
        return 0
    try:
        return os.stat(path_of(config.netns)).st_ino
    except OSError:
        return 0


def stable_mac(name: str) -> bytes:
    """A locally administered address that stays the same for a port's name on this machine."""
    try:
        machine = Path("/etc/machine-id").read_bytes().strip()
    except OSError:
        machine = os.uname().nodename.encode()
    digest = hashlib.blake2s(machine + b"\0userfw\0" + name.encode(), digest_size=5).digest()
    return b"\x02" + digest


def open_port(
    config: schema.Port, index: int, stored: dict[str, int] | None = None, part: Part | None = None
) -> OpenPort:
    """Open one port, or (`part`) one worker's queue of it. PortError names the port and the reason."""
    try:
        first = part is None or part.index == 0
        opened = _open(config, index, stored or {}, part, first)
        if first:
            opened.note()
        return opened
    except OSError as error:
        where = f" in namespace {config.netns}" if config.netns else ""
        what = f" ({config.device}{where})" if config.device else ""
        raise PortError(f"port {config.name}{what}: {error.strerror or error}{_hint(config, error)}") from error


def _open(config: schema.Port, index: int, stored: dict[str, int], part: Part | None, first: bool) -> OpenPort:
    if config.type in ("tap", "tun"):
        return _open_tuntap(config, index, stored, part)
    if config.type in schema.INTERFACE_TYPES and config.device is not None and first:
        if config.ethtool is not None:
            return _open_set(config, index, part)
        Settings(config.device, config.netns).restore()  # of an earlier process that was killed
    if config.type == "packet":
        return _open_packet(config, index, part)
    if config.type == "xdp":
        return _open_xdp(config, index)
    if config.type == "pcap":
        return _open_pcap(config, index)
    return _open_memory(config, index)


def _open_set(config: schema.Port, index: int, part: Part | None) -> OpenPort:
    """A port on an interface whose settings are changed first, and put back when it is closed."""
    assert config.ethtool is not None and config.device is not None
    settings = Settings(config.device, config.netns)
    settings.apply(config.ethtool)
    try:
        opened = _open_packet(config, index, part) if config.type == "packet" else _open_xdp(config, index)
    except BaseException:
        settings.restore()
        raise
    opened.settings = settings
    return opened


def _hint(config: schema.Port, error: OSError) -> str:
    if error.errno == 1:
        more = "CAP_NET_RAW and CAP_BPF for AF_XDP" if config.type == "xdp" else "CAP_NET_RAW for packet sockets"
        return f"; CAP_NET_ADMIN is needed, {more}, and CAP_SYS_ADMIN to enter a namespace"
    if error.errno == 13 and config.type in ("tap", "tun"):
        return "; /dev/net/tun must be readable and writable for the daemon's user"
    if error.errno == 16:
        return "; another process holds the device"
    if error.errno == 2 and config.netns:
        return f"; is there a namespace {config.netns!r}? (ip netns list)"
    return ""


def agree_on_gro(ports: Iterable[OpenPort]) -> None:
    """Coalescing pays where some other port takes the result as it is; what would only be cut again is not merged."""
    ports = list(ports)
    for opened in ports:
        others = [port.takes() for other in ports if other is not opened and other.config.type != "tun" for port in other.queues]
        opened.set_gro(max(others, default=GRO["off"]))


# -- TAP and TUN


def _open_tuntap(config: schema.Port, index: int, stored: dict[str, int], part: Part | None) -> OpenPort:
    assert config.device is not None
    queues: list[IoPort] = []
    for queue in range(config.queues):
        fd = stored.pop(store_name(config, queue), -1)
        if fd < 0:
            break
        taken = tap.adopt(config.name, fd, config.type, config.netns, config.persist, config.sndbuf)
        if taken.ifname != config.device:
            taken.close()
            break
        taken.queue = queue
        queues.append(taken)
    if len(queues) != config.queues:
        for port in queues:
            port.close()
        queues = list(
            tap.open_device(
                config.name, config.device, config.type, config.netns, config.offloads, config.queues,
                config.persist, config.sndbuf, part is not None,
            )
        )  # fmt: skip
    try:
        if part is not None:
            queues[0].queue = part.index
            _steer(config, queues[0].fd, part)
        link = _dress(config)
        mac = (config.mac or stable_mac(config.name)) if config.type == "tap" else b""
        kind = ARPHRD_ETHER if config.type == "tap" else ARPHRD_NONE
        name = config.device if config.name == "lo" else config.name  # `lo` is the gateway's own
        device = Device(name, index, mac, config.mtu or link.mtu, kind)
        device.kind = "tun"  # Linux's name for TAP devices too
        _attach(device, queues)
        return OpenPort(config, device, queues, link)
    except BaseException:
        for port in queues:
            port.close()
        raise


def _steer(config: schema.Port, fd: int, part: Part) -> None:
    """Have the kernel pick the owner's queue; without the program much is handed over, nothing breaks."""
    try:
        steer_tap(fd, part.count)
    except OSError as error:
        log.warning("port %s: no steering program (%s): workers hand over what comes to the wrong one", config.name, error.strerror)


def store_name(config: schema.Port, queue: int) -> str:
    """The descriptor's name in systemd's store: letters, digits and dots only, the port's and its namespace's names inside."""
    plain = f"{config.type}.{config.netns}.{config.device}.{config.name}.{queue}"
    return "".join(c if c.isalnum() or c in ".-_" else f"%{ord(c):x}" for c in plain)


def _dress(config: schema.Port) -> Link:
    """MTU, address, up, and the host's own addresses and routes on the kernel's side of the device."""
    assert config.device is not None
    netlink = Netlink(config.netns)
    try:
        link = netlink.link(config.device)
        if config.device_mac:
            netlink.set_link(link.index, up=False)
            netlink.set_link(link.index, mac=config.device_mac)
        if config.type == "tun":
            netlink.no_link_local(link.index)
        netlink.set_link(link.index, up=True, mtu=config.mtu or 0)
        routes = config.device_routes
        if routes is None:
            routes = [None] if config.type == "tun" and config.netns else []
        own = config.addresses if config.type == "tap" else []
        dress_host(netlink, link.index, config.device_addresses or [], routes, own)
        if config.transparent:
            netlink.add_local_default(config.device, TRANSPARENT_TABLE)
        return netlink.link(config.device)
    finally:
        netlink.close()


def dress_host(
    netlink: Netlink, index: int, addresses: Iterable[schema.Interface], routes: Iterable[schema.Network | None],
    gateways: Iterable[schema.Interface] = (),
) -> None:  # fmt: skip
    """Addresses and routes of a host behind a TAP or TUN device; `None` among the routes is both default routes. The routes lead to
    the first of `gateways` that is on the host's link, without one to the link itself."""
    families = set()
    addresses, via = list(addresses), dict[int, bytes]()
    for gateway in gateways:
        if any(gateway.version == address.version and gateway.ip in address.network for address in addresses):
            via.setdefault(gateway.version, gateway.ip.packed)
    for address in addresses:
        netlink.add_address(index, address.ip.packed, address.network.prefixlen)
        families.add(address.version)
    for route in routes:
        if route is not None:
            netlink.add_route(index, route.network_address.packed, route.prefixlen, via.get(route.version, b""))
            continue
        for version, zero in ((4, "0.0.0.0"), (6, "::")):
            if version in families or not families:
                to = ipaddress.ip_address(zero).packed
                netlink.add_route(index, to, 0, via.get(version, b""), metric=4096 if version == 4 else 0)


# -- the others


def _open_packet(config: schema.Port, index: int, part: Part | None) -> OpenPort:
    assert config.device is not None
    if config.capture != "socket":
        port, link = _open_capture(config, config.device)
    else:
        from userfw.ports.packet import open_socket

        port, link = open_socket(
            config.name, config.device, config.netns, config.offloads, config.isolate and (part is None or part.index == 0),
            config.promiscuous or config.mac is not None, None if part is None else (part.group, part.count),
            config.isolate and part is not None,
        )  # fmt: skip
        if part is None or part.index == 0:
            _sweep(config, link)
    device = Device(config.name, index, config.mac or link.mac, config.mtu or link.mtu, ARPHRD_ETHER)
    device.kind = "packet"
    device.up = link.up and link.carrier
    _attach(device, [port])
    return OpenPort(config, device, [port], link)


def _sweep(config: schema.Port, link: Link) -> None:
    """Filters that a process left which was killed, while nobody else can be using the interface."""
    if config.isolate:
        try:
            tc = TrafficControl(config.netns)
            try:
                tc.sweep(link.index)
            finally:
                tc.close()
        except OSError as error:
            log.debug("%s: tc: %s", config.device, error)


def _open_capture(config: schema.Port, device: str) -> tuple[IoPort, Link]:
    """Frames by tc instead of a packet socket: what `flags offload` needs on such a port."""
    try:
        capture = importlib.import_module("userfw_hw.bpf.capture")
    except ImportError as error:
        raise OSError(errno.ENOSYS, f'capture = "{config.capture}" needs the package userfw_hw: {error}') from None
    try:
        opened: tuple[IoPort, Link] = capture.open_capture(
            config.name, device, config.netns, config.offloads, config.promiscuous or config.mac is not None, config.capture
        )
    except OSError as error:
        raise OSError(error.errno, f'capture = "{config.capture}": {error.strerror}') from None
    return opened


def _open_xdp(config: schema.Port, index: int) -> OpenPort:
    from userfw.ports.xdp import open_interface

    assert config.device is not None
    queues, link = open_interface(
        config.name, config.device, config.netns, config.isolate, config.promiscuous or config.mac is not None, config.xdp_mode,
    )  # fmt: skip
    device = Device(config.name, index, config.mac or link.mac, config.mtu or link.mtu, ARPHRD_ETHER)
    device.kind = "xdp"
    device.up = link.up and link.carrier
    _attach(device, queues)
    return OpenPort(config, device, list(queues), link)


def _open_pcap(config: schema.Port, index: int) -> OpenPort:
    from userfw.ports.pcap import open_files

    port = open_files(config.name, config.read, config.write)
    device = Device(config.name, index, config.mac or stable_mac(config.name), config.mtu or 1500, ARPHRD_ETHER)
    device.kind = "pcap"
    _attach(device, [port])
    return OpenPort(config, device, [port], None)


def _open_memory(config: schema.Port, index: int) -> OpenPort:
    from userfw.ports.memory import MemoryPort

    device = Device(config.name, index, config.mac or stable_mac(config.name), config.mtu or 1500, ARPHRD_ETHER)
    device.kind = "memory"
    MemoryPort(device)
    return OpenPort(config, device, [], None)


def _attach(device: Device, queues: list[Any]) -> None:
    for port in queues:
        port.attach(device)
    device.port = queues[0]
