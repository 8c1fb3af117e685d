"""The front process of several workers: it owns the control socket and makes many daemons look like one (docs/workers.md).

Laws:
- It forwards nothing. Workers start one after the other, so that queues are numbered like workers.
- A change of rules happens in all workers or in none: prepared by all, then committed by all; one at a time.
- A command that it does not know how to put together is refused, never answered by one worker for all.
- When a worker ends, everything ends: there is no gateway that has lost a part of its flows. (systemd starts it anew.)
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import mmap
import os
import signal
import socket
import time
from collections.abc import Callable
from typing import Any

import msgspec

from userfw.daemon import config as configuration
from userfw.daemon import merge, schema, sysctl
from userfw.daemon.control import MAX_LINE, CommandError, ControlServer, Stream
from userfw.daemon.lock import Lock, LockedError
from userfw.daemon.systemd import Notifier
from userfw.daemon.worker import Part
from userfw.daemon.worker import main as worker_main
from userfw.engine.shared import size_of

log = logging.getLogger("userfw")

BUFFER = 16 << 20  # of a worker's inbox
SO_SNDBUFFORCE = 32
ANSWER_SECONDS = 15.0
STOP_SECONDS = 15.0


class Worker:
    """The front's end of one worker."""

    def __init__(self, index: int, pid: int, sock: socket.socket) -> None:
        self.index = index
        self.pid = pid
        self.sock = sock
        self.pidfd = os.pidfd_open(pid)
        self.reader: asyncio.StreamReader | None = None
        self.writer: asyncio.StreamWriter | None = None
        self.numbers = itertools.count(1)
        self.waiting: dict[int, tuple[asyncio.Future[Any], Callable[[Any], None] | None]] = {}
        self.task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Let it open its ports and wait until it forwards. StartError's words as CommandError."""
        self.sock.send(b"g")
        self.sock.setblocking(False)
        self.reader, self.writer = await asyncio.open_unix_connection(sock=self.sock, limit=MAX_LINE)
        try:
            hello = msgspec.json.decode(await self.reader.readuntil(b"\n"))
        except asyncio.IncompleteReadError:
            raise CommandError(f"worker {self.index} ended before it was ready") from None
        if "error" in hello:
            raise CommandError(hello["error"]["message"])
        self.task = asyncio.ensure_future(self._listen())

    async def _listen(self) -> None:
        assert self.reader is not None
        try:
            while line := await self.reader.readuntil(b"\n"):
                message = msgspec.json.decode(line)
                future, listener = self.waiting.get(message.get("id", 0), (None, None))
                if future is None:
                    continue
                if "event" in message:
                    if listener is not None:
                        listener(message["event"])
                elif not future.done():
                    if "error" in message:
                        error = message["error"]
                        future.set_exception(CommandError(error["message"], error.get("code", "refused"), error.get("data")))
                    else:
                        future.set_result(message.get("result"))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            for future, _ in self.waiting.values():
                if not future.done():
                    future.set_exception(CommandError(f"worker {self.index} ended", "internal"))

    async def call(self, command: str, args: Any = None, listener: Callable[[Any], None] | None = None) -> Any:
        """A command's result. CommandError. With a listener it may run on; cancelling ends it there too."""
        assert self.writer is not None
        number = next(self.numbers)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.waiting[number] = (future, listener)
        try:
            self.writer.write(msgspec.json.encode({"id": number, "command": command, "args": args or {}}) + b"\n")
            return await future
        except asyncio.CancelledError:
            self.writer.write(msgspec.json.encode({"id": 0, "command": "cancel", "args": {"id": number}}) + b"\n")
            raise
        finally:
            del self.waiting[number]

    def close(self) -> None:
        """Hang up, which tells it to stop."""
        if self.writer is not None:
            self.writer.close()
        else:
            self.sock.close()


