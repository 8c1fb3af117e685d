"""Ports on a real kernel: what TAP, TUN and packet sockets do to their interfaces, follow, survive and give back.

Only userfw has ports, so these tests do not compare; each starts a daemon of its own.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from lab import netns
from lab.userfw import ROOT, environment, toml
from lab.wire import Wire

LAN = {"name": "lan", "type": "tap", "device": "eth0", "mac": "02:00:00:00:01:01", "addresses": ["192.168.1.1/24"]}
WAN = {"name": "wan", "type": "tap", "device": "eth0", "mac": "02:00:00:00:02:01", "addresses": ["203.0.113.1/24"]}


class Box:
    """Namespaces `lan` and `wan`, each to be a host, and one daemon."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.prefix = f"uf{os.getpid()}-p{time.monotonic_ns() % 10**6}"
        self.lan, self.wan, self.rt = (f"{self.prefix}-{name}" for name in ("lan", "wan", "rt"))
        for ns in (self.lan, self.wan, self.rt):
            netns.create(ns)
        self.process: subprocess.Popen[bytes] | None = None
        self.stderr = path / "stderr"

    def configure(self, *ports: dict[str, Any], ruleset: str = "", **daemon: Any) -> None:
        """Write the configuration."""
        (self.path / "gateway.nft").write_text(ruleset)
        config = {"daemon": {"control": str(self.path / "c.sock"), "state_dir": str(self.path / "state"), "ruleset": "gateway.nft",
                             **daemon}, "port": list(ports)}
        (self.path / "userfw.toml").write_text(toml(config))

    def start(self, *ports: dict[str, Any], notify: str = "", fds: dict[str, int] | None = None, **more: Any) -> None:
        """Run the daemon with these ports (or as configured before) until it is ready; `notify`, `fds`: as systemd would."""
        if ports:
            self.configure(*ports, **more)
        command = netns.inside(self.rt, [sys.executable, "-m", "userfw", "run", "-c", str(self.path / "userfw.toml")])
        env = {**environment(), "NOTIFY_SOCKET": notify}
        if fds:  # a single one: it becomes number 3 of a process that knows its own id
            [(name, fd)] = fds.items()
            env |= {"LISTEN_FDS": "1", "LISTEN_FDNAMES": name}
            command = ["bash", "-c", f'exec 3<&{fd}; LISTEN_PID=$$ exec "$@"', "bash", *command]
        with self.stderr.open("wb") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=env, cwd=ROOT,
                pass_fds=tuple((fds or {}).values()))
        self.until(lambda: re.search(rb"^ready$|userfw: ready:", self.stderr.read_bytes(), re.MULTILINE))

    def end(self, number: int = signal.SIGTERM) -> None:
        """End the daemon and wait for it."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait(15)

    def close(self) -> None:
        """Everything away."""
        self.end(signal.SIGKILL)
        for ns in (self.lan, self.wan, self.rt):
            netns.delete(ns)

    def ask(self, *words: str) -> Any:
        """A command's JSON answer."""
        env = {**environment(), "USERFW_SOCKET": str(self.path / "c.sock")}
        done = subprocess.run([sys.executable, "-m", "userfw", *words, "--json"], env=env, capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def port(self, name: str) -> Any:
        """What `userfw ports` tells of a port."""
        return next(port for port in self.ask("ports") if port["name"] == name)

    def until(self, true: Callable[[], Any], seconds: float = 15) -> None:
        """Wait for a state."""
        deadline = time.monotonic() + seconds
        while not true():
            assert self.process is None or self.process.poll() is None, self.stderr.read_text()
            assert time.monotonic() < deadline, self.stderr.read_text()
            time.sleep(0.02)

    def host(self, ns: str, address: str, via: str, device: str = "eth0") -> None:
        """Make a namespace a host with an address and a default route."""
        netns.ip(ns, f"addr replace {address}/24 dev {device}", f"link set {device} up", f"route replace default via {via}")

    def veth(self) -> None:
        """A veth between `rt` (edge0, with an address of the host's own) and `wan`."""
        netns.ip(self.rt, f"link add edge0 type veth peer name eth0 netns {self.wan}", "link set edge0 up",
                 "addr add 203.0.113.7/24 dev edge0")


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    box = Box(tmp_path)
    try:
        yield box
    finally:
        box.close()


def ping(ns: str, address: str) -> bool:
    return netns.run(["ping", "-c", "1", "-W", "1", address], ns=ns, check=False).returncode == 0


def transfer(sender: str, receiver: str, address: str, size: int = 8 << 20) -> bool:
    """Send random bytes over TCP from one namespace to an address of the other; whether they arrived whole."""
    data = os.urandom(size)
    server = netns.within(receiver, lambda: socket.create_server(("0.0.0.0", 7000)))
    server.settimeout(10)
    seen = hashlib.sha256()

    def serve() -> None:
        with contextlib.suppress(OSError):
            conn, _ = server.accept()
            with conn:
                while part := conn.recv(1 << 16):
                    seen.update(part)
    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    with server, netns.within(sender, lambda: socket.create_connection((address, 7000), 10)) as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        thread.join(20)
    return seen.digest() == hashlib.sha256(data).digest()


def test_tap_is_made_as_configured(box: Box) -> None:
    box.start({**LAN, "netns": box.lan, "mtu": 1400, "device_mac": "02:00:00:00:00:77", "device_addresses": ["192.168.1.9/24"],
               "device_routes": ["default"]})
    [link] = json.loads(netns.run(["ip", "-j", "-d", "link", "show", "eth0"], ns=box.lan).stdout)
    assert (link["mtu"], link["address"], "UP" in link["flags"]) == (1400, "02:00:00:00:00:77", True)
    assert link["linkinfo"]["info_data"]["vnet_hdr"] is True
    assert "default via 192.168.1.1 dev eth0" in netns.run(["ip", "route"], ns=box.lan).stdout
    assert ping(box.lan, "192.168.1.1")
    info = box.port("lan")
    assert info["mtu"] == 1400 and {"csum", "tso4", "tso6"} <= set(info["queues"][0]["offloads"])
    box.end()
    assert netns.run(["ip", "link", "show", "eth0"], ns=box.lan, check=False).returncode, "it goes with the daemon"


def test_link_and_mtu_are_followed(box: Box) -> None:
    box.start({**LAN, "netns": box.lan})
    netns.ip(box.lan, "link set eth0 mtu 1300")
    box.until(lambda: box.port("lan")["mtu"] == 1300)
    netns.ip(box.lan, "link set eth0 down")
    box.until(lambda: not box.port("lan")["up"])
    netns.ip(box.lan, "link set eth0 up")
    box.until(lambda: box.port("lan")["up"])


def test_a_deleted_device_and_a_new_namespace_are_found_again(box: Box) -> None:
    box.start({**LAN, "netns": box.lan})
    netns.ip(box.lan, "link del eth0")
    box.until(lambda: netns.run(["ip", "link", "show", "eth0"], ns=box.lan, check=False).returncode == 0)
    box.host(box.lan, "192.168.1.10", "192.168.1.1")
    box.until(lambda: ping(box.lan, "192.168.1.1"))
    netns.delete(box.lan)
    netns.create(box.lan)
    box.until(lambda: netns.run(["ip", "link", "show", "eth0"], ns=box.lan, check=False).returncode == 0)
    box.host(box.lan, "192.168.1.10", "192.168.1.1")
    box.until(lambda: ping(box.lan, "192.168.1.1"))


@pytest.mark.parametrize("offloads", [True, False])
@pytest.mark.parametrize("kind", ["tap", "queues", "packet", "xdp"])
def test_streams_arrive_whole(box: Box, kind: str, offloads: bool) -> None:
    wan: dict[str, Any] = {**WAN, "netns": box.wan}
    if kind in ("packet", "xdp"):
        box.veth()
        wan = {**WAN, "type": kind, "netns": box.rt, "device": "edge0"}
    elif kind == "queues":
        wan["queues"] = 3
    box.start({**LAN, "netns": box.lan}, {**wan, "offloads": offloads})
    box.host(box.lan, "192.168.1.10", "192.168.1.1")
    box.host(box.wan, "203.0.113.10", "203.0.113.1")
    assert transfer(box.lan, box.wan, "203.0.113.10")
    assert transfer(box.wan, box.lan, "192.168.1.10")
    queues = box.port("wan")["queues"]
    assert bool(queues[0]["segmented"]) is (not offloads or kind == "xdp")
    assert sum(drop["packets"] for drop in box.ask("drops")["drops"] if drop["reason"] in ("CHECKSUM", "MALFORMED")) == 0


@pytest.mark.parametrize("kind", ["packet", "xdp"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_hosts_stack_is_kept_off_and_comes_back(box: Box, number: int, kind: str) -> None:
    box.veth()
    box.host(box.wan, "203.0.113.10", "203.0.113.1")
    assert ping(box.wan, "203.0.113.7")
    def addresses() -> list[str]:
        shown = netns.run(["ip", "-o", "addr", "show", "dev", "edge0"], ns=box.rt).stdout.replace(" tentative", "")
        return [line.split("valid_lft")[0] for line in shown.splitlines()]
    before = addresses()
    box.start({**WAN, "type": kind, "netns": box.rt, "device": "edge0"})
    assert ping(box.wan, "203.0.113.1"), "the gateway answers"
    assert "allmulti 1 " in netns.run(["ip", "-d", "link", "show", "edge0"], ns=box.rt).stdout, "groups of our addresses come too"
    assert not ping(box.wan, "203.0.113.7") and not ping(box.rt, "203.0.113.10"), "the host does not, nor can it send"
    box.end(number)
    box.until(lambda: ping(box.wan, "203.0.113.7"))
    assert addresses() == before
    assert "allmulti 0 " in netns.run(["ip", "-d", "link", "show", "edge0"], ns=box.rt).stdout
    assert netns.run(["nft", "list", "ruleset"], ns=box.rt).stdout == ""
    assert "xdp" not in netns.run(["ip", "link", "show", "edge0"], ns=box.rt).stdout
    box.start()
    assert ping(box.wan, "203.0.113.1"), "and the next daemon takes it again"


def iperf(sender: str, receiver: str, address: str, *more: str) -> dict[str, Any]:
    """What iperf3 tells at the end of a second of traffic."""
    command = netns.inside(receiver, ["iperf3", "-s", "-1", "-B", address, "--forceflush"])
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        while "listening" not in server.stdout.readline():
            assert server.poll() is None
        told = netns.run(["iperf3", "-c", address, "-t", "1", "-J", *more], ns=sender).stdout
        server.stdout.read()
    end: dict[str, Any] = json.loads(told)["end"]
    return end


@pytest.mark.parametrize("mode", ["native", "generic"])
@pytest.mark.skipif(not shutil.which("iperf3"), reason="iperf3 is not installed")
def test_two_xdp_ports_forward_what_hosts_really_send(box: Box, mode: str) -> None:
    """Ping, TCP and UDP of IPv4 and IPv6 from and to local stacks, whose partial checksums XDP cannot be told of."""
    box.veth()
    netns.ip(box.rt, f"link add lan0 type veth peer name eth0 netns {box.lan}", "link set lan0 up")
    rules = """table inet t { chain po { type nat hook postrouting priority 100; oifname "wan" masquerade; }
        chain f { type filter hook forward priority 0; policy drop; ct state established,related accept; iifname "lan" accept; }
    }"""
    common = {"type": "xdp", "netns": box.rt, "xdp_mode": mode}
    box.start({**LAN, **common, "device": "lan0", "addresses": ["192.168.1.1/24", "fd00:1::1/64"]},
              {**WAN, **common, "device": "edge0", "addresses": ["203.0.113.1/24", "fd00:3::1/64"]}, ruleset=rules)
    for ns, four, six in ((box.lan, "192.168.1", "fd00:1"), (box.wan, "203.0.113", "fd00:3")):
        box.host(ns, f"{four}.10", f"{four}.1")
        netns.ip(ns, f"addr add {six}::10/64 dev eth0 nodad", f"route add default via {six}::1")
        if mode == "generic":  # native XDP on a veth switches its other end's large sends off by itself
            netns.run(["ethtool", "-K", "eth0", "tso", "off", "gso", "off"], ns=ns)
    assert ping(box.lan, "203.0.113.10") and ping(box.lan, "fd00:3::10")
    assert transfer(box.lan, box.wan, "203.0.113.10", 2 << 20)
    for address in ("203.0.113.10", "fd00:3::10"):
        assert iperf(box.lan, box.wan, address, "-R")["sum_received"]["bytes"] > 1 << 20
        udp = iperf(box.lan, box.wan, address, "-u", "-b", "2M", "-l", "60")["sum"]
        assert udp["packets"] > 1000 and udp["lost_packets"] < udp["packets"] / 50
    wan = box.port("wan")
    assert wan["queues"][0]["xdp"] == mode and wan["queues"][0]["segmented"] == 0
    assert {drop["reason"] for drop in box.ask("drops")["drops"]} & {"CHECKSUM", "MALFORMED", "INTERNAL_ERROR"} == set()


def test_an_xdp_port_refuses_jumbo_frames_and_a_second_program(box: Box) -> None:
    box.veth()
    wan = {**WAN, "type": "xdp", "netns": box.rt, "device": "edge0"}
    netns.ip(box.rt, "link set edge0 mtu 9000")
    with pytest.raises(AssertionError, match="its MTU is 9000; an AF_XDP port takes at most 3818"):
        box.start(wan)
    netns.ip(box.rt, "link set edge0 mtu 1500")
    box.start(wan)
    [first, box.process] = [box.process, None]
    try:
        with pytest.raises(AssertionError, match="the queue is taken by another AF_XDP socket"):
            box.start({**wan, "isolate": False}, state_dir=str(box.path / "other"), control=str(box.path / "d.sock"))
    finally:
        box.process = first


@pytest.mark.parametrize("kind", ["packet", "xdp"])
def test_an_interface_that_is_made_anew_is_served_again(box: Box, kind: str) -> None:
    box.veth()
    box.start({**WAN, "type": kind, "netns": box.rt, "device": "edge0"})
    netns.ip(box.rt, "link del edge0")
    box.until(lambda: not box.port("wan")["up"])
    box.veth()
    box.host(box.wan, "203.0.113.10", "203.0.113.1")
    box.until(lambda: ping(box.wan, "203.0.113.1"))
    assert not ping(box.wan, "203.0.113.7"), "isolated again"


@pytest.mark.parametrize("kind", ["tap", "packet"])
def test_vlan_tags_reach_their_device_and_come_back(box: Box, kind: str) -> None:
    wan = {**WAN, "netns": box.wan}
    if kind == "packet":
        box.veth()
        wan = {**WAN, "type": "packet", "netns": box.rt, "device": "edge0"}
    box.configure(wan)
    with (box.path / "userfw.toml").open("a") as config:
        config.write('[[port.vlan]]\nname = "guests"\nid = 9\naddresses = ["10.9.0.1/24"]\n')
    box.start()
    netns.ip(box.wan, "link set eth0 up")
    wire = Wire(box.wan, "eth0")
    with contextlib.closing(wire.sock):
        request = struct.pack("!HHBBH", 1, 0x800, 6, 4, 1) + b"\x02\0\0\0\0\x55" + socket.inet_aton("10.9.0.5")
        request += bytes(6) + socket.inet_aton("10.9.0.1")
        wire.send(b"\xff" * 6 + b"\x02\0\0\0\0\x55" + struct.pack("!HHH", 0x8100, 9, 0x806) + request)
        answers: list[bytes] = []

        def answered() -> bool:
            answers.extend(frame for frame in wire.receive() if frame[:6] == b"\x02\0\0\0\0\x55")
            return bool(answers)
        box.until(answered)
    assert answers[0][12:18] == struct.pack("!HHH", 0x8100, 9, 0x806)
    assert answers[0][32:36] == socket.inet_aton("10.9.0.1"), "sender of the ARP answer"


def test_reload_keeps_connections_and_restart_finds_them(box: Box) -> None:
    """A masqueraded stream goes on over a reload that adds a port, and over a restart with kept state and TAPs."""
    rules = """table ip t { chain po { type nat hook postrouting priority 100; oifname "wan" masquerade; }
        chain f { type filter hook forward priority 0; policy drop; ct state established accept; iifname "lan" accept; }
    }"""
    lan, wan = {**LAN, "netns": box.lan, "persist": True}, {**WAN, "netns": box.wan, "persist": True}
    box.start(lan, wan, ruleset=rules)
    box.host(box.lan, "192.168.1.10", "192.168.1.1")
    box.host(box.wan, "203.0.113.10", "203.0.113.1")
    server = netns.within(box.wan, lambda: socket.create_server(("0.0.0.0", 7001)))
    client = netns.within(box.lan, lambda: socket.create_connection(("203.0.113.10", 7001), 10))
    peer, address = server.accept()
    with server, client, peer:
        assert address[0] == "203.0.113.1"
        for sock in (client, peer):
            sock.settimeout(20)

        def talk(word: bytes) -> None:
            client.sendall(word)
            assert peer.recv(100) == word
            peer.sendall(word[::-1])
            assert client.recv(100) == word[::-1]
        talk(b"before")
        edge = {"name": "more", "type": "tap", "netns": box.rt, "device": "tap7", "addresses": ["10.7.0.1/24"]}
        box.configure(lan, wan, edge, ruleset=rules)
        box.ask("reload")
        assert box.port("more")["up"]
        talk(b"after the reload")
        [entry] = box.ask("conntrack", "list", "-p", "tcp", "--dport", "7001")["entries"]
        assert entry["state"] == "ESTABLISHED" and "SRC_NAT" in entry["status"]
        box.end()
        box.start()
        talk(b"after the restart")
        assert "connections restored" in box.stderr.read_text()


def test_descriptors_are_kept_over_a_restart(box: Box) -> None:
    """What systemd's descriptor store does: the TAP is the same device afterwards, without `persist`."""
    path = box.path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        manager.settimeout(10)
        box.start({**LAN, "netns": box.lan}, notify=str(path))
        told, kept = "", {}
        while "READY=1" not in told:
            message, fds, _, _ = socket.recv_fds(manager, 4096, 4)
            told = message.decode()
            for fd in fds:
                kept[told.split("FDNAME=")[1].split("\n")[0]] = fd
    [name] = kept
    box.host(box.lan, "192.168.1.10", "192.168.1.1")
    before = netns.run(["ip", "-o", "link", "show", "eth0"], ns=box.lan).stdout
    box.end(signal.SIGKILL)
    box.start(fds=kept)
    assert netns.run(["ip", "-o", "link", "show", "eth0"], ns=box.lan).stdout == before
    assert ping(box.lan, "192.168.1.1")
    os.close(kept[name])


def test_routes_of_a_kernel_table_are_mirrored(box: Box) -> None:
    box.configure({**LAN, "netns": box.lan}, {**WAN, "netns": box.wan})
    netns.ip(box.rt, "link add r0 type veth peer name r1", "link set r0 up", "link set r1 up", "addr add 203.0.113.99/24 dev r0",
             "route add 198.51.100.0/24 via 203.0.113.10")
    with (box.path / "userfw.toml").open("a") as config:
        config.write(f'[mirror]\nnetns = "{box.rt}"\ndevices = {{ r0 = "wan" }}\n')
    box.start()
    box.host(box.lan, "192.168.1.10", "192.168.1.1")
    box.host(box.wan, "203.0.113.10", "203.0.113.1")
    netns.ip(box.wan, "addr add 198.51.100.5/32 dev lo", "addr add 192.0.2.5/32 dev lo")
    assert ping(box.lan, "198.51.100.5"), "there at the start"
    assert not ping(box.lan, "192.0.2.5")
    netns.ip(box.rt, "route add 192.0.2.0/24 via 203.0.113.10")
    box.until(lambda: ping(box.lan, "192.0.2.5"))
    netns.ip(box.rt, "route del 192.0.2.0/24 via 203.0.113.10")
    box.until(lambda: not ping(box.lan, "192.0.2.5"))


def test_a_start_that_fails_says_why(box: Box) -> None:
    box.configure({**LAN, "netns": "no-such-namespace"})
    done = subprocess.run([sys.executable, "-m", "userfw", "run", "-c", str(box.path / "userfw.toml")], env=environment(),
                          cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and "port lan (eth0 in namespace no-such-namespace)" in done.stderr
    assert "Traceback" not in done.stderr
