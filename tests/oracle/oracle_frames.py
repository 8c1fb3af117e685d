"""Random frames and surroundings for a block: the headers that it asks about, its constants in its fields more often than not.

Laws: everything follows from the Random that is given. A frame is one that the hook can see: its family's EtherType, lengths and
checksum of the network header as they should be (unless the block is about them), no larger than an MTU.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from random import Random

from oracle_skb import ETH_ARP, ETH_IP, ETH_IP6, ETH_QINQ, ETH_VLAN
from oracle_surroundings import Connection, Dev, Flow, Route, Sock, Surroundings
from oracle_wants import Source, Wants
from oracle_writes import fold, words_sum

NOW = 1_000_000_000_000
OFTEN = 0.9
PROTOCOLS = (6, 17, 1, 58, 132, 33, 136, 50, 51, 108, 47, 2, 41, 4, 135, 89)
FAMILIES = {"ip": ETH_IP, "ip6": ETH_IP6, "arp": ETH_ARP}
NO_LINK = ("output", "postrouting")


@dataclass
class Case:
    """One packet: the frame (from its network header on if `link` is false) and what surrounds it."""

    frame: bytes
    link: bool
    world: Surroundings


class Generator:
    """Cases for one block at one hook."""

    def __init__(self, wants: Wants, family: str, hook: str, rng: Random) -> None:
        self.wants, self.family, self.hook, self.rng = wants, family, hook, rng
        self.now = NOW
        self.whole = False
        """Whether the hook sees no fragments: Linux defragments for a rule of this kind."""

    # --- choosing

    def chance(self, share: float) -> bool:
        return self.rng.random() < share

    def noise(self, size: int) -> bytes:
        return self.rng.randbytes(size)

    def wanted(self, source: Source) -> bytes | None:
        """One of the values that the block compares a source with, or its neighbour; None for "anything"."""
        choices = self.wants.values.get(source)
        if not choices or not self.chance(OFTEN):
            return None
        holder, value = self.rng.choice(choices)
        value = holder.undo(value, self.noise(max(holder.size, len(value))))
        if self.chance(0.12) and holder.size <= 8:
            number = int.from_bytes(value, "big") + self.rng.choice((-1, 1, 2, -2))
            value = (number & (1 << 8 * len(value)) - 1).to_bytes(len(value), "big")
        return value

    def number(self, source: Source, otherwise: int, order: str = "little") -> int:
        value = self.wanted(source)
        return otherwise if value is None else int.from_bytes(value, order)  # type: ignore[arg-type]

    # --- the frame

    def case(self) -> Case:
        ethertype = self._ethertype()
        body = self._network(ethertype)
        link = self.family in ("bridge", "netdev", "arp") or self.hook not in NO_LINK
        frame = bytearray(self._link(ethertype) + body) if link else bytearray(body)
        start = len(frame) - len(body)
        self._patch(frame, start, ethertype)
        self._mend(frame, start, ethertype)
        return Case(bytes(frame), link, self._surroundings(ethertype, frame, start))

    def _ethertype(self) -> int:
        if self.family in FAMILIES:
            return FAMILIES[self.family]
        if self.family == "inet":
            return ETH_IP6 if self.number(("meta", "nfproto", ""), self.rng.choice((2, 10))) == 10 else ETH_IP
        value = self.number(("meta", "protocol", ""), 0, "big")
        for place in ("12", "16"):
            if not value or value in (ETH_VLAN, ETH_QINQ):
                value = self.number(("payload", "link", place, "2"), 0, "big")
        return value if value in (ETH_IP, ETH_IP6, ETH_ARP) else self.rng.choice((ETH_IP, ETH_IP6, ETH_IP, ETH_IP6, ETH_ARP))

    def _link(self, ethertype: int) -> bytes:
        tag = b""
        if self.family in ("bridge", "netdev"):
            kind = self.number(("payload", "link", "12", "2"), 0, "big")
            if kind in (ETH_VLAN, ETH_QINQ) or self.chance(0.05):
                tag = struct.pack("!H", kind or ETH_VLAN) + self.noise(2)
                inner = self.number(("payload", "link", "16", "2"), 0, "big")
                if inner in (ETH_VLAN, ETH_QINQ):
                    tag += struct.pack("!H", inner) + self.noise(2)
        return b"\x02\0\0\0\0\x02" + b"\x02\0\0\0\0\x01" + tag + struct.pack("!H", ethertype)

    def _network(self, ethertype: int) -> bytes:
        if ethertype == ETH_ARP:
            return struct.pack("!HHBBH", 1, 0x800, 6, 4, self.rng.choice((1, 2))) + self.noise(20)
        proto = self._protocol(ethertype)
        body = self._transport(proto)
        if self.chance(0.06):
            body = body[: self.rng.randrange(len(body) + 1)]
        if ethertype == ETH_IP:
            options = self._ip_options()
            fragment = (
                self.rng.choice((0x2000, 1, 0x2003)) if self.chance(0.05) and not self.whole else self.rng.choice((0, 0x4000))
            )
            size = 20 + len(options)
            head = struct.pack("!BBHHHBBH", 0x40 | size // 4, self.rng.randrange(256), size + len(body), self.rng.randrange(65536),
                               fragment, self.rng.randrange(2, 256), proto, 0)  # fmt: skip
            return head + self.noise(8) + options + body
        chain, first = self._extensions(proto)
        body = chain + body
        return (
            struct.pack("!IHBB", 6 << 28 | self.rng.getrandbits(28), len(body), first, self.rng.randrange(2, 256))
            + self.noise(32)
            + body
        )

    def _protocol(self, ethertype: int) -> int:
        other = ("payload", "network", "9" if ethertype == ETH_IP else "6", "1")
        proto = self.number(("meta", "l4proto", ""), -1)
        if proto < 0:
            proto = self.number(other, -1)
        for source in self.wants.values:
            if proto < 0 and source[0] == "exthdr" and source[1] in ("tcpopt", "sctp"):
                proto = 6 if source[1] == "tcpopt" else 132
        if proto < 0:
            proto = self.rng.choice(PROTOCOLS)
        return proto if proto not in (0, 43, 44, 60) or ethertype == ETH_IP else 59

    def _ip_options(self) -> bytes:
        kinds = [int(source[2]) for source in self.wants.values if source[:2] == ("exthdr", "ipv4")]
        if not kinds or not self.chance(OFTEN):
            return b"" if self.chance(0.9) else b"\x01\x01\x01\0"
        kind = self.rng.choice(kinds)
        if kind == 148:
            return b"\x94\x04" + self.noise(2)
        return b"\x01" * self.rng.choice((0, 4)) + bytes([kind, 7, 4]) + self.noise(4) + b"\0"

    def _extensions(self, proto: int) -> tuple[bytes, int]:
        """The IPv6 extension headers that the block reads, in an order that is legal, in front of `proto`."""
        kinds = {int(source[2]) for source in self.wants.values if source[:2] == ("exthdr", "ipv6") and self.chance(OFTEN)}
        kinds |= {kind for kind in (0, 43, 44, 60) if self.chance(0.02) and not (kind == 44 and self.whole)}
        order = [kind for kind in (0, 43, 44, 60, 135) if kind in kinds]
        text, following = b"", proto
        for kind in reversed(order):
            if kind == 44:
                fragment = self.rng.choice((0, 0, 0, 1, 8, 16 | 1))
                text = struct.pack("!BBH", following, 0, fragment) + self.noise(4) + text
            else:
                blocks = self.rng.choice((0, 1, 2)) if kind != 43 else self.rng.choice((2, 4))
                filling = (
                    b"\x01" + bytes([4 + 8 * blocks]) + bytes(4 + 8 * blocks) if kind in (0, 60) else self.noise(6 + 8 * blocks)
                )
                text = bytes([following, blocks]) + filling + text
            following = kind
        return text, following

    def _transport(self, proto: int) -> bytes:
        load = self.noise(self.rng.choice((0, 1, 8, 40, 64)))
        if proto == 6:
            options = self._tcp_options()
            ports = self.noise(12)
            return ports + bytes([(20 + len(options)) // 4 << 4, self.rng.randrange(256)]) + self.noise(6) + options + load
        if proto in (17, 136):
            tunnel = self._tunnel(proto)
            load = tunnel or load
            check = b"\0\0" if self.chance(0.2) else self.noise(2)
            return self.noise(4) + struct.pack("!H", 8 + len(load)) + check + load
        if proto == 132:
            return self.noise(12) + self._chunks()
        if proto == 47:
            tunnel = self._tunnel(47)
            kind = 0x6558 if tunnel[:6] == b"\x02\0\0\0\0\x04" else ETH_IP
            return struct.pack("!HH", self.rng.choice((0, 0, 0x2000, 0x1000)) if not tunnel else 0, kind) + (tunnel or load)
        if proto in (1, 58):
            return bytes([self.rng.choice((0, 3, 8, 128, 129, 133, 135))]) + self.noise(7) + load
        if proto == 51:
            return bytes([59, 4]) + self.noise(22) + load
        return self.noise(24) + load

    def _tcp_options(self) -> bytes:
        kinds = [int(source[2]) for source in self.wants.values if source[:2] == ("exthdr", "tcpopt")] or [2, 3, 8]
        sizes = {0: 1, 1: 1, 2: 4, 3: 3, 4: 2, 5: self.rng.choice((10, 18, 26, 34)), 8: 10}
        text = b"\x01" * self.rng.randrange(3)
        for kind in kinds:
            size = sizes.get(kind, self.rng.choice((2, 3, 4, 8)))
            if self.chance(OFTEN) and len(text) + size <= 40:
                text += bytes([kind]) if size == 1 else bytes([kind, size if self.chance(0.95) else 40]) + self.noise(size - 2)
        return text.ljust((len(text) + 3) // 4 * 4, self.rng.choice((b"\0", b"\x01")))

    def _chunks(self) -> bytes:
        kinds = [int(source[2]) for source in self.wants.values if source[:2] == ("exthdr", "sctp") and self.chance(OFTEN)]
        text = b""
        for kind in [*kinds, self.rng.choice((0, 1, 14))]:
            size = self.rng.choice((4, 16, 20, 21))
            text += struct.pack("!BBH", kind, self.rng.randrange(8), size) + self.noise((size + 3) // 4 * 4 - 4)
        return text

    def _tunnel(self, proto: int) -> bytes:
        """What a block with inner expressions wants to find inside: an Ethernet frame, or for GRE a packet."""
        kinds = {source[1] for source in self.wants.values if source[0] == "inner"}
        if not kinds:
            return b""
        kind = self.rng.choice(sorted(kinds))
        version = self.number(("inner", kind, "meta", "protocol", ""), ETH_IP, "big")
        l4 = self.number(("inner", kind, "meta", "l4proto", ""), self.rng.choice((6, 17, 1)))
        body = self.noise(24)
        if version == ETH_IP6:
            head = struct.pack("!IHBB", 6 << 28, len(body), l4, 64) + self.noise(32)
        else:
            head = struct.pack("!BBHHHBBH", 0x45, self.rng.randrange(256), 44, 1, 0, 64, l4, 0) + self.noise(8)
        packet = bytearray(head + body)
        frame = bytearray(b"\x02\0\0\0\0\x04" + self.noise(6))
        tag = self.number(("inner", kind, "payload", "link", "12", "2"), 0, "big")
        if tag == ETH_VLAN:
            frame += struct.pack("!H", tag) + self.noise(2)
        frame += struct.pack("!H", version)
        tunnel = bytearray(self.noise(8))
        if kind == "2":
            tunnel[0] = 0
        self._patch_inner(
            kind, {"tunnel": tunnel, "link": frame, "network": packet, "transport": packet}, 40 if version == ETH_IP6 else 20
        )
        if kind == "3":
            return bytes(packet)
        return bytes(frame + packet) if kind == "4" or proto == 47 else bytes(tunnel + frame + packet)

    def _patch_inner(self, kind: str, parts: dict[str, bytearray], size: int) -> None:
        for source in self.wants.values:
            if source[0] == "inner" and source[1] == kind and source[2] == "payload":
                value, part = self.wanted(source), parts[source[3]]
                at = int(source[4]) + (size if source[3] == "transport" else 0)
                if value is not None and at + len(value) <= len(part):
                    part[at : at + int(source[5])] = value[: int(source[5])]

    # --- the block's own fields

    def _patch(self, frame: bytearray, start: int, ethertype: int) -> None:
        transport = self._transport_of(frame, start, ethertype)
        bases = {"link": 0 if start else -1, "network": start, "transport": transport, "inner": self._inner_of(frame, transport)}
        for source in self.wants.values:
            if source[0] == "payload":
                self._write(frame, bases[source[1]], int(source[2]), int(source[3]), self.wanted(source))
            elif source[0] == "exthdr" and not source[5]:
                at = self._header_of(frame, start, transport, source)
                self._write(frame, at, int(source[3]), int(source[4]), self.wanted(source))

    @staticmethod
    def _write(frame: bytearray, base: int, at: int, size: int, value: bytes | None) -> None:
        if value is not None and base >= 0 and base + at + size <= len(frame):
            frame[base + at : base + at + size] = value[:size].ljust(size, b"\0")

    def _transport_of(self, frame: bytearray, start: int, ethertype: int) -> int:
        if ethertype == ETH_IP:
            return start + (frame[start] & 15) * 4
        if ethertype != ETH_IP6:
            return -1
        at, proto = start + 40, frame[start + 6]
        while proto in (0, 43, 44, 60, 135) and at + 2 <= len(frame):
            proto, at = frame[at], at + (8 if proto == 44 else 8 * (frame[at + 1] + 1))
        return at

    def _inner_of(self, frame: bytearray, transport: int) -> int:
        return transport + 8 if transport >= 0 else -1

    def _header_of(self, frame: bytearray, start: int, transport: int, source: Source) -> int:
        """Where the generator put a header or option; -1 if it did not."""
        kind = int(source[2])
        if source[1] == "ipv6" and len(frame) >= start + 40:
            at, proto = start + 40, frame[start + 6]
            while proto in (0, 43, 44, 60) and proto != kind and at + 2 <= len(frame):
                proto, at = frame[at], at + (8 if proto == 44 else 8 * (frame[at + 1] + 1))
            return at if proto == kind else -1
        begin = {"ipv4": start + 20, "tcpopt": transport + 20, "sctp": transport + 12}.get(source[1], -1)
        return frame.find(bytes([kind]), begin) if begin >= 0 else -1

    def _mend(self, frame: bytearray, start: int, ethertype: int) -> None:
        """The IPv4 header's checksum."""
        if ethertype == ETH_IP and len(frame) >= start + 20:
            size = (frame[start] & 15) * 4
            frame[start + 10 : start + 12] = b"\0\0"
            frame[start + 10 : start + 12] = fold(words_sum(bytes(frame[start : start + size]))).to_bytes(2, "big")

    # --- what surrounds it

    def _surroundings(self, ethertype: int, frame: bytearray, start: int) -> Surroundings:
        rng = self.rng
        self.now += rng.choice((0, 1000, 1_000_000, 50_000_000, 2_000_000_000))
        iif = self._device("iif", 3, "in0") if self.hook not in ("output", "egress") else None
        oif = self._device("oif", 4, "out0") if self.hook in ("output", "postrouting", "forward", "egress") else None
        others = [Dev(index, f"d{index}") for index in (1, 2, 5, 6, 7)]
        world = Surroundings(iif, oif, [dev for dev in (iif, oif, *others) if dev is not None], self.now)
        world.mark = self.number(("meta", "mark", ""), rng.getrandbits(32))
        world.priority = self.number(("meta", "priority", ""), rng.getrandbits(32))
        world.secmark = rng.getrandbits(8)
        world.pkttype = self.number(("meta", "pkttype", ""), rng.randrange(4)) & 3
        world.cpu = self.number(("meta", "cpu", ""), rng.randrange(8))
        world.cgroup = self.number(("meta", "cgroup", ""), rng.getrandbits(32))
        world.wall = self._wall()
        world.now = self.now
        world.draws = [self.number(("meta", "prandom", ""), rng.getrandbits(32)) for _ in range(4)]
        world.tproxied, world.takes = self.chance(0.8), rng.choice(("stolen", "stolen", "drop", "accept"))
        if self.chance(0.9):
            nexthop = self.wanted(("rt", "nexthop4" if ethertype == ETH_IP else "nexthop6", ""))
            size = 4 if ethertype == ETH_IP else 16
            mtu = self.number(("rt", "tcpmss", ""), 1440) + 40
            world.route = Route((nexthop or self.noise(size))[:size], self.number(("rt", "classid", ""), rng.getrandbits(16)), mtu)
        if self.chance(0.9):
            uid, gid = (self.number(("meta", key, ""), rng.randrange(3000)) for key in ("skuid", "skgid"))
            mark = self.number(("socket", "mark", ""), rng.getrandbits(32))
            world.sock = Sock(self.chance(0.5), self.chance(0.5), mark, uid, gid, self.chance(0.8))
        kind = rng.choice((1, 1, 1, 2, 3, 5, 6, 7, 8))
        if self.chance(0.8):
            world.fib = (kind, rng.choice(world.devices) if kind == 1 else None)
        self._connection(world, ethertype, frame, start)
        return world

    def _device(self, side: str, index: int, name: str) -> Dev:
        text = self.wanted(("meta", f"{side}name", "")) or name.encode()
        if self.chance(0.2):
            text = text.rstrip(b"\0") + b"x"
        bridge = self.wanted(("meta", f"bri_{side}name", "")) or b"br0"
        kind = self.wanted(("meta", f"{side}kind", "")) or b"veth"
        mac = self.wanted(("meta", "ibrhwaddr", "")) or self.noise(6)
        master = Dev(40, _name(bridge), mac=mac[:6]) if self.chance(0.8) else None
        return Dev(
            self.number(("meta", side, ""), index) & 0x7FFFFFFF or index,
            _name(text) or name,
            self.number(("meta", f"{side}type", ""), 1) & 0xFFFF,
            self.number(("meta", f"{side}group", ""), self.rng.randrange(4)) & 0x7FFFFFFF,
            _name(kind),
            master=master,
        )

    def _wall(self) -> int:
        """Unix time minus monotonic time, so that time, day or hour is what the block compares with."""
        wall = (1_600_000_000 + self.rng.randrange(10**7)) * 10**9
        if any(("meta", key, "") in self.wants.values for key in ("time", "hour", "day")):
            self.now -= self.now % 10**9
        time = self.wanted(("meta", "time", ""))
        if time is not None:
            wall = int.from_bytes(time, "little")
        hour = self.wanted(("meta", "hour", ""))
        if hour is not None:
            wall = wall // (86400 * 10**9) * 86400 * 10**9 + int.from_bytes(hour, "little") % 86400 * 10**9
        day = self.wanted(("meta", "day", ""))
        if day is not None:
            wall += (day[0] - (wall // (86400 * 10**9) + 4) % 7) * 86400 * 10**9
        return max(wall - wall % 10**9 - self.now // 10**9 * 10**9, 0)

    def _connection(self, world: Surroundings, ethertype: int, frame: bytearray, start: int) -> None:
        if ethertype not in (ETH_IP, ETH_IP6) or self.family not in ("ip", "ip6", "inet", "bridge"):
            return
        state = self.wanted(("ct", "state", ""))
        bits = state[0] if state is not None else 0
        choices = [
            name for name, bit in (("invalid", 1), ("established", 2), ("related", 4), ("new", 8), ("untracked", 64)) if bits & bit
        ]
        world.state = self.rng.choice(choices or ["new", "established", "related", "untracked", "invalid"])
        world.reply = bool(self.number(("ct", "direction", ""), self.rng.randrange(2)) & 1)
        if world.state in ("invalid", "untracked"):
            return
        size = 4 if ethertype == ETH_IP else 16
        original, reply = (self._flow(direction, size) for direction in ("original", "reply"))
        conn = Connection(original, reply, 2 if size == 4 else 10, 6)
        for key in ("mark", "status", "id"):
            setattr(conn, key, self.number(("ct", key, ""), self.rng.getrandbits(31)))
        conn.secmark, conn.labels = self.rng.getrandbits(8), self.wanted(("ct", "label", "")) or self.noise(16)
        conn.status &= ~2048
        conn.expires = self.number(("ct", "expiration", ""), self.rng.getrandbits(24))
        conn.l4 = self.number(("ct", "protocol", ""), self.rng.choice((6, 17)))
        conn.zone, conn.zone_directions = self.number(("ct", "zone", ""), self.rng.randrange(10)), self.rng.choice((1, 2, 3))
        count = self._count
        conn.packets = count("packets"), count("packets", "reply")
        conn.octets = count("bytes", "original"), count("bytes", "reply")
        if self.chance(0.7):
            conn.helper = _name(self.wanted(("ct", "helper", "")) or b"ftp")
        world.ct = conn

    def _count(self, key: str, direction: str = "") -> int:
        return self.number(("ct", key, direction), self.number(("ct", key, ""), self.rng.getrandbits(20))) & (1 << 50) - 1

    def _flow(self, direction: str, size: int) -> Flow:
        def address(name: str) -> bytes:
            for key in (name, f"{name}_ip", f"{name}_ip6"):
                value = self.wanted(("ct", key, direction))
                if value is not None and len(value) == size:
                    return value
            return self.noise(size)

        ports = [self.number(("ct", f"proto_{name}", direction), self.rng.getrandbits(16), "big") for name in ("src", "dst")]
        return Flow(address("src"), address("dst"), ports[0], ports[1])


def _name(text: bytes) -> str:
    """An interface or helper name of at most 15 characters."""
    return text.split(b"\0")[0][:15].decode("ascii", "replace").replace("\ufffd", "x")
