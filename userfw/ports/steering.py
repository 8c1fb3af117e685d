"""The steering program: which worker's queue the kernel puts a frame into (Linux: TUNSETSTEERINGEBPF, PACKET_FANOUT_EBPF).

It computes what `conntrack.steer` computes, for whole TCP and UDP packets right behind IPv4 or IPv6; everything else goes to
worker 0. It only saves handing over: a frame in the wrong queue is handed to its owner, so nothing breaks where it is missing.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct

from userfw.conntrack.steer import FACTOR
from userfw.ports import bpf
from userfw.ports.assembler import R0, R1, R2, R3, R4, R5, R6, R7, R10, Program

PROG_TYPE_SOCKET_FILTER = 1
LOAD_BYTES_RELATIVE = 68  # Linux 4.18
HDR_START_NET = 1
TUNSETSTEERINGEBPF = 0x800454E0
SOL_PACKET = 263
PACKET_FANOUT = 18
PACKET_FANOUT_DATA = 22
FANOUT_EBPF = 7
_HEADER, _PORTS = -40, -48  # on the stack


def build(workers: int) -> bytes:
    """The program for so many workers; its result is the queue."""
    p = Program()
    p.mov(R6, R1)
    p.load(4, R2, R6, 16)  # protocol, as on the wire
    p.branch("jeq", R2, socket.htons(0x0800), "ipv4")
    p.branch("jeq", R2, socket.htons(0x86DD), "ipv6")
    p.label("first")
    p.set(R0, 0)
    p.exit()
    p.label("ipv4")
    _bytes(p, _HEADER, 20)
    p.load(2, R3, R10, _HEADER + 6)
    p.branch("jset", R3, socket.htons(0x3FFF), "first")  # a fragment
    p.load(1, R7, R10, _HEADER)
    p.alu("and", R7, 15)
    p.alu("lsh", R7, 2)
    p.load(1, R3, R10, _HEADER + 9)
    p.jump("protocol")
    p.label("ipv6")
    _bytes(p, _HEADER, 40)
    p.set(R7, 40)
    p.load(1, R3, R10, _HEADER + 6)
    p.label("protocol")
    p.branch("jeq", R3, 6, "ports")
    p.branch("jne", R3, 17, "first")
    p.label("ports")
    _bytes(p, _PORTS, 4, R7)
    for register, offset in ((R3, _PORTS), (R0, _PORTS + 2)):
        p.load(2, register, R10, offset)
        p.swap(register, 16)
        p.alu("mul", register, FACTOR, bits=32)
        p.alu("rsh", register, 16, bits=32)
    p.alu("add", R0, R3, register=True)
    p.alu("mod", R0, workers, bits=32)
    p.exit()
    return p.assemble()


def _bytes(p: Program, to: int, size: int, at: int | None = None) -> None:
    """`size` bytes of the network layer at offset 0 (or register `at`) to the stack; packets that are shorter: first worker."""
    p.mov(R1, R6)
    if at is None:
        p.set(R2, 0)
    else:
        p.mov(R2, at)
    p.mov(R3, R10)
    p.alu("add", R3, to)
    p.set(R4, size)
    p.set(R5, HDR_START_NET)
    p.call(LOAD_BYTES_RELATIVE)
    p.branch("jne", R0, 0, "first")


def load(workers: int) -> int:
    """The program's descriptor. OSError: no eBPF here, or not permitted (CAP_BPF)."""
    return bpf.load(PROG_TYPE_SOCKET_FILTER, build(workers), "userfw_steer")


def steer_tap(fd: int, workers: int) -> None:
    """Steer what the kernel sends into a TAP or TUN device, of which `fd` is a queue. OSError."""
    program = load(workers)
    try:
        fcntl.ioctl(fd, TUNSETSTEERINGEBPF, struct.pack("=i", program))
    finally:
        os.close(program)


def join_fanout(sock: socket.socket, group: int, workers: int) -> bool:
    """Make a bound packet socket one of the sockets that share an interface, in the order of joining. OSError.

    False if eBPF is not to be had: the kernel's own hash shares the load then, and much is handed over.
    """
    try:
        program = load(workers)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOSYS, errno.EINVAL):
            raise
        sock.setsockopt(SOL_PACKET, PACKET_FANOUT, group & 0xFFFF)
        return False
    try:
        sock.setsockopt(SOL_PACKET, PACKET_FANOUT, (group & 0xFFFF) | (FANOUT_EBPF << 16))
        sock.setsockopt(SOL_PACKET, PACKET_FANOUT_DATA, struct.pack("=i", program))
    finally:
        os.close(program)
    return True
