"""Listeners of queues: clients of the queue socket, Python callbacks and programs of `[queue.N]` (docs/queue.md).

Laws: who may judge packets is decided by the socket's permissions. A client holds at most what its queues' lengths allow; one that
does not read loses packets (counted). When it goes, what it holds is dropped. A program that ends is started again, ever later.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import msgspec

from userfw import __version__
from userfw.client.frames import PROTOCOL, Decoder, Frame, FrameError, encode
from userfw.daemon import schema
from userfw.daemon.commands import NoArgs, command
from userfw.daemon.control import Stream, listening_socket
from userfw.ports._io import monotonic_ns
from userfw.router.queue import QueuedPacket, Queues

if TYPE_CHECKING:
    from userfw.daemon.server import Server

MAX_BACKLOG = 16 << 20
MAX_CLIENTS = 64
MAX_LENGTH = 1 << 16
FIRST_PAUSE, LAST_PAUSE = 1.0, 30.0
PATIENCE = 2.0  # seconds that a program has to end by itself

log = logging.getLogger("userfw.queue")


class Bind(msgspec.Struct, forbid_unknown_fields=True):
    """`{"do": "bind", …}`; what is left out is as `[queue.N]` says, or the default."""

    do: str
    queue: int
    length: int | None = None
    fail_open: bool | None = None
    copy_range: int | None = None
    gso: bool | None = None
    name: str = ""


class Unbind(msgspec.Struct, forbid_unknown_fields=True):
    """`{"do": "unbind", …}`"""

    do: str
    queue: int


class Verdict(msgspec.Struct, forbid_unknown_fields=True):
    """`{"do": "verdict", …}`; `batch`: for all packets of the queue up to `id`. The frame's payload replaces the packet's."""

    do: str
    queue: int
    id: int
    verdict: str
    mark: int | None = None
    target: int = -1
    batch: bool = False


class Refused(Exception):
    """What a client asked for cannot be done."""


class QueueClientConnection(asyncio.Protocol):
    """One client."""

    def __init__(self, service: QueueService) -> None:
        self.service = service
        self.decoder = Decoder()
        self.bound: set[int] = set()
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say who we are."""
        self.transport = cast(asyncio.Transport, transport)
        if len(self.service.clients) >= MAX_CLIENTS:
            self.transport.write(encode({"error": "too many clients"}))
            self.transport.close()
            return
        self.service.clients.add(self)
        self.transport.write(encode({"userfw": __version__, "protocol": PROTOCOL}))

    def connection_lost(self, error: Exception | None) -> None:
        """What it held is dropped."""
        self.service.clients.discard(self)
        for number in self.bound:
            self.service.queues.unbind(number)
        self.bound.clear()

    def data_received(self, data: bytes) -> None:
        """Requests and verdicts."""
        assert self.transport is not None
        self.service.begin()
        try:
            for frame in self.decoder.feed_untrusted(data):
                self._frame_untrusted(frame)
        except FrameError as error:
            self.transport.write(encode({"error": str(error)}))
            self.transport.close()
        finally:
            self.service.end()

    def _frame_untrusted(self, frame: Frame) -> None:
        header, payload = frame
        kind = header.get("do")
        try:
            if kind == "verdict":
                self._verdict(msgspec.convert(header, Verdict), payload)
                return
            if kind == "bind":
                answer = self._bind(msgspec.convert(header, Bind))
            elif kind == "unbind":
                answer = self._unbind(msgspec.convert(header, Unbind))
            else:
                raise Refused(f"no such request {kind!r}")
        except (Refused, ValueError, LookupError, msgspec.ValidationError) as error:
            answer = {"error": str(error.args[0] if error.args else error)}
            if kind == "verdict":
                answer = {"verdict": header.get("id"), "queue": header.get("queue"), **answer}
        assert self.transport is not None
        self.transport.write(encode(answer))

    def _bind(self, request: Bind) -> dict[str, Any]:
        options = self.service.options(request.queue)
        for key in options:
            value = getattr(request, key)
            if value is not None:
                options[key] = value
        if options["length"] > MAX_LENGTH:
            raise Refused(f"a queue holds at most {MAX_LENGTH} packets")
        self.service.queues.bind(request.queue, self._packet, name=request.name or "client", **options)
        self.bound.add(request.queue)
        return {"bound": request.queue}

    def _unbind(self, request: Unbind) -> dict[str, Any]:
        if request.queue not in self.bound:
            raise Refused(f"queue {request.queue} is not yours")
        self.bound.discard(request.queue)
        self.service.queues.unbind(request.queue)
        return {"unbound": request.queue}

    def _packet(self, queued: QueuedPacket) -> None:
        """On the packet path: to the client, or lost."""
        assert self.transport is not None
        if self.transport.is_closing() or self.transport.get_write_buffer_size() > MAX_BACKLOG:
            queued.queue.lost += 1
            queued.drop()
            return
        self.transport.write(encode({"packet": queued.describe()}, queued.payload))

    def _verdict(self, request: Verdict, payload: bytes) -> None:
        if request.queue not in self.bound:
            raise Refused(f"queue {request.queue} is not yours")
        held = self.service.queues.queues[request.queue].held
        if request.batch:
            wanted = [ident for ident in held if 0 <= (request.id - ident) & 0xFFFFFFFF < 0x80000000]
        else:
            wanted = [request.id]
        if not wanted or wanted[0] not in held:
            raise Refused(f"queue {request.queue} holds no packet {request.id}")
        for ident in wanted:
            _decide(held[ident], request, payload)


