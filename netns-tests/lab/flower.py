"""Flows by tc flower in software (skip_hw) between namespaces, on a kernel with cls_flower; says as one line of JSON what it saw.

`python -m lab.flower` as root, also inside the virtual machine of netns-tests/test_flower.py. Each flow's frames go twice: first
the daemon forwards them, then, after enough other packets, the kernel's filters do. The results are lists of frames as hex.

Laws: judges nothing, only reports; leaves no namespace behind.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from userfw_hw.flower.connections import ZONES, Connections
from userfw_hw.flower.driver import FlowerDriver

from userfw.client.control import ControlClient
from userfw.offload.contract import Actions, Match, Refusal, Rule, Target

from . import frames, netns
from .wire import Wire

ROOT = Path(__file__).resolve().parent.parent.parent
THRESHOLD = 30
RULES = """
table inet filter {
    flowtable ft { hook ingress priority filter; devices = { lan, wan, lan10 }; flags offload; counter; }
    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state established,related meta l4proto { tcp, udp } flow add @ft
        ct state established,related accept
        iifname { "lan", "lan10" } accept
    }
    chain post {
        type nat hook postrouting priority srcnat;
        ip saddr 192.168.1.0/24 oifname "wan" masquerade
        ip saddr 192.168.10.3 oifname "wan" masquerade
        ip6 saddr fd00:1::/64 oifname "wan" masquerade
    }
    chain pre {
        type nat hook prerouting priority dstnat;
        ip daddr 198.51.100.80 dnat ip to 203.0.113.9
    }
}
"""
CONFIG = """
[daemon]
control = "{folder}/s"
ruleset = "rules.nft"
[offload]
flower = ["lan", "wan"]
threshold = {threshold}
[[port]]
name = "lan"
type = "packet"
capture = "clsact"
netns = "{router}"
device = "lan"
addresses = ["192.168.1.1/24", "192.168.5.1/24", "fd00:1::1/64", "fd00:5::1/64"]
[[port.vlan]]
name = "lan10"
id = 10
addresses = ["192.168.10.1/24"]
[[port]]
name = "wan"
type = "packet"
capture = "clsact"
netns = "{router}"
device = "wan"
addresses = ["203.0.113.1/24", "2001:db8::1/64"]
[[port.vlan]]
name = "wan20"
id = 20
"""
# Hosts hear the raw frames as well; only iperf3 and neighbour discovery may answer.
QUIET = """table inet quiet { chain input { type filter hook input priority 0; policy drop;
    meta l4proto ipv6-icmp accept
    tcp dport 5201 accept
    tcp sport 5201 accept
    iifname "lo" accept
    }
}
"""


# Rules that the interface itself runs, once the flows are through.
FILTERS = """table netdev hardware {
    chain in {
        type filter hook ingress device "lan" priority 10; flags offload;
        udp dport 5001 counter drop
        udp dport 5003 counter fwd to "wan20"
        ip daddr 203.0.113.9 udp dport 5002 counter accept
        ether type arp counter accept
        %s
    }
}
"""


@dataclass(frozen=True)
class Flow:
    """One connection: name, ends, protocol, the source as the server sees it, the tag at the client, and whom the client asks."""

    name: str
    client: str
    server: str
    protocol: str
    seen: str
    port: int
    vlan: int | None = None
    asked: str = ""

    def ends(self, forth: bool) -> tuple[str, str, int, int]:
        """Addresses and ports of a packet as its sender makes it."""
        if forth:
            return self.client, self.asked or self.server, self.port, 5000
        return self.server, self.seen, 5000, self.port


FLOWS = (
    Flow("udp4 nat", "192.168.1.2", "203.0.113.9", "udp", "203.0.113.1", 4001),
    Flow("udp4", "192.168.5.2", "203.0.113.9", "udp", "192.168.5.2", 4002),
    Flow("udp6 nat", "fd00:1::2", "2001:db8::9", "udp", "2001:db8::1", 4003),
    Flow("udp6", "fd00:5::2", "2001:db8::9", "udp", "fd00:5::2", 4004),
    Flow("tcp4 nat", "192.168.1.2", "203.0.113.9", "tcp", "203.0.113.1", 4005),
    Flow("udp4 tagged", "192.168.10.2", "203.0.113.9", "udp", "192.168.10.2", 4006, 10),
    Flow("tcp6 nat", "fd00:1::2", "2001:db8::9", "tcp", "2001:db8::1", 4007),
    Flow("tcp4 tagged nat", "192.168.10.3", "203.0.113.9", "tcp", "203.0.113.1", 4008, 10),
    Flow("udp4 both nat", "192.168.1.2", "203.0.113.9", "udp", "203.0.113.1", 4009, None, "198.51.100.80"),
)
LAST = Flow("tcp4 nat, last", "192.168.1.2", "203.0.113.9", "tcp", "203.0.113.1", 4020)


class Lab:
    """Client, router, server; the daemon in between."""

    def __init__(self, folder: Path) -> None:
        base = f"uf{os.getpid()}-w"
        self.client, self.router, self.server = f"{base}a", f"{base}r", f"{base}b"
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None
        for ns in (self.client, self.router, self.server):
            netns.create(ns)
        netns.ip(self.client, f"link add eth0 type veth peer name lan netns {self.router}")
        netns.ip(self.server, f"link add eth0 type veth peer name wan netns {self.router}")
        netns.ip(self.client, "link add link eth0 name eth0.10 type vlan id 10")
        for ns in (self.client, self.server):
            netns.ip(ns, "link set lo up", "link set eth0 up")
            netns.run(["nft", "-f", "-"], ns=ns, text=QUIET)
        netns.ip(self.client, "link set eth0.10 up", "addr add 192.168.10.2/24 dev eth0.10", "addr add 192.168.10.3/24 dev eth0.10")
        netns.ip(self.router, "link set lo up", "link set lan up", "link set wan up")
        for ns, addresses in (
            (self.client, ("192.168.1.2/24", "192.168.5.2/24", "fd00:1::2/64 nodad", "fd00:5::2/64 nodad")),
            (self.server, ("203.0.113.9/24", "2001:db8::9/64 nodad")),
        ):
            netns.ip(ns, *(f"addr add {address} dev eth0" for address in addresses))
        netns.ip(self.client, "route add default via 192.168.1.1")
        netns.ip(self.server, "route add 192.168.0.0/16 via 203.0.113.1", "route add fd00::/16 via 2001:db8::1")
        self.macs = {
            (ns, device): self._mac(ns, device)
            for ns, device in ((self.client, "eth0"), (self.server, "eth0"), (self.router, "lan"), (self.router, "wan"))
        }
        self.wires = {ns: Wire(ns, "eth0") for ns in (self.client, self.server)}

    def _mac(self, ns: str, device: str) -> str:
        link: str = json.loads(netns.run(["ip", "-j", "link", "show", device], ns=ns).stdout)[0]["address"]
        return link

    def start(self) -> str:
        """Run the daemon; what it said until it was ready or ended."""
        (self.folder / "rules.nft").write_text(RULES)
        config = CONFIG.format(folder=self.folder, threshold=THRESHOLD, router=self.router)
        (self.folder / "userfw.toml").write_text(config)
        log = self.folder / "log"
        with log.open("wb") as out:
            command = [sys.executable, "-m", "userfw", "run", "-c", str(self.folder / "userfw.toml")]
            self.process = subprocess.Popen(command, stdout=out, stderr=out, env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT}/hw"})
        until(lambda: "ready" in log.read_text() or self.process is None or self.process.poll() is not None)
        return log.read_text()

    def ask(self, command: str, **args: Any) -> Any:
        with ControlClient(f"{self.folder}/s", timeout=30) as client:
            return client.request(command, **args)

    def hardware(self) -> int:
        """Flows that are in flower filters now."""
        return int(self.ask("offload")["flows"]["hardware"])

    def left(self) -> dict[str, str]:
        """What of ours is on the interfaces."""
        found = {}
        for device in ("lan", "wan"):
            listed = netns.run(["tc", "filter", "show", "dev", device, "ingress"], ns=self.router, check=False).stdout
            qdiscs = netns.run(["tc", "qdisc", "show", "dev", device], ns=self.router).stdout.splitlines()
            found[device] = listed + "".join(line for line in qdiscs if "clsact" in line)
        return found

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for wire in self.wires.values():
            wire.close()
        for ns in (self.client, self.router, self.server):
            netns.delete(ns)

    # -- frames

    def packet(self, flow: Flow, forth: bool, payload: bytes, **fields: Any) -> bytes:
        """A frame of a flow as its sender puts it on the wire."""
        ends = flow.ends(forth)
        if flow.protocol == "udp":
            packet = frames.udp_packet(*ends, payload, **fields)
        else:
            seq, ack = (1001, 9001) if forth else (9001, 1001)
            packet = frames.tcp_packet(*ends, flags=0x18, seq=seq, ack=ack, payload=payload, **fields)
        return self.frame(flow, forth, packet)

    def frame(self, flow: Flow, forth: bool, packet: bytes) -> bytes:
        ns, gate = (self.client, "lan") if forth else (self.server, "wan")
        kind = 0x86DD if ":" in flow.client else 0x0800
        return frames.eth(self.macs[self.router, gate], self.macs[ns, "eth0"], kind, packet, flow.vlan if forth else None)

    def open(self, flow: Flow) -> None:
        """The first packets, one at a time, so that both sides are known and the flowtable has the flow."""
        if flow.protocol == "tcp":
            for forth, flags, seq, ack in ((True, 2, 1000, 0), (False, 0x12, 9000, 1001), (True, 0x10, 1001, 9001)):
                ends = flow.ends(forth)
                packet = frames.tcp_packet(*ends, flags=flags, seq=seq, ack=ack)
                self.pass_one(flow, forth, self.frame(flow, forth, packet))
            return
        for forth in (True, False, True):
            self.pass_one(flow, forth, self.packet(flow, forth, b"open"))

    def pass_one(self, flow: Flow, forth: bool, frame: bytes) -> None:
        """Send until it comes out at the other end (the first may wait for a neighbour)."""
        self.drain()
        end = self.wires[self.server if forth else self.client]
        self.wires[self.client if forth else self.server].send(frame)
        until(lambda: any(ours(flow, seen) for seen in end.receive()))

    def drain(self) -> None:
        for wire in self.wires.values():
            list(wire.receive())

    def install(self, flow: Flow) -> None:
        """Enough packets of an open flow that it goes to filters."""
        before = self.hardware()
        for _ in range(THRESHOLD):
            self.pass_one(flow, True, self.packet(flow, True, b"more"))
        until(lambda: self.hardware() > before)

    def exchange(self, flow: Flow) -> list[str]:
        """The same frames each time, both ways, those included that a device must hand up; what came out, as hex."""
        out = []
        for forth in (True, False):
            sent = [self.packet(flow, forth, bytes(at & 0xFF for at in range(size))) for size in (0, 1, 18, 200, 1300)]
            sent.append(self.packet(flow, forth, b"far", ttl=2))
            sent.append(self.packet(flow, forth, b"near", ttl=1))
            if flow.protocol == "udp" and ":" not in flow.client:
                ends = flow.ends(forth)
                body = frames.udp(*ends, b"no checksum", check=0)
                sent.append(self.frame(flow, forth, frames.ip(ends[0], ends[1], 17, body)))
            sent.append(self.packet(flow, forth, b"last"))
            self.drain()
            end = self.wires[self.server if forth else self.client]
            for frame in sent:
                self.wires[self.client if forth else self.server].send(frame)
            got: list[bytes] = []

            def complete(got: list[bytes] = got, end: Wire = end) -> bool:
                got += [seen for seen in end.receive() if ours(flow, seen)]
                return any(seen.endswith(b"last") for seen in got)

            until(complete)
            out += [seen.hex() for seen in got]
        return out


def ours(flow: Flow, frame: bytes) -> bool:
    """TCP or UDP of this flow, by its client's port."""
    at = 12
    while frame[at : at + 2] in (b"\x81\x00", b"\x88\xa8"):
        at += 4
    layer = frame[at + 2 :]
    if layer[:1] and layer[0] >> 4 == 4:
        protocol, ports = layer[9], layer[(layer[0] & 15) * 4 :][:4]
    else:
        protocol, ports = layer[6] if len(layer) > 6 else 0, layer[40:44]
    return protocol in (6, 17) and flow.port.to_bytes(2, "big") in (ports[:2], ports[2:])


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds * netns.PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("what was waited for did not happen")
        time.sleep(0.02)


