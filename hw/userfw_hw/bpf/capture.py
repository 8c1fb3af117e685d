"""A port on an interface by tc: a program at ingress forwards known flows and hands every other frame to userfw by a TAP device.

A packet socket sees each frame before tc does, so flows forwarded at tc ingress would be forwarded twice; here tc decides first,
once for each frame, and large sends stay whole. The host's stack sees nothing. The program, its link and the TAP device end with
the process that holds their descriptors, however it ends.
"""

from __future__ import annotations

import os
import socket
import struct
from ctypes import addressof, create_string_buffer
from typing import Any

from userfw.core.packet import Device, Packet
from userfw.ports import bpf as syscall
from userfw.ports.base import IoPort
from userfw.ports.isolate import MARK
from userfw.ports.netlink import Link, Netlink
from userfw.ports.netns import run_in
from userfw.ports.packet import open_socket
from userfw.ports.tap import open_device
from userfw_hw.bpf import forward

_SO_ATTACH_FILTER = 26


class CapturePort(IoPort):
    """Frames come from the TAP device that the program feeds, and go out by a packet socket that hears nothing.

    `index`: the interface's number. `load(flows)` replaces the program by one that looks flows up in that map.
    """

    def __init__(self, name: str, ifname: str, netns: str, inbound: Any, outbound: Any, index: int, mac: bytes) -> None:
        super().__init__(name, "capture")
        self.ifname = ifname
        self.netns = netns
        self.inbound = inbound
        self.outbound = outbound
        self.index = index
        self.mac = mac
        self.tap_index = 0
        self.fd = inbound.fd
        self._none = syscall.Map(syscall.MAP_TYPE_HASH, forward.KEY_SIZE, forward.VALUE_SIZE, 1, "userfw_none")
        self._link = -1

    def attach(self, device: Device) -> None:
        """The gateway's device of this port; frames carry it from the inside port on."""
        super().attach(device)
        self.inbound.attach(device)
        self.outbound.attach(device)

    def load(self, flows: int | None = None) -> None:
        """Put the program in place, or a new one before the old one goes, so that no frame finds none. VerifierError, OSError."""
        code = forward.build(
            forward.TC, self._none.fd if flows is None else flows, self.index, self.mac, capture=self.tap_index, mark=MARK
        )
        program = syscall.load(syscall.PROG_TYPE_SCHED_CLS, code, "userfw_tc")
        try:
            link = run_in(self.netns, lambda: syscall.attach(program, self.index, syscall.ATTACH_TCX_INGRESS))
        finally:
            os.close(program)
        self._unlink()
        self._link = link

    def receive(self, slots: list[Packet], budget: int) -> int:
        return int(self.inbound.receive(slots, budget))

    def transmit(self, pkt: Packet) -> int:
        return int(self.outbound.transmit(pkt))

    def flush(self) -> int:
        return int(self.outbound.flush())

    def _unlink(self) -> None:
        if self._link >= 0:
            os.close(self._link)
            self._link = -1

    def close(self) -> None:
        self._unlink()
        self._none.close()
        self.inbound.close()
        self.outbound.close()
        self.fd = -1


def open_capture(name: str, ifname: str, netns: str = "", offloads: bool = True) -> tuple[CapturePort, Link]:
    """A CapturePort on interface `ifname` of `netns`, and the interface. OSError: no such interface, no tcx, no permission."""
    outbound, link = open_socket(name, ifname, netns, offloads)
    inbound = None
    try:
        _deafen(outbound.fd)
        inbound = open_device(name, f"uf-{link.index}", netns=netns)[0]
        port = CapturePort(name, ifname, netns, inbound, outbound, link.index, link.mac)
        port.tap_index = _up(inbound.ifname, netns)
        port.load()
    except BaseException:
        if inbound is not None:
            inbound.close()
        outbound.close()
        raise
    return port, link


def _up(ifname: str, netns: str) -> int:
    """Bring the inner TAP device up, without IPv6 of its own; its number."""

    def quiet() -> None:
        try:
            with open(f"/proc/sys/net/ipv6/conf/{ifname}/disable_ipv6", "w") as file:
                file.write("1")
        except FileNotFoundError:
            pass  # no IPv6 in this kernel

    run_in(netns, quiet)
    netlink = Netlink(netns)
    try:
        link = netlink.link(ifname)
        netlink.set_link(link.index, up=True, mtu=65521)
        return int(link.index)
    finally:
        netlink.close()


def _deafen(fd: int) -> None:
    """A classic filter that takes nothing: `ret #0`."""
    code = create_string_buffer(struct.pack("=HBBI", 0x06, 0, 0, 0), 8)
    with socket.socket(fileno=os.dup(fd)) as sock:
        sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HxxxxxxP", 1, addressof(code)))
