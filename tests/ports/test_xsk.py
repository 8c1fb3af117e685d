"""The rings of an AF_XDP socket against a kernel made of Python: no socket, no root."""

from __future__ import annotations

import random
import struct
from collections import deque

import pytest

from userfw.core.const import HEADROOM
from userfw.core.packet import Packet
from userfw.ports._xsk import Ring, Umem, kick
from userfw.ports.xdp import XDP_DROP, redirect

LAYOUT = (0, 64, 192, 128)  # producer, consumer, entries, flags
SIZE, CHUNK = 8, 256


class Other:
    """The kernel's side of a ring: `memory` is shared with a Ring."""

    def __init__(self, step: int, start: int = 0) -> None:
        self.memory = bytearray(192 + SIZE * step)
        self.step = step
        self.put32(0, start)
        self.put32(64, start)

    def get32(self, off: int) -> int:
        return int(struct.unpack_from("=I", self.memory, off)[0])

    def put32(self, off: int, value: int) -> None:
        struct.pack_into("=I", self.memory, off, value & 0xFFFFFFFF)

    def produce(self, *fields: int) -> None:
        at = self.get32(0)
        struct.pack_into("=Q" if self.step == 8 else "=QII", self.memory, 192 + at % SIZE * self.step, *fields)
        self.put32(0, at + 1)

    def consume(self) -> tuple[int, ...] | None:
        at = self.get32(64)
        if at == self.get32(0):
            return None
        found = struct.unpack_from("=Q" if self.step == 8 else "=QII", self.memory, 192 + at % SIZE * self.step)
        self.put32(64, at + 1)
        return found


class Kernel:
    """An area, the kernel's ends of its four rings, and our Umem."""

    def __init__(self, start: int = 0) -> None:
        self.area = bytearray(2 * SIZE * CHUNK)
        self.fill, self.completion, self.rx, self.tx = Other(8, start), Other(8, start), Other(16, start), Other(16, start)
        steps = ((self.fill, True), (self.completion, False), (self.rx, False), (self.tx, True))
        self.umem = Umem(self.area, CHUNK, *(Ring(o.memory, LAYOUT, SIZE, o.step, producing) for o, producing in steps))

    def deliver(self, frame: bytes) -> bool:
        """As xsk_rcv does: false if there is no frame to put it into."""
        taken = self.fill.consume()
        if taken is None:
            return False
        address = taken[0] + 16
        self.area[address : address + len(frame)] = frame
        self.rx.produce(address, len(frame), 0)
        return True


def packet(frame: bytes) -> Packet:
    pkt = Packet()
    pkt.load_frame(frame)
    return pkt


@pytest.mark.parametrize("start", [0, 2**32 - 5])
def test_frames_arrive_whole_and_their_room_is_given_back(start: int) -> None:
    kernel = Kernel(start)
    slots = [Packet() for _ in range(4)]
    for turn in range(10 * SIZE):
        frames = [bytes([turn % 256, i]) * 30 for i in range(turn % 4 + 1)]
        assert all(kernel.deliver(frame) for frame in frames)
        assert kernel.umem.receive(slots, 4) == len(frames)
        assert [slot.frame() for slot in slots[: len(frames)]] == frames
        assert all(slot.start == HEADROOM for slot in slots[: len(frames)])
    assert kernel.umem.receive(slots, 4) == 0
    assert sum(1 for _ in iter(kernel.fill.consume, None)) == SIZE, "every frame is with the kernel again"


def test_a_budget_leaves_the_rest_for_later() -> None:
    kernel = Kernel()
    for i in range(6):
        kernel.deliver(bytes([i]) * 60)
    slots = [Packet() for _ in range(8)]
    assert kernel.umem.receive(slots, 4) == 4 and kernel.umem.receive(slots, 8) == 2
    assert slots[1].frame() == bytes([5]) * 60


def test_a_full_area_loses_frames_at_the_kernel_and_recovers() -> None:
    kernel = Kernel()
    assert [kernel.deliver(b"x" * 60) for _ in range(SIZE + 1)] == [True] * SIZE + [False]
    assert kernel.umem.receive([Packet() for _ in range(SIZE)], SIZE) == SIZE
    assert kernel.deliver(b"y" * 60)


@pytest.mark.parametrize(
    ("address", "length", "options"), [(0, 60, 1), (2 * SIZE * CHUNK - 10, 60, 0), (2**63, 60, 0), (0, 0, 0), (0, 2**31, 0)]
)
def test_entries_that_cannot_be_are_refused(address: int, length: int, options: int) -> None:
    kernel = Kernel()
    kernel.rx.produce(address, length, options)
    kernel.deliver(b"z" * 60)
    slots = [Packet(), Packet()]
    assert kernel.umem.receive(slots, 2) == 1 and kernel.umem.refused == 1
    assert slots[0].frame() == b"z" * 60


@pytest.mark.parametrize("start", [0, 2**32 - 3])
def test_frames_go_out_in_order_and_come_back(start: int) -> None:
    kernel, rng = Kernel(start), random.Random(7)
    waiting: deque[bytes] = deque()
    under_way: deque[int] = deque()
    for number in range(500):
        choice = rng.randrange(3)
        if choice == 0:
            frame = rng.randbytes(rng.randrange(1, CHUNK + 1))
            in_flight = len(waiting) + len(under_way)
            assert kernel.umem.put(packet(frame)) == (in_flight < SIZE)
            if in_flight < SIZE:
                waiting.append(frame)
            kernel.umem.submit()
            assert kernel.umem.pending() == len(waiting)
        elif choice == 1 and waiting:
            address, length, options = kernel.tx.consume() or (0, 0, 0)
            assert bytes(kernel.area[address : address + length]) == waiting.popleft() and options == 0
            assert address not in under_way and address >= SIZE * CHUNK, number
            under_way.append(address)
        elif choice == 2 and under_way:
            kernel.completion.produce(under_way.popleft())
    assert kernel.umem.pending() == len(waiting)


def test_nothing_is_seen_before_submit() -> None:
    kernel = Kernel()
    kernel.umem.put(packet(b"a" * 60))
    assert kernel.tx.consume() is None
    kernel.umem.submit()
    assert kernel.tx.consume() is not None


def test_what_does_not_fit_raises() -> None:
    kernel = Kernel()
    for frame in (b"", b"x" * (CHUNK + 1)):
        with pytest.raises(IndexError):
            kernel.umem.put(packet(frame))
    with pytest.raises(ValueError, match="power of two"):
        Ring(bytearray(1024), LAYOUT, 6, 8, True)
    with pytest.raises(ValueError, match="fit"):
        Ring(bytearray(200), LAYOUT, SIZE, 8, True)
    ring = Ring(bytearray(256), LAYOUT, SIZE, 8, True)
    for off in (-1, 253):
        with pytest.raises(IndexError):
            ring.load32(off)
        with pytest.raises(IndexError):
            ring.store32(off, 1)
        with pytest.raises(IndexError):
            ring.load64(off)
        with pytest.raises(IndexError):
            ring.store64(off, 1)


def test_wakeup_is_what_the_flag_says() -> None:
    kernel = Kernel()
    assert not kernel.umem.tx.wants_wakeup()
    kernel.tx.put32(128, 1)
    assert kernel.umem.tx.wants_wakeup()
    assert kick(-1) == -9


def test_the_program_names_queue_map_and_fallback() -> None:
    code = redirect(5, XDP_DROP)
    assert len(code) == 6 * 8 and code[:8] == bytes((0x61, 0x12, 16, 0, 0, 0, 0, 0))
