"""Flows in eBPF at tc ingress, on real traffic between namespaces: the daemon sees the first packets, the rest never."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lab import netns
from lab.offload import until
from lab.wire import Wire
from scapy.all import ARP, IP, UDP, Dot1Q, Ether, Raw

sys.path.append(str(Path(__file__).parents[1] / "tests" / "offload"))
from documented import install

ROOT = Path(__file__).resolve().parent.parent
KERNEL = tuple(int(part) for part in os.uname().release.split(".")[:2])
pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="namespace tests run as root"),
    pytest.mark.skipif(shutil.which("iperf3") is None, reason="iperf3 is not installed"),
]

RULES = """
table inet filter {
    flowtable ft { hook ingress priority filter; devices = { lan, wan }; flags offload; counter; }
    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state established,related meta l4proto { tcp, udp } flow add @ft
        ct state established,related accept
        iifname "lan*" accept
    }
    chain post { type nat hook postrouting priority srcnat; oifname "wan" masquerade
    }
}
"""


class Offload:
    """Two hosts, and userfw between them on two veths that it captures by tc."""

    def __init__(self, folder: Path, capture: str = "tc", extra: str = "", vlan: str = "") -> None:
        base = f"uf{os.getpid()}-o"
        self.client, self.router, self.server = f"{base}a", f"{base}r", f"{base}b"
        self.folder, self.capture, self.extra, self.vlan = folder, capture, extra, vlan
        self.kind = "packet"
        self.process: subprocess.Popen[bytes] | None = None
        for ns in (self.client, self.router, self.server):
            netns.create(ns)
        netns.ip(self.client, f"link add eth0 type veth peer name lan netns {self.router}", "addr add 192.168.1.2/24 dev eth0")
        netns.ip(self.server, f"link add eth0 type veth peer name wan netns {self.router}", "addr add 203.0.113.9/24 dev eth0")
        for ns in (self.client, self.server):
            netns.ip(ns, "link set lo up", "link set eth0 up")
        netns.ip(self.client, "route add default via 192.168.1.1")
        netns.ip(self.router, "link set lo up", "link set lan up", "link set wan up")

    def start(self) -> str:
        """Run the daemon; what it said until it was ready or ended."""
        capture = f'capture = "{self.capture}"\n' if self.kind == "packet" else ""
        ports = "".join(
            f'[[port]]\nname = "{name}"\ntype = "{self.kind}"\n{capture}netns = "{self.router}"\ndevice = "{name}"\n'
            f'addresses = ["{address}"]\n' + (self.vlan if name == "lan" else "")
            for name, address in (("lan", "192.168.1.1/24"), ("wan", "203.0.113.1/24"))
        )
        (self.folder / "rules.nft").write_text(RULES)
        config = f'[daemon]\ncontrol = "{self.folder}/s"\nruleset = "rules.nft"\n{ports}{self.extra}'
        (self.folder / "userfw.toml").write_text(config)
        log = self.folder / "log"
        with log.open("wb") as out:
            command = [sys.executable, "-m", "userfw", "run", "-c", str(self.folder / "userfw.toml")]
            env = os.environ | {"PYTHONPATH": f"{os.environ.get('USERFW_TEST_PATH', '')}:{ROOT}:{ROOT}/hw"}
            self.process = subprocess.Popen(command, stdout=out, stderr=out, env=env)
        until(lambda: "ready" in log.read_text() or self.process is None or self.process.poll() is not None)
        return log.read_text()

    def ask(self, *command: str) -> Any:
        env = {"PYTHONPATH": f"{ROOT}:{ROOT}/hw", "USERFW_SOCKET": f"{self.folder}/s"}
        argv = ["env", *(f"{k}={v}" for k, v in env.items()), sys.executable, "-m", "userfw", *command, "--json"]
        return json.loads(netns.run(argv).stdout)

    def devices(self) -> list[str]:
        links = json.loads(netns.run(["ip", "-j", "link"], ns=self.router).stdout)
        return [link["ifname"] for link in links]

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(10)
        for ns in (self.client, self.router, self.server):
            netns.delete(ns)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Offload]:
    made = Offload(tmp_path)
    try:
        yield made
    finally:
        made.close()


def download(lab: Offload) -> int:
    """Bytes that one TCP connection of four seconds moved; the daemon looks for flows to hand over four times a second."""
    server = subprocess.Popen(netns.inside(lab.server, ["iperf3", "-s", "-1"]), stdout=subprocess.DEVNULL)
    try:
        until(lambda: ":5201" in netns.run(["ss", "-tln"], ns=lab.server).stdout)
        result = netns.run(["iperf3", "-c", "203.0.113.9", "-t", "4", "-J"], ns=lab.client)
        return int(json.loads(result.stdout)["end"]["sum_received"]["bytes"])
    finally:
        server.terminate()
        server.wait()


def download_past(lab: Offload, packets: int) -> int:
    """Downloads until devices have forwarded so many packets more, since one moves few on a crowded machine; bytes of all."""
    before, moved = lab.ask("offload")["packets"]["hardware"], 0
    for _ in range(12):
        moved += download(lab)
        if lab.ask("offload")["packets"]["hardware"] > before + packets:  # what a connection's end takes out is counted at once
            return moved
    raise AssertionError(f"{moved} bytes moved, and devices have not forwarded {packets} packets")


def test_the_kernel_forwards_what_the_pipeline_has_judged(lab: Offload) -> None:
    assert "ready" in lab.start()
    moved = download_past(lab, 1000)
    packets = lab.ask("offload")["packets"]
    seen = lab.ask("status")["packets"]
    assert packets["hardware"] > 5 * seen, "most packets must not have reached the daemon"
    counted = sum(entry["original"]["bytes"] for entry in lab.ask("conntrack")["entries"])
    assert counted >= moved, "the kernel's counters must reach conntrack"


@pytest.mark.skipif(KERNEL < (6, 6), reason="a filter of clsact goes with the next start only: test_flower.py")
def test_nothing_is_left_behind_after_sigkill(lab: Offload) -> None:
    assert "ready" in lab.start()
    download(lab)
    assert any(name.startswith("uf-") for name in lab.devices())
    assert lab.process is not None
    lab.process.send_signal(signal.SIGKILL)
    lab.process.wait()
    until(lambda: not any(name.startswith("uf-") for name in lab.devices()))
    netns.ip(lab.router, "addr add 192.168.1.1/24 dev lan")  # the stack hears the interface again
    until(lambda: netns.run(["ping", "-c1", "-W1", "192.168.1.1"], ns=lab.client, check=False).returncode == 0)


def test_the_attach_point_is_chosen_and_told(tmp_path: Path) -> None:
    """A veth with a packet socket: tc, with the first flow that needs it, because of who is at the other end."""
    lab = Offload(tmp_path, capture="socket")
    try:
        assert "ready" in lab.start()
        assert [p["queues"][0]["type"] for p in lab.ask("ports")] == ["packet", "packet"]
        download_past(lab, 1000)
        told = lab.ask("offload")["devices"]
        assert [(d["device"], d["where"], d["system_driver"]) for d in told] == [(n, "tc ingress", "veth") for n in ("lan", "wan")]
        assert all("local stack" in d["because"] and d["attached"] for d in told)
        assert [p["queues"][0]["type"] for p in lab.ask("ports")] == ["capture", "capture"]
    finally:
        lab.close()


def test_a_device_that_cannot_is_refused_by_name(tmp_path: Path) -> None:
    lab = Offload(tmp_path, extra='[offload]\nxdp = ["lan"]\n')
    try:
        said = lab.start()
        assert "rules.nft:3:" in said and "device lan cannot offload" in said and 'capture = "tc" cannot use XDP' in said
        assert lab.process is not None and lab.process.wait(10) != 0
    finally:
        lab.close()


def test_a_driver_of_others_is_found_where_it_is_installed(lab: Offload) -> None:
    """The thirty lines of docs/offload.md, by entry point: asked before the processor's drivers, and given the flow."""
    install(lab.folder)
    os.environ["USERFW_TEST_PATH"] = str(lab.folder)
    try:
        assert "ready" in lab.start()
    finally:
        del os.environ["USERFW_TEST_PATH"]
    assert {(d["device"], d["driver"], d["where"], d["capacity"]) for d in lab.ask("offload")["devices"]} == {
        ("lan", "card", "card", 2), ("wan", "card", "card", 2)}  # fmt: skip
    download(lab)
    assert lab.ask("offload")["installations"] == 1


