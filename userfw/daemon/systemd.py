"""What systemd asks of a service (sd_notify(3), sd_listen_fds(3)), in plain sockets; without systemd every call does nothing.

READY=1 when forwarding; RELOADING=1 with a monotonic time before a reload and READY=1 after it (Type=notify-reload wants that);
STOPPING=1 at the end; WATCHDOG=1 every second. TAP descriptors go into the descriptor store (FDSTORE=1) and come
back at the next start, so a restart loses no link.
"""

from __future__ import annotations

import array
import contextlib
import os
import socket
import time


class Notifier:
    """One connection's worth of sd_notify; silent when NOTIFY_SOCKET is not set."""

    def __init__(self, environ: dict[str, str] | None = None) -> None:
        env = environ if environ is not None else dict(os.environ)
        path = env.get("NOTIFY_SOCKET", "")
        self.address = "\0" + path[1:] if path.startswith("@") else path
        self.watchdog_seconds = _watchdog(env)

    def send(self, message: str, fds: list[int] | None = None) -> bool:
        """Send one notification, with descriptors if given; False if nobody listens."""
        if not self.address:
            return False
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.connect(self.address)
            sock.sendmsg([message.encode()], ancillary)
            return True
        return False

    def ready(self, status: str) -> None:
        """Started, or reloaded."""
        self.send(f"READY=1\nSTATUS={status}")

    def reloading(self) -> None:
        """A reload begins."""
        self.send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """A clean stop begins."""
        self.send("STOPPING=1")

    def alive(self) -> None:
        """Keep the watchdog quiet."""
        self.send("WATCHDOG=1")

    def store(self, name: str, fd: int) -> bool:
        """Put a descriptor into the store; it survives a restart of the service."""
        return self.send(f"FDSTORE=1\nFDNAME={name}\nFDPOLL=0", [fd])

    def forget(self, name: str) -> bool:
        """Take every descriptor called `name` out of the store."""
        return self.send(f"FDSTOREREMOVE=1\nFDNAME={name}")


def _watchdog(env: dict[str, str]) -> float:
    try:
        if env.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
            return 0.0
        return int(env.get("WATCHDOG_USEC", "0")) / 1e6
    except ValueError:
        return 0.0


def passed_descriptors(environ: dict[str, str] | None = None) -> dict[str, int]:
    """Descriptors that systemd passed us, by name; of equal names the last one counts, the others are closed."""
    env = environ if environ is not None else dict(os.environ)
    if env.get("LISTEN_PID") != str(os.getpid()):
        return {}
    try:
        count = int(env.get("LISTEN_FDS", "0"))
    except ValueError:
        return {}
    names = env.get("LISTEN_FDNAMES", "").split(":")
    found: dict[str, int] = {}
    for i in range(count):
        fd = 3 + i
        os.set_inheritable(fd, False)
        name = names[i] if i < len(names) else "unknown"
        if name in found:
            os.close(found[name])
        found[name] = fd
    return found
