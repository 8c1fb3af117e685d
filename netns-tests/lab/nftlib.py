"""The kernel's rules without a process for each command: libnftables in a thread that has entered the router's namespace.

Laws
- One thread per namespace, which never leaves it and ends with `close`; every call runs there and waits for the answer.
- What nft itself refuses and what the kernel refuses are told apart: the latter has an errno.
"""

import ctypes
import errno as numbers
import os
import queue
import re
import socket
import struct
import subprocess
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

from .netns import RUN

_CLONE_NEWNET = 0x40000000
_NETFILTER, _CT_DELETE = 12, 1 << 8 | 2
_ERRNO = {os.strerror(code): code for code in numbers.errorcode}
_KERNEL = re.compile(r"Could not process rule: (.+)")


class Answer(NamedTuple):
    """What one input gave; `errno` is the kernel's (0 if nft itself refused)."""

    ok: bool
    output: str
    errors: str
    errno: int = 0


class NftLibrary:
    """libnftables (and conntrack) inside one namespace."""

    def __init__(self, ns: str) -> None:
        """Raises OSError where the library is not installed."""
        self.lib = ctypes.CDLL("libnftables.so.1")
        for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
            getattr(self.lib, name).restype = ctypes.c_char_p
        self.lib.nft_ctx_new.restype = ctypes.c_void_p
        self._work: queue.SimpleQueue[tuple[Callable[[], Any], queue.SimpleQueue[Any]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, args=(ns,), daemon=True)
        self._thread.start()
        self.call(self._open)

    def _serve(self, ns: str) -> None:
        fd = os.open(RUN / ns, os.O_RDONLY | os.O_CLOEXEC)
        libc = ctypes.CDLL(None, use_errno=True)
        failed = libc.setns(fd, _CLONE_NEWNET)
        os.close(fd)
        while (job := self._work.get()) is not None:
            call, box = job
            try:
                if failed:
                    raise OSError(ctypes.get_errno(), f"setns {ns}")
                box.put((call(), None))
            except BaseException as problem:
                box.put((None, problem))

    def call(self, call: Callable[[], Any]) -> Any:
        """Run something inside the namespace; raises what it raised."""
        box: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._work.put((call, box))
        value, problem = box.get()
        if problem is not None:
            raise problem
        return value

    def _open(self) -> None:
        self.ctx = ctypes.c_void_p(self.lib.nft_ctx_new(0))
        self.lib.nft_ctx_buffer_output(self.ctx)
        self.lib.nft_ctx_buffer_error(self.ctx)
        self.netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETFILTER)
        self.netlink.bind((0, 0))

    def run(self, text: str) -> Answer:
        """One input of commands."""
        def work() -> Answer:
            status = self.lib.nft_run_cmd_from_buffer(self.ctx, text.encode())
            errors = (self.lib.nft_ctx_get_error_buffer(self.ctx) or b"").decode(errors="replace")
            output = (self.lib.nft_ctx_get_output_buffer(self.ctx) or b"").decode(errors="replace")
            found = _KERNEL.search(errors)
            return Answer(status == 0, output, errors, _ERRNO.get(found[1].strip(), 0) if found else 0)
        answer: Answer = self.call(work)
        return answer

    def forget_connections(self) -> None:
        """`conntrack -F` (IPCTNL_MSG_CT_DELETE without attributes)."""
        def work() -> None:
            self.netlink.send(struct.pack("IHHIIBBH", 20, _CT_DELETE, 1 | 4, 1, 0, 0, 0, 0))
            answer = self.netlink.recv(4096)
            code = struct.unpack_from("i", answer, 16)[0]
            if code:
                raise OSError(-code, "conntrack flush")
        self.call(work)

    def command(self, *argv: str) -> str:
        """A program's output, run inside."""
        done: subprocess.CompletedProcess[str] = self.call(
            lambda: subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False))
        return done.stdout

    def close(self) -> None:
        """Give back what was opened and end the thread."""
        def work() -> None:
            self.netlink.close()
            self.lib.nft_ctx_free(self.ctx)
        self.call(work)
        self._work.put(None)
        self._thread.join(5)
