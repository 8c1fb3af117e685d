"""TAP and TUN: a device of the kernel whose other end we hold (Linux: drivers/net/tun.c, Documentation/networking/tuntap).

What a host writes to its TAP is read here as received by the router's port; what we write, the host receives. With
IFF_VNET_HDR both ways carry large sends and partial checksums as they are. A TUN device does the same without Ethernet:
local delivery uses one, so that services on the gateway pass the input and output hooks.

Laws: one frame per read(2) and write(2), the virtio-net header in the headroom, nothing copied in between. The descriptor is
opened in the device's namespace and belongs to it for good, so it may be handed over and kept across restarts.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from typing import Any

import cython

from userfw.ports.base import GRO
from userfw.ports.netns import run_in

if not cython.compiled:
    from userfw.core.const import (
        HEADROOM,
        MAX_FRAME,
        VNET_F_NEEDS_CSUM,
        VNET_GSO_ECN,
        VNET_GSO_NONE,
        VNET_GSO_UDP_L4,
    )
    from userfw.core.drop import DROP_NOT_SPECIFIED, DROP_TX_FAILED
    from userfw.core.packet import Packet
    from userfw.ports._io import read_at, write_at
    from userfw.ports.base import BATCH_BYTES, IoPort
    from userfw.ports.vnet import VNET_SIZE, read_header, write_header

# Linux: include/uapi/linux/if_tun.h
TUNSETIFF = 0x400454CA
TUNSETPERSIST = 0x400454CB
TUNSETOFFLOAD = 0x400454D0
TUNGETIFF = 0x800454D2
TUNSETSNDBUF = 0x400454D4
TUNSETVNETHDRSZ = 0x400454D8
TUNSETVNETLE = 0x400454DC
IFF_TUN = 0x0001
IFF_TAP = 0x0002
IFF_MULTI_QUEUE = 0x0100
IFF_NO_PI = 0x1000
IFF_VNET_HDR = 0x4000
TUN_F_CSUM = 0x01
TUN_F_TSO4 = 0x02
TUN_F_TSO6 = 0x04
TUN_F_TSO_ECN = 0x08
TUN_F_USO4 = 0x20
TUN_F_USO6 = 0x40
USO = TUN_F_USO4 | TUN_F_USO6
TSO = TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN

# tried in this order; the kernel refuses the whole set if it does not know one bit
OFFLOAD_SETS = (TUN_F_CSUM | TSO | USO, TUN_F_CSUM | TSO, TUN_F_CSUM, 0)


class TunTapPort(IoPort):
    """One queue of a TAP (`kind` "tap") or TUN ("tun") device.

    `prefix`: bytes of virtio-net header before each frame (10, or 0 without offloads). `tx_tso`, `tx_uso`: large TCP sends and
    large UDP sends may be written; else they are segmented here.
    """

    def __init__(self, name: str, kind: str, fd: int, ifname: str, netns: str = "", prefix: int = 10) -> None:
        super().__init__(name, kind)
        if prefix not in (0, 10):
            raise ValueError("prefix must be 0 or 10")
        self.fd = fd
        self.ifname = ifname
        self.netns = netns
        self.prefix = prefix
        self.offloads = 0
        self.tx_tso = prefix > 0
        self.tx_uso = prefix > 0

    def receive(self, slots: list, budget: cython.int) -> cython.int:  # type: ignore[type-arg]
        """Frames read into `slots`; a frame shorter than its header is counted and skipped."""
        n: cython.int = 0
        got: cython.Py_ssize_t
        total: cython.Py_ssize_t = 0
        pkt: Packet
        budget = min(budget, len(slots))
        while n < budget and total < BATCH_BYTES:
            pkt = slots[n]
            pkt.reset()
            got = read_at(self.fd, pkt.data, HEADROOM - self.prefix, MAX_FRAME + self.prefix)
            if got <= self.prefix:
                if got == -11:  # EAGAIN
                    break
                self.rx_errors += 1
                if got < 0:
                    self.dead = got == -77 or got == -9  # EBADFD: the device was deleted
                    break
                continue
            pkt.end = HEADROOM - self.prefix + got
            if self.prefix:
                read_header(pkt)
            pkt.iif = self.device
            total += got
            n += 1
        if n:
            self.rx_batches += 1
        return n

    def transmit(self, pkt: Packet) -> cython.int:
        """Write the frame, header before it; segmented first if the kernel takes no such large send."""
        kind: cython.int = pkt.gso_type
        if kind != VNET_GSO_NONE:
            if (kind & ~VNET_GSO_ECN) == VNET_GSO_UDP_L4:
                if not self.tx_uso:
                    return self.transmit_segments(pkt)
            elif not self.tx_tso:
                return self.transmit_segments(pkt)
        elif not self.prefix and pkt.vnet_flags & VNET_F_NEEDS_CSUM:
            return self.transmit_segments(pkt)
        return self.transmit_plain(pkt)

    def transmit_plain(self, pkt: Packet) -> cython.int:
        """One write(2) of what `pkt` says."""
        if self.prefix:
            if pkt.start < VNET_SIZE:
                return DROP_TX_FAILED
            write_header(pkt)
        put: cython.Py_ssize_t = write_at(
            self.fd, pkt.data, pkt.start - self.prefix, pkt.end - pkt.start + self.prefix
        )
        if put < 0:
            return self.failed(cython.cast(cython.int, -put))
        return DROP_NOT_SPECIFIED

    def set_offloads(self) -> int:
        """Ask the kernel for as many offloads towards us as it knows; returns the TUN_F_* that hold."""
        if not self.prefix:
            return 0
        for wanted in OFFLOAD_SETS:
            try:
                fcntl.ioctl(self.fd, TUNSETOFFLOAD, wanted)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                continue
            self.offloads = wanted
            break
        # A kernel that knows the USO flags also takes VNET_GSO_UDP_L4 from us (both came with Linux 6.2).
        self.tx_uso = bool(self.offloads & USO)
        return self.offloads

    def takes(self) -> int:
        """As IoPort.takes: by what the kernel agreed to."""
        return (GRO["all"] if self.tx_uso else GRO["tcp"]) if self.tx_tso else GRO["off"]

    def info(self) -> dict[str, Any]:
        """Adds the device's name, namespace and offloads."""
        names = {TUN_F_CSUM: "csum", TUN_F_TSO4: "tso4", TUN_F_TSO6: "tso6", TUN_F_TSO_ECN: "tso-ecn",
                 TUN_F_USO4: "uso4", TUN_F_USO6: "uso6"}  # fmt: skip
        return {
            **super().info(),
            "device": self.ifname,
            "netns": self.netns,
            "offloads": [text for bit, text in names.items() if self.offloads & bit],
        }


