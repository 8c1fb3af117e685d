"""Names that this machine knows: users, services, hosts, interfaces, the tables of iproute2, the time zone.

The language itself never asks the system (nft.datatype.Names); the shell hands it one of these.
"""

from __future__ import annotations

import functools
import grp
import pwd
import socket
import time
from pathlib import Path

from userfw.nft.datatype import Names

IPROUTE2 = (Path("/etc/iproute2"), Path("/usr/share/iproute2"), Path("/usr/lib/iproute2"))
CONNLABEL = (Path("/etc/connlabel.conf"), Path("/etc/xtables/connlabel.conf"))


def read_table(path: Path) -> dict[str, int]:
    """A file of `number name` lines. Empty if it is not there."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    table: dict[str, int] = {}
    for line in text.splitlines():
        words = line.split("#", 1)[0].split()
        if len(words) < 2:
            continue
        try:
            table[words[1]] = int(words[0], 0)
        except ValueError:
            continue
    return table


def _first(name: str) -> dict[str, int]:
    return next((table for folder in IPROUTE2 if (table := read_table(folder / name))), {})


class SystemNames(Names):
    """Asks the system, and remembers tables for the life of the process."""

    @functools.cached_property
    def users(self) -> dict[str, int]:  # type: ignore[override]
        return {entry.pw_name: entry.pw_uid for entry in pwd.getpwall()}

    @functools.cached_property
    def groups(self) -> dict[str, int]:  # type: ignore[override]
        return {entry.gr_name: entry.gr_gid for entry in grp.getgrall()}

    @functools.cached_property
    def realms(self) -> dict[str, int]:  # type: ignore[override]
        return _first("rt_realms") or {"cosmos": 0}

    @functools.cached_property
    def device_groups(self) -> dict[str, int]:  # type: ignore[override]
        return _first("group") or {"default": 0}

    @functools.cached_property
    def marks(self) -> dict[str, int]:  # type: ignore[override]
        return _first("rt_marks")

    @functools.cached_property
    def labels(self) -> dict[str, int]:  # type: ignore[override]
        return next((table for path in CONNLABEL if (table := read_table(path))), {})

    def ifindex(self, name: str) -> int | None:
        try:
            return socket.if_nametoindex(name)
        except OSError:
            return None

    def ifname(self, index: int) -> str | None:
        try:
            return socket.if_indextoname(index)
        except OSError:
            return None

    def service(self, name: str) -> int | None:
        for protocol in ("tcp", "udp"):
            try:
                return socket.getservbyname(name, protocol)
            except OSError:
                continue
        return super().service(name)

    def service_name(self, port: int) -> str | None:
        for protocol in ("tcp", "udp"):
            try:
                return socket.getservbyport(port, protocol)
            except OSError:
                continue
        return super().service_name(port)

    def host(self, name: str, family: str) -> list[bytes]:
        kind = socket.AF_INET if family == "ip" else socket.AF_INET6
        try:
            found = socket.getaddrinfo(name, None, kind, socket.SOCK_RAW)
        except OSError:
            return []
        return [socket.inet_pton(kind, str(entry[4][0]).split("%")[0]) for entry in found]

    def utc_offset_at(self, when: int) -> int:
        return time.localtime(when).tm_gmtoff
