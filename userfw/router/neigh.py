"""Neighbours of both families: states, timers, queues (RFC 4861 7.3; Linux: net/core/neighbour.c).

Laws: the state machine is Linux's, on the clock that the shell sets; `tick` runs what is due, `next_deadline` says when.
Packets that wait are compact copies, bounded in bytes for each neighbour; the table is bounded by gc_thresh3, so an address
scan costs work but no memory. How one asks (ARP or neighbour solicitation) is a `Solicitor`'s business.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

import cython

if not cython.compiled:
    from userfw.core.const import ARPHRD_ETHER, NFPROTO_IPV4, NFPROTO_IPV6, U32_MASK
    from userfw.core.drop import DROP_NEIGH_FAILED, DROP_NEIGH_QUEUE_FULL
    from userfw.core.packet import Device, Packet
    from userfw.router.base import Router, compact
    from userfw.router.const import (
        ICMP_DEST_UNREACH,
        ICMP_HOST_UNREACH,
        ICMPV6_ADDR_UNREACH,
        ICMPV6_DEST_UNREACH,
        NUD_CONNECTED,
        NUD_DELAY,
        NUD_FAILED,
        NUD_INCOMPLETE,
        NUD_NOARP,
        NUD_NONE,
        NUD_PERMANENT,
        NUD_PROBE,
        NUD_REACHABLE,
        NUD_STALE,
        NUD_VALID,
        OVERRIDE_WEAK,
        OVERRIDE_YES,
    )
    from userfw.router.types import Dst, Neighbour

# What a queued packet weighs besides its bytes (Linux counts skb->truesize)
OVERHEAD = 768


class Solicitor:
    """Asks for a neighbour's link-layer address in one family."""

    def solicit(self, neigh: Neighbour, pkt: Packet | None, unicast: cython.bint) -> cython.int:
        """Send one request; `pkt` is the packet that waits, whose source is preferred if it is the gateway's own."""
        raise NotImplementedError


