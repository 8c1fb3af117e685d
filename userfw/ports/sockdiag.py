"""Sockets of a namespace, asked of its kernel one by one (sock_diag(7); Linux: inet_diag.c, udp_diag.c).

Laws:
- One question is one short exchange on a netlink socket that was opened inside the namespace, 10 to 20 µs. Never a dump.
- The kernel's own lookup answers: the established socket of the four numbers, else the best listener.
- What it does not tell (the group of the owner) is found in /proc, only when asked for.
"""

from __future__ import annotations

import os
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

from userfw.ports.netlink import NLM_F_REQUEST, NLMSG_ERROR, attributes_untrusted, messages_untrusted
from userfw.ports.netns import run_in

NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY = 20
INET_DIAG_TCLASS, INET_DIAG_MARK, INET_DIAG_CLASS_ID, INET_DIAG_CGROUP_ID, INET_DIAG_SOCKOPT = 6, 15, 17, 21, 22
TRANSPARENT = 0x20  # a bit of struct inet_diag_sockopt
TCP_ESTABLISHED, TCP_TIME_WAIT, TCP_CLOSE, TCP_LISTEN = 1, 6, 7, 10
_REQUEST = struct.Struct("=BBBxI")
_MESSAGE = struct.Struct("=BBBB")
_CGROUPS = Path("/sys/fs/cgroup")


@dataclass
class Found:
    """A socket: `state` as Linux numbers TCP's, `local` its own address (zeros: any), `inode` its name in /proc."""

    state: int
    local: bytes
    uid: int
    inode: int
    mark: int
    transparent: bool
    cgroup: int
    classid: int


class SockDiag:
    """Asks the kernel of namespace `netns`."""

    def __init__(self, netns: str | None) -> None:
        def make() -> socket.socket:
            return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_SOCK_DIAG)

        self.sock = run_in(netns, make)
        self.sock.settimeout(0.2)
        self.sequence = 0
        self.cgroups: dict[int, list[int]] = {}
        self.groups: dict[int, int] = {}

    def close(self) -> None:
        """Close the socket."""
        self.sock.close()

    def find(self, proto: int, local: bytes, port: int, remote: bytes, remote_port: int) -> Found | None:
        """The socket that a packet to `local` and `port` from `remote` and `remote_port` belongs to, or None. OSError."""
        family = socket.AF_INET if len(local) == 4 else socket.AF_INET6
        here = struct.pack("!H", port), local.ljust(16, b"\0")
        there = struct.pack("!H", remote_port), remote.ljust(16, b"\0")
        # the kernel takes the ends of a UDP question the other way round ("for historical reasons")
        first, second = (there, here) if proto == socket.IPPROTO_UDP else (here, there)
        ident = first[0] + second[0] + first[1] + second[1] + struct.pack("=III", 0, 0xFFFFFFFF, 0xFFFFFFFF)
        payload = _REQUEST.pack(family, proto, 1 << (INET_DIAG_TCLASS - 1), 0xFFFFFFFF) + ident
        self.sequence = (self.sequence + 1) & 0xFFFFFFFF
        self.sock.send(struct.pack("=IHHII", 16 + len(payload), SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, self.sequence, 0) + payload)
        while True:
            data = self.sock.recv(65536)
            if struct.unpack_from("=I", data, 8)[0] != self.sequence:
                continue  # the late answer to a question that was given up
            for kind, _, body in messages_untrusted(data):
                if kind == NLMSG_ERROR:
                    number = -struct.unpack_from("=i", body)[0]
                    if number in (2, 0, 111, 13):  # ENOENT: nobody; others: not for us to know
                        return None
                    raise OSError(number, os.strerror(number))
                if kind == SOCK_DIAG_BY_FAMILY:
                    return parse_untrusted(body)
            return None

    def ancestors(self, cgroup: int) -> list[int]:
        """Ids of a cgroup and those above it, the root first; empty if it is unknown here."""
        if cgroup not in self.cgroups:
            self.cgroups = {}
            _walk(_CGROUPS, [], self.cgroups)
            self.cgroups.setdefault(cgroup, [])
        return self.cgroups[cgroup]

    def group_of(self, inode: int) -> int:
        """The group of a process that holds the socket (/proc/PID/fd), -1 if none is found."""
        if inode not in self.groups:
            if len(self.groups) > 4096:
                self.groups.clear()
            self.groups[inode] = _group_of(f"socket:[{inode}]")
        return self.groups[inode]


def parse_untrusted(body: bytes) -> Found | None:
    """struct inet_diag_msg with its attributes."""
    if len(body) < 72:
        return None
    family, state, _, _ = _MESSAGE.unpack_from(body)
    local = body[8:12] if family == socket.AF_INET else body[8:24]
    uid, inode = struct.unpack_from("=II", body, 64)
    found = attributes_untrusted(body[72:])

    def number(kind: int, form: str) -> int:
        data = found.get(kind, b"")
        return int(struct.unpack_from(form, data)[0]) if len(data) >= struct.calcsize(form) else 0

    options = found.get(INET_DIAG_SOCKOPT, b"\0")
    return Found(
        state, local, uid, inode, number(INET_DIAG_MARK, "=I"), bool(options[:1] and options[0] & TRANSPARENT),
        number(INET_DIAG_CGROUP_ID, "=Q"), number(INET_DIAG_CLASS_ID, "=I"),
    )  # fmt: skip


def _walk(path: Path, above: list[int], found: dict[int, list[int]]) -> None:
    try:
        chain = [*above, path.stat().st_ino]
        found[chain[-1]] = chain
        for entry in os.scandir(path):
            if entry.is_dir(follow_symlinks=False):
                _walk(Path(entry.path), chain, found)
    except OSError:
        return


def _group_of(link: str) -> int:
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            if any(os.readlink(fd.path) == link for fd in os.scandir(f"{entry.path}/fd")):
                status = Path(entry.path, "status").read_text()
                return int(status.partition("\nGid:")[2].split()[3])
        except OSError:
            continue
    return -1
