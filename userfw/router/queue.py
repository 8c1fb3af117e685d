"""Queues: packets that a `queue` statement hands to a listener, and how they come back (Linux: nfnetlink_queue.c, nf_queue.c).

Laws:
- A queue holds copies; the packet's own buffer goes on being used. What comes back goes on behind the base chain that queued it,
  or (repeat) to that chain once more. If that chain is gone meanwhile, the packet is dropped.
- Nobody listens: accept with `bypass`, else drop. Full: drop, or accept if the listener asked for fail-open. A listener that goes
  away takes the packets it holds with it.
- A listener that did not ask for `gso` gets plain frames with whole checksums, so one packet may be queued as several.
- A verdict given while the listener is being called is applied at once; one for another packet after the present packet's path.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from userfw.core.const import (
    MAX_FRAME,
    NF_ACCEPT,
    NF_DROP,
    NF_INET_LOCAL_OUT,
    NF_QUEUE,
    NF_REPEAT,
    NF_STOLEN,
    NFPROTO_BRIDGE,
    NFPROTO_IPV4,
    NFPROTO_IPV6,
)
from userfw.core.drop import (
    DROP_INTERNAL_ERROR,
    DROP_MALFORMED,
    DROP_NOT_SPECIFIED,
    DROP_QUEUE,
    DROP_QUEUE_FULL,
    DROP_QUEUE_VERDICT,
)
from userfw.core.hook import HookEntry, HookList
from userfw.core.packet import Device, Packet
from userfw.router.base import compact
from userfw.wire.gso import complete_checksum, segment, segment_count
from userfw.wire.parse import parse_network_untrusted

if TYPE_CHECKING:
    from userfw.router.gateway import Gateway

LENGTH = 1024  # Linux: NFQNL_QMAX_DEFAULT
COPY_RANGE = 0xFFFF


class QueuedPacket:
    """A packet in a queue. Call `accept`, `drop`, `repeat` or `requeue` once; `set_mark` and `set_payload` before it.

    - `id`: its number in `queue`. `hook`: NF_INET_*; `family`: NFPROTO_* of the table. `payload`: from the network header on,
      at most the queue's copy range; `length` its whole length. `when`: nanoseconds of the gateway's clock.
    """

    def __init__(self, queue: Queue, ident: int, packet: Packet, hook: int, entry: HookEntry, when: int) -> None:
        self.queue = queue
        self.id = ident
        self.packet = packet
        self.hook = hook
        self.entry = entry
        self.when = when
        self.family = int(getattr(entry, "family", packet.nfproto))
        self.mark: int | None = None
        self.replacement: bytes | None = None
        self.verdict = -1
        self.target = 0
        self.route_key = _route_key(packet) if hook == NF_INET_LOCAL_OUT else b""

    @property
    def payload(self) -> bytes:
        """The packet from its network header on, cut at the queue's copy range."""
        pkt = self.packet
        return bytes(pkt.data[pkt.l3 : min(pkt.end, pkt.l3 + self.queue.copy_range)])

    @property
    def length(self) -> int:
        """Bytes from the network header on."""
        return int(self.packet.end - self.packet.l3)

    def describe(self) -> dict[str, Any]:
        """What is known of the packet besides its bytes, as plain values."""
        pkt = self.packet
        facts: dict[str, Any] = {
            "queue": self.queue.number, "id": self.id, "hook": self.hook, "family": self.family, "protocol": pkt.protocol,
            "mark": pkt.mark, "length": self.length, "iif": _name(pkt.iif), "oif": _name(pkt.oif),
        }  # fmt: skip
        if pkt.iif is not None and pkt.l3 - pkt.start >= 14:
            facts["mac"] = bytes(pkt.data[pkt.start + 6 : pkt.start + 12]).hex(":")
        if pkt.vlan_tci >= 0:
            facts["vlan"] = pkt.vlan_tci
        if pkt.ct is not None:
            facts["ct"] = {"id": int(pkt.ct.id), "info": int(pkt.ctinfo), "direction": int(pkt.ctdir), "mark": int(pkt.ct.mark)}
        if pkt.gso_size:
            facts["gso_size"] = pkt.gso_size
        if pkt.vnet_flags & 1:
            facts["checksum"] = "partial"
        return facts

    def set_mark(self, mark: int) -> None:
        """The packet's mark when it goes on."""
        self.mark = mark & 0xFFFFFFFF

    def set_payload(self, payload: bytes) -> None:
        """Replace everything from the network header on; checksums are the listener's business. ValueError if it is too long."""
        if len(payload) > MAX_FRAME - (self.packet.l3 - self.packet.start):
            raise ValueError(f"a payload of {len(payload)} bytes is too long")
        self.replacement = bytes(payload)

    def accept(self) -> None:
        """Go on behind the chain that queued it."""
        self.queue.decide(self, NF_ACCEPT)

    def drop(self) -> None:
        """The end, counted as QUEUE_VERDICT."""
        self.queue.decide(self, NF_DROP)

    def repeat(self) -> None:
        """The same chain once more; set a mark that its rule asks for, or it comes back."""
        self.queue.decide(self, NF_REPEAT)

    def requeue(self, number: int) -> None:
        """To another queue."""
        if not 0 <= number <= 0xFFFF:
            raise ValueError("queues are numbered 0 to 65535")
        self.target = number
        self.queue.decide(self, NF_QUEUE)


