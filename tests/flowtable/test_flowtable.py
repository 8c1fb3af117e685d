"""The flowtable handles exactly or declines: rewrites against a full recomputation, hand-over, ageing, growth."""

from __future__ import annotations

from ipaddress import ip_address
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.all import IP, TCP, UDP, Ether, IPOption_RR, IPv6, IPv6ExtHdrDestOpt, Raw

from userfw.conntrack.conn import Tuple
from userfw.conntrack.const import CT_REPLIED, TCP_ESTABLISHED
from userfw.conntrack.table import ConnTable
from userfw.core.clock import Clock
from userfw.core.const import (
    IPPROTO_TCP,
    IPPROTO_UDP,
    IPS_CONFIRMED,
    IPS_OFFLOAD,
    IPS_SEEN_REPLY,
    NF_INET_FORWARD,
    NFPROTO_IPV4,
    NFPROTO_IPV6,
    VNET_F_NEEDS_CSUM,
)
from userfw.core.fastpath import CachedRoute, Sender
from userfw.core.packet import Device, Packet
from userfw.flowtable.table import FlowObserver, FlowTable
from userfw.wire.checksum import add_bytes, fold, pseudo_sum
from userfw.wire.parse import parse_untrusted

LAN_MAC, WAN_MAC, HOST_MAC = "02:00:00:00:01:01", "02:00:00:00:02:01", "02:00:00:00:01:02"
SECOND = 1_000_000_000

ENDS = {
    # family: client, server, the gateway's outer address
    NFPROTO_IPV4: ("192.168.1.2", "203.0.113.9", "203.0.113.1"),
    NFPROTO_IPV6: ("fd00:1::2", "fd00:9::9", "fd00:9::1"),
}


class Route(CachedRoute):
    def __init__(self, oif: Device) -> None:
        super().__init__()
        self.oif = oif
        self.good = True

    def valid(self) -> bool:
        return self.good


class Wire(Sender):
    """Keeps what would have been sent."""

    def __init__(self, back: CachedRoute | None) -> None:
        self.back = back
        self.sent: list[bytes] = []

    def emit(self, pkt: Packet) -> int:
        self.sent.append(bytes(pkt.data[pkt.l3 : pkt.end]))
        return 0

    def route_back(self, pkt: Packet) -> CachedRoute | None:
        return self.back


def halves(text: str) -> tuple[int, int]:
    number = int(ip_address(text))
    return number >> 64, number & ((1 << 64) - 1)


class Bench:
    """A flowtable between `lan` and `wan` with one masqueraded connection, and frames of both directions."""

    def __init__(self, family: int = NFPROTO_IPV4, proto: int = IPPROTO_TCP, nat: bool = True, counter: bool = False) -> None:
        self.family, self.proto = family, proto
        self.lan = Device("lan", 1, bytes.fromhex(LAN_MAC.replace(":", "")))
        self.wan = Device("wan", 2, bytes.fromhex(WAN_MAC.replace(":", "")))
        self.clock = Clock(1000 * SECOND)
        self.conns = ConnTable(self.clock, rng=Random(7))
        self.conns.observers.append(FlowObserver())
        self.there, self.back = Route(self.wan), Route(self.lan)
        self.wire = Wire(self.back)
        devices = ["lan", "wan"]
        self.table = FlowTable("f", NFPROTO_IPV4, 0, devices, counter=counter, conns=self.conns, sender=self.wire, rng=Random(9))
        self.client, self.server, gateway = ENDS[family]
        self.outside = gateway if nat else self.client
        self.outside_port = 1024 if nat else 40000
        self.conn = self.connection(40000, self.outside_port)

    def connection(self, sport: int, outside_port: int):  # type: ignore[no-untyped-def]
        tuple_ = Tuple()
        tuple_.src_hi, tuple_.src_lo = halves(self.client)
        tuple_.dst_hi, tuple_.dst_lo = halves(self.server)
        tuple_.sport, tuple_.dport, tuple_.l3num, tuple_.l4proto = sport, 80, self.family, self.proto
        conn = self.conns.new(tuple_, 0, 0)
        assert conn is not None
        conn.reply.dst_hi, conn.reply.dst_lo = halves(self.outside)
        conn.reply.dport = outside_port
        conn.state = TCP_ESTABLISHED if self.proto == IPPROTO_TCP else CT_REPLIED
        conn.status |= IPS_SEEN_REPLY
        conn.timeout = self.clock.now + 3600 * SECOND
        assert self.conns.insert(conn) is None
        return conn

    def header(self, reply: bool = False, **extra: object):  # type: ignore[no-untyped-def]
        src, dst = (self.server, self.outside) if reply else (self.client, self.server)
        ip = IP if self.family == NFPROTO_IPV4 else IPv6
        link = Ether(dst=WAN_MAC if reply else LAN_MAC, src=HOST_MAC)
        return link / ip(src=src, dst=dst, **extra)

    def frame(self, reply: bool = False, data: bytes = b"data" * 5, flags: str = "A", **extra: object) -> bytes:
        sport, dport = (80, self.outside_port) if reply else (40000, 80)
        l4 = TCP(sport=sport, dport=dport, flags=flags, seq=9) if self.proto == IPPROTO_TCP else UDP(sport=sport, dport=dport)
        return bytes(self.header(reply, **extra) / l4 / Raw(data))

    def packet(self, frame: bytes, reply: bool = False) -> Packet:
        pkt = Packet()
        pkt.load_frame(frame)
        pkt.iif = self.wan if reply else self.lan
        assert parse_untrusted(pkt) == 0
        return pkt

    def offload(self) -> int:
        pkt = self.packet(self.frame())
        pkt.ct, pkt.ctdir, pkt.route = self.conn, 0, self.there
        return self.table.add(pkt, NF_INET_FORWARD)

    def forward(self, reply: bool = False, **kwargs: object) -> int:
        return self.table.forward(self.packet(self.frame(reply, **kwargs), reply))  # type: ignore[arg-type]


