"""From worker to worker: a packet that came to the wrong one, copies of what every worker must learn, and news of strays.

Each worker reads one end of a socket pair of its own (SOCK_SEQPACKET: whole messages, in order); all others write to the other end.
A message is a header of 48 bytes, which stands in the packet's headroom, and the frame.

Laws:
- `Handover` stands on prerouting and output right behind defragmentation, so a packet meets every entry of every hook exactly
  once: those up to here at the worker that received it, all others at its owner. The steering program only saves this way;
  nothing depends on it.
- What a worker told before a packet left is known before an answer is judged: messages are read after frames are received and
  before they are judged (`Entrance`).
- A tuple's home knows who owns it if not the home itself: `claims`. Expectations of other workers are `foreign`. Both are
  empty, and then cost nothing, unless helpers are at work.
- Fragments meet at worker 0 (`Pieces`) and go on as one packet to their owner.
- Answers of neighbours (ARP replies, gratuitous ARP, neighbour advertisements) are copied to every worker; questions are not.
- A full socket loses packets, counted in `lost` and as TX_QUEUE_FULL, but no news.
"""

import cython

if not cython.compiled:
    from userfw.conntrack.conn import Tuple
    from userfw.conntrack.steer import Steering
    from userfw.conntrack.table import ConnTable
    from userfw.conntrack.tuples import inner_l4, inner_proto, invert, read_tuple
    from userfw.core.const import (
        ARPHRD_ETHER,
        CT_UNTRACKED,
        HEADROOM,
        IPPROTO_ICMP,
        IPPROTO_ICMPV6,
        IPPROTO_TCP,
        IPPROTO_UDP,
        MAX_FRAME,
        NF_ACCEPT,
        NF_DROP,
        NF_INET_LOCAL_OUT,
        NF_STOLEN,
        NFPROTO_IPV4,
    )
    from userfw.core.drop import DROP_NOT_SPECIFIED, DROP_TX_QUEUE_FULL
    from userfw.core.hook import HookEntry, HookList
    from userfw.core.packet import Device, Packet
    from userfw.ports._io import read_at, write_at
    from userfw.ports.base import IoPort
    from userfw.router.gateway import Gateway
    from userfw.router.reassembly import FragmentSizes

    HEADER, KIND_HOME, KIND_OWNER, KIND_COPY, KIND_TOLD, KIND_PIECE = 48, 1, 2, 3, 4, 5

from collections.abc import Callable
from typing import Any

PRIORITY = -400  # behind defragmentation, which is registered before


class Pieces(HookEntry):
    """Right before defragmentation: all fragments go to worker 0, where they meet."""

    def __init__(self, handover: Any) -> None:
        super().__init__(PRIORITY)
        self.handover = handover

    def run(self, pkt: Packet, hook: cython.int) -> cython.int:
        """NF_ACCEPT, or NF_STOLEN for a fragment that is better off elsewhere."""
        if not pkt.is_fragment or self.handover.steering.index == 0 or pkt.ct is not None or pkt.ctinfo == CT_UNTRACKED:
            return NF_ACCEPT
        if self.handover.give(pkt, hook, 0, KIND_PIECE):
            return NF_STOLEN
        return NF_DROP


