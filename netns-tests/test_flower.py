"""tc flower on real traffic: in software (skip_hw) on a stock Debian kernel in a virtual machine; the capture on clsact here."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lab import frames, netns, vm
from test_offload import ROOT, Offload, download_past
from userfw_hw.flower import guard
from userfw_hw.flower.connections import ZONES, Connections

from userfw.ports import bpf

MODULES = (
    "cls_flower cls_bpf act_pedit act_csum act_ct nf_conntrack_netlink act_mirred act_vlan act_skbedit 8021q veth tun nf_tables"
)
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="namespace tests run as root")


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    """What lab.flower saw in the guest."""
    vm.needed()
    done = vm.run(f"PYTHONPATH=.:hw:netns-tests {sys.executable} -m lab.flower", modules=MODULES, seconds=280)
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_each_port_is_flowers(report: dict[str, Any]) -> None:
    assert {d["device"]: (d["driver"], d["mode"]) for d in report["devices"]} == dict.fromkeys(
        ("lan", "lan10", "wan"), ("flower", "software")
    )


def test_an_interface_without_a_card_refuses_skip_sw(report: dict[str, Any]) -> None:
    """The kernel's own words, and nothing stays behind."""
    assert report["skip_sw"].startswith("the kernel refuses flower filters: ")
    assert report["probed"] == {"lan": "", "wan": ""}


def test_flower_rewrites_as_the_daemon_does(report: dict[str, Any]) -> None:
    """IPv4 and IPv6, UDP and TCP, without NAT and with (of sources, of both ends), tagged: the same frames come out, byte for byte;
    the daemon saw only those with TTL 1, one each way."""
    assert len(report["flows"]) == 9 and {device["nat"] for device in report["devices"]} == {"act_ct"}
    for name, flow in report["flows"].items():
        assert not flow["early"], name
        assert len(flow["daemon"]) >= 14 and flow["flower"] == flow["daemon"], name
        assert flow["seen"] == 2, name


def test_stateless_filters_run_in_the_interface(report: dict[str, Any]) -> None:
    """Seven datagrams are dropped before the daemon, counted by the rule; one passes; one leaves with the tag of the VLAN device
    that it is forwarded to, else as it came; a rule that cannot is refused."""
    found = report["stateless"]
    assert "ip ttl 3 drop" in found["refused"] and "cannot be offloaded" in found["refused"] and not found["errors"]
    assert sorted(found["out"]) == [5002, 5003] and found["seen"] <= 2
    assert found["tagged"] == [found["as sent"][:24] + "81000014" + found["as sent"][24:]]
    counts = {row["verdict"]: row["packets"] for row in found["offload"][:3]}
    assert counts == {"drop": 7, "forward": 1, "accept": 1} and found["dropped"] == 7
    assert "udp dport 5001 counter packets 7 bytes 252 drop" in found["listing"]
    assert "pref 40000" in found["tc"] and "pref 40000" not in found["after"] and "capture" in found["after"]


def test_bulk_tcp_goes_by_flower(report: dict[str, Any]) -> None:
    """Large sends with NAT as well: the server finds no wrong checksum in their segments."""
    for name in ("iperf nat", "iperf large", "iperf large nat"):
        moved = report[name]
        assert moved["bytes"] > 1 << 18 and moved["hardware"] > 4 * moved["daemon"], (name, moved["hardware"], moved["daemon"])
        assert not moved["offload"]["failures"] and not moved["wrong"]


def test_the_kernel_knows_each_connection_that_it_translates(report: dict[str, Any]) -> None:
    """One entry for both directions, in a zone of its own, established and with both ends' translations; another daemon's stays."""
    assert {device["zone"] for device in report["devices"]} == {ZONES[1]} and report["other"] == 1
    zone = report["zone"]
    assert len(zone) == 6 and all("[ASSURED]" in line or "[OFFLOAD]" in line for line in zone)
    (both,) = [line for line in zone if "sport=4009" in line]
    assert "dst=198.51.100.80 sport=4009 dport=5000 src=203.0.113.9 dst=203.0.113.1 sport=5000 dport=4009" in both


def test_what_the_kernel_no_longer_translates_comes_up_as_it_was(report: dict[str, Any]) -> None:
    """Somebody emptied the kernel's connection tracking: nothing leaves untranslated, the daemon forwards it."""
    before, lost = report["flows"]["udp4 both nat"], report["lost"]
    assert lost["frames"] == before["daemon"] and lost["seen"] > len(lost["frames"])


def test_filters_reach_conntrack(report: dict[str, Any]) -> None:
    bulk = [entry for entry in report["conntrack"] if entry["original"].get("dport") == 5201]
    assert max(entry["original"]["bytes"] for entry in bulk) > 1 << 20


def test_the_next_start_sweeps_and_the_end_leaves_nothing(report: dict[str, Any]) -> None:
    assert "flower" in report["filters"]["lan"] and "7573657266770000" in report["filters"]["lan"]
    assert "flower" in report["killed"]["lan"] and "guard" in report["killed"]["wan"]
    for device in ("lan", "wan"):
        assert "ready" in report["again"]
        assert "flower" not in report["swept"][device] and "guard" not in report["swept"][device]
        assert report["swept"][device].count("capture") == 1
    assert len(report["killed zone"]) == 1 and not report["swept zone"]
    assert report["ended"] == {"lan": "", "wan": ""}


