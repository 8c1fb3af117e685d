"""Netdev chains with `flags offload` on a software card: the card drops, the rule counts, everything shows it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab import frames, netns
from lab.wire import Wire
from test_offload import ROOT, Offload, until

from userfw.client.control import ControlClient

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="namespace tests run as root")

CARD = '[[nic]]\nname = "card"\nports = ["lan", "wan"]\n'
CHAIN = """table netdev hardware { chain in {
    type filter hook ingress device "lan" priority 10; flags offload;
    ip protocol icmp counter drop
    %s
}
}
"""


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Offload]:
    made = Offload(tmp_path, capture="socket", extra=CARD)
    try:
        yield made
    finally:
        made.close()


def userfw(lab: Offload, *command: str, text: str | None = None) -> tuple[int, str]:
    env = {"PYTHONPATH": f"{ROOT}:{ROOT}/hw", "USERFW_SOCKET": f"{lab.folder}/s"}
    argv = ["env", *(f"{k}={v}" for k, v in env.items()), sys.executable, "-m", "userfw", *command]
    done = netns.run(argv, text=text, check=False)
    return done.returncode, done.stdout + done.stderr


def ping(lab: Offload) -> bool:
    return netns.run(["ping", "-c1", "-W1", "203.0.113.9"], ns=lab.client, check=False).returncode == 0


def test_the_card_drops_counts_and_is_seen(lab: Offload) -> None:
    assert "ready" in lab.start()
    until(lambda: ping(lab))
    assert userfw(lab, "nft", "-f", "-", text=CHAIN % "")[0] == 0
    assert not ping(lab)
    (row,) = lab.ask("offload")["filters"]
    assert (row["device"], row["driver"], row["verdict"]) == ("lan", "mock", "drop") and row["packets"] >= 1
    assert lab.ask("offload")["filters_dropped"] == row["packets"]
    assert f"counter packets {row['packets']} bytes {row['bytes']} drop" in userfw(lab, "nft", "list", "ruleset")[1]
    labels = f'device="lan",table="hardware",chain="in",handle="{row["handle"]}",verdict="drop"'
    assert f"userfw_offload_filter_packets_total{{{labels}}} {row['packets']}" in userfw(lab, "metrics")[1]
    assert "packets were dropped by hardware filters" in userfw(lab, "offload")[1]
    assert userfw(lab, "nft", "delete", "table", "netdev", "hardware")[0] == 0
    assert ping(lab)


def test_each_flow_is_told_with_its_reason(tmp_path: Path) -> None:
    """`userfw offload -f`, for people and as JSON, and the metrics of each rung: one flow in a card that has room for one, one that
    it had no room for, one that is too short."""
    lab = Offload(tmp_path, capture="socket", extra=f"{CARD}capacity = 2\n[offload]\nthreshold = 4\n")
    ends = Wire(lab.client, "eth0"), Wire(lab.server, "eth0")
    try:
        assert "ready" in lab.start()
        until(lambda: ping(lab))
        gateway = {p["name"]: p["mac"] for p in lab.ask("ports")}
        for sport, count in ((4001, 6), (4002, 6), (4003, 1)):
            packet = frames.udp_packet("192.168.1.2", "203.0.113.9", sport, 9, b"x")
            back = frames.udp_packet("203.0.113.9", "203.0.113.1", 9, sport, b"x")
            for _ in range(count):
                ends[0].send(frames.eth(gateway["lan"], "02:00:00:00:00:02", 0x0800, packet))
                until(lambda: any(frame[23:24] == b"\x11" for frame in ends[1].receive()))
                ends[1].send(frames.eth(gateway["wan"], "02:00:00:00:00:09", 0x0800, back))
                until(lambda: any(frame[23:24] == b"\x11" for frame in ends[0].receive()))
            if count > 1:
                until(lambda sport=sport: lab.ask("offload")["installations"] + len(lab.ask("offload")["failures"]) > sport - 4001)  # type: ignore[misc]
        told = {row["original"].split(" ")[0].rpartition(":")[2]: row for row in lab.ask("offload", "-f")["list"]}
        assert told["4001"]["state"] == "installed" and not told["4001"]["reason"]
        assert told["4002"]["state"] == "waiting" and told["4002"]["reason"] == "the device's table is full"
        assert told["4003"]["state"] == "software" and told["4003"]["reason"] == "fewer than 4 packets in either direction"
        text, metrics = userfw(lab, "offload", "-f")[1], userfw(lab, "metrics")[1]
        for words in ("the device's table is full", "fewer than 4 packets in either direction", "hardware", "mock"):
            assert words in text
        for rung, number in (("flowtable", 3), ("hardware", 1), ("waiting", 1)):
            assert f'userfw_flows{{rung="{rung}"}} {number}' in metrics
        assert "userfw_offload_installations_total 1" in metrics
        assert 'userfw_offload_failures_total{reason="the device\'s table is full"} 1' in metrics
        for rung in ("pipeline", "flowtable", "hardware"):
            assert f'userfw_rung_packets_total{{rung="{rung}"}}' in metrics
    finally:
        for wire in ends:
            wire.close()
        lab.close()


def test_a_rule_that_cannot_is_refused_and_the_card_keeps_what_it_has(lab: Offload) -> None:
    assert "ready" in lab.start()
    assert userfw(lab, "nft", "-f", "-", text=CHAIN % "")[0] == 0
    code, said = userfw(lab, "nft", "add", "rule", "netdev", "hardware", "in", "ip", "ttl", "1", "drop")
    assert code == 1 and "this rule cannot be offloaded" in said and "ip ttl 1 drop" in said
    assert len(lab.ask("offload")["filters"]) == 1 and not ping(lab)


def test_the_card_forgets_and_takes_it_again(lab: Offload) -> None:
    assert "ready" in lab.start()
    until(lambda: ping(lab))
    assert userfw(lab, "nft", "-f", "-", text=CHAIN % "")[0] == 0
    lab.ask("offload")
    with ControlClient(f"{lab.folder}/s", timeout=10) as client:
        client.request("offload.reset", nic="card")
    until(lambda: not ping(lab))  # in software, from when the daemon learns of it
    until(lambda: bool(lab.ask("offload")["filters"]))
    assert not ping(lab)


def test_without_a_card_the_device_is_named(tmp_path: Path) -> None:
    lab = Offload(tmp_path, capture="socket")
    lab.extra = f'[[port]]\nname = "inner"\ntype = "tap"\ndevice = "inner"\nnetns = "{lab.router}"\n'
    try:
        assert "ready" in lab.start()
        code, said = userfw(lab, "nft", "-f", "-", text=CHAIN.replace('"lan"', '"inner"') % "")
        assert code == 1 and "device inner cannot offload" in said and "bpf: the port has no interface of its own" in said
    finally:
        lab.close()
