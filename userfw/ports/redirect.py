"""tproxy to another port or address: a program at a TUN device hands a flow's packets to the socket that a rule chose.

What a TUN device cannot carry is a packet's socket; a tcx program (Linux 6.6) can look the listener up and assign it, as the
kernel's own tproxy does, so that addresses and ports stay what the client meant (Linux: bpf_sk_assign).

Laws: only flows that were announced are touched: of TCP the first segment, of UDP every datagram. The program hangs on
the device as long as this object lives.
"""

from __future__ import annotations

import logging
import os
import socket
import struct

from userfw.ports import bpf
from userfw.ports.assembler import R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, R10, Program
from userfw.ports.netlink import Netlink
from userfw.ports.netns import run_in
from userfw.ports.sockdiag import SockDiag

log = logging.getLogger("userfw.ports")

Flow = tuple[int, bytes, int, bytes, int]  # protocol, source, its port, destination, its port
MAP_TYPE_LRU_HASH = 9
FLOWS = 65536
KEY, VALUE = 40, 24
MAP_LOOKUP, SK_LOOKUP_UDP, SK_RELEASE, SKC_LOOKUP_TCP, SK_ASSIGN = 1, 85, 86, 99, 124


class LocalSockets(SockDiag):
    """The sockets behind a TUN device, and handing packets to one that their addresses do not name."""

    def __init__(self, netns: str | None, device: str) -> None:
        super().__init__(netns)
        self.netns = netns
        self.device = device
        self.redirector: Redirector | None = None
        self.failed = False

    def redirect(self, flow: Flow, to: bytes, port: int) -> bool:
        """Packets of `flow` are for the listener at `to` and `port`; False if this kernel cannot, which is told once."""
        try:
            if self.redirector is None and not self.failed:
                self.redirector = Redirector(self.netns, self.device)
            if self.redirector is not None:
                self.redirector.add(*flow, to, port)
                return True
        except OSError as error:
            self.failed = True
            what = "tproxy to another port or address needs tcx programs (Linux 6.6, CAP_BPF)"
            log.error("%s: %s: %s", self.device, what, error.strerror)
        return False

    def settle(self, flow: Flow) -> None:
        """`flow` has a socket of its own."""
        if self.redirector is not None:
            self.redirector.remove(*flow)

    def close(self) -> None:
        """Close all."""
        if self.redirector is not None:
            self.redirector.close()
        super().close()


class Redirector:
    """On interface `device` of namespace `netns`. OSError where the kernel cannot."""

    def __init__(self, netns: str | None, device: str) -> None:
        self.flows = bpf.Map(MAP_TYPE_LRU_HASH, KEY, VALUE, FLOWS, "userfw_tproxy")
        self.program = self.link = -1
        try:
            self.program = bpf.load(bpf.PROG_TYPE_SCHED_CLS, program(self.flows.fd), "userfw_tproxy")
            netlink = Netlink(netns)
            try:
                index = netlink.link(device).index
            finally:
                netlink.close()
            self.link = run_in(netns, lambda: bpf.attach(self.program, index, bpf.ATTACH_TCX_INGRESS))
        except BaseException:
            self.close()
            raise

    def add(self, proto: int, src: bytes, sport: int, dst: bytes, dport: int, to: bytes, port: int) -> None:
        """Packets of this flow are for the socket at `to` and `port`. OSError."""
        self.flows[key(proto, src, sport, dst, dport)] = struct.pack("!16sH6x", to, port)

    def remove(self, proto: int, src: bytes, sport: int, dst: bytes, dport: int) -> None:
        """This flow has a socket of its own now."""
        self.flows.pop(key(proto, src, sport, dst, dport))

    def close(self) -> None:
        """Take the program off the device."""
        for fd in (self.link, self.program):
            if fd >= 0:
                os.close(fd)
        self.link = self.program = -1
        self.flows.close()


def key(proto: int, src: bytes, sport: int, dst: bytes, dport: int) -> bytes:
    """A flow as the program knows it."""
    return struct.pack("!16s16sHHB3x", src, dst, sport, dport, proto)


