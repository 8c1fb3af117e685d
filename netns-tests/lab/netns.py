"""Network namespaces: made, entered and removed; commands run inside.

Laws
- A name is `uf<pid>-<what>`. `sweep()` removes those of dead processes, never anything else.
- A thread that enters a namespace ends there: no other thread of this process ever changes its own.
- Sockets keep the namespace they were opened in, so everything else runs outside.
"""

import contextlib
import ctypes
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
RUN = Path("/run/netns")
PATIENCE = float(os.environ.get("USERFW_PATIENCE") or 1)
"""How many times longer to wait for what must come, on a machine that is slow (a virtual machine without KVM)."""
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


class CommandError(AssertionError):
    """A command of the laboratory failed; carries its whole output."""


def run(argv: Sequence[str], *, ns: str | None = None, text: str | None = None, check: bool = True,
        timeout: float = 30) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, inside namespace `ns` if given; raises CommandError unless `check` is False."""
    full = inside(ns, argv) if ns else list(argv)
    done = subprocess.run(full, input=text, capture_output=True, text=True, timeout=timeout)
    if check and done.returncode:
        raise CommandError(f"{' '.join(argv)}: exit {done.returncode}\n{done.stderr}{done.stdout}"
                           + (f"\ninput:\n{text}" if text else ""))
    return done


def inside(ns: str, argv: Sequence[str]) -> list[str]:
    """The command line that runs `argv` in namespace `ns`."""
    return ["nsenter", f"--net={RUN / ns}", "--", *argv]


def within(ns: str, call: Callable[[], T]) -> T:
    """Call in a short-lived thread that has entered namespace `ns` (setns(2)); raises what the call raised."""
    box: list[T] = []
    trouble: list[BaseException] = []

    def work() -> None:
        try:
            fd = os.open(RUN / ns, os.O_RDONLY | os.O_CLOEXEC)
            try:
                if _libc.setns(fd, _CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), f"setns {ns}")
            finally:
                os.close(fd)
            box.append(call())
        except BaseException as exc:
            trouble.append(exc)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if trouble:
        raise trouble[0]
    return box[0]


def sysctl(ns: str, **values: object) -> None:
    """Write /proc/sys/net keys of a namespace; `__` in a name stands for `/`, e.g. ipv4__ip_forward=1."""
    def write() -> None:
        for key, value in values.items():
            Path("/proc/sys/net", key.replace("__", "/")).write_text(f"{value}\n")
    within(ns, write)


def create(ns: str) -> None:
    """Make a namespace with loopback up."""
    run(["ip", "netns", "add", ns])
    run(["ip", "-n", ns, "link", "set", "lo", "up"])


def delete(ns: str) -> None:
    """Remove a namespace; no error if it is not there."""
    if (RUN / ns).exists():
        run(["ip", "netns", "del", ns], check=False)


def ip(ns: str, *commands: str) -> None:
    """Several `ip` commands in one process (`ip -batch`)."""
    run(["ip", "-n", ns, "-batch", "-"], text="\n".join(commands) + "\n")


def exit_on_sigterm() -> None:
    """From now on SIGTERM ends this program as `sys.exit(143)` does: what it made is taken down on the way out."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def sweep() -> list[str]:
    """Remove the namespaces of runs whose process is dead, with the processes left in them; returns their names."""
    gone = []
    for path in RUN.glob("uf*-*") if RUN.exists() else ():
        match = re.fullmatch(r"uf(\d+)-[a-z0-9]+", path.name)
        if match and not Path("/proc", match[1]).exists():
            for pid in run(["ip", "netns", "pids", path.name], check=False).stdout.split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            delete(path.name)
            gone.append(path.name)
    return gone
