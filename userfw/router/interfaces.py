"""Devices, their addresses and the routes that follow from them (Linux: devinet.c, fib_frontend.c, addrconf.c, 8021q).

Laws: an address brings its local, broadcast and connected routes and takes them along; a device that is down keeps its
addresses and static routes, which are passed over while it is. Every change bumps the Fib's generation, so the next packet
sees it. `listeners` are told (event, device, address) after the fact, e.g. for masquerade to forget mappings.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from ipaddress import ip_interface, ip_network

import cython

if not cython.compiled:
    from userfw.core.clock import Clock
    from userfw.core.const import ARPHRD_ETHER, ARPHRD_LOOPBACK, ETH_P_8021Q, NFPROTO_IPV4, NFPROTO_IPV6, U32_MASK
    from userfw.core.packet import Address, Device, Port
    from userfw.router.batch import Batches
    from userfw.router.const import (
        RTN_ANYCAST,
        RTN_BROADCAST,
        RTN_LOCAL,
        RTN_MULTICAST,
        RTN_UNICAST,
        SCOPE_HOST,
        SCOPE_LINK,
        TABLE_LOCAL,
        TABLE_MAIN,
    )
    from userfw.router.settings import Settings
    from userfw.router.types import Dst, NextHop, Route
from userfw.router.source import scope_ipv6, select_ipv4, select_ipv6

Listener = Callable[[str, "Device", "Address | None"], None]
KERNEL = 2  # RTPROT_KERNEL


def parse_address(text: str) -> Address:
    """An Address from `192.0.2.1/24` or `2001:db8::1/64`; ValueError if it is neither."""
    item = ip_interface(text)
    number = int(item.ip)
    family = NFPROTO_IPV4 if item.version == 4 else NFPROTO_IPV6
    return Address(family, number >> 64, number & ((1 << 64) - 1), item.network.prefixlen)


def parse_prefix(text: str) -> tuple[int, int, int, int]:
    """(family, hi, lo, prefix length) of a network; ValueError if host bits are set."""
    item = ip_network(text)
    number = int(item.network_address)
    family = NFPROTO_IPV4 if item.version == 4 else NFPROTO_IPV6
    return family, number >> 64, number & ((1 << 64) - 1), item.prefixlen


class Interfaces(Batches):
    """A Path with devices, addresses and routes to be configured."""

    def __init__(
        self,
        clock: Clock,
        rng: random.Random | None = None,
        settings: Settings | None = None,
        fault: Callable[[BaseException, str], None] | None = None,
    ) -> None:
        super().__init__(clock, rng, settings, fault)
        self.listeners: list[Listener] = []
        self.derived: dict[tuple[int, int, int, int, int], list[Route]] = {}
        self.groups: dict[int, set[tuple[int, int, int]]] = {}
        self.lo = Device("lo", 1, bytes(6), 65536, ARPHRD_LOOPBACK)
        self.add_device(self.lo)
        self.add_address(self.lo, parse_address("127.0.0.1/8"))
        self.add_address(self.lo, parse_address("::1/128"))

    # -- devices

    def add_device(self, device: Device, port: Port | None = None) -> Device:
        """Take a device in; ValueError if its name or index is taken. Ethernet devices get their IPv6 link-local address."""
        if device.name in self.names or device.index in self.devices or device.index <= 0:
            raise ValueError(f"device {device.name} (index {device.index}) exists")
        if port is not None:
            device.port = port
        device.router = self
        self.devices[device.index] = device
        self.names[device.name] = device
        self.groups[device.index] = set()
        if device.type == ARPHRD_ETHER:
            routes = [Route(NFPROTO_IPV6, 0xFF << 56, 0, 8, [NextHop(device)], RTN_MULTICAST, TABLE_LOCAL, 256, protocol=KERNEL)]
            self._add_derived((device.index, 0, 0, 0, 0), routes)
            self.add_address(device, link_local(device.mac))
        self.routes.changed()
        self._tell("device-add", device, None)
        return device

    def remove_device(self, device: Device) -> None:
        """Forget a device with its addresses, routes and neighbours, VLAN devices on it first."""
        for other in list(self.devices.values()):
            if other.parent is device:
                self.remove_device(other)
        for address in list(device.addresses):
            self.remove_address(device, address)
        self._drop_derived((device.index, 0, 0, 0, 0))
        for route in list(self.routes.all()):
            route.nexthops = [hop for hop in route.nexthops if hop.device is not device] or route.nexthops
            if any(hop.device is device for hop in route.nexthops):
                self.routes.remove(route)
        self.neighbours.flush_device(device, True)
        for key, vlan in list(self.vlans.items()):
            if vlan is device:
                del self.vlans[key]
        device.up = False
        del self.devices[device.index], self.names[device.name], self.groups[device.index]
        self.routes.changed()
        self._tell("device-remove", device, None)

    def rename_device(self, device: Device, name: str) -> None:
        """ValueError if the name is taken or longer than 15 bytes."""
        if name in self.names:
            raise ValueError(f"device {name} exists")
        if not 0 < len(name.encode()) < 16:
            raise ValueError(f"{name!r} is no device name")
        del self.names[device.name]
        device.name = name
        device.ifname = name.encode().ljust(16, b"\0")
        self.names[name] = device
        self._tell("device-rename", device, None)

    def set_up(self, device: Device, up: bool) -> None:
        """Link up or down; down forgets learned neighbours."""
        if device.up == up:
            return
        device.up = up
        if not up:
            self.neighbours.flush_device(device)
        self.routes.changed()
        self._tell("device-up" if up else "device-down", device, None)

    def set_mtu(self, device: Device, mtu: int) -> None:
        """ValueError below 68 (RFC 791) or above what a packet can hold."""
        if not 68 <= mtu <= 65536:
            raise ValueError(f"MTU {mtu} of {device.name} is not within 68 and 65536")
        device.mtu = mtu
        self.routes.changed()
        self._tell("device-mtu", device, None)

    def set_mac(self, device: Device, mac: bytes) -> None:
        """Change the link-layer address; neighbours are asked anew."""
        if len(mac) != 6:
            raise ValueError("a link-layer address has 6 bytes")
        device.mac = mac
        device.mac_hi = int.from_bytes(mac[:4], "big")
        device.mac_lo = int.from_bytes(mac[4:], "big")
        for neigh in list(self.neighbours.entries.values()):
            if neigh.device is device and neigh.mac != bytes(6):
                neigh.set_mac(neigh.mac_hi, neigh.mac_lo)
        self.neighbours.flush_device(device)
        self.routes.changed()

    def add_vlan(self, parent: Device, vid: int, name: str, index: int, proto: int = ETH_P_8021Q) -> Device:
        """An 802.1Q (or 802.1ad) device on `parent`; ValueError if the tag is taken or not within 0 and 4094."""
        if not 0 <= vid <= 4094 or (parent.index, proto, vid) in self.vlans:
            raise ValueError(f"VLAN {vid} on {parent.name} is taken or not within 0 and 4094")
        device = Device(name, index, parent.mac, parent.mtu, ARPHRD_ETHER)
        device.kind = "vlan"
        device.parent = parent
        device.vlan_id = vid
        device.vlan_proto = proto
        self.add_device(device)
        self.vlans[parent.index, proto, vid] = device
        return device

    # -- addresses

    def add_address(self, device: Device, address: Address) -> None:
        """ValueError if the device has it. A second IPv4 address of the same subnet is secondary."""
        for other in device.addresses:
            if other.family != address.family:
                continue
            if other.hi == address.hi and other.lo == address.lo:
                raise ValueError("address exists")
            if address.family == NFPROTO_IPV4 and other.prefixlen == address.prefixlen:
                shift = 32 - address.prefixlen
                address.secondary = address.secondary or other.lo >> shift == address.lo >> shift
        if address.family == NFPROTO_IPV6:
            address.scope = scope_ipv6(address.hi, address.lo)
        elif address.lo >> 24 == 127:
            address.scope = SCOPE_HOST
        device.addresses.append(address)
        self._add_derived(_key(device, address), self._routes_of(device, address))
        self._tell("address-add", device, address)

    def remove_address(self, device: Device, address: Address) -> None:
        """KeyError if the device does not have it. Secondary addresses of its subnet are promoted (promote_secondaries 1)."""
        if address not in device.addresses:
            raise KeyError("no such address")
        device.addresses.remove(address)
        self._drop_derived(_key(device, address))
        if not address.secondary:
            self._promote(device, address)
        self._tell("address-remove", device, address)

    def _promote(self, device: Device, gone: Address) -> None:
        for other in device.addresses:
            if not other.secondary or other.prefixlen != gone.prefixlen or gone.family != other.family:
                continue
            shift = 32 - gone.prefixlen
            if other.lo >> shift == gone.lo >> shift:
                other.secondary = False
                self._drop_derived(_key(device, other))
                self._add_derived(_key(device, other), self._routes_of(device, other))
                return

    def _routes_of(self, device: Device, address: Address) -> list[Route]:
        """What an address puts into the tables (Linux: fib_add_ifaddr; addrconf_prefix_route, the anycast address)."""
        family, hi, lo, plen = address.family, address.hi, address.lo, address.prefixlen
        hop = [NextHop(device)]
        host = 32 if family == NFPROTO_IPV4 else 128
        routes = [Route(family, hi, lo, host, hop, RTN_LOCAL, TABLE_LOCAL, 0, SCOPE_HOST, KERNEL, hi, lo)]
        value = (hi << 64) | lo
        network = value >> (host - plen) << (host - plen)
        high, low = network >> 64, network & ((1 << 64) - 1)
        if address.scope == SCOPE_HOST:
            if plen < host:
                routes.append(Route(family, high, low, plen, hop, RTN_LOCAL, TABLE_LOCAL, 0, SCOPE_HOST, KERNEL, hi, lo))
            return routes
        if family == NFPROTO_IPV4:
            if address.secondary:
                return routes
            if plen < 32:
                routes.append(Route(family, 0, low, plen, hop, RTN_UNICAST, TABLE_MAIN, 0, SCOPE_LINK, KERNEL, 0, lo))
            if plen < 31:
                last = network | ((1 << (32 - plen)) - 1)
                routes.append(Route(family, 0, last, 32, hop, RTN_BROADCAST, TABLE_LOCAL, 0, SCOPE_LINK, KERNEL, 0, lo))
            return routes
        if plen < 128:
            routes.append(Route(family, high, low, plen, hop, RTN_UNICAST, TABLE_MAIN, 256, SCOPE_LINK, KERNEL))
        if plen < 127:
            routes.append(Route(family, high, low, 128, hop, RTN_ANYCAST, TABLE_LOCAL, 0, SCOPE_HOST, KERNEL))
        return routes

    def _add_derived(self, key: tuple[int, int, int, int, int], routes: list[Route]) -> None:
        kept = []
        for route in routes:
            route.metric = _free_metric(self, route)
            self.routes.add(route)
            kept.append(route)
        self.derived[key] = kept

    def _drop_derived(self, key: tuple[int, int, int, int, int]) -> None:
        for route in self.derived.pop(key, []):
            self.routes.remove(route)

    # -- routes

    def add_route(
        self,
        prefix: str,
        via: str = "",
        dev: str = "",
        *,
        type: int = RTN_UNICAST,
        metric: int = -1,
        table: int = TABLE_MAIN,
        src: str = "",
        mtu: int = 0,
        onlink: bool = False,
        hops: list[tuple[str, str, int]] | None = None,
        protocol: int = 4,
        replace: bool = False,
    ) -> Route:
        """A route in ip-route(8)'s terms; `hops`: (via, dev, weight) of a multipath route. ValueError says what is wrong."""
        family, hi, lo, plen = parse_prefix(prefix)
        nexthops = [self._hop(family, *hop, onlink) for hop in hops or ([(via, dev, 1)] if via or dev else [])]
        if not nexthops and type in (RTN_UNICAST, RTN_BROADCAST, RTN_MULTICAST, RTN_LOCAL):
            raise ValueError(f"route {prefix} needs a device or a gateway")
        source = parse_address(src) if src else None
        route = Route(
            family,
            hi,
            lo,
            plen,
            nexthops,
            type,
            table,
            metric if metric >= 0 else 1024 if family == NFPROTO_IPV6 else 0,
            SCOPE_LINK if nexthops and not nexthops[0].gw_family else 0,
            protocol,
            source.hi if source else 0,
            source.lo if source else 0,
            mtu,
        )
        self.routes.add(route, replace)
        return route

    def _hop(self, family: int, via: str, dev: str, weight: int, onlink: bool) -> NextHop:
        device = self.names.get(dev)
        if dev and device is None:
            raise ValueError(f"no device {dev}")
        if not 1 <= weight <= 256:
            raise ValueError(f"weight {weight} is not within 1 and 256")
        if not via:
            return NextHop(device, weight=weight)
        gateway = parse_address(via)
        if device is None or not onlink:
            link_local6 = gateway.family == NFPROTO_IPV6 and gateway.hi >> 54 == 0x3FA
            if not (device is not None and link_local6):
                device = self._on_link(gateway, via, device)
        return NextHop(device, gateway.family, gateway.hi, gateway.lo, weight, onlink)

    def _on_link(self, gateway: Address, via: str, device: Device | None) -> Device:
        """The device that `gateway` is reached by: as routed, or by a prefix of a device whose link is down for now."""
        for candidate in self.devices.values():
            if not candidate.up and (device is None or candidate is device) and _connects(candidate, gateway):
                return candidate
        route = self.routes.lookup(gateway.family, gateway.hi, gateway.lo, 0, 0, 0, 0, device, 0)
        if route is None or route.type != RTN_UNICAST or not route.nexthops or route.nexthops[0].gw_family:
            raise ValueError(f"gateway {via} is not on a connected network")
        found: Device | None = route.nexthops[0].device
        if found is None:
            raise ValueError(f"gateway {via} is not on a connected network")
        return found

    # -- what the path asks

    def join(self, device: Device, family: int, hi: int, lo: int) -> None:
        """Receive a multicast group on a device besides those every router listens to."""
        self.groups[device.index].add((family, hi, lo))

    def listens(self, device: Device, family: cython.int, hi: cython.ulonglong, lo: cython.ulonglong) -> cython.bint:
        """All-hosts; all-nodes, all-routers and the solicited-node groups of the device's addresses (RFC 4291 2.8)."""
        address: Address
        if family == NFPROTO_IPV4:
            if lo >> 4 == 0xE000000 and lo & 15 == 1:
                return True
        else:
            scope: cython.int = (hi >> 48) & 0xFF
            if hi & U32_MASK == 0 and (hi >> 32) & 0xFFFF == 0 and lo in (1, 2) and (scope in (1, 2) or (scope == 5 and lo == 2)):
                return True
            if scope == 2 and lo >> 24 == 0x1FF:
                for address in device.addresses:
                    if address.family == NFPROTO_IPV6 and (address.lo ^ lo) & 0xFFFFFF == 0:
                        return True
                return self.has_anycast(device, lo)
        return (family, hi, lo) in self.groups[device.index]

    def has_anycast(self, device: Device, lo: cython.ulonglong) -> cython.bint:
        """The solicited-node group of a subnet-router anycast address, whose low 24 bits are zero."""
        return lo & 0xFFFFFF == 0

    def looping(self, dst: Dst) -> Dst:
        """What the gateway sends to itself goes by `lo`."""
        if dst.type == RTN_LOCAL and dst.oif is not self.lo:
            dst.oif = self.lo
            dst.mtu = self.lo.mtu
        return dst

    def source_for(self, dst: Dst, family: cython.int) -> tuple[int, int] | None:
        """The route's preferred source, or the best address of the outgoing device; remembered in the Dst."""
        if dst.src_hi or dst.src_lo:
            return (dst.src_hi, dst.src_lo)
        if family == NFPROTO_IPV4:
            target = dst.via_lo if dst.via_family == NFPROTO_IPV4 else 0
            dst.src_lo = select_ipv4(self, dst.oif, target)
            return (0, dst.src_lo) if dst.src_lo else None
        found = select_ipv6(self, dst.oif, dst.key_hi, dst.key_lo)
        if found is not None:
            dst.src_hi, dst.src_lo = found
        return found

    def _tell(self, event: str, device: Device, address: Address | None) -> None:
        for listener in self.listeners:
            listener(event, device, address)