def iperf(lab: Lab, source: str) -> dict[str, Any]:
    """A second of TCP from one address of the client; who handled the packets, and how many were wrong at the server."""
    server = subprocess.Popen(netns.inside(lab.server, ["iperf3", "-s", "-1"]), stdout=subprocess.DEVNULL)
    try:
        until(lambda: ":5201" in netns.run(["ss", "-tln"], ns=lab.server).stdout)
        before, seen = lab.ask("offload")["packets"]["hardware"], lab.ask("status")["packets"]
        wrong = checksum_errors(lab)
        result = netns.run(["iperf3", "-c", "203.0.113.9", "-B", source, "-t", "1", "-J"], ns=lab.client, timeout=120)
        moved = json.loads(result.stdout)["end"]["sum_received"]["bytes"]
        time.sleep(1.5)  # counters come by the second
        return {
            "bytes": moved,
            "hardware": lab.ask("offload")["packets"]["hardware"] - before,
            "daemon": lab.ask("status")["packets"] - seen,
            "wrong": checksum_errors(lab) - wrong,
            "offload": lab.ask("offload", flows=True),
        }
    finally:
        server.terminate()
        server.wait()


def checksum_errors(lab: Lab) -> int:
    """TCP segments that the server found wrong (TcpInCsumErrors)."""
    names, values = [
        line.split() for line in netns.run(["cat", "/proc/net/snmp"], ns=lab.server).stdout.splitlines() if line.startswith("Tcp:")
    ]
    return int(values[names.index("InCsumErrors")])


