"""The leaf with raw pointers: system calls that move frames between file descriptors and packet buffers.

Laws:
- A range is checked against the buffer once, before a pointer to it is taken; no pointer outlives the call that took it.
- The interpreter lock is held throughout: every call is non-blocking and short, and while it runs nobody can resize a buffer.
  `yield_processor`, which touches none, gives it up.
- Nothing raises for what the kernel says: a failure is returned as the negative errno.
- Uncompiled, the same functions run on the standard library's calls.
"""

import os
import select
import socket
import time
from typing import Any

import cython

if not cython.compiled:
    from userfw.core.const import HEADROOM, MAX_FRAME
    from userfw.core.packet import Packet

    MMSG_MAX = 64
    # names that only exist compiled; the .pxd gives them their C meaning
    PyByteArray_AS_STRING: Any = None
    sys_read: Any = None
    sys_write: Any = None
    clock_gettime: Any = None
    sched_yield: Any = None
    epoll_wait: Any = None
    recvmmsg: Any = None
    sendmmsg: Any = None
    memset: Any = None
    errno: Any = 0
    CMSG_FIRSTHDR: Any = None
    CMSG_NXTHDR: Any = None
    CMSG_DATA: Any = None
    timespec = Any
    cmsg_p = Any
    aux_p = Any

# Linux: include/uapi/linux/if_packet.h
SOL_PACKET = 263
PACKET_AUXDATA = 8
TP_STATUS_VLAN_VALID = 1 << 4
TP_STATUS_VLAN_TPID_VALID = 1 << 6


def read_at(fd: cython.int, data: bytearray, off: cython.Py_ssize_t, size: cython.Py_ssize_t) -> cython.Py_ssize_t:
    """read(2) into `data[off:off+size]`: bytes read, or the negative errno. IndexError if the range does not fit."""
    if off < 0 or size < 0 or off + size > len(data):
        raise IndexError("read beyond the buffer")
    if not cython.compiled:
        try:
            with memoryview(data) as view:
                return os.readv(fd, [view[off : off + size]])
        except OSError as error:
            return -(error.errno or 5)
    got: cython.Py_ssize_t = sys_read(fd, PyByteArray_AS_STRING(data) + off, size)
    return got if got >= 0 else -errno


def write_at(fd: cython.int, data: bytearray, off: cython.Py_ssize_t, size: cython.Py_ssize_t) -> cython.Py_ssize_t:
    """write(2) of `data[off:off+size]`: bytes written, or the negative errno. IndexError if the range does not fit."""
    if off < 0 or size < 0 or off + size > len(data):
        raise IndexError("write beyond the buffer")
    if not cython.compiled:
        try:
            with memoryview(data) as view:
                return os.write(fd, view[off : off + size])
        except OSError as error:
            return -(error.errno or 5)
    put: cython.Py_ssize_t = sys_write(fd, PyByteArray_AS_STRING(data) + off, size)
    return put if put >= 0 else -errno


def monotonic_ns() -> cython.ulonglong:
    """CLOCK_MONOTONIC in nanoseconds."""
    if not cython.compiled:
        return time.monotonic_ns()
    now = cython.declare(timespec)
    clock_gettime(1, cython.address(now))
    seconds: cython.ulonglong = now.tv_sec
    nanoseconds: cython.ulonglong = now.tv_nsec
    return seconds * 1000000000 + nanoseconds


def yield_processor() -> cython.int:
    """sched_yield(2), the interpreter's lock given up meanwhile: another thread that waits for either runs first; 0."""
    if not cython.compiled:
        os.sched_yield()
        return 0
    with cython.nogil:
        sched_yield()
    return 0


