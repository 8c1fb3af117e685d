"""A port on an interface by tc: a program at ingress forwards known flows and hands every other frame to userfw by a TAP device.

A packet socket sees each frame before tc does, so flows forwarded at tc ingress would be forwarded twice; here tc decides first,
once for each frame, and large sends stay whole. The host's stack sees nothing. The program, its link (tcx, Linux 6.6) and the TAP
device end with the process that holds their descriptors, however it ends. As a filter of a clsact qdisc, where tcx is missing or
flower filters are to come first, the program outlives a process that was killed; the next one on the interface takes it away.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import struct
from ctypes import addressof, create_string_buffer
from typing import Any

from userfw.core.packet import Device, Packet
from userfw.ports import bpf as syscall
from userfw.ports.base import IoPort
from userfw.ports.clsact import CAPTURE, MADE, NAME, TrafficControl
from userfw.ports.isolate import MARK
from userfw.ports.netlink import Link, Netlink
from userfw.ports.netns import run_in
from userfw.ports.packet import PacketPort, open_socket
from userfw.ports.tap import open_device
from userfw_hw.bpf import forward
from userfw_hw.bpf.edges import TC
from userfw_hw.bpf.filters import FilterList

_SO_ATTACH_FILTER, _SO_DETACH_FILTER = 26, 27

log = logging.getLogger("userfw.ports")


class CapturePort(IoPort):
    """Frames come from the TAP device that the program feeds, and go out by a packet socket that hears nothing.

    `index`: the interface's number. `load(flows, filters)` replaces the program by one that runs those filters and looks flows up
    in that map. `clsact`: the socket by which the program hangs on a clsact qdisc; None: on a tcx link. `made_qdisc`: the qdisc is
    ours too.
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
        self.clsact: TrafficControl | None = None
        self.made_qdisc = False

    def attach(self, device: Device) -> None:
        """The gateway's device of this port; frames carry it from the inside port on."""
        super().attach(device)
        self.inbound.attach(device)
        self.outbound.attach(device)
        self.refused = self.outbound.refused

    def load(self, flows: int | None = None, filters: FilterList | None = None, bridge: bytes = b"") -> None:
        """Put the program in place, or a new one in one step, so that every frame finds one. `bridge`: the address of the bridge
        whose port this is, if frames for it are forwarded. VerifierError, OSError."""
        mac = self.device.mac if self.device is not None and self.device.mac else self.mac
        macs = (mac, bridge) if bridge else (mac,)
        known = self._none.fd if flows is None else flows
        code = forward.build(TC, known, self.index, macs, capture=self.tap_index, mark=MARK, filters=filters)
        program = syscall.load(syscall.PROG_TYPE_SCHED_CLS, code, "userfw_tc")
        try:
            if self.clsact is not None:
                self.clsact.put_program(self.index, CAPTURE, program, NAME + (MADE if self.made_qdisc else b"") + b" capture")
            elif self._link >= 0:
                syscall.replace(self._link, program)
            else:
                self._link = run_in(self.netns, lambda: syscall.attach(program, self.index, syscall.ATTACH_TCX_INGRESS))
        finally:
            os.close(program)

    def hang(self, attach: str) -> None:
        """The first program, on a tcx link or a clsact qdisc; "tc": on what of the two the kernel has. VerifierError, OSError."""
        if attach == "tc":
            try:
                self.load()
                return
            except OSError as error:
                if isinstance(error, syscall.VerifierError) or error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP):
                    raise
        self.clsact = TrafficControl(self.netns)
        self.clsact.sweep(self.index)  # what a process that was killed left
        self.made_qdisc = self.clsact.add_clsact(self.index)
        self.load()

    def receive(self, slots: list[Packet], budget: int) -> int:
        return int(self.inbound.receive(slots, budget))

    def transmit(self, pkt: Packet) -> int:
        return int(self.outbound.transmit(pkt))

    def flush(self) -> int:
        return int(self.outbound.flush())

    def rebind(self, link: Link) -> None:
        """The interface was made anew under the same name: program and socket go there. OSError."""
        attach = "clsact" if self.clsact is not None else "tc"
        self.unhang()
        self.outbound.rebind(link)
        self.index = link.index
        self.mac = link.mac
        self.hang(attach)

    def info(self) -> dict[str, Any]:
        """What the packet socket tells, and the TAP device that frames come by."""
        return {
            **self.outbound.info(),
            "type": self.kind,
            "tap": self.inbound.ifname,
            "rx_batches": self.inbound.rx_batches,
            "rx_errors": self.inbound.rx_errors,
        }

    def unhang(self) -> None:
        """Take the program off the interface; twice is fine."""
        if self._link >= 0:
            os.close(self._link)
            self._link = -1
        if self.clsact is not None:
            try:
                self.clsact.remove_prefs(self.index, CAPTURE, CAPTURE)
                if self.made_qdisc:
                    self.clsact.remove_clsact(self.index)
            except OSError as error:
                if error.errno != errno.ENODEV:
                    log.warning("%s: the capture stays on the interface: %s", self.ifname, error.strerror)
            self.clsact.close()
            self.clsact = None

    def close(self) -> None:
        self.unhang()
        self._none.close()
        self.inbound.close()
        self.outbound.close()
        self.fd = -1


def open_capture(
    name: str, ifname: str, netns: str = "", offloads: bool = True, promiscuous: bool = False, attach: str = "tc"
) -> tuple[CapturePort, Link]:  # fmt: skip
    """A CapturePort on interface `ifname` of `netns`, and the interface. `attach`: "tc", or "clsact" for a qdisc in any case.

    OSError: no such interface, no permission, or the kernel has neither way.
    """
    outbound, link = open_socket(name, ifname, netns, offloads, promiscuous=promiscuous)
    try:
        return upgrade(outbound, link, attach), link
    except BaseException:
        outbound.close()
        raise


def upgrade(outbound: PacketPort, link: Link, attach: str = "tc") -> CapturePort:
    """Have the frames of an open packet socket's interface come by tc from now on; the socket goes on sending.

    OSError, VerifierError: the socket is as it was. What came in between two lines here is dropped by what keeps the host off.
    """
    inbound = open_device(outbound.name, f"uf-{link.index}", netns=outbound.netns)[0]
    try:
        port = CapturePort(outbound.name, outbound.ifname, outbound.netns, inbound, outbound, link.index, link.mac)
        if outbound.device is not None:
            port.attach(outbound.device)
        port.tap_index = _up(inbound.ifname, outbound.netns)
        _deafen(outbound.fd)
        try:
            port.hang(attach)
        except BaseException:
            port.unhang()
            _deafen(outbound.fd, False)
            raise
    except BaseException:
        inbound.close()
        raise
    return port


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


def _deafen(fd: int, deaf: bool = True) -> None:
    """A classic filter that takes nothing: `ret #0`; or away with it."""
    code = create_string_buffer(struct.pack("=HBBI", 0x06, 0, 0, 0), 8)
    with socket.socket(fileno=os.dup(fd)) as sock:
        if deaf:
            sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HxxxxxxP", 1, addressof(code)))
        else:
            sock.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)
