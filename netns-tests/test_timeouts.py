"""Timeouts of conntrack, shortened: what is left, what renews it, what is gone afterwards."""

import time
from collections.abc import Callable

import pytest
from lab import frames as f
from lab.families import EACH, IP4, Family
from lab.rules import forward, masquerade
from lab.topology import Lab

each = pytest.mark.parametrize("fam", EACH, ids=str)
TRACK = forward("ct state new counter\nct state established counter")


def gone_after(lab: Lab, seconds: float, patience: float = 4) -> float:
    """Seconds until there is no connection; AssertionError after `seconds` and `patience`."""
    start = time.monotonic()
    while lab.router.conns():
        assert time.monotonic() - start < seconds + patience, lab.router.conns()
        time.sleep(0.05)
    return time.monotonic() - start


def left(lab: Lab) -> int:
    """The remaining seconds of the only connection."""
    [conn] = lab.router.conns()
    return conn.timeout


@each
def test_default_timeouts_by_protocol_and_state(lab: Lab, fam: Family) -> None:
    lab.router.load(TRACK)
    for packet, seconds in ((f.udp_packet(fam.lan, fam.wan, 1, 2), 30), (f.ping(fam.lan, fam.wan), 30),
                            (f.tcp_packet(fam.lan, fam.wan, 1, 2), 120),
                            (f.ip(fam.lan, fam.wan, 99, b"data"), 600)):
        lab.router.forget()
        lab.send("lan", packet)
        assert seconds - 2 <= left(lab) <= seconds


def test_tcp_timeouts_follow_the_state(lab: Lab) -> None:
    lab.router.load(TRACK)

    def step(at: str, flags: int, seq: int, ack: int) -> int:
        src, dst, ports = (IP4.lan, IP4.wan, (1, 2)) if at == "lan" else (IP4.wan, IP4.lan, (2, 1))
        lab.send(at, f.tcp_packet(src, dst, *ports, flags, seq, ack))
        return left(lab)

    def about(seconds: int, got: int) -> bool:
        return seconds - 2 <= got <= seconds
    assert about(120, step("lan", f.SYN, 1000, 0))
    assert about(60, step("wan", f.SYN | f.ACK, 5000, 1001))
    assert about(432000, step("lan", f.ACK, 1001, 5001))
    assert about(120, step("lan", f.FIN | f.ACK, 1001, 5001))
    assert about(60, step("wan", f.ACK, 5001, 1002))
    assert about(30, step("wan", f.FIN | f.ACK, 5001, 1002))
    assert about(120, step("lan", f.ACK, 1002, 5002))


def test_udp_becomes_a_stream_after_two_seconds_of_dialogue(lab: Lab) -> None:
    """Linux: nf_conntrack_udp_packet: replied to and older than two seconds."""
    lab.router.load(TRACK)
    lab.send("lan", f.udp_packet(IP4.lan, IP4.wan, 1, 2))
    lab.send("wan", f.udp_packet(IP4.wan, IP4.lan, 2, 1))
    assert 28 <= left(lab) <= 30
    time.sleep(2.2)
    lab.send("lan", f.udp_packet(IP4.lan, IP4.wan, 1, 2))
    assert 118 <= left(lab) <= 120
    assert {flag for conn in lab.router.conns() for flag in conn.flags} == {"ASSURED"}


def test_an_entry_expires_by_itself_and_traffic_renews_it(lab: Lab, shortened: Callable[..., None]) -> None:
    lab.router.load(TRACK)
    shortened(nf_conntrack_udp_timeout=2)
    packet = f.udp_packet(IP4.lan, IP4.wan, 1, 2)
    lab.send("lan", packet)
    for _ in range(3):
        time.sleep(0.9)
        lab.send("lan", packet)
    assert 1 <= gone_after(lab, 2) <= 4
    lab.send("lan", packet)
    counters = lab.router.counters()
    assert (counters["inet t c #1"][0], counters["inet t c #2"][0]) == (5, 0)  # never answered: new every time


def test_a_reset_connection_goes_soon(lab: Lab, shortened: Callable[..., None]) -> None:
    lab.router.load(TRACK)
    shortened(nf_conntrack_tcp_timeout_close=1)
    lab.send("lan", f.tcp_packet(IP4.lan, IP4.wan, 1, 2))
    lab.send("wan", f.tcp_packet(IP4.wan, IP4.lan, 2, 1, f.SYN | f.ACK, 5000, 1001))
    lab.send("lan", f.tcp_packet(IP4.lan, IP4.wan, 1, 2, f.ACK, 1001, 5001))
    lab.send("lan", f.tcp_packet(IP4.lan, IP4.wan, 1, 2, f.RST, 1001))
    assert [c.state for c in lab.router.conns()] == ["CLOSE"]
    gone_after(lab, 1)


@each
def test_the_mapping_ends_with_the_entry(lab: Lab, fam: Family, shortened: Callable[..., None]) -> None:
    lab.router.load(masquerade(fam))
    shortened(nf_conntrack_udp_timeout=1)
    lab.send("lan", f.udp_packet(fam.lan, fam.wan, 1, 2))
    gone_after(lab, 1)
    [out] = lab.answered_by("wan", f.udp_packet(fam.wan, fam.out, 2, 1))
    assert out.port == "wan"  # an answer to nobody: the router itself has no such port


def test_elements_with_a_timeout_disappear(lab: Lab) -> None:
    lab.router.load("""table ip t { set s { type ipv4_addr; flags timeout; elements = { 192.168.1.10 timeout 1s }; }
        chain c { type filter hook forward priority 0; ip saddr @s counter drop; }\n}""")
    assert lab.send("lan", f.udp_packet(IP4.lan, IP4.wan, 1, 2)) == []
    deadline = time.monotonic() + 4
    while "192.168.1.10" in lab.router.nft("list", "set", "ip", "t", "s"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert len(lab.send("lan", f.udp_packet(IP4.lan, IP4.wan, 1, 2))) == 1
