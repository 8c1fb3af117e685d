"""A port without an operating system: frames in by `inject`, frames out in a list. For tests and `userfw test`."""

from __future__ import annotations

from userfw.core.drop import DROP_NOT_SPECIFIED
from userfw.core.packet import Device, Packet, Port
from userfw.wire.gso import complete_checksum


class MemoryPort(Port):
    """`transmitted`: bytes of every frame sent. `refuse`: a DROP_* reason that every transmit answers, or 0; `refuse_late`: one
    that it tells of each frame afterwards only.

    Frames are copied at `transmit`; with `metadata` the virtio-net facts (flags, gso type and size, csum start and offset) are
    kept beside them in `vnet`.
    """

    def __init__(self, device: Device | None = None) -> None:
        super().__init__()
        self.transmitted: list[bytes] = []
        self.vnet: list[tuple[int, int, int, int, int]] = []
        self.flushes = 0
        self.refuse = DROP_NOT_SPECIFIED
        self.refuse_late = DROP_NOT_SPECIFIED
        self.device = device
        if device is not None:
            device.port = self

    def transmit(self, pkt: Packet) -> int:
        """Keep a copy of the frame."""
        if self.refuse:
            return self.refuse
        if self.refuse_late:
            self.refused.append(self.refuse_late)
            return DROP_NOT_SPECIFIED
        if pkt.gso_type == 0:
            complete_checksum(pkt)
        self.transmitted.append(bytes(pkt.data[pkt.start : pkt.end]))
        self.vnet.append((pkt.vnet_flags, pkt.gso_type, pkt.gso_size, pkt.csum_start, pkt.csum_offset))
        return DROP_NOT_SPECIFIED

    def flush(self) -> int:
        """Count the flushes."""
        self.flushes += 1
        return 0

    def inject(self, frame: bytes) -> Packet:
        """A Packet with `frame` that came in on this port's device; give it to `Gateway.receive`."""
        pkt = Packet()
        pkt.load_frame(frame)
        pkt.iif = self.device
        return pkt

    def take(self) -> list[bytes]:
        """The frames sent since the last call."""
        frames, self.transmitted = self.transmitted, []
        self.vnet.clear()
        return frames
