"""The second leaf with raw pointers: the rings of an AF_XDP socket, in memory shared with the kernel (Linux: net/xdp/xsk_queue.h).

Frames are the equal parts ("chunks") of one area, the UMEM. Four rings pass their addresses on:

    fill        we give empty frames                 rx   the kernel gives received ones
    tx          we give frames to be sent            completion   the kernel gives them back

Laws:
- One side produces, one consumes. An index is read with acquire before the entries it covers, and written with release after them.
- Half of the frames are for receiving: always in the fill ring, in the kernel, or in the rx ring; the others for sending: spare,
  in the tx ring, in the kernel, or in the completion ring. Every ring has as many entries as a half has frames: none overflows.
- What the kernel writes is still checked against the area before a pointer is taken; no pointer outlives the call that took it.
- Uncompiled, the same runs on `struct` (on machines that order stores, with the interpreter lock held).
"""

import ctypes
import struct
from array import array
from typing import Any

import cython

if not cython.compiled:
    from userfw.core.const import HEADROOM, MAX_FRAME, U32_MASK
    from userfw.core.packet import Packet

    # names that only exist compiled; the .pxd gives them their C meaning
    PyByteArray_AS_STRING: Any = None
    memcpy: Any = None
    ring_load: Any = None
    ring_store: Any = None
    sys_send: Any = None
    errno: Any = 0
    _libc = ctypes.CDLL(None, use_errno=True)


Memory = Any  # a writable buffer


def kick(fd: cython.int) -> cython.int:
    """Tell the kernel that the tx ring has work: 0, or the negative errno (EAGAIN: some is left)."""
    if not cython.compiled:
        return 0 if _libc.send(fd, None, 0, 0x40) >= 0 else -ctypes.get_errno()
    return 0 if sys_send(fd, cython.NULL, 0, 0x40) >= 0 else -errno  # MSG_DONTWAIT


class Ring:
    """One ring in `memory`, of `size` entries (a power of two) of `step` bytes.

    `layout`: offsets of producer index, consumer index, entries, flags (XDP_MMAP_OFFSETS). `producing`: we write entries, the
    kernel reads them; else the other way round. `at`: our own index, which is told by `publish`.
    """

    def __init__(self, memory: Memory, layout: tuple[int, int, int, int], size: int, step: int, producing: bool) -> None:
        if size <= 0 or size & (size - 1):
            raise ValueError("a ring's size is a power of two")
        self.memory = memory
        self.length = len(memory)
        self.producer, self.consumer, self.desc, self.flags = layout
        if self.desc < 0 or self.desc + size * step > len(memory):
            raise ValueError("the ring does not fit into its memory")
        self.size = size
        self.mask = size - 1
        self.step = step
        self.producing = producing
        if cython.compiled:
            self.base = cython.address(self.memory[0])
        self.at = self.load32(self.producer if producing else self.consumer)

    def load32(self, off: cython.Py_ssize_t) -> cython.uint:
        """A number of the machine's order; what the other side wrote before it is seen after this."""
        if off < 0 or off + 4 > self.length:
            raise IndexError("beyond the ring's memory")
        if not cython.compiled:
            return int(struct.unpack_from("=I", self.memory, off)[0])
        value: cython.uint = ring_load(self.base + off)
        return value

    def store32(self, off: cython.Py_ssize_t, value: cython.uint) -> cython.int:
        """Write a number, after everything written before."""
        if off < 0 or off + 4 > self.length:
            raise IndexError("beyond the ring's memory")
        if not cython.compiled:
            struct.pack_into("=I", self.memory, off, value)
            return 0
        ring_store(self.base + off, value)
        return 0

    def load64(self, off: cython.Py_ssize_t) -> cython.ulonglong:
        """Eight bytes, in no particular order."""
        value: cython.ulonglong = 0
        if off < 0 or off + 8 > self.length:
            raise IndexError("beyond the ring's memory")
        if not cython.compiled:
            return int(struct.unpack_from("=Q", self.memory, off)[0])
        memcpy(cython.address(value), self.base + off, 8)
        return value

    def store64(self, off: cython.Py_ssize_t, value: cython.ulonglong) -> cython.int:
        """Write eight bytes, in no particular order."""
        if off < 0 or off + 8 > self.length:
            raise IndexError("beyond the ring's memory")
        if not cython.compiled:
            struct.pack_into("=Q", self.memory, off, value)
            return 0
        memcpy(self.base + off, cython.address(value), 8)
        return 0

    def available(self) -> cython.uint:
        """Entries that wait for us, of a ring that the kernel fills; entries that the kernel has not taken, of one that we fill."""
        if self.producing:
            return (self.at - self.load32(self.consumer)) & U32_MASK
        return (self.load32(self.producer) - self.at) & U32_MASK

    def slot(self) -> cython.Py_ssize_t:
        """Where the next entry is."""
        index: cython.Py_ssize_t = self.at & self.mask
        return self.desc + index * self.step

    def advance(self) -> None:
        """Go on by one entry (tests; the compiled code counts for itself)."""
        self.at = (self.at + 1) & U32_MASK

    def publish(self) -> cython.int:
        """Let the kernel see how far we are."""
        return self.store32(self.producer if self.producing else self.consumer, self.at)

    def wants_wakeup(self) -> cython.bint:
        """The kernel asks for a system call before it looks again (XDP_USE_NEED_WAKEUP, XDP_RING_NEED_WAKEUP)."""
        return self.load32(self.flags) & 1 != 0