def check_whole(data: bytes, family: int) -> None:
    """Both checksums of a network packet, computed anew."""
    pkt = Packet()
    pkt.load_frame(b"\0" * 12 + (b"\x08\x00" if family == NFPROTO_IPV4 else b"\x86\xdd") + data)
    assert parse_untrusted(pkt) == 0  # checks the IPv4 header's
    length = pkt.end - pkt.l4
    off = pkt.l4 + (16 if pkt.l4proto == IPPROTO_TCP else 6)
    if pkt.l4proto == IPPROTO_UDP and pkt.get16(off) == 0:
        return
    assert fold(add_bytes(pseudo_sum(pkt, pkt.l4proto, length), pkt.data, pkt.l4, length)) == 0xFFFF


FAMILIES = pytest.mark.parametrize("family", [NFPROTO_IPV4, NFPROTO_IPV6])
PROTOCOLS = pytest.mark.parametrize("proto", [IPPROTO_TCP, IPPROTO_UDP])


@FAMILIES
@PROTOCOLS
@pytest.mark.parametrize("nat", [True, False])
@given(data=st.binary(max_size=64))
@settings(max_examples=25, deadline=None)
def test_rewrites_both_directions_with_whole_checksums(family: int, proto: int, nat: bool, data: bytes) -> None:
    bench = Bench(family, proto, nat)
    assert bench.offload() == 1
    assert bench.forward(data=data) == 1
    assert bench.forward(reply=True, data=data) == 1
    ip = IP if family == NFPROTO_IPV4 else IPv6
    there, back = (ip(sent) for sent in bench.wire.sent)
    assert (there.src, there.dst, there.payload.sport, there.payload.dport) == (
        bench.outside,
        bench.server,
        bench.outside_port,
        80,
    )
    assert (back.src, back.dst, back.payload.sport, back.payload.dport) == (bench.server, bench.client, 80, 40000)
    for sent in bench.wire.sent:
        check_whole(sent, family)
        assert (sent[8] if family == NFPROTO_IPV4 else sent[7]) == 63


@FAMILIES
def test_partial_checksums_get_the_pseudo_header_part_only(family: int) -> None:
    bench = Bench(family)
    bench.offload()
    pkt = bench.packet(bench.frame())
    size = pkt.end - pkt.l4
    pkt.vnet_flags = VNET_F_NEEDS_CSUM
    pkt.put16(pkt.l4 + 16, fold(pseudo_sum(pkt, IPPROTO_TCP, size)))
    assert bench.table.forward(pkt) == 1
    assert pkt.get16(pkt.l4 + 16) == fold(pseudo_sum(pkt, IPPROTO_TCP, size))


def test_zero_udp_checksum_stays_zero() -> None:
    bench = Bench(proto=IPPROTO_UDP)
    bench.offload()
    pkt = bench.packet(bench.frame())
    pkt.put16(pkt.l4 + 6, 0)
    assert bench.table.forward(pkt) == 1
    assert pkt.get16(pkt.l4 + 6) == 0


@pytest.mark.parametrize(
    "change",
    [
        {"ttl": 1},
        {"flags": 1},
        {"frag": 5},
        {"options": [IPOption_RR()]},
    ],
    ids=str,
)
def test_doubtful_packets_are_declined_untouched(change: dict[str, object]) -> None:
    bench = Bench()
    bench.offload()
    frame = bytes(bench.header(**change) / TCP(sport=40000, dport=80, flags="A"))
    pkt = bench.packet(frame)
    assert bench.table.forward(pkt) == 0
    assert pkt.frame() == frame
    assert bench.wire.sent == []


