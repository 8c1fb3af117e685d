"""nflog groups into files, as `[log.N]` says.

Laws: a file that cannot be written is told once and its group goes on without; a file is never larger than its limit by more than
one message, and at most two are kept.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any, BinaryIO

from userfw.client.nflog import NflogWriter
from userfw.daemon import schema
from userfw.daemon.packetlog import Listener, PacketLog

log = logging.getLogger("userfw.log")


class Capture:
    """One group's file."""

    def __init__(self, config: schema.LogGroup) -> None:
        self.config = config
        self.file: BinaryIO | None = None
        self.writer: NflogWriter | None = None
        self._open()

    def _open(self) -> None:
        if os.path.exists(self.config.file):
            os.replace(self.config.file, self.config.file + ".1")
        self.file = open(self.config.file, "wb")  # noqa: SIM115
        self.writer = NflogWriter(self.file)

    def deliver(self, batch: list[dict[str, Any]]) -> None:
        """Write a batch."""
        try:
            for event in batch:
                if self.writer is None:
                    return
                self.writer.write(event)
                if self.writer.written >= self.config.max_size:
                    self.close()
                    self._open()
        except OSError as error:
            log.error("%s: %s; group no longer written", self.config.file, error.strerror)
            self.close()

    def close(self) -> None:
        """The end of the file."""
        if self.file is not None:
            self.file.close()
        self.file = self.writer = None


class Captures:
    """The files of one daemon."""

    def __init__(self, sink: PacketLog) -> None:
        self.sink = sink
        self.running: dict[str, tuple[schema.LogGroup, Capture, Callable[[], None]]] = {}

    def configure(self, wanted: dict[str, schema.LogGroup]) -> None:
        """Take over `[log]`. OSError if a file cannot be made; the files that were there before are closed then."""
        for number, (config, capture, end) in list(self.running.items()):
            if wanted.get(number) != config:
                end()
                capture.close()
                del self.running[number]
        for number, config in wanted.items():
            if number not in self.running:
                capture = Capture(config)
                end = self.sink.listen(Listener(int(number), capture.deliver, config.threshold, config.snaplen))
                self.running[number] = (config, capture, end)
