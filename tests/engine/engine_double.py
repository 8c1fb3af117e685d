"""A double of Services, and packets and chains in a line each, for the engine's tests."""

from __future__ import annotations

import struct
from random import Random
from typing import Any

from userfw.core.clock import Clock
from userfw.core.packet import Device, Packet
from userfw.engine.bind import TableScope
from userfw.engine.chain import BaseChain, Chain
from userfw.engine.context import Context
from userfw.engine.expr import Expr
from userfw.engine.rule import Rule
from userfw.engine.services import FibResult, RouteInfo, Services, SocketInfo
from userfw.wire.parse import parse_untrusted

SECOND = 1_000_000_000


class Double(Services):
    """Records what it is asked to do in `calls`; answers are attributes that a test sets."""

    def __init__(self) -> None:
        super().__init__(Clock(1000 * SECOND, 0.0))
        self.calls: list[tuple[Any, ...]] = []
        self.rng = Random(7)
        self.devices: dict[int, Device] = {}
        self.fib_answer: tuple[int, Device | None] | None = None
        self.route_answer: RouteInfo | None = None
        self.socket_answer: SocketInfo | None = None
        self.verdict = 2

    def random(self) -> int:
        return self.rng.getrandbits(32)

    def device_by_index(self, index: int) -> Device | None:  # type: ignore[override]
        return self.devices.get(index)

    def device_by_name(self, ifname: bytes) -> Device | None:  # type: ignore[override]
        return next((d for d in self.devices.values() if d.ifname == ifname), None)

    def fib(self, pkt: Packet, family: int, address: int, source: int, device: Any, mark: int, result: FibResult) -> bool:
        self.calls.append(("fib", family, address - pkt.l3, source - pkt.l3 if source >= 0 else -1, device, mark))
        if self.fib_answer is None:
            result.type, result.oif = 0, None
            return False
        result.type, result.oif = self.fib_answer
        return True

    def route_info(self, pkt: Packet) -> RouteInfo | None:  # type: ignore[override]
        return self.route_answer

    def socket(self, pkt: Packet) -> SocketInfo | None:  # type: ignore[override]
        return self.socket_answer

    def send_reject(self, pkt: Packet, hook: int, family: int, type: int, code: int) -> int:
        self.calls.append(("reject", hook, family, type, code))
        return 0

    def send_duplicate(self, pkt: Packet, hook: int, family: int, gateway: Any, device: Any) -> int:
        self.calls.append(("dup", hook, family, gateway, device))
        return 0

    def forward_device(self, pkt: Packet, device: Device) -> int:
        self.calls.append(("fwd", device))
        return self.verdict

    def forward_neighbour(self, pkt: Packet, device: Device, family: int, nexthop: bytes) -> int:
        self.calls.append(("fwd neighbour", device, family, nexthop, pkt.get8(pkt.l3 + (8 if family == 2 else 7))))
        return self.verdict

    def log(self, pkt: Packet, hook: int, family: int, request: Any) -> int:
        self.calls.append(("log", hook, family, request))
        return 0

    def enqueue(self, pkt: Packet, hook: int, entry: Any, number: int, bypass: bool) -> int:
        self.calls.append(("queue", number, bypass))
        return self.verdict

    def tproxy(self, pkt: Packet, family: int, address: Any, port: int) -> int:
        self.calls.append(("tproxy", family, address, port))
        return self.verdict

    def synproxy(self, pkt: Packet, hook: int, mss: int, wscale: int, flags: int) -> int:
        self.calls.append(("synproxy", mss, wscale, flags))
        return self.verdict

    def reroute(self, pkt: Packet, hook: int) -> int:
        self.calls.append(("reroute", hook))
        return 1

    def broute(self, pkt: Packet, on: bool) -> int:
        self.calls.append(("broute", on))
        return 0


