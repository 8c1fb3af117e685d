"""Two workers are as good as one: real traffic through multi-queue TAPs and packet sockets in a fanout group.

Only userfw has workers, so these tests do not compare with the kernel.
"""

import contextlib
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lab import netns
from lab.userfw import ROOT, environment
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_RR
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment
from scapy.layers.l2 import ARP, Ether
from test_ports import LAN, WAN, Box, ping, transfer

from userfw.conntrack.steer import Steering
from userfw.ports import bpf, steering

RULES = """table inet t {
	ct helper ftp { type "ftp" protocol tcp; }
	chain helpers {
		type filter hook prerouting priority filter;
		tcp dport 21 ct helper set "ftp"
	}
	chain nat-in {
		type nat hook prerouting priority dstnat;
		iifname "wan" tcp dport 80 dnat ip to 192.168.1.10:8080
		iifname "wan" udp dport 81 dnat ip to 192.168.1.10:8081
	}
	chain nat-out {
		type nat hook postrouting priority srcnat;
		oifname "wan" masquerade
	}
	chain f {
		type filter hook forward priority filter; policy drop;
		counter
		ct state established,related accept
		iifname "lan" udp dport 7001 counter accept
		iifname "lan" accept
		ct status dnat accept
	}
}
"""
CLIENTS = [f"192.168.1.{host}" for host in (10, 11, 12, 13)]
SERVER = "203.0.113.10"
GATEWAY = "203.0.113.1"


