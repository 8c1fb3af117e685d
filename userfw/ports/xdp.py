"""AF_XDP sockets on an existing interface: small packets with fewer system calls than a packet socket (Linux: af_xdp.rst).

A program at XDP redirects every frame into the socket of the receive queue it came in by; the host's stack never sees them.
Frames are copied once each way between the socket's area and our packets; the area is shared with the kernel, or (zero copy,
where the driver has it) with the card.

Laws:
- There are no large sends and no checksum offload here: what goes out is cut and completed (wire.gso). What a veth's other end
  leaves to its device is recognised by its value (wire.partial).
- The program hangs on a link whose descriptor we hold, so it goes with the process, however that ends.
- A frame must fit into one chunk: interfaces with a larger MTU are refused. VLAN tags that a driver strips are not seen at XDP.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import socket
import struct
from typing import Any

import cython

from userfw.ports import bpf
from userfw.ports._xsk import Ring
from userfw.ports.assembler import R1, R2, R3, Program
from userfw.ports.isolate import Isolation, isolate
from userfw.ports.netlink import Link, Netlink
from userfw.ports.netns import run_in

if not cython.compiled:
    from userfw.core.const import VNET_F_NEEDS_CSUM, VNET_GSO_NONE
    from userfw.core.drop import DROP_NOT_SPECIFIED
    from userfw.core.packet import Packet
    from userfw.ports._xsk import Umem, kick
    from userfw.ports.base import IoPort
    from userfw.wire.gso import complete_checksum
    from userfw.wire.partial import mark_untrusted

# Linux: include/uapi/linux/if_xdp.h, if_link.h, bpf.h
AF_XDP = 44
SOL_XDP = 283
XDP_MMAP_OFFSETS, XDP_RX_RING, XDP_TX_RING, XDP_UMEM_REG, XDP_UMEM_FILL_RING, XDP_UMEM_COMPLETION_RING = range(1, 7)
XDP_STATISTICS, XDP_OPTIONS = 7, 8
XDP_PGOFF_RX_RING, XDP_PGOFF_TX_RING = 0, 0x80000000
XDP_UMEM_PGOFF_FILL_RING, XDP_UMEM_PGOFF_COMPLETION_RING = 0x100000000, 0x180000000
XDP_USE_NEED_WAKEUP = 8
XDP_OPTIONS_ZEROCOPY = 1
XDP_FLAGS = {"native": 4, "generic": 2}
XDP_DROP, XDP_PASS = 1, 2
MAP_TYPE_XSKMAP = 17
REDIRECT_MAP = 51
SIOCETHTOOL = 0x8946
ETHTOOL_GCHANNELS = 0x3C
SOL_PACKET, PACKET_ADD_MEMBERSHIP, PACKET_MR_PROMISC, PACKET_MR_ALLMULTI = 263, 1, 1, 2
SO_SNDBUFFORCE = 32

ENTRIES = 2048  # of each ring
HEADROOM_XDP = 256  # XDP_PACKET_HEADROOM: what the kernel keeps free at a received frame's front
LINK_OVERHEAD = 22  # Ethernet header and two VLAN tags
CHUNKS = (2048, 4096)
MAX_MTU = CHUNKS[1] - HEADROOM_XDP - LINK_OVERHEAD



class XdpPort(IoPort):
    """One AF_XDP socket, which is one receive queue of an interface.

    `room`: bytes of the largest frame. `partial`: look for partial checksums in what comes. `shared`: what the sockets of one
    interface have in common (`Attachment`); closed with the last.
    """

    def __init__(self, name: str, sock: Any, umem: Umem, room: int, partial: bool, ifname: str = "", netns: str = "") -> None:
        super().__init__(name, "xdp")
        self.sock = sock
        self.fd = sock.fileno()
        self.umem = umem
        self.room = room
        self.partial = partial
        self.ifname = ifname
        self.netns = netns
        self.shared: Attachment | None = None
        self.completed = 0

    def join(self, shared: Attachment) -> None:
        """Be one of the sockets that this program feeds."""
        self.shared = shared
        shared.users += 1

    def receive(self, slots: list, budget: cython.int) -> cython.int:  # type: ignore[type-arg]
        """What is in the rx ring; no system call."""
        n: cython.int = self.umem.receive(slots, budget)
        i: cython.int
        pkt: Packet
        for i in range(n):
            pkt = slots[i]
            pkt.iif = self.device
            if self.partial:
                mark_untrusted(pkt)
        if n:
            self.rx_batches += 1
        return n

    def transmit(self, pkt: Packet) -> cython.int:
        """Into the tx ring, plain and complete."""
        if pkt.gso_type != VNET_GSO_NONE:
            return self.transmit_segments(pkt)
        if pkt.vnet_flags & VNET_F_NEEDS_CSUM:
            complete_checksum(pkt)
        return self.transmit_plain(pkt)

    def transmit_plain(self, pkt: Packet) -> cython.int:
        """Into the tx ring as it is."""
        if pkt.end - pkt.start > self.room or pkt.end <= pkt.start:
            return self.failed(90)  # EMSGSIZE
        if not self.umem.put(pkt):
            self.flush()
            if not self.umem.put(pkt):
                return self.failed(105)  # ENOBUFS
        return DROP_NOT_SPECIFIED

    def flush(self) -> cython.int:
        """Show the kernel what is queued and have it sent; what it has no room for now goes with the next flush."""
        umem: Umem = self.umem
        result: cython.int
        left: cython.uint
        before: cython.uint
        umem.submit()
        left = umem.pending()
        if left and umem.tx.wants_wakeup():
            for _ in range(64):  # the kernel sends 32 frames a call
                result = kick(self.fd)
                before = left
                left = umem.pending()
                if not left:
                    break
                if result and result != -11 and result != -105 and result != -16:  # EAGAIN (more is left), ENOBUFS, EBUSY
                    self.failed(-result)
                    break
                if left == before:
                    break
        self.completed += umem.reclaim()
        return 0

    def statistics(self) -> dict[str, int]:
        """struct xdp_statistics: frames the kernel could not give us, and why."""
        names = ("rx_dropped", "rx_invalid", "tx_invalid", "rx_ring_full", "fill_ring_empty", "tx_ring_empty")
        try:
            values = struct.unpack("=6Q", self.sock.getsockopt(SOL_XDP, XDP_STATISTICS, 48))
        except (OSError, struct.error):
            return {}
        return dict(zip(names, values, strict=True))

    def zero_copy(self) -> bool:
        """Whether the driver reads and writes the area itself."""
        try:
            return bool(struct.unpack("=I", self.sock.getsockopt(SOL_XDP, XDP_OPTIONS, 4))[0] & XDP_OPTIONS_ZEROCOPY)
        except OSError:
            return False

    def info(self) -> dict[str, Any]:
        """Adds the interface, how the program is attached, and what the kernel counts."""
        told: dict[str, Any] = {**super().info(), "device": self.ifname, "netns": self.netns, "refused": self.umem.refused}
        if self.shared is not None:
            told["xdp"] = self.shared.mode
        if self.fd >= 0:
            told |= {"zero_copy": self.zero_copy(), **self.statistics()}
        return told

    def close(self) -> None:
        """Close the socket; with the last one the program leaves the interface."""
        if self.shared is not None:
            self.shared.leave()
            self.shared = None
        if self.fd >= 0:
            self.sock.close()
            self.fd = -1


class Attachment:
    """What an interface's sockets share: program, map, link, the host's stack kept off. `mode`: native or generic."""

    def __init__(self, ifname: str, index: int, netns: str) -> None:
        self.ifname, self.index, self.netns = ifname, index, netns
        self.mode = ""
        self.otherwise = XDP_DROP
        self.users = 0
        self.link = -1
        self.map: bpf.Map | None = None
        self.isolation: Isolation | None = None
        self.membership: socket.socket | None = None

    def attach(self, sockets: list[Any], modes: tuple[str, ...], otherwise: int) -> None:
        """Have the interface's frames go to `sockets`, by receive queue; `otherwise`: the verdict where a queue has none.

        `modes`: what to try, in this order. OSError is that of the last.
        """
        self.map = bpf.Map(MAP_TYPE_XSKMAP, 4, 4, max(1, len(sockets)), "userfw_xsk")
        for number, sock in enumerate(sockets):
            self.map[struct.pack("=I", number)] = struct.pack("=I", sock.fileno())
        self.otherwise = otherwise
        program = bpf.load(bpf.PROG_TYPE_XDP, redirect(self.map.fd, otherwise), "userfw_xsk")
        try:
            for word in modes:
                try:
                    flags = XDP_FLAGS[word]
                    self.link = run_in(self.netns, lambda flags=flags: bpf.attach(program, self.index, bpf.ATTACH_XDP, flags))  # type: ignore[misc]
                except OSError as error:
                    if error.errno == errno.EBUSY or word == modes[len(modes) - 1]:
                        raise _explained(error, word) from None
                    continue
                self.mode = word
                break
        finally:
            os.close(program)

    def restore(self) -> None:
        """The plain program again, after another one has had its place on the link."""
        assert self.map is not None
        program = bpf.load(bpf.PROG_TYPE_XDP, redirect(self.map.fd, self.otherwise), "userfw_xsk")
        try:
            bpf.replace(self.link, program)
        finally:
            os.close(program)

    def leave(self) -> None:
        """One user less; the last one takes the program off and lets the host's stack back."""
        self.users -= 1
        if self.users <= 0:
            self.close()

    def close(self) -> None:
        """Take everything back."""
        if self.link >= 0:
            os.close(self.link)
            self.link = -1
        if self.map is not None:
            self.map.close()
        if self.isolation is not None:
            self.isolation.close()
            self.isolation = None
        if self.membership is not None:
            self.membership.close()
            self.membership = None


