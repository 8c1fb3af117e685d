"""Packets of the kernel's router itself, sent by raw sockets inside its namespace.

Laws
- The kernel writes the network header, as of any packet: with `IP_HDRINCL` the next hop would be what was asked for, whatever
  rules make of the destination (FLOWI_FLAG_KNOWN_NH).
- So a packet is as `traffic.written` makes it: identification 0, DF, a TTL of 64.
- The sockets are bound to addresses to which nothing is sent, else the kernel would take it that they listen.
"""

import contextlib
import socket
import struct

from .pools import LISTENED

_PKTINFO4, _PKTINFO6 = 8, 50
_MTU_DISCOVER, _MTU_DO = 10, 2


class Host:
    """Made and used by the thread that is in the namespace."""

    def __init__(self) -> None:
        self.sockets: dict[tuple[int, int] | tuple[int, int, str], socket.socket] = {}

    def listen(self) -> None:
        """See pools.LISTENED. Its queue is full at once."""
        for family, level, transparent in ((socket.AF_INET, socket.IPPROTO_IP, 19), (socket.AF_INET6, socket.IPPROTO_IPV6, 75)):
            made = self.sockets[family, socket.IPPROTO_UDP, "listens"] = socket.socket(family, socket.SOCK_DGRAM)
            made.setsockopt(level, transparent, 1)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)
            if family == socket.AF_INET6:
                made.setsockopt(level, socket.IPV6_V6ONLY, 1)
            made.bind(("", LISTENED))

    def send(self, packet: bytes) -> None:
        """One packet; that a rule dropped it, or that there is no way, is no matter."""
        with contextlib.suppress(OSError):
            if packet[0] >> 4 == 6:
                about = (socket.IPPROTO_IPV6, _PKTINFO6, packet[8:24] + bytes(4))
                self._socket(socket.AF_INET6, packet[6], "::1").sendmsg(
                    [packet[40:]], [about], 0, (socket.inet_ntop(socket.AF_INET6, packet[24:40]), 0))
            else:
                about = (socket.IPPROTO_IP, _PKTINFO4, struct.pack("i4s4s", 0, packet[12:16], bytes(4)))
                self._socket(socket.AF_INET, packet[9], "127.0.0.99").sendmsg(
                    [packet[20:]], [about], 0, (socket.inet_ntop(socket.AF_INET, packet[16:20]), 0))

    def _socket(self, family: int, proto: int, address: str) -> socket.socket:
        if (family, proto) not in self.sockets:
            made = self.sockets[family, proto] = socket.socket(family, socket.SOCK_RAW, proto)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)
            if family == socket.AF_INET:
                made.setsockopt(socket.IPPROTO_IP, _MTU_DISCOVER, _MTU_DO)
            made.bind((address, 0))
        return self.sockets[family, proto]

    def close(self) -> None:
        """Give the sockets back."""
        for made in self.sockets.values():
            made.close()
