"""The gateway: everything a packet meets between two ports, in one object.

Its layers, each a file: `base.Router` (what the parts share), `path.Path` (the walk of a packet), `batch.Batches` (of many),
`interfaces.Interfaces` (devices, addresses, routes), `answers.Answers` (what rules ask of their surroundings), and here what runs
by time and what `userfw status` shows.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import cython

if not cython.compiled:
    from userfw.conntrack.conn import Conn, TupleNode
    from userfw.core.clock import Clock
    from userfw.core.const import CT_DIR_ORIGINAL, ETH_P_8021AD, ETH_P_8021Q, NF_DROP
    from userfw.core.drop import DROP_CHECKSUM
    from userfw.core.fastpath import CachedRoute, Crossing, Sender
    from userfw.core.packet import Device, Packet
    from userfw.engine.services import SocketInfo
    from userfw.router.answers import Answers
    from userfw.router.const import NUD_VALID, RTN_LOCAL, RTN_UNICAST
    from userfw.router.crossing import BridgeCrossing, walk
    from userfw.router.icmp import Icmp
    from userfw.router.local import Local
    from userfw.router.nd import Ndisc
    from userfw.router.ra import Advertisement, Advertiser
    from userfw.router.settings import Settings
    from userfw.router.synproxy import Synproxy
    from userfw.router.types import Dst, Neighbour
from userfw.router.nd import link_local_of
from userfw.router.pmtu import PathMtus
from userfw.router.queue import Queues
from userfw.router.reassembly import Defrag
from userfw.router.sockets import Sockets


class GatewaySender(Sender):
    """What a fast path sends with (core.fastpath.Sender)."""

    def __init__(self, gateway: Gateway) -> None:
        super().__init__()
        self.gateway = gateway

    def emit(self, pkt: Packet) -> cython.int:
        return self.gateway.emit(pkt)

    def emit_through(self, pkt: Packet, device: Device, tags: cython.uint, crossing: Crossing | None) -> cython.int:
        return self.gateway.emit_through(pkt, device, tags, crossing)

    def deliver(self, pkt: Packet) -> cython.int:
        return self.gateway.local.hand_over(pkt)

    def cross(
        self, route: CachedRoute, hi: cython.ulonglong, lo: cython.ulonglong, bridge: Device, tags: cython.uint
    ) -> Crossing | None:
        found = self.gateway.walk_bridge(route, hi, lo, bridge, tags)
        return found if isinstance(found, Crossing) else None

    def route_local(self, pkt: Packet, out: cython.bint) -> CachedRoute | None:
        return self.gateway.route_local(pkt, out)

    def route_back(self, pkt: Packet) -> CachedRoute | None:
        return self.gateway.route_back(pkt)


class Gateway(Answers):
    """Devices, routes, neighbours, the path, and the answers to what rules ask of their surroundings.

    `sender`: for fast paths. `defrag`: the entry at -400 of a pipeline that tracks connections.
    """

    def __init__(
        self,
        clock: Clock,
        rng: random.Random | None = None,
        settings: Settings | None = None,
        fault: Callable[[BaseException, str], None] | None = None,
    ) -> None:
        super().__init__(clock, rng, settings, fault)
        self.icmp = Icmp(self)
        self.ndisc = Ndisc(self, self.neighbours)
        self.neighbours.ndisc = self.ndisc
        self.advertiser = Advertiser(self, self.ndisc, link_local_of)
        self.ndisc.advertiser = self.advertiser
        self.paths = PathMtus(self)
        self.local = Local(self, self.icmp, self.ndisc, self.paths)
        self.sender = GatewaySender(self)
        self.defrag = Defrag(self.reassembly)
        self.queues = Queues(self)
        self.proxy = Synproxy(self)
        self.sockets = Sockets(self)
        self.on_queue = self.queues.enqueue

    def send_error(self, pkt: Packet, type: cython.int, code: cython.int, info: cython.uint) -> cython.int:
        sent: cython.int = self.icmp.error(pkt, type, code, info)
        self.settle()
        return sent

    def synproxy(self, pkt: Packet, hook: cython.int, mss: cython.int, wscale: cython.int, flags: cython.int) -> cython.int:
        if not self._segment_intact(pkt, hook):
            pkt.drop_reason = DROP_CHECKSUM
            return NF_DROP
        return self.proxy.statement(pkt, mss, wscale, flags)

    def socket(self, pkt: Packet) -> SocketInfo | None:
        return self.sockets.find(pkt)

    def tproxy(self, pkt: Packet, family: cython.int, address: bytes, port: cython.int) -> cython.int:
        return self.sockets.assign(pkt, family, address, port)

    def route_error(self, pkt: Packet, code: cython.int) -> cython.int:
        return self.icmp.route_error(pkt, code)

    def deliver(self, pkt: Packet) -> cython.int:
        return self.local.deliver_untrusted(pkt)

    def set_local_port(self, device: Device | None) -> None:
        """The TUN device behind which services carry the gateway's addresses; None: nothing listens here."""
        self.local_device = device
        self.local.device = device
        self.sender.host = device
        self.routes.changed()

    def walk_bridge(
        self, route: CachedRoute, hi: cython.ulonglong, lo: cython.ulonglong, device: Device, tags: cython.uint
    ) -> object:
        """The Crossing of bridge `device` for what goes along `route` to (`hi`, `lo`) under `tags`; in words, why there is none."""
        dst: Dst = cython.cast(Dst, route)
        neigh: Neighbour | None
        found: object
        crossing: BridgeCrossing
        if device.bridge is None or device.master is not None:
            return f"{device.name} is no bridge"
        neigh = self.neighbours.of_dst(dst, hi, lo)
        if neigh is None or neigh.dead or not neigh.state & NUD_VALID:
            return f"{device.name}: the neighbour's address is not known"
        found = walk(device.bridge, neigh, tags)
        if isinstance(found, BridgeCrossing):
            crossing = found
            if crossing.tags:  # a VLAN device on the port takes its frames before the bridge does
                proto = ETH_P_8021AD if crossing.tags & 0x2000 else ETH_P_8021Q
                if (cython.cast(Device, crossing.port).index, proto, crossing.tags & 0xFFF) in self.vlans:
                    crossing.both = False
        return found

    def route_local(self, pkt: Packet, out: cython.bint) -> CachedRoute | None:
        """See core.fastpath.Sender."""
        conn: Conn | None = pkt.ct
        if conn is None:
            return None
        node: TupleNode = conn.orig if pkt.ctdir == CT_DIR_ORIGINAL else conn.reply
        back: Dst
        if out:
            there: Dst = pkt.route
            back = self.routes.resolve(pkt.nfproto, node.src_hi, node.src_lo, 0, 0, pkt.mark, there.oif)
            return back if back.type == RTN_LOCAL else None
        back = self.routes.resolve(pkt.nfproto, node.src_hi, node.src_lo, node.dst_hi, node.dst_lo, pkt.mark, None)
        return back if back.ways is None and back.type == RTN_UNICAST and back.oif is pkt.iif else None

    def set_pipeline(self, pipeline: Any) -> None:
        """Swap the hooks; call it between two batches. None: no ruleset, plain routing."""
        self.pipeline = pipeline

    def advertise(self, device: Device, advertisement: Advertisement | None) -> None:
        """Send router advertisements on a device, or (None) stop."""
        self.advertiser.configure(device, advertisement)

    def remove_device(self, device: Device) -> None:
        """As Interfaces.remove_device; it stops advertising and being the local port too."""
        self.advertiser.configure(device, None)
        if self.local_device is device:
            self.set_local_port(None)
        super().remove_device(device)

    def run_held(self) -> None:
        self.queues.run()

    # -- time

    def tick(self, now: int) -> None:
        """Run everything that is due; the shell calls it at `next_deadline` and may call it at any time."""
        for part in (self.neighbours, self.reassembly, self.advertiser, self.paths):
            try:
                part.tick(now)
            except Exception as error:
                self.report(error, "tick")
        self.drain()

    def next_deadline(self) -> int:
        """The clock's value at which `tick` has something to do; 0 if never."""
        if self.pending:
            return self.clock.now
        due = (part.next_deadline() for part in (self.neighbours, self.reassembly, self.advertiser, self.paths))
        return min((when for when in due if when), default=0)

    # -- what `userfw status` shows

    def statistics(self) -> dict[str, Any]:
        """Counters and sizes by part; see also `drop_counts` and the devices' own counters."""
        states: dict[int, int] = {}
        for neigh in self.neighbours.entries.values():
            states[neigh.state] = states.get(neigh.state, 0) + 1
        return {
            "icmp": {"errors": self.icmp.sent, "limited": self.icmp.limited, "echo_replies": self.icmp.echoes},
            "fragments": {
                "cut": self.fragments.packets,
                "pieces": self.fragments.fragments,
                "refused": self.fragments.refused,
                "reassembled": self.reassembly.completed,
                "failed": self.reassembly.failed,
                "queues": len(self.reassembly.queues4) + len(self.reassembly.queues6),
                "memory": self.reassembly.memory,
            },
            "neighbours": {"entries": len(self.neighbours.entries), "states": states},
            "local": {"delivered": self.local.delivered, "resets": self.local.resets},
            "synproxy": {
                "syns": self.proxy.syns,
                "cookies_valid": self.proxy.valid,
                "cookies_invalid": self.proxy.invalid,
                "reopened": self.proxy.reopened,
            },
            "mib": dict(self.mib),
            "faults": dict(self.faults),
        }

    def list_neighbours(self) -> list[dict[str, Any]]:
        """Every neighbour, as `ip neigh` would list it; times in ns of the gateway's clock."""
        return [
            {
                "device": neigh.device.name,
                "family": neigh.family,
                "hi": neigh.hi,
                "lo": neigh.lo,
                "mac": neigh.mac,
                "state": neigh.state,
                "router": neigh.is_router,
                "queued": len(neigh.queue),
                "confirmed": neigh.confirmed,
                "used": neigh.used,
            }
            for neigh in self.neighbours.entries.values()
        ]
