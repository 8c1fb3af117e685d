"""Local sockets in rules: tproxy to transparent listeners, `socket`, `meta skuid` and its like, beside the kernel's."""

import contextlib
import os
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab.families import EACH, IP6, Family
from lab.netns import within
from lab.topology import Lab
from test_local import ask, echo

each = pytest.mark.parametrize("fam", EACH, ids=str)
IP_TRANSPARENT, IPV6_TRANSPARENT = 19, 75


@contextlib.contextmanager
def transparent(lab: Lab, fam: Family, port: int, kind: int = socket.SOCK_STREAM) -> Iterator[list[tuple[str, int]]]:
    """A transparent service on the router that answers with what it gets; yields the addresses it was asked at."""

    def make() -> socket.socket:
        sock = socket.socket(socket.AF_INET6 if fam is IP6 else socket.AF_INET, kind)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if fam is IP6:
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_TRANSPARENT, 1)
        else:
            sock.setsockopt(socket.SOL_IP, IP_TRANSPARENT, 1)
        sock.settimeout(4)
        sock.bind(("", port))
        sock.listen()
        return sock

    server, asked = within(lab.ns("rt"), make), []

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                conn, _ = server.accept()
                asked.append(conn.getsockname()[:2])
                with conn:
                    conn.settimeout(4)
                    while data := conn.recv(65536):
                        conn.sendall(data)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield asked
    finally:
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join(5)


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


def test_cgroups(live: Lab) -> None:
    mine = next((line for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::")), "0::/")
    path = mine.partition("::")[2].strip("/")
    if not path or not Path("/sys/fs/cgroup", path).is_dir() or not Path("/sys/fs/cgroup/cgroup.controllers").exists():
        pytest.skip("these tests run in the root cgroup, or there is no cgroup2 here")
    level = path.count("/") + 1
    live.router.load(f"""table ip t {{ chain o {{ type filter hook output priority 0;
        tcp dport 7000 socket cgroupv2 level {level} "{path}" counter; }}\n}}""")
    with echo(live, "wan", EACH[0], 7000):
        assert ask(live, "rt", EACH[0].wan, 7000) == b"hello"
    assert next(iter(live.router.counters().values()))[0] >= 4
