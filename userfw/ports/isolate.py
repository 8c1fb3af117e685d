"""Keeping the host's own stack off an interface that a packet socket serves.

Two routers on one wire would answer twice: the host would send RSTs, ICMP errors and ARP answers of its own. Packet sockets see a
frame before the ingress hooks do (Linux: __netif_receive_skb_core), so dropping at ingress hides it from the stack only; at
egress everything is dropped that does not carry our socket's mark, so the host's neighbour discovery stays silent too.

Laws: nothing is left behind, whatever ends the daemon. Both ways are bound to a descriptor that the kernel cleans up when it is
closed, also by SIGKILL: a table with the owner flag (Linux 5.12), or a tcx link (Linux 6.6) where nf_tables is missing.
Addresses, routes and flags of the interface are not touched.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import socket
import struct

from userfw.ports.netlink import NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, attribute, messages_untrusted
from userfw.ports.netns import run_in

MARK = 0x75736677  # "usfw"
NETLINK_NETFILTER = 12
NFPROTO_NETDEV = 5
PRIORITY = -1000


class Isolation:
    """What keeps the stack off, as long as it is open. `kind`: nftables or tcx."""

    def __init__(self, kind: str, descriptors: list[int]) -> None:
        self.kind = kind
        self.descriptors = descriptors

    def close(self) -> None:
        """Let the host's stack back."""
        while self.descriptors:
            os.close(self.descriptors.pop())


def isolate(ifname: str, index: int, netns: str = "") -> Isolation:
    """Keep the host's stack off an interface. OSError: neither way works here, or somebody else does it already."""
    try:
        return run_in(netns, lambda: _by_nftables(ifname))
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.EPERM):  # an owned table of that name refuses others with EPERM
            text = "another userfw keeps the host's stack off this interface, or CAP_NET_ADMIN is missing"
            raise OSError(errno.EBUSY, text) from None
        first = error
    try:
        return run_in(netns, lambda: _by_tcx(index))
    except OSError as error:
        reason = f"nftables: {first.strerror}, tcx: {error.strerror}"
        text = f"the host's stack cannot be kept off ({reason}); `isolate = false` shares the interface with it"
        raise OSError(error.errno, text) from None


# -- nf_tables: a table that dies with our socket


def _nested(kind: int, *parts: bytes) -> bytes:
    return attribute(kind | 0x8000, b"".join(parts))


def _text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def _be32(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("!I", value & 0xFFFFFFFF))


def _expression(name: str, *data: bytes) -> bytes:
    return _nested(1, _text(1, name), _nested(2, *data))  # NFTA_LIST_ELEM: NFTA_EXPR_NAME, NFTA_EXPR_DATA


def table_messages(ifname: str) -> list[tuple[int, int, bytes]]:
    """(type, flags, payload) that create table `userfw-IFNAME`: drop at ingress; at egress drop what lacks our mark."""
    table = f"userfw-{ifname}"
    create = NLM_F_CREATE | NLM_F_EXCL
    messages = [(0, create, _text(1, table) + _be32(2, 2))]  # NEWTABLE: name, NFT_TABLE_F_OWNER
    for hook, name, policy in ((0, "ingress", 0), (1, "egress", 1)):
        chain = _text(1, table) + _text(3, name) + _text(7, "filter") + _be32(5, policy)
        chain += _nested(4, _be32(1, hook), _be32(2, PRIORITY), _text(3, ifname))  # hook number, priority, device
        messages.append((3, NLM_F_CREATE, chain))  # NEWCHAIN
    mark = struct.pack("=I", MARK)
    rule = _text(1, table) + _text(2, "egress") + _nested(
        4,
        _expression("meta", _be32(2, 3), _be32(1, 1)),  # mark into register 1
        _expression("cmp", _be32(1, 1), _be32(2, 1), _nested(3, attribute(1, mark))),  # register 1 != MARK
        _expression("immediate", _be32(1, 0), _nested(2, _nested(2, _be32(1, 0)))),  # verdict drop
    )
    messages.append((6, NLM_F_CREATE | 0x800, rule))  # NEWRULE, NLM_F_APPEND
    return messages


def _by_nftables(ifname: str) -> Isolation:
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
    try:
        sock.bind((0, 0))
        sock.settimeout(5)
        messages = table_messages(ifname)
        batch = _message(0x10, 0, 0, struct.pack("!BBH", 0, 0, 10))
        for i, (kind, flags, payload) in enumerate(messages):
            body = struct.pack("!BBH", NFPROTO_NETDEV, 0, 0) + payload
            batch += _message((10 << 8) | kind, flags | NLM_F_ACK, i + 1, body)
        batch += _message(0x11, 0, 0, struct.pack("!BBH", 0, 0, 10))
        sock.send(batch)
        answered = 0
        while answered < len(messages):
            for kind, _, body in messages_untrusted(sock.recv(1 << 16)):
                if kind != 2:  # NLMSG_ERROR
                    continue
                number = -struct.unpack_from("=i", body)[0]
                if number:
                    raise OSError(number, os.strerror(number))
                answered += 1
        return Isolation("nftables", [sock.detach()])
    except BaseException:
        sock.close()
        raise


def _message(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, flags | NLM_F_REQUEST, sequence, 0) + body


# -- tcx: two tiny programs whose links die with their descriptors

BPF_PROG_LOAD = 5
BPF_LINK_CREATE = 28
BPF_PROG_TYPE_SCHED_CLS = 3
BPF_TCX_INGRESS = 46
BPF_TCX_EGRESS = 47
SYSCALLS = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "i686": 357, "armv7l": 386, "ppc64le": 361, "s390x": 351}


def _instruction(code: int, registers: int, offset: int, value: int) -> bytes:
    return struct.pack("=BBhi", code, registers, offset, value)


INGRESS = _instruction(0xB7, 0, 0, 2) + _instruction(0x95, 0, 0, 0)  # return TC_ACT_SHOT
EGRESS = (
    _instruction(0x61, 0x10, 8, 0)  # r0 = skb->mark
    + _instruction(0x56, 0x00, 2, MARK)  # if (w0 != MARK) goto drop
    + _instruction(0xB7, 0, 0, -1)  # return TCX_NEXT
    + _instruction(0x95, 0, 0, 0)
    + _instruction(0xB7, 0, 0, 2)  # drop: return TC_ACT_SHOT
    + _instruction(0x95, 0, 0, 0)
)


def _bpf(command: int, payload: bytes) -> int:
    number = SYSCALLS.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(payload, len(payload))
    result = libc.syscall(number, command, buffer, len(payload))
    if result < 0:
        failed = ctypes.get_errno()
        raise OSError(failed, os.strerror(failed))
    return int(result)


def _by_tcx(index: int) -> Isolation:
    links: list[int] = []
    try:
        for attach, code in ((BPF_TCX_INGRESS, INGRESS), (BPF_TCX_EGRESS, EGRESS)):
            program = _load(code)
            try:
                links.append(_bpf(BPF_LINK_CREATE, struct.pack("=IIII", program, index, attach, 0) + bytes(48)))
            finally:
                os.close(program)
    except BaseException:
        for fd in links:
            os.close(fd)
        raise
    return Isolation("tcx", links)


def _load(code: bytes) -> int:
    text = ctypes.create_string_buffer(code, len(code))
    licence = ctypes.create_string_buffer(b"Apache-2.0")
    head = struct.pack(
        "=IIQQ", BPF_PROG_TYPE_SCHED_CLS, len(code) // 8, ctypes.addressof(text), ctypes.addressof(licence)
    )
    return _bpf(BPF_PROG_LOAD, head + bytes(120 - len(head)))
