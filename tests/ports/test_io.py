"""The I/O leaf and the ports on socket pairs: no device, no root."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from userfw.core.const import (
    HEADROOM,
    MAX_FRAME,
    VNET_F_NEEDS_CSUM,
    VNET_GSO_NONE,
    VNET_GSO_TCPV4,
    VNET_GSO_UDP_L4,
)
from userfw.core.drop import DROP_NOT_SPECIFIED, DROP_TX_FAILED, DROP_TX_QUEUE_FULL
from userfw.core.packet import Device, Packet
from userfw.ports import _io
from userfw.ports.base import GRO
from userfw.ports.packet import PacketPort, insert_tag
from userfw.ports.tap import TunTapPort
from userfw.ports.vnet import read_header, write_header

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    theirs.setblocking(False)
    yield ours, theirs
    theirs.close()
    ours.close()


def tap(pair: Pair, prefix: int = 10) -> TunTapPort:
    port = TunTapPort("lan", "tap", os.dup(pair[0].fileno()), "eth0", prefix=prefix)
    port.attach(Device("lan", 2, bytes.fromhex("020000000001")))
    return port


def test_read_and_write_check_their_range() -> None:
    data = bytearray(100)
    for off, size in ((-1, 10), (95, 10), (0, -1), (0, 101)):
        with pytest.raises(IndexError):
            _io.read_at(0, data, off, size)
        with pytest.raises(IndexError):
            _io.write_at(0, data, off, size)


def test_failures_are_negative_errno() -> None:
    assert _io.read_at(-1, bytearray(10), 0, 10) == -errno.EBADF
    assert _io.write_at(-1, bytearray(10), 0, 10) == -errno.EBADF


def test_tap_reads_until_empty_and_within_its_budget(pair: Pair) -> None:
    port = tap(pair)
    slots = [Packet() for _ in range(4)]
    for i in range(6):
        pair[1].send(bytes(10) + bytes([i]) * 60)
    assert port.receive(slots, 4) == 4
    assert [bytes(p.frame()) for p in slots] == [bytes([i]) * 60 for i in range(4)]
    assert all(p.start == HEADROOM and p.iif.name == "lan" for p in slots)
    assert port.receive(slots, 64) == 2
    assert port.receive(slots, 4) == 0 and port.rx_errors == 0
    port.close()


def test_tap_counts_a_frame_shorter_than_its_header(pair: Pair) -> None:
    port = tap(pair)
    pair[1].send(bytes(10))
    pair[1].send(bytes(10) + b"x" * 20)
    assert port.receive([Packet(), Packet()], 2) == 1
    assert port.rx_errors == 1
    port.close()


def test_tap_header_survives_the_way_through(pair: Pair) -> None:
    port = tap(pair)
    header = bytes([1, 1]) + (54).to_bytes(2, "little") + (1448).to_bytes(2, "little") + (34).to_bytes(2, "little")
    header += (16).to_bytes(2, "little")
    frame = bytearray(range(256)) * 8
    frame[34 + 12] = 0x50
    pair[1].send(header + frame)
    pkt = Packet()
    assert port.receive([pkt], 1) == 1
    facts = (pkt.vnet_flags, pkt.gso_type, pkt.gso_size, pkt.csum_start, pkt.csum_offset)
    assert facts == (VNET_F_NEEDS_CSUM, VNET_GSO_TCPV4, 1448, 34, 16)
    assert port.transmit(pkt) == DROP_NOT_SPECIFIED
    assert pair[1].recv(1 << 16) == header + frame
    port.close()


def test_ports_say_which_large_sends_they_take(pair: Pair) -> None:
    port = tap(pair)
    taken = []
    for port.tx_tso, port.tx_uso in ((True, True), (True, False), (False, False)):
        taken.append(port.takes())
    assert taken == [GRO["all"], GRO["tcp"], GRO["off"]] and port.info()["gro"] == "off"
    port.close()


def test_tap_names_why_a_write_failed(pair: Pair) -> None:
    port = tap(pair)
    pkt = Packet()
    pkt.load_frame(bytes(60))
    while (reason := port.transmit(pkt)) == DROP_NOT_SPECIFIED:
        pass
    assert reason == DROP_TX_QUEUE_FULL and port.tx_full == 1
    port.close()
    port.fd = -1
    assert port.transmit(pkt) == DROP_TX_FAILED and port.tx_errors == 1
    pkt.start = 4
    assert port.transmit(pkt) == DROP_TX_FAILED, "no room for the header"


@given(st.binary(min_size=10, max_size=10), st.binary(max_size=100))
def test_any_header_can_be_read_and_written(header: bytes, frame: bytes) -> None:
    pkt = Packet()
    pkt.load_frame(frame)
    pkt.data[HEADROOM - 10 : HEADROOM] = header
    read_header(pkt)
    pkt.csum_start = min(pkt.csum_start, 60000)
    write_header(pkt)
    again = Packet()
    again.load_frame(frame)
    again.data[HEADROOM - 10 : HEADROOM] = pkt.data[HEADROOM - 10 : HEADROOM]
    read_header(again)
    assert (again.gso_type, again.gso_size) == (pkt.gso_type, pkt.gso_size)
    if pkt.vnet_flags & VNET_F_NEEDS_CSUM:
        assert (again.csum_start, again.csum_offset) == (pkt.csum_start, pkt.csum_offset)
    else:
        assert (again.vnet_flags, again.csum_start) == (0, 0)


# -- packet socket


@pytest.fixture
def datagrams() -> Iterator[Pair]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    for sock in (ours, theirs):
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    yield ours, theirs
    ours.close()
    theirs.close()


@pytest.fixture
def port(datagrams: Pair) -> Iterator[PacketPort]:
    port = PacketPort("wan", datagrams[0], "eth1")
    port.attach(Device("wan", 3, bytes.fromhex("020000000002")))
    yield port
    port.close()


def test_packet_port_receives_a_batch(port: PacketPort, datagrams: Pair) -> None:
    for i in range(5):
        datagrams[1].send(bytes(10) + bytes([i]) * (60 + i))
    slots = [Packet() for _ in range(64)]
    assert port.receive(slots, 64) == 5
    assert [len(p.frame()) for p in slots[:5]] == [60, 61, 62, 63, 64]
    assert port.receive(slots, 64) == 0 and port.rx_errors == 0


def test_packet_port_skips_what_does_not_fit(port: PacketPort, datagrams: Pair) -> None:
    datagrams[1].send(bytes(MAX_FRAME + 11))
    datagrams[1].send(bytes(10) + b"y" * 60)
    slots = [Packet(), Packet(), Packet()]
    assert port.receive(slots, 3) == 1
    assert slots[0].frame() == b"y" * 60 and port.rx_truncated == 1
    assert len({id(p) for p in slots}) == 3, "slots stay distinct"


def test_packet_port_sends_on_flush_in_order(port: PacketPort, datagrams: Pair) -> None:
    packets = []
    for i in range(3):
        pkt = Packet()
        pkt.load_frame(bytes([i]) * 60)
        assert port.transmit(pkt) == DROP_NOT_SPECIFIED
        packets.append(pkt)
    with pytest.raises(BlockingIOError):
        datagrams[1].recv(100)
    assert port.flush() == 3 and port.flush() == 0
    assert [datagrams[1].recv(100)[10] for _ in range(3)] == [0, 1, 2]


def test_packet_port_passes_over_what_the_kernel_refuses(port: PacketPort, datagrams: Pair) -> None:
    datagrams[1].close()
    pkt = Packet()
    pkt.load_frame(bytes(60))
    port.transmit(pkt)
    assert port.flush() == 0
    assert port.tx_errors == 1 and port.refused == [DROP_TX_FAILED]


def test_packet_port_without_uso_segments(port: PacketPort, datagrams: Pair) -> None:
    frame = bytes.fromhex("02000000000202000000000108004500") + (28 + 3000).to_bytes(2, "big") + bytes.fromhex(
        "0001000040110000" "0a0000010a000002" "04d200350bc00000"
    ) + bytes(3000)  # fmt: skip
    pkt = Packet()
    pkt.load_frame(frame)
    pkt.l3, pkt.l4, pkt.l4proto, pkt.nfproto = HEADROOM + 14, HEADROOM + 34, 17, 2
    pkt.gso_type, pkt.gso_size = VNET_GSO_UDP_L4, 1000
    pkt.vnet_flags, pkt.csum_start, pkt.csum_offset = VNET_F_NEEDS_CSUM, 34, 6
    assert port.transmit(pkt) == DROP_NOT_SPECIFIED
    sizes = [len(datagrams[1].recv(4000)) for _ in range(3)]
    assert sizes == [10 + 42 + 1000] * 3 and port.segmented == 1


def test_vlan_tag_is_put_back() -> None:
    pkt = Packet()
    pkt.load_frame(bytes(range(12)) + b"\x08\x00" + b"z" * 46)
    pkt.vnet_flags, pkt.csum_start, pkt.gso_type = VNET_F_NEEDS_CSUM, 34, VNET_GSO_NONE
    insert_tag(pkt, 0x2005, 0x8100)
    assert pkt.frame() == bytes(range(12)) + b"\x81\x00\x20\x05\x08\x00" + b"z" * 46
    assert pkt.csum_start == 38


def test_readiness_tells_which_member() -> None:
    readers, writers = zip(*(os.pipe() for _ in range(3)), strict=True)
    ready = _io.Readiness()
    for tag, fd in enumerate(readers):
        ready.add(fd, tag)
    assert ready.wait(0) == 0
    os.write(writers[1], b"x")
    assert ready.wait(0) == 1 and ready.tag(0) == 1
    ready.remove(readers[1])
    assert ready.wait(0) == 0
    ready.remove(readers[1])
    ready.close()
    for fd in (*readers, *writers):
        os.close(fd)


def test_clock_goes_forward() -> None:
    first = _io.monotonic_ns()
    assert _io.monotonic_ns() >= first > 0
