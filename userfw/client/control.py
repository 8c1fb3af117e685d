"""Client of the daemon's control socket: one JSON object a line (see daemon.control for the protocol).

Laws:
- Blocking and small: what asyncio programs need is the same protocol over their own streams.
- Every failure is a `ControlError` whose text a user can act on.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from typing import Any

DEFAULT_PATH = "/run/userfw/control.sock"
ENVIRONMENT = "USERFW_SOCKET"
READ_SIZE = 1 << 16


class ControlError(Exception):
    """The daemon is not there, refused, or the connection broke. `code` is the protocol's word for it."""

    def __init__(self, message: str, code: str = "connection", data: Any = None) -> None:
        super().__init__(message)
        self.code = code
        self.data = data


def socket_path(path: str | None = None) -> str:
    """The socket to use: the argument, the environment, or the default."""
    return path or os.environ.get(ENVIRONMENT) or DEFAULT_PATH


class ControlClient:
    """One connection; use as a context manager. `timeout` in seconds is for each answer, None waits for ever."""

    def __init__(self, path: str | None = None, timeout: float | None = None) -> None:
        self.path = socket_path(path)
        self._chunks = [b""]  # what was received and is no whole line yet: an interrupt loses nothing of it
        self._next = 0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout)
        try:
            self._socket.connect(self.path)
            self.hello = self._line()
        except OSError as error:
            self._socket.close()
            raise ControlError(f"cannot reach the daemon at {self.path}: {error.strerror or error}") from None
        except ControlError:
            self._socket.close()
            raise

    def __enter__(self) -> ControlClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connection; the daemon forgets what this client owned."""
        self._socket.close()

    def request(self, command: str, **args: Any) -> Any:
        """Run a command and return its result. ControlError with the daemon's message and code if it fails."""
        ident = self._send(command, args)
        while True:
            message = self._line()
            if message.get("id") == ident and "event" not in message:
                return _result(message)

    def stream(self, command: str, **args: Any) -> Iterator[Any]:
        """Run a command that streams, at once; the iterator gives its events until it ends."""
        return self._events(self._send(command, args))

    def _events(self, ident: int) -> Iterator[Any]:
        while True:
            message = self._line()
            if message.get("id") != ident:
                continue
            if "event" not in message:
                _result(message)
                return
            yield message["event"]

    def _send(self, command: str, args: dict[str, Any]) -> int:
        self._next += 1
        line = json.dumps({"id": self._next, "command": command, "args": args}) + "\n"
        rest = memoryview(line.encode("utf-8", "surrogateescape"))
        try:
            while rest:
                rest = rest[self._socket.send(rest) :]
        except KeyboardInterrupt:
            self._socket.sendall(rest)  # half a request would spoil the next one
            raise
        except OSError as error:
            raise ControlError(f"the daemon went away: {error.strerror or error}") from None
        return self._next

    def _line(self) -> dict[str, Any]:
        chunks = self._chunks
        while b"\n" not in chunks[-1]:
            try:
                data = self._socket.recv(READ_SIZE)
            except TimeoutError:
                raise ControlError("the daemon does not answer") from None
            except OSError as error:
                raise ControlError(f"the daemon went away: {error.strerror or error}") from None
            if not data:
                raise ControlError("the daemon closed the connection")
            chunks.append(data)
        line, _, rest = b"".join(chunks).partition(b"\n")
        self._chunks = [rest]
        try:
            message = json.loads(line)
        except ValueError:
            raise ControlError("the daemon sent something that is no answer", "protocol") from None
        if not isinstance(message, dict):
            raise ControlError("the daemon sent something that is no answer", "protocol")
        return message


def _result(message: dict[str, Any]) -> Any:
    error = message.get("error")
    if error is not None:
        raise ControlError(str(error.get("message")), str(error.get("code", "refused")), error.get("data"))
    return message.get("result")