def _explained(error: OSError, mode: str) -> OSError:
    if error.errno == errno.EBUSY:
        return OSError(errno.EEXIST, "another XDP program is on the interface")
    if error.errno == errno.ERANGE:
        return OSError(error.errno, "the MTU is too large for XDP on this interface")
    return OSError(error.errno, f"XDP ({mode}): {error.strerror}")


def redirect(xskmap: int, otherwise: int) -> bytes:
    """The program: the frame goes to the socket of its receive queue, or gets the verdict `otherwise` (Linux 5.3)."""
    p = Program()
    p.load(4, R2, R1, 16)  # rx_queue_index
    p.map(R1, xskmap)
    p.set(R3, otherwise)
    p.call(REDIRECT_MAP)
    p.exit()
    return p.assemble()


def open_interface(
    name: str, ifname: str, netns: str = "", keep_host_off: bool = True, promiscuous: bool = False, mode: str = "auto",
) -> tuple[list[XdpPort], Link]:  # fmt: skip
    """A port for each receive queue of interface `ifname`, and the interface. `mode`: native, generic, auto (the better).

    OSError: no such interface, MTU too large, another program there, no AF_XDP, or not permitted.
    """
    netlink = Netlink(netns)
    try:
        link = netlink.link(ifname)
    finally:
        netlink.close()
    if link.mtu > MAX_MTU:
        text = f'its MTU is {link.mtu}; an AF_XDP port takes at most {MAX_MTU} (no jumbo frames), type = "packet" takes all'
        raise OSError(errno.EMSGSIZE, text)
    chunk = CHUNKS[0] if link.mtu + LINK_OVERHEAD + HEADROOM_XDP <= CHUNKS[0] else CHUNKS[1]
    shared = Attachment(ifname, link.index, netns)
    ports: list[XdpPort] = []

    modes: tuple[str, ...] = ("native", "generic") if mode == "auto" else (mode,)

    def inside() -> None:
        nonlocal modes
        kind = driver(ifname)
        partial = kind in ("veth", "tun", "")
        if kind == "veth" and mode == "auto":  # generic XDP leaves the other end its large sends, which no frame here can hold
            modes = ("native",)
        for queue in range(receive_queues(ifname)):
            sock = socket.socket(AF_XDP, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
            try:
                umem = _set_up(sock, chunk)
                sock_bind(sock, link.index, queue)
            except BaseException:
                sock.close()
                raise
            port = XdpPort(name, sock, umem, chunk, partial, ifname, netns)
            port.queue = queue
            port.join(shared)
            ports.append(port)

    try:
        shared.isolation = isolate(ifname, link.index, netns) if keep_host_off else None
        shared.membership = run_in(netns, lambda: _membership(link.index, promiscuous))
        run_in(netns, inside)
        shared.attach([port.sock for port in ports], modes, XDP_DROP if keep_host_off else XDP_PASS)
    except BaseException:
        for port in ports:
            port.close()
        shared.close()
        raise
    return ports, link


def _set_up(sock: socket.socket, chunk: int) -> Umem:
    """The area, registered, and the four rings, mapped. OSError ENOBUFS: RLIMIT_MEMLOCK is too small."""
    sock.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, 8 << 20)
    area = mmap.mmap(-1, 2 * ENTRIES * chunk)
    address = ctypes.addressof(ctypes.c_char.from_buffer(area))
    try:
        sock.setsockopt(SOL_XDP, XDP_UMEM_REG, struct.pack("=QQIIII", address, len(area), chunk, 0, 0, 0))
    except OSError as error:
        if error.errno == errno.ENOBUFS:
            text = f"{len(area) >> 20} MB cannot be locked: raise RLIMIT_MEMLOCK (LimitMEMLOCK=) or give CAP_IPC_LOCK"
            raise OSError(error.errno, text) from None
        raise
    for option in (XDP_UMEM_FILL_RING, XDP_UMEM_COMPLETION_RING, XDP_RX_RING, XDP_TX_RING):
        sock.setsockopt(SOL_XDP, option, ENTRIES)
    numbers = struct.unpack("=16Q", sock.getsockopt(SOL_XDP, XDP_MMAP_OFFSETS, 128))
    rings = []
    places = ((8, 8, XDP_UMEM_PGOFF_FILL_RING, True), (12, 8, XDP_UMEM_PGOFF_COMPLETION_RING, False),
              (0, 16, XDP_PGOFF_RX_RING, False), (4, 16, XDP_PGOFF_TX_RING, True))  # fmt: skip
    for first, step, offset, producing in places:
        layout = numbers[first : first + 4]
        memory = mmap.mmap(sock.fileno(), layout[2] + ENTRIES * step, mmap.MAP_SHARED | mmap.MAP_POPULATE, offset=offset)
        rings.append(Ring(memory, layout, ENTRIES, step, producing))
    fill, completion, rx, tx = rings
    return Umem(area, chunk, fill, completion, rx, tx)


