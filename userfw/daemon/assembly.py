"""The engine put together: gateway, conntrack, rules; and what the shell asks of them.

This is the one place that knows how the rooms fit. It touches no socket and no event loop, so tests use it as it is.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from typing import Any

from userfw.conntrack.settings import Settings as ConntrackSettings
from userfw.conntrack.table import ConnTable
from userfw.core.clock import Clock
from userfw.core.drop import DESCRIPTIONS, DropReason
from userfw.core.packet import Device, Port
from userfw.daemon import schema
from userfw.router.const import RTN_BLACKHOLE, RTN_PROHIBIT, RTN_UNICAST, RTN_UNREACHABLE
from userfw.router.gateway import Gateway
from userfw.router.types import Route

NEVER = (1 << 63) - 1
REAP_BUDGET = 1024  # connections looked at in one go; the rest follows at once, after waiting packets

log = logging.getLogger("userfw")

ROUTE_TYPES = {"unicast": RTN_UNICAST, "blackhole": RTN_BLACKHOLE, "unreachable": RTN_UNREACHABLE, "prohibit": RTN_PROHIBIT}


class Assembly:
    """Gateway, connection table and rules of one daemon; `on_event` is called when a timer may have been set."""

    def __init__(self, clock: Clock, rng: random.Random, fault: Callable[[BaseException, str], None]) -> None:
        self.clock = clock
        self.gateway = Gateway(clock, rng, None, fault)
        self.conntrack_settings = ConntrackSettings()
        self.conntrack = ConnTable(clock, self.conntrack_settings, rng)
        self.routes: dict[tuple[Any, ...], Route] = {}
        self.on_event: Callable[[], None] = _nothing

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

    # -- ports and routes

    def add_port(self, device: Device, kind: str, port: Port | None) -> None:
        """Take a device in. ValueError if its name or index is taken."""
        self.gateway.add_device(device, port)

    def remove_port(self, device: Device) -> None:
        """Forget a device, its addresses and routes."""
        self.gateway.remove_device(device)

    def set_advertisement(self, device: Device, ra: schema.Advertisement | None) -> None:
        """Router advertisements of a device."""

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
            dev=route.dev or "",
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

    # -- rules and state

    def load_ruleset(self, path: str, text: str, config: schema.Config, first: bool) -> None:
        """Replace the ruleset. ValueError with every problem."""

    def restore(self, config: schema.Config) -> None:
        """Bring back what was saved, as configured."""

    def save(self, config: schema.Config) -> None:
        """Save the ruleset and the connections into the state directory, if there is one."""

    # -- facts

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

    def status(self) -> dict[str, Any]:
        """What `userfw status` shows of the engine."""
        return {
            "connections": self.conntrack.count,
            "connections_max": self.conntrack_settings.max,
            "drops": sum(self.gateway.drop_counts()),
            "neighbours": len(self.gateway.neighbours.entries),
            "routes": sum(1 for _ in self.gateway.routes.all()),
            "faults": dict(self.gateway.faults),
        }


def _nothing() -> None:
    pass
