"""A raw socket at a host's interface: frames out as given, frames in as they came, VLAN tags put back.

Laws
- Own frames are never captured (PACKET_IGNORE_OUTGOING), what arrives is captured whole (promiscuous).
- A socket is opened inside the namespace and used outside.
"""

import select
import socket
import struct
from collections.abc import Iterator

from .netns import within

_ETH_P_ALL = 3
_SOL_PACKET, _ADD_MEMBERSHIP, _AUXDATA, _IGNORE_OUTGOING = 263, 1, 8, 23
_MR_PROMISC = 1
_SO_RCVBUFFORCE = 33
_VLAN_VALID, _TPID_VALID = 0x10, 0x40


class Wire:
    """One interface of one namespace, as bytes."""

    def __init__(self, ns: str, device: str) -> None:
        """Raises OSError if the device is not there."""
        self.ns, self.device = ns, device
        self.sock = within(ns, self._open)

    def _open(self) -> socket.socket:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 64 << 20)
        sock.setsockopt(_SOL_PACKET, _AUXDATA, 1)
        sock.setsockopt(_SOL_PACKET, _IGNORE_OUTGOING, 1)
        index = socket.if_nametoindex(self.device)
        sock.setsockopt(_SOL_PACKET, _ADD_MEMBERSHIP, struct.pack("IHH8s", index, _MR_PROMISC, 0, b""))
        sock.bind((self.device, _ETH_P_ALL))
        sock.setblocking(False)
        return sock

    def fileno(self) -> int:
        """For select(2)."""
        return self.sock.fileno()

    def send(self, frame: bytes) -> None:
        """One frame out of the host, waiting while the device's queue is full."""
        while True:
            try:
                self.sock.send(frame)
                return
            except (BlockingIOError, OSError) as exc:
                if not isinstance(exc, BlockingIOError) and exc.errno != 105:  # ENOBUFS
                    raise
                select.select([], [self.sock], [], 0.01)

    def receive(self) -> Iterator[bytes]:
        """Every frame that waits now."""
        while True:
            try:
                data, extra, _, _ = self.sock.recvmsg(1 << 17, 64)
            except BlockingIOError:
                return
            for level, kind, value in extra:
                if level == _SOL_PACKET and kind == _AUXDATA:
                    status, _, _, _, _, tci, tpid = struct.unpack("IIIHHHH", value[:20])
                    if status & _VLAN_VALID:
                        tag = struct.pack("!HH", tpid if status & _TPID_VALID else 0x8100, tci)
                        data = data[:12] + tag + data[12:]
            yield data

    def close(self) -> None:
        """Close the socket."""
        self.sock.close()