class Front:
    """One daemon with several workers."""

    def __init__(self, config: schema.Config, workers: list[Worker]) -> None:
        self.config = config
        self.workers = workers
        self.lock = Lock()
        self.notifier = Notifier()
        self.control = ControlServer(self.dispatch, self._client_gone)
        self.changing = asyncio.Lock()
        self.stopping = asyncio.Event()
        self.failed = ""
        self.started = time.time()
        self.clients: dict[Any, int] = {}
        self.numbers = itertools.count(1)
        self.background: set[asyncio.Task[Any]] = set()

    # -- life

    async def run(self, ready: Callable[[], None]) -> int:
        """Until told to stop, or until a worker ends: exit code. StartError if it cannot start."""
        from userfw.daemon.server import StartError

        loop = asyncio.get_running_loop()
        daemon = self.config.daemon
        try:
            self.lock.take(daemon)
            await self.control.start(daemon.control, daemon.control_mode, daemon.control_group)
            for worker in self.workers:
                loop.add_reader(worker.pidfd, self._ended, worker)
                await worker.start()
        except (LockedError, CommandError, OSError, LookupError) as error:
            self.stopping.set()
            await self.stop()
            raise StartError(str(error)) from error
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stopping.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload_on_signal)
        try:
            self.notifier.ready(f"forwarding with {len(self.workers)} workers")
            self._spawn(self._watch())
            ready()
            log.info("ready: %d workers, %d ports", len(self.workers), len(self.config.port))
            await self.stopping.wait()
        finally:
            await self.stop()
        return 1 if self.failed else 0

    async def stop(self) -> None:
        """Let every worker save its state and end; whoever does not in time is killed."""
        self.notifier.stopping()
        self.stopping.set()
        for task in list(self.background):
            task.cancel()
        if not self.failed:
            with contextlib.suppress(CommandError, TimeoutError):
                await asyncio.wait_for(self._gather_counters(), 2)
        await self.control.close()
        for worker in self.workers:
            worker.close()
        deadline = time.monotonic() + STOP_SECONDS
        for worker in self.workers:
            while not _gone(worker.pid):
                if time.monotonic() > deadline:
                    os.kill(worker.pid, signal.SIGKILL)
                await asyncio.sleep(0.01)
            asyncio.get_running_loop().remove_reader(worker.pidfd)
            os.close(worker.pidfd)
        self.lock.release()

    def _ended(self, worker: Worker) -> None:
        """A worker's process is no more."""
        asyncio.get_running_loop().remove_reader(worker.pidfd)
        if not self.stopping.is_set():
            self.failed = f"worker {worker.index} (pid {worker.pid}) ended; the others stop too, for its flows are lost"
            log.error(self.failed)
            self.stopping.set()

    async def _watch(self) -> None:
        """The watchdog is fed only while every worker answers."""
        while True:
            await asyncio.sleep(1)
            try:
                await asyncio.wait_for(self.all("ping"), ANSWER_SECONDS)
            except (TimeoutError, CommandError) as error:
                log.error("a worker does not answer: %s", error or "timeout")
                continue
            self.notifier.alive()

    def _spawn(self, coroutine: Any) -> None:
        task = asyncio.ensure_future(coroutine)
        self.background.add(task)
        task.add_done_callback(self.background.discard)

    # -- commands

    async def all(self, command: str, args: Any = None) -> list[Any]:
        """Every worker's result, in their order. CommandError of the first that has one."""
        results = await asyncio.gather(*(worker.call(command, args) for worker in self.workers), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return list(results)

    async def dispatch(self, command: str, args: dict[str, Any], stream: Stream) -> Any:
        """A client's command. CommandError."""
        if command in merge.MERGED:
            return await self._merged(command, args)
        if command == "nft":
            return await self._nft(args, self._number(stream.client))
        if command in merge.STREAMS:
            return await self._streamed(command, args, stream)
        if command == "reload":
            return await self._reload()
        if command == "stop":
            asyncio.get_running_loop().call_later(0.05, self.stopping.set)
            return {"stopping": True}
        if command in merge.FIRST:
            return await self.workers[0].call(command, args)
        known = await self.workers[0].call("help")
        if command in known:
            raise CommandError(f"{command} needs workers = 1")
        return await self.workers[0].call(command, args)

    async def _merged(self, command: str, args: dict[str, Any]) -> Any:
        result = merge.MERGED[command](await self.all(command, args), args)
        if command == "status":
            result |= {"pid": os.getpid(), "uptime": round(time.time() - self.started, 3)}
        return result

    def _number(self, client: Any) -> int:
        if client not in self.clients:
            self.clients[client] = next(self.numbers)
        return self.clients[client]

    async def _nft(self, args: dict[str, Any], client: int) -> Any:
        """Prepared by all, then committed by all."""
        async with self.changing:
            if merge.reads_counters(args):
                await self._gather_counters()
            prepared = await self.all("worker.prepare", {**args, "client": client})
            refusing = [number for number, answer in enumerate(prepared) if not answer["ok"]]
            if refusing:
                answer = await self.workers[refusing[0]].call("worker.commit")
                await self.all("worker.abort")
                return answer
            try:
                answers = await self.all("worker.commit")
            except CommandError as error:
                return self._torn(error)
            if len({answer["generation"] for answer in answers}) != 1 or any(answer["status"] for answer in answers):
                return self._torn(CommandError("; ".join(answer["errors"] for answer in answers if answer["errors"])))
            return answers[0]

    def _torn(self, error: CommandError) -> Any:
        """Some committed, some did not: that must not go on."""
        self.failed = f"the workers' rulesets differ ({error}); everything stops"
        log.error(self.failed)
        self.stopping.set()
        raise CommandError(self.failed, "internal")

    async def _gather_counters(self) -> None:
        """The first worker's counters become those of all."""
        for worker in self.workers[1:]:
            await self.workers[0].call("worker.add", await worker.call("worker.take"))

    async def _streamed(self, command: str, args: dict[str, Any], stream: Stream) -> Any:
        """Events of every worker, or (where all have the same) of the first."""
        workers = self.workers if merge.from_all(command, args) else self.workers[:1]
        tasks = [asyncio.ensure_future(worker.call(command, args, stream.send)) for worker in workers]
        try:
            for done in asyncio.as_completed(tasks):
                await done
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _reload(self) -> Any:
        """Each worker in turn; if one refuses, those before it go back."""
        async with self.changing:
            try:
                new = configuration.load(self.config.path, sysctl.NAMES)
            except configuration.ConfigError as error:
                raise CommandError(str(error)) from error
            self.notifier.reloading()
            try:
                for worker in self.workers:
                    try:
                        result = await worker.call("reload")
                    except CommandError:
                        for other in reversed(self.workers[: worker.index]):
                            await other.call("worker.revert")
                        raise
            finally:
                self.notifier.ready(f"forwarding with {len(self.workers)} workers")
            self.config = new
            return result

    def _reload_on_signal(self) -> None:
        async def again() -> None:
            with contextlib.suppress(CommandError):
                await self._reload()

        self._spawn(again())

    def _client_gone(self, client: Any) -> None:
        number = self.clients.pop(client, None)
        if number is not None and not self.stopping.is_set():
            self._spawn(self._release(number))

    async def _release(self, number: int) -> None:
        async with self.changing:
            with contextlib.suppress(CommandError):
                await self.all("worker.gone", {"client": number})


def _gone(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True


def fork_workers(config: schema.Config) -> list[Worker]:
    """A process for each worker, waiting for the front's word. To be called before any thread or loop exists."""
    count = config.daemon.workers
    inboxes = []
    for _ in range(count):
        pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        for end in pair:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, BUFFER)
        inboxes.append(pair)
    group = os.getpid() * 61
    shared = mmap.mmap(-1, size_of())
    workers: list[Worker] = []
    for index in range(count):
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if pid:
            theirs.close()
            workers.append(Worker(index, pid, ours))
            continue
        code = 1
        try:
            ours.close()
            for worker in workers:
                worker.sock.close()
                os.close(worker.pidfd)
            outboxes = [-1 if i == index else inboxes[i][1].fileno() for i in range(count)]
            code = worker_main(config, Part(index, count, theirs, inboxes[index][0].fileno(), outboxes, group, shared))
        except BaseException:
            log.exception("worker %d", index)
        finally:
            logging.shutdown()
            os._exit(code)
    for pair in inboxes:
        pair[0].close()
        pair[1].close()
    return workers
