"""The control socket: requests, streams, and clients that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from userfw.daemon import control
from userfw.daemon.control import CommandError, ControlServer, Stream

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def answer(command: str, args: dict[str, Any], stream: Stream) -> Any:
    """Commands for the tests."""
    if command == "echo":
        return args
    if command == "count":
        for i in range(args["to"]):
            stream.send({"n": i})
        return "done"
    if command == "refuse":
        raise CommandError("no", "refused", {"line": 3})
    if command == "wait":
        await asyncio.Future()
    raise ZeroDivisionError("a fault")


@pytest_asyncio.fixture
async def server(tmp_path: Path) -> AsyncIterator[ControlServer]:
    server = ControlServer(answer)
    await server.start(str(tmp_path / "run" / "c.sock"), 0o600)
    yield server
    await server.close()


async def connect(server: ControlServer) -> Connection:
    reader, writer = await asyncio.open_unix_connection(server.path)
    hello = json.loads(await reader.readline())
    assert hello["protocol"] == control.PROTOCOL
    return reader, writer


async def ask(connection: Connection, message: Any) -> Any:
    reader, writer = connection
    writer.write((message if isinstance(message, bytes) else json.dumps(message).encode()) + b"\n")
    return json.loads(await reader.readline())


async def test_a_command_and_its_answer(server: ControlServer) -> None:
    connection = await connect(server)
    assert await ask(connection, {"id": 7, "command": "echo", "args": {"a": [1]}}) == {"id": 7, "result": {"a": [1]}}
    connection[1].close()


async def test_events_come_before_the_result(server: ControlServer) -> None:
    connection = await connect(server)
    connection[1].write(b'{"id":1,"command":"count","args":{"to":3}}\n')
    lines = [json.loads(await connection[0].readline()) for _ in range(4)]
    assert lines == [*({"id": 1, "event": {"n": i}} for i in range(3)), {"id": 1, "result": "done"}]
    connection[1].close()


async def test_errors_have_a_code(server: ControlServer, caplog: pytest.LogCaptureFixture) -> None:
    connection = await connect(server)
    refused = await ask(connection, {"id": 1, "command": "refuse"})
    assert refused["error"] == {"code": "refused", "message": "no", "data": {"line": 3}}
    fault = await ask(connection, {"id": 2, "command": "fault"})
    assert fault["error"] == {"code": "internal", "message": "ZeroDivisionError: a fault"}
    assert "a fault" in caplog.text, "a fault is logged"
    connection[1].close()


@pytest.mark.parametrize(
    "line",
    [b"", b"nonsense", b"[]", b'{"id":1}', b'{"command":5}', b'{"command":"echo","args":[]}', b'{"command":"echo","more":1}',
     b"\xff\xfe", b"[" * 100_000, b'{"command":"echo","id":"x"}'],
)  # fmt: skip
async def test_bad_lines_are_answered_and_the_connection_lives(server: ControlServer, line: bytes) -> None:
    connection = await connect(server)
    assert (await ask(connection, line))["error"]["code"] == "usage"
    assert (await ask(connection, {"id": 3, "command": "echo"}))["result"] == {}
    connection[1].close()


async def test_a_line_without_end_closes_the_connection(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(control, "MAX_LINE", 1 << 16)
    small = ControlServer(answer)
    await small.start(str(tmp_path / "small.sock"))
    connection = await connect(small)
    connection[1].write(b"x" * (1 << 18))
    told = json.loads(await connection[0].readline())
    assert told["error"]["code"] == "usage"
    with contextlib.suppress(ConnectionResetError):
        assert await connection[0].read() == b""
    connection[1].close()
    await small.close()


async def test_too_many_commands_at_once(server: ControlServer) -> None:
    connection = await connect(server)
    for i in range(control.MAX_PENDING):
        connection[1].write(json.dumps({"id": i, "command": "wait"}).encode() + b"\n")
    assert (await ask(connection, {"id": 99, "command": "echo"}))["error"]["code"] == "busy"
    connection[1].close()


async def test_too_many_clients(server: ControlServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "MAX_CLIENTS", 1)
    first = await connect(server)
    reader, writer = await asyncio.open_unix_connection(server.path)
    assert json.loads(await reader.readline())["error"]["code"] == "busy"
    writer.close()
    first[1].close()


async def test_commands_end_with_their_client(server: ControlServer) -> None:
    connection = await connect(server)
    connection[1].write(b'{"id":1,"command":"wait"}\n')
    assert (await ask(connection, {"id": 2, "command": "echo"}))["id"] == 2
    [client] = server.clients
    [task] = client.tasks
    connection[1].close()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_client_that_does_not_read_loses_events_not_memory(server: ControlServer) -> None:
    connection = await connect(server)
    connection[1].write(b'{"id":1,"command":"count","args":{"to":200000}}\n')
    assert (await ask(connection, {"id": 2, "command": "echo"}))["id"] in (1, 2)
    [client] = server.clients
    assert client.backlog() < 8 << 20
    connection[1].transport.abort()


async def test_the_socket_has_its_permissions_and_goes(server: ControlServer) -> None:
    path = server.path
    assert path is not None and stat.S_IMODE(os.stat(path).st_mode) == 0o600
    await server.close()
    assert not os.path.exists(path)


async def test_a_living_daemon_keeps_its_socket(server: ControlServer) -> None:
    assert server.path is not None
    with pytest.raises(OSError, match="another daemon"):
        await ControlServer(answer).start(server.path)


async def test_a_dead_daemons_socket_is_taken(tmp_path: Path) -> None:
    import socket

    path = str(tmp_path / "x.sock")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    server = ControlServer(answer)
    await server.start(path)
    await server.close()
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="not a socket"):
        await ControlServer(answer).start(str(tmp_path / "file"))


async def test_an_unknown_group_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LookupError):
        await ControlServer(answer).start(str(tmp_path / "x.sock"), group="no-such-group-here")


def test_every_command_is_documented() -> None:
    import userfw.daemon.server  # noqa: F401 (brings all commands)
    from userfw.daemon.commands import REGISTRY
    from userfw.daemon.connections import Filter

    text = (Path(__file__).parents[2] / "docs" / "control-socket.md").read_text()
    for name, (kind, _) in REGISTRY.items():
        [row] = [line for line in text.splitlines() if line.startswith(f"| `{name}` |")]
        assert all(f"`{field}`" in row for field in kind.__struct_fields__), row
    assert all(f"`{field}`" in text for field in Filter.__struct_fields__)
