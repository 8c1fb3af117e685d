"""Flows over a bridge and to the gateway's own services, on real traffic: each rung forwards them, every packet is accounted for.

    client 192.168.1.2 | lan  \\
                              br0 192.168.1.1     wan 203.0.113.1 | server 203.0.113.9, 198.51.100.9
    another            | alt  /                   host0: services of the gateway
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab import netns
from lab.offload import OffloadLab, Stream, running, until

KERNEL = tuple(int(part) for part in os.uname().release.split(".")[:2])
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="namespace tests run as root")
needs_iperf3 = pytest.mark.skipif(shutil.which("iperf3") is None, reason="iperf3 is not installed")
BR = "02:00:00:00:00:b0"
RULES = """table inet filter {
    flowtable ft { hook ingress priority filter; devices = { lan, wan, alt%s }; %s counter; }
    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state established,related meta l4proto { tcp, udp } flow add @ft
        ct state established,related accept
        iifname "br0" accept
    }
    chain input {
        type filter hook input priority filter; policy drop;
        meta l4proto { icmp, ipv6-icmp } accept
        %s
        ct state established accept
        tcp dport { 5201, 7000 } accept
    }
    chain post { type nat hook postrouting priority srcnat; ip daddr 203.0.113.0/24 masquerade
    }
}
"""


class BridgedLab(OffloadLab):
    """lan and alt are ports of br0. Mode `soft`: the flowtable of the daemon and nothing else; `local`: services behind host0."""

    def __init__(self, folder: Path, mode: str) -> None:
        soft = mode in ("soft", "local")
        rules = RULES % (
            (", host0", "", "ct state established meta l4proto tcp counter flow add @ft") if mode == "local" else
            ("", "" if soft else "flags offload;", "")
        )  # fmt: skip
        super().__init__(folder, mode, rules)
        for port in self.config["port"]:
            if port["name"] != "wan":
                port |= {"addresses": [], "promiscuous": True}
        self.config["bridge"] = [{"name": "br0", "ports": ["lan", "alt"], "mac": BR, "addresses": ["192.168.1.1/24"]}]
        if mode == "local":
            self.ns["own"] = self.router.removesuffix("r") + "h"
            self.config["port"].append(
                {"name": "host0", "type": "tun", "netns": self.ns["own"], "device": "host0"}
            )
            self.config["offload"]["local_delivery"] = True

    def start(self) -> None:
        if "own" in self.ns:
            netns.sysctl(self.ns["own"], ipv6__conf__all__disable_ipv6=0, ipv6__conf__default__disable_ipv6=0)
        super().start()
        if "own" in self.ns:
            netns.ip(self.ns["own"], "link set lo up", "link set host0 up", "route replace default dev host0")

    def forwarded(self) -> dict[str, int]:
        """Packets by rung."""
        return dict(self.ask("status")["rungs"])


@pytest.fixture(scope="module", params=["tc", "xdp", "mock", "flower"])
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BridgedLab]:
    if request.param == "flower" and not Path("/sys/module/cls_flower").exists():
        pytest.skip("no tc flower in this kernel: test_vm.py runs it on one that has it")
    if request.param in ("tc", "xdp") and KERNEL < (6, 6):
        pytest.skip("tcx needs Linux 6.6")
    with running(BridgedLab(tmp_path_factory.mktemp("lab"), request.param)) as made:
        yield made


@pytest.fixture(scope="module")
def soft(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BridgedLab]:
    with running(BridgedLab(tmp_path_factory.mktemp("lab"), "soft")) as made:
        yield made


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BridgedLab]:
    with running(BridgedLab(tmp_path_factory.mktemp("lab"), "local")) as made:
        yield made


def say_as(lab: BridgedLab, name: str, mac: bytes) -> None:
    """A frame with the source `mac` from the host of port `name`: a host that moved there."""
    with netns.within(lab.ns[name], lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)) as sock:
        sock.bind(("eth0", 0))
        sock.send(b"\xff" * 6 + mac + b"\x88\xb5" + bytes(46))


def client_mac(lab: BridgedLab) -> bytes:
    links = json.loads(netns.run(["ip", "-j", "link", "show", "eth0"], ns=lab.ns["lan"]).stdout)
    return bytes.fromhex(links[0]["address"].replace(":", ""))


def test_a_stream_over_the_bridge_comes_whole_and_past_the_daemon(lab: BridgedLab) -> None:
    with Stream(lab) as stream:
        stream.offloaded()
        stream.settled()
        stream.whole()
        until(lambda: lab.ask("conntrack.list")["entries"][0]["original"]["packets"] == stream.sent)
    assert lab.hardware() > stream.sent
    lab.ask("conntrack.flush")


def test_a_host_that_moves_takes_its_flows_out(lab: BridgedLab) -> None:
    """Heard at the other port, the flow is out before anything else is sent; the client's next frame brings it back."""
    if lab.mode == "xdp":
        pytest.skip("as at tc")
    with Stream(lab, pace=0.002) as stream:
        stream.offloaded()
        before = lab.ask("offload")["withdrawn"].get("a bridge", 0)
        say_as(lab, "alt", client_mac(lab))
        until(lambda: lab.ask("offload")["withdrawn"].get("a bridge", 0) > before)
        say_as(lab, "lan", client_mac(lab))
        stream.flows()
        stream.offloaded()
        stream.settled()
        stream.no_duplicates()
        assert set(range(stream.sent)) == set(stream.numbers)  # what the client sends never goes astray
        assert len(stream.echoed) > stream.sent - 100
    lab.ask("conntrack.flush")


