"""Names for the daemon's rules: interfaces are the gateway's, users, services and the time zone the system's.

Law: host names are not looked up: a ruleset must not wait for the DNS while packets flow. Write addresses.
"""

from __future__ import annotations

from pathlib import Path

from userfw.client.names import SystemNames
from userfw.nft.datatype import Names
from userfw.router.gateway import Gateway

CGROUPS = Path("/sys/fs/cgroup")


class DaemonNames(SystemNames):
    """What names in rules mean on this gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway

    def ifindex(self, name: str) -> int | None:
        device = self.gateway.names.get(name)
        return int(device.index) if device is not None else None

    def ifname(self, index: int) -> str | None:
        device = self.gateway.devices.get(index)
        return str(device.name) if device is not None else None

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