def test_extension_headers_and_other_hosts_frames_are_declined() -> None:
    bench = Bench(NFPROTO_IPV6, IPPROTO_UDP)
    bench.offload()
    frame = bytes(bench.header() / IPv6ExtHdrDestOpt() / UDP(sport=40000, dport=80))
    assert bench.table.forward(bench.packet(frame)) == 0
    stranger = bytearray(bench.frame())
    stranger[0:6] = bytes.fromhex("020000000909")
    assert bench.table.forward(bench.packet(bytes(stranger))) == 0


def test_above_the_mtu_goes_down_the_slow_path_but_large_sends_count_by_segment() -> None:
    bench = Bench()
    bench.offload()
    assert bench.forward(data=b"x" * 1460) == 1
    assert bench.forward(data=b"x" * 1461) == 0
    pkt = bench.packet(bench.frame(data=b"x" * 9000))
    pkt.gso_type, pkt.gso_size = 1, 1460
    assert bench.table.forward(pkt) == 1
    pkt = bench.packet(bench.frame(data=b"x" * 9000))
    pkt.gso_type, pkt.gso_size = 1, 1461
    assert bench.table.forward(pkt) == 0


@pytest.mark.parametrize("flags", ["FA", "R", "RA"])
def test_fin_and_rst_give_the_connection_back(flags: str) -> None:
    bench = Bench()
    bench.offload()
    assert bench.conn.status & IPS_OFFLOAD
    assert bench.forward(reply=True, flags=flags) == 0
    assert not bench.conn.status & IPS_OFFLOAD
    assert bench.conn.flow is None
    assert bench.table.count == 0
    assert bench.conn.td_maxwin[0] == 0  # window tracking starts afresh
    assert bench.forward() == 0


def test_a_stale_route_ends_the_flow() -> None:
    bench = Bench()
    bench.offload()
    bench.back.good = False
    assert bench.forward() == 1
    assert bench.forward(reply=True) == 0
    assert bench.table.count == 0


def test_idle_flows_age_and_busy_ones_stay() -> None:
    bench = Bench(proto=IPPROTO_UDP)
    bench.offload()
    for _ in range(5):
        bench.clock.now += 20 * SECOND
        assert bench.forward() == 1
        while bench.table.sweep(100000):
            pass
    assert bench.table.count == 2
    bench.clock.now += 31 * SECOND
    bench.table.sweep(100000)
    bench.table.sweep(100000)
    assert bench.table.count == 0
    assert bench.table.expired == 1
    assert bench.conn.timeout == bench.clock.now + (120 - 30) * SECOND  # the stream timeout less the time idle


def test_a_connection_that_ends_takes_its_flow_along() -> None:
    bench = Bench()
    bench.offload()
    bench.conns.destroy(bench.conn)
    assert bench.table.count == 0
    assert bench.forward() == 0


def test_unconfirmed_closing_and_twice_are_refused() -> None:
    bench = Bench()
    assert bench.offload() == 1
    assert bench.offload() == 0  # as nft_flow_offload_eval: the rule breaks
    other = Bench()
    other.conn.status &= ~IPS_CONFIRMED
    assert other.offload() == 0
    closing = Bench()
    closing.conn.state = TCP_ESTABLISHED + 1
    assert closing.offload() == 0
    lost = Bench()
    lost.wire.back = None
    assert lost.offload() == 0
    assert lost.table.refused == 1


def test_counter_accounts_to_the_connection() -> None:
    for counter in (True, False):
        bench = Bench(counter=counter)
        bench.offload()
        bench.forward()
        bench.forward(reply=True)
        assert list(bench.conn.packets) == ([1, 1] if counter else [0, 0])
        flow = next(iter(bench.table))
        assert (flow.original.packets, flow.reply.packets) == (1, 1)
        assert flow.original.bytes == 60


def test_growing_loses_nothing() -> None:
    bench = Bench(proto=IPPROTO_UDP)
    conns = []
    for port in range(2001, 5001):
        bench.conn = bench.connection(port, port)
        pkt = bench.packet(bytes(bench.header() / UDP(sport=port, dport=80)))
        pkt.ct, pkt.ctdir, pkt.route = bench.conn, 0, bench.there
        assert bench.table.add(pkt, NF_INET_FORWARD) == 1
        conns.append(bench.conn)
    assert bench.table.count == 6000
    assert len(list(bench.table)) == 3000
    for port in range(2001, 5001):
        assert bench.table.forward(bench.packet(bytes(bench.header() / UDP(sport=port, dport=80)))) == 1
    for conn in conns:
        bench.conns.destroy(conn)
    assert bench.table.count == 0
    assert bench.table.flush() == 0


def test_flush_by_device() -> None:
    bench = Bench()
    bench.offload()
    assert bench.table.flush(ifindex=77) == 0
    assert bench.table.flush(ifindex=2) == 1
    assert bench.table.count == 0