Listener = Callable[[QueuedPacket], None]


class Queue:
    """One queue with its listener. `full`: packets dropped because it was; `total`: packets ever queued; `accepted_full`: those
    that fail-open let pass; `lost`: packets that the listener could not be given."""

    def __init__(self, queues: Queues, number: int, listener: Listener, length: int, fail_open: bool, copy_range: int, gso: bool,
                 name: str) -> None:  # fmt: skip
        self.queues = queues
        self.number = number
        self.listener = listener
        self.length = length
        self.fail_open = fail_open
        self.copy_range = copy_range or COPY_RANGE
        self.gso = gso
        self.name = name
        self.held: dict[int, QueuedPacket] = {}
        self.next = 0
        self.total = 0
        self.full = 0
        self.accepted_full = 0
        self.lost = 0

    def decide(self, queued: QueuedPacket, verdict: int) -> None:
        """A verdict for a held packet. LookupError if it has one already."""
        if self.held.pop(queued.id, None) is not queued:
            raise LookupError(f"queue {self.number} holds no packet {queued.id}")
        queued.verdict = verdict
        self.queues.decided(queued)

    def drop_all(self) -> None:
        """Drop what is held (Linux: nfqnl_flush)."""
        for queued in list(self.held.values()):
            self.queues.gateway.drop(queued.packet, DROP_QUEUE)
        self.held.clear()


