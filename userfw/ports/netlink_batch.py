"""Many netlink requests in one write, and the kernel's own words for each that it refuses (extended acknowledgements, Linux 4.12).

Law: every request is answered before a call returns, in the order of the requests.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from typing import Final

from userfw.ports.netlink import (
    AF_NETLINK_ROUTE,
    NLMSG_DONE,
    NLMSG_ERROR,
    Netlink,
    attributes_untrusted,
    messages_untrusted,
)

BATCH: Final = 32


class Refused(OSError):
    """The kernel refused a request; `strerror` is its own sentence (extended acknowledgement) where it gave one."""


class Batches(Netlink):
    """A netlink socket that takes requests by the batch."""

    def __init__(self, netns: str | None = None, protocol: int = AF_NETLINK_ROUTE) -> None:
        super().__init__(netns, 0, protocol)
        self.sock.setsockopt(270, 11, 1)  # SOL_NETLINK, NETLINK_EXT_ACK
        self.sock.setsockopt(270, 10, 1)  # NETLINK_CAP_ACK

    def batch(self, messages: Sequence[bytes]) -> list[Refused | None]:
        """Send complete requests (with NLM_F_ACK) and wait for all answers; for each, what the kernel refused it with."""
        results: list[Refused | None] = []
        for at in range(0, len(messages), BATCH):
            part = messages[at : at + BATCH]
            first, data = self.sequence + 1, bytearray()
            for message in part:
                self.sequence += 1
                data += message[:8] + struct.pack("=I", self.sequence) + message[12:]
            self.sock.send(data)
            answers: dict[int, Refused | None] = {}
            while len(answers) < len(part):
                _acknowledgements(self.sock.recv(1 << 18), answers)
            results += [answers.get(first + i) for i in range(len(part))]
        return results

    def do(self, kind: int, flags: int, body: bytes) -> None:
        """One request. Refused if the kernel does not do it."""
        (refused,) = self.batch([struct.pack("=IHHII", 16 + len(body), kind, flags | 5, 0, 0) + body])
        if refused is not None:
            raise refused


def _acknowledgements(data: bytes, answers: dict[int, Refused | None]) -> None:
    """Sort answers by their sequence number."""
    off = 0
    for kind, flags, body in messages_untrusted(data):
        sequence = struct.unpack_from("=I", data, off + 8)[0]
        off += (16 + len(body) + 3) & ~3
        if kind == NLMSG_DONE or kind != NLMSG_ERROR or len(body) < 4:
            continue
        number = -struct.unpack_from("=i", body)[0]
        if not number:
            answers[sequence] = None
            continue
        words = b""
        if flags & 0x200:  # NLM_F_ACK_TLVS
            header = 20 if flags & 0x100 else 4 + struct.unpack_from("=I", body, 4)[0]  # NLM_F_CAPPED
            words = attributes_untrusted(body[(header + 3) & ~3 :]).get(1, b"").rstrip(b"\0")
        answers[sequence] = Refused(number, words.decode(errors="replace") or os.strerror(number))
