"""One daemon for each state directory: an exclusive lock on a file that holds the process id."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

from userfw.daemon import schema


class LockedError(Exception):
    """Somebody else has it; the words say who."""


class Lock:
    """`take` once, `release` once; nothing where the configuration names neither a state directory nor a file."""

    def __init__(self) -> None:
        self.fd = -1
        self.unlink = ""

    def take(self, daemon: schema.Daemon) -> None:
        """LockedError, OSError."""
        if daemon.state_dir:
            Path(daemon.state_dir).mkdir(parents=True, exist_ok=True, mode=0o750)
        path = daemon.pidfile or (f"{daemon.state_dir}/lock" if daemon.state_dir else None)
        if path is None:
            return
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            owner = os.read(fd, 32).decode(errors="replace").strip()
            os.close(fd)
            raise LockedError(f"{path}: another userfw holds this state directory (pid {owner or 'unknown'})") from None
        os.ftruncate(fd, 0)
        os.write(fd, f"{os.getpid()}\n".encode())
        self.fd, self.unlink = fd, daemon.pidfile or ""

    def release(self) -> None:
        """Let others have it."""
        if self.fd >= 0:
            if self.unlink:
                with contextlib.suppress(OSError):
                    os.unlink(self.unlink)
            os.close(self.fd)
            self.fd = -1
