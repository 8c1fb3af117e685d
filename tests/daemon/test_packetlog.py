"""What log statements write: the kernel's lines, no byte beyond the frame, a bounded rate."""

from __future__ import annotations

import json
import logging
import struct
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.utils import RawPcapReader

from userfw.core.clock import Clock
from userfw.core.packet import Device, Packet
from userfw.daemon.captures import Captures
from userfw.daemon.logtext import LOG_UID, audit, describe
from userfw.daemon.packetlog import BURST, RATE, Listener, PacketLog
from userfw.daemon.schema import LogGroup
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


CASES = [
    (frame, int(flags), line)
    for frame, lines in json.loads((Path(__file__).parent / "log_lines.json").read_text())
    for flags, line in lines.items()
]


@pytest.mark.parametrize(("frame", "flags", "line"), CASES)
def test_lines_are_the_kernels(frame: str, flags: int, line: str) -> None:
    """Lines of Linux 6.1 (`log prefix … flags …`) for frames that came in on `va`, the mark set where it is printed."""
    pkt = packet(bytes.fromhex(frame))
    pkt.iif, pkt.oif = Device("va", 2, bytes.fromhex("020000000001")), None
    pkt.mark = 0x1F if "MARK" in line else 0
    assert describe(pkt, flags) == line


def test_devices_owner_audit() -> None:
    pkt = packet(Ether(**MACS) / IP(src="10.0.0.1", dst="10.0.0.2", id=7) / UDP(sport=1, dport=2))
    assert audit(pkt) == "mark=0 saddr=10.0.0.1 daddr=10.0.0.2 proto=17"
    pkt.iif, pkt.mark = None, 5
    assert describe(pkt, LOG_UID, (1000, 100)).endswith("PROTO=UDP SPT=1 DPT=2 LEN=8 UID=1000 GID=100 MARK=0x5 ")
    assert describe(pkt, LOG_UID, (1000, 100)).startswith("IN= OUT=wan SRC=10.0.0.1")
    assert audit(pkt).startswith("mark=0x5 ")


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
    seen: list[dict[str, Any]] = []
    end = sink.listen(Listener(5, seen.extend))
    sink.listen(Listener(6, seen.extend))
    sink(pkt, 2, 2, request(group=5, prefix="p ", snaplen=20))
    [event] = seen
    assert event["text"].startswith("p IN=lan") and len(event["packet"]) == 28 and event["length"] == 28
    assert (event["seq"], event["iif"], event["link"][:12]) == (0, "lan", "020000000001")
    end()
    sink(pkt, 2, 2, request(group=5))
    assert len(seen) == 1 and sink.groups == {5: 2}


@pytest.mark.parametrize(("own", "rule", "sizes"), [(1, 0, [1] * 5), (3, 0, [3]), (3, 2, [2, 2]), (1, 3, [1] * 5), (100, 0, [])])
def test_thresholds(own: int, rule: int, sizes: list[int]) -> None:
    """A rule can only lower the listener's; the rest comes after a second."""
    timers: list[Any] = []

    def later(seconds: float, action: Any) -> Any:
        timers.append(action)
        return SimpleNamespace(cancel=lambda: timers.remove(action))

    sink = PacketLog(Clock(10**9), None, later)
    batches: list[list[Any]] = []
    sink.listen(Listener(5, batches.append, own))
    for _ in range(5):
        sink(packet(Ether(**MACS) / IP() / UDP()), 2, 2, request(group=5, qthreshold=rule))
    assert [len(batch) for batch in batches] == sizes and len(timers) == (sum(sizes) < 5)
    for timer in list(timers):
        timer()
    assert sum(map(len, batches)) == 5 and not timers


def test_a_capture_is_what_others_read(tmp_path: Path) -> None:
    sink = PacketLog(Clock(10**9, 1.7e9))
    config = LogGroup(file=str(tmp_path / "x.pcap"), max_size=4096)
    captures = Captures(sink)
    captures.configure({"5": config})
    for i in range(30):
        pkt = packet(Ether(**MACS) / IP(src="10.0.0.1", dst="10.0.0.2", id=i) / UDP(sport=1, dport=2) / bytes(100))
        pkt.mark = 7
        sink(pkt, 2, 2, request(group=5, prefix="hello "))
    captures.configure({})
    files = [tmp_path / "x.pcap.1", tmp_path / "x.pcap"]
    ids = []
    for file in files:
        data = file.read_bytes()
        assert struct.unpack("=IHHiIII", data[:24])[-1] == 239
        with RawPcapReader(str(file)) as reader:
            for record, _ in reader:
                attributes = dict(nflog_attributes(record[4:]))
                assert (record[0], attributes[10], attributes[2]) == (2, b"hello \0", bytes([0, 0, 0, 7]))
                ids.append(IP(attributes[9]).id)
    assert ids == list(range(30))


def nflog_attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while data:
        size, kind = struct.unpack("=HH", data[:4])
        yield kind, data[4:size]
        data = data[(size + 3) & ~3 :]
