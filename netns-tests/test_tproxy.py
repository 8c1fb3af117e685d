"""Local sockets in rules: tproxy to transparent listeners, `socket`, `meta skuid` and its like, beside the kernel's."""

import contextlib
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab.families import EACH, IP6, Family
from lab.netns import within
from lab.offload import until
from lab.services import ask, echo, echoing, listening
from lab.topology import Lab

each = pytest.mark.parametrize("fam", EACH, ids=str)
IP_TRANSPARENT, IPV6_TRANSPARENT = 19, 75


def transparent(lab: Lab, fam: Family, port: int) -> contextlib.AbstractContextManager[list[tuple[str, int]]]:
    """A transparent service on the router that answers with what it gets; yields the addresses it was asked at."""
    option = (socket.IPPROTO_IPV6, IPV6_TRANSPARENT) if fam is IP6 else (socket.SOL_IP, IP_TRANSPARENT)
    server = listening(lab, "rt", socket.SOCK_STREAM, fam, port, options=(option,))
    return echoing(server, lambda conn: (str(conn.getsockname()[0]), int(conn.getsockname()[1])))


@each
@pytest.mark.parametrize("port", [7000, 7001])
def test_a_connection_to_elsewhere_is_taken(live: Lab, fam: Family, port: int) -> None:
    """The service sees the address, and the port, that the client meant."""
    live.router.load(f"""table {fam.name} t {{
        chain divert {{ type filter hook prerouting priority -151
            meta l4proto tcp socket transparent 1 counter meta mark set 0x7177 accept; }}
        chain p {{ type filter hook prerouting priority -150
            iifname "lan" tcp dport 7000 meta mark set 0x7177 counter tproxy to :{port} counter accept; }}
    }}""")
    data = bytes(range(256)) * 400
    with transparent(live, fam, port) as asked:
        assert ask(live, "lan", fam.wan, 7000, data) == data
        assert ask(live, "lan", fam.dmz, 7000) == b"hello"
    assert asked == [(fam.wan, 7000), (fam.dmz, 7000)]
    counters = live.router.counters()
    assert counters[f"{fam.name} t divert #1"][0] > 2, counters


@each
def test_without_a_transparent_listener_the_packet_goes_on(live: Lab, fam: Family) -> None:
    live.router.load(f"""table {fam.name} t {{
        chain p {{ type filter hook prerouting priority -150; tcp dport 7000 tproxy to :7001 counter drop; }}
    }}""")
    with echo(live, "wan", fam, 7000):
        assert ask(live, "lan", fam.wan, 7000) == b"hello"
        with echo(live, "rt", fam, 7001):
            assert ask(live, "lan", fam.wan, 7000) == b"hello"
    assert set(live.router.counters().values()) == {(0, 0)}


@each
def test_socket_keys(live: Lab, fam: Family) -> None:
    live.router.load(f"""table {fam.name} t {{ chain i {{ type filter hook input priority 0;
        tcp dport 7000 socket wildcard 1 counter
        tcp dport 7000 socket transparent 1 counter
        tcp dport 7000 socket mark 0 counter
        tcp dport 7000 socket mark 5 counter
        tcp dport 7009 socket wildcard 0 counter
    }}\n}}""")
    with echo(live, "rt", fam, 7000):
        assert ask(live, "lan", fam.host("lan", 1), 7000) == b"hello"
    with pytest.raises(ConnectionRefusedError):
        ask(live, "lan", fam.host("lan", 1), 7009)
    counts = [n for n, _ in live.router.counters().values()]
    assert counts[0] and counts[2] and not (counts[1] or counts[3] or counts[4]), counts