def link_local(mac: bytes) -> Address:
    """fe80::/64 with the modified EUI-64 of a MAC address (RFC 4291 appendix A)."""
    eui = bytes([mac[0] ^ 2]) + mac[1:3] + b"\xff\xfe" + mac[3:6]
    return Address(NFPROTO_IPV6, 0xFE80 << 48, int.from_bytes(eui, "big"), 64)


def _key(device: Device, address: Address) -> tuple[int, int, int, int, int]:
    return (device.index, address.family, address.hi, address.lo, address.prefixlen)


def _free_metric(interfaces: Interfaces, route: Route) -> int:
    """Two devices may have the same subnet: the later one's routes stand behind the earlier one's."""
    metric = route.metric
    taken = {
        other.metric
        for other in interfaces.routes.table(route.family, route.table).of_prefix(route.hi, route.lo, route.prefixlen)
    }
    while metric in taken:
        metric += 1
    return metric


def _connects(device: Device, gateway: Address) -> bool:
    """One of the device's prefixes holds `gateway`."""
    wanted = (int(gateway.hi) << 64) | int(gateway.lo)
    for address in device.addresses:
        shift = (32 if address.family == NFPROTO_IPV4 else 128) - int(address.prefixlen)
        own = (int(address.hi) << 64) | int(address.lo)
        if address.family == gateway.family and own >> shift == wanted >> shift and own != wanted:
            return True
    return False
