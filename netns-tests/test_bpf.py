"""The forwarding program against the mock NIC, packet for packet, in the kernel's own test run (no device, no traffic)."""

from __future__ import annotations

import os
import struct
from random import Random

import pytest
from flows import Pair, colons, random_packet, tagged
from scapy.all import IP, TCP, UDP, Ether, IPv6, Raw
from userfw_hw.bpf import forward
from userfw_hw.bpf.edges import TC, XDP
from userfw_hw.mock import MockNic

from userfw.core.clock import Clock
from userfw.core.packet import Device, Packet
from userfw.offload.contract import Actions, Match, Rule
from userfw.ports import bpf as syscall
from userfw.ports.base import IoPort

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="bpf(2) needs root")

XDP_PASS, XDP_REDIRECT, TC_REDIRECT = 2, 4, 7
MAC = bytes(6)  # the address of `lo`, where the kernel's test run of a tc program takes place
KINDS = {"xdp": (XDP, syscall.PROG_TYPE_XDP), "tc": (TC, syscall.PROG_TYPE_SCHED_CLS)}


class Wire(IoPort):
    def __init__(self, name: str) -> None:
        super().__init__(name, "wire")
        self.left: list[bytes] = []

    def transmit(self, pkt: Packet) -> int:
        self.left.append(pkt.frame())
        return 0


class Bench:
    """One program and one mock NIC with the same flows."""

    def __init__(self, kind: str) -> None:
        self.edge, program = KINDS[kind]
        self.flows = syscall.Map(syscall.MAP_TYPE_HASH, forward.KEY_SIZE, forward.VALUE_SIZE, 4096, "test")
        self.program = syscall.load(program, forward.build(self.edge, self.flows.fd, 1, [MAC]), "test")
        self.redirected = XDP_REDIRECT if kind == "xdp" else TC_REDIRECT
        self.nic = MockNic(Clock(1))
        self.devices = [Device("in", 1, MAC), Device("out", 2, bytes(6))]
        self.wires = [Wire(device.name) for device in self.devices]
        self.ports = [self.nic.attach(device, wire) for device, wire in zip(self.devices, self.wires, strict=True)]
        self.number = 0

    def add(self, match: Match, actions: Actions) -> None:
        self.number += 1
        self.flows[forward.key(match)] = forward.value(match, actions)
        failures: list[object] = []
        self.nic.install([Rule(self.number, match, actions)], lambda _, failure: failures.append(failure))
        assert failures == [None]

    def kernel(self, frame: bytes) -> bytes | None:
        verdict, after, _ = syscall.test_run(self.program, frame)
        if verdict == self.redirected:
            return after
        assert after == frame, "a frame that is passed up must be untouched"
        return None

    def mock(self, frame: bytes) -> bytes | None:
        pkt = Packet()
        pkt.load_frame(frame)
        pkt.iif = self.devices[0]
        return self.wires[1].left.pop() if self.nic.handle(self.ports[0], pkt) else None

    def close(self) -> None:
        os.close(self.program)
        self.flows.close()


@pytest.fixture(params=KINDS)
def bench(request: pytest.FixtureRequest):  # type: ignore[no-untyped-def]
    made = Bench(request.param)
    yield made
    made.close()


def random_flow(rng: Random) -> tuple[Match, Actions]:
    size = rng.choice((4, 16))
    source, destination = rng.randbytes(size), rng.randbytes(size)
    ports = rng.randrange(65536), rng.randrange(65536)
    new = [rng.randbytes(size) if rng.randrange(2) else old for old in (source, destination)]
    new_ports = [rng.randrange(65536) if rng.randrange(2) else old for old in ports]
    match = Match("in", 1, rng.choice((6, 17)), source, destination, *ports, random_tags(rng))
    mtu = rng.choice((1500, 1400, 9000))
    actions = Actions("out", 2, *new, *new_ports, rng.randbytes(6), rng.randbytes(6), random_tags(rng), mtu)  # type: ignore[misc]
    return match, actions