def program(flows: int) -> bytes:
    """The program; R6 the packet, R7 the IP version, then the socket, R8 the protocol, R9 the transport header, then the entry."""
    p = Program()
    p.mov(R6, R1)
    p.load(4, R2, R1, 76)
    p.load(4, R3, R1, 80)
    p.mov(R4, R2)
    p.alu("add", R4, 28)
    p.branch("jgt", R4, R3, "out", register=True)
    for offset in range(-KEY, 0, 8):
        p.store_immediate(8, R10, offset, 0)
    p.load(1, R7, R2, 0)
    p.alu("rsh", R7, 4)
    p.branch("jeq", R7, 6, "six")
    _ipv4(p)
    _ipv6(p)
    p.label("transport")
    p.branch("jeq", R8, socket.IPPROTO_UDP, "ports")
    p.branch("jne", R8, socket.IPPROTO_TCP, "out")
    p.mov(R4, R9)
    p.alu("add", R4, 14)
    p.branch("jgt", R4, R3, "out", register=True)
    p.load(1, R5, R9, 13)
    p.alu("and", R5, 0x12)
    p.branch("jne", R5, 0x02, "out")
    p.label("ports")
    p.load(2, R5, R9, 0)
    p.store(2, R10, -8, R5)
    p.load(2, R5, R9, 2)
    p.store(2, R10, -6, R5)
    p.store(1, R10, -4, R8)
    p.map(R1, flows)
    p.mov(R2, R10)
    p.alu("add", R2, -KEY)
    p.call(MAP_LOOKUP)
    p.branch("jeq", R0, 0, "out")
    p.mov(R9, R0)
    _lookup(p)
    p.branch("jeq", R0, 0, "out")
    p.mov(R7, R0)
    p.mov(R1, R6)
    p.mov(R2, R7)
    p.set(R3, 0)
    p.call(SK_ASSIGN)
    p.mov(R1, R7)
    p.call(SK_RELEASE)
    p.label("out")
    p.set(R0, -1)  # TCX_NEXT
    p.exit()
    return p.assemble()


def _ipv4(p: Program) -> None:
    """Without options, and whole: a transparent socket's packets are reassembled before they come here."""
    p.load(1, R5, R2, 0)
    p.branch("jne", R5, 0x45, "out")
    p.load(2, R5, R2, 6)
    p.alu("and", R5, socket.htons(0x3FFF))
    p.branch("jne", R5, 0, "out")
    p.load(1, R8, R2, 9)
    p.load(4, R5, R2, 12)
    p.store(4, R10, -40, R5)
    p.load(4, R5, R2, 16)
    p.store(4, R10, -24, R5)
    p.mov(R9, R2)
    p.alu("add", R9, 20)
    p.jump("transport")


def _ipv6(p: Program) -> None:
    p.label("six")
    p.mov(R4, R2)
    p.alu("add", R4, 48)
    p.branch("jgt", R4, R3, "out", register=True)
    p.load(1, R8, R2, 6)
    for at, to in ((8, -40), (16, -32), (24, -24), (32, -16)):
        p.load(8, R5, R2, at)
        p.store(8, R10, to, R5)
    p.mov(R9, R2)
    p.alu("add", R9, 40)


def _lookup(p: Program) -> None:
    """The socket at the address and port of the entry in R9: struct bpf_sock_tuple at R10-80."""
    p.load(2, R1, R10, -8)
    p.load(2, R2, R9, 16)
    p.branch("jeq", R7, 6, "tuple six")
    p.load(4, R3, R10, -40)
    p.store(4, R10, -80, R3)
    p.load(4, R3, R9, 0)
    p.store(4, R10, -76, R3)
    p.store(2, R10, -72, R1)
    p.store(2, R10, -70, R2)
    p.set(R3, 12)
    p.jump("ask")
    p.label("tuple six")
    for at in (0, 8):
        p.load(8, R3, R10, -40 + at)
        p.store(8, R10, -80 + at, R3)
        p.load(8, R3, R9, at)
        p.store(8, R10, -64 + at, R3)
    p.store(2, R10, -48, R1)
    p.store(2, R10, -46, R2)
    p.set(R3, 36)
    p.label("ask")
    p.mov(R1, R6)
    p.mov(R2, R10)
    p.alu("add", R2, -80)
    p.set(R4, -1)  # BPF_F_CURRENT_NETNS
    p.set(R5, 0)
    p.branch("jeq", R8, socket.IPPROTO_UDP, "ask udp")
    p.call(SKC_LOOKUP_TCP)
    p.jump("answer")
    p.label("ask udp")
    p.call(SK_LOOKUP_UDP)
    p.label("answer")