def without_a_card(lab: Lab) -> str:
    """What a driver says that believes `lan` to be a card's."""
    driver = FlowerDriver(features=lambda target: {"hw-tc-offload": True})
    links = json.loads(netns.run(["ip", "-j", "link", "show", "lan"], ns=lab.router).stdout)
    answer = driver.probe(Target("lan", links[0]["ifindex"], lab.router, "lan"))
    driver.close()
    return answer.reason if isinstance(answer, Refusal) else "taken"


def stateless(lab: Lab) -> dict[str, Any]:
    """A netdev chain with `flags offload` on `lan`: what its filters let by, who saw it, what they counted."""
    refused = lab.ask("nft", text=FILTERS % "ip ttl 3 drop", options={})
    taken = lab.ask("nft", text=FILTERS % "", options={})
    end, sender, flow = lab.wires[lab.server], lab.wires[lab.client], FLOWS[1]
    lab.drain()
    seen = lab.ask("status")["packets"]
    for port, count in ((5001, 7), (5003, 1), (5002, 1)):
        for _ in range(count):
            packet = lab.frame(flow, True, frames.udp_packet(flow.client, flow.server, flow.port, port, b"filtered"))
            sender.send(packet)
            if port == 5003:
                forwarded = packet
    got: list[bytes] = []

    def complete() -> bool:
        got.extend(frame for frame in end.receive() if frame.endswith(b"filtered"))
        return len(got) == 2

    until(complete)
    report = {
        "refused": refused["errors"],
        "errors": taken["errors"],
        "out": [int.from_bytes(frame[-14:-12], "big") for frame in got],
        "tagged": [frame.hex() for frame in got if frame[12:14] == b"\x81\0"],
        "as sent": forwarded.hex(),
        "seen": lab.ask("status")["packets"] - seen,
        "offload": lab.ask("offload")["filters"],
        "dropped": lab.ask("offload")["filters_dropped"],
        "listing": lab.ask("nft", text="list table netdev hardware", options={})["output"],
        "tc": lab.left()["lan"],
    }
    lab.ask("nft", text="delete table netdev hardware", options={})
    return report | {"after": lab.left()["lan"]}


