"""A port whose frames go nowhere, counted: benchmarks of the engine alone, black holes of tests."""

import cython

if not cython.compiled:
    from userfw.core.drop import DROP_NOT_SPECIFIED
    from userfw.core.packet import Packet, Port


class DiscardPort(Port):
    """`packets` and `bytes` (frames without the virtio-net header) that were sent here."""

    def __init__(self) -> None:
        super().__init__()
        self.packets = 0
        self.bytes = 0

    def transmit(self, pkt: Packet) -> cython.int:
        """Count and forget."""
        self.packets += 1
        self.bytes += pkt.end - pkt.start
        return DROP_NOT_SPECIFIED