class Handover(HookEntry):
    """One worker's end. `fds`: where to write to each worker (-1: this one); `fd`: where to read.

    `told(bytes)`: called with other workers' news. `claims`: key of a tuple to its owner; `foreign`: (expectation, owner) pairs,
    both kept by `daemon.strays`. Counters: packets `given` to and `taken` from others, `copies` sent, packets `lost`.
    """

    def __init__(self, gateway: Gateway, table: ConnTable, steering: Steering, fds: list[int], fd: int) -> None:
        super().__init__(PRIORITY)
        self.gateway = gateway
        self.table = table
        self.steering = steering
        self.fds = fds
        self.fd = fd
        self.told: Callable[[bytes], None] | None = None
        self.pieces = Pieces(self)
        self.claims: dict[tuple[int, ...], int] = {}
        self.foreign: list[Any] = []
        self.given = self.taken = self.lost = self.copies = 0
        self.unsent: list[tuple[int, bytes]] = []
        self.copying = False
        self.slot = Packet()
        self.scratch = Packet()
        self.key = Tuple()
        self.other = Tuple()

    # -- on the path

    def run(self, pkt: Packet, hook: cython.int) -> cython.int:
        """NF_ACCEPT if the packet is ours, NF_STOLEN if it went to its owner."""
        home: cython.int
        if pkt.ct is not None or pkt.ctinfo == CT_UNTRACKED or self.copying:
            return NF_ACCEPT
        if hook == NF_INET_LOCAL_OUT and pkt.l4proto != IPPROTO_TCP and pkt.l4proto != IPPROTO_UDP:
            return NF_ACCEPT  # errors, and questions to neighbours, are this worker's own
        home = self.steering.of_packet(pkt)
        if home != self.steering.index:
            if self.give(pkt, hook, home, KIND_HOME):
                return NF_STOLEN
            return NF_DROP
        if self.claims or self.foreign:
            home = self.owner(pkt)
            if home >= 0:
                if self.give(pkt, hook, home, KIND_OWNER):
                    return NF_STOLEN
                return NF_DROP
        return NF_ACCEPT

    def owner(self, pkt: Packet) -> cython.int:
        """The worker that owns the packet's connection or expects it, although its home is here; -1 if nobody does."""
        key: Tuple = self.key
        l4: cython.Py_ssize_t
        proto: cython.int = pkt.l4proto
        if not pkt.has_l4:
            return -1
        if proto in (IPPROTO_ICMP, IPPROTO_ICMPV6) and self._is_error(pkt):
            l4 = inner_l4(pkt, pkt.nfproto, pkt.l4 + 8)
            if l4 < 0 or not read_tuple(pkt, pkt.nfproto, pkt.l4 + 8, l4, inner_proto(pkt, pkt.nfproto, pkt.l4 + 8), self.other):
                return -1
            if not invert(self.other, key):
                return -1
        elif not read_tuple(pkt, pkt.nfproto, pkt.l3, pkt.l4, proto, key):
            return -1
        key.zone = 0
        found = self.claims.get(key_of(key))
        if found is not None:
            worker: cython.int = found
            return worker
        if self.foreign and self.table.find(key) is None:
            for expectation, owner in self.foreign:
                if expectation.matches(key, self.table.clock.now):
                    return owner  # type: ignore[no-any-return]
        return -1

    def _is_error(self, pkt: Packet) -> bool:
        kind = pkt.get8(pkt.l4)
        return kind in (3, 4, 5, 11, 12) if pkt.nfproto == NFPROTO_IPV4 else kind < 128

    # -- sending

    def give(self, pkt: Packet, hook: cython.int, worker: cython.int, kind: cython.int) -> cython.int:
        """Send a packet over: 1, or 0 with its `drop_reason`."""
        source: Packet = pkt
        fd: cython.int = self.fds[worker]
        if pkt.start < HEADER:
            source = self.scratch
            source.copy_meta(pkt)
            source.data[HEADROOM : HEADROOM + pkt.end - pkt.start] = pkt.data[pkt.start : pkt.end]
            source.start = HEADROOM
            source.end = HEADROOM + pkt.end - pkt.start
            source.l3 += HEADROOM - pkt.start
            source.l4 += HEADROOM - pkt.start
        self._fill(source, hook, kind)
        trailer: cython.Py_ssize_t = 0 if pkt.extra is None else self._add_sizes(source, pkt.extra)
        if write_at(fd, source.data, source.start - HEADER, source.end - source.start + HEADER + trailer) < 0:
            self.lost += 1
            pkt.drop_reason = DROP_TX_QUEUE_FULL
            return 0
        self.given += 1
        return 1

    def _fill(self, pkt: Packet, hook: cython.int, kind: cython.int) -> cython.int:
        """The header, into the headroom."""
        at: cython.Py_ssize_t = pkt.start - HEADER
        device: Device | None = pkt.iif
        pkt.put8(at, kind)
        pkt.put8(at + 1, hook)
        pkt.put8(at + 2, pkt.nfproto)
        pkt.put8(at + 3, pkt.l4proto)
        pkt.put32(at + 4, device.index if device is not None else 0)
        pkt.put32(at + 8, pkt.mark)
        pkt.put32(at + 12, pkt.priority)
        pkt.put32(at + 16, pkt.secmark)
        pkt.put16(at + 20, cython.cast(cython.uint, pkt.l3 - pkt.start))
        pkt.put16(at + 22, cython.cast(cython.uint, pkt.l4 - pkt.start))
        pkt.put16(at + 24, pkt.protocol)
        pkt.put16(at + 26, pkt.vlan_tci & 0xFFFF)
        pkt.put8(at + 28, pkt.vnet_flags)
        pkt.put8(at + 29, pkt.gso_type)
        pkt.put16(at + 30, pkt.gso_size)
        pkt.put16(at + 32, pkt.csum_start)
        pkt.put16(at + 34, pkt.csum_offset)
        pkt.put16(at + 36, pkt.frag_max_size)
        pkt.put8(at + 38, pkt.pkttype)
        flags: cython.uint = (1 if pkt.has_l4 else 0) | (2 if pkt.trace else 0)
        flags |= (4 if pkt.looped else 0) | (8 if pkt.vlan_tci >= 0 else 0)
        pkt.put8(at + 39, flags)
        pkt.put32(at + 40, cython.cast(cython.uint, pkt.fragoff))
        pkt.put32(at + 44, 0)
        return 0

    def _add_sizes(self, pkt: Packet, extra: object) -> cython.Py_ssize_t:
        """Behind the frame, the sizes of the fragments it was put together from; how many bytes."""
        if not isinstance(extra, FragmentSizes):
            return 0
        sizes: list[int] = extra.sizes
        i: cython.Py_ssize_t
        at: cython.Py_ssize_t = pkt.end
        if at + 2 * len(sizes) > len(pkt.data) or at + 2 * len(sizes) - pkt.start > MAX_FRAME:
            return 0  # they leave by the largest size then
        for i in range(len(sizes)):
            pkt.put16(at + 2 * i, sizes[i])
        pkt.put32(pkt.start - HEADER + 44, len(sizes))
        return 2 * len(sizes)

    def spread(self, pkt: Packet) -> cython.int:
        """A copy of a received frame to every other worker; how many got one."""
        worker: cython.int
        n: cython.int = 0
        for worker in range(self.steering.count):
            if worker != self.steering.index and self.give(pkt, 0, worker, KIND_COPY):
                self.copies += 1
                self.given -= 1
                n += 1
        pkt.drop_reason = DROP_NOT_SPECIFIED
        return n

    def tell(self, worker: int, news: bytes) -> None:
        """News for another worker; kept until the socket takes it. ValueError if it is longer than a packet."""
        self.unsent.append((worker, news))
        self.push()

    def push(self) -> None:
        """Send the news that are waiting, in their order."""
        while self.unsent:
            worker, news = self.unsent[0]
            pkt = self.scratch
            pkt.load_frame(news)
            pkt.put8(pkt.start - HEADER, KIND_TOLD)
            if write_at(self.fds[worker], pkt.data, pkt.start - HEADER, len(news) + HEADER) == -11:
                return
            self.unsent.pop(0)

    # -- receiving

    def drain(self, budget: cython.int) -> cython.int:
        """Judge what other workers sent; how many messages. To be called between two batches."""
        n: cython.int = 0
        got: cython.Py_ssize_t
        kind: cython.int
        hook: cython.int
        owner: cython.int
        pkt: Packet
        while n < budget:
            pkt = self.slot
            pkt.reset()
            got = read_at(self.fd, pkt.data, HEADROOM - HEADER, MAX_FRAME + HEADER)
            if got < HEADER:
                break
            n += 1
            kind = pkt.get8(HEADROOM - HEADER)
            if kind == KIND_TOLD:
                if self.told is not None:
                    self.told(bytes(pkt.data[HEADROOM : HEADROOM + got - HEADER]))
                continue
            hook = pkt.get8(HEADROOM - HEADER + 1)
            self._restore(pkt, got)
            if kind == KIND_COPY:
                self.copying = True
                self.gateway.receive(pkt)
                self.copying = False
            else:
                self.taken += 1
                owner = -1
                if kind == KIND_HOME and (self.claims or self.foreign):
                    owner = self.owner(pkt)
                if owner >= 0:
                    if not self.give(pkt, hook, owner, KIND_OWNER):
                        self.gateway.drop(pkt, pkt.drop_reason)
                else:
                    try:
                        pkt.is_fragment = kind == KIND_PIECE
                        self._go_on(pkt, hook, self.pieces if kind == KIND_PIECE else self)
                        self.gateway.drain()
                    except Exception as error:
                        self.gateway.report(error, "handover")
            if pkt.stolen:
                self.slot = self.gateway.take()
        if n:
            self.gateway.end_batch()
        return n

    def _restore(self, pkt: Packet, got: cython.Py_ssize_t) -> cython.int:
        at: cython.Py_ssize_t = HEADROOM - HEADER
        flags: cython.uint = pkt.get8(at + 39)
        pkt.end = HEADROOM + got - HEADER
        pkt.nfproto = pkt.get8(at + 2)
        pkt.l4proto = pkt.get8(at + 3)
        pkt.iif = self.gateway.devices.get(pkt.get32(at + 4))
        pkt.mark = pkt.get32(at + 8)
        pkt.priority = pkt.get32(at + 12)
        pkt.secmark = pkt.get32(at + 16)
        pkt.l3 = HEADROOM + pkt.get16(at + 20)
        pkt.l4 = HEADROOM + pkt.get16(at + 22)
        pkt.protocol = pkt.get16(at + 24)
        pkt.vlan_tci = pkt.get16(at + 26) if flags & 8 else -1
        pkt.vnet_flags = pkt.get8(at + 28)
        pkt.gso_type = pkt.get8(at + 29)
        pkt.gso_size = pkt.get16(at + 30)
        pkt.csum_start = pkt.get16(at + 32)
        pkt.csum_offset = pkt.get16(at + 34)
        pkt.frag_max_size = pkt.get16(at + 36)
        pkt.pkttype = pkt.get8(at + 38)
        pkt.fragoff = pkt.get32(at + 40)
        count: cython.uint = pkt.get32(at + 44)
        if count:
            pkt.end -= 2 * count
            sizes: list[int] = []
            i: cython.uint
            for i in range(count):
                sizes.append(pkt.get16(pkt.end + 2 * i))
            pkt.extra = FragmentSizes(sizes)
        pkt.has_l4 = flags & 1 != 0
        pkt.trace = flags & 2 != 0
        pkt.looped = flags & 4 != 0
        return 0

    def _go_on(self, pkt: Packet, hook: cython.int, entry: HookEntry) -> cython.int:
        """Behind `entry` of the hook, and on."""
        gateway: Gateway = self.gateway
        entries: HookList | None = None
        position: cython.int = 0
        i: cython.int
        verdict: cython.int
        if hook == NF_INET_LOCAL_OUT:
            self._route(pkt)
        elif pkt.iif is None:
            return 0  # its device is gone here already
        if gateway.pipeline is not None:
            entries = gateway.pipeline.get(pkt.nfproto, hook)
        if entries is not None:
            for i in range(entries.size):
                if entries.entries[i] is entry:
                    position = i + 1
            verdict = entries.resume(pkt, position)
            if verdict != NF_ACCEPT:
                return gateway.verdict(pkt, verdict)
        return gateway.continue_after(pkt, pkt.nfproto, hook)

    def _route(self, pkt: Packet) -> None:
        """The way of a packet of the gateway's own, as `local_out` finds it."""
        route = self.gateway.route_output(pkt)
        if route.ways is not None:
            route = self.gateway.routes.way(route, 0)
        pkt.route = route
        pkt.oif = route.oif


