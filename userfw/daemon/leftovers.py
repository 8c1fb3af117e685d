"""Which interfaces a daemon has in its hands, written down, so that a later one can clean up after it was killed.

A record is a file for each interface, beside those of `[port.ethtool]`: written when its port opens, gone when it closes. What may
outlive a process on an interface: filters and a qdisc of tc, settings of ethtool, connections that act_ct translates, and the rules
that bring a namespace's traffic to a TUN device. Programs, sockets, TAP devices and nf_tables tables go with the process.

Laws
- `sweep` cleans every interface whose daemon is dead, whatever the configuration says now; those of living daemons it leaves alone.
- A process is known by its number and the time it started; a namespace by its number, so a new one of an old name is not touched.
- Nothing here refuses a start: what cannot be written or cleaned is logged.
"""

from __future__ import annotations

import errno
import fcntl
import importlib
import json
import logging
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from userfw.daemon.interface import Settings, folder
from userfw.ports.clsact import TrafficControl
from userfw.ports.netlink import Netlink
from userfw.ports.netns import path_of

log = logging.getLogger("userfw.ports")

TRANSPARENT_TABLE = 7177  # in the namespace of a TUN port with `transparent`


@dataclass(frozen=True, slots=True)
class Record:
    """One interface in a daemon's hands. `namespace`: the number of `netns`; `index` that of the interface; `born`: in clock ticks
    since boot. `transparent`: a TUN device that a namespace's traffic is brought to."""

    ifname: str
    index: int
    netns: str
    namespace: int
    pid: int
    born: int
    transparent: bool = False

    @property
    def path(self) -> Path:
        """Its file."""
        return folder() / f"interface-{self.namespace}-{self.ifname}.json"

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self.born == _born(self.pid)

    @classmethod
    def read_untrusted(cls, path: Path) -> Record | None:
        """What a file says; None if that is no record."""
        try:
            found = json.loads(path.read_text())
            kinds = {"int": int, "str": str, "bool": bool}
            values = {item.name: found[item.name] for item in fields(cls)}
            if any(type(values[item.name]) is not kinds[str(item.type)] for item in fields(cls)):
                return None
            return cls(**values)
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def forget(self) -> None:
        """The interface is as it was."""
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            log.debug("%s: %s", self.path, error.strerror)


def note(ifname: str, index: int, netns: str, transparent: bool = False) -> Record | None:
    """This process takes an interface; None where it cannot be written down."""
    try:
        made = Record(ifname, index, netns, _namespace(netns), os.getpid(), _born(os.getpid()), transparent)
        made.path.parent.mkdir(parents=True, exist_ok=True)
        made.path.write_text(json.dumps(asdict(made)))
    except OSError as error:
        log.debug("%s: not cleaned up after a crash: %s", ifname, error.strerror)
        return None
    return made


def sweep() -> list[str]:
    """Clean up after daemons that are dead; the names of their interfaces. Before any port of this process is open."""
    try:
        lock = os.open(folder(), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return []
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)  # what another one cleans up it has cleaned up before we take the interface
        return _sweep()
    finally:
        os.close(lock)


def _sweep() -> list[str]:
    records = [found for path in sorted(folder().glob("interface-*.json")) if (found := Record.read_untrusted(path))]
    dead = [record for record in records if not record.alive]
    for record in dead:
        if _there(record):
            log.info("%s: cleaning up after process %d, which was killed", record.ifname, record.pid)
            _clean(record)
        record.forget()
    return [record.ifname for record in dead]


def _clean(record: Record) -> None:
    steps: list[Callable[[Record], object]] = [_filters, lambda item: Settings(item.ifname, item.netns).restore(), _connections]
    if record.transparent:
        steps = [_local_default]
    for step in steps:
        try:
            step(record)
        except OSError as error:
            if error.errno not in (errno.ENODEV, errno.EOPNOTSUPP, errno.EPROTONOSUPPORT, errno.EBUSY):
                log.warning("%s: not cleaned up: %s", record.ifname, error.strerror)


def _filters(record: Record) -> None:
    tc = TrafficControl(record.netns)
    try:
        tc.sweep(record.index)
    finally:
        tc.close()


def _connections(record: Record) -> None:
    try:
        connections = importlib.import_module("userfw_hw.flower.connections").Connections(record.netns)
    except ImportError:
        return  # then nobody has made any
    try:
        connections.sweep()
    finally:
        connections.close()


def _local_default(record: Record) -> None:
    netlink = Netlink(record.netns)
    try:
        netlink.remove_local_default(record.ifname, TRANSPARENT_TABLE)
    finally:
        netlink.close()


def _there(record: Record) -> bool:
    """Whether its namespace is the one it was."""
    try:
        return _namespace(record.netns) == record.namespace
    except OSError:
        return False


def _namespace(netns: str) -> int:
    return os.stat(path_of(netns) if netns else "/proc/self/ns/net").st_ino


def _born(pid: int) -> int:
    """When a process started, in clock ticks since boot (/proc/PID/stat); 0 if there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    return int(text.rpartition(")")[2].split()[19])