class NeighbourTable:
    """All neighbours of all devices."""

    def __init__(self, router: Router) -> None:
        self.router = router
        self.entries: dict[tuple[int, int, int, int], Neighbour] = {}
        self.heap: list[tuple[int, int, Neighbour]] = []
        self.serial = 0
        self.arp: Solicitor | None = None
        self.ndisc: Solicitor | None = None
        self.last_flush = 0
        self.next_gc = 0
        self.next_draw = 0
        self.reachable_time = router.settings.base_reachable_time
        self.permanent = 0
        self.watcher: Callable[[Neighbour], None] | None = None  # told when a link-layer address in use is no longer right

    # -- finding

    def get(self, device: Device, family: cython.int, hi: cython.ulonglong, lo: cython.ulonglong) -> Neighbour | None:
        """The entry of an address, None if there is none."""
        return self.entries.get((device.index, family, hi, lo))

    def obtain(self, device: Device, family: cython.int, hi: cython.ulonglong, lo: cython.ulonglong) -> Neighbour | None:
        """The entry of an address, made if need be; None if the table is full."""
        neigh: Neighbour | None = self.entries.get((device.index, family, hi, lo))
        if neigh is not None:
            return neigh
        if not self._room():
            self.router.count("neigh_table_overflow")
            return None
        neigh = Neighbour(family, hi, lo, device)
        neigh.used = neigh.updated = self.router.clock.now
        self.entries[device.index, family, hi, lo] = neigh
        return neigh

    def of_dst(self, dst: Dst, hi: cython.ulonglong, lo: cython.ulonglong) -> Neighbour | None:
        """The neighbour a packet along `dst` goes to, whose destination is now `hi`, `lo`; remembered in `dst` if it can be."""
        device: Device = cython.cast(Device, dst.oif)
        family: cython.int = dst.via_family
        if dst.gateway or (dst.via_hi == hi and dst.via_lo == lo):
            neigh = self._mapped(device, family, dst.via_hi, dst.via_lo)
            dst.neigh = neigh
            return neigh
        return self._mapped(device, family, hi, lo)

    def _mapped(self, device: Device, family: cython.int, hi: cython.ulonglong, lo: cython.ulonglong) -> Neighbour | None:
        """Broadcast and multicast map to fixed link-layer addresses (RFC 1112 6.4, RFC 2464 7); the rest is looked up.

        Whatever the route: an address by which any link says everybody means everybody on this one too (Linux: arp_constructor).
        """
        neigh: Neighbour | None
        broadcast: cython.bint = False
        if family == NFPROTO_IPV4 and (lo >> 28) != 14:
            neigh = self.entries.get((device.index, family, hi, lo))
            if neigh is not None:
                return neigh
            broadcast = lo == U32_MASK or lo >> 24 == 0 or self.router.routes.broadcast4(lo)
            if not broadcast:
                return self.obtain(device, family, hi, lo)
        if family == NFPROTO_IPV6 and (hi >> 56) != 0xFF:
            return self.obtain(device, family, hi, lo)
        neigh = Neighbour(family, hi, lo, device)
        neigh.state = NUD_NOARP
        neigh.connected = True
        if broadcast:
            neigh.set_mac(U32_MASK, 0xFFFF)
        elif family == NFPROTO_IPV4:
            neigh.set_mac(0x01005E00 | ((lo >> 16) & 0x7F), lo & 0xFFFF)
        else:
            neigh.set_mac(0x33330000 | ((lo >> 16) & 0xFFFF), lo & 0xFFFF)
        return neigh

    # -- sending

    def resolve(self, neigh: Neighbour, pkt: Packet) -> cython.int:
        """`pkt` wants to go to a neighbour that is not connected: 1 if it may be sent now, else it is queued or dropped.

        Linux: neigh_event_send, __neigh_event_send.
        """
        now: cython.ulonglong = self.router.clock.now
        settings = self.router.settings
        neigh.used = now
        if neigh.state & (NUD_CONNECTED | NUD_DELAY | NUD_PROBE):
            return 1
        if neigh.state == NUD_STALE:
            neigh.state = NUD_DELAY
            neigh.updated = now
            self._arm(neigh, now + settings.delay_probe_time)
            return 1
        if neigh.state != NUD_INCOMPLETE:
            neigh.probes = settings.ucast_probes
            neigh.state = NUD_INCOMPLETE
            neigh.updated = now
            self._queue(neigh, pkt)
            self._arm(neigh, now + settings.retrans_time)
            self._probe(neigh)
            return 0
        self._queue(neigh, pkt)
        return 0

    def use(self, neigh: Neighbour) -> None:
        """Packets go to this neighbour past this table, or are about to: what `resolve` does, without one that waits
        (Linux: neigh_event_send without a packet)."""
        now: cython.ulonglong = self.router.clock.now
        neigh.used = now
        if neigh.state == NUD_STALE:
            neigh.state = NUD_DELAY
            neigh.updated = now
            self._arm(neigh, now + self.router.settings.delay_probe_time)
        elif neigh.state in (NUD_NONE, NUD_FAILED) and not neigh.dead:
            neigh.probes = self.router.settings.ucast_probes
            neigh.state = NUD_INCOMPLETE
            neigh.updated = now
            self._arm(neigh, now + self.router.settings.retrans_time)
            self._probe(neigh)

    def _queue(self, neigh: Neighbour, pkt: Packet) -> None:
        size: cython.Py_ssize_t = pkt.end - pkt.start + OVERHEAD
        old: Packet
        while neigh.queue and neigh.queued + size > self.router.settings.unres_qlen_bytes:
            old = neigh.queue.pop(0)
            neigh.queued -= old.end - old.start + OVERHEAD
            self.router.drop(old, DROP_NEIGH_QUEUE_FULL)
        neigh.queue.append(compact(pkt))
        neigh.queued += size

    def _probe(self, neigh: Neighbour) -> None:
        pkt: Packet | None = neigh.queue[len(neigh.queue) - 1] if neigh.queue else None
        solicitor: Solicitor | None = self.arp if neigh.family == NFPROTO_IPV4 else self.ndisc
        unicast: cython.bint = (neigh.state & NUD_VALID) != 0 and neigh.probes < self.router.settings.ucast_probes
        neigh.probes += 1
        if solicitor is not None:
            solicitor.solicit(neigh, pkt, unicast)

    # -- learning

    def update(
        self,
        neigh: Neighbour,
        mac_hi: cython.uint,
        mac_lo: cython.uint,
        has_mac: cython.bint,
        state: cython.int,
        override: cython.int,
    ) -> cython.bint:
        """New knowledge about a neighbour (Linux: __neigh_update). True if it was taken.

        `override`: what a link-layer address other than a valid one known may do: OVERRIDE_NO, OVERRIDE_YES (replace it),
        OVERRIDE_WEAK (make a connected entry stale, keeping the old address).
        """
        now: cython.ulonglong = self.router.clock.now
        old: cython.int = neigh.state
        if old & (NUD_NOARP | NUD_PERMANENT) or neigh.dead:
            return False
        if not has_mac and not old & NUD_VALID:
            return False
        same: cython.bint = not has_mac or (
            (old & NUD_VALID) != 0 and neigh.mac_hi == mac_hi and neigh.mac_lo == (mac_lo & 0xFFFF)
        )
        if state & NUD_CONNECTED:
            neigh.confirmed = now
        if old & NUD_VALID:
            if not same and override != OVERRIDE_YES:
                if override != OVERRIDE_WEAK or not old & NUD_CONNECTED:
                    return False
                same = True
                state = NUD_STALE
            elif same and state == NUD_STALE:
                state = old
        if state != old or not same:
            neigh.updated = now
        if not same:
            neigh.set_mac(mac_hi, mac_lo)
            if old & NUD_VALID and self.watcher is not None:
                self.watcher(neigh)
            if not state & NUD_CONNECTED:
                neigh.confirmed = 0
        if state != old:
            self._enter(neigh, state)
            if not old & NUD_VALID:
                self._release(neigh)
        return True

    def _enter(self, neigh: Neighbour, state: cython.int) -> None:
        now: cython.ulonglong = self.router.clock.now
        neigh.state = state
        neigh.connected = (state & NUD_CONNECTED) != 0
        if state == NUD_REACHABLE:
            self._arm(neigh, now + self._reachable(now))
        elif state == NUD_PROBE:
            neigh.probes = 0
            self._arm(neigh, now)
        elif state == NUD_DELAY:
            self._arm(neigh, now + self.router.settings.delay_probe_time)
        else:
            neigh.deadline = 0

    def _reachable(self, now: cython.ulonglong) -> cython.ulonglong:
        """Uniform in 0.5 … 1.5 of the base time, drawn anew every five minutes (RFC 4861 6.3.4; Linux: neigh_periodic_work)."""
        if now >= self.next_draw:
            base = self.router.settings.base_reachable_time
            self.reachable_time = base // 2 + self.router.rng.randrange(max(1, base))
            self.next_draw = now + 300 * self.router.settings.retrans_time
        return self.reachable_time

    def _release(self, neigh: Neighbour) -> None:
        """Send what waited for the address."""
        waiting: list[Packet] = neigh.queue
        neigh.queue = []
        neigh.queued = 0
        for pkt in waiting:
            self.router.to_neighbour(pkt)

    def set_static(self, device: Device, family: int, hi: int, lo: int, mac: bytes) -> Neighbour:
        """A permanent entry; ValueError if `mac` is not 6 bytes or the table is full."""
        if len(mac) != 6:
            raise ValueError("a link-layer address has 6 bytes")
        neigh = self.obtain(device, family, hi, lo)
        if neigh is None:
            raise ValueError("the neighbour table is full")
        neigh.set_mac(int.from_bytes(mac[:4], "big"), int.from_bytes(mac[4:], "big"))
        if self.watcher is not None:
            self.watcher(neigh)
        if neigh.state != NUD_PERMANENT:
            self.permanent += 1
        neigh.state = NUD_PERMANENT
        neigh.connected = True
        neigh.deadline = 0
        self._release(neigh)
        return neigh

    def remove(self, neigh: Neighbour) -> None:
        """Forget an entry; packets that wait are dropped."""
        self.entries.pop((neigh.device.index, neigh.family, neigh.hi, neigh.lo), None)
        neigh.dead = True
        neigh.connected = False
        neigh.deadline = 0
        if neigh.state == NUD_PERMANENT:
            self.permanent -= 1
        if self.watcher is not None:
            self.watcher(neigh)
        for pkt in neigh.queue:
            self.router.drop(pkt, DROP_NEIGH_FAILED)
        neigh.queue = []
        neigh.queued = 0

    def flush_device(self, device: Device, all: bool = False) -> None:
        """The device went down or its link-layer address changed: forget what was learned (static entries too if `all`)."""
        for neigh in list(self.entries.values()):
            if neigh.device is device and (all or neigh.state != NUD_PERMANENT):
                self.remove(neigh)

    # -- time

    def _arm(self, neigh: Neighbour, deadline: cython.ulonglong) -> None:
        neigh.deadline = deadline
        self.serial += 1
        heapq.heappush(self.heap, (deadline, self.serial, neigh))

    def next_deadline(self) -> int:
        """When `tick` has something to do; 0 if never."""
        while self.heap and (self.heap[0][2].dead or self.heap[0][2].deadline != self.heap[0][0]):
            heapq.heappop(self.heap)
        return self.heap[0][0] if self.heap else 0

    def tick(self, now: cython.ulonglong) -> None:
        """Run the timers that are due, then collect garbage now and then."""
        while self.heap and self.heap[0][0] <= now:
            deadline, _, neigh = heapq.heappop(self.heap)
            if not neigh.dead and neigh.deadline == deadline:
                self._timer(neigh, now)
        if now >= self.next_gc:
            self.next_gc = now + self.router.settings.gc_interval
            self._collect(now, False)

    def _timer(self, neigh: Neighbour, now: cython.ulonglong) -> None:
        """Linux: neigh_timer_handler."""
        settings = self.router.settings
        state: cython.int = neigh.state
        neigh.deadline = 0
        if state == NUD_REACHABLE:
            if now <= neigh.confirmed + self.reachable_time:
                self._arm(neigh, neigh.confirmed + self.reachable_time + 1)
                return
            neigh.connected = False
            if now <= neigh.used + settings.delay_probe_time:
                neigh.state = NUD_DELAY
                neigh.updated = now
                self._arm(neigh, now + settings.delay_probe_time)
            else:
                neigh.state = NUD_STALE
                neigh.updated = now
            return
        if state == NUD_DELAY:
            if now <= neigh.confirmed + settings.delay_probe_time:
                neigh.state = NUD_REACHABLE
                neigh.connected = True
                neigh.updated = now
                self._arm(neigh, max(now, neigh.confirmed + self._reachable(now)) + 1)
                return
            neigh.state = NUD_PROBE
            neigh.updated = now
            neigh.probes = 0
        if neigh.state == NUD_PROBE or neigh.state == NUD_INCOMPLETE:
            limit: cython.int = settings.ucast_probes
            if neigh.state == NUD_INCOMPLETE:
                limit += settings.mcast_probes
            if neigh.probes >= limit:
                self._fail(neigh, now)
                return
            self._arm(neigh, now + settings.retrans_time)
            self._probe(neigh)

    def _fail(self, neigh: Neighbour, now: cython.ulonglong) -> None:
        """Nobody answered: everything that waited gets host unreachable (Linux: neigh_invalidate, arp_error_report)."""
        neigh.state = NUD_FAILED
        neigh.connected = False
        neigh.updated = now
        if self.watcher is not None:
            self.watcher(neigh)
        waiting: list[Packet] = neigh.queue
        neigh.queue = []
        neigh.queued = 0
        pkt: Packet
        for pkt in waiting:
            if neigh.family == NFPROTO_IPV4:
                self.router.send_error(pkt, ICMP_DEST_UNREACH, ICMP_HOST_UNREACH, 0)
            else:
                self.router.send_error(pkt, ICMPV6_DEST_UNREACH, ICMPV6_ADDR_UNREACH, 0)
            self.router.drop(pkt, DROP_NEIGH_FAILED)

    # -- bounds

    def _room(self) -> bool:
        settings = self.router.settings
        size: cython.Py_ssize_t = len(self.entries) - self.permanent
        if size < settings.gc_thresh2:
            return True
        now = self.router.clock.now
        if size >= settings.gc_thresh3 or now - self.last_flush > 5 * settings.retrans_time:
            self.last_flush = now
            self._collect(now, True)
        return len(self.entries) - self.permanent < settings.gc_thresh3

    def _collect(self, now: cython.ulonglong, forced: cython.bint) -> None:
        """Drop entries nobody needs: failed, or unused for gc_stale_time (Linux: neigh_periodic_work, neigh_forced_gc)."""
        settings = self.router.settings
        if not forced and len(self.entries) < settings.gc_thresh1:
            return
        surplus = len(self.entries) - self.permanent - settings.gc_thresh2 + 1
        for neigh in list(self.entries.values()):
            if neigh.state & (NUD_PERMANENT | NUD_NOARP) or neigh.queue:
                continue
            useless = neigh.state in (NUD_FAILED, NUD_NONE) or now - max(neigh.used, neigh.confirmed) > settings.gc_stale_time
            spare = forced and surplus > 0 and neigh.state == NUD_STALE and now - neigh.updated > 5 * settings.retrans_time
            if useless or spare:
                self.remove(neigh)
                surplus -= 1


def has_link_address(device: Device) -> cython.bint:
    """Frames of the device carry link-layer addresses, so neighbours must be found."""
    return device.type == ARPHRD_ETHER
