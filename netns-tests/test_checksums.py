"""Nobody gets a packet with a wrong checksum, wherever flows are forwarded and whatever senders leave to their devices.

What a program sends with XDP arrives as from a wire: the receiver verifies every checksum, so one that nobody completed is counted
there (TcpInCsumErrors, UdpInCsumErrors). iperf3 both ways by TCP, one way by UDP.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab import netns
from lab.offload import until
from test_offload import Offload

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="namespace tests run as root"),
    pytest.mark.skipif(shutil.which("iperf3") is None, reason="iperf3 is not installed"),
]

# name: the kind of both ports, their capture, the configuration, what is switched at both hosts
WAYS = {
    "tc": ("packet", "tc", "", "gro on"),
    "XDP (native)": ("packet", "socket", '[offload]\nxdp = ["lan", "wan"]\n', "gro on"),
    "XDP (generic)": ("packet", "socket", '[offload]\nxdp = ["lan", "wan"]\n', "gro off"),
    "XDP (native), sockets": ("xdp", "", "", "gro on"),
    "one XDP, one tc": ("packet", "socket", '[offload]\nxdp = ["lan"]\ntc = ["wan"]\n', "gro on"),
}


@pytest.fixture
def lab(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Offload]:
    kind, capture, extra, switched = WAYS[request.param]
    made = Offload(tmp_path, capture=capture, extra=extra)
    made.kind = kind
    try:
        for ns in (made.client, made.server):
            netns.run(["ethtool", "-K", "eth0", *switched.split()], ns=ns)
        yield made
    finally:
        made.close()


def wrong(ns: str) -> int:
    """TCP and UDP packets that a host found wrong."""
    lines = [line.split() for line in netns.run(["cat", "/proc/net/snmp"], ns=ns).stdout.splitlines()]
    pairs = [(names, values) for names, values in zip(lines[::2], lines[1::2], strict=True) if names[0] in ("Tcp:", "Udp:")]
    return sum(int(values[names.index("InCsumErrors")]) for names, values in pairs)


def moved(lab: Offload, *how: str) -> int:
    """Bytes that arrived in a second."""
    server = subprocess.Popen(netns.inside(lab.server, ["iperf3", "-s", "-1"]), stdout=subprocess.DEVNULL)
    try:
        until(lambda: ":5201" in netns.run(["ss", "-tln"], ns=lab.server).stdout)
        done = netns.run(["iperf3", "-c", "203.0.113.9", "-t", "1", "-J", *how], ns=lab.client, timeout=60)
        end = json.loads(done.stdout)["end"]
        return int(end["sum_received"]["bytes"] if "sum_received" in end else end["sum"]["bytes"])
    finally:
        server.terminate()
        server.wait()


@pytest.mark.parametrize("lab", WAYS, indirect=True)
def test_no_receiver_finds_a_wrong_checksum(lab: Offload) -> None:
    """With checksums left to devices, which XDP passes up, and without; the flows do go to the device."""
    assert "ready" in lab.start()
    for tx in ("on", "off"):
        for ns in (lab.client, lab.server):
            netns.run(["ethtool", "-K", "eth0", "tx", tx], ns=ns)
        before = lab.ask("offload")["packets"]["hardware"]
        assert moved(lab) > 1 << 20 and moved(lab, "-R") > 1 << 20 and moved(lab, "-u", "-b", "50M", "-l", "1200") > 1 << 20
        assert [wrong(ns) for ns in (lab.client, lab.server)] == [0, 0], tx
        if tx == "off":
            until(lambda before=before: lab.ask("offload")["packets"]["hardware"] - before > 3000)  # type: ignore[misc]


@pytest.mark.parametrize("lab", ["XDP (native)"], indirect=True)
def test_the_receiver_would_find_it(lab: Offload) -> None:
    """Were unfinished checksums not recognised, they would be counted: what the test above would see."""
    (lab.folder / "sitecustomize.py").write_text("import userfw_hw.bpf.forward as f\nf._whole = lambda *args: None\n")
    os.environ["USERFW_TEST_PATH"] = str(lab.folder)
    try:
        assert "ready" in lab.start()
    finally:
        del os.environ["USERFW_TEST_PATH"]
    moved(lab, "-u", "-b", "20M", "-l", "1200")
    assert wrong(lab.server) > 100
