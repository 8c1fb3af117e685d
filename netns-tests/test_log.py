"""`log` and `meta nftrace` end to end: what the daemon's clients hear."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from lab import netns
from lab.families import IP4
from lab.frames import udp_packet
from lab.topology import Lab
from lab.userfw import ROOT, UserfwRouter, environment


@contextmanager
def following(lab: Lab, *args: str) -> Iterator[subprocess.Popen[str]]:
    """A `userfw` command that follows the daemon; runs until it ends or the context does."""
    if not isinstance(lab.router, UserfwRouter):
        pytest.skip("userfw's own commands")
    env = {**environment(), "USERFW_SOCKET": str(lab.router.dir / "control.sock")}
    process = subprocess.Popen([sys.executable, "-m", "userfw", *args], stdout=subprocess.PIPE, env=env, cwd=ROOT, text=True)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(5)
        if process.stdout:
            process.stdout.close()


def until(lab: Lab, process: subprocess.Popen[str], frames: bytes) -> str:
    """Send until the follower says something: it takes its time to start."""
    assert process.stdout
    import select

    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        lab.send("lan", frames)
        if select.select([process.stdout], [], [], 0.1)[0]:
            return process.stdout.readline()
    raise AssertionError("nothing came")


def test_groups_and_lines(lab: Lab, tmp_path: Path) -> None:
    lab.router.load("""table ip t { chain f { type filter hook forward priority 0;
        log prefix "line " flags ip options
        log prefix "five " group 5 snaplen 30
    }\n}""")
    packet = udp_packet(IP4.lan, IP4.wan, 1000, 9, b"x" * 20)
    with following(lab, "log", "5", "--json") as process:
        event = json.loads(until(lab, process, packet))
    assert (event["prefix"], event["group"], event["iif"], event["oif"], event["length"]) == ("five ", 5, "lan", "wan", 48)
    assert len(event["packet"]) == 40
    with following(lab, "log") as process:
        line = until(lab, process, packet)
    assert line.startswith("line IN=lan OUT=wan MAC=") and line.endswith("PROTO=UDP SPT=1000 DPT=9 LEN=28 \n")
    assert line in lab.router.log() or line.strip() in lab.router.log()
    capture = tmp_path / "five.pcap"
    with following(lab, "log", "5", "-w", str(capture), "-c", "3") as process:
        deadline = time.monotonic() + 10
        while process.poll() is None and time.monotonic() < deadline:
            lab.send("lan", packet)
    assert process.returncode == 0
    shown = netns.run(["tcpdump", "-nr", str(capture)], check=False)
    if shown.returncode == 0:
        assert len(shown.stdout.splitlines()) == 3, shown.stdout


def test_a_trace_is_followed(lab: Lab) -> None:
    lab.router.load("table ip t { chain f { type filter hook forward priority 0; "
                    "udp dport 9 meta nftrace set 1; udp dport 9 drop; }\n}")
    with following(lab, "nft", "monitor", "trace") as process:
        line = until(lab, process, udp_packet(IP4.lan, IP4.wan, 1000, 9, b"x"))
        assert line.startswith("trace id ") and "ip t f" in line
