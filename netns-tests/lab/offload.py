"""A laboratory for hardware offload: two hosts and a way round, userfw between them on veths, and counted traffic through it.

    client 192.168.1.2 | lan 192.168.1.1     wan 203.0.113.1 | server 203.0.113.9, 198.51.100.9
                       |                     alt 192.0.2.1   | other  192.0.2.9,   198.51.100.9

Laws
- `mode` says what takes the flows over: `tc` and `xdp` (eBPF on the veths), `flower` (tc filters in software, where the kernel has
  them) or `mock` (the software card between veths and host).
- Every datagram of a `Stream` carries its number; `settled` waits until nothing moves any more, then each is accounted for.
"""

import contextlib
import fcntl
import itertools
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from . import netns
from .userfw import ROOT, Control, toml

FAR = "198.51.100.9"
SERVER = "203.0.113.9"
PORT = 9000
NETS = {"lan": ("192.168.1", 2), "wan": ("203.0.113", 9), "alt": ("192.0.2", 9)}
RULES = """table inet filter {
    flowtable ft { hook ingress priority filter; devices = { lan, wan, alt }; flags offload; counter; }
    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state established,related meta l4proto { tcp, udp } flow add @ft
        ct state established,related accept
        iifname "lan" accept
    }
    chain post { type nat hook postrouting priority srcnat; ip daddr 203.0.113.0/24 masquerade
    }
}
"""


_numbers = itertools.count()


def until(condition: Callable[[], object], seconds: float = 20) -> None:
    """Wait for a state; AssertionError if it does not come."""
    deadline = time.monotonic() + seconds * netns.PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "what was waited for did not happen"
        time.sleep(0.02)


def carrier(sock: socket.socket) -> bool:
    """Whether eth0 of a socket's namespace has one (IFF_RUNNING, by SIOCGIFFLAGS)."""
    answer = fcntl.ioctl(sock, 0x8913, struct.pack("16sH14x", b"eth0", 0))
    return bool(struct.unpack_from("16xH", answer)[0] & 0x40)