def test_the_verifiers_log_is_told_at_commit(lab: Offload) -> None:
    """A program that the kernel refuses: its words come with the refusal of the ruleset."""
    (lab.folder / "sitecustomize.py").write_text(
        "import userfw_hw.bpf.forward as f\n"
        "whole = f.build\n"
        "f.build = lambda edge, *a, **k: whole(edge, *a, **k) if k.get('mark') else bytes.fromhex('9500000000000000')\n"
    )
    os.environ["USERFW_TEST_PATH"] = str(lab.folder)
    try:
        said = lab.start()
    finally:
        del os.environ["USERFW_TEST_PATH"]
    assert "the kernel refused the program userfw_tc" in said and "R0 !read_ok" in said
    assert "rules.nft:3:" in said and lab.process is not None and lab.process.wait(10) != 0


def test_tags_are_taken_off_and_put_on(tmp_path: Path) -> None:
    """lan.7 to wan through the program at tc ingress: frames with tags come in, plain ones leave, and the other way round."""
    vlan = '[[port.vlan]]\nname = "lan.7"\nid = 7\naddresses = ["192.168.7.1/24"]\n'
    lab = Offload(tmp_path, vlan=vlan)
    try:
        assert "ready" in lab.start()
        host, server = Wire(lab.client, "eth0"), Wire(lab.server, "eth0")
        try:
            gateway = {p["name"]: p["mac"] for p in lab.ask("ports")}
            mac = "02:00:00:00:07:02"
            end = json.loads(netns.run(["ip", "-j", "link", "show", "eth0"], ns=lab.server).stdout)[0]["address"]

            def there(number: int) -> bytes:
                ip = IP(src="192.168.7.2", dst="203.0.113.9") / UDP(sport=4000, dport=9) / Raw(number.to_bytes(4, "big"))
                return bytes(Ether(src=mac, dst=gateway["lan"]) / Dot1Q(vlan=7) / ip)

            def back(number: int) -> bytes:
                ip = IP(src="203.0.113.9", dst="203.0.113.1") / UDP(sport=9, dport=4000) / Raw(number.to_bytes(4, "big"))
                return bytes(Ether(src=end, dst=gateway["wan"]) / ip)

            arrived: list[Ether] = []
            returned: list[Ether] = []

            def look() -> None:
                for frame in host.receive():
                    ether = Ether(frame)
                    if ether.haslayer(ARP) and ether[ARP].op == 1 and ether[ARP].pdst == "192.168.7.2":
                        answer = ARP(op=2, hwsrc=mac, psrc="192.168.7.2", hwdst=ether[ARP].hwsrc, pdst=ether[ARP].psrc)
                        host.send(bytes(Ether(src=mac, dst=ether.src) / Dot1Q(vlan=7) / answer))
                    if ether.haslayer(UDP) and ether[UDP].sport == 9:
                        returned.append(ether)
                arrived.extend(e for e in map(Ether, server.receive()) if e.haslayer(UDP) and e[UDP].dport == 9)

            def exchange(count: int) -> None:
                """Packets both ways; each comes."""
                for _ in range(count):
                    seen = len(arrived), len(returned)
                    host.send(there(seen[0]))
                    until(lambda seen=seen: (look(), len(arrived) > seen[0])[1])  # type: ignore[misc]
                    server.send(back(seen[1]))
                    until(lambda seen=seen: (look(), len(returned) > seen[1])[1])  # type: ignore[misc]

            exchange(20)
            until(lambda: lab.ask("offload")["flows"]["hardware"] == 1)
            before = lab.ask("status")["packets"]
            exchange(20)
            assert lab.ask("status")["packets"] - before < 20, "the daemon must not have seen them"
            until(lambda: lab.ask("offload")["packets"]["hardware"] >= 40)
            assert len(arrived) == len(returned) == 40
            for number, (out, home) in enumerate(zip(arrived, returned, strict=True)):
                assert not out.haslayer(Dot1Q) and out[IP].src == "203.0.113.1" and out[IP].ttl == 63 and out.dst == end
                assert home[Dot1Q].vlan == 7 and home[IP].dst == "192.168.7.2" and home[IP].ttl == 63 and home.dst == mac
                assert out[Raw].load[:4] == home[Raw].load[:4] == number.to_bytes(4, "big")
        finally:
            host.close()
            server.close()
    finally:
        lab.close()


