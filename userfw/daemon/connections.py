"""The connection table on the control socket: list, count, delete, flush, events, with conntrack-tools' filters.

Laws: a listing walks the table in slices with the packet loop running in between, so it may miss or repeat what changes
meanwhile, as /proc/net/nf_conntrack does. An entry is described in one way everywhere: listing, events, answers to delete.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from userfw.conntrack.conn import Conn
from userfw.conntrack.const import CT_EVENT_DESTROY, CT_EVENT_NEW, CT_EVENT_RELATED
from userfw.conntrack.table import ConnTable
from userfw.core.const import (
    IPPROTO_ICMP,
    IPPROTO_ICMPV6,
    IPPROTO_SCTP,
    IPPROTO_TCP,
    IPPROTO_UDP,
    IPPROTO_UDPLITE,
    IPS_ASSURED,
    IPS_CONFIRMED,
    IPS_DST_NAT,
    IPS_HW_OFFLOAD,
    IPS_OFFLOAD,
    IPS_SEEN_REPLY,
    IPS_SRC_NAT,
    NFPROTO_IPV4,
    NSEC_PER_SEC,
)
from userfw.daemon.commands import NoArgs, command
from userfw.daemon.control import CommandError, Stream

if TYPE_CHECKING:
    from userfw.daemon.server import Server

SLICE = 256  # connections looked at before packets get their turn again
PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 33: "dccp", 47: "gre", 58: "icmpv6", 132: "sctp", 136: "udplite"}
NUMBERS = {name: number for number, name in PROTOCOLS.items()}
TCP_STATES = ("NONE", "SYN_SENT", "SYN_RECV", "ESTABLISHED", "FIN_WAIT", "CLOSE_WAIT", "LAST_ACK", "TIME_WAIT", "CLOSE",
              "SYN_SENT2")  # fmt: skip
SCTP_STATES = ("NONE", "CLOSED", "COOKIE_WAIT", "COOKIE_ECHOED", "ESTABLISHED", "SHUTDOWN_SENT", "SHUTDOWN_RECD",
               "SHUTDOWN_ACK_SENT", "HEARTBEAT_SENT", "HEARTBEAT_ACKED")  # fmt: skip
STATUS = {
    "SEEN_REPLY": IPS_SEEN_REPLY,
    "ASSURED": IPS_ASSURED,
    "CONFIRMED": IPS_CONFIRMED,
    "SRC_NAT": IPS_SRC_NAT,
    "DST_NAT": IPS_DST_NAT,
    "OFFLOAD": IPS_OFFLOAD,
    "HW_OFFLOAD": IPS_HW_OFFLOAD,
}
PORTS = frozenset((IPPROTO_TCP, IPPROTO_UDP, IPPROTO_SCTP, IPPROTO_UDPLITE, 33))


def _address(hi: int, lo: int, family: int) -> str:
    if family == NFPROTO_IPV4:
        return socket.inet_ntop(socket.AF_INET, lo.to_bytes(4, "big"))
    return socket.inet_ntop(socket.AF_INET6, ((hi << 64) | lo).to_bytes(16, "big"))


def _tuple(conn: Conn, direction: int) -> dict[str, Any]:
    node = conn.reply if direction else conn.orig
    told: dict[str, Any] = {
        "src": _address(node.src_hi, node.src_lo, node.l3num),
        "dst": _address(node.dst_hi, node.dst_lo, node.l3num),
    }
    if node.l4proto in PORTS:
        told["sport"], told["dport"] = node.sport, node.dport
    elif node.l4proto in (IPPROTO_ICMP, IPPROTO_ICMPV6):
        told["type"], told["code"], told["id"] = node.dport >> 8, node.dport & 0xFF, node.sport
    elif node.l4proto == 47:
        told["srckey"], told["dstkey"] = node.sport, node.dport
    told["packets"], told["bytes"] = conn.packets[direction], conn.bytes[direction]
    if node.zone:
        told["zone"] = node.zone
    return told


def state_name(conn: Conn) -> str:
    """The protocol's state as conntrack-tools print it; empty for protocols without one."""
    if conn.orig.l4proto == IPPROTO_TCP:
        return TCP_STATES[conn.state] if conn.state < len(TCP_STATES) else ""
    if conn.orig.l4proto == IPPROTO_SCTP:
        return SCTP_STATES[conn.state] if conn.state < len(SCTP_STATES) else ""
    return ""