class OffloadLab:
    """The namespaces and the daemon. `config` is what its file says; change it and call `reload`."""

    def __init__(self, folder: Path, mode: str = "tc", rules: str = RULES) -> None:
        base = f"uf{os.getpid()}-o{next(_numbers)}"
        self.ns = {"lan": f"{base}a", "wan": f"{base}b", "alt": f"{base}c", "router": f"{base}r"}
        self.router = self.ns["router"]
        self.folder, self.mode, self.rules = folder, mode, rules
        self.process: subprocess.Popen[bytes] | None = None
        self.control: Control | None = None
        self.config: dict[str, Any] = {
            "daemon": {"control": str(folder / "s"), "ruleset": "rules.nft"},
            "port": [self._port(name) for name in NETS],
            "route": [{"to": "198.51.100.0/24", "via": SERVER}],
            "offload": {"threshold": 8},
        }
        if mode == "mock":
            self.config["nic"] = [{"name": "card", "ports": list(NETS)}]
        if mode == "xdp":
            self.config["offload"]["xdp"] = list(NETS)
        if mode == "flower":
            self.config["offload"]["flower"] = list(NETS)

    def _port(self, name: str) -> dict[str, Any]:
        made = {"name": name, "type": "packet", "netns": self.router, "device": name, "addresses": [f"{NETS[name][0]}.1/24"]}
        capture = {"tc": "tc", "flower": "clsact"}.get(self.mode)
        return made | ({"capture": capture} if capture else {})

    def up(self) -> None:
        """Make everything and start the daemon."""
        for ns in self.ns.values():
            netns.create(ns)
            netns.sysctl(ns, ipv6__conf__all__disable_ipv6=1, ipv6__conf__default__disable_ipv6=1)
        for name, (net, host) in NETS.items():
            netns.ip(self.router, f"link add {name} type veth peer name eth0 netns {self.ns[name]}", f"link set {name} up")
            more = [f"addr add {FAR}/32 dev lo"] if name != "lan" else []
            netns.ip(self.ns[name], f"addr add {net}.{host}/24 dev eth0", "link set eth0 up", *more,
                     f"route add default via {net}.1")
            self.prepare(name)
        self.start()

    def prepare(self, name: str) -> None:
        """A host's interface as the mode needs it: what a local sender leaves to its device is not forwarded at XDP."""
        if self.mode == "xdp":
            netns.run(["ethtool", "-K", "eth0", "tx", "off", "gro", "on"], ns=self.ns[name])

    def write(self) -> None:
        """The configuration where the daemon reads it."""
        (self.folder / "rules.nft").write_text(self.rules)
        (self.folder / "userfw.toml").write_text(toml(self.config))

    def start(self) -> None:
        """Start the daemon and wait until it is ready."""
        self.write()
        log = self.folder / "log"
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "userfw", "run", "-c", str(self.folder / "userfw.toml")], stdout=out, stderr=out,
                env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT}/hw"})
        until(lambda: "ready" in log.read_text() or self.process is None or self.process.poll() is not None, 60)
        assert self.process.poll() is None, log.read_text()

    def ask(self, command: str, **args: Any) -> Any:
        """The daemon's answer to one command."""
        if self.control is None:
            self.control = Control(self.folder / "s")
        return self.control.ask(command, args)

    def nft(self, text: str) -> None:
        """A transaction; AssertionError with its words if it is refused."""
        answer = self.ask("nft", text=text)
        assert not answer["status"], answer["errors"]

    def reload(self) -> None:
        """Have the daemon go over to `config`; returns when it has."""
        self.write()
        self.ask("reload")

    def drops(self) -> dict[str, int]:
        """Packets dropped by reason: the daemon's, the software card's (`card NAME`), the kernel's at each device (`link NAME`)."""
        found = {row["reason"]: int(row["packets"]) for row in self.ask("drops")["drops"]}
        for link in json.loads(netns.run(["ip", "-s", "-j", "link"], ns=self.router).stdout):
            stats = link["stats64"]
            found[f"link {link['ifname']}"] = stats["tx"]["dropped"] + stats["rx"]["dropped"]
        for device in self.ask("offload")["devices"]:
            found[f"card {device['device']}"] = device.get("hardware_dropped", 0)
        return {name: count for name, count in found.items() if count}

    def hardware(self) -> int:
        """Packets that devices have forwarded, as far as the daemon knows."""
        return int(self.ask("offload")["packets"]["hardware"])

    def in_hardware(self) -> int:
        """Flows in devices now."""
        return int(self.ask("offload")["flows"]["hardware"])

    def close(self) -> None:
        """End the daemon and take everything down."""
        if self.control is not None:
            self.control.close()
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for ns in self.ns.values():
            netns.delete(ns)