def test_a_bridge_that_is_gone_takes_its_flows_out(lab: BridgedLab) -> None:
    if lab.mode == "xdp":
        pytest.skip("as at tc")
    with Stream(lab) as stream:
        stream.offloaded()
        bridges, lab.config["bridge"] = lab.config["bridge"], []
        lab.reload()
        assert lab.in_hardware() == 0
        lab.config["bridge"] = bridges
        lab.reload()
        stream.flows(20)
        stream.offloaded()
        stream.settled()
        stream.no_duplicates()
    lab.ask("conntrack.flush")


def iperf3(lab: BridgedLab, client: str, server: str, address: str, *more: str) -> int:
    """Bytes of two seconds of one TCP connection."""
    listening = subprocess.Popen(netns.inside(lab.ns[server], ["iperf3", "-s", "-1"]), stdout=subprocess.DEVNULL)
    try:
        until(lambda: ":5201" in netns.run(["ss", "-tln"], ns=lab.ns[server]).stdout)
        done = netns.run(["iperf3", "-c", address, "-t", "2", "-J", *more], ns=lab.ns[client], check=False)
    finally:
        listening.terminate()
        listening.wait()
    answer = json.loads(done.stdout)
    assert "error" not in answer, answer["error"]
    return int(answer["end"]["sum_received"]["bytes"])


@needs_iperf3
def test_tcp_over_the_bridge_past_the_daemon(lab: BridgedLab) -> None:
    if lab.mode == "xdp":
        pytest.skip("large sends are for tc")
    began, moved = lab.hardware(), 0
    for _ in range(8):  # one moves few packets on a crowded machine
        moved += iperf3(lab, "lan", "wan", "203.0.113.9")
        if lab.hardware() > began + 1000:
            break
    assert lab.hardware() > began + 1000 and moved > 10 << 20


def by_the_flowtable(lab: BridgedLab, client: str, server: str, address: str, *more: str) -> None:
    """Bulk TCP, until it is a thousand packets past the pipeline; a tenth of that at most takes the pipeline."""
    before, moved, fast, slow = lab.forwarded(), 0, 0, 0
    for _ in range(8):
        moved += iperf3(lab, client, server, address, *more)
        after = lab.forwarded()
        fast, slow = after["flowtable"] - before["flowtable"], after["pipeline"] - before["pipeline"]
        if fast > 1000:
            break
    assert fast > 1000 and slow < fast / 10 and moved > 10 << 20, (client, more, fast, slow, moved)


@needs_iperf3
def test_tcp_over_the_bridge_by_the_flowtable(soft: BridgedLab) -> None:
    for more in ((), ("-R",)):
        by_the_flowtable(soft, "lan", "wan", "203.0.113.9", *more)


@needs_iperf3
def test_tcp_to_the_gateway_itself_by_the_flowtable(local: BridgedLab) -> None:
    """From a host behind the bridge and from one on the wire, both ways."""
    for client, address in (("lan", "192.168.1.1"), ("wan", "203.0.113.1")):
        for more in ((), ("-R",)):
            by_the_flowtable(local, client, "own", address, *more)
    rules = local.ask("nft", text="list chain inet filter input")["output"]
    assert int(rules.split("counter packets ")[1].split()[0]) < 2000  # rules saw the first packets of each connection


def test_a_page_from_the_gateway_itself(local: BridgedLab) -> None:
    data = os.urandom(3 << 20)

    def listen() -> socket.socket:
        return socket.create_server(("192.168.1.1", 7000))

    with netns.within(local.ns["own"], listen) as server:
        def connect() -> socket.socket:
            return socket.create_connection(("192.168.1.1", 7000), timeout=5)

        with netns.within(local.ns["lan"], connect) as sock:
            peer, _ = server.accept()
            with peer:
                got = bytearray()
                sent = 0
                sock.settimeout(10)
                peer.setblocking(False)
                deadline = time.monotonic() + 30
                while len(got) < len(data) and time.monotonic() < deadline:
                    with contextlib.suppress(BlockingIOError):
                        sent += peer.send(data[sent : sent + 65536])
                    got += sock.recv(1 << 18)
                assert bytes(got) == data
    until(lambda: not any("OFFLOAD" in entry["status"] for entry in local.ask("conntrack.list")["entries"]
                          if entry["original"].get("dport") == 7000))  # FIN gave it back
