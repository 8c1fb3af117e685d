"""What every port with a file descriptor shares.

Laws:
- `receive(slots, budget)` fills `slots[0..n)`, sets `iif`, and returns n; 0 when there is nothing (more). It never raises for
  what the wire or the kernel says, and stops early once 256 KB are read, so that a batch stays in the processor's cache.
- `transmit` returns 0 or a DROP_* reason at once; a port that queues does so until `flush`.
- A port that cannot send large packets calls `transmit_segments`: plain frames with whole checksums, one by one.
"""

from __future__ import annotations

import os
from typing import Any

import cython

if not cython.compiled:
    from userfw.core.drop import (
        DROP_DEVICE_DOWN,
        DROP_NOT_SPECIFIED,
        DROP_TX_FAILED,
        DROP_TX_MTU,
        DROP_TX_QUEUE_FULL,
    )
    from userfw.core.packet import Device, Packet, Port
    from userfw.wire.gso import segment, segment_count

    BATCH_BYTES = 262144
    GRO_OFF = 0
    GRO_TCP = 1
    GRO_ALL = 2

GRO = {"off": 0, "tcp": 1, "all": 2}  # names of GRO_*


class IoPort(Port):
    """A port of the operating system: one descriptor, counters of what went wrong, and how to say so.

    - `carrier`: the link is up as far as the kernel told us. `dead`: the device is gone, the descriptor good for nothing.
      `queue`: number of this descriptor among the device's. `gro`: what the poller may coalesce of what is received here (GRO_*).
    - `rx_errors`: reads that failed; `rx_truncated`: frames larger than a packet; `tx_errors`, `tx_full`: writes refused;
      `segmented`: large packets that were cut in software.
    """

    def __init__(self, name: str, kind: str) -> None:
        super().__init__()
        self.name = name
        self.kind = kind
        self.fd = -1
        self.queue = 0
        self.gro = GRO_OFF
        self.carrier = True
        self.dead = False
        self.rx_batches = 0
        self.rx_errors = 0
        self.rx_truncated = 0
        self.tx_errors = 0
        self.tx_full = 0
        self.segmented = 0
        self.scratch = Packet()

    def attach(self, device: Device) -> None:
        """Frames received here come in on `device` from now on."""
        self.device = device

    def takes(self) -> int:
        """Which large sends may be given to it uncut (GRO_*)."""
        return 0

    def receive(self, slots: list, budget: cython.int) -> cython.int:  # type: ignore[type-arg]
        """Fill up to `budget` Packets of `slots`; how many."""
        return 0

    def transmit_plain(self, pkt: Packet) -> cython.int:
        """Send one frame that is not a large send and has no partial checksum; 0 or the DROP_* reason."""
        raise NotImplementedError

    def transmit_segments(self, pkt: Packet) -> cython.int:
        """Send `pkt` as plain frames; the first reason to fail ends it."""
        i: cython.int
        reason: cython.int
        count: cython.int = segment_count(pkt)
        if count > 1:
            self.segmented += 1
        for i in range(count):
            segment(pkt, i, self.scratch)
            reason = self.transmit_plain(self.scratch)
            if reason != DROP_NOT_SPECIFIED:
                return reason
        return DROP_NOT_SPECIFIED

    def failed(self, error: cython.int) -> cython.int:
        """Count a refused write and name its reason (EAGAIN, ENOBUFS, ENETDOWN, EIO, EMSGSIZE: Linux packet(7), tun)."""
        if error == 11 or error == 105:
            self.tx_full += 1
            return DROP_TX_QUEUE_FULL
        self.tx_errors += 1
        if error == 5 or error == 100 or error == 19 or error == 6 or error == 77:
            return DROP_DEVICE_DOWN
        if error == 90:
            return DROP_TX_MTU
        return DROP_TX_FAILED

    def info(self) -> dict[str, Any]:
        """What `userfw ports` shows beyond the device's own counters."""
        return {
            "name": self.name,
            "type": self.kind,
            "queue": self.queue,
            "carrier": bool(self.carrier),
            "rx_batches": self.rx_batches,
            "rx_errors": self.rx_errors,
            "rx_truncated": self.rx_truncated,
            "tx_errors": self.tx_errors,
            "tx_full": self.tx_full,
            "segmented": self.segmented,
            "gro": next(name for name, value in GRO.items() if value == self.gro),
        }

    def close(self) -> None:
        """Give the descriptor back; the port must not be used afterwards."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
