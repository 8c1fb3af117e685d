"""A packet socket on an existing interface: any NIC, veth or bridge port becomes a port of the router (packet(7)).

Frames move in batches (recvmmsg, sendmmsg) with PACKET_VNET_HDR, so large packets that the NIC merged stay large and sending
ones are cut by the NIC. The VLAN tag that the kernel keeps beside a frame is put back into it. Our own
transmissions are not seen again (PACKET_IGNORE_OUTGOING).

Law: the host's own stack must not answer the same traffic: `ports.isolate` keeps it off while the port is open.
"""

from __future__ import annotations

import os
import platform
import socket
import struct
from typing import Any

import cython

from userfw.ports.base import GRO
from userfw.ports.isolate import MARK, Isolation, isolate
from userfw.ports.netlink import Link, Netlink
from userfw.ports.netns import run_in
from userfw.ports.steering import join_fanout

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
    from userfw.ports._io import Batch, write_at
    from userfw.ports.base import IoPort
    from userfw.ports.vnet import VNET_SIZE, read_header, write_header

# Linux: include/uapi/linux/if_packet.h, asm-generic/socket.h
SOL_PACKET = 263
PACKET_ADD_MEMBERSHIP = 1
PACKET_AUXDATA = 8
PACKET_VNET_HDR = 15
PACKET_IGNORE_OUTGOING = 23
PACKET_MR_PROMISC = 1
PACKET_MR_ALLMULTI = 2
SO_SNDBUFFORCE = 32
SO_RCVBUFFORCE = 33
SO_MARK = 36
ETH_P_ALL = 3
BUFFER = 8 << 20