def csum(data: bytes) -> int:
    """The internet checksum."""
    total = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\0" * (len(data) & 1)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ip4(
    payload: bytes, proto: int, src: bytes = b"\x0a\0\0\1", dst: bytes = b"\x0a\0\0\2", frag: int = 0, options: bytes = b""
) -> bytes:
    size = 20 + len(options)
    head = struct.pack("!BBHHHBBH4s4s", 0x40 | size // 4, 0, size + len(payload), 1, frag, 64, proto, 0, src, dst) + options
    return head[:10] + struct.pack("!H", csum(head)) + head[12:] + payload


def ip6(payload: bytes, proto: int, src: bytes = b"\xfd" + b"\0" * 14 + b"\1", dst: bytes = b"\xfd" + b"\0" * 14 + b"\2") -> bytes:
    return struct.pack("!IHBB16s16s", 6 << 28, len(payload), proto, 64, src, dst) + payload


def tcp(sport: int = 1000, dport: int = 80, flags: int = 2, options: bytes = b"", payload: bytes = b"") -> bytes:
    return struct.pack("!HHIIBBHHH", sport, dport, 7, 9, (20 + len(options)) // 4 << 4, flags, 1024, 0, 0) + options + payload


def udp(sport: int = 1000, dport: int = 53, payload: bytes = b"") -> bytes:
    return struct.pack("!HHHH", sport, dport, 8 + len(payload), 0) + payload


def with_l4_csum(packet: bytes) -> bytes:
    """`packet` (IPv4 or IPv6 without extension headers) with its TCP, UDP or ICMPv6 checksum filled in."""
    four = packet[0] >> 4 == 4
    size = (packet[0] & 15) * 4 if four else 40
    proto = packet[9] if four else packet[6]
    body = packet[size:]
    at = {6: 16, 17: 6, 58: 2}[proto]
    pseudo = (packet[12:20] if four else packet[8:40]) + struct.pack("!II", len(body), proto)
    value = csum(pseudo + body[:at] + b"\0\0" + body[at + 2 :])
    if proto == 17 and value == 0:
        value = 0xFFFF
    return packet[:size] + body[:at] + struct.pack("!H", value) + body[at + 2 :]


def packet(data: bytes, link: bool = True, ethertype: int | None = None, vlan: bytes = b"", iif: Device | None = None) -> Packet:
    """A parsed packet; the EtherType follows the version nibble unless given."""
    if ethertype is None:
        ethertype = 0x86DD if data[:1] and data[0] >> 4 == 6 else 0x800
    head = b"\x02\0\0\0\0\2\x02\0\0\0\0\1" + vlan + struct.pack("!H", ethertype) if link else b""
    pkt = Packet()
    pkt.load_frame(head + data)
    pkt.iif = iif
    if not link:
        bare = Device("tun0", 9, type=65534)
        pkt.iif = bare
        parse_untrusted(pkt)
        pkt.iif = iif
    else:
        parse_untrusted(pkt)
    return pkt


def context(services: Services | None = None, family: int = 1, hook: int = 0, pkt: Packet | None = None) -> Context:
    """A context as a base chain would have it."""
    ctx = Context(services or Double(), family, hook)
    if pkt is not None:
        ctx.begin(pkt, hook)
    return ctx


def evaluate(
    expr: Expr, pkt: Packet, services: Services | None = None, family: int = 1, hook: int = 0, regs: bytes = b""
) -> tuple[int, bytes]:
    """Verdict of one expression and the registers after it; `regs` fills them from the start, the rest is 0xEE."""
    ctx = context(services, family, hook, pkt)
    ctx.regs[:] = regs + b"\xee" * (64 - len(regs))
    return expr.evaluate(ctx, pkt), bytes(ctx.regs)


def base(
    services: Services,
    rules: list[tuple[Expr, ...]],
    scope: TableScope | None = None,
    policy: int = 1,
    family: int = 1,
    hook: int = 0,
    fuse: bool = True,
    type: int = 0,
) -> BaseChain:
    """A base chain with these rules."""
    chain = Chain("base", "t", family)
    result = BaseChain(chain, hook, 0, services, type, policy)
    chain.replace(tuple(Rule(exprs, handle=i + 1).bind(scope or TableScope(), fuse) for i, exprs in enumerate(rules)))
    return result
