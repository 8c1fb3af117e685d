"""What log statements write: the kernel's lines, no byte beyond the frame, a bounded rate."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Ether

from userfw.core.clock import Clock
from userfw.core.packet import Device, Packet
from userfw.daemon.packetlog import BURST, RATE, PacketLog, describe
from userfw.wire.parse import parse_untrusted

MACS = {"dst": "02:00:00:00:00:01", "src": "02:00:00:00:00:02"}


def packet(frame: Any) -> Packet:
    pkt = Packet()
    pkt.load_frame(bytes(frame))
    pkt.iif = Device("lan", 2, bytes.fromhex("020000000001"))
    pkt.oif = Device("wan", 3, bytes.fromhex("020000000003"))
    parse_untrusted(pkt)
    return pkt


def request(**more: Any) -> Any:
    return SimpleNamespace(**{"prefix": "", "level": -1, "flags": 0, "group": -1, "snaplen": 0, "qthreshold": 0, **more})


@pytest.mark.parametrize(
    ("frame", "flags", "line"),
    [
        (Ether(**MACS) / IP(src="10.0.0.1", dst="10.0.0.2", id=7, flags="DF", tos=0x10)
         / TCP(sport=1, dport=2, flags="SA", window=9, seq=5), 1,
         "IN=lan OUT=wan MAC=02:00:00:00:00:01:02:00:00:00:00:02:08:00 SRC=10.0.0.1 DST=10.0.0.2 LEN=40 TOS=0x10 PREC=0x00 TTL=64 "
         "ID=7 DF PROTO=TCP SPT=1 DPT=2 SEQ=5 ACK=0 WINDOW=9 RES=0x00 ACK SYN URGP=0"),
        (Ether(**MACS) / IP(src="10.0.0.1", dst="10.0.0.2", id=7) / UDP(sport=1, dport=2), 0,
         "PROTO=UDP SPT=1 DPT=2 LEN=8"),
        (Ether(**MACS) / IP(src="10.0.0.1", dst="10.0.0.2", id=7) / ICMP(id=4, seq=5), 0,
         "PROTO=ICMP TYPE=8 CODE=0 ID=4 SEQ=5"),
        (Ether(**MACS) / IPv6(src="fd00::1", dst="fd00::2", hlim=9, fl=5) / UDP(sport=1, dport=2), 0,
         "SRC=fd00:0000:0000:0000:0000:0000:0000:0001 DST=fd00:0000:0000:0000:0000:0000:0000:0002 LEN=48 TC=0 HOPLIMIT=9 FLOWLBL=5 "
         "PROTO=UDP SPT=1 DPT=2 LEN=8"),
        (Ether(**MACS) / ARP(op=1, hwsrc="02:00:00:00:00:02", psrc="10.0.0.1", hwdst="00:00:00:00:00:00", pdst="10.0.0.2"), 0,
         "ARP HTYPE=1 PTYPE=0x0800 OPCODE=1 MACSRC=02:00:00:00:00:02 IPSRC=10.0.0.1 MACDST=00:00:00:00:00:00 IPDST=10.0.0.2"),
    ],
)  # fmt: skip
def test_lines_are_the_kernels(frame: Any, flags: int, line: str) -> None:
    assert line in describe(packet(frame), flags)


@given(
    st.binary(min_size=14, max_size=120), st.sampled_from([b"\x08\x00", b"\x86\xdd", b"\x08\x06", b"\x12\x34"]), st.integers(0, 7)
)
def test_no_frame_does_harm(body: bytes, kind: bytes, flags: int) -> None:
    pkt = packet(bytes(12) + kind + body)
    assert describe(pkt, flags).startswith("IN=lan OUT=wan")
    pkt.end = max(pkt.start, pkt.end - 30)
    describe(pkt, flags)


def test_prefix_and_level(caplog: pytest.LogCaptureFixture) -> None:
    sink = PacketLog(Clock(10**9))
    pkt = packet(Ether(**MACS) / IP() / UDP())
    with caplog.at_level(logging.DEBUG):
        sink(pkt, 0, 2, request(prefix="drop: ", level=3))
        sink(pkt, 0, 2, request(prefix="see: ", level=7))
        sink(pkt, 0, 2, request(group=5))
    assert [(r.levelname, r.message.split(" ")[0]) for r in caplog.records] == [("ERROR", "drop:"), ("DEBUG", "see:")]


def test_a_flood_is_bounded_and_told(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock(10**9)
    sink = PacketLog(clock)
    pkt = packet(Ether(**MACS) / IP() / UDP())
    for _ in range(BURST + 50):
        sink(pkt, 0, 2, request())
    assert (sink.lines, sink.suppressed) == (BURST, 50)
    clock.now += 10**9
    for _ in range(RATE + 1):
        sink(pkt, 0, 2, request())
    assert sink.lines == BURST + RATE
    assert "50 log messages suppressed" in caplog.text


def test_groups_go_to_listeners_with_the_packet() -> None:
    sink = PacketLog(Clock(10**9))
    pkt = packet(Ether(**MACS) / IP() / UDP())
    seen: list[tuple[int, dict[str, Any]]] = []
    sink.listeners.append(lambda group, event: seen.append((group, event)))
    sink(pkt, 2, 2, request(group=5, prefix="p ", snaplen=20))
    [(group, event)] = seen
    assert group == 5 and event["text"].startswith("p IN=lan") and len(event["packet"]) == 28
