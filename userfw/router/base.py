"""What the parts of the router share: time, settings, the forwarding table, packets to build in, counters; and the calls
between them, as abstract methods that `gateway.Gateway` implements.

Laws: `take` lends a Packet, `give` hands it back once its path has been walked; ports may hold it until their flush, so it is
reused only after one. Nothing here knows sockets or a real clock.
"""

from __future__ import annotations

import random
from array import array
from collections.abc import Callable

import cython

if not cython.compiled:
    from userfw.core.clock import Clock
    from userfw.core.drop import DROP_COUNT
    from userfw.core.packet import Device, Packet, Port
    from userfw.engine.services import Services
    from userfw.router.fib import Fib
    from userfw.router.settings import Settings
    from userfw.router.types import Dst

POOL_LIMIT = 256
GIVEN_LIMIT = 64


class Router(Services):
    """State and services common to the parts of the router.

    - `drops`: packets by DROP_* reason; `device_drops`: the same for each device index. `mib`: named counters of the router.
    - `fault`: called once for each kind of exception that escaped on the path, with the exception and a sentence.
    """

    def __init__(
        self,
        clock: Clock,
        rng: random.Random | None = None,
        settings: Settings | None = None,
        fault: Callable[[BaseException, str], None] | None = None,
    ) -> None:
        super().__init__(clock)
        self.rng = rng if rng is not None else random.Random(0)
        self.settings = settings if settings is not None else Settings()
        self.fault = fault
        self.routes = Fib(self.rng.getrandbits(32))
        self.devices: dict[int, Device] = {}
        self.names: dict[str, Device] = {}
        self.drops = array("Q", bytes(8 * DROP_COUNT))
        self.device_drops: dict[int, array[int]] = {}
        self.mib: dict[str, int] = {}
        self.pool: list[Packet] = []
        self.given: list[Packet] = []
        self.touched: list[Port] = []
        self.last_port: Port | None = None
        self.faults: dict[str, int] = {}
        self.ip_id = self.rng.getrandbits(16)

    # -- packets and counters

    def take(self) -> Packet:
        """A reset Packet to build in; hand it back with `give`."""
        if self.pool:
            pkt: Packet = self.pool.pop()
            return pkt
        return Packet()

    def give(self, pkt: Packet) -> cython.int:
        """`pkt`'s path is walked; it is reused after the next flush, or never if somebody stole it."""
        if pkt.stolen:
            return 0
        self.given.append(pkt)
        if len(self.given) >= GIVEN_LIMIT:
            self.flush()
        return 0

    def flush(self) -> cython.int:
        """Flush the ports that were sent to, then reuse the packets that were given back."""
        i: cython.Py_ssize_t
        port: Port
        pkt: Packet
        for i in range(len(self.touched)):
            port = self.touched[i]
            port.flush()
            if port.refused:
                self.count_refused(port)
        self.touched.clear()
        self.last_port = None
        for i in range(len(self.given)):
            pkt = self.given[i]
            pkt.reset()
            if len(self.pool) < POOL_LIMIT:
                self.pool.append(pkt)
        self.given.clear()
        return 0

    def drop(self, pkt: Packet, reason: cython.int) -> cython.int:
        """Count a dropped packet, also at the device it came in on (or was to leave by); returns the reason."""
        pkt.drop_reason = reason
        self.count_drop(pkt, reason)
        return reason

    def count_drop(self, pkt: Packet | None, reason: cython.int) -> cython.int:
        """Count one dropped packet of which `pkt` (None if nothing is known) says the device."""
        self.drops[reason] += 1
        if pkt is None:
            return 0
        device: Device | None = pkt.iif
        if device is not None:
            device.rx_dropped += 1
        else:
            device = pkt.oif
            if device is None:
                return 0
            device.tx_dropped += 1
        self._count_at(device, reason)
        return 0

    def count_refused(self, port: Port) -> None:
        """Count the frames that a port took and could not send."""
        for reason in port.refused:
            self.drops[reason] += 1
            if port.device is not None:
                port.device.tx_dropped += 1
                self._count_at(port.device, reason)
        port.refused.clear()

    def _count_at(self, device: Device, reason: cython.int) -> cython.int:
        counts = self.device_drops.get(device.index)
        if counts is None:
            counts = self.device_drops[device.index] = array("Q", bytes(8 * DROP_COUNT))
        counts[reason] += 1
        return 0

    def drop_counts(self) -> list[int]:
        """Packets dropped, by DROP_* reason."""
        return [int(n) for n in self.drops]

    def count(self, name: str, by: int = 1) -> None:
        """Add to a named counter; for events that are not the common path."""
        self.mib[name] = self.mib.get(name, 0) + by

    def report(self, error: BaseException, where: str) -> None:
        """Count an escaped exception, and tell the shell about the first of its kind."""
        kind = f"{where}: {type(error).__name__}"
        self.faults[kind] = self.faults.get(kind, 0) + 1
        if self.faults[kind] == 1 and self.fault is not None:
            self.fault(error, where)

    def next_id(self) -> cython.uint:
        """An IPv4 identification for a packet of the gateway itself."""
        self.ip_id = (self.ip_id + 1) & 0xFFFF
        return self.ip_id

    # -- calls between the parts

    def transmit(self, pkt: Packet, device: Device) -> cython.int:
        """Send a complete frame out of `device`: egress hooks, VLAN tag, port. 0 or the DROP_* reason, counted."""
        raise NotImplementedError

    def emit(self, pkt: Packet) -> cython.int:
        """Send a complete network packet along `pkt.route`: neighbour, link-layer header, transmit."""
        raise NotImplementedError

    def to_neighbour(self, pkt: Packet) -> cython.int:
        """As `emit`, but for what a packet to a group means for the gateway itself."""
        raise NotImplementedError

    def local_out(self, pkt: Packet) -> cython.int:
        """A packet of the gateway itself, network header written: route it unless `pkt.route` is set, output hooks, and on."""
        raise NotImplementedError

    def send_error(self, pkt: Packet, type: cython.int, code: cython.int, info: cython.uint) -> cython.int:
        """Answer `pkt` with an ICMP or ICMPv6 error if rules and rate limits allow; `pkt` stays untouched."""
        raise NotImplementedError

    def run_hooks(self, family: cython.int, hook: cython.int, pkt: Packet) -> cython.int:
        """NF_* verdict of a hook; NF_ACCEPT if there is no ruleset."""
        raise NotImplementedError

    def verdict(self, pkt: Packet, verdict: cython.int) -> cython.int:
        """Settle a verdict other than NF_ACCEPT: count the drop, or leave the packet to who stole it."""
        raise NotImplementedError

    def enter_port(self, pkt: Packet, reason: cython.int) -> cython.int:
        """A frame that a bridge leaves to the port it came in on: as if that were no port. `reason`: what parsing said."""
        raise NotImplementedError

    def enter_device(self, pkt: Packet, reason: cython.int) -> cython.int:
        """A parsed frame came in on `pkt.iif`, whatever device that is now: its counters, flowtable, ingress chains, and on."""
        raise NotImplementedError

    def reread(self, pkt: Packet, reason: cython.int) -> cython.int:
        """What is wrong with a frame, or no more, after rules wrote to it; `reason` is what was."""
        raise NotImplementedError

    def refragment(self, pkt: Packet, mtu: cython.int) -> cython.int:
        """Cut a packet into the fragments it came in; each goes to `emit`."""
        raise NotImplementedError

    def source_for(self, dst: Dst, family: cython.int) -> tuple[int, int] | None:
        """The address a packet of the gateway along `dst` carries as its source, or None."""
        raise NotImplementedError


def compact(pkt: Packet) -> Packet:
    """A copy of `pkt` in a buffer of its own size, to be kept for a while; it cannot grow."""
    other: Packet = Packet.__new__(Packet)
    other.data = pkt.data[: pkt.end]
    other.copy_meta(pkt)
    return other


def set_start(pkt: Packet, start: cython.Py_ssize_t) -> cython.int:
    """Move the start of the frame; the checksum offset of the virtio-net header, relative to it, moves along."""
    if pkt.vnet_flags & 1:
        pkt.csum_start += pkt.start - start
    pkt.start = start
    return 0