def random_tags(rng: Random) -> tuple[tuple[int, int], ...]:
    return tuple((rng.choice((0x8100, 0x88A8)), rng.randrange(1, 4095)) for _ in range(rng.choice((0, 0, 1, 1, 2))))


def test_the_program_does_what_the_mock_nic_does(bench: Bench) -> None:
    rng = Random(20_241_123)
    forwarded = passed = 0
    for _ in range(500):
        match, actions = random_flow(rng)
        bench.add(match, actions)
        for _ in range(5):
            frame = random_packet(rng, match).frame
            if len(frame) < 54:
                continue  # the kernel's test run takes no frame without a whole network header
            expected = bench.mock(frame)
            if expected is not None and actions.vlans and bench.edge is TC:
                expected = expected[:12] + expected[16:]  # the outer tag stands beside the frame: test_offload.py sees it on a wire
            assert bench.kernel(frame) == expected, frame.hex()
            forwarded += expected is not None
            passed += expected is None
    assert forwarded > 800 and passed > 300


def test_the_program_does_what_the_flowtable_does() -> None:
    """XDP against the flowtable it was filled from, packet for packet over random flows of a whole gateway (more: `make flows`)."""
    pair = Pair(Random(20_261_123))
    try:
        for _ in range(150):
            pair.run(4)
        assert pair.forwarded > 400 and pair.passed > 200
    finally:
        pair.close()


def test_counters_and_unknown_flows(bench: Bench) -> None:
    rng = Random(5)
    match, actions = random_flow(rng)
    bench.add(match, actions)
    frame = b""
    while bench.mock(frame := random_packet(rng, match).frame) is None:
        pass
    for _ in range(3):
        assert bench.kernel(frame) is not None
    entry = bench.flows.get(forward.key(match))
    assert entry is not None
    packets, octets, last = forward.counters(entry)
    assert (packets, octets) == (3, 3 * (len(frame) - 14 - 4 * len(match.vlans))) and last > 0
    assert bench.flows.pop(forward.key(match))
    assert bench.kernel(frame) is None
    assert not bench.flows.pop(forward.key(match))


def test_what_a_sender_left_to_its_device_is_passed_up_at_xdp() -> None:
    """A checksum that is only the sum of the pseudo-header (Linux: CHECKSUM_PARTIAL): completing it is the host's."""
    rng = Random(11)
    bench = Bench("xdp")
    try:
        for _ in range(40):
            match, actions = random_flow(rng)
            bench.add(match, actions)
            l4 = TCP(sport=match.source_port, dport=match.destination_port) if match.protocol == 6 else UDP(
                sport=match.source_port, dport=match.destination_port
            )
            ip = IP(src=".".join(map(str, match.source)), dst=".".join(map(str, match.destination))) if len(match.source) == 4 \
                else IPv6(src=colons(match.source), dst=colons(match.destination))
            if match.protocol == 6:
                l4.flags = "A"
            data = rng.randbytes(rng.randrange(64))
            frame = bytearray(bytes(tagged(Ether(dst="00:00:00:00:00:00"), match.vlans, rng) / ip / l4 / Raw(data)))
            size = len(bytes(l4 / Raw(data)))
            pseudo = match.source + match.destination + struct.pack(">HH", match.protocol, size)
            total = sum(struct.unpack(f">{len(pseudo) // 2}H", pseudo))
            while total >> 16:
                total = (total & 0xFFFF) + (total >> 16)
            at = len(frame) - size + (16 if match.protocol == 6 else 6)
            frame[at : at + 2] = struct.pack(">H", total)
            assert bench.kernel(bytes(frame)) is None
            entry = bench.flows.get(forward.key(match))
            assert entry is not None and forward.partial(entry) == 1 and forward.counters(entry)[0] == 0
    finally:
        bench.close()


def test_a_refused_program_brings_the_verifiers_words() -> None:
    with pytest.raises(syscall.VerifierError) as refused:
        syscall.load(syscall.PROG_TYPE_XDP, bytes.fromhex("9500000000000000"), "bad")
    assert "R0" in refused.value.log