def _decide(queued: QueuedPacket, request: Verdict, payload: bytes) -> None:
    if request.mark is not None:
        if not 0 <= request.mark <= 0xFFFFFFFF:
            raise Refused(f"mark {request.mark} is not 32 bits")
        queued.set_mark(request.mark)
    if payload:
        queued.set_payload(payload)
    if request.verdict == "accept":
        queued.accept()
    elif request.verdict == "drop":
        queued.drop()
    elif request.verdict == "repeat":
        queued.repeat()
    elif request.verdict == "queue":
        queued.requeue(request.target)
    else:
        raise Refused(f"no verdict {request.verdict!r}: accept, drop, repeat or queue")


class Program:
    """A program of `[queue.N]`, kept running."""

    def __init__(self, number: int, argv: list[str], path: str) -> None:
        self.number = number
        self.argv = argv
        self.environment = {**os.environ, "USERFW_QUEUE_SOCKET": path, "USERFW_QUEUE": str(number)}
        self.starts = 0
        self.task = asyncio.ensure_future(self._keep())

    async def _keep(self) -> None:
        pause = FIRST_PAUSE
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                process = await asyncio.create_subprocess_exec(
                    *self.argv, env=self.environment, stdin=asyncio.subprocess.DEVNULL
                )
                self.starts += 1
                status = await self._ended(process)
                log.warning("queue %d: %s ended with status %d", self.number, self.argv[0], status)
            except OSError as error:
                log.error("queue %d: %s: %s", self.number, self.argv[0], error.strerror)
            pause = FIRST_PAUSE if loop.time() - began > LAST_PAUSE else min(pause * 2, LAST_PAUSE)
            await asyncio.sleep(pause)

    async def _ended(self, process: asyncio.subprocess.Process) -> int:
        """Its exit status; when this is cancelled the program is ended, at first kindly, and waited for."""
        try:
            return await process.wait()
        except asyncio.CancelledError:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
                try:
                    await asyncio.wait_for(process.wait(), PATIENCE)
                except TimeoutError:
                    process.kill()
                    await process.wait()
            raise

    def stop(self) -> asyncio.Future[None]:
        """End it and start it no more; done when it has ended."""
        self.task.cancel()
        return self.task


class QueueService:
    """Every listener of one daemon."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.queues: Queues = server.gateway.queues
        self.clients: set[QueueClientConnection] = set()
        self.listener: asyncio.Server | None = None
        self.path = ""
        self.config: dict[str, schema.QueueListener] = {}
        self.programs: dict[str, Program] = {}
        self.ending: set[asyncio.Future[None]] = set()

    async def start(self, path: str, mode: int, group: str | None) -> None:
        """Listen. OSError, LookupError as the control socket."""
        sock = listening_socket(path, mode, group)
        loop = asyncio.get_running_loop()
        self.listener = await loop.create_unix_server(lambda: QueueClientConnection(self), sock=sock)
        self.path = path
        for number, config in self.config.items():
            self._start_program(number, config)

    async def close(self) -> None:
        """End every listener."""
        for number in list(self.config):
            self._end(number)
        await asyncio.gather(*self.ending, return_exceptions=True)
        if self.listener is not None:
            self.listener.close()
            with contextlib.suppress(OSError):
                os.unlink(self.path)
        for client in list(self.clients):
            if client.transport is not None:
                client.transport.abort()

    def begin(self) -> None:
        """Before verdicts are handled."""
        self.server.clock.now = monotonic_ns()

    def end(self) -> None:
        """After them: send what they let go."""
        self.server.gateway.end_batch()
        self.server.arm_soon()

    def options(self, number: int) -> dict[str, Any]:
        """What `[queue.N]` says of a queue."""
        config = self.config.get(str(number)) or schema.QueueListener()
        return {"length": config.length, "fail_open": config.fail_open, "copy_range": config.copy_range, "gso": config.gso}

    def configure(self, wanted: dict[str, schema.QueueListener]) -> None:
        """Take over `[queue]`. ValueError if a callback cannot be loaded or a queue is taken; then nothing has changed."""
        callbacks = {number: load_callback(number, c.python) for number, c in wanted.items() if c.python}
        taken = {number for client in self.clients for number in client.bound}
        for number in callbacks:
            if int(number) in taken:
                raise ValueError(f"queue.{number}: a client listens on it")
        for number in list(self.config):
            if wanted.get(number) != self.config[number]:
                self._end(number)
        for number, config in wanted.items():
            if number in self.config:
                continue
            self.config[number] = config
            if config.python:
                self.queues.bind(int(number), callbacks[number], name=config.python, **self.options(int(number)))
            if self.listener is not None:
                self._start_program(number, config)

    def _start_program(self, number: str, config: schema.QueueListener) -> None:
        if config.program:
            self.programs[number] = Program(int(number), config.program, self.path)

    def _end(self, number: str) -> None:
        config = self.config.pop(number)
        program = self.programs.pop(number, None)
        if program is not None:
            task = program.stop()
            self.ending.add(task)
            task.add_done_callback(self.ending.discard)
        if config.python:
            self.queues.unbind(int(number))


def load_callback(number: str, name: str) -> Callable[[QueuedPacket], None]:
    """`package.module:function`. ValueError."""
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute or "judge")
    except Exception as error:
        raise ValueError(f"queue.{number}.python: {name}: {type(error).__name__}: {error}") from error
    if not callable(found):
        raise ValueError(f"queue.{number}.python: {name} is not callable")
    return cast(Callable[[QueuedPacket], None], found)


@command("queues")
def _queues(server: Server, args: NoArgs, stream: Stream) -> Any:
    return server.queues.queues.listing()