class HandoverPort(IoPort):
    """What the packet loop watches; the messages are judged by `Handover.drain`, so no packet is passed on."""

    def __init__(self, handover: Handover) -> None:
        super().__init__("handover", "handover")
        self.handover = handover
        self.fd = handover.fd

    def receive(self, slots: list, budget: cython.int) -> cython.int:  # type: ignore[type-arg]
        """Always 0: everything is done when this returns."""
        self.handover.drain(budget)
        return 0

    def close(self) -> None:
        """The descriptor belongs to the worker."""


class Entrance:
    """What the packet loop feeds instead of the gateway: news first, then the batch."""

    def __init__(self, handover: Handover) -> None:
        self.handover = handover
        self.gateway = handover.gateway

    def receive_batch(self, packets: list, n: cython.Py_ssize_t) -> cython.int:  # type: ignore[type-arg]
        """As Gateway.receive_batch."""
        i: cython.Py_ssize_t
        for i in range(n):
            if _for_everyone(packets[i]):
                self.handover.spread(packets[i])
        self.handover.drain(64)
        return self.gateway.receive_batch(packets, n)

    def end_batch(self) -> cython.int:
        """As Gateway.end_batch."""
        return self.gateway.end_batch()


def _for_everyone(pkt: Packet) -> cython.bint:
    """An ARP reply, a gratuitous ARP request, or a neighbour advertisement, as it came from the wire."""
    at: cython.Py_ssize_t = pkt.start + 12
    device: Device | None = pkt.iif
    kind: cython.uint
    if device is None or device.type != ARPHRD_ETHER or pkt.end < at + 30:
        return False
    kind = pkt.get16(at)
    if kind == 0x8100 or kind == 0x88A8:
        at += 4
        kind = pkt.get16(at)
        if pkt.end < at + 30:
            return False
    if kind == 0x0806:
        return pkt.get16(at + 8) == 2 or pkt.get32(at + 16) == pkt.get32(at + 26)
    if kind != 0x86DD or pkt.get8(at + 8) != 58 or pkt.end < at + 43:
        return False
    return pkt.get8(at + 42) == 136


def key_of(key: Tuple) -> tuple[int, ...]:
    """A tuple as a dictionary's key, zones left out."""
    return (key.l3num, key.l4proto, key.src_hi, key.src_lo, key.dst_hi, key.dst_lo, key.sport, key.dport)
