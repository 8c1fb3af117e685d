"""A small netlink: just the requests that ports and the routing-table mirror need, on plain sockets.

Written by hand because the packet loop's uvloop and pyroute2 cannot share a thread, and a socket opened inside a namespace
stays in it: no process is forked to enter one. (RFC 3549; Linux: Documentation/userspace-api/netlink.)

Law: what the kernel sends is parsed by its own length fields, each checked against what is left.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from userfw.ports.netns import run_in

NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_DUMP = 0x300
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLM_F_REPLACE = 0x100
NLMSG_ERROR = 2
NLMSG_DONE = 3
RTM_NEWLINK = 16
RTM_DELLINK = 17
RTM_GETLINK = 18
RTM_NEWADDR = 20
RTM_DELADDR = 21
RTM_NEWROUTE = 24
RTM_DELROUTE = 25
RTM_GETROUTE = 26
RTM_NEWRULE = 32
RTM_DELRULE = 33
RTMGRP_LINK = 0x1
RTMGRP_IPV4_ROUTE = 0x40
RTMGRP_IPV6_ROUTE = 0x400
IFF_UP = 0x1
IFF_RUNNING = 0x40
IFF_LOWER_UP = 0x10000
IFLA_ADDRESS = 1
IFLA_IFNAME = 3
IFLA_MTU = 4
IFLA_LINKINFO = 18
IFLA_INFO_KIND = 1
IFA_F_NODAD = 0x02
AF_NETLINK_ROUTE = 0


@dataclass(frozen=True)
class Link:
    """One interface of the kernel: `up` is administrative, `carrier` what the lower layer says."""

    index: int
    name: str
    mtu: int
    mac: bytes
    up: bool
    carrier: bool
    gone: bool = False


@dataclass(frozen=True)
class KernelRoute:
    """One route of the kernel; addresses are packed bytes, `device` an ifindex or 0. `gone`: it was deleted."""

    family: int
    to: bytes
    prefixlen: int
    table: int
    type: int
    protocol: int
    scope: int
    priority: int
    nexthops: tuple[tuple[bytes, int, int], ...] = field(default=())  # (gateway or b"", ifindex, weight)
    gone: bool = False


def attribute(kind: int, value: bytes) -> bytes:
    """One netlink attribute, padded to 4 bytes."""
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def attributes_untrusted(data: bytes) -> dict[int, bytes]:
    """Attributes by type (flags masked off); stops at the first that does not fit."""
    found: dict[int, bytes] = {}
    off = 0
    while off + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, off)
        if length < 4 or off + length > len(data):
            break
        found[kind & 0x3FFF] = data[off + 4 : off + length]
        off += (length + 3) & ~3
    return found


def messages_untrusted(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(type, flags, payload) of each message in a datagram."""
    off = 0
    while off + 16 <= len(data):
        length, kind, flags = struct.unpack_from("=IHH", data, off)
        if length < 16 or off + length > len(data):
            break
        yield kind, flags, data[off + 16 : off + length]
        off += (length + 3) & ~3


def _rule(family: int, device: str, table: int) -> bytes:
    """struct fib_rule_hdr with FRA_IIFNAME and FRA_TABLE; FR_ACT_TO_TBL."""
    head = struct.pack("=BBBBBBBBI", family, 0, 0, 0, 0, 0, 0, 1, 0)
    return head + attribute(3, device.encode() + b"\0") + attribute(15, struct.pack("=I", table))