def describe(conn: Conn, now: int) -> dict[str, Any]:
    """One entry as it goes over the socket; `now` is the clock, for the seconds left."""
    proto = conn.orig.l4proto
    told: dict[str, Any] = {
        "id": conn.id,
        "family": "ipv4" if conn.orig.l3num == NFPROTO_IPV4 else "ipv6",
        "protocol": PROTOCOLS.get(proto, "unknown"),
        "protonum": proto,
        "timeout": max(0, conn.timeout - now) // NSEC_PER_SEC,
        "state": state_name(conn),
        "original": _tuple(conn, 0),
        "reply": _tuple(conn, 1),
        "status": [name for name, bit in STATUS.items() if conn.status & bit],
        "mark": conn.mark,
        "zone": conn.zone,
        "expected": conn.master is not None,
    }
    if conn.labels_hi or conn.labels_lo:
        told["labels"] = f"0x{(conn.labels_hi << 64) | conn.labels_lo:x}"
    if conn.secmark:
        told["secmark"] = conn.secmark
    if conn.helper is not None:
        told["helper"] = str(getattr(conn.helper, "name", conn.helper))
    return told


# -- filters


class Filter(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Which entries; what is not given matches all. Addresses may be prefixes."""

    family: str | None = None
    protocol: str | None = None
    src: str | None = None
    dst: str | None = None
    reply_src: str | None = None
    reply_dst: str | None = None
    sport: int | None = None
    dport: int | None = None
    reply_sport: int | None = None
    reply_dport: int | None = None
    state: str | None = None
    status: list[str] = []
    mark: int | None = None
    mark_mask: int = 0xFFFFFFFF
    zone: int | None = None
    id: int | None = None
    src_nat: str | None = None
    dst_nat: str | None = None
    any_nat: bool = False


Test = Callable[[Conn], bool]


def _prefix(text: str, name: str) -> tuple[int, int, int]:
    """(family, number, bits to ignore) of an address or prefix."""
    try:
        net = ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        raise CommandError(f"{name}: {error}", "usage") from None
    return 2 if net.version == 4 else 10, int(net.network_address), net.max_prefixlen - net.prefixlen


def _address_test(text: str, name: str, direction: int, destination: bool) -> Test:
    family, number, ignore = _prefix(text, name)

    def test(conn: Conn) -> bool:
        node = conn.reply if direction else conn.orig
        hi, lo = (node.dst_hi, node.dst_lo) if destination else (node.src_hi, node.src_lo)
        return node.l3num == family and ((hi << 64) | lo) >> ignore == number >> ignore

    return test


def _port_test(port: int, direction: int, destination: bool) -> Test:
    def test(conn: Conn) -> bool:
        node = conn.reply if direction else conn.orig
        return node.l4proto in PORTS and (node.dport if destination else node.sport) == port

    return test


def compile_filter(wanted: Filter) -> Test:
    """One function that says whether an entry is wanted. CommandError for values that mean nothing."""
    tests: list[Test] = []
    if wanted.family:
        if wanted.family not in ("ipv4", "ipv6"):
            raise CommandError(f"family: {wanted.family!r} is neither ipv4 nor ipv6", "usage")
        number = 2 if wanted.family == "ipv4" else 10
        tests.append(lambda conn: bool(conn.orig.l3num == number))
    if wanted.protocol:
        if not wanted.protocol.isdigit() and wanted.protocol not in NUMBERS:
            raise CommandError(f"protocol: {wanted.protocol!r} is not known; numbers work too", "usage")
        proto = int(wanted.protocol) if wanted.protocol.isdigit() else NUMBERS[wanted.protocol]
        tests.append(lambda conn: bool(conn.orig.l4proto == proto))
    for name, direction, destination in (("src", 0, False), ("dst", 0, True), ("reply_src", 1, False), ("reply_dst", 1, True)):
        if text := getattr(wanted, name):
            tests.append(_address_test(text, name, direction, destination))
    for name, direction, destination in (
        ("sport", 0, False), ("dport", 0, True), ("reply_sport", 1, False), ("reply_dport", 1, True),
    ):  # fmt: skip
        if (port := getattr(wanted, name)) is not None:
            tests.append(_port_test(port, direction, destination))
    tests.extend(_other_tests(wanted))
    return lambda conn: all(test(conn) for test in tests)


def _other_tests(wanted: Filter) -> Iterator[Test]:
    if wanted.state:
        state = wanted.state.upper()
        if state not in TCP_STATES + SCTP_STATES:
            raise CommandError(f"state: {wanted.state!r} is no TCP or SCTP state", "usage")
        yield lambda conn: state_name(conn) == state
    for word in wanted.status:
        name = word.upper()
        if name == "UNREPLIED":
            yield lambda conn: not conn.status & IPS_SEEN_REPLY
        elif name in STATUS:
            yield lambda conn, bit=STATUS[name]: bool(conn.status & bit)  # type: ignore[misc]
        else:
            raise CommandError(f"status: {word!r} is none of UNREPLIED, {', '.join(STATUS)}", "usage")
    if wanted.mark is not None:
        mark, mask = wanted.mark, wanted.mark_mask
        yield lambda conn: conn.mark & mask == mark & mask
    if wanted.zone is not None:
        yield lambda conn: bool(conn.zone == wanted.zone)
    if wanted.id is not None:
        yield lambda conn: bool(conn.id == wanted.id)
    if wanted.src_nat is not None:
        yield lambda conn: bool(conn.status & IPS_SRC_NAT)
        if wanted.src_nat:
            yield _address_test(wanted.src_nat, "src_nat", 1, True)
    if wanted.dst_nat is not None:
        yield lambda conn: bool(conn.status & IPS_DST_NAT)
        if wanted.dst_nat:
            yield _address_test(wanted.dst_nat, "dst_nat", 1, False)
    if wanted.any_nat:
        yield lambda conn: bool(conn.status & (IPS_SRC_NAT | IPS_DST_NAT))


# -- commands


def table_of(server: Server) -> ConnTable:
    """The daemon's connection table."""
    return server.assembly.conntrack


async def walk(server: Server, test: Test) -> AsyncIterator[list[Conn]]:
    """Matching entries, a slice of the table at a time; packets are handled between slices."""
    table = table_of(server)
    slices = 1
    while slices * SLICE < table.count:
        slices *= 2
    for base in range(slices):
        yield [conn for conn in table.members(base, slices - 1) if test(conn)]
        if base + 1 < slices:
            await asyncio.sleep(0)


class ListArgs(msgspec.Struct, forbid_unknown_fields=True):
    """`filter`: which entries; `limit`: at most so many (0: all)."""

    filter: Filter = Filter()
    limit: int = 0


class Entries:
    """A JSON list that grows by slices, each encoded at once: a table of a million must not be encoded in one go."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.count = 0

    def add(self, conns: list[Conn], now: int) -> None:
        """Append the descriptions."""
        if conns:
            self.parts.append(msgspec.json.encode([describe(conn, now) for conn in conns])[1:-1])
            self.count += len(conns)

    def raw(self) -> msgspec.Raw:
        """The list."""
        return msgspec.Raw(b"[" + b",".join(self.parts) + b"]")


@command("conntrack.list", ListArgs)
async def _list(server: Server, args: ListArgs, stream: Stream) -> Any:
    test = compile_filter(args.filter)
    entries = Entries()
    async for conns in walk(server, test):
        if args.limit:
            conns = conns[: args.limit - entries.count]
        entries.add(conns, server.clock.now)
        if args.limit and entries.count >= args.limit:
            break
    return {"entries": entries.raw(), "total": table_of(server).count}


class FilterArgs(msgspec.Struct, forbid_unknown_fields=True):
    """`filter`: which entries."""

    filter: Filter = Filter()


@command("conntrack.count", FilterArgs)
async def _count(server: Server, args: FilterArgs, stream: Stream) -> Any:
    if args.filter == Filter():
        return {"count": table_of(server).count, "max": table_of(server).settings.max}
    test = compile_filter(args.filter)
    count = 0
    async for conns in walk(server, test):
        count += len(conns)
    return {"count": count, "max": table_of(server).settings.max}


@command("conntrack.delete", FilterArgs)
async def _delete(server: Server, args: FilterArgs, stream: Stream) -> Any:
    test = compile_filter(args.filter)
    deleted = Entries()
    async for conns in walk(server, test):
        deleted.add(conns, server.clock.now)
        for conn in conns:
            table_of(server).destroy(conn)
    return {"deleted": deleted.count, "entries": deleted.raw()}


@command("conntrack.flush")
async def _flush(server: Server, args: NoArgs, stream: Stream) -> Any:
    count = 0
    async for conns in walk(server, lambda conn: True):
        for conn in conns:
            table_of(server).destroy(conn)
            count += 1
    return {"flushed": count}


class EventArgs(msgspec.Struct, forbid_unknown_fields=True):
    """`events`: which of new, update, destroy."""

    filter: Filter = Filter()
    events: tuple[str, ...] = ("new", "update", "destroy")


@command("conntrack.events", EventArgs)
async def _events(server: Server, args: EventArgs, stream: Stream) -> Any:
    test = compile_filter(args.filter)
    wanted = {name.lower() for name in args.events}
    if unknown := wanted - {"new", "update", "destroy"}:
        raise CommandError(f"events: {', '.join(sorted(unknown))}: known are new, update, destroy", "usage")

    def listener(events: int, conn: Conn) -> None:
        kind = "destroy" if events & CT_EVENT_DESTROY else "new" if events & (CT_EVENT_NEW | CT_EVENT_RELATED) else "update"
        if kind in wanted and test(conn):
            stream.send({"type": kind, **describe(conn, server.clock.now)})

    table = table_of(server)
    table.listen(listener)
    try:
        await asyncio.Future()
    finally:
        table.unlisten(listener)


@command("conntrack.stats")
def _stats(server: Server, args: NoArgs, stream: Stream) -> Any:
    stats = table_of(server).stats
    names = ("found", "invalid", "insert", "insert_failed", "drop", "early_drop", "clash_resolve", "expired", "delete")
    return {"entries": table_of(server).count, **{name: getattr(stats, name) for name in names}}