class Batch:
    """Up to 64 frames in one recvmmsg(2) or sendmmsg(2) on a packet socket, each after a header of `prefix` bytes.

    Frames are received at HEADROOM, the header (virtio-net) right before it; frames are sent from `start - prefix`.
    """

    def __init__(self, prefix: int) -> None:
        if not 0 <= prefix <= HEADROOM:
            raise ValueError("prefix")
        self.prefix = prefix
        self.sock: Any = None
        self.results: list[Any] = []
        if not cython.compiled:
            self.messages: Any = None
            self.vectors: Any = None
            self.control: Any = None

    def receive(self, fd: cython.int, slots: list, count: cython.int) -> cython.int:  # type: ignore[type-arg]
        """Fill the buffers of up to `count` Packets of `slots`: how many, or the negative errno."""
        count = min(count, MMSG_MAX, len(slots))
        i: cython.int
        pkt: Packet
        if not cython.compiled:
            return self._receive_interpreted(fd, slots[:count])
        size: cython.Py_ssize_t = MAX_FRAME + self.prefix
        for i in range(count):
            pkt = slots[i]
            if len(pkt.data) < HEADROOM + MAX_FRAME:
                raise IndexError("packet buffer too small")
            self.vectors[i].iov_base = PyByteArray_AS_STRING(pkt.data) + HEADROOM - self.prefix
            self.vectors[i].iov_len = size
            memset(cython.address(self.messages[i]), 0, cython.sizeof(self.messages[i]))
            self.messages[i].msg_hdr.msg_iov = cython.address(self.vectors[i])
            self.messages[i].msg_hdr.msg_iovlen = 1
            self.messages[i].msg_hdr.msg_control = cython.address(self.control[i])
            self.messages[i].msg_hdr.msg_controllen = 64
        got: cython.int = recvmmsg(fd, self.messages, count, 0x60, cython.NULL)  # MSG_DONTWAIT | MSG_TRUNC
        return got if got >= 0 else -errno

    def _receive_interpreted(self, fd: int, slots: list[Packet]) -> int:
        if self.sock is None:
            self.sock = socket.socket(fileno=os.dup(fd))
            self.sock.setblocking(False)
        self.results.clear()
        for pkt in slots:
            try:
                with memoryview(pkt.data) as view:
                    into = view[HEADROOM - self.prefix : HEADROOM + MAX_FRAME]
                    size, ancillary, _, _ = self.sock.recvmsg_into([into], 64, socket.MSG_DONTWAIT | socket.MSG_TRUNC)
                    into.release()
            except OSError as error:
                return len(self.results) or -(error.errno or 5)
            tci = tpid = -1
            for level, kind, value in ancillary:
                if level == SOL_PACKET and kind == PACKET_AUXDATA and len(value) >= 20:
                    status = int.from_bytes(value[0:4], "little")
                    if status & TP_STATUS_VLAN_VALID:
                        tci = int.from_bytes(value[16:18], "little")
                        tpid = int.from_bytes(value[18:20], "little") if status & TP_STATUS_VLAN_TPID_VALID else 0x8100
            self.results.append((size, tci, tpid))
        return len(self.results)

    def length(self, i: cython.int) -> cython.Py_ssize_t:
        """Bytes of message `i` of the last receive, header included; more than the buffer if it was cut."""
        if not 0 <= i < MMSG_MAX:
            raise IndexError("message")
        if not cython.compiled:
            return int(self.results[i][0])
        length: cython.Py_ssize_t = self.messages[i].msg_len
        return length

    def vlan(self, i: cython.int) -> cython.int:
        """The VLAN TCI that the kernel took out of frame `i`, or -1."""
        if not 0 <= i < MMSG_MAX:
            raise IndexError("message")
        if not cython.compiled:
            return int(self.results[i][1])
        aux: aux_p = self._auxdata(i)
        if aux == cython.NULL or not aux.tp_status & 16:
            return -1
        tci: cython.int = aux.tp_vlan_tci
        return tci

    def vlan_protocol(self, i: cython.int) -> cython.int:
        """The EtherType of that tag (0x8100 where the kernel does not say)."""
        if not 0 <= i < MMSG_MAX:
            raise IndexError("message")
        if not cython.compiled:
            return int(self.results[i][2])
        aux: aux_p = self._auxdata(i)
        if aux == cython.NULL or not aux.tp_status & 64:
            return 0x8100
        tpid: cython.int = aux.tp_vlan_tpid
        return tpid

    def _auxdata(self, i: cython.int) -> Any:
        header: cmsg_p = CMSG_FIRSTHDR(cython.address(self.messages[i].msg_hdr))
        while header != cython.NULL:
            if header.cmsg_level == 263 and header.cmsg_type == 8:
                return cython.cast(aux_p, CMSG_DATA(header))
            header = CMSG_NXTHDR(cython.address(self.messages[i].msg_hdr), header)
        return cython.NULL

    def send(self, fd: cython.int, packets: list, first: cython.int, count: cython.int) -> cython.int:  # type: ignore[type-arg]
        """Send `packets[first:first+count]` (at most 64), each from `start - prefix`: how many, or the negative errno."""
        count = min(count, MMSG_MAX, len(packets) - first)
        i: cython.int
        pkt: Packet
        if first < 0 or count <= 0:
            return 0
        if not cython.compiled:
            return self._send_interpreted(fd, packets[first : first + count])
        for i in range(count):
            pkt = packets[first + i]
            if pkt.start < self.prefix or pkt.end < pkt.start or pkt.end > len(pkt.data):
                raise IndexError("frame beyond its buffer")
            self.vectors[i].iov_base = PyByteArray_AS_STRING(pkt.data) + pkt.start - self.prefix
            self.vectors[i].iov_len = pkt.end - pkt.start + self.prefix
            memset(cython.address(self.messages[i]), 0, cython.sizeof(self.messages[i]))
            self.messages[i].msg_hdr.msg_iov = cython.address(self.vectors[i])
            self.messages[i].msg_hdr.msg_iovlen = 1
        sent: cython.int = sendmmsg(fd, self.messages, count, 0x40)  # MSG_DONTWAIT
        return sent if sent >= 0 else -errno

    def _send_interpreted(self, fd: int, packets: list[Packet]) -> int:
        sent = 0
        for pkt in packets:
            size = write_at(fd, pkt.data, pkt.start - self.prefix, pkt.end - pkt.start + self.prefix)
            if size < 0:
                return sent or size
            sent += 1
        return sent

    def close(self) -> None:
        """Release what the interpreted form holds."""
        if self.sock is not None:
            self.sock.close()
            self.sock = None


