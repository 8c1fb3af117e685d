"""The control socket: one JSON object a line, over a Unix stream socket.

    server   {"userfw": "0.1.0", "protocol": 1}                                  on connecting
    client   {"id": 7, "command": "conntrack.list", "args": {"l4proto": "tcp"}}
    server   {"id": 7, "result": …}   or   {"id": 7, "error": {"code": "usage", "message": "…"}}
    server   {"id": 7, "event": …}    any number before the result, for commands that stream; closing the socket ends them

Laws: who may talk is decided by the socket's permissions. Still, a line is at most MAX_LINE bytes, a client has at most
MAX_PENDING commands running, there are at most MAX_CLIENTS, and a client that does not read loses events (it is told how many).
"""

from __future__ import annotations

import asyncio
import contextlib
import grp
import logging
import os
import socket
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec

from userfw import __version__

PROTOCOL = 1
MAX_LINE = 64 << 20
MAX_CLIENTS = 64
MAX_PENDING = 16
MAX_EVENTS = 4096

log = logging.getLogger("userfw.control")


class CommandError(Exception):
    """A command that could not be done. `code` is a word for programs: usage, refused, busy, internal, unknown, rules."""

    def __init__(self, message: str, code: str = "refused", data: Any = None) -> None:
        super().__init__(message)
        self.code = code
        self.data = data


class Request(msgspec.Struct, forbid_unknown_fields=True):
    """One line from a client."""

    command: str
    id: int = 0
    args: dict[str, Any] = {}


class Stream:
    """Where a running command puts events; bounded, never waits."""

    def __init__(self, client: Client, ident: int) -> None:
        self.client = client
        self.ident = ident
        self.lost = 0

    def send(self, event: Any) -> None:
        """Queue one event; counted as lost if the client does not keep up."""
        if self.client.closed or self.client.backlog() > MAX_EVENTS * 256:
            self.lost += 1
            return
        if self.lost:
            self.client.write({"id": self.ident, "event": {"lost": self.lost}})
            self.lost = 0
        self.client.write({"id": self.ident, "event": event})


Dispatch = Callable[[str, dict[str, Any], Stream], Awaitable[Any]]


class Client:
    """One connection and the commands it is running, at most `most`; `cancel` ends one of them by its id."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, dispatch: Dispatch, most: int = MAX_PENDING
    ) -> None:
        self.most = most
        self.running: dict[int, asyncio.Task[None]] = {}
        self.reader = reader
        self.writer = writer
        self.dispatch = dispatch
        self.tasks: set[asyncio.Task[None]] = set()
        self.closed = False
        self.encoder = msgspec.json.Encoder(enc_hook=str)

    def backlog(self) -> int:
        """Bytes the client has not taken yet."""
        return self.writer.transport.get_write_buffer_size()

    def write(self, message: Any) -> None:
        """One line to the client; nothing if it is gone."""
        if not self.closed and not self.writer.is_closing():
            self.writer.write(self.encoder.encode(message) + b"\n")

    async def serve(self) -> None:
        """Read lines until the client goes; its running commands end with it."""
        self.write({"userfw": __version__, "protocol": PROTOCOL})
        try:
            while True:
                try:
                    line = await self.reader.readuntil(b"\n")
                except asyncio.LimitOverrunError:
                    self.write({"id": 0, "error": {"code": "usage", "message": f"a line of more than {MAX_LINE} bytes"}})
                    break
                except (asyncio.IncompleteReadError, ConnectionError):
                    break
                self._start_untrusted(line)
                with contextlib.suppress(ConnectionError):
                    await self.writer.drain()
        finally:
            await self.close()

    def _start_untrusted(self, line: bytes) -> None:
        try:
            request = msgspec.json.decode(line, type=Request)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            self.write({"id": 0, "error": {"code": "usage", "message": f"not a request: {error}"}})
            return
        if request.command == "cancel":
            task = self.running.get(request.args.get("id", 0))
            if task is not None:
                task.cancel()
            return
        if len(self.tasks) >= self.most:
            self.write({"id": request.id, "error": {"code": "busy", "message": "too many commands at once"}})
            return
        task = asyncio.ensure_future(self._run(request))
        self.tasks.add(task)
        self.running[request.id] = task
        task.add_done_callback(lambda done: self._over(request.id, done))

    def _over(self, number: int, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if self.running.get(number) is task:
            del self.running[number]

    async def _run(self, request: Request) -> None:
        try:
            result = await self.dispatch(request.command, request.args, Stream(self, request.id))
            self.write({"id": request.id, "result": result})
        except CommandError as error:
            answer = {"code": error.code, "message": str(error)}
            self.write({"id": request.id, "error": {**answer, "data": error.data} if error.data is not None else answer})
        except asyncio.CancelledError:
            raise
        except Exception as error:
            log.exception("command %s", request.command)
            message = f"{type(error).__name__}: {error}"
            self.write({"id": request.id, "error": {"code": "internal", "message": message}})

    async def close(self) -> None:
        """Cancel what runs and close the connection."""
        self.closed = True
        for task in list(self.tasks):
            task.cancel()
        self.writer.close()
        with contextlib.suppress(ConnectionError, OSError, asyncio.CancelledError):
            await self.writer.wait_closed()


class ControlServer:
    """Listens on a path and runs clients; `gone` is told of each client that left."""

    def __init__(self, dispatch: Dispatch, gone: Callable[[Client], None] | None = None) -> None:
        self.dispatch = dispatch
        self.gone = gone
        self.clients: set[Client] = set()
        self.server: asyncio.Server | None = None
        self.path: str | None = None

    async def start(self, path: str, mode: int = 0o660, group: str | None = None) -> None:
        """Listen. OSError if the path is taken by a living daemon or cannot be made; LookupError for an unknown group."""
        self.server = await asyncio.start_unix_server(self._accept, sock=listening_socket(path, mode, group), limit=MAX_LINE)
        self.path = path

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self.clients) >= MAX_CLIENTS:
            writer.write(b'{"id":0,"error":{"code":"busy","message":"too many clients"}}\n')
            writer.close()
            return
        client = Client(reader, writer, self.dispatch)
        self.clients.add(client)
        try:
            await client.serve()
        finally:
            self.clients.discard(client)
            if self.gone is not None:
                self.gone(client)

    async def close(self) -> None:
        """Stop listening, end all clients, remove the socket."""
        if self.server is not None:
            self.server.close()
        for client in list(self.clients):
            await client.close()
        if self.path is not None:
            with contextlib.suppress(OSError):
                os.unlink(self.path)


def listening_socket(path: str, mode: int, group: str | None) -> socket.socket:
    """A Unix socket bound to `path` with its permissions. OSError if a living daemon has it; LookupError for an unknown group."""
    gid = grp.getgrnam(group).gr_gid if group else -1
    _clear_stale(path)
    Path(path).parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        old = os.umask(0o177)
        try:
            sock.bind(path)
        finally:
            os.umask(old)
        if gid >= 0:
            os.chown(path, -1, gid)
        os.chmod(path, mode)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def _clear_stale(path: str) -> None:
    """Remove a socket nobody listens on any more (a daemon that was killed)."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise OSError(17, "exists and is not a socket", path)
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
    raise OSError(98, "another daemon is listening here", path)
