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
