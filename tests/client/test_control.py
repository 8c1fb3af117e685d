"""Client and daemon over a real socket: commands, errors, files sent along, events, what happens when one side is gone."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from userfw.client.control import ControlClient, ControlError
from userfw.client.nftables import Nftables
from userfw.client.runner import DaemonRunner
from userfw.daemon.commands import dispatch
from userfw.daemon.control import CommandError, ControlServer, Stream
from userfw.ruleset.manager import RulesetManager
from userfw.ruleset.options import Options
from userfw.ruleset.service import NftService, UsageError


class Daemon:
    """The control socket of a daemon that has nothing but rules."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.rules = RulesetManager()
        self.service = NftService(self.rules)
        self.loop = asyncio.new_event_loop()
        self.server = ControlServer(self._dispatch)
        self.ready = threading.Event()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()
        assert self.ready.wait(10)

    async def _dispatch(self, name: str, args: dict[str, Any], stream: Stream) -> Any:
        server: Any = SimpleNamespace(preparing=0, assembly=SimpleNamespace(nft=self.service), nft=self._nft)
        return await dispatch(server, name, args, stream)

    def _nft(self, message: dict[str, Any], client: Any) -> Any:
        try:
            return self.service.execute(message, client)
        except UsageError as error:
            raise CommandError(str(error), "usage") from None

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_until_complete(self.server.start(self.path))
        self.ready.set()
        self.loop.run_forever()
        self.loop.run_until_complete(self.server.close())
        self.loop.close()

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    made = Daemon(tmp_path / "control.sock")
    yield made
    made.close()


def test_commands_and_errors(daemon: Daemon) -> None:
    with DaemonRunner(daemon.path) as runner:
        assert runner.run("add table ip t", Options()).status == 0
        assert runner.run("list tables", Options()).output == "table ip t\n"
        answer = runner.run("add chain ip u c", Options())
        assert answer.status == 1 and answer.errors.startswith("Error: Could not process rule")


def test_the_class_of_libnftables(daemon: Daemon) -> None:
    nft = Nftables(socket=daemon.path)
    assert nft.cmd("add table ip t") == (0, "", "")
    assert nft.json_cmd({"nftables": [{"list": {"tables": None}}]})[1]["nftables"][1]["table"]["name"] == "t"
    nft.close()


def test_included_files_are_read_by_the_client(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "part.nft").write_text("add chain ip t c\n")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "1.nft").write_text("add chain ip t one\n")
    (tmp_path / "d" / "2.nft").write_text("add chain ip t two\nadd nonsense\n")
    options = Options(filename="main.nft", include_path=(str(tmp_path),))
    with DaemonRunner(daemon.path) as runner:
        assert runner.run('add table ip t\ninclude "part.nft"\n', options).status == 0
        answer = runner.run(f'include "{tmp_path}/d/*.nft"\n', options)
        assert answer.status == 1
        assert f"{tmp_path}/d/2.nft:2:" in answer.errors and "In file included from main.nft:1:" in answer.errors
        assert runner.run('include "/etc/passwd-"\n', options).status == 1


def test_the_daemon_reads_no_files(daemon: Daemon) -> None:
    with ControlClient(daemon.path) as client:
        result = client.request("nft", text='include "/etc/passwd"\n', files={})
        assert result["status"] == 1 and "File not found" in result["errors"]


def test_large_texts_go_the_same_way(daemon: Daemon) -> None:
    text = "add table ip t\nadd set ip t s { type inet_service; }\n"
    text += "".join(f"add element ip t s {{ {n} }}\n" for n in range(1000))
    with DaemonRunner(daemon.path) as runner:
        assert runner.run(text, Options()).status == 0
        assert runner.run("list set ip t s", Options()).output.count(",") == 999


def test_events(daemon: Daemon) -> None:
    with DaemonRunner(daemon.path) as watcher, DaemonRunner(daemon.path) as runner:
        lines = watcher.monitor(None, "tables", Options())
        seen: list[str] = []

        def watch() -> None:
            seen.append(next(lines))

        thread = threading.Thread(target=watch)
        thread.start()
        number = 0
        while thread.is_alive():  # until the subscription stands
            runner.run(f"add table ip t{number}", Options())
            number += 1
            thread.join(0.01)
        assert seen[0].startswith("add table ip t")


def test_owned_tables_name_their_client(daemon: Daemon) -> None:
    with DaemonRunner(daemon.path) as one, DaemonRunner(daemon.path) as other:
        assert one.run("add table ip t { flags owner; }", Options()).status == 0
        assert "Operation not permitted" in other.run("add chain ip t c", Options()).errors
        assert one.run("add chain ip t c", Options()).status == 0


def test_bad_messages_are_refused(daemon: Daemon) -> None:
    with ControlClient(daemon.path) as client:
        for args in ({"options": {"nope": 1}}, {"options": {"check": "yes"}}, {"files": {"a": [["only"]]}}, {"text": 5}):
            with pytest.raises(ControlError) as problem:
                client.request("nft", **args)
            assert problem.value.code == "usage"
        with pytest.raises(ControlError) as problem:
            client.request("nonsense")
        assert problem.value.code == "unknown"


def test_no_daemon(tmp_path: Path) -> None:
    with pytest.raises(ControlError, match="cannot reach the daemon"):
        ControlClient(str(tmp_path / "none.sock"))


def test_the_daemon_goes_away(tmp_path: Path) -> None:
    made = Daemon(tmp_path / "control.sock")
    client = ControlClient(made.path)
    made.close()
    with pytest.raises(ControlError, match="daemon"):
        client.request("nft", text="list tables")
    client.close()


class Interrupted:
    """A socket whose reads and writes are interrupted once, in the middle."""

    def __init__(self, answers: list[bytes]) -> None:
        self.answers = answers
        self.sent = b""
        self.stop = True

    def recv(self, size: int) -> bytes:
        piece = self.answers.pop(0)
        if not piece:
            raise KeyboardInterrupt
        return piece

    def send(self, data: bytes) -> int:
        if self.sent and self.stop:
            self.stop = False
            raise KeyboardInterrupt
        self.sent += bytes(data[:5])
        return 5

    def sendall(self, data: bytes) -> None:
        self.sent += bytes(data)


def test_an_interrupt_spoils_no_later_request() -> None:
    client = object.__new__(ControlClient)
    client._next, client._chunks = 0, [b""]
    wire = Interrupted([b'{"id": 1, "res', b"", b'ult": 1}\n{"id"', b': 2, "result": 2}\n'])
    client._socket = wire  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        client._send("ping", {})
    assert json.loads(wire.sent) == {"id": 1, "command": "ping", "args": {}}
    with pytest.raises(KeyboardInterrupt):
        client._line()
    assert client.request("ping") == 2
