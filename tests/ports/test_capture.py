"""Capture files: what scapy writes is read, and nothing that a file may hold does harm."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scapy.layers.l2 import Ether
from scapy.packet import Raw
from scapy.utils import PcapNgWriter, wrpcap

from userfw.core.packet import Device, Packet
from userfw.ports.capture import MAX_RECORD, CaptureError, Record, Writer, read_untrusted
from userfw.ports.pcap import open_files

FRAMES = [bytes(Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / Raw(bytes([i]) * (i + 46))) for i in range(5)]


def read(data: bytes) -> list[Record]:
    return list(read_untrusted(io.BytesIO(data)))


@pytest.mark.parametrize("nano", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
def test_scapys_pcap(tmp_path: Path, nano: bool, order: str) -> None:
    path = tmp_path / "x.pcap"
    wrpcap(str(path), [Ether(f) for f in FRAMES], nano=nano, endianness=order)
    assert [r.frame for r in read(path.read_bytes())] == FRAMES


def test_scapys_pcapng(tmp_path: Path) -> None:
    path = tmp_path / "x.pcapng"
    writer = PcapNgWriter(str(path))
    packets = [Ether(f) for f in FRAMES]
    for i, packet in enumerate(packets):
        packet.time = 1700000000 + i
        writer.write(packet)
    writer.close()
    records = read(path.read_bytes())
    assert [r.frame for r in records] == FRAMES
    assert [r.time_ns // 10**9 for r in records] == [1700000000 + i for i in range(5)]


def test_what_we_write_we_read() -> None:
    stream = io.BytesIO()
    writer = Writer(stream)
    for i, frame in enumerate(FRAMES):
        writer.write(10**18 + i, frame)
    assert [(r.time_ns, r.frame) for r in read(stream.getvalue())] == [(10**18 + i, f) for i, f in enumerate(FRAMES)]


def test_sections_of_both_byte_orders_and_simple_blocks() -> None:
    def section(o: str) -> bytes:
        return struct.pack(o + "IIIHHqI", 0x0A0D0D0A, 28, 0x1A2B3C4D, 1, 0, -1, 28)

    def block(o: str, kind: int, body: bytes) -> bytes:
        body += bytes(-len(body) % 4)
        return struct.pack(o + "II", kind, 12 + len(body)) + body + struct.pack(o + "I", 12 + len(body))

    data = b""
    for o in "<>":
        data += section(o) + block(o, 1, struct.pack(o + "HHI", 1, 0, 60))
        data += block(o, 3, struct.pack(o + "I", 100) + FRAMES[0])
    assert [r.frame for r in read(data)] == [FRAMES[0][:60]] * 2


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"nonsense",
        struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1) + struct.pack("<IIII", 0, 0, MAX_RECORD + 1, 1),
        struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1) + struct.pack("<IIII", 0, 0, 100, 100) + b"short",
        struct.pack("<IIIHHqI", 0x0A0D0D0A, 28, 0x1A2B3C4D, 1, 0, -1, 28) + struct.pack("<II", 6, 8),
        struct.pack("<IIIHHqI", 0x0A0D0D0A, 28, 0x1A2B3C4D, 1, 0, -1, 28) + struct.pack("<II", 6, 32) + bytes(20) + b"\0\0\0\0",
    ],
)
def test_broken_files_are_refused(data: bytes) -> None:
    with pytest.raises(CaptureError):
        read(data)


VALID = struct.pack("<IIIHHqI", 0x0A0D0D0A, 28, 0x1A2B3C4D, 1, 0, -1, 28) + struct.pack("<IIHHII", 1, 20, 1, 0, 0, 20)


@given(
    st.one_of(st.binary(max_size=200), st.binary(max_size=120).map(lambda b: VALID + b)), st.integers(0, 60), st.integers(0, 255)
)
@example(VALID + struct.pack("<II", 6, 0xFFFFFFFC), 0, 0)
def test_no_file_does_harm(data: bytes, position: int, value: int) -> None:
    mutated = bytearray(data)
    if position < len(mutated):
        mutated[position] = value
    try:
        for record in read_untrusted(io.BytesIO(bytes(mutated))):
            assert len(record.frame) <= MAX_RECORD
    except CaptureError:
        pass


def test_port_plays_each_frame_once_and_records(tmp_path: Path) -> None:
    wrpcap(str(tmp_path / "in.pcap"), [Ether(f) for f in FRAMES])
    port = open_files("replay", str(tmp_path / "in.pcap"), str(tmp_path / "out.pcap"))
    port.attach(Device("replay", 2, b"\x02\0\0\0\0\x01"))
    slots = [Packet() for _ in range(3)]
    assert port.receive(slots, 3) == 3 and not port.finished
    for pkt in slots:
        assert port.transmit(pkt) == 0
    assert port.receive(slots, 3) == 2 and port.receive(slots, 3) == 0 and port.finished
    assert port.info()["frames_out"] == 3
    port.close()
    assert [r.frame for r in read((tmp_path / "out.pcap").read_bytes())] == FRAMES[:3]


def test_port_ends_its_input_at_a_broken_record(tmp_path: Path) -> None:
    path = tmp_path / "in.pcap"
    wrpcap(str(path), [Ether(f) for f in FRAMES])
    path.write_bytes(path.read_bytes()[:-3])
    port = open_files("replay", str(path), None)
    port.attach(Device("replay", 2, b"\x02\0\0\0\0\x01"))
    assert port.receive([Packet() for _ in range(9)], 9) == 4
    assert port.finished and port.rx_errors == 1
    port.close()


def test_something_else_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("hello")
    with pytest.raises(OSError, match="neither pcap"):
        open_files("replay", str(tmp_path / "x"), None)