def test_who_sends(live: Lab) -> None:
    fam = EACH[0]
    uid, gid = os.geteuid(), os.getegid()
    live.router.load(f"""table ip t {{ chain o {{ type filter hook output priority 0;
        tcp dport 7000 meta skuid {uid} counter
        tcp dport 7000 meta skuid {uid + 1} counter
        tcp dport 7000 meta skgid {gid} counter
        tcp dport 7000 meta skgid {gid + 1} counter
        tcp dport 7000 log prefix "who " flags skuid
    }}
    chain f {{ type filter hook forward priority 0; meta skuid {uid} counter; }}
    }}""")
    with echo(live, "wan", fam, 7000):
        assert ask(live, "rt", fam.wan, 7000) == b"hello"
        assert ask(live, "lan", fam.wan, 7000) == b"hello"
    counts = [n for n, _ in live.router.counters().values()]
    assert counts[0] >= 4 and counts[2] >= 4 and not (counts[1] or counts[3] or counts[4]), counts
    if live.router.kind == "userfw":
        assert re.search(rf"who IN= OUT=wan .* DPT=7000 .*UID={uid} GID={gid} ", live.router.log())


@contextlib.contextmanager
def transparent_datagrams(lab: Lab, fam: Family, port: int) -> Iterator[list[tuple[str, int]]]:
    """A transparent datagram service on the router that answers from the address, and port, that was asked; yields those."""
    level, option, size = (socket.IPPROTO_IPV6, 74, 28) if fam is IP6 else (socket.SOL_IP, 20, 16)  # IP_RECVORIGDSTADDR
    family = socket.AF_INET6 if fam is IP6 else socket.AF_INET

    def make(address: str = "", number: int = port) -> socket.socket:
        sock = socket.socket(family, socket.SOCK_DGRAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(level, IPV6_TRANSPARENT if fam is IP6 else IP_TRANSPARENT, 1)
        sock.setsockopt(level, option, 1)
        sock.settimeout(0.1)
        sock.bind((address, number))
        return sock

    server, asked, done = within(lab.ns("rt"), make), [], threading.Event()

    def serve() -> None:
        while not done.is_set():
            try:
                data, control, _, peer = server.recvmsg(2048, socket.CMSG_SPACE(size))
            except TimeoutError:
                continue
            raw = next(body for where, kind, body in control if (where, kind) == (level, option))
            to = socket.inet_ntop(family, raw[8:24] if fam is IP6 else raw[4:8]), int.from_bytes(raw[2:4], "big")
            with within(lab.ns("rt"), lambda to=to: make(*to)) as answer:
                answer.sendto(data, peer[:2])
            asked.append(to)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield asked
    finally:
        done.set()
        thread.join(5)
        server.close()


@each
@pytest.mark.parametrize("port", [7000, 7001])
def test_datagrams_to_elsewhere_are_taken(live: Lab, fam: Family, port: int) -> None:
    """The service sees the address, and the port, that the client meant, and answers from there; without a service they go on."""
    live.router.load(f"""table {fam.name} t {{
        chain p {{ type filter hook prerouting priority -150
            iifname "lan" udp dport 7000 meta mark set 0x7177 counter tproxy to :{port} counter accept; }}
    }}""")

    def make() -> socket.socket:
        return socket.socket(socket.AF_INET6 if fam is IP6 else socket.AF_INET, socket.SOCK_DGRAM)

    def query(to: str, asked: list[tuple[str, int]]) -> None:
        with within(live.ns("lan"), make) as sock:
            sock.settimeout(4)
            sock.connect((to, 7000))
            for piece in (b"one", b"two", b"three"):
                before = len(asked)
                sock.send(piece)
                assert sock.recv(2048) == piece
                until(lambda before=before: len(asked) > before)  # a socket of that very address is gone again

    with transparent_datagrams(live, fam, port) as asked:
        query(fam.wan, asked)
        query(fam.dmz, asked)
    assert asked == [(fam.wan, 7000)] * 3 + [(fam.dmz, 7000)] * 3
    first, second = list(live.router.counters().values())[:2]
    assert first[0] == second[0] == 6


@each
def test_a_socket_of_the_very_address_does_not_get_what_tproxy_gives_to_another(live: Lab, fam: Family) -> None:
    live.router.load(f"""table {fam.name} t {{
        chain p {{ type filter hook prerouting priority -150
            iifname "lan" udp dport 7000 meta mark set 0x7177 tproxy to :7000 counter accept; }}
    }}""")
    family = socket.AF_INET6 if fam is IP6 else socket.AF_INET

    def bound(address: str) -> socket.socket:
        sock = socket.socket(family, socket.SOCK_DGRAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(*((socket.IPPROTO_IPV6, IPV6_TRANSPARENT) if fam is IP6 else (socket.SOL_IP, IP_TRANSPARENT)), 1)
        sock.settimeout(4)
        sock.bind((address, 7000))
        return sock

    def make() -> socket.socket:
        return socket.socket(family, socket.SOCK_DGRAM)

    any_address = within(live.ns("rt"), lambda: bound(""))
    exact = within(live.ns("rt"), lambda: bound(fam.wan))
    with any_address, exact, within(live.ns("lan"), make) as client:
        for piece in (b"one", b"two"):
            client.sendto(piece, (fam.wan, 7000))
            assert any_address.recv(100) == piece
        exact.setblocking(False)
        with pytest.raises(BlockingIOError):
            exact.recv(100)


IN_CGROUP = "USERFW_TEST_CGROUP"
ELSEWHERE = """
mount -t cgroup2 none /sys/fs/cgroup && mkdir -p $0/inner && echo $$ > $0/inner/cgroup.procs || exit 77
"$@"; status=$?
echo $$ > /sys/fs/cgroup/cgroup.procs
for i in 1 2 3 4 5 6 7 8 9 10; do rmdir $0/inner $0 2>/dev/null && break; sleep 0.2; done
exit $status
"""


def _mine() -> str:
    """The cgroup of this process, below /sys/fs/cgroup; "" for none or the root."""
    mine = next((line for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::")), "0::/")
    path = mine.partition("::")[2].strip("/")
    mounted = Path("/sys/fs/cgroup/cgroup.controllers").exists()
    return path if path and mounted and Path("/sys/fs/cgroup", path).is_dir() else ""


def test_cgroups(live: Lab, request: pytest.FixtureRequest) -> None:
    """A packet's socket is known by its cgroup and those above. Where this runs in no cgroup, it is run again in one of its own."""
    path = _mine()
    if not path and IN_CGROUP not in os.environ:
        group = f"/sys/fs/cgroup/userfw-{os.getpid()}"
        again = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", request.node.nodeid]
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", ELSEWHERE, group, *again], capture_output=True, text=True, timeout=120,
            env={**os.environ, IN_CGROUP: "1"}, cwd=request.config.rootpath,
        )  # fmt: skip
        if done.returncode == 77:
            pytest.skip(f"no cgroup2 here: {done.stderr.strip()}")
        assert done.returncode == 0, done.stdout + done.stderr
        return
    assert path, "the test was to run in a cgroup"
    level = path.count("/") + 1
    above = path.rpartition("/")[0]
    outer = f'tcp dport 7000 socket cgroupv2 level {level - 1} "{above}" counter' if above else "counter"
    live.router.load(f"""table ip t {{ chain o {{ type filter hook output priority 0
        tcp dport 7000 socket cgroupv2 level {level} "{path}" counter
        tcp dport 7000 socket cgroupv2 level {level} != "{path}" counter
        {outer}
        }}
    chain i {{ type filter hook input priority 0
        tcp dport 7001 socket cgroupv2 level {level} "{path}" counter
    }}
    }}""")
    with echo(live, "wan", EACH[0], 7000):
        assert ask(live, "rt", EACH[0].wan, 7000) == b"hello"
    with echo(live, "rt", EACH[0], 7001):
        assert ask(live, "lan", EACH[0].host("lan", 1), 7001) == b"hello"
    same, other, outside, inside = (n for n, _ in live.router.counters().values())
    assert same >= 4 and not other and outside >= same and inside >= 3