@pytest.mark.parametrize("gro", ["on", "off"])
def test_xdp_on_veths(tmp_path: Path, gro: str) -> None:
    """Native where the other ends receive by NAPI, else generic; a sender that leaves its checksums to the device is served by the
    daemon, and by XDP once it does not."""
    lab = Offload(tmp_path, capture="socket", extra='[offload]\nxdp = ["lan", "wan"]\n')
    try:
        for ns in (lab.client, lab.server):
            netns.run(["ethtool", "-K", "eth0", "gro", gro], ns=ns)
        assert "ready" in lab.start()
        mode = "native" if gro == "on" and KERNEL >= (6, 3) else "generic"  # before, nobody tells who can be sent to natively
        assert {d["where"] for d in lab.ask("offload")["devices"]} == {f"XDP ({mode})"}
        download(lab)
        partial = lab.ask("offload")["packets"]["hardware"]
        for ns in (lab.client, lab.server):
            netns.run(["ethtool", "-K", "eth0", "tx", "off"], ns=ns)
        before = lab.ask("status")["packets"]
        download_past(lab, 10_000)
        assert lab.ask("offload")["packets"]["hardware"] - partial > 5 * (lab.ask("status")["packets"] - before)
        assert "xdp" in netns.run(["ip", "link"], ns=lab.router).stdout
        assert lab.process is not None
        lab.process.kill()
        lab.process.wait()
        assert "xdp" not in netns.run(["ip", "link"], ns=lab.router).stdout
    finally:
        lab.close()