class Netlink:
    """A rtnetlink socket inside namespace `netns`; `groups` subscribes to notifications (RTMGRP_*)."""

    def __init__(self, netns: str | None = None, groups: int = 0, protocol: int = AF_NETLINK_ROUTE) -> None:
        def make() -> socket.socket:
            return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)

        self.sock = run_in(netns, make)
        self.sock.bind((0, groups))
        self.sock.settimeout(10)
        self.sequence = 0

    def close(self) -> None:
        """Close the socket."""
        self.sock.close()

    def request(self, kind: int, flags: int, payload: bytes) -> list[tuple[int, bytes]]:
        """Send one request and collect its answers. OSError with the kernel's errno if it is refused."""
        self.sequence += 1
        flags |= NLM_F_REQUEST
        if flags & NLM_F_DUMP != NLM_F_DUMP:  # its bits mean other things in requests that are no dump
            flags |= NLM_F_ACK
        self.sock.send(struct.pack("=IHHII", 16 + len(payload), kind, flags, self.sequence, 0) + payload)
        answers: list[tuple[int, bytes]] = []
        while True:
            for answer, _, body in messages_untrusted(self.sock.recv(1 << 18)):
                if answer == NLMSG_DONE:
                    return answers
                if answer == NLMSG_ERROR:
                    number = -struct.unpack_from("=i", body)[0]
                    if number:
                        raise OSError(number, os.strerror(number))
                    return answers
                answers.append((answer, body))

    def links(self) -> list[Link]:
        """Every interface of the namespace."""
        found = self.request(RTM_GETLINK, NLM_F_DUMP, struct.pack("=BxHiII", 0, 0, 0, 0, 0))
        return [link for kind, body in found if (link := parse_link_untrusted(kind, body))]

    def link(self, name: str) -> Link:
        """The interface called `name`. OSError ENODEV if there is none."""
        ask = struct.pack("=BxHiII", 0, 0, 0, 0, 0) + attribute(IFLA_IFNAME, name.encode() + b"\0")
        for kind, body in self.request(RTM_GETLINK, 0, ask):
            if link := parse_link_untrusted(kind, body):
                return link
        raise OSError(19, f"no interface {name}")

    def set_link(self, index: int, up: bool | None = None, mtu: int = 0, mac: bytes = b"") -> None:
        """Change flags, MTU (bytes) and address of an interface; what is not given stays."""
        flags, change = (0, 0) if up is None else (IFF_UP if up else 0, IFF_UP)
        payload = struct.pack("=BxHiII", 0, 0, index, flags, change)
        if mtu:
            payload += attribute(IFLA_MTU, struct.pack("=I", mtu))
        if mac:
            payload += attribute(IFLA_ADDRESS, mac)
        self.request(RTM_NEWLINK, 0, payload)

    def add_address(self, index: int, address: bytes, prefixlen: int) -> None:
        """Give an interface an address, without duplicate address detection; one that is there already is fine."""
        family = socket.AF_INET if len(address) == 4 else socket.AF_INET6
        flags = IFA_F_NODAD if family == socket.AF_INET6 else 0
        payload = struct.pack("=BBBBi", family, prefixlen, flags, 0, index)
        payload += attribute(1, address) + attribute(2, address)  # IFA_ADDRESS, IFA_LOCAL
        self.request(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, payload)

    def remove_address(self, index: int, address: bytes, prefixlen: int) -> None:
        """Take an address away; one that is not there is fine."""
        family = socket.AF_INET if len(address) == 4 else socket.AF_INET6
        payload = struct.pack("=BBBBi", family, prefixlen, 0, 0, index) + attribute(2, address) + attribute(1, address)
        try:
            self.request(RTM_DELADDR, 0, payload)
        except OSError as error:
            if error.errno != 99:  # EADDRNOTAVAIL
                raise

    def no_link_local(self, index: int) -> None:
        """Let the kernel make no IPv6 link-local address by itself (IFLA_INET6_ADDR_GEN_MODE none); no IPv6 is fine."""
        mode = attribute(10, attribute(8, b"\x01"))  # AF_INET6: IFLA_INET6_ADDR_GEN_MODE
        try:
            self.request(RTM_NEWLINK, 0, struct.pack("=BxHiII", 0, 0, index, 0, 0) + attribute(26, mode))
        except OSError as error:
            if error.errno not in (95, 97):  # EOPNOTSUPP, EAFNOSUPPORT
                raise

    def add_local_default(self, device: str, table: int) -> None:
        """What comes in on `device` is for this host: `ip rule iif DEVICE lookup TABLE`, `ip route local default dev lo`."""
        loopback = self.link("lo").index
        for family in (socket.AF_INET, socket.AF_INET6):
            try:
                route = struct.pack("=BBBBBBBBI", family, 0, 0, 0, 0, 4, 254, 2, 0)  # RTPROT_STATIC, RT_SCOPE_HOST, RTN_LOCAL
                route += attribute(4, struct.pack("=i", loopback)) + attribute(15, struct.pack("=I", table))  # RTA_OIF, RTA_TABLE
                self.request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, route)
                self.request(RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL, _rule(family, device, table))
            except OSError as error:
                if error.errno not in (17, 95, 97):  # EEXIST, EOPNOTSUPP, EAFNOSUPPORT
                    raise

    def remove_local_default(self, device: str, table: int) -> None:
        """The rules of `add_local_default`; one that is not there is fine."""
        for family in (socket.AF_INET, socket.AF_INET6):
            try:
                self.request(RTM_DELRULE, 0, _rule(family, device, table))
            except OSError as error:
                if error.errno not in (2, 95, 97):
                    raise

    def add_route(
        self, index: int, to: bytes, prefixlen: int, via: bytes = b"", metric: int = 0, source: bytes = b""
    ) -> None:
        """Add or replace a route of the main table out of interface `index`."""
        family = socket.AF_INET if len(to) == 4 else socket.AF_INET6
        scope = 253 if family == socket.AF_INET and not via else 0  # RT_SCOPE_LINK
        payload = struct.pack("=BBBBBBBBI", family, prefixlen, 0, 0, 254, 4, scope, 1, 0)  # main, RTPROT_STATIC, unicast
        payload += attribute(1, to) + attribute(4, struct.pack("=i", index))  # RTA_DST, RTA_OIF
        if via:
            payload += attribute(5, via)  # RTA_GATEWAY
        if metric:
            payload += attribute(6, struct.pack("=I", metric))  # RTA_PRIORITY
        if source:
            payload += attribute(7, source)  # RTA_PREFSRC
        self.request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, payload)

    def routes(self, family: int) -> list[KernelRoute]:
        """Every route of a family (AF_INET or AF_INET6), of all tables."""
        found = self.request(RTM_GETROUTE, NLM_F_DUMP, struct.pack("=BBBBBBBBI", family, 0, 0, 0, 0, 0, 0, 0, 0))
        return [route for kind, body in found if (route := parse_route_untrusted(kind, body))]