class Queues:
    """All queues of a gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.queues: dict[int, Queue] = {}
        self.calling: QueuedPacket | None = None
        self.ready: list[QueuedPacket] = []
        gateway.listeners.append(self._device_changed)

    def bind(
        self,
        number: int,
        listener: Listener,
        *,
        length: int = LENGTH,
        fail_open: bool = False,
        copy_range: int = COPY_RANGE,
        gso: bool = False,
        name: str = "",
    ) -> Queue:
        """Listen on queue `number`; ValueError if somebody does. `listener` is called on the packet path with each packet."""
        if not 0 <= number <= 0xFFFF:
            raise ValueError("queues are numbered 0 to 65535")
        if number in self.queues:
            raise ValueError(f"queue {number} has a listener already")
        if length < 1 or not 0 <= copy_range <= COPY_RANGE:
            raise ValueError("a queue holds at least one packet, and its copy range is 16 bits")
        queue = self.queues[number] = Queue(self, number, listener, length, fail_open, copy_range, gso, name)
        return queue

    def unbind(self, number: int) -> None:
        """Stop listening; packets that are held are dropped. LookupError."""
        self.queues.pop(number).drop_all()

    def listing(self) -> list[dict[str, Any]]:
        """Every queue with its counters, as /proc/net/netfilter/nfnetlink_queue and more."""
        return [
            {
                "queue": q.number, "listener": q.name, "held": len(q.held), "length": q.length, "copy_range": q.copy_range,
                "fail_open": q.fail_open, "gso": q.gso, "total": q.total, "dropped_full": q.full, "accepted_full": q.accepted_full,
                "dropped_listener": q.lost,
            }
            for _, q in sorted(self.queues.items())
        ]  # fmt: skip

    # -- in

    def enqueue(self, pkt: Packet, hook: int, entry: HookEntry, number: int, bypass: bool) -> int:
        """See engine.services.Services.enqueue."""
        queue = self.queues.get(number)
        if queue is None:
            if bypass:
                return NF_ACCEPT
            pkt.drop_reason = DROP_QUEUE
            return NF_DROP
        count = 1 if queue.gso else segment_count(pkt)
        if count == 1:
            copy = compact(pkt)
            if not queue.gso:
                complete_checksum(copy)
            return self._one(queue, copy, hook, entry, pkt)
        whole = self.gateway.take()
        taken = NF_DROP
        for index in range(count):
            segment(pkt, index, whole)
            if self._one(queue, compact(whole), hook, entry, None) != NF_DROP:
                taken = NF_STOLEN
        self.gateway.give(whole)
        if taken == NF_DROP:
            pkt.drop_reason = DROP_QUEUE_FULL
        return taken

    def _one(self, queue: Queue, copy: Packet, hook: int, entry: HookEntry, live: Packet | None) -> int:
        """Hold `copy` and call the listener. `live`: the packet itself, to which an immediate verdict applies."""
        queued = QueuedPacket(queue, queue.next, copy, hook, entry, self.gateway.clock.now)
        if len(queue.held) >= queue.length:
            if not queue.fail_open:
                queue.full += 1
                if live is not None:
                    live.drop_reason = DROP_QUEUE_FULL
                else:
                    self.gateway.count_drop(copy, DROP_QUEUE_FULL)
                return NF_DROP
            queue.accepted_full += 1
            if live is not None:
                return NF_ACCEPT
            queued.verdict = NF_ACCEPT
            self._later(queued)
            return NF_STOLEN
        queue.next = (queue.next + 1) & 0xFFFFFFFF
        queue.total += 1
        queue.held[queued.id] = queued
        outer, self.calling = self.calling, queued
        try:
            queue.listener(queued)
        except Exception as error:
            self.gateway.report(error, "queue listener")
            queue.lost += 1
            queue.held.pop(queued.id, None)
            queued.verdict = NF_DROP
        finally:
            self.calling = outer
        return self._at_once(queued, live)

    def _at_once(self, queued: QueuedPacket, live: Packet | None) -> int:
        """What the listener said while it was called."""
        if queued.verdict < 0:
            return NF_STOLEN
        if live is None or queued.verdict in (NF_REPEAT, NF_QUEUE):
            self._later(queued)
            return NF_STOLEN
        if queued.verdict == NF_DROP:
            live.drop_reason = DROP_QUEUE_VERDICT
            return NF_DROP
        if queued.mark is not None:
            live.mark = queued.mark
        if queued.replacement is not None and not _replace(live, queued.replacement):
            live.drop_reason = DROP_MALFORMED
            return NF_DROP
        if queued.hook == NF_INET_LOCAL_OUT and _route_key(live) != queued.route_key:
            return int(self.gateway.reroute(live, queued.hook))
        return NF_ACCEPT

    # -- back

    def decided(self, queued: QueuedPacket) -> None:
        """A verdict came: now if nothing is under way, else when the present packet's path is walked."""
        if self.calling is queued:
            return
        if self.calling is not None:
            self._later(queued)
        else:
            self._reinject(queued)
            self.gateway.drain()

    def _later(self, queued: QueuedPacket) -> None:
        self.ready.append(queued)
        self.gateway.pending = True

    def run(self) -> None:
        """Let packets go on that had to wait for another's path."""
        ready, self.ready = self.ready, []
        self.gateway.pending = False
        for queued in ready:
            self._reinject(queued)

    def _reinject(self, queued: QueuedPacket) -> None:
        """Linux: nf_reinject."""
        gateway = self.gateway
        if queued.verdict == NF_DROP:
            gateway.drop(queued.packet, DROP_QUEUE_VERDICT)
            return
        pkt = gateway.take()
        try:
            _restore(pkt, queued.packet)
            if queued.mark is not None:
                pkt.mark = queued.mark
            if queued.replacement is not None and not _replace(pkt, queued.replacement):
                gateway.drop(pkt, DROP_MALFORMED)
            else:
                self._go_on(pkt, queued)
        except Exception as error:
            gateway.report(error, "reinject")
            gateway.drop(pkt, DROP_INTERNAL_ERROR)
        gateway.give(pkt)

    def _go_on(self, pkt: Packet, queued: QueuedPacket) -> None:
        gateway, hook = self.gateway, queued.hook
        family = NFPROTO_BRIDGE if queued.family == NFPROTO_BRIDGE else pkt.nfproto
        entries: HookList | None = gateway.pipeline.get(family, hook) if gateway.pipeline is not None else None
        position = _position(entries.entries, queued.entry) if entries is not None else -1
        if entries is None or position < 0:
            gateway.drop(pkt, DROP_QUEUE)
            return
        if queued.verdict == NF_QUEUE:
            verdict = self.enqueue(pkt, hook, queued.entry, queued.target, False)
            position += 1
        else:
            verdict = NF_ACCEPT
            position += queued.verdict != NF_REPEAT
        if verdict == NF_ACCEPT and hook == NF_INET_LOCAL_OUT and family != NFPROTO_BRIDGE and _route_key(pkt) != queued.route_key:
            verdict = gateway.reroute(pkt, hook)
        if verdict == NF_ACCEPT:
            verdict = entries.resume(pkt, position)
        if verdict != NF_ACCEPT:
            gateway.verdict(pkt, verdict)
        else:
            gateway.continue_after(pkt, family, hook)

    def _device_changed(self, event: str, device: Device, address: Any) -> None:
        """Packets from or to a device that goes are dropped (Linux: nfqnl_dev_drop)."""
        if not event.startswith("device") or (event != "device-remove" and device.up):
            return
        for queue in self.queues.values():
            for queued in [q for q in queue.held.values() if device in (q.packet.iif, q.packet.oif)]:
                del queue.held[queued.id]
                self.gateway.drop(queued.packet, DROP_QUEUE)