class Readiness:
    """An epoll set whose members carry a small number: which ports have something to read. Level-triggered."""

    def __init__(self) -> None:
        self.epoll: Any = select.epoll()
        self.fd = self.epoll.fileno()
        self.tags: list[int] = []
        if not cython.compiled:
            self.results: list[tuple[int, int]] = []
            self.events: Any = None

    def add(self, fd: int, tag: int) -> None:
        """Watch `fd` for reading; `tag` (>= 0) is what `tag()` reports. OSError if the fd cannot be polled."""
        self.epoll.register(fd, select.EPOLLIN)
        self.tags.extend([-1] * (fd + 1 - len(self.tags)))
        self.tags[fd] = tag

    def remove(self, fd: int) -> None:
        """Stop watching; unknown descriptors are ignored."""
        if fd < len(self.tags) and self.tags[fd] >= 0:
            self.tags[fd] = -1
            self.epoll.unregister(fd)

    def wait(self, milliseconds: cython.int) -> cython.int:
        """How many members are ready (at most 64), or the negative errno; 0 milliseconds returns at once."""
        if not cython.compiled:
            self.results = self.epoll.poll(milliseconds / 1000, 64)
            return len(self.results)
        ready: cython.int = epoll_wait(self.fd, self.events, 64, milliseconds)
        return ready if ready >= 0 else -errno

    def tag(self, i: cython.int) -> cython.int:
        """The number of ready member `i`, or -1."""
        if not 0 <= i < 64:
            raise IndexError("event")
        fd: cython.int
        if not cython.compiled:
            fd = self.results[i][0]
        else:
            fd = self.events[i].data.fd
        return self.tags[fd] if 0 <= fd < len(self.tags) else -1

    def close(self) -> None:
        """Release the set."""
        self.epoll.close()