class Stream:
    """Datagrams from the client to `target`, each echoed; `wan` and `alt`: (number, source address) as they came there.

    `echoed`: numbers that came back. `sent`: how many were sent so far, which is the next number. `unplugged`: numbers whose answer
    a host sent without a carrier: its own kernel drops such frames, and counts them nowhere.
    """

    def __init__(self, lab: OffloadLab, target: str = FAR, size: int = 200, pace: float = 0.0005) -> None:
        self.lab, self.target, self.size, self.pace = lab, target, size, pace
        self.sent = 0
        self.refused = 0
        self.arrived: dict[str, list[tuple[int, str]]] = {"wan": [], "alt": []}
        self.echoed: list[int] = []
        self.unplugged: set[int] = set()
        self.sockets: list[socket.socket] = []
        self.sending = True
        self.running = True
        self.threads: list[threading.Thread] = []

    def __enter__(self) -> "Stream":
        for name, target in (("wan", self.target), ("alt", FAR)):
            server = self._socket(name)
            server.bind((target, PORT))  # it answers from there
            self._thread(self._echo, server, self.arrived[name])
        client = self._socket("lan")
        client.bind(("192.168.1.2", 0))
        self._thread(self._listen, client)
        self._thread(self._send, client)
        return self

    def __exit__(self, *_: object) -> None:
        self.sending = self.running = False
        for thread in self.threads:
            thread.join()
        for sock in self.sockets:
            sock.close()

    def _socket(self, name: str) -> socket.socket:
        sock = netns.within(self.lab.ns[name], lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        sock.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)  # SO_RCVBUFFORCE
        sock.setsockopt(socket.IPPROTO_IP, 10, 0)  # IP_MTU_DISCOVER: never set DF
        sock.settimeout(0.1)
        self.sockets.append(sock)
        return sock

    def _thread(self, target: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        thread.start()
        self.threads.append(thread)

    def _send(self, sock: socket.socket) -> None:
        filler = bytes(self.size - 8)
        while self.sending:
            number = self.sent
            self.sent += 1
            try:
                sock.sendto(number.to_bytes(8, "big") + filler, (self.target, PORT))
            except OSError:  # an ICMP error came back on the socket: this datagram was not sent
                self.refused += 1
            time.sleep(self.pace)

    def _echo(self, sock: socket.socket, arrived: list[tuple[int, str]]) -> None:
        while self.running:
            with contextlib.suppress(OSError):
                data, source = sock.recvfrom(1 << 16)
                number = int.from_bytes(data[:8], "big")
                arrived.append((number, source[0]))
                sock.sendto(data, source)
                if not carrier(sock):
                    self.unplugged.add(number)

    def _listen(self, sock: socket.socket) -> None:
        while self.running:
            with contextlib.suppress(OSError):
                self.echoed.append(int.from_bytes(sock.recv(1 << 16)[:8], "big"))

    def offloaded(self) -> None:
        """Wait until a device forwards the stream, both ways."""
        until(lambda: self.lab.in_hardware() >= 1)
        before = self.lab.hardware()
        until(lambda: self.lab.hardware() > before + 100)

    def flows(self, seconds: float = 10) -> None:
        """Wait until more of it has come through, there and back."""
        want = len(self.echoed) + 50
        until(lambda: len(self.echoed) >= want, seconds)

    def settled(self) -> None:
        """No more is sent; return when nothing has moved for a while."""
        self.sending = False
        count = -1
        while count != (count := len(self.echoed) + sum(map(len, self.arrived.values()))):
            time.sleep(0.4)

    @property
    def numbers(self) -> list[int]:
        """Of what came to either server."""
        return [number for came in self.arrived.values() for number, _ in came]

    def no_duplicates(self) -> None:
        """Nothing came twice."""
        for came in (self.numbers, self.echoed):
            assert len(came) == len(set(came)), "a packet came twice"

    def lost(self) -> int:
        """Packets that were sent, there or back, and did not come."""
        there = set(self.numbers)
        return self.sent - self.refused - len(there) + len(there) - len(set(self.echoed))

    def whole(self) -> None:
        """Everything came, once."""
        self.no_duplicates()
        missing = sorted(set(range(self.sent)) - set(self.numbers)), sorted(set(self.numbers) - set(self.echoed))
        assert self.lost() == 0, f"{self.lost()} of {self.sent} lost: {missing[0][:10]} there, {missing[1][:10]} back"


Lab = TypeVar("Lab", bound=OffloadLab)


@contextlib.contextmanager
def running(lab: Lab) -> Iterator[Lab]:
    """A laboratory that is taken down at the end; the daemon's log comes with a failure."""
    try:
        lab.up()
        yield lab
    except AssertionError as failure:
        log = lab.folder / "log"
        raise AssertionError(f"{failure}\n--- userfw said:\n{log.read_text() if log.exists() else ''}") from failure
    finally:
        lab.close()