def parse_link_untrusted(kind: int, body: bytes) -> Link | None:
    """RTM_NEWLINK or RTM_DELLINK as a Link; None for anything else."""
    if kind not in (RTM_NEWLINK, RTM_DELLINK) or len(body) < 16:
        return None
    _, _, index, flags, _ = struct.unpack_from("=BxHiII", body)
    attrs = attributes_untrusted(body[16:])
    mtu = attrs.get(IFLA_MTU, b"")
    return Link(
        index=index,
        name=attrs.get(IFLA_IFNAME, b"").rstrip(b"\0").decode(errors="replace"),
        mtu=struct.unpack("=I", mtu)[0] if len(mtu) == 4 else 0,
        mac=attrs.get(IFLA_ADDRESS, b""),
        up=bool(flags & IFF_UP),
        carrier=bool(flags & IFF_LOWER_UP),
        gone=kind == RTM_DELLINK,
    )


def parse_route_untrusted(kind: int, body: bytes) -> KernelRoute | None:
    """RTM_NEWROUTE or RTM_DELROUTE as a KernelRoute; None for anything else and for cached routes."""
    if kind not in (RTM_NEWROUTE, RTM_DELROUTE) or len(body) < 12:
        return None
    family, prefixlen, _, _, table, protocol, scope, rtype, flags = struct.unpack_from("=BBBBBBBBI", body)
    if flags & 0x200 or family not in (socket.AF_INET, socket.AF_INET6):  # RTM_F_CLONED
        return None
    attrs = attributes_untrusted(body[12:])
    size = 4 if family == socket.AF_INET else 16
    hops = []
    if 9 in attrs:  # RTA_MULTIPATH: struct rtnexthop, then its attributes
        data, off = attrs[9], 0
        while off + 8 <= len(data):
            length, _, weight, index = struct.unpack_from("=HBBi", data, off)
            if length < 8 or off + length > len(data):
                break
            gateway = _gateway(attributes_untrusted(data[off + 8 : off + length]))
            hops.append((gateway, index, weight + 1))
            off += (length + 3) & ~3
    elif 4 in attrs or _gateway(attrs):
        hops.append((_gateway(attrs), _number(attrs.get(4)), 1))
    return KernelRoute(
        family=family,
        to=attrs.get(1, bytes(size)),
        prefixlen=prefixlen,
        table=_number(attrs.get(15)) or table,
        type=rtype,
        protocol=protocol,
        scope=scope,
        priority=_number(attrs.get(6)),
        nexthops=tuple(hops),
        gone=kind == RTM_DELROUTE,
    )


def _gateway(attrs: dict[int, bytes]) -> bytes:
    if 5 in attrs:
        return attrs[5]
    return attrs.get(18, b"\0\0")[2:]  # RTA_VIA: family, then the address


def _number(value: bytes | None) -> int:
    return int(struct.unpack("=I", value)[0]) if value is not None and len(value) == 4 else 0