def zone(lab: Lab, number: int = ZONES[1]) -> list[str]:
    """The kernel's connections that act_ct translates by: the daemon's, for another process has the first zone."""
    return netns.run(["conntrack", "-L", "-w", str(number)], ns=lab.router, check=False).stdout.splitlines()


def another(lab: Lab) -> Connections:
    """What a second daemon in the namespace has: a zone, and one connection in it."""
    made = Connections(lab.router)
    ends = bytes([192, 0, 2, 1]), bytes([192, 0, 2, 2])
    made.obtain(Rule(1, Match("", 0, 17, *ends, 1, 2), Actions("", 0, ends[0], ends[1], 3, 2, b"", b"")))
    return made


def lost(lab: Lab, flow: Flow) -> dict[str, Any]:
    """Somebody empties the kernel's table: the daemon gets a flow's packets, as they came."""
    netns.run(["conntrack", "-D", "-w", str(ZONES[1])], ns=lab.router, check=False)
    seen = lab.ask("status")["packets"]
    return {"frames": lab.exchange(flow), "seen": lab.ask("status")["packets"] - seen}


def run(lab: Lab) -> dict[str, Any]:
    """The whole report."""
    report: dict[str, Any] = {"kernel": os.uname().release}
    report["skip_sw"], report["probed"] = without_a_card(lab), lab.left()
    other = another(lab)
    report["log"] = lab.start()
    report["devices"] = lab.ask("offload")["devices"]
    report["flows"] = {}
    for at, flow in enumerate(FLOWS):
        lab.open(flow)
        daemon = lab.exchange(flow)
        before = lab.hardware()
        lab.install(flow)
        seen = lab.ask("status")["packets"]
        flower = lab.exchange(flow)
        report["flows"][flow.name] = {
            "early": before > at,
            "daemon": daemon,
            "flower": flower,
            "seen": lab.ask("status")["packets"] - seen,
        }
    report["zone"] = zone(lab)
    report["lost"] = lost(lab, FLOWS[-1])
    report["filters"] = lab.left()
    report["stateless"] = stateless(lab)
    for ns in (lab.client, lab.server):
        netns.run(["ethtool", "-K", "eth0", "tso", "off", "gso", "off"], ns=ns)
    report["iperf nat"] = iperf(lab, "192.168.1.2")
    for ns in (lab.client, lab.server):
        netns.run(["ethtool", "-K", "eth0", "tso", "on", "gso", "on"], ns=ns)
    report["iperf large"] = iperf(lab, "192.168.5.2")
    report["iperf large nat"] = iperf(lab, "192.168.1.2")
    report["conntrack"] = lab.ask("conntrack.list")["entries"]
    lab.ask("nft", text=FILTERS % "", options={})
    lab.open(LAST)
    lab.exchange(LAST)
    lab.install(LAST)
    assert lab.process is not None
    lab.process.send_signal(signal.SIGKILL)
    lab.process.wait()
    report["killed"], report["killed zone"] = lab.left(), zone(lab)
    report["again"] = lab.start()
    report["swept"], report["swept zone"] = lab.left(), zone(lab)
    lab.process.terminate()
    lab.process.wait(30)
    report["ended"], report["other"] = lab.left(), len(zone(lab, other.zone))
    other.close()
    return report


def main() -> None:
    """Run everything in a folder that is removed afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="userfw-flower-"))
    lab = Lab(folder)
    try:
        print(json.dumps(run(lab)))
    except BaseException:
        log = folder / "log"
        print(log.read_text() if log.exists() else "", file=sys.stderr)
        print(json.dumps(lab.left(), indent=1), file=sys.stderr)
        raise
    finally:
        lab.close()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
