"""Programs that judge packets: clients of the daemon's queue socket (docs/queue.md), blocking and for asyncio.

    with QueueClient() as client:                       async with AsyncQueueClient() as client:
        client.bind(5)                                      await client.bind(5)
        for packet in client:                               async for packet in client:
            packet.accept(mark=7)                               packet.drop()

Laws: every packet needs one verdict; one without keeps its place in the queue. When the connection ends, the packets that it holds
are dropped. A `QueuePacket`'s verdict methods never wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from userfw.client.control import ControlError
from userfw.client.frames import Decoder, Frame, FrameError, encode

DEFAULT_PATH = "/run/userfw/control.queue"
ENVIRONMENT = "USERFW_QUEUE_SOCKET"


def queue_path(path: str | None = None) -> str:
    """The socket to use: the argument, the environment, or the default."""
    return path or os.environ.get(ENVIRONMENT) or DEFAULT_PATH


class QueuePacket:
    """A packet to judge. `payload` begins at the network header; `facts` is all that the daemon told (docs/queue.md)."""

    def __init__(self, facts: dict[str, Any], payload: bytes, send: Callable[[bytes], None]) -> None:
        self.facts = facts
        self.payload = payload
        self.queue = int(facts["queue"])
        self.id = int(facts["id"])
        self.hook = int(facts["hook"])
        self.family = int(facts["family"])
        self.protocol = int(facts["protocol"])
        self.mark = int(facts["mark"])
        self.length = int(facts["length"])
        self.iif = str(facts["iif"])
        self.oif = str(facts["oif"])
        self._send = send

    def accept(self, mark: int | None = None, payload: bytes | None = None) -> None:
        """Let it go on, with another mark or other bytes if given (checksums are the caller's business)."""
        self._verdict("accept", mark, payload)

    def drop(self) -> None:
        """The end of it."""
        self._verdict("drop")

    def repeat(self, mark: int | None = None, payload: bytes | None = None) -> None:
        """To the same chain once more."""
        self._verdict("repeat", mark, payload)

    def requeue(self, number: int, mark: int | None = None, payload: bytes | None = None) -> None:
        """To another queue."""
        self._verdict("queue", mark, payload, target=number)

    def accept_up_to(self, mark: int | None = None) -> None:
        """Accept this one and all of its queue that came before it and still wait."""
        self._verdict("accept", mark, batch=True)

    def drop_up_to(self) -> None:
        """As `accept_up_to`, to drop."""
        self._verdict("drop", batch=True)

    def _verdict(self, verdict: str, mark: int | None = None, payload: bytes | None = None, **more: Any) -> None:
        header: dict[str, Any] = {"do": "verdict", "queue": self.queue, "id": self.id, "verdict": verdict, **more}
        if mark is not None:
            header["mark"] = mark
        self._send(encode(header, payload or b""))


class _Session:
    """What both clients share: frames in, packets and answers out."""

    def __init__(self) -> None:
        self.decoder = Decoder()
        self.packets: deque[QueuePacket] = deque()
        self.answers: deque[dict[str, Any]] = deque()
        self.errors: list[str] = []
        self.hello: dict[str, Any] | None = None

    def feed_untrusted(self, data: bytes, send: Callable[[bytes], None]) -> None:
        """Bytes from the daemon. ControlError."""
        try:
            for frame in self.decoder.feed_untrusted(data):
                self._frame(frame, send)
        except (FrameError, KeyError, TypeError, ValueError) as error:
            raise ControlError(f"the daemon sent something else than frames: {error}", "protocol") from None

    def _frame(self, frame: Frame, send: Callable[[bytes], None]) -> None:
        header, payload = frame
        if "packet" in header:
            self.packets.append(QueuePacket(header["packet"], payload, send))
        elif "userfw" in header:
            self.hello = header
        elif "verdict" in header:
            self.errors.append(str(header.get("error")))
        else:
            self.answers.append(header)

    def answer(self) -> bool:
        """Take an answer, if there is one; ControlError if it is a refusal."""
        if not self.answers:
            return False
        header = self.answers.popleft()
        if "error" in header:
            raise ControlError(str(header["error"]), "refused")
        return True


def _bind(number: int, options: dict[str, Any]) -> bytes:
    return encode({"do": "bind", "queue": number, **options})


class QueueClient(_Session):
    """Blocking. `timeout`: seconds that `recv` and requests wait, None: for ever. `errors`: verdicts that were refused."""

    def __init__(self, path: str | None = None, timeout: float | None = None) -> None:
        super().__init__()
        self.path = queue_path(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout)
        try:
            self._socket.connect(self.path)
            while self.hello is None:
                self._read()
        except (OSError, ControlError) as error:
            self._socket.close()
            if isinstance(error, ControlError):
                raise
            raise ControlError(f"cannot reach the daemon at {self.path}: {error.strerror or error}") from None

    def __enter__(self) -> QueueClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[QueuePacket]:
        while True:
            yield self.recv()

    def close(self) -> None:
        """End the connection; what it holds is dropped. Wakes a `recv` in another thread."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def fileno(self) -> int:
        """For select and friends: readable when `recv` may have something."""
        return self._socket.fileno()

    def bind(self, number: int, **options: Any) -> None:
        """Listen on a queue; options: length, fail_open, copy_range, gso, name. ControlError if somebody does."""
        self._request(_bind(number, options))

    def unbind(self, number: int) -> None:
        """Stop listening on a queue."""
        self._request(encode({"do": "unbind", "queue": number}))

    def recv(self) -> QueuePacket:
        """The next packet. TimeoutError; ControlError when the daemon is gone."""
        while not self.packets:
            self._read()
        return self.packets.popleft()

    def _request(self, frame: bytes) -> None:
        self._send(frame)
        while not self.answer():
            self._read()

    def _send(self, frame: bytes) -> None:
        try:
            self._socket.sendall(frame)
        except OSError as error:
            raise ControlError(f"the daemon went away: {error.strerror or error}") from None

    def _read(self) -> None:
        try:
            data = self._socket.recv(1 << 18)
        except TimeoutError:
            raise
        except OSError as error:
            raise ControlError(f"the daemon went away: {error.strerror or error}") from None
        if not data:
            raise ControlError("the daemon closed the connection")
        self.feed_untrusted(data, self._send)


class AsyncQueueClient(_Session):
    """For asyncio: `async with`, or `open` and `close`."""

    def __init__(self, path: str | None = None) -> None:
        super().__init__()
        self.path = queue_path(path)
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def __aenter__(self) -> AsyncQueueClient:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def __aiter__(self) -> AsyncIterator[QueuePacket]:
        while True:
            yield await self.recv()

    async def open(self) -> None:
        """Connect. ControlError."""
        try:
            self._reader, self._writer = await asyncio.open_unix_connection(self.path)
        except OSError as error:
            raise ControlError(f"cannot reach the daemon at {self.path}: {error.strerror or error}") from None
        while self.hello is None:
            await self._read()

    async def close(self) -> None:
        """End the connection; what it holds is dropped."""
        if self._writer is not None:
            self._writer.close()
            with contextlib.suppress(OSError):
                await self._writer.wait_closed()

    async def bind(self, number: int, **options: Any) -> None:
        """See `QueueClient.bind`."""
        await self._request(_bind(number, options))

    async def unbind(self, number: int) -> None:
        """See `QueueClient.unbind`."""
        await self._request(encode({"do": "unbind", "queue": number}))

    async def recv(self) -> QueuePacket:
        """The next packet. ControlError when the daemon is gone."""
        while not self.packets:
            await self._read()
        return self.packets.popleft()

    async def _request(self, frame: bytes) -> None:
        self._send(frame)
        while not self.answer():
            await self._read()

    def _send(self, frame: bytes) -> None:
        if self._writer is None:
            raise ControlError("not connected")
        self._writer.write(frame)

    async def _read(self) -> None:
        if self._reader is None:
            raise ControlError("not connected")
        try:
            data = await self._reader.read(1 << 18)
        except OSError as error:
            raise ControlError(f"the daemon went away: {error.strerror or error}") from None
        if not data:
            raise ControlError("the daemon closed the connection")
        self.feed_untrusted(data, self._send)