def _position(entries: Iterable[HookEntry], entry: HookEntry) -> int:
    """Where a base chain stands: itself, or in the NAT entry that consults it; -1 if nowhere."""
    for index, candidate in enumerate(entries):
        if candidate is entry or entry in getattr(candidate, "chains", ()):
            return index
    return -1


def _restore(pkt: Packet, copy: Packet) -> None:
    pkt.copy_meta(copy)
    pkt.data[copy.start : copy.end] = copy.data[copy.start : copy.end]


def _replace(pkt: Packet, payload: bytes) -> bool:
    """Put another network packet in place of the present one; False if it is none."""
    pkt.end = pkt.l3 + len(payload)
    pkt.data[pkt.l3 : pkt.end] = payload
    pkt.vnet_flags = pkt.gso_type = pkt.gso_size = 0
    pkt.has_l4 = pkt.is_fragment = False
    pkt.fragoff = 0
    return pkt.nfproto not in (NFPROTO_IPV4, NFPROTO_IPV6) or parse_network_untrusted(pkt) == DROP_NOT_SPECIFIED


def _route_key(pkt: Packet) -> bytes:
    """What a route depends on: addresses, dscp, mark (Linux: struct ip_rt_info, ip6_rt_info)."""
    mark = int(pkt.mark).to_bytes(4, "big")
    if pkt.nfproto == NFPROTO_IPV4:
        return mark + bytes(pkt.data[pkt.l3 + 1 : pkt.l3 + 2]) + bytes(pkt.data[pkt.l3 + 12 : pkt.l3 + 20])
    return mark + bytes(pkt.data[pkt.l3 + 8 : pkt.l3 + 40])


def _name(device: Device | None) -> str:
    return device.name if device is not None else ""