class Umem:
    """The frames of one socket and where each of them is. `refused`: received frames that a Packet cannot hold."""

    def __init__(self, memory: Memory, chunk: int, fill: Ring, completion: Ring, rx: Ring, tx: Ring) -> None:
        entries = fill.size
        if not entries == completion.size == rx.size == tx.size:
            raise ValueError("rings of different sizes")
        if len(memory) != 2 * entries * chunk:
            raise ValueError("the area must hold two frames for each entry of a ring")
        self.memory = memory
        self.size = len(memory)
        self.chunk = chunk
        self.fill, self.completion, self.rx, self.tx = fill, completion, rx, tx
        self.refused = 0
        self.free = array("Q", [(entries + i) * chunk for i in range(entries)])
        self.spare = entries
        for i in range(entries):
            self._refill(i * chunk)
        fill.publish()

    def _refill(self, address: cython.ulonglong) -> cython.int:
        self.fill.store64(self.fill.slot(), address)
        self.fill.at = (self.fill.at + 1) & U32_MASK
        return 0

    def receive(self, slots: list, count: cython.int) -> cython.int:  # type: ignore[type-arg]
        """Copy up to `count` received frames into Packets of `slots` and give the room back: how many are filled.

        A frame in several parts, or larger than a Packet, is counted in `refused` and left out.
        """
        n: cython.int = 0
        ready: cython.uint = self.rx.available()
        address: cython.ulonglong
        where: cython.Py_ssize_t
        length: cython.Py_ssize_t
        at: cython.Py_ssize_t
        pkt: Packet
        count = min(count, len(slots))
        if not ready or count <= 0:
            return 0
        ready = min(ready, cython.cast(cython.uint, count))
        for _ in range(ready):
            at = self.rx.slot()
            address = self.rx.load64(at)
            length = self.rx.load32(at + 8)
            where = cython.cast(cython.Py_ssize_t, address)
            self.rx.at = (self.rx.at + 1) & U32_MASK
            if where < 0 or where >= self.size:
                self.refused += 1
                continue
            if length <= 0 or length > MAX_FRAME or where + length > self.size or self.rx.load32(at + 12) & 1:  # XDP_PKT_CONTD
                self.refused += 1
            else:
                pkt = slots[n]
                pkt.reset()
                self._copy_in(pkt, where, length)
                n += 1
            self._refill(address - address % self.chunk)
        self.rx.publish()
        self.fill.publish()
        return n

    def _copy_in(self, pkt: Packet, where: cython.Py_ssize_t, length: cython.Py_ssize_t) -> cython.int:
        if len(pkt.data) < HEADROOM + length:
            raise IndexError("packet buffer too small")
        if not cython.compiled:
            pkt.data[HEADROOM : HEADROOM + length] = bytes(memoryview(self.memory)[where : where + length])
        else:
            memcpy(PyByteArray_AS_STRING(pkt.data) + HEADROOM, cython.address(self.memory[where]), length)
        pkt.end = HEADROOM + length
        return 0

    def put(self, pkt: Packet) -> cython.int:
        """Copy a frame into the tx ring: 1, or 0 if every frame for sending is still under way. It must fit into a chunk."""
        length: cython.Py_ssize_t = pkt.end - pkt.start
        where: cython.Py_ssize_t
        at: cython.Py_ssize_t
        if not 0 < length <= self.chunk or pkt.start < 0 or pkt.end > len(pkt.data):
            raise IndexError("frame beyond its buffer or its chunk")
        if not self.spare:
            self.reclaim()
            if not self.spare:
                return 0
        self.spare -= 1
        where = cython.cast(cython.Py_ssize_t, self.free[self.spare])
        if not cython.compiled:
            memoryview(self.memory)[where : where + length] = pkt.data[pkt.start : pkt.end]
        else:
            memcpy(cython.address(self.memory[where]), PyByteArray_AS_STRING(pkt.data) + pkt.start, length)
        at = self.tx.slot()
        self.tx.store64(at, where)
        self.tx.store32(at + 8, cython.cast(cython.uint, length))
        self.tx.store32(at + 12, 0)
        self.tx.at = (self.tx.at + 1) & U32_MASK
        return 1

    def submit(self) -> cython.int:
        """Let the kernel see what was put."""
        return self.tx.publish()

    def reclaim(self) -> cython.int:
        """Take back the frames that were sent; how many."""
        address: cython.ulonglong
        done: cython.uint = self.completion.available()
        n: cython.int = 0
        for _ in range(done):
            address = self.completion.load64(self.completion.slot())
            self.completion.at = (self.completion.at + 1) & U32_MASK
            if address < cython.cast(cython.ulonglong, self.size) and self.spare < self.completion.size:
                self.free[self.spare] = address - address % self.chunk
                self.spare += 1
                n += 1
        if done:
            self.completion.publish()
        return n

    def pending(self) -> cython.uint:
        """Frames in the tx ring that the kernel has not taken yet."""
        return self.tx.available()