def guarded(packet: bytes, kind: int) -> int:
    """What the first guard does with a packet: -1 on to flower, 7 up to userfw. The kernel's test device has the address zero."""
    program = bpf.load(bpf.PROG_TYPE_SCHED_CLS, guard.doubtful(1), "userfw_guard")
    try:
        frame = bytes(12) + kind.to_bytes(2, "big") + packet
        verdict = bpf.test_run(program, frame.ljust(60, b"\0"))[0]
    finally:
        os.close(program)
    return verdict - (1 << 32) if verdict >> 31 else verdict


@pytest.mark.parametrize(
    ("name", "packet", "kind", "verdict"),
    [
        ("plain", frames.udp_packet("1.2.3.4", "5.6.7.8", 1, 2), 0x0800, -1),
        ("ttl 1", frames.udp_packet("1.2.3.4", "5.6.7.8", 1, 2, ttl=1), 0x0800, 7),
        ("options", frames.ip4("1.2.3.4", "5.6.7.8", 17, bytes(8), options=b"\x01\x01\x01\x00"), 0x0800, 7),
        ("ipv6", frames.udp_packet("fd00::1", "fd00::2", 1, 2), 0x86DD, -1),
        ("hop limit 1", frames.udp_packet("fd00::1", "fd00::2", 1, 2, ttl=1), 0x86DD, 7),
        ("extension header", frames.ip6("fd00::1", "fd00::2", 60, b"\x11\0\1\4\0\0\0\0" + bytes(8)), 0x86DD, 7),
        ("arp", bytes(28), 0x0806, 7),
    ],
)
def test_the_guard_passes_up_what_flower_cannot_tell(name: str, packet: bytes, kind: int, verdict: int) -> None:
    try:
        assert guarded(packet, kind) == verdict
    except PermissionError:
        pytest.skip("eBPF programs are not permitted here")


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Offload]:
    made = Offload(tmp_path, capture="clsact")
    try:
        yield made
    finally:
        made.close()


HOLDER = """
import sys, signal
from userfw.offload.contract import Actions, Match, Rule
from userfw_hw.flower.connections import Connections
made = Connections(sys.argv[1])
ends = bytes([192, 0, 2, 1]), bytes([192, 0, 2, 2])
made.obtain(Rule(1, Match("", 0, 17, *ends, 1, 2), Actions("", 0, *ends, 3, 2, b"", b"")))
print(made.zone, flush=True)
signal.pause()
"""


def test_daemons_of_one_namespace_have_a_conntrack_zone_each() -> None:
    """One is killed: the next start empties its zone, and not that of the other, which is alive."""
    ns = f"uf{os.getpid()}-z"
    netns.create(ns)
    holders: list[subprocess.Popen[str]] = []

    def held() -> list[int]:
        listed = netns.run(["conntrack", "-L"], ns=ns).stdout
        return sorted(int(number) for number in re.findall(r"zone=(\d+)", listed))

    try:
        for zone in ZONES[:2]:
            env = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT}/hw"}
            holders.append(subprocess.Popen([sys.executable, "-c", HOLDER, ns], stdout=subprocess.PIPE, text=True, env=env))
            assert holders[-1].stdout is not None
            assert int(holders[-1].stdout.readline()) == zone
        assert held() == list(ZONES[:2])
        holders[0].kill()
        holders[0].wait()
        assert held() == list(ZONES[:2]), "a killed process leaves its connections"
        third = Connections(ns)
        assert third.zone == ZONES[0] and third.sweep() == 1 and held() == [ZONES[1]]
        third.close()
        holders[1].kill()
        holders[1].wait()
        fourth = Connections(ns)
        assert fourth.zone == ZONES[0] and fourth.sweep() == 1 and not held(), "also of a zone that it does not take"
        fourth.close()
    finally:
        for holder in holders:
            holder.kill()
            holder.wait()
            assert holder.stdout is not None
            holder.stdout.close()
        netns.delete(ns)


def test_no_zone_left_is_told() -> None:
    ns = f"uf{os.getpid()}-z"
    netns.create(ns)
    held = [Connections(ns) for _ in ZONES]
    try:
        assert [one.zone for one in held] == list(ZONES)
        with pytest.raises(OSError, match=f"zones {ZONES[0]} to {ZONES[-1]}"):
            Connections(ns)
    finally:
        for one in held:
            one.close()
        netns.delete(ns)


@pytest.mark.skipif(shutil.which("iperf3") is None, reason="iperf3 is not installed")
def test_capture_on_clsact(lab: Offload) -> None:
    """The eBPF driver forwards behind it as well; SIGKILL leaves the capture, the next start takes it over, the end removes it."""

    def listed() -> str:
        return netns.run(["tc", "filter", "show", "dev", "lan", "ingress"], ns=lab.router, check=False).stdout

    assert "ready" in lab.start()
    assert "userfw+ capture" in listed()
    download_past(lab, 1000)
    assert lab.process is not None
    lab.process.send_signal(signal.SIGKILL)
    lab.process.wait()
    assert "userfw+ capture" in listed()
    assert "ready" in lab.start()
    assert listed().count("handle 0x1") == 1
    lab.process.terminate()
    lab.process.wait(10)
    assert not listed() and "clsact" not in netns.run(["tc", "qdisc", "show", "dev", "lan"], ns=lab.router).stdout