class PacketPort(IoPort):
    """One packet socket. `isolation` keeps the host's stack off and is undone on close.

    `offloads` false: only plain frames are sent. Received ones carry the header all the same: without it nobody could tell
    that a frame's checksum is partial, or that the kernel merged it.
    """

    def __init__(
        self, name: str, sock: socket.socket, ifname: str = "", netns: str = "", prefix: int = 10,
        isolation: Isolation | None = None, tx_uso: bool = False, offloads: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(name, "packet")
        self.sock = sock
        self.fd = sock.fileno()
        self.ifname = ifname
        self.netns = netns
        self.prefix = prefix
        self.tx_uso = tx_uso and prefix > 0
        self.offloads = offloads
        self.isolation = isolation
        self.batch = Batch(prefix)
        self.pending: list[Packet] = []

    def receive(self, slots: list, budget: cython.int) -> cython.int:  # type: ignore[type-arg]
        """One recvmmsg; frames that do not fit a packet are counted and skipped."""
        got: cython.int = self.batch.receive(self.fd, slots, budget)
        i: cython.int
        n: cython.int = 0
        size: cython.Py_ssize_t
        pkt: Packet
        if got < 0:
            if got != -11:  # EAGAIN; EINVAL: a frame whose offload the header cannot tell; ENETDOWN: told once, a rebind follows
                self.rx_errors += 1
            return 0
        for i in range(got):
            pkt = slots[i]
            size = self.batch.length(i)
            if size <= self.prefix or size > MAX_FRAME + self.prefix:
                self.rx_truncated += 1
                continue
            pkt.reset()
            pkt.end = HEADROOM + size - self.prefix
            if self.prefix:
                read_header(pkt)
            if self.batch.vlan(i) >= 0 and size - self.prefix >= 12:
                insert_tag(pkt, self.batch.vlan(i), self.batch.vlan_protocol(i))
            pkt.iif = self.device
            if n != i:
                slots[i] = slots[n]
                slots[n] = pkt
            n += 1
        if n:
            self.rx_batches += 1
        return n

    def transmit(self, pkt: Packet) -> cython.int:
        """Queue the frame for `flush`; at once, and segmented, if the kernel does not take it as it is."""
        kind: cython.int = pkt.gso_type & ~VNET_GSO_ECN
        if self.prefix:
            if pkt.start < VNET_SIZE:
                return DROP_TX_FAILED
            if self.offloads and (kind != VNET_GSO_UDP_L4 or self.tx_uso):
                write_header(pkt)
                self.pending.append(pkt)
                if len(self.pending) >= 64:
                    self.flush()
                return DROP_NOT_SPECIFIED
        elif kind == VNET_GSO_NONE and not pkt.vnet_flags & VNET_F_NEEDS_CSUM:
            return self.transmit_plain(pkt)
        if self.pending:
            self.flush()
        return self.transmit_segments(pkt)

    def transmit_plain(self, pkt: Packet) -> cython.int:
        """One write(2)."""
        if self.prefix:
            write_header(pkt)
        put: cython.Py_ssize_t = write_at(
            self.fd, pkt.data, pkt.start - self.prefix, pkt.end - pkt.start + self.prefix
        )
        return DROP_NOT_SPECIFIED if put >= 0 else self.failed(cython.cast(cython.int, -put))

    def flush(self) -> cython.int:
        """Send what is queued; a frame the kernel refuses is noted and passed over."""
        total: cython.int = len(self.pending)
        first: cython.int = 0
        sent: cython.int
        good: cython.int = 0
        while first < total:
            sent = self.batch.send(self.fd, self.pending, first, total - first)
            if sent > 0:
                first += sent
                good += sent
                continue
            self.refused.append(self.failed(-sent))
            first += 1
        self.pending.clear()
        return good

    def rebind(self, link: Link) -> None:
        """Bind to an interface that took the place of the one that is gone. OSError."""
        def again() -> None:
            self.sock.bind((link.name, ETH_P_ALL))

        run_in(self.netns, again)
        if self.isolation is not None:
            self.isolation.close()
            self.isolation = isolate(link.name, link.index, self.netns)

    def takes(self) -> int:
        """As IoPort.takes."""
        return (GRO["all"] if self.tx_uso else GRO["tcp"]) if self.offloads and self.prefix else GRO["off"]

    def info(self) -> dict[str, Any]:
        """Adds the interface, and how the host's stack is kept off."""
        return {
            **super().info(),
            "device": self.ifname,
            "netns": self.netns,
            "offloads": ["csum", "tso4", "tso6", *(["uso4", "uso6"] if self.tx_uso else [])] if self.offloads else [],
            "isolation": self.isolation.kind if self.isolation is not None else None,
        }

    def close(self) -> None:
        """Close the socket and let the host's stack back."""
        self.batch.close()
        if self.fd >= 0:
            self.sock.close()
            self.fd = -1
        if self.isolation is not None:
            self.isolation.close()
            self.isolation = None


def insert_tag(pkt: Packet, tci: cython.int, protocol: cython.int) -> cython.int:
    """Put a VLAN tag behind the addresses: they move 4 bytes forward into the headroom."""
    i: cython.Py_ssize_t
    d: bytearray = pkt.data
    start: cython.Py_ssize_t = pkt.start - 4
    for i in range(12):
        d[start + i] = d[start + 4 + i]
    pkt.start = start
    pkt.put16(start + 12, protocol)
    pkt.put16(start + 14, tci)
    if pkt.vnet_flags & VNET_F_NEEDS_CSUM:
        pkt.csum_start += 4
    return 0


def open_socket(
    name: str,
    ifname: str,
    netns: str = "",
    offloads: bool = True,
    keep_host_off: bool = True,
    promiscuous: bool = False,
    fanout: tuple[int, int] | None = None,
    mark: bool = False,
) -> tuple[PacketPort, Link]:
    """A port on interface `ifname` of `netns`, and the interface as it is now.

    `fanout`: (group, workers) of sockets that share the load.
    `mark`: send as one that another process has let off when it kept the host's stack away.

    OSError: no such interface or namespace, no CAP_NET_RAW, or the host's stack cannot be kept off.
    """
    netlink = Netlink(netns)
    try:
        link = netlink.link(ifname)
    finally:
        netlink.close()
    isolation = isolate(ifname, link.index, netns) if keep_host_off else None

    def make() -> socket.socket:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, 0)
        try:
            sock.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
            sock.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
            sock.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
            if isolation is not None or mark:
                sock.setsockopt(socket.SOL_SOCKET, SO_MARK, MARK)
            for option in (SO_RCVBUFFORCE, SO_SNDBUFFORCE):
                sock.setsockopt(socket.SOL_SOCKET, option, BUFFER)
            # the card's filter knows the host's groups, not ours: neighbour discovery asks at a group of each address
            for kind in (PACKET_MR_ALLMULTI, *((PACKET_MR_PROMISC,) if promiscuous else ())):
                request = struct.pack("=iHH8s", link.index, kind, 0, b"")
                sock.setsockopt(SOL_PACKET, PACKET_ADD_MEMBERSHIP, request)
            sock.bind((ifname, ETH_P_ALL))
            if fanout is not None:
                join_fanout(sock, fanout[0] + link.index, fanout[1])
        except BaseException:
            sock.close()
            raise
        return sock

    try:
        sock = run_in(netns, make)
    except BaseException:
        if isolation is not None:
            isolation.close()
        raise
    return PacketPort(name, sock, ifname, netns, 10, isolation, knows_uso(), offloads), link


def knows_uso() -> bool:
    """Whether the kernel takes VIRTIO_NET_HDR_GSO_UDP_L4 (Linux 6.2)."""
    release = (platform.release() if os.name == "posix" else "0").split(".")
    try:
        return (int(release[0]), int(release[1].split("-")[0])) >= (6, 2)
    except (ValueError, IndexError):
        return False
