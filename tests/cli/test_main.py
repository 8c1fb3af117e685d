"""The command line against a daemon of canned answers: exit codes, tables, JSON, messages; nothing escapes as a traceback."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from userfw.cli import conntrack
from userfw.cli.main import build_parser, duration, main

ENTRY = {
    "id": 5, "family": "ipv4", "protocol": "tcp", "protonum": 6, "timeout": 431999, "state": "ESTABLISHED",
    "original": {"src": "192.168.1.5", "dst": "8.8.8.8", "sport": 5555, "dport": 443, "packets": 3, "bytes": 180},
    "reply": {"src": "8.8.8.8", "dst": "203.0.113.1", "sport": 443, "dport": 5555, "packets": 2, "bytes": 120},
    "status": ["SEEN_REPLY", "ASSURED", "CONFIRMED", "SRC_NAT"], "mark": 7, "zone": 0, "expected": False,
}  # fmt: skip
PORT = {
    "name": "lan", "type": "tap", "netns": "x", "index": 2, "up": True, "mac": "02:00:00:00:00:01", "mtu": 1500,
    "addresses": ["192.168.1.1/24"], "rx_packets": 10, "rx_bytes": 1000, "rx_dropped": 1, "tx_packets": 20, "tx_bytes": 2000,
    "tx_dropped": 2, "queues": [],
}  # fmt: skip
ANSWERS: dict[str, Any] = {
    "ports": [PORT],
    "drops": {"drops": [{"reason": "POLICY", "packets": 3, "description": "A base chain's drop policy."}]},
    "conntrack.list": {"entries": [ENTRY], "total": 1},
    "conntrack.delete": {"entries": [ENTRY], "deleted": 1},
    "conntrack.count": {"count": 1, "max": 9},
    "conntrack.flush": {"flushed": 4},
    "reload": {"config": "/etc/userfw/userfw.toml"},
    "stop": {"stopping": True},
    "neighbours": [{"address": "192.168.1.5", "device": "lan", "mac": "02:00:00:00:00:05", "state": "REACHABLE", "used": 3}],
    "metrics": {"text": "userfw_connections 1\n"},
}


class Canned:
    """Listens, answers, remembers what was asked."""

    def __init__(self, path: Path) -> None:
        self.asked: list[dict[str, Any]] = []
        self.answers = dict(ANSWERS)
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.bind(str(path))
        self.sock.listen()
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        while True:
            try:
                conn, _ = self.sock.accept()
            except OSError:
                return
            with conn, conn.makefile("rwb") as stream:
                stream.write(b'{"userfw":"0","protocol":1}\n')
                stream.flush()
                for line in stream:
                    request = json.loads(line)
                    self.asked.append(request)
                    for answer in self._answers(request):
                        stream.write(json.dumps({"id": request["id"], **answer}).encode() + b"\n")
                    stream.flush()

    def _answers(self, request: dict[str, Any]) -> list[dict[str, Any]]:
        if request["command"] == "conntrack.events":
            return [
                {"event": {"type": "new", **ENTRY}},
                {"event": {"lost": 3}},
                {"event": {"type": "destroy", **ENTRY}},
                {"result": None},
            ]
        if request["command"] in self.answers:
            return [{"result": self.answers[request["command"]]}]
        return [{"error": {"code": "refused", "message": "not like this"}}]


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Canned]:
    canned = Canned(tmp_path / "c.sock")
    monkeypatch.setenv("USERFW_SOCKET", str(tmp_path / "c.sock"))
    yield canned
    canned.sock.shutdown(socket.SHUT_RDWR)
    canned.sock.close()
    canned.thread.join(5)


Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["ports"], "lan   tap   up    1500  02:00:00:00:00:01  10   1000  20   2000      3  192.168.1.1/24"),
        (["drops"], "      3  POLICY  A base chain's drop policy."),
        (["reload"], "reloaded /etc/userfw/userfw.toml"),
        (["stop"], ""),
        (["conntrack", "count"], "1"),
        (["conntrack", "-C"], "1"),
        (["conntrack", "flush"], "4 connections deleted"),
        (["neighbours"], "192.168.1.5  lan   02:00:00:00:00:05  REACHABLE     3"),
        (["metrics"], "userfw_connections 1"),
    ],
)
def test_answers_are_shown(daemon: Canned, capsys: Capture, words: list[str], shown: str) -> None:
    assert main(words) == 0
    assert shown in capsys.readouterr().out


def test_what_ethtool_tells_of_a_card(daemon: Canned, capsys: Capture) -> None:
    card = {
        "link": {"autoneg": True, "speed": 25000, "duplex": "full"}, "channels": {"combined": 8}, "rings": {"rx": 512, "tx": 512},
        "features": {"hw-tc-offload": True, "rx-gro": True, "tx-gso-list": False}, "fixed": ["tx-gso-list"],
        "ntuple": [{"flow": "tcp4", "dport": 22, "queue": 0}],
    }  # fmt: skip
    daemon.answers["ports"] = [PORT | {"ethtool": card}, PORT | {"name": "tap", "ethtool": None}]
    assert main(["ports", "--ethtool"]) == 0
    assert capsys.readouterr().out == """lan:
  link      autoneg on, speed 25000, duplex full
  channels  combined 8
  rings     rx 512, tx 512
  features  on: hw-tc-offload rx-gro
            off: [tx-gso-list]
  ntuple    flow tcp4, dport 22, queue 0