class _SockaddrXdp(ctypes.Structure):
    _fields_ = (("family", ctypes.c_uint16), ("flags", ctypes.c_uint16), ("ifindex", ctypes.c_uint32),
                ("queue", ctypes.c_uint32), ("shared", ctypes.c_uint32))  # fmt: skip


def sock_bind(sock: socket.socket, index: int, queue: int) -> None:
    """bind(2) with sockaddr_xdp, which Python's socket does not know: zero copy where the driver has it, else copying."""
    libc = ctypes.CDLL(None, use_errno=True)
    address = _SockaddrXdp(AF_XDP, XDP_USE_NEED_WAKEUP, index, queue, 0)
    if libc.bind(sock.fileno(), ctypes.byref(address), ctypes.sizeof(address)) != 0:
        number = ctypes.get_errno()
        text = "the queue is taken by another AF_XDP socket" if number == errno.EBUSY else os.strerror(number)
        raise OSError(errno.EADDRINUSE if number == errno.EBUSY else number, text)


def _ethtool(ifname: str, command: int, size: int) -> bytes:
    """An ethtool ioctl's answer of `size` bytes. OSError."""
    buffer = ctypes.create_string_buffer(struct.pack("=I", command).ljust(size, b"\0"), size)
    request = struct.pack("16sP16x", ifname.encode(), ctypes.addressof(buffer))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        fcntl.ioctl(sock.fileno(), SIOCETHTOOL, request)
    answer: bytes = buffer.raw
    return answer


def receive_queues(ifname: str) -> int:
    """Receive queues in use, of an interface in the calling thread's namespace; 1 if the driver does not tell."""
    try:
        counts = struct.unpack("=9I", _ethtool(ifname, ETHTOOL_GCHANNELS, 36))
    except OSError:
        return 1
    return max(1, int(counts[5]) + int(counts[8]))  # rx_count, combined_count


def driver(ifname: str) -> str:
    """The driver's name, or empty."""
    try:
        return _ethtool(ifname, 3, 196)[4:36].rstrip(b"\0").decode(errors="replace")  # ETHTOOL_GDRVINFO
    except OSError:
        return ""


def _membership(index: int, promiscuous: bool) -> socket.socket:
    """Have the card take every group's frames (neighbour discovery), with `promiscuous` every frame, while this is open."""
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
    try:
        for kind in (PACKET_MR_ALLMULTI, *((PACKET_MR_PROMISC,) if promiscuous else ())):
            sock.setsockopt(SOL_PACKET, PACKET_ADD_MEMBERSHIP, struct.pack("=iHH8s", index, kind, 0, b""))
    except BaseException:
        sock.close()
        raise
    return sock
