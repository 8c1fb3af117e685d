"""Routes mirrored from a kernel's table (`[mirror]`): what routing daemons like FRR or BIRD install there, we forward by.

The table is dumped at the start and after lost notifications, and followed in between. A route out of an interface that is
no port of ours, and not named under `[mirror.devices]`, is left out. Mirrored routes carry RTPROT of the kernel's route
and never replace configured ones of the same prefix and metric.
"""

from __future__ import annotations

import contextlib
import ipaddress
import itertools
import logging
import socket
from typing import TYPE_CHECKING, Any

from userfw.daemon import schema
from userfw.ports.netlink import RTMGRP_IPV4_ROUTE, RTMGRP_IPV6_ROUTE, KernelRoute, Netlink, parse_route_untrusted

if TYPE_CHECKING:
    from userfw.daemon.server import Server

log = logging.getLogger("userfw.mirror")

_SERIALS = itertools.count(1)
RTN_UNICAST, RTN_BLACKHOLE, RTN_UNREACHABLE, RTN_PROHIBIT = 1, 6, 7, 8


class RouteMirror:
    """Keeps the gateway's table like the kernel's. `routes`: what was taken over, by (family, prefix, length, metric).

    `serial` marks its notifications.
    """

    def __init__(self, server: Server, config: schema.Mirror) -> None:
        self.server = server
        self.config = config
        self.routes: dict[tuple[int, bytes, int, int], Any] = {}
        self.devices: dict[int, str] = {}
        self.skipped = 0
        self.serial = next(_SERIALS)
        self.netlink = server.links.thread.subscribe(
            ("route", config.netns, self.serial), config.netns, RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE, parse_route_untrusted
        )
        try:
            self.resync()
        except OSError:
            self.close()
            raise

    def resync(self) -> None:
        """Read the whole table anew and drop what is not there any more. OSError."""
        self.skipped = 0
        netlink = Netlink(self.config.netns)
        try:
            self._learn_devices(netlink)
            routes = [r for family in (socket.AF_INET, socket.AF_INET6) for r in netlink.routes(family)]
        finally:
            netlink.close()
        wanted = [route for route in routes if self._ours(route)]
        keys = {_key(route) for route in wanted}
        for key in list(self.routes):
            if key not in keys:
                self._remove(key)
        for route in wanted:
            self._put(route)
        log.info("mirror: %d routes of table %d, %d left out", len(self.routes), self.config.table, self.skipped)

    def changed(self, items: list[KernelRoute] | None) -> None:
        """Notifications in the order the kernel made them; None: some were lost."""
        if items is None:
            self.resync()
            return
        for route in items:
            if not self._ours(route):
                continue
            if route.gone:
                self._remove(_key(route))
            else:
                self._put(route)

    def _learn_devices(self, netlink: Netlink) -> None:
        ports = {
            opened.config.device: name
            for name, opened in self.server.ports.items()
            if opened.config.netns == self.config.netns and opened.config.device
        }
        named = {**ports, **self.config.devices}
        self.devices = {link.index: named[link.name] for link in netlink.links() if link.name in named}

    def _ours(self, route: KernelRoute) -> bool:
        return route.table == self.config.table and route.type in (
            RTN_UNICAST, RTN_BLACKHOLE, RTN_UNREACHABLE, RTN_PROHIBIT
        )  # fmt: skip

    def _put(self, route: KernelRoute) -> None:
        key = _key(route)
        hops = [(_text(gateway), self.devices.get(index, ""), weight) for gateway, index, weight in route.nexthops]
        if any(not dev for _, dev, _ in hops) or (route.type == RTN_UNICAST and not hops):
            self.skipped += 1
            self._remove(key)
            return
        self._remove(key)
        try:
            self.routes[key] = self.server.gateway.add_route(
                f"{_text(route.to)}/{route.prefixlen}", type=route.type, metric=route.priority, hops=hops or None,
                onlink=True, protocol=route.protocol,
            )  # fmt: skip
        except ValueError as error:
            self.skipped += 1
            log.debug("mirror: %s/%d: %s", _text(route.to), route.prefixlen, error)

    def _remove(self, key: tuple[int, bytes, int, int]) -> None:
        route = self.routes.pop(key, None)
        if route is not None:
            with contextlib.suppress(KeyError, ValueError):
                self.server.gateway.routes.remove(route)

    def close(self) -> None:
        """Stop following and take the mirrored routes away."""
        self.server.links.thread.unsubscribe(self.netlink)
        for key in list(self.routes):
            self._remove(key)


def _key(route: KernelRoute) -> tuple[int, bytes, int, int]:
    return (route.family, route.to, route.prefixlen, route.priority)


def _text(packed: bytes) -> str:
    return str(ipaddress.ip_address(packed)) if packed else ""