def open_device(
    name: str,
    ifname: str,
    kind: str = "tap",
    netns: str = "",
    vnet: bool = True,
    queues: int = 1,
    persist: bool = False,
    sndbuf: int = 0,
    shared: bool = False,
) -> list[TunTapPort]:
    """Create (or attach to) device `ifname` inside `netns`: one port for each queue; `shared`: other processes have queues too.

    OSError: no such namespace, no permission, the name is taken by something else, or (EBUSY) another process holds it.
    """
    ports: list[TunTapPort] = []

    def attach() -> None:
        flags = (IFF_TAP if kind == "tap" else IFF_TUN) | IFF_NO_PI
        flags |= IFF_VNET_HDR if vnet else 0
        flags |= IFF_MULTI_QUEUE if queues > 1 or shared else 0
        for queue in range(queues):
            fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                request = struct.pack("16sH22x", ifname.encode(), flags)
                reply = fcntl.ioctl(fd, TUNSETIFF, request)
            except BaseException:
                os.close(fd)
                raise
            actual = reply[:16].rstrip(b"\0").decode()
            ports.append(TunTapPort(name, kind, fd, actual, netns, 10 if vnet else 0))
            ports[-1].queue = queue

    try:
        run_in(netns, attach)
        for port in ports:
            _configure(port, persist, sndbuf)
    except BaseException:
        for port in ports:
            port.close()
        raise
    return ports


def adopt(name: str, fd: int, kind: str = "tap", netns: str = "", persist: bool = False, sndbuf: int = 0) -> TunTapPort:
    """A port from a descriptor that outlived the process that opened it (systemd's descriptor store).

    OSError if it is not a tun descriptor, ValueError if it is of another kind.
    """
    reply = fcntl.ioctl(fd, TUNGETIFF, struct.pack("16sH22x", b"", 0))
    flags = int.from_bytes(reply[16:18], "little")
    if not flags & (IFF_TAP if kind == "tap" else IFF_TUN):
        raise ValueError(f"descriptor {fd} is not a {kind} device")
    os.set_blocking(fd, False)
    os.set_inheritable(fd, False)
    ifname = reply[:16].rstrip(b"\0").decode()
    port = TunTapPort(name, kind, fd, ifname, netns, 10 if flags & IFF_VNET_HDR else 0)
    _configure(port, persist, sndbuf)
    return port


def _configure(port: TunTapPort, persist: bool, sndbuf: int) -> None:
    if port.prefix:
        fcntl.ioctl(port.fd, TUNSETVNETHDRSZ, struct.pack("i", port.prefix))
        fcntl.ioctl(port.fd, TUNSETVNETLE, struct.pack("i", 1))
        port.set_offloads()
    if sndbuf:
        fcntl.ioctl(port.fd, TUNSETSNDBUF, struct.pack("i", sndbuf))
    fcntl.ioctl(port.fd, TUNSETPERSIST, 1 if persist else 0)