tap: no interface that ethtool knows
"""
    assert main(["ports"]) == 0 and "25G,8q,hw-tc,1 steered" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["ports"], ["drops"], ["conntrack"], ["conntrack", "-o", "json"], ["metrics"], ["neighbours"]])
def test_json_is_the_answer(daemon: Canned, capsys: Capture, words: list[str]) -> None:
    assert main([*words, "--json"]) == 0
    name = "conntrack.list" if words[0] == "conntrack" else words[0]
    assert json.loads(capsys.readouterr().out) == ANSWERS[name]


LINE = ("tcp      6 431999 ESTABLISHED src=192.168.1.5 dst=8.8.8.8 sport=5555 dport=443 packets=3 bytes=180 "
        "src=8.8.8.8 dst=203.0.113.1 sport=443 dport=5555 packets=2 bytes=120 [ASSURED] mark=7 use=1")  # fmt: skip


def test_lines_are_those_of_conntrack_tools(daemon: Canned, capsys: Capture) -> None:
    assert main(["conntrack", "-L"]) == 0
    assert capsys.readouterr().out.splitlines() == [LINE]
    assert main(["conntrack", "-L", "-o", "extended,id"]) == 0
    assert capsys.readouterr().out.splitlines() == ["ipv4     2 " + LINE.replace("use=1", "id=5 use=1")]
    offloaded = {**ENTRY, "status": ["SEEN_REPLY", "ASSURED", "OFFLOAD"], "zone": 3}
    assert conntrack.line(offloaded, set()).startswith("tcp      6 src=") and "[OFFLOAD] mark=7 zone=3" in conntrack.line(
        offloaded, set()
    )
    unreplied = {**ENTRY, "protocol": "udp", "protonum": 17, "state": "", "status": []}
    assert "bytes=180 [UNREPLIED] src=8.8.8.8" in conntrack.line(unreplied, set())


def test_events_are_followed(daemon: Canned, capsys: Capture) -> None:
    assert main(["conntrack", "-E", "-e", "NEW,DESTROY", "-p", "tcp"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "    [NEW] " + LINE and lines[1] == "# 3 events lost"
    assert lines[2].startswith("[DESTROY] tcp      6 src="), "no time is left to tell"
    assert daemon.asked[-1]["args"] == {"filter": {"protocol": "tcp"}, "events": ["new", "destroy"]}


def test_filters_reach_the_daemon(daemon: Canned, capsys: Capture) -> None:
    words = ["conntrack", "-D", "-f", "ipv4", "-p", "tcp", "-s", "192.168.0.0/16", "-d", "8.8.8.8", "--sport", "1", "--dport", "2",
             "--state", "ESTABLISHED", "-u", "ASSURED,SEEN_REPLY", "-m", "0x10/0xff", "-w", "4",
             "-i", "9", "-n", "-g", "10.0.0.1", "-j"]  # fmt: skip
    assert main(words) == 0
    assert daemon.asked[-1] == {
        "id": 1, "command": "conntrack.delete",
        "args": {"filter": {
            "family": "ipv4", "protocol": "tcp", "src": "192.168.0.0/16", "dst": "8.8.8.8", "sport": 1, "dport": 2,
            "state": "ESTABLISHED", "status": ["ASSURED", "SEEN_REPLY"], "mark": 16, "mark_mask": 255, "zone": 4, "id": 9,
            "src_nat": "", "dst_nat": "10.0.0.1", "any_nat": True,
        }},
    }  # fmt: skip
    assert "1 connections deleted" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [["conntrack", "--sport", "70000"], ["conntrack", "--sport", "x"], ["conntrack", "-o", "xml"],
     ["conntrack", "flush", "-p", "tcp"],
     ["nonsense"], ["drops", "--frobnicate"], []],
)  # fmt: skip
def test_wrong_usage_is_two(daemon: Canned, capsys: Capture, words: list[str]) -> None:
    assert main(words) == 2
    told = capsys.readouterr()
    assert told.err and "Traceback" not in told.err


def test_a_refusal_is_one(daemon: Canned, capsys: Capture) -> None:
    assert main(["status"]) == 1
    assert capsys.readouterr().err == "userfw: not like this\n"


def test_no_daemon_is_three(tmp_path: Path, capsys: Capture) -> None:
    assert main(["status", "--socket", str(tmp_path / "none")]) == 3
    assert "cannot reach the daemon" in capsys.readouterr().err


def test_check_tells_every_mistake(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "x.toml").write_text("[daemn]\n[limits]\nconntrack_max = 0\n")
    assert main(["run", "--check", "-c", str(tmp_path / "x.toml")]) == 2
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 2 and all(line.startswith(f"userfw: {tmp_path}/x.toml: ") for line in told)
    (tmp_path / "x.toml").write_text("")
    assert main(["run", "--check", "-c", str(tmp_path / "x.toml")]) == 0


def test_completion_knows_the_commands(capsys: Capture) -> None:
    pytest.importorskip("shtab")
    assert main(["completion", "bash"]) == 0
    assert "conntrack" in capsys.readouterr().out


def test_help_imports_little_and_is_quick() -> None:
    code = "import sys; from userfw.cli.main import main; main(['--help']); "
    code += "print(sorted(m for m in sys.modules if m.startswith('userfw')))"
    begin = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert time.perf_counter() - begin < 2, "a tenth of a second on a quiet machine"
    assert eval(done.stdout.splitlines()[-1]) == ["userfw", "userfw.cli", "userfw.cli.conntrack", "userfw.cli.main"]


def test_durations() -> None:
    assert [duration(s) for s in (0.5, 61, 3600, 90061)] == ["0s", "1m1s", "1h", "1d1h1m1s"]


def test_every_command_has_help() -> None:
    text = build_parser().format_help()
    for name in ("run", "status", "ports", "drops", "conntrack", "reload", "stop", "nft", "completion", "log", "metrics"):
        assert f"    {name}" in text
