"""A port made of capture files: frames in from one (each once, as fast as they are taken), frames out into another.

Laws: large packets are written as the plain frames they stand for; a capture that turns out broken ends the input, is logged and
counted, and the port goes on as one that receives nothing. The descriptor is an eventfd that is readable while input is left.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import cython

from userfw.ports.capture import LINKTYPE_ETHERNET, LINKTYPE_RAW, CaptureError, Record, Writer, read_untrusted

if not cython.compiled:
    from userfw.core.const import MAX_FRAME
    from userfw.core.drop import DROP_NOT_SPECIFIED, DROP_TX_FAILED
    from userfw.core.packet import Packet
    from userfw.ports.base import IoPort

log = logging.getLogger("userfw.ports")


class PcapPort(IoPort):
    """`finished`: all input was read. `frames_in`, `frames_out`: how many."""

    def __init__(
        self, name: str, reader: Iterator[Record] | None, writer: Writer | None, source: BinaryIO | None = None
    ) -> None:
        super().__init__(name, "pcap")
        self.reader = reader
        self.writer = writer
        self.source = source
        self.finished = reader is None
        self.frames_in = 0
        self.frames_out = 0
        self.fd = os.eventfd(0 if reader is None else 1, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def receive(self, slots: list, budget: cython.int) -> cython.int:  # type: ignore[type-arg]
        """The next frames of the input; those of another link type or longer than a packet are counted and skipped."""
        n: cython.int = 0
        pkt: Packet
        wanted: cython.int = LINKTYPE_ETHERNET
        if self.device is not None and not self.device.mac:
            wanted = LINKTYPE_RAW
        budget = min(budget, len(slots))
        while n < budget and not self.finished:
            record = self._next()
            if record is None:
                break
            if record.linktype != wanted or len(record.frame) > MAX_FRAME:
                self.rx_truncated += 1
                continue
            pkt = slots[n]
            pkt.load_frame(record.frame)
            pkt.iif = self.device
            self.frames_in += 1
            n += 1
        return n

    def _next(self) -> Record | None:
        if self.reader is None:
            return None
        try:
            record: Record | None = next(self.reader, None)
        except (CaptureError, OSError) as error:
            log.warning("port %s: %s; the rest of the capture is not read", self.name, error)
            self.rx_errors += 1
            record = None
        if record is None:
            self.finished = True
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self.fd)
        return record

    def transmit(self, pkt: Packet) -> cython.int:
        """Write the frames that `pkt` stands for."""
        if self.writer is None:
            return DROP_NOT_SPECIFIED
        return self.transmit_segments(pkt)

    def transmit_plain(self, pkt: Packet) -> cython.int:
        """Write one frame with the present time."""
        if self.writer is None:
            return DROP_TX_FAILED
        try:
            self.writer.write(time.time_ns(), pkt.frame())
        except OSError as error:
            log.error("port %s: %s", self.name, error)
            self.tx_errors += 1
            return DROP_TX_FAILED
        self.frames_out += 1
        return DROP_NOT_SPECIFIED

    def flush(self) -> cython.int:
        """Hand what was written to the operating system."""
        if self.writer is not None:
            self.writer.flush()
        return 0

    def info(self) -> dict[str, Any]:
        """Adds how many frames came from and went to the files."""
        return {
            **super().info(),
            "frames_in": self.frames_in,
            "frames_out": self.frames_out,
            "finished": bool(self.finished),
        }

    def close(self) -> None:
        """Close the files."""
        if self.writer is not None:
            self.writer.close()
            self.writer = None
        if self.source is not None:
            self.source.close()
        super().close()


def open_files(name: str, read: str | None, write: str | None) -> PcapPort:
    """A port that reads capture `read` and writes capture `write`, either may be None. OSError."""
    source = Path(read).open("rb") if read is not None else None  # noqa: SIM115 (the port closes them)
    try:
        reader = read_untrusted(source) if source is not None else None
        writer = Writer(Path(write).open("wb")) if write is not None else None  # noqa: SIM115
    except (CaptureError, OSError) as error:
        if source is not None:
            source.close()
        if isinstance(error, CaptureError):
            raise OSError(22, f"{read}: {error}") from None
        raise
    return PcapPort(name, reader, writer, source)
