"""Router advertisements (RFC 4861 6.2, RFC 8106): periodic on devices that are configured for them, and on solicitation.

Laws: only configured devices advertise; answers to solicitations are multicast, delayed by up to half a second and at least
three seconds apart; the first three periodic ones come at most 16 seconds apart. `cease` says that we are a router no more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import cython

if not cython.compiled:
    from userfw.core.const import IPPROTO_ICMPV6, NSEC_PER_SEC
    from userfw.core.packet import Device, Packet
    from userfw.router.base import Router
    from userfw.router.const import NDISC_RA
    from userfw.wire.build import ipv6

MIN_GAP = 3
INITIAL_GAP = 16
INITIAL_COUNT = 3


class AdvertisedPrefix:
    """A prefix information option: lifetimes in seconds, flags on-link and autonomous."""

    def __init__(
        self,
        hi: int,
        lo: int,
        prefixlen: int,
        valid: int = 86400,
        preferred: int = 14400,
        on_link: bool = True,
        autonomous: bool = True,
    ) -> None:
        self.hi = hi
        self.lo = lo
        self.prefixlen = prefixlen
        self.valid = valid
        self.preferred = preferred
        self.on_link = on_link
        self.autonomous = autonomous


class Advertisement:
    """What a device advertises; times in seconds, `reachable` and `retrans` in ms, `mtu` 0: no option."""

    def __init__(self, prefixes: list[AdvertisedPrefix]) -> None:
        self.prefixes = prefixes
        self.lifetime = 1800
        self.hop_limit = 64
        self.managed = False
        self.other = False
        self.reachable = 0
        self.retrans = 0
        self.mtu = 0
        self.max_interval = 600
        self.min_interval = 200
        self.dns: list[tuple[int, int]] = []
        self.dns_lifetime = 1800
        self.sent = 0
        self.last = 0
        self.next = 0


class Sender(Protocol):
    """What Ndisc is here. The object, not its method: of a typed object's C method Cython would make a wrapper that calls it with
    an argument too few."""

    def send(self, pkt: Packet, device: Device, hi: int, lo: int) -> int:
        """Send a message that lies in `pkt` to an address through `device`."""
        ...


class Advertiser:
    """All advertising devices of one gateway. `ndisc` sends them; `source` gives a device's link-local address."""

    def __init__(
        self,
        router: Router,
        ndisc: Sender,
        source: Callable[[Device], tuple[int, int] | None],
    ) -> None:
        self.router = router
        self.ndisc = ndisc
        self.source = source
        self.devices: dict[Device, Advertisement] = {}

    def configure(self, device: Device, advertisement: Advertisement | None) -> None:
        """Start (or change, or with None stop) advertising on a device; ValueError if the intervals make no sense."""
        if advertisement is None:
            if self.devices.pop(device, None) is not None:
                self.router.count("ra_stopped")
            return
        if not 4 <= advertisement.max_interval <= 1800 or not 3 <= advertisement.min_interval <= advertisement.max_interval:
            raise ValueError("advertisement intervals are not within 4 and 1800 seconds (RFC 4861 6.2.1)")
        self.devices[device] = advertisement
        advertisement.next = self.router.clock.now

    def solicited(self, device: Device) -> None:
        """A router solicitation came in."""
        item = self.devices.get(device)
        if item is None:
            return
        now = self.router.clock.now
        delay = self.router.rng.randrange(NSEC_PER_SEC // 2)
        when = now + delay
        if item.last:
            when = max(when, item.last + MIN_GAP * NSEC_PER_SEC + delay)
        item.next = min(item.next, when)

    def next_deadline(self) -> int:
        """When the next advertisement is due; 0 if never."""
        return min((item.next for item in self.devices.values()), default=0)

    def tick(self, now: int) -> None:
        """Send what is due."""
        for device, item in list(self.devices.items()):
            if item.next > now:
                continue
            if device.up:
                self.send(device, item, item.lifetime)
            item.sent += 1
            item.last = now
            gap = self.router.rng.uniform(item.min_interval, item.max_interval)
            if item.sent < INITIAL_COUNT:
                gap = min(gap, INITIAL_GAP)
            item.next = now + int(gap * NSEC_PER_SEC)

    def cease(self) -> None:
        """Tell every link that this is no default router any more (RFC 4861 6.2.5); the gateway stops."""
        for device, item in self.devices.items():
            if device.up and item.sent:
                self.send(device, item, 0)

    def send(self, device: Device, item: Advertisement, lifetime: int) -> None:
        """One advertisement to all nodes."""
        source = self.source(device)
        if source is None:
            return
        options = _options(device, item)
        pkt = self.router.take()
        to = 0xFF02 << 48
        ipv6(pkt, IPPROTO_ICMPV6, 16 + len(options), source[0], source[1], to, 1, 255, 0)
        l4 = pkt.l4
        pkt.put32(l4, NDISC_RA << 24)
        pkt.put8(l4 + 4, item.hop_limit)
        pkt.put8(l4 + 5, (0x80 if item.managed else 0) | (0x40 if item.other else 0))
        pkt.put16(l4 + 6, lifetime)
        pkt.put32(l4 + 8, item.reachable)
        pkt.put32(l4 + 12, item.retrans)
        pkt.data[l4 + 16 : l4 + 16 + len(options)] = options
        self.ndisc.send(pkt, device, to, 1)


def _options(device: Device, item: Advertisement) -> bytes:
    parts = [b"\x01\x01" + device.mac]
    if item.mtu:
        parts.append(b"\x05\x01\x00\x00" + item.mtu.to_bytes(4, "big"))
    for prefix in item.prefixes:
        flags = (0x80 if prefix.on_link else 0) | (0x40 if prefix.autonomous else 0)
        parts.append(
            bytes((3, 4, prefix.prefixlen, flags))
            + prefix.valid.to_bytes(4, "big")
            + prefix.preferred.to_bytes(4, "big")
            + bytes(4)
            + prefix.hi.to_bytes(8, "big")
            + prefix.lo.to_bytes(8, "big")
        )
    if item.dns:
        parts.append(bytes((25, 1 + 2 * len(item.dns), 0, 0)) + item.dns_lifetime.to_bytes(4, "big"))
        parts += [hi.to_bytes(8, "big") + lo.to_bytes(8, "big") for hi, lo in item.dns]
    return b"".join(parts)
