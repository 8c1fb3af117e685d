"""A batch at a time: parse all packets, let large tables look ahead (core.ahead), then judge one after the other.

Laws: packets meet the same hooks in the same order as by `receive`; only reading headers comes earlier, which depends on no other
packet. While no table is large, a batch is `receive` in a loop.
"""

from __future__ import annotations

from typing import Any

import cython

if not cython.compiled:
    from userfw.core.ahead import AHEAD, Lookahead
    from userfw.core.drop import DROP_DEVICE_DOWN, DROP_INTERNAL_ERROR, DROP_NOT_SPECIFIED
    from userfw.core.fastpath import FastPath
    from userfw.core.packet import Device, Packet
    from userfw.router.path import Path


class Batches(Path):
    """A Path that looks ahead."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        if not cython.compiled:
            self.reasons = [0] * AHEAD

    def receive_batch(self, packets: list[Packet], n: cython.Py_ssize_t) -> cython.int:
        """`receive` for the first `n` packets; a slot whose packet was stolen gets a fresh one. Returns how many were dropped."""
        i: cython.Py_ssize_t
        dropped: cython.int = 0
        pkt: Packet
        fast: FastPath | None
        ahead: Lookahead | None = None
        if n > 1:
            pkt = packets[0]
            fast = pkt.iif.flowtable if pkt.iif is not None else None
            if fast is not None and (fast.ahead is None or not fast.ahead.useful()):
                fast = None
            if self.pipeline is not None and self.pipeline.ahead is not None and self.pipeline.ahead.useful():
                ahead = self.pipeline.ahead
            if fast is not None or ahead is not None:
                for i in range(0, n, AHEAD):
                    dropped += self._ahead(packets, i, n - i if n - i < AHEAD else AHEAD, fast, ahead)
                return dropped
        return Path.receive_batch(self, packets, n)

    def _ahead(
        self, packets: list[Packet], first: cython.Py_ssize_t, n: cython.Py_ssize_t, fast: FastPath | None, ahead: Lookahead | None
    ) -> cython.int:
        """`receive` for packets `first` to `first + n` in three passes: parse, look ahead in large tables, judge."""
        i: cython.Py_ssize_t
        dropped: cython.int = 0
        pkt: Packet
        for i in range(n):
            pkt = packets[first + i]
            try:
                if pkt.iif is None or not pkt.iif.up:
                    self.drop(pkt, DROP_DEVICE_DOWN)
                    self.reasons[i] = -1
                else:
                    self.reasons[i] = self._parse(pkt, pkt.iif)
            except Exception as error:
                self.report(error, "receive")
                self.drop(pkt, DROP_INTERNAL_ERROR)
                self.reasons[i] = -1
        if fast is not None and fast.ahead is not None:
            fast.ahead.look(packets, first, n)
        if ahead is not None:
            ahead.look(packets, first, n)
        for i in range(n):
            pkt = packets[first + i]
            if self.reasons[i] < 0:
                dropped += 1
                continue
            try:
                if self._judge(pkt, cython.cast(Device, pkt.iif), self.reasons[i]) != DROP_NOT_SPECIFIED:
                    dropped += 1
                if self.backlog:
                    self.drain()
            except Exception as error:
                self.report(error, "receive")
                self.drop(pkt, DROP_INTERNAL_ERROR)
                dropped += 1
            if pkt.stolen:
                packets[first + i] = self.take()
        return dropped
