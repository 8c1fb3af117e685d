"""The router as a host: real services on it behind the input and output hooks, its own packets, its refusals."""

import socket

import pytest
from lab import frames as f
from lab.families import EACH, IP4, Family
from lab.netns import run
from lab.rules import at, masquerade, nat
from lab.services import ask, echo, listening
from lab.topology import Lab

each = pytest.mark.parametrize("fam", EACH, ids=str)


@each
def test_ping_between_hosts_and_to_the_router(live: Lab, fam: Family) -> None:
    for target in (fam.wan, fam.dmz, fam.host("lan", 1), fam.out):
        run(["ping", "-c", "2", "-i", "0.2", "-W", "2", target], ns=live.ns("lan"))


@each
def test_a_download_through_masquerade_arrives_whole(live: Lab, fam: Family) -> None:
    live.router.load(masquerade(fam))
    data = bytes(range(256)) * 8000
    with echo(live, "wan", fam, 7000) as peers:
        assert ask(live, "lan", fam.wan, 7000, data) == data
    assert peers == [fam.out]


@each
def test_a_port_forward_carries_a_whole_connection(live: Lab, fam: Family) -> None:
    live.router.load(nat(fam, pre=f'iifname "wan" tcp dport 80 dnat to {at(fam.dmz, 8080)}'))
    data = bytes(range(256)) * 4000
    with echo(live, "dmz", fam, 8080):
        assert ask(live, "wan", fam.out, 80, data) == data


@each
def test_a_service_on_the_router_behind_input_and_output(live: Lab, fam: Family) -> None:
    live.router.load("""table inet t {
        chain i { type filter hook input priority 0; policy drop;
            meta l4proto ipv6-icmp accept
            ct state established,related counter accept
            iifname "lan" tcp dport 7000 counter accept
            tcp dport 7000 counter reject with tcp reset
        }
        chain o { type filter hook output priority 0; policy accept; tcp sport 7000 counter; }
    }""")
    with echo(live, "rt", fam, 7000) as peers:
        assert ask(live, "lan", fam.host("lan", 1), 7000, bytes(100_000)) == bytes(100_000)
        with pytest.raises(ConnectionRefusedError):
            ask(live, "wan", fam.out, 7000)
    assert peers == [fam.lan]
    counters = live.router.counters()
    assert counters["inet t i #2"][0] == 1 and counters["inet t i #3"][0] >= 1 and counters["inet t o #1"][0] > 2


@each
def test_a_redirect_reaches_a_service_on_the_router(live: Lab, fam: Family) -> None:
    live.router.load(nat(fam, pre='iifname "lan" tcp dport 80 redirect to :7000'))
    with echo(live, "rt", fam, 7000):
        assert ask(live, "lan", fam.wan, 80) == b"hello"


@each
def test_connections_of_the_routers_own(live: Lab, fam: Family) -> None:
    live.router.load("""table inet t {
        chain i { type filter hook input priority 0; policy drop
            meta l4proto ipv6-icmp accept
            iifname "lo" accept  # the reset of the router's own segment
            ct state established counter accept
        }
        chain o { type filter hook output priority 0; policy accept; tcp dport 7001 counter reject with tcp reset; }
    }""")
    with echo(live, "wan", fam, 7000), echo(live, "wan", fam, 7001):
        assert ask(live, "rt", fam.wan, 7000) == b"hello"
        with pytest.raises(ConnectionRefusedError):
            ask(live, "rt", fam.wan, 7001)


def test_dnat_at_output_changes_the_route(live: Lab) -> None:
    live.router.load(f"table ip n {{ chain o {{ type nat hook output priority -100; ip daddr {IP4.wan} tcp dport 80 "
                     f"dnat to {IP4.dmz}:7000; }}\n}}")
    with echo(live, "dmz", IP4, 7000):
        assert ask(live, "rt", IP4.wan, 80) == b"hello"


def test_udp_to_the_router_and_back(live: Lab) -> None:
    with listening(live, "rt", socket.SOCK_DGRAM, IP4, 7000) as server, \
            listening(live, "lan", socket.SOCK_DGRAM, IP4, 0) as client:
        client.sendto(b"question", (IP4.host("lan", 1), 7000))
        data, peer = server.recvfrom(100)
        assert (data, peer[0]) == (b"question", IP4.lan)
        server.sendto(b"answer" * 400, peer)  # larger than the MTU: fragmented
        assert client.recvfrom(4000)[0] == b"answer" * 400


def test_large_datagrams_pass_in_fragments(live: Lab) -> None:
    live.router.load(masquerade(IP4))
    with listening(live, "wan", socket.SOCK_DGRAM, IP4, 7000) as server, \
            listening(live, "lan", socket.SOCK_DGRAM, IP4, 0) as client:
        client.sendto(bytes(8000), (IP4.wan, 7000))
        data, peer = server.recvfrom(9000)
        assert data == bytes(8000) and peer[0] == IP4.out
        server.sendto(b"x" * 5000, peer)
        assert client.recvfrom(9000)[0] == b"x" * 5000


def test_path_mtu_is_learned_by_a_sender(live: Lab) -> None:
    """A TCP connection into the narrower network works, whatever its segments' size at first."""
    data = bytes(300_000)
    for fam in EACH:
        with echo(live, "edge", fam, 7000):
            assert ask(live, "lan", fam.edge, 7000, data) == data


@each
def test_refused_and_silent_ports(live: Lab, fam: Family) -> None:
    live.router.load("""table inet t { chain f { type filter hook forward priority 0;
        tcp dport 81 reject with tcp reset; tcp dport 82 drop; tcp dport 83 reject with icmpx admin-prohibited; }\n}""")
    with pytest.raises(ConnectionRefusedError):
        ask(live, "lan", fam.wan, 80)  # nobody listens there
    with pytest.raises(ConnectionRefusedError):
        ask(live, "lan", fam.wan, 81)
    with pytest.raises(TimeoutError):
        ask(live, "lan", fam.wan, 82, seconds=0.3)
    with pytest.raises(OSError, match=r"No route to host|Permission denied|Connection refused"):
        ask(live, "lan", fam.wan, 83)


def test_own_packets_to_itself_pass_all_four_hooks(live: Lab) -> None:
    live.router.load("table inet t {" + "\n".join(
        f'chain {name} {{ type filter hook {hook} priority 0; {where} udp dport 7000 counter; }}'
        for name, hook, where in (
            ("a", "output", 'oifname "lo"'), ("b", "postrouting", 'oifname "lo"'), ("c", "prerouting", 'iifname "lo"'),
            ("d", "input", 'iifname "lo"'))) + "\n}")
    with listening(live, "rt", socket.SOCK_DGRAM, IP4, 7000) as server, \
            listening(live, "rt", socket.SOCK_DGRAM, IP4, 0) as client:
        client.sendto(b"me", (IP4.host("lan", 1), 7000))
        if live.router.kind == "kernel":
            assert server.recvfrom(10)[0] == b"me"
            assert {packets for packets, _ in live.router.counters().values()} == {1}


def test_a_raw_packet_to_the_router_without_a_listener(lab: Lab) -> None:
    [out] = lab.answered_by("lan", f.tcp_packet(IP4.lan, IP4.host("lan", 1), 4000, 9, seq=77))
    assert out.packet[20:] == f.tcp(IP4.host("lan", 1), IP4.lan, 9, 4000, seq=0, ack=78, flags=f.RST | f.ACK, window=0)
