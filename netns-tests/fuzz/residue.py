"""What a kernel keeps between two cases beside rules and connections, taken away by netlink inside the router's namespace.

Laws
- Neighbours that were asked for and did not answer would be asked for again by a timer, and fail in another case.
- A bridge remembers behind which port it heard a host.
- What ICMP told about a path (fragmentation needed, packet too big, redirects) would hold for ten minutes. Of IPv4, more stays even
  behind a flush: a destination that was told of is its own next hop for ever, whatever rules make of a packet's address (Linux:
  rt_bind_exception). Only with its route does that go, so the routes are made anew.
"""

import errno
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

from lab.kernel import BRIDGE

from .attributes import attr

_ROUTE, _ADD_ROUTE, _DELETE_ROUTE, _GET_ROUTE, _DELETE_NEIGHBOUR, _GET_NEIGHBOUR, _ERROR, _DONE = 0, 24, 25, 26, 29, 30, 2, 3
_REQUEST, _ACK, _DUMP, _CREATE, _BULK = 1, 4, 0x300, 0x600, 0x200
_AF_BRIDGE, _SELF, _STATE_MASK = 7, 2, 16
_NOARP, _PERMANENT = 0x40, 0x80
_CLONED = 0x200
_MAIN = 254
_FLUSH4 = Path("/proc/sys/net/ipv4/route/flush")


class Residue:
    """Sockets inside one namespace; made and used by the thread that is there."""

    def __init__(self) -> None:
        self.sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _ROUTE)
        self.sock.bind((0, 0))
        self.flush4 = os.open(_FLUSH4, os.O_WRONLY | os.O_CLOEXEC)
        self.forget_hosts = struct.pack("BxxxiHBB", _AF_BRIDGE, socket.if_nametoindex(BRIDGE), 0, _SELF, 0) \
            + attr(_STATE_MASK, struct.pack("H", _PERMANENT))
        self.routes4 = [route for route in self._routes(socket.AF_INET) if route[4] == _MAIN]

    def remove(self) -> None:
        """Neighbours that are not permanent, exceptions of routes."""
        if list(self._routes(socket.AF_INET, _CLONED)):  # to its end: what is left of a dump would be taken for the next answer
            for kind, flags in ((_DELETE_ROUTE, 0), (_ADD_ROUTE, _CREATE)):
                for route in self.routes4:
                    self._ask(kind, route, flags)
        os.write(self.flush4, b"1\n")
        self._ask(_DELETE_NEIGHBOUR, self.forget_hosts, _BULK)
        for message in list(self._dump(_GET_NEIGHBOUR, struct.pack("BxxxiHBB", 0, 0, 0, 0, 0))):
            state = struct.unpack_from("H", message, 8)[0]
            if not state & (_NOARP | _PERMANENT):
                self._ask(_DELETE_NEIGHBOUR, message)
        for message in list(self._routes(socket.AF_INET6, _CLONED)):
            self._ask(_DELETE_ROUTE, message)

    def _routes(self, family: int, flags: int = 0) -> Iterator[bytes]:
        """Routes of a family, or (with `_CLONED`) exceptions of them."""
        for message in self._dump(_GET_ROUTE, struct.pack("BBBBBBBBI", family, *bytes(7), flags)):
            if struct.unpack_from("I", message, 8)[0] & _CLONED == flags:
                yield message

    def _ask(self, kind: int, body: bytes, flags: int = 0) -> None:
        """One request; what is gone already is no error (ENOENT, ESRCH)."""
        self.sock.send(struct.pack("IHHII", 16 + len(body), kind, _REQUEST | _ACK | flags, 1, 0) + body)
        code = -struct.unpack_from("i", self.sock.recv(1 << 16), 16)[0]
        assert code in (0, errno.ENOENT, errno.ESRCH), (kind, os.strerror(code))

    def _dump(self, kind: int, body: bytes) -> Iterator[bytes]:
        """The messages of a dump without their netlink headers."""
        self.sock.send(struct.pack("IHHII", 16 + len(body), kind, _REQUEST | _DUMP, 1, 0) + body)
        while True:
            data, at = self.sock.recv(1 << 18), 0
            while at + 16 <= len(data):
                size, found = struct.unpack_from("IH", data, at)
                if found in (_DONE, _ERROR):
                    return
                yield data[at + 16:at + size]
                at += size + 3 & ~3

    def close(self) -> None:
        """Close what was opened."""
        self.sock.close()
        os.close(self.flush4)
