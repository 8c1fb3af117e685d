"""A port that receives the same frames again and again, as fast as it is asked: benchmarks of the engine alone."""

from collections.abc import Sequence

import cython

if not cython.compiled:
    from userfw.core.const import HEADROOM
    from userfw.core.packet import Packet
    from userfw.ports.base import IoPort
    from userfw.wire._raw import copy


class RepeatPort(IoPort):
    """`count`: how many different frames come, in the order given, before the first comes again."""

    def __init__(self, name: str, frames: Sequence[bytes]) -> None:
        super().__init__(name, "repeat")
        self._stride = max(map(len, frames))
        self._store = bytearray(b"".join(frame.ljust(self._stride, b"\0") for frame in frames))
        self._lengths = [len(frame) for frame in frames]
        self._next = 0
        self.count = len(frames)

    def receive(self, slots: list, budget: cython.int) -> cython.int:  # type: ignore[type-arg]
        """Fill `budget` slots."""
        i: cython.int
        size: cython.Py_ssize_t
        pkt: Packet
        for i in range(budget):
            pkt = slots[i]
            pkt.reset()
            size = self._lengths[self._next]
            copy(pkt.data, HEADROOM, self._store, self._next * self._stride, size)
            pkt.end = HEADROOM + size
            pkt.iif = self.device
            self._next += 1
            if self._next == self.count:
                self._next = 0
        return budget


class SpreadPort(IoPort):
    """Frames of `count` flows in an order without pattern, made from one IPv4 UDP frame as they are received.

    Flow n has the source address `base` + n // 60000 and the source port 1024 + n % 60000. No frame is kept anywhere, so that
    receiving costs the same for ten flows as for a million, and what a measurement sees of large numbers is the engine's own.
    The order is a linear congruential generator's, modulo the power of two above `count`: every flow once in a period
    (Hull and Dobell 1962).
    """

    def __init__(self, name: str, frame: bytes, base: int, count: int) -> None:
        super().__init__(name, "spread")
        self._frame = bytearray(frame)
        self._base = base
        self.count = count
        self._mask = (1 << max(count - 1, 1).bit_length()) - 1
        self._at = 0
        total = sum(int.from_bytes(frame[i : i + 2], "big") for i in (14, 16, 18, 20, 22, 30, 32))
        self._sum = total

    def receive(self, slots: list, budget: cython.int) -> cython.int:  # type: ignore[type-arg]
        """Fill `budget` slots."""
        i: cython.int
        size: cython.Py_ssize_t = len(self._frame)
        total: cython.uint
        source: cython.uint
        pkt: Packet
        for i in range(budget):
            pkt = slots[i]
            pkt.reset()
            copy(pkt.data, HEADROOM, self._frame, 0, size)
            self._at = (self._at * 1664525 + 1013904223) & self._mask
            while self._at >= self.count:
                self._at = (self._at * 1664525 + 1013904223) & self._mask
            source = self._base + self._at // 60000
            total = self._sum + (source >> 16) + (source & 0xFFFF)
            total = (total & 0xFFFF) + (total >> 16)
            total = (total & 0xFFFF) + (total >> 16)
            pkt.put16(HEADROOM + 24, 0xFFFF - total)
            pkt.put32(HEADROOM + 26, source)
            pkt.put16(HEADROOM + 34, 1024 + self._at % 60000)
            pkt.end = HEADROOM + size
            pkt.iif = self.device
        return budget
