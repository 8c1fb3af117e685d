"""Which socket a packet is asked for, how long an answer holds, and tproxy; the provider is a double."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP

from tests.ruleset.test_gateway import Rules
from userfw.ports.sockdiag import Found, parse_untrusted

LISTEN, ESTABLISHED, CLOSE = 10, 1, 7
ANY = bytes(4)


class Double:
    """Sockets by (protocol, local address, local port, remote port or None)."""

    def __init__(self) -> None:
        self.sockets: dict[tuple[int, bytes, int, int | None], Found] = {}
        self.asked: list[Any] = []
        self.redirected: list[Any] = []
        self.fail = False

    def add(self, proto: int, local: str, port: int, state: int, remote: int | None = None, transparent: bool = False) -> None:
        address = bytes(map(int, local.split(".")))
        self.sockets[proto, address, port, remote] = Found(state, address, 7, 99 + len(self.sockets), 5, transparent, 0, 0)

    def find(self, proto: int, local: bytes, port: int, remote: bytes, remote_port: int) -> Found | None:
        self.asked.append((proto, local, port, remote, remote_port))
        if self.fail:
            raise OSError(110, "timed out")
        for key in ((proto, local, port, remote_port), (proto, local, port, None), (proto, ANY, port, None)):
            if key in self.sockets:
                return self.sockets[key]
        return None

    def ancestors(self, cgroup: int) -> list[int]:
        return []

    def group_of(self, inode: int) -> int:
        return 8

    def redirect(self, flow: Any, to: bytes, port: int) -> bool:
        self.redirected.append((flow, to, port))
        return True

    def settle(self, flow: Any) -> None:
        self.redirected.append(flow)

    def close(self) -> None:
        pass


class Socketed(Rules):
    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.double = Double()
        self.gw.sockets.provider = self.double

    def counts(self) -> list[int]:
        return [int(part.split()[0]) for part in self.run("list ruleset").split("packets ")[1:]]


def tcp(flags: str = "S", dport: int = 80, dst: str = "198.51.100.10") -> IP:
    return IP(src="192.0.2.10", dst=dst) / TCP(sport=1000, dport=dport, flags=flags)


def test_keys() -> None:
    lab = Socketed("""table ip t { chain p { type filter hook prerouting priority 0
        socket transparent 1 counter
        socket wildcard 1 counter
        socket mark 5 counter
    }\n}""")
    lab.send(tcp())
    assert lab.counts() == [0, 0, 0]
    lab.clock.now += 10**9
    lab.double.add(6, "0.0.0.0", 80, LISTEN, transparent=True)
    lab.send(tcp())
    assert lab.counts() == [1, 1, 1]
    lab.double.add(17, "198.51.100.10", 9, ESTABLISHED, 1000)
    lab.udp(9)
    assert lab.counts() == [1, 1, 2]
    lab.send(IP(src="192.0.2.10", dst="198.51.100.10") / ICMP(type=3, code=3) / IP(src="198.51.100.10", dst="192.0.2.10") / UDP(
        sport=9, dport=1000))  # fmt: skip
    assert lab.counts() == [1, 1, 3]
    asked = len(lab.double.asked)
    lab.send(IP(src="192.0.2.10", dst="198.51.100.10") / ICMP())
    assert len(lab.double.asked) == asked


def test_answers_are_kept_for_a_while() -> None:
    lab = Socketed("table ip t { chain p { type filter hook prerouting priority 0; socket mark 5 counter; }\n}")
    for _ in range(20):
        lab.send(tcp("A"))
    assert len(lab.double.asked) == 5, "the first, and four more of a connection that may come to be"
    lab.double.add(6, "198.51.100.10", 80, ESTABLISHED, 1000)
    lab.clock.now += 30_000_000
    for _ in range(20):
        lab.send(tcp("A"))
        lab.clock.now += 40_000_000
    assert len(lab.double.asked) == 6 and lab.counts() == [20]
    lab.double.fail = True
    lab.clock.now += 2 * 10**9
    lab.send(tcp("A"))
    assert lab.gw.sockets.failures == 1 and lab.counts() == [20]


TPROXY = "table ip t {{ chain p {{ type filter hook prerouting priority 0; meta l4proto {{ tcp, udp }} tproxy to {} counter; }}\n}}"


@pytest.mark.parametrize(
    ("target", "socket", "taken", "redirects"),
    [
        (":80", ("0.0.0.0", 80, LISTEN, None, True), 1, 0),
        (":80", ("0.0.0.0", 80, LISTEN, None, False), 0, 0),
        (":81", ("0.0.0.0", 81, LISTEN, None, True), 1, 1),
        (":81", ("0.0.0.0", 80, LISTEN, None, True), 0, 0),
        ("192.0.2.1:80", ("192.0.2.1", 80, LISTEN, None, True), 1, 1),
        ("127.0.0.1:81", ("0.0.0.0", 81, LISTEN, None, True), 1, 1),
        (":81", ("198.51.100.10", 80, ESTABLISHED, 1000, True), 1, 0),
    ],
)
def test_tproxy(target: str, socket: Any, taken: int, redirects: int) -> None:
    lab = Socketed(TPROXY.format(target))
    address, port, state, remote, transparent = socket
    lab.double.add(6, address, port, state, remote, transparent)
    lab.send(tcp())
    assert lab.counts() == [taken] and len(lab.double.redirected) == redirects
    # what has a socket here is not forwarded: a routing rule must make it local (Linux: ip_forward)
    assert len(lab.out()) == 1 - taken and lab.drops() == ({"SOCKET_ELSEWHERE": 1} if taken else {})


@pytest.mark.parametrize("exact_is_transparent", [True, False])
def test_tproxy_passes_over_a_socket_of_the_very_address(exact_is_transparent: bool) -> None:
    """The lookup is for the rule's address (Linux: nf_tproxy_get_sock_v4); left alone, the kernel would take the nearer socket."""
    lab = Socketed(TPROXY.format(":80"))
    lab.double.add(6, "0.0.0.0", 80, LISTEN, transparent=True)
    lab.double.add(6, "198.51.100.10", 80, LISTEN, transparent=exact_is_transparent)
    lab.send(tcp())
    assert lab.counts() == [1] and [to for _, to, _ in lab.double.redirected] == [bytes((192, 0, 2, 1))]


def test_without_sockets_nothing_is_assigned() -> None:
    lab = Socketed(TPROXY.format(":80"))
    lab.gw.sockets.provider = None
    lab.send(tcp())
    assert lab.counts() == [0] and len(lab.out()) == 1


@given(st.binary(max_size=200))
def test_what_the_kernel_says_may_be_anything(body: bytes) -> None:
    found = parse_untrusted(body)
    assert found is None or len(found.local) in (4, 16)
