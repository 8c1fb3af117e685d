"""The packet loop's inside: from "something is readable" to "nothing is, or the time slice is over", compiled.

The event loop watches one descriptor, an epoll set of all ports, and calls `run` when it fires: interpreted code is entered once
for many batches. Laws: ready ports share the time, not the batches (daemon.shares), so a flooded one cannot starve the others;
`run` returns after its slice (plus at most one batch of each port), so that commands and timers get their turn; the clock is set
before each batch.

Busy polling: waking up costs more than a packet does, so after traffic `run` may look again for a while before it gives up. It
does so only if the last sleep was shorter than that while (as KVM's halt polling decides): an idle or slow stream of
packets costs nothing. Between two looks the processor is offered to whoever else wants it; if somebody takes it for long, there
is no looking again for a while: on a crowded machine one who sleeps is woken sooner than one who yields.
"""

import cython

if not cython.compiled:
    from userfw.conntrack.table import Stats
    from userfw.core.clock import Clock
    from userfw.core.packet import Packet
    from userfw.daemon.shares import Share, Shares
    from userfw.ports._io import Readiness, monotonic_ns, yield_processor
    from userfw.ports.base import GRO_ALL, IoPort
    from userfw.wire.gro import Coalescer

    CROWDED_NS = 100_000  # yielding for longer than this: the processor is wanted by others
    CALM_NS = 50_000_000  # no busy polling for so long after it

from typing import Any

from userfw.conntrack.table import Stats as _Stats
from userfw.core.packet import Packet as _Packet

MAX_BATCH = 64


class Poller:
    """Ports and the gateway they feed.

    `gateway` has `receive_batch(packets, n)` and `end_batch()`. `batch`: frames of one port before the next port's turn, at most.
    `busy_ns`: look again for at most so long after the last frame before going to sleep (0: sleep at once); `spin_ns`: for
    how long it is worth it just now. `stats`: counts the connections that packets open. `spins`: looks that found nothing.
    """

    def __init__(
        self, clock: Clock, gateway: Any, batch: int = MAX_BATCH, busy_ns: int = 0, stats: Stats | None = None
    ) -> None:
        self.clock = clock
        self.gateway = gateway
        self.readiness = Readiness()
        self.ports: list[IoPort | None] = []
        self.accounts: list[Share] = []
        self.shares = Shares()
        self.stats = stats if stats is not None else _Stats()
        self.slots: list[Packet] = [_Packet() for _ in range(MAX_BATCH)]
        self.batch = batch
        self.busy_ns = busy_ns
        self.spin_ns = 0
        self.slept = 0
        self.calm = 0
        self.coalescer = Coalescer()
        self.spins = 0
        self.wakeups = 0
        self.rounds = 0
        self.batches = 0
        self.packets = 0
        self.longest_ns = 0

    def add(self, port: IoPort) -> None:
        """Serve `port` from now on. OSError if its descriptor cannot be polled."""
        tag = self.ports.index(None) if None in self.ports else len(self.ports)
        self.readiness.add(port.fd, tag)
        if tag == len(self.ports):
            self.ports.append(None)
            self.accounts.append(Share())
        self.ports[tag] = port
        self.accounts[tag] = Share()

    def remove(self, port: IoPort) -> None:
        """Stop serving `port`; call before its descriptor is closed."""
        if port in self.ports:
            self.readiness.remove(port.fd)
            self.ports[self.ports.index(port)] = None

    def poll(self, port: IoPort, share: Share) -> cython.int:
        """One turn's batch from one port, walked to its end; how many frames."""
        self.clock.now = monotonic_ns()
        before: cython.ulonglong = self.stats.insert + self.stats.insert_failed
        n: cython.int = port.receive(self.slots, self.shares.budget(share, self.batch))
        if n:
            self.packets += n
            self.batches += 1
            left: cython.int = n
            if n > 1 and port.gro:
                left = self.coalescer.run(self.slots, n, port.gro == GRO_ALL)
            self.gateway.receive_batch(self.slots, left)
            self.gateway.end_batch()
        opened: cython.int = self.stats.insert + self.stats.insert_failed - before
        self.shares.charge(share, monotonic_ns() - self.clock.now, n, opened)
        return n

    def _join(self, ready: cython.int) -> cython.int:
        """Tell the shares which ports wait; 0."""
        i: cython.int
        tag: cython.int
        self.shares.look()
        for i in range(ready):
            tag = self.readiness.tag(i)
            if tag >= 0:
                self.shares.join(self.accounts[tag])
        return 0

    def run(self, slice_ns: cython.ulonglong) -> cython.int:
        """Serve until nothing is left or `slice_ns` nanoseconds are over; how many frames."""
        begin: cython.ulonglong = monotonic_ns()
        now: cython.ulonglong = begin
        last: cython.ulonglong = begin
        total: cython.int = 0
        n: cython.int
        i: cython.int
        ready: cython.int
        tag: cython.int
        port: IoPort | None
        share: Share
        self.wakeups += 1
        self.spin_ns = self.busy_ns if begin - self.slept < self.busy_ns and begin >= self.calm else 0
        while now - begin < slice_ns:
            ready = self.readiness.wait(0)
            self.rounds += 1
            self._join(ready)
            for i in range(ready):
                tag = self.readiness.tag(i)
                if tag < 0:
                    continue
                port = self.ports[tag]
                share = self.accounts[tag]
                if port is None or not self.shares.turn(share):
                    continue
                n = self.poll(port, share)
                if port.dead:
                    self.remove(port)
                if n:
                    total += n
                    last = self.clock.now
            now = monotonic_ns()
            if ready <= 0:
                if now - last >= self.spin_ns:
                    break
                self.spins += 1
                yield_processor()
                before: cython.ulonglong = now
                now = monotonic_ns()
                if now - before > CROWDED_NS:
                    self.calm = now + CALM_NS
                    self.spin_ns = 0
        self.clock.now = now
        self.slept = now
        self.longest_ns = max(self.longest_ns, now - begin)
        return total

    def close(self) -> None:
        """Release the epoll set."""
        self.readiness.close()
