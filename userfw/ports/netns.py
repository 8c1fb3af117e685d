"""Network namespaces: run a function inside one, from a short-lived thread that the caller waits for.

A namespace is named as iproute2 does (`/run/netns/NAME`), by an absolute path, or by `pid:NUMBER`; None or "" is the
daemon's own. Only the short thread calls setns(2): the daemon's loop never changes its namespace.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def path_of(name: str) -> str:
    """The file that stands for namespace `name`."""
    if name.startswith("/"):
        return name
    if name.startswith("pid:"):
        return f"/proc/{int(name[4:])}/ns/net"
    return f"/run/netns/{name}"


def run_in(name: str | None, function: Callable[[], T]) -> T:
    """`function()` as seen from namespace `name`. OSError if there is no such namespace or entering it is not permitted."""
    if not name:
        return function()
    fd = os.open(path_of(name), os.O_RDONLY | os.O_CLOEXEC)
    results: list[T] = []
    errors: list[BaseException] = []

    def enter() -> None:
        try:
            if _libc.setns(fd, CLONE_NEWNET) != 0:
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number), path_of(name))
            results.append(function())
        except BaseException as error:
            errors.append(error)

    try:
        thread = threading.Thread(target=enter, name=f"netns-{name}")
        thread.start()
        thread.join()
    finally:
        os.close(fd)
    if errors:
        raise errors[0]
    return results[0]