class Pair(Box):
    """A gateway with two workers between a client's and a server's namespace."""

    def up(self, kind: str = "tap", rules: str = RULES, prefix6: bool = False, **daemon: Any) -> None:
        """Start it; the client's side has four addresses."""
        wan: dict[str, Any] = {**WAN, "netns": self.wan}
        lan: dict[str, Any] = {**LAN, "netns": self.lan}
        if prefix6:
            wan["addresses"], lan["addresses"] = [*wan["addresses"], "fd00:3::1/64"], [*lan["addresses"], "fd00:1::1/64"]
        if kind == "packet":
            self.veth()
            netns.ip(self.rt, f"link add lan0 type veth peer name eth0 netns {self.lan}", "link set lan0 up")
            common = {"type": "packet", "netns": self.rt}
            wan, lan = {**WAN, **common, "device": "edge0"}, {**LAN, **common, "device": "lan0"}
        self.start(lan, wan, ruleset=rules, workers=2, **daemon)
        self.host(self.lan, CLIENTS[0], "192.168.1.1")
        netns.ip(self.lan, *(f"addr add {address}/24 dev eth0" for address in CLIENTS[1:]))
        self.host(self.wan, SERVER, GATEWAY)
        assert ping(self.lan, SERVER)

    def nft(self, *words: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run nft."""
        env = {**environment(), "USERFW_SOCKET": str(self.path / "c.sock")}
        command = [sys.executable, "-m", "userfw", "nft", *words]
        return subprocess.run(command, env=env, input=text, capture_output=True, text=True, cwd=ROOT)

    def conns(self) -> list[dict[str, Any]]:
        """The connections of all workers."""
        found: list[dict[str, Any]] = self.ask("conntrack", "list")["entries"]
        return found

    def workers(self) -> list[dict[str, Any]]:
        """What `userfw status` tells of each."""
        found: list[dict[str, Any]] = self.ask("status")["workers"]
        return found

    def drops(self) -> set[str]:
        """Reasons why packets were dropped, but for those that hosts' own chatter meets."""
        return {drop["reason"] for drop in self.ask("drops")["drops"]} - {"NO_ROUTE", "OTHERHOST"}


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    box = Pair(tmp_path)
    try:
        yield box
    finally:
        box.close()


@contextlib.contextmanager
def echo(ns: str, *ports: int) -> Iterator[None]:
    """TCP and UDP echo servers."""
    sockets: list[socket.socket] = []

    def answer(sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                data, peer = sock.recvfrom(65535)
                if peer is None:
                    return  # shut down
                sock.sendto(f"{peer[0]} {peer[1]} ".encode() + data, peer)

    def talk(conn: socket.socket, peer: tuple[str, int]) -> None:
        with contextlib.suppress(OSError), conn:
            while data := conn.recv(65535):
                conn.sendall(f"{peer[0]} {peer[1]} ".encode() + data)

    def accept(sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                conn, peer = sock.accept()
                threading.Thread(target=talk, args=(conn, peer), daemon=True).start()

    for port in ports:
        udp = netns.within(ns, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        udp.bind(("0.0.0.0", port))
        tcp = netns.within(ns, lambda port=port: socket.create_server(("0.0.0.0", port), backlog=256))  # type: ignore[misc]
        sockets += [udp, tcp]
        threading.Thread(target=answer, args=(udp,), daemon=True).start()
        threading.Thread(target=accept, args=(tcp,), daemon=True).start()
    try:
        yield
    finally:
        for sock in sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()


def flow(ns: str, kind: int, source: tuple[str, int], to: tuple[str, int]) -> socket.socket:
    """A client's socket."""
    sock = netns.within(ns, lambda: socket.socket(socket.AF_INET, kind))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(source)
    sock.settimeout(5)
    sock.connect(to)
    return sock


def said(sock: socket.socket, data: bytes = b"hello") -> tuple[str, int]:
    """Send, hear the echo, and return under which address and port the server knows us."""
    for _ in range(3):  # UDP before the neighbour is known
        sock.send(data)
        with contextlib.suppress(TimeoutError):
            heard = b""
            while not heard.endswith(data):
                heard += sock.recv(65535)
            address, port, _ = heard.split(b" ", 2)
            return address.decode(), int(port)
    raise AssertionError("no echo")


@pytest.mark.parametrize("kind", ["tap", "packet"])
def test_many_flows_of_many_clients_each_with_a_mapping_of_its_own(pair: Pair, kind: str) -> None:
    """Four clients use the same source ports toward the same server, so mappings clash; none is lost, none is given twice."""
    pair.up(kind)
    with echo(pair.wan, 7000, 7001), contextlib.ExitStack() as stack:
        flows = []
        for client in CLIENTS:
            for port in range(20000, 20024):
                for proto, to in ((socket.SOCK_STREAM, 7000), (socket.SOCK_DGRAM, 7001)):
                    sock = stack.enter_context(flow(pair.lan, proto, (client, port), (SERVER, to)))
                    flows.append((proto, to, client, port, sock))
        seen = {}
        for proto, to, client, port, sock in flows:
            known = said(sock)
            assert known[0] == GATEWAY
            assert (proto, to, known[1]) not in seen, f"{client}:{port} is known as {seen[proto, to, known[1]]} too"
            seen[proto, to, known[1]] = (client, port)
        for proto, to, client, port, sock in flows:  # again, all of them, from the other end too
            assert seen[proto, to, said(sock)[1]] == (client, port)
        kept = sum(port == original for (_, _, port), (_, original) in seen.items())
        assert kept >= 2 * 24, "the first client keeps its ports"
    conns = [c for c in pair.conns() if c["protocol"] in ("tcp", "udp") and c["original"]["dport"] in (7000, 7001)]
    assert len(conns) == len(flows) == 4 * 24 * 2
    replies = {(c["protocol"], *(c["reply"][k] for k in ("src", "dst", "sport", "dport"))) for c in conns}
    assert len(replies) == len(conns)
    assert len({c["id"] for c in conns}) == len(conns)
    workers = pair.workers()
    assert min(w["connections"] for w in workers) > len(conns) / 4, "both have their part"
    assert sum(w["handed_over"] + w["lost"] for w in workers) == 0, "the kernel steers as the workers do"
    listing = pair.nft("list", "ruleset").stdout
    assert f"udp dport 7001 counter packets {len(flows) // 2} bytes" in listing, "the counters of both workers"
    assert pair.nft("list", "ruleset").stdout.count("packets 0 bytes 0") == 0, "and they stay"
    assert pair.drops() == set()


LIMITED = """table inet t {
	quota q { until 2800 bytes; }
	chain f {
		type filter hook forward priority filter; policy accept;
		iifname "lan" udp dport 7002 jump limited
		iifname "lan" udp dport 7003 jump by-quota
	}
	chain limited {
		limit rate 1/hour burst 25 packets counter accept
		counter drop
	}
	chain by-quota {
		quota name "q" counter accept
		counter drop
	}
}
"""


def test_no_more_passes_a_limit_than_one_process_would_let(pair: Pair) -> None:
    """Datagrams of many flows, so of both workers, against one bucket and one quota of 2,800 bytes, 28 of 100."""
    pair.up(rules=LIMITED)
    flows = 200
    with contextlib.ExitStack() as stack:
        for to in (7002, 7003):
            for port in range(21000, 21000 + flows):
                sock = stack.enter_context(flow(pair.lan, socket.SOCK_DGRAM, (CLIENTS[0], port), (SERVER, to)))
                sock.send(bytes(72))
                if port % 20 == 0:
                    time.sleep(0.002)  # no queue shall overflow

        def counted(chain: str) -> list[int]:
            listed = pair.nft("list", "chain", "inet", "t", chain).stdout
            return [int(found) for found in re.findall(r"counter packets (\d+)", listed)]

        deadline = time.monotonic() + 20
        while sum(counted("limited") + counted("by-quota")) < 2 * flows:
            assert time.monotonic() < deadline, (counted("limited"), counted("by-quota"))
            time.sleep(0.05)
        assert counted("limited") == [25, flows - 25]
        assert counted("by-quota") == [28, flows - 28]
    assert min(worker["packets"] for worker in pair.workers()) > flows / 2, "both had their part"
    assert "2800 bytes used 2800 bytes" in pair.nft("list", "quotas").stdout


def test_ipv6_neighbours_are_everybodys(pair: Pair) -> None:
    """Each worker asks for neighbours itself, though every answer comes to the first one; with conntrack and a hook at output."""
    rules = RULES + "table ip6 o { chain o { type filter hook output priority 0; ct state new accept; }; }\n"
    pair.up(rules=rules, prefix6=True)
    for ns, six in ((pair.lan, "fd00:1"), (pair.wan, "fd00:3")):
        netns.ip(ns, f"addr add {six}::10/64 dev eth0 nodad", f"route add default via {six}::1")
    pair.until(lambda: netns.run(["ping", "-6", "-c", "1", "-W", "1", "fd00:3::10"], ns=pair.lan, check=False).returncode == 0)
    server = netns.within(pair.wan, lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
    with server:
        server.bind(("::", 7001))
        server.settimeout(5)
        for port in range(28000, 28012):
            with netns.within(pair.lan, lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)) as sock:
                sock.bind(("::", port))
                sock.settimeout(5)
                sock.sendto(b"x", ("fd00:3::10", 7001))
                _, peer = server.recvfrom(10)
                assert peer[:2] == ("fd00:3::1", port)
                server.sendto(b"y", peer)
                assert sock.recv(10) == b"y"
    assert sum(worker["handed_over"] for worker in pair.workers()) == 0
    assert min(worker["connections"] for worker in pair.workers()) > 0


def test_forwarded_ports_are_answered_by_their_owner(pair: Pair) -> None:
    """A changed destination port may change the home, so the source port is changed too where it does."""
    pair.up()
    with echo(pair.lan, 8080, 8081), contextlib.ExitStack() as stack:
        for port in range(30000, 30024):
            for proto, to in ((socket.SOCK_STREAM, 80), (socket.SOCK_DGRAM, 81)):
                sock = stack.enter_context(flow(pair.wan, proto, (SERVER, port), (GATEWAY, to)))
                assert said(sock)[0] == SERVER
    workers = pair.workers()
    assert sum(w["handed_over"] + w["claims"] for w in workers) == 0 and min(w["connections"] for w in workers) >= 8


def test_icmp_errors_reach_the_sender_through_their_owner(pair: Pair) -> None:
    pair.up()
    netns.sysctl(pair.wan, ipv4__icmp_ratelimit=0)
    refused = 0
    for port in range(21000, 21016):
        with flow(pair.lan, socket.SOCK_DGRAM, (CLIENTS[0], port), (SERVER, 7999)) as sock:
            sock.send(b"anybody?")
            with pytest.raises(ConnectionRefusedError):
                sock.recv(100)
            refused += 1
    assert refused == 16
    handed = [w["handed_over"] for w in pair.workers()]
    assert handed[0] >= 4 and handed[1] == 0, "ICMP comes to the first worker, who hands it to the quoted packet's owner"


def test_fragments_are_put_together_and_handed_to_their_owner(pair: Pair) -> None:
    pair.up()
    with echo(pair.wan, 7001):
        for port in range(22000, 22012):
            with flow(pair.lan, socket.SOCK_DGRAM, (CLIENTS[0], port), (SERVER, 7001)) as sock:
                assert said(sock, os.urandom(5000).replace(b" ", b"_"))[0] == GATEWAY
    status = pair.ask("status")
    assert status["fragments"]["reassembled"] >= 24
    assert status["workers"][0]["handed_over"] >= 6 and status["workers"][1]["taken_over"] >= 6
    assert {c["original"]["packets"] for c in pair.conns() if c["original"].get("dport") == 7001} == {1}


def test_ftp_data_connections_find_their_master(pair: Pair) -> None:
    """Active FTP through masquerade: the server calls back to the address and port that the gateway told it."""
    pair.up()
    server = netns.within(pair.wan, lambda: socket.create_server(("0.0.0.0", 21)))
    server.settimeout(10)
    with server:
        for number in range(8):
            control = flow(pair.lan, socket.SOCK_STREAM, (CLIENTS[0], 23000 + number), (SERVER, 21))
            listener = netns.within(pair.lan, lambda n=number: socket.create_server((CLIENTS[0], 24000 + n)))  # type: ignore[misc]
            there, _ = server.accept()
            with control, listener, there:
                control.send(b"USER anonymous\r\n")  # lines count from the second on, as Linux has it
                there.settimeout(5)
                assert there.recv(200) == b"USER anonymous\r\n"
                control.send(f"PORT 192,168,1,10,{(24000 + number) >> 8},{(24000 + number) & 255}\r\n".encode())
                told = there.recv(200).decode().split()[1].split(",")
                assert told[:4] == ["203", "0", "113", "1"], "the gateway's address"
                data = flow(pair.wan, socket.SOCK_STREAM, (SERVER, 20), (GATEWAY, int(told[4]) * 256 + int(told[5])))
                listener.settimeout(5)
                accepted, peer = listener.accept()
                with data, accepted:
                    assert peer[0] == SERVER
                    blob = os.urandom(200_000)
                    thread = threading.Thread(target=data.sendall, args=(blob,))
                    thread.start()
                    heard = b""
                    accepted.settimeout(5)
                    while len(heard) < len(blob):
                        heard += accepted.recv(65536)
                    thread.join()
                    assert heard == blob
                data.close()
    workers = pair.workers()
    assert sum(w["handed_over"] for w in workers) > 0, "some data connections live with a master of another home"
    assert sum(1 for c in pair.conns() if c["expected"]) == 8
    assert pair.drops() <= {"RULE"}


def test_rules_change_in_all_workers_or_in_none_while_traffic_runs(pair: Pair) -> None:
    pair.up()
    results: list[bool] = []
    enough = threading.Event()

    def traffic() -> None:
        while not enough.is_set():
            results.append(transfer(pair.lan, pair.wan, SERVER, 4 << 20))
    thread = threading.Thread(target=traffic)
    thread.start()
    changes = 0
    while thread.is_alive() and (changes < 4 or len(results) < 4):
        done = pair.nft("-f", "-", text=f"flush ruleset\n{RULES}")
        assert done.returncode == 0, done.stderr
        changes += 1
    enough.set()
    thread.join()
    assert all(results) and len(results) >= 4 and changes >= 4
    before = pair.ask("status")["generation"]
    for wrong, reason in (
        ("add rule inet t f queue to 3", "queue needs workers = 1"),
        ("add rule inet t nowhere accept", "No such file or directory"),
        ('add ct helper inet t p { type "pptp" protocol tcp; }', "helper pptp needs workers = 1"),
        ("add rule inet t f accept\nadd rule inet t f jump nowhere", "No such file"),
    ):
        done = pair.nft("-f", "-", text=wrong)
        assert done.returncode == 1 and reason in done.stderr, done.stderr
    assert pair.ask("status")["generation"] == before
    assert pair.nft("-a", "list", "ruleset").stdout.count("queue") == 0
    assert pair.nft("add", "rule", "inet", "t", "f", "counter", "drop").returncode == 0
    assert ping(pair.lan, SERVER)


@pytest.mark.parametrize("victim", [0, 1, "front"])
def test_no_gateway_goes_on_without_a_worker(pair: Pair, victim: int | str) -> None:
    pair.up()
    status = pair.ask("status")
    pids = [worker["pid"] for worker in status["workers"]]
    os.kill(status["pid"] if victim == "front" else pids[int(victim)], signal.SIGKILL)
    assert pair.process is not None
    assert pair.process.wait(10) not in (0, None)
    deadline = time.monotonic() + 5
    while any(os.path.exists(f"/proc/{pid}") and "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2] for pid in pids):
        assert time.monotonic() < deadline, "a worker is left"
        time.sleep(0.02)
    while not netns.run(["ip", "link", "show", "eth0"], ns=pair.lan, check=False).returncode:  # its last thread closes them
        assert time.monotonic() < deadline, "the TAPs go with the daemon"
        time.sleep(0.02)
    if victim != "front":
        assert f"worker {victim} (pid {pids[int(victim)]}) ended" in pair.stderr.read_text()


def test_a_stop_keeps_connections_and_another_number_of_workers_finds_them(pair: Pair) -> None:
    pair.up(restore_ruleset=True)
    with echo(pair.wan, 7001):
        socks = [flow(pair.lan, socket.SOCK_DGRAM, (CLIENTS[0], port), (SERVER, 7001)) for port in range(25000, 25010)]
        for sock in socks:
            said(sock)
            sock.close()
    pair.end()
    assert pair.process is not None and pair.process.returncode == 0, pair.stderr.read_text()
    text = (pair.path / "state" / "ruleset.nft").read_text()
    assert "udp dport 7001 counter packets 10 bytes" in text, "what both counted is saved"
    for workers in (2, 3, 1):
        path = pair.path / "userfw.toml"
        path.write_text(re.sub(r'"workers" = \d', f'"workers" = {workers}', path.read_text()))
        pair.start()
        ports = sorted(c["original"]["sport"] for c in pair.conns() if c["original"].get("dport") == 7001)
        assert ports == list(range(25000, 25010)), workers
        pair.end()
    assert sorted(path.name for path in (pair.path / "state").glob("connections*")) == ["connections.msgpack"]


def test_a_reload_reaches_every_worker_or_none(pair: Pair) -> None:
    pair.up()
    path = pair.path / "userfw.toml"
    text = path.read_text()
    path.write_text(text.replace('["192.168.1.1/24"]', '["192.168.1.1/24", "192.168.1.77/24"]'))
    pair.ask("reload")
    assert ping(pair.lan, "192.168.1.77")
    path.write_text(text.replace('"workers" = 2', '"workers" = 3'))
    env = {**environment(), "USERFW_SOCKET": str(pair.path / "c.sock")}
    done = subprocess.run([sys.executable, "-m", "userfw", "reload"], env=env, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1 and "a change of workers needs a restart" in done.stderr
    assert ping(pair.lan, "192.168.1.77")


@pytest.mark.parametrize("kind", ["tap", "packet"])
def test_an_interface_that_is_made_anew_is_shared_again(pair: Pair, kind: str) -> None:
    pair.up(kind)
    netns.ip(pair.rt, "link del edge0") if kind == "packet" else netns.ip(pair.wan, "link del eth0")
    pair.until(lambda: not pair.port("wan")["up"] or kind == "tap")
    if kind == "packet":
        pair.veth()
    pair.until(lambda: netns.run(["ip", "link", "show", "eth0"], ns=pair.wan, check=False).returncode == 0)
    pair.host(pair.wan, SERVER, GATEWAY)
    pair.until(lambda: ping(pair.lan, SERVER))
    pair.until(lambda: pair.stderr.read_text().count("port wan: ") >= 2 and "userfw[1]: port wan:" in pair.stderr.read_text())
    pair.host(pair.wan, SERVER, GATEWAY)
    before = sum(worker["handed_over"] for worker in pair.workers())
    with echo(pair.wan, 7001):
        for port in range(29000, 29012):
            with flow(pair.lan, socket.SOCK_DGRAM, (CLIENTS[0], port), (SERVER, 7001)) as sock:
                said(sock)
    assert sum(worker["handed_over"] for worker in pair.workers()) == before, "queues are numbered like workers again"


@pytest.mark.parametrize("workers", [1, 2, 3, 16])
def test_the_kernel_steers_as_the_workers_do(workers: int) -> None:
    """The program in the kernel's own test run, against what the workers compute."""
    program = bpf.load(steering.PROG_TYPE_SOCKET_FILTER, steering.build(workers), "test")
    rng = random.Random(workers)
    home = Steering(0, workers).home
    ether = Ether(dst="02:00:00:00:00:01", src="02:00:00:00:00:02")
    four, six = IP(src="192.0.2.1", dst="198.51.100.9"), IPv6(src="2001:db8::1", dst="2001:db8::2")
    try:
        for _ in range(60):
            sport, dport = rng.randrange(65536), rng.randrange(65536)
            for network in (four, six, IP(src="192.0.2.1", dst="198.51.100.9", options=[IPOption_RR(), IPOption_RR()])):
                for proto, transport in ((6, TCP(sport=sport, dport=dport)), (17, UDP(sport=sport, dport=dport))):
                    verdict, _, _ = bpf.test_run(program, bytes(ether / network / transport))
                    assert verdict == home(proto, sport, dport), (network, transport)
            for other in (four / ICMP(), six / IPv6ExtHdrFragment(m=1) / UDP(sport=sport), ARP(),
                          IP(flags="MF") / UDP(sport=sport, dport=dport), IP(frag=3) / UDP(sport=sport, dport=dport)):
                assert bpf.test_run(program, bytes(ether / other))[0] == 0
    finally:
        os.close(program)


def test_streams_and_metrics_are_those_of_all_workers(pair: Pair) -> None:
    pair.up()
    env = {**environment(), "USERFW_SOCKET": str(pair.path / "c.sock")}
    command = [sys.executable, "-m", "userfw", "conntrack", "events", "--json"]
    heard: set[int] = set()
    with echo(pair.wan, 7001), subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True, cwd=ROOT) as events:
        assert events.stdout is not None
        lines = iter(events.stdout.readline, "")
        threading.Thread(target=lambda: heard.update(int(n) for line in lines for n in re.findall(r"\b26\d{3}\b", line)),
                         daemon=True).start()
        port = 26000
        while len(heard) < 12:  # the first ones may be made before the stream is there
            assert port < 26500, f"{len(heard)} connections heard of"
            with flow(pair.lan, socket.SOCK_DGRAM, (CLIENTS[0], port), (SERVER, 7001)) as sock:
                said(sock)
            port += 1
        events.terminate()
    connections = pair.ask("status")["connections"]
    text = pair.ask("metrics")["text"]
    assert f"\nuserfw_connections {connections}\n" in text and text.count("# TYPE userfw_connections gauge") == 1
    assert min(worker["connections"] for worker in pair.workers()) > 0
