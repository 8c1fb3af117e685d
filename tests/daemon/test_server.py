"""A whole daemon without root: memory and capture ports, real control socket, reload, stop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import json
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import ARP, Ether
from scapy.utils import wrpcap

from userfw.client import Event, Firewall, Table
from userfw.daemon import sysctl
from userfw.daemon.config import parse
from userfw.daemon.control import CommandError
from userfw.daemon.poller import Poller
from userfw.daemon.server import Server, StartError
from userfw.daemon.systemd import Notifier, passed_descriptors
from userfw.ports.capture import read_untrusted

BASE = """
[daemon]
control = "c.sock"
state_dir = "state"
[[port]]
name = "lan"
type = "memory"
mac = "02:00:00:00:00:01"
addresses = ["192.168.1.1/24"]
[[port]]
name = "wan"
type = "memory"
mac = "02:00:00:00:00:02"
addresses = ["203.0.113.1/24"]
[[route]]
to = "default"
via = "203.0.113.254"
"""

Start = Callable[..., Any]


@pytest_asyncio.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    running: list[tuple[Server, asyncio.Task[None]]] = []

    async def begin(text: str = BASE) -> Server:
        path = tmp_path / "userfw.toml"
        path.write_text(text)
        server = Server(parse(text, str(path), sysctl.NAMES))
        ready = asyncio.Event()
        task = asyncio.ensure_future(server.run(ready.set))
        waiting = asyncio.ensure_future(ready.wait())
        await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if task.done():
            task.result()
        running.append((server, task))
        return server

    yield begin
    for server, task in running:
        server.stopping.set()
        await task
    gc.enable()
    gc.unfreeze()


def write(server: Server, text: str) -> None:
    Path(server.config.path).write_text(text)


async def ask(server: Server, command: str, **args: Any) -> Any:
    reader, writer = await asyncio.open_unix_connection(server.control.path, limit=1 << 24)
    await reader.readline()
    writer.write(json.dumps({"id": 1, "command": command, "args": args}).encode() + b"\n")
    answer = json.loads(await reader.readline())
    writer.close()
    if "error" in answer:
        raise CommandError(answer["error"]["message"], answer["error"]["code"])
    return answer["result"]


async def test_status_ports_drops(start: Start) -> None:
    server = await start()
    status = await ask(server, "status")
    assert status["ports"] == 2 and status["pid"] == os.getpid() and isinstance(status["compiled"], bool)
    assert [p["name"] for p in await ask(server, "ports")] == ["lan", "wan"]
    assert (await ask(server, "drops"))["drops"] == []
    assert len((await ask(server, "drops", all=True))["drops"]) > 20
    assert set(await ask(server, "help")) >= {"status", "ports", "drops", "reload", "stop", "conntrack.list"}


async def test_wrong_commands_are_told(start: Start) -> None:
    server = await start()
    with pytest.raises(CommandError, match="did you mean 'status'"):
        await ask(server, "statsu")
    with pytest.raises(CommandError, match="drops: Object contains unknown field `al`"):
        await ask(server, "drops", al=True)
    with pytest.raises(CommandError, match="no TCP or SCTP state"):
        await ask(server, "conntrack.list", filter={"state": "foo"})


async def test_reload_changes_what_changed(start: Start) -> None:
    server = await start()
    lan = server.ports["lan"].device
    new = BASE.replace("192.168.1.1/24", "192.168.7.1/24").replace("[[route]]", "[[route]]\nmetric = 5")
    write(server, new + "[sysctl]\nnf_conntrack_tcp_timeout_close = 3\n[limits]\nconntrack_max = 77\n")
    await ask(server, "reload")
    assert server.ports["lan"].device is lan, "the port stays open"
    assert [hex(a.lo) for a in lan.addresses if a.family == 2] == ["0xc0a80701"]
    assert server.get_sysctl("nf_conntrack_tcp_timeout_close") == 3
    assert server.get_sysctl("nf_conntrack_max") == 77
    write(server, new)
    await ask(server, "reload")
    assert server.get_sysctl("nf_conntrack_tcp_timeout_close") == 10, "what is not set any more has its default again"


async def test_reload_opens_and_closes_ports(start: Start) -> None:
    server = await start()
    more = BASE + '[[port]]\nname = "dmz"\ntype = "memory"\naddresses = ["192.168.2.1/24"]\n'
    more += '[[port.vlan]]\nname = "guests"\nid = 9\naddresses = ["192.168.9.1/24"]\n'
    more += '[[route]]\nto = "10.0.0.0/8"\nvia = "192.168.9.7"\n'
    write(server, more)
    await ask(server, "reload")
    assert set(server.ports) == {"lan", "wan", "dmz"} and "guests" in server.gateway.names
    routes = len(list(server.gateway.routes.all()))
    write(server, BASE)
    await ask(server, "reload")
    assert set(server.ports) == {"lan", "wan"} and "guests" not in server.gateway.names
    assert len(list(server.gateway.routes.all())) < routes
    write(server, more)
    await ask(server, "reload")
    assert len(list(server.gateway.routes.all())) == routes


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("[[port]]\nname = 'x'", "key 'type' is missing"),
        ("[[route]]\nto = '10.0.0.0/8'\nvia = '9.9.9.9'", "not on a connected network"),
        ("[[port]]\nname = 'x'\ntype = 'pcap'\nread = 'none.pcap'", "No such file"),
        ("[[port]]\nname = 'x'\ntype = 'tap'\ndevice = 'x'\nnetns = 'no-such-namespace'", "is there a namespace"),
        ("[limits]\nconntrack_max = 5\n[[route]]\nto = '10.0.0.0/8'\nvia = '9.9.9.9'", "not on a connected network"),
    ],
)
async def test_a_refused_reload_changes_nothing(start: Start, change: str, told: str) -> None:
    server = await start()
    routes = [(r.hi, r.lo, r.prefixlen, r.metric) for r in server.gateway.routes.all()]
    before = server.config
    write(server, BASE.replace("192.168.1.1/24", "192.168.7.1/24").replace('name = "wan"', 'name = "uplink"') + change)
    with pytest.raises(CommandError, match=told):
        await ask(server, "reload")
    assert server.config is before and set(server.ports) == {"lan", "wan"}
    assert sorted(routes) == sorted((r.hi, r.lo, r.prefixlen, r.metric) for r in server.gateway.routes.all())
    assert server.get_sysctl("nf_conntrack_max") == 262144
    write(server, BASE)
    await ask(server, "reload")


async def test_what_needs_a_restart_is_told(start: Start) -> None:
    server = await start()
    write(server, BASE.replace('type = "memory"\nmac = "02:00:00:00:00:01"', 'type = "pcap"\nwrite = "x"', 1))
    with pytest.raises(CommandError, match="port lan: a change of type, write needs a restart"):
        await ask(server, "reload")


async def test_what_the_daemon_itself_may_change(start: Start) -> None:
    server = await start()
    write(server, BASE.replace("[daemon]", "[daemon]\nbatch = 7\nbusy_poll_us = 5"))
    await ask(server, "reload")
    assert (server.poller.batch, server.poller.busy_ns) == (7, 5000)
    write(server, BASE.replace("c.sock", "other.sock"))
    with pytest.raises(CommandError, match="a change of control, queue_socket needs a restart"):
        await ask(server, "reload")
    write(server, BASE.replace("[daemon]", "[daemon]\nbatch = 9") + "[[route]]\nto = '10.0.0.0/8'\nvia = '9.9.9.9'")
    with pytest.raises(CommandError):
        await ask(server, "reload")
    assert server.poller.batch == 7


async def test_hangup_reloads(start: Start) -> None:
    server = await start()
    write(server, BASE + "[limits]\nconntrack_max = 99\n")
    os.kill(os.getpid(), signal.SIGHUP)
    while server.config.limits.conntrack_max != 99:
        await asyncio.sleep(0)


async def test_a_capture_is_forwarded(start: Start, tmp_path: Path) -> None:
    """The host answers ARP in the capture, so frames leave; written frames are what a wire would see."""
    wan = Ether(dst="02:00:00:00:00:02", src="02:00:00:00:00:99") / ARP(
        op=2, psrc="203.0.113.254", hwsrc="02:00:00:00:00:99", pdst="203.0.113.1", hwdst="02:00:00:00:00:02"
    )
    lan = Ether(dst="02:00:00:00:00:01", src="02:00:00:00:00:55") / IP(src="192.168.1.5", dst="8.8.8.8", ttl=9) / UDP(dport=53)
    wrpcap(str(tmp_path / "lan.pcap"), [lan] * 3)
    wrpcap(str(tmp_path / "wan.pcap"), [wan])
    text = BASE.replace('name = "lan"\ntype = "memory"', f'name = "lan"\ntype = "pcap"\nread = "{tmp_path / "lan.pcap"}"')
    text = text.replace(
        'name = "wan"\ntype = "memory"',
        f'name = "wan"\ntype = "pcap"\nread = "{tmp_path / "wan.pcap"}"\nwrite = "{tmp_path / "out.pcap"}"',
    )
    server = await start(text)
    while server.ports["wan"].device.tx_packets < 4:
        await asyncio.sleep(0)
    with (tmp_path / "out.pcap").open("rb") as stream:
        frames = [Ether(r.frame) for r in read_untrusted(stream)]
    sent = [f for f in frames if UDP in f]
    assert len(sent) == 3 and all(f.dst == "02:00:00:00:00:99" and f[IP].ttl == 8 for f in sent)


async def test_stop_command_and_lock(start: Start, tmp_path: Path) -> None:
    server = await start()
    with pytest.raises(StartError, match=f"pid {os.getpid()}"):
        await start(BASE.replace("c.sock", "d.sock"))
    assert (await ask(server, "stop")) == {"stopping": True}
    await server.stopping.wait()


async def test_a_start_that_fails_leaves_nothing(start: Start, tmp_path: Path) -> None:
    with pytest.raises(StartError, match="not on a connected network"):
        await start(BASE.replace("203.0.113.254", "9.9.9.9"))
    assert not (tmp_path / "c.sock").exists()
    await start()


RULES = """
table inet t {
  set seen { type ipv4_addr; flags timeout; timeout 1h; elements = { 192.0.2.1 } }
  chain f { type filter hook forward priority 0; policy drop; ct state established accept; }
}
"""


async def test_rules_are_loaded_listed_and_watched(start: Start, tmp_path: Path) -> None:
    (tmp_path / "gateway.nft").write_text(RULES)
    server = await start(BASE.replace('state_dir', 'ruleset = "gateway.nft"\nstate_dir'))
    assert "policy drop" in (await ask(server, "nft", text="list ruleset"))["output"]
    reader, writer = await asyncio.open_unix_connection(server.control.path)
    await reader.readline()
    writer.write(b'{"id":1,"command":"nft.monitor"}\n{"id":2,"command":"help"}\n')
    assert json.loads(await reader.readline())["id"] == 2, "the monitor is running"
    answer = await ask(server, "nft", text="add rule inet t f counter\nlist chain inet t f", options={"handles": True})
    assert answer["status"] == 0 and "counter packets 0 bytes 0" in answer["output"]
    assert "add rule inet t f counter" in json.loads(await reader.readline())["event"]["text"]
    writer.close()
    wrong = await ask(server, "nft", text="add rule inet t nochain accept")
    assert wrong["status"] == 1 and "No such file or directory" in wrong["errors"]
    with pytest.raises(CommandError, match="unknown option"):
        await ask(server, "nft", text="list ruleset", options={"colour": True})


async def test_a_program_follows_what_others_change(start: Start) -> None:
    server = await start()

    def program() -> list[Event]:
        with Firewall(socket=server.control.path) as firewall:
            events = firewall.events()
            firewall.run(RULES)
            firewall.add_rule("inet", "t", "f", 'counter comment "new"')
            firewall.delete_elements("inet", "t", "seen", "192.0.2.1")
            firewall.run("delete table inet t")
            return list(itertools.islice(events, 9))

    events = await asyncio.to_thread(program)
    assert [(event.action, event.kind) for event in events[:6]] == [
        ("add", "table"), ("add", "chain"), ("add", "set"), ("add", "element"), ("add", "rule"), ("add", "rule"),
    ]  # fmt: skip
    assert events[0].object == Table("inet", "t", events[0].object.handle)
    assert events[5].object.comment == "new"
    assert [(event.action, event.kind, [element.key for element in event.elements]) for event in events[6:7]] == [
        ("delete", "element", ["192.0.2.1"])
    ]
    assert all(event.action == "delete" and not event.lost for event in events[7:])


async def test_reload_takes_a_changed_ruleset_only(start: Start, tmp_path: Path) -> None:
    (tmp_path / "gateway.nft").write_text(RULES)
    server = await start(BASE.replace('state_dir', 'ruleset = "gateway.nft"\nstate_dir'))
    await ask(server, "nft", text="add table ip mine")
    await ask(server, "reload")
    assert "table ip mine" in (await ask(server, "nft", text="list ruleset"))["output"]
    (tmp_path / "gateway.nft").write_text(RULES.replace("policy drop", "policy dorp"))
    with pytest.raises(CommandError, match=r"gateway\.nft:4"):
        await ask(server, "reload")
    assert "policy drop" in (await ask(server, "nft", text="list ruleset"))["output"]
    (tmp_path / "gateway.nft").write_text(RULES.replace("policy drop", "policy accept"))
    await ask(server, "reload")
    listing = (await ask(server, "nft", text="list ruleset"))["output"]
    assert "policy accept" in listing and "mine" not in listing


async def test_tables_go_with_their_owner(start: Start) -> None:
    server = await start()
    reader, writer = await asyncio.open_unix_connection(server.control.path)
    await reader.readline()
    writer.write(b'{"id":1,"command":"nft","args":{"text":"table ip mine { flags owner; }"}}\n')
    assert json.loads(await reader.readline())["result"]["status"] == 0
    assert "mine" in (await ask(server, "nft", text="list ruleset"))["output"]
    writer.close()
    while "mine" in (await ask(server, "nft", text="list ruleset"))["output"]:
        await asyncio.sleep(0)


async def test_state_survives_a_restart(start: Start, tmp_path: Path) -> None:
    (tmp_path / "gateway.nft").write_text(RULES)
    text = BASE.replace('state_dir', 'ruleset = "gateway.nft"\nrestore_ruleset = true\nstate_dir')
    first = await start(text)
    await ask(first, "nft", text="add element inet t seen { 192.0.2.99 }")
    add_connection(first)
    first.stopping.set()
    while first.lock.fd >= 0:
        await asyncio.sleep(0)
    second = await start(text)
    assert "192.0.2.99" in (await ask(second, "nft", text="list ruleset"))["output"]
    [entry] = (await ask(second, "conntrack.list"))["entries"]
    assert (entry["original"]["src"], entry["reply"]["dst"], entry["mark"]) == ("192.168.1.5", "203.0.113.1", 7)
    assert entry["state"] == "ESTABLISHED" and entry["status"] == ["SEEN_REPLY", "ASSURED", "CONFIRMED", "SRC_NAT"]
    assert (await ask(second, "conntrack.count", filter={"src": "192.168.0.0/16", "state": "established"}))["count"] == 1
    assert (await ask(second, "conntrack.count", filter={"dport": 80}))["count"] == 0
    assert (await ask(second, "conntrack.delete", filter={"any_nat": True}))["deleted"] == 1
    assert (await ask(second, "conntrack.count"))["count"] == 0


async def test_a_large_table_is_listed_in_slices(start: Start) -> None:
    server = await start()
    for port in range(3000):
        add_connection(server, port)
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)
    counter = asyncio.ensure_future(count_turns())
    try:
        answer = await ask(server, "conntrack.list")
    finally:
        counter.cancel()
    assert len({e["original"]["sport"] for e in answer["entries"]}) == 3000 == answer["total"]
    assert turns > 10, "the loop ran in between"
    assert len((await ask(server, "conntrack.list", limit=700))["entries"]) == 700
    assert (await ask(server, "conntrack.delete", filter={"sport": 5}))["entries"][0]["original"]["sport"] == 5
    assert (await ask(server, "conntrack.flush"))["flushed"] == 2999


def add_connection(server: Server, sport: int = 5555) -> None:
    """An established, masqueraded TCP connection."""
    from userfw.conntrack.conn import Tuple

    table = server.assembly.conntrack
    key = Tuple()
    key.l3num, key.l4proto = 2, 6
    key.src_lo, key.dst_lo, key.sport, key.dport = 0xC0A80105, 0x08080808, sport, 443
    table.rehash(key)
    conn = table.new(key, 0, 3)
    assert conn is not None
    conn.reply.dst_lo = 0xCB007101
    table.rehash(conn.orig)
    table.rehash(conn.reply)
    conn.status, conn.state, conn.mark = 2 | 4 | 16, 3, 7
    conn.timeout = server.clock.now + 100 * 10**9
    assert table.insert(conn) is None


async def test_metrics_are_prometheus_text(start: Start) -> None:
    server = await start()
    text = (await ask(server, "metrics"))["text"]
    assert 'userfw_port_rx_packets_total{port="lan"} 0\n' in text and "# TYPE userfw_connections gauge\n" in text
    assert "userfw_connections_max 262144\n" in text
    assert (await ask(server, "neighbours")) == []
    assert (await ask(server, "conntrack.stats"))["entries"] == 0


# -- the packet loop


class Source:
    """A gateway that counts; frames come from a socket pair."""

    def __init__(self) -> None:
        self.order: list[str] = []

    def receive_batch(self, packets: list[Any], n: int) -> int:
        self.order.extend([packets[0].iif.name] * n)
        return 0

    def end_batch(self) -> int:
        return 0


def test_busy_ports_take_turns() -> None:
    from userfw.core.clock import Clock
    from userfw.core.packet import Device
    from userfw.ports.tap import TunTapPort

    gateway, clock = Source(), Clock()
    poller = Poller(clock, gateway, batch=2)
    pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(2)]
    for i, (ours, theirs) in enumerate(pairs):
        ours.setblocking(False)
        port = TunTapPort(f"p{i}", "tap", os.dup(ours.fileno()), "x", prefix=0)
        port.attach(Device(f"p{i}", i + 2, b"\x02\0\0\0\0\x01"))
        poller.add(port)
        for _ in range(6):
            theirs.send(b"x" * 60)
    assert poller.run(10**9) == 12
    assert gateway.order[:4] in (["p0", "p0", "p1", "p1"], ["p1", "p1", "p0", "p0"])
    assert poller.packets == 12 and clock.now > 0
    pairs[0][1].send(b"y" * 60)
    assert poller.run(0) == 0, "no time, no packets"
    for port in list(poller.ports):
        poller.remove(port)
        port.close()
    poller.remove(port)
    poller.close()
    for ours, theirs in pairs:
        ours.close()
        theirs.close()


def test_coalescing_only_where_another_port_takes_the_result_whole() -> None:
    from userfw.core.packet import Device
    from userfw.daemon.portset import OpenPort, agree_on_gro
    from userfw.daemon.schema import Port
    from userfw.ports.tap import TunTapPort

    def opened(
        name: str, kind: str = "tap", gro: str = "all", tso: bool = True, uso: bool = True, offloads: bool = True
    ) -> OpenPort:
        port = TunTapPort(name, "tap", -1, name)
        port.tx_tso, port.tx_uso = tso, uso
        return OpenPort(Port(name=name, type=kind, gro=gro, offloads=offloads), Device(name, 2), [port], None)

    def agreed(*ports: OpenPort) -> list[int]:
        agree_on_gro(ports)
        return [port.queues[0].gro for port in ports]

    assert agreed(opened("a")) == [0], "no other port"
    assert agreed(opened("a"), opened("b", gro="tcp"), opened("c", gro="off")) == [2, 1, 0]
    assert agreed(opened("a"), opened("b", uso=False)) == [1, 2], "b takes no large UDP"
    assert agreed(opened("a"), opened("b", tso=False)) == [0, 2], "it would only be cut again"
    assert agreed(opened("a"), opened("b", kind="tun")) == [0, 2], "services do not count"
    assert agreed(opened("a", offloads=False), opened("b")) == [0, 2], "plain frames only"


class Echo(Source):
    """A gateway whose every frame brings the next one: traffic that never ends."""

    def __init__(self, other: socket.socket) -> None:
        super().__init__()
        self.other = other

    def end_batch(self) -> int:
        self.other.send(b"x" * 60)
        return 0


def one_port(gateway: Any, ours: socket.socket, busy_ns: int) -> Poller:
    """A poller with a port on a socket."""
    from userfw.core.clock import Clock
    from userfw.core.packet import Device
    from userfw.ports.tap import TunTapPort

    ours.setblocking(False)
    poller = Poller(Clock(), gateway, busy_ns=busy_ns)
    port = TunTapPort("p", "tap", os.dup(ours.fileno()), "x", prefix=0)
    port.attach(Device("p", 2, b"\x02\0\0\0\0\x01"))
    poller.add(port)
    return poller


def close_poller(poller: Poller) -> None:
    for port in poller.ports:
        assert port is not None
        poller.remove(port)
        port.close()
    poller.close()


def test_busy_polling_only_after_a_short_sleep() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        poller = one_port(Source(), ours, 200_000_000)
        theirs.send(b"x" * 60)
        assert poller.run(10**9) == 1 and poller.spin_ns == 0 and poller.spins == 0, "the first frame: nobody slept before"
        theirs.send(b"x" * 60)
        assert poller.run(10**9) == 1 and poller.spins > 0, "the next came soon: it looks again"
        close_poller(poller)
        poller = one_port(Source(), ours, 0)
        for _ in range(2):
            theirs.send(b"x" * 60)
            assert poller.run(10**9) == 1
        assert poller.spins == 0, "switched off"
        close_poller(poller)


@pytest.mark.asyncio
async def test_busy_polling_does_not_starve_the_control_socket(start: Start, tmp_path: Path) -> None:
    server = await start()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        gateway = Echo(theirs)
        poller = one_port(gateway, ours, 10_000_000)
        loop = asyncio.get_running_loop()
        loop.add_reader(poller.readiness.fd, poller.run, 2_000_000)
        theirs.send(b"x" * 60)
        reader, writer = await asyncio.open_unix_connection(server.config.daemon.control)
        for number in range(3):
            writer.write(json.dumps({"id": number, "command": "status", "args": {}}).encode() + b"\n")
        lines = [await asyncio.wait_for(reader.readline(), 30) for _ in range(4)]
        assert [json.loads(line).get("id") for line in lines[1:]] == [0, 1, 2]
        assert len(gateway.order) > 10, "meanwhile the traffic went on"
        loop.remove_reader(poller.readiness.fd)
        writer.close()
        close_poller(poller)


# -- systemd


def test_notifications_and_descriptors(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        notifier = Notifier({"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "2000000"})
        assert notifier.watchdog_seconds == 2.0
        notifier.ready("forwarding")
        assert manager.recv(200) == b"READY=1\nSTATUS=forwarding"
        read, writer = os.pipe()
        assert notifier.store("tap.lan.0", read)
        message, fds, _, _ = socket.recv_fds(manager, 200, 4)
        assert message.startswith(b"FDSTORE=1\nFDNAME=tap.lan.0") and len(fds) == 1
        for fd in (*fds, read, writer):
            os.close(fd)
    assert not Notifier({}).send("READY=1")
    assert Notifier({"WATCHDOG_USEC": "x"}).watchdog_seconds == 0.0


def test_passed_descriptors_are_for_us_only() -> None:
    assert passed_descriptors({"LISTEN_PID": "1", "LISTEN_FDS": "1"}) == {}
    assert passed_descriptors({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "x"}) == {}
    with contextlib.suppress(OSError):
        assert passed_descriptors({}) == {}
