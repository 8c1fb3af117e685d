"""Names for the daemon's rules: interfaces are the gateway's, users, services and the time zone the system's.

Law: host names are not looked up: a ruleset must not wait for the DNS while packets flow. Write addresses.
"""

from __future__ import annotations

from pathlib import Path

from userfw.client.names import SystemNames
from userfw.nft.datatype import Names
from userfw.ruleset.gateway_platform import GatewayNames

CGROUPS = Path("/sys/fs/cgroup")


class DaemonNames(GatewayNames, SystemNames):
    """What names in rules mean on this gateway: its devices, and users, groups and services of this machine."""

    def cgroup(self, path: str) -> int | None:
        try:
            return (CGROUPS / path).stat().st_ino
        except OSError:
            return None

    def cgroup_path(self, number: int) -> str | None:
        for path in CGROUPS.rglob("*"):
            try:
                if path.is_dir() and path.stat().st_ino == number:
                    return str(path.relative_to(CGROUPS))
            except OSError:
                continue
        return None

    def host(self, name: str, family: str) -> list[bytes]:
        return Names.host(self, name, family)
