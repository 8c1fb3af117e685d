"""Random traffic: fresh packets, answers, follow-ups, ICMP errors, fragments, and all of these broken.

Laws
- A packet is of the network layer; one that begins as ARP's hardware type or as a VLAN's EtherType is that (`framed`).
- A step is drawn once; what depends on a router's output (answers, errors) is built from that router's own output.
- Identifications of fragments are moved by `run`, so that pieces left over from one run never join those of another.
"""

import random
import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lab import frames as f
from lab.families import EVERY, Family
from lab.topology import SIDES, Out, Side, is_housekeeping

from . import pools
from .bodies import AH, DCCP, DISCOVERY, ESP, GRE, OPTIONS4, SCTP, UDPLITE, Bodies

FRAGMENT_IDENTS = 0x4000
PLAIN_OPTIONS4 = (b"\x01\x01\x01\x00", b"\x94\x04\x00\x00", b"\x82\x02\x00\x00", b"\x01\x94\x04\x00\x00\x00\x00\x00")
UNUSUAL = 0.15
OF_SENDERS = re.compile("skuid|skgid|cgroup|socket wildcard")
TAGS = (b"\x81\0", b"\x88\xa8")
TCP_OPTIONS = (b"", b"", b"\2\4\5\xb4", b"\2\4\5\xb4\4\2\1\3\3\7"[:9] + b"\7\1\1", b"\1\1\x08\x0a\0\0\0\1\0\0\0\0", b"\3\3\x0e\0",
               b"\2\4\5\0", b"\x05\x0a\0\0\x03\xe8\0\0\x07\xd0\1\1", b"\2\1\1\1", b"\x08\0\0\0")


class Frame(bytes):
    """A whole frame where a packet is expected, sent as it is."""

    @property
    def head(self) -> bytes:
        """The link header, tags with it."""
        at = 12
        while self[at:at + 2] in TAGS and at + 4 < len(self):
            at += 4
        return self[:at + 2]

    @property
    def packet(self) -> bytes:
        """What the link header carries."""
        return self[len(self.head):]


@dataclass(frozen=True)
class Step:
    """One thing that is sent: `kind` and numbers that say how; see `Traffic.frames`."""

    port: str
    kind: str
    packets: tuple[bytes, ...] = ()
    about: int = 0
    way: int = 0

    def __str__(self) -> str:
        from lab import show
        shown = [show.frame(p) if isinstance(p, Frame) else show.packet(p) for p in self.packets]
        what = "; ".join(shown) or f"about step {self.about}, way {self.way}"
        return f"{self.port} {self.kind}: {what}"


class Generator:
    """Draws steps from one source of random numbers; the router itself speaks only where `rules` do not ask who does."""

    def __init__(self, rng: random.Random, rules: str = "") -> None:
        self.rng, self.bodies = rng, Bodies(rng)
        self.speaks = not OF_SENDERS.search(rules)
        self.fragments = 0
        self.names: Sequence[str] = pools.NAMES

    def steps(self, count: int, first: Sequence[Step] = ()) -> list[Step]:
        """So many steps behind the first ones; later ones refer to earlier ones."""
        steps = list(first)
        for n in range(len(first), len(first) + count):
            roll = self.rng.random()
            if n and roll < 0.42:
                kind = self.rng.choice(("answer", "answer", "answer", "follow", "follow", "again", "error"))
                about = n - 1 - min(int(self.rng.expovariate(0.5)), n - 1)
                steps.append(Step(steps[about].port, kind, (), about, self.rng.randrange(1000)))
                continue
            steps.append(self.fresh(roll))
        return steps

    def fresh(self, roll: float) -> Step:
        """A step that refers to none before; `roll` (from 0.42 to 1) says whether it is cut or broken."""
        port = self.rng.choice(self.names)
        if self.speaks and self.rng.random() < 0.03:
            fam = pools.family(self.rng.choice(("ip", "ip", "ip6")))
            return self.own(fam, self.rng.choice((f.TCP, f.UDP, f.ICMP, SCTP, DCCP, ESP)))
        if self.rng.random() < 0.04:
            return Step(port, "arp", (self.bodies.arp(port),))
        packet = self.packet(port)
        if self.rng.random() < 0.02:
            return Step(port, "tagged", (tagged(packet, self.rng.choice((0, 1, 5, 0x2005))),))
        if roll < 0.50:
            return Step(port, "fragments", self.cut(packet))
        return Step(port, "broken", (self.broken(packet),)) if roll < 0.58 else Step(port, "fresh", (packet,))

    def own(self, fam: Family, proto: int, kind: str = "own") -> Step:
        """A packet of the router itself to a host, as its kernel writes it."""
        port = self.rng.choice(self.names)
        src, dst = fam.host(port, 1), fam.host(port, self.rng.choice(pools.HOSTS))
        return Step(pools.SELF, kind, (written(self.carried(fam, src, dst, proto)),))

    def packet(self, port: str) -> bytes:
        """A packet from the network at `port`, mostly well-formed and mostly to another network."""
        rng, fam = self.rng, pools.family(self.rng.choice(("ip", "ip", "ip6")))
        src = fam.host(port, rng.choice(pools.HOSTS))
        other = rng.choice([name for name in self.names if name != port])
        dst = fam.host(other, rng.choice(pools.HOSTS))
        roll = rng.random()
        if roll < 0.10:
            dst = fam.host(rng.choice((port, other)), 1)
        elif roll < 0.16:
            dst = rng.choice(pools.FAR[fam.name])
        elif roll < 0.19:
            dst = fam.host("wan", 77)
        elif roll < 0.22:
            dst = rng.choice(("255.255.255.255", "224.0.0.5", "127.0.0.1", "0.0.0.0", "240.0.0.1",
                              fam.net(other).replace(".0/24", ".255")) if fam.name == "ip" else
                             ("ff02::1", "ff05::5", "::1", "::", "ff0e::77"))
        if rng.random() < 0.03:
            src = rng.choice(("0.0.0.0", "127.0.0.1", "255.255.255.255", "224.0.0.1", fam.host(other, 10), fam.host(port, 1))
                             if fam.name == "ip" else ("::", "::1", "ff02::1", "fe80::10"))
        return self.transport(fam, src, dst)

    def transport(self, fam: Family, src: str, dst: str) -> bytes:
        """A packet between two addresses with a random transport."""
        rng = self.rng
        if rng.random() < UNUSUAL:
            return self.network(fam, src, dst, *self.bodies.unusual(fam, src, dst))
        return self.plain(fam, src, dst, rng.choice((f.TCP, f.TCP, f.TCP, f.UDP, f.UDP, f.UDP, 0, 0, rng.choice(pools.CARRIED))))

    def carried(self, fam: Family, src: str, dst: str, proto: int) -> bytes:
        """A whole packet of a given transport, with what is usual for it; a request, so far as there is a choice."""
        bodies, rng = self.bodies, self.rng
        if proto == f.TCP:
            options = b"\2\4\5\xb4\4\2\x08\x0a\0\0\0\1\0\0\0\0\1\3\3\7"
            body = f.tcp(src, dst, rng.choice(pools.SOURCES), rng.choice(pools.PORTS), seq=1000, flags=f.SYN, options=options)
        elif proto in (f.ICMP, f.ICMP6):
            rest = rng.choice(pools.IDENTS) << 16 | 1
            proto = f.ICMP if fam.name == "ip" else f.ICMP6
            body = f.icmp(8, 0, rest, b"aimed") if fam.name == "ip" else f.icmp6(src, dst, 128, 0, rest, b"aimed")
        elif proto in (SCTP, DCCP, GRE, UDPLITE):
            make = {SCTP: bodies.sctp, DCCP: bodies.dccp, GRE: bodies.gre, UDPLITE: bodies.udplite}[proto]
            proto, body = make(fam, src, dst)
        elif proto in (ESP, AH):
            wanted = proto
            proto, body = bodies.security(fam, src, dst)
            while proto != wanted:
                proto, body = bodies.security(fam, src, dst)
        elif proto == f.UDP and rng.random() < 0.4:
            proto, body = bodies.overlay(fam, src, dst)
        elif proto == f.UDP:
            body = f.udp(src, dst, rng.choice(pools.SOURCES), rng.choice(pools.PORTS), b"aimed at")
        else:
            body = b"\x11\0\0\1compressed"
        return f.ip(src, dst, proto, body)

    def plain(self, fam: Family, src: str, dst: str, proto: int) -> bytes:
        """A packet of a protocol, well-formed within its protocol's liberties; 0: ICMP."""
        rng = self.rng
        data = rng.randbytes(rng.choice((0, 1, 7, 8, 20, 64, 500, 1320, 1420)) if rng.random() < 0.5 else 7)
        if proto == f.TCP:
            flags = rng.choice((f.SYN, f.SYN, f.SYN, f.SYN | f.ACK, f.ACK, f.ACK | f.PSH, f.FIN | f.ACK, f.RST, f.RST | f.ACK,
                                rng.randrange(256)))
            body = f.tcp(src, dst, rng.choice(pools.SOURCES), rng.choice(pools.PORTS), seq=rng.choice(pools.SEQUENCES),
                         ack=rng.choice(pools.SEQUENCES) if flags & f.ACK else 0, flags=flags, window=rng.choice(pools.WINDOWS),
                         options=rng.choice(TCP_OPTIONS), payload=data if not flags & f.SYN else b"",
                         urgent=rng.choice((0, 0, 0, 1)))
        elif proto == f.UDP:
            check = 0 if fam.name == "ip" and rng.random() < 0.1 else None
            body = f.udp(src, dst, rng.choice(pools.SOURCES), rng.choice(pools.PORTS), data, check=check)
        elif proto == 0 or proto == f.ICMP:
            kind = rng.choice((8, 8, 8, 8, 0, 14, 17, 3, 11, 5, 42)) if fam.name == "ip" else \
                rng.choice((128, 128, 128, 128, 129, 1, 2, 3, 4, 139, 200))
            rest = rng.choice(pools.IDENTS) << 16 | rng.choice((1, 2, 3))
            proto = f.ICMP if fam.name == "ip" else f.ICMP6
            body = f.icmp(kind, rng.choice((0, 0, 0, 1)), rest, data) if fam.name == "ip" else \
                f.icmp6(src, dst, kind, rng.choice((0, 0, 0, 1)), rest, data)
        else:
            body = data
        return self.network(fam, src, dst, proto, body)

    def network(self, fam: Family, src: str, dst: str, proto: int, body: bytes) -> bytes:
        """The network header around `body`, with options or extension headers now and then."""
        rng, ttl = self.rng, self.rng.choice(pools.TTLS)
        if fam.name == "ip":
            options = rng.choice((*PLAIN_OPTIONS4, *OPTIONS4)) if rng.random() < 0.1 else b""
            return f.ip4(src, dst, proto, body, ttl=ttl, ident=rng.choice((0, 1, 0x1234, 0xFFFF)), df=rng.random() < 0.4,
                         tos=rng.choice((0, 0, 0x20, 0x28, 0xB8, 3)), options=options)
        if proto == f.ICMP6 and body and body[0] in DISCOVERY:
            ttl = min(ttl, 64)  # what is of the link would teach the kernel neighbours
        if rng.random() < 0.1:
            proto, body = self.bodies.extended(proto, body, dst)
        return f.ip6(src, dst, proto, body, hops=ttl, tclass=rng.choice((0, 0, 0x20, 0xB8)), flow=rng.choice((0, 0, 1, 0x12345)))

    def cut(self, packet: bytes) -> tuple[bytes, ...]:
        """The packet as fragments, sometimes disordered, doubled, overlapping or incomplete."""
        rng = self.rng
        self.fragments += 1
        ident, version = FRAGMENT_IDENTS + self.fragments % 16, packet[0] >> 4
        if version == 4 and packet[0] == 0x45:
            head = bytearray(packet[:20])
            head[4:6] = ident.to_bytes(2, "big")
            head[6:8] = b"\0\0"
            packet = bytes(head) + packet[20:]
        size = rng.choice((8, 16, 64, 256, 512, 1024) if version == 4 else (16, 24, 64, 256, 512, 1024))
        if version == 4 and packet[9] == f.TCP:
            size = max(size, 24)  # ports and checksum together: a chosen port is masked with its checksum
        if version == 6 and packet[6] not in (f.UDP, f.ICMP6):
            size = max(size, 64)  # what the kernel writes to a header or sums, it first joins, and then cuts anew in another way
        size = max(size, (len(packet) // 12 + 7) // 8 * 8)
        plain = packet[0] == 0x45 if version == 4 else packet[6] not in (0, 43, 60)
        if not plain or len(packet) <= (20 if version == 4 else 40):
            return (packet,)
        pieces = f.fragments4(packet, size) if version == 4 else f.fragments6(packet, size, ident)
        roll = rng.random()
        if roll < 0.3:
            rng.shuffle(pieces)
        elif roll < 0.36:
            pieces.append(rng.choice(pieces))
        elif roll < 0.42 and len(pieces) > 1:
            pieces.pop(rng.randrange(len(pieces)))
        elif roll < 0.48 and len(pieces) > 2 and version == 4:
            middle = f.fragments4(packet, size + 8)
            pieces[1] = middle[1]
        return tuple(pieces)

    def broken(self, packet: bytes) -> bytes:
        """The packet with something wrong."""
        rng, data = self.rng, bytearray(packet)
        way = rng.randrange(6)
        if way == 0:
            return bytes(data[:rng.randrange(1, len(data) + 1)])
        if way == 1:
            at = rng.randrange(len(data))
            addresses = range(12, 20) if data[0] >> 4 == 4 else range(8, 40)  # a stranger would have to be looked for
            if at not in addresses:
                data[at] ^= 1 << rng.randrange(8)
        elif way == 2 and data[0] >> 4 == 4:
            data[2:4] = rng.choice((0, 19, 20, len(data) - 1, len(data) + 1, 65535)).to_bytes(2, "big")
            _fix_header(data)
        elif way == 2:
            data[4:6] = rng.choice((0, 1, max(0, len(data) - 41), len(data) - 39, 65535)).to_bytes(2, "big")
        elif way == 3:
            data[0] = data[0] & 0xF0 | rng.randrange(6)  # a longer header would hold random options
            if data[0] >> 4 == 4:
                _fix_header(data)
        elif way == 4:
            at = (20 if data[0] >> 4 == 4 else 40) + rng.randrange(20)
            if at < len(data):
                data[at] = rng.randrange(256)
        else:
            data += rng.randbytes(rng.choice((1, 6, 46)))
        return bytes(data)


def _fix_header(data: bytearray) -> None:
    size = min(max((data[0] & 15) * 4, 20), len(data))
    data[10:12] = b"\0\0"
    data[10:12] = f.checksum(bytes(data[:size])).to_bytes(2, "big")


def tagged(packet: bytes, tag: int) -> bytes:
    """The packet behind a VLAN tag (its TCI), as `framed` takes it."""
    return struct.pack("!HHH", f.ETH_VLAN, tag, f.ETH_IP6 if packet[0] >> 4 == 6 else f.ETH_IP) + packet


def framed(side: Side, packet: bytes) -> bytes:
    """The frame that carries a packet (or ARP, or a tag and a packet) from the host of a side to the router."""
    if isinstance(packet, Frame):
        return packet
    if packet[:2] == b"\x81\0":
        return f.mac(side.router_mac) + f.mac(side.host_mac) + packet
    kind = f.ETH_ARP if packet[:2] == b"\0\1" else f.ETH_IP6 if packet[0] >> 4 == 6 else f.ETH_IP
    return f.eth(side.router_mac, side.host_mac, kind, packet)


def own_talk(port: str, frame: bytes) -> bool:
    """ARP and neighbour discovery of the router itself, about which nothing is compared; a bridge forwards that of others."""
    return is_housekeeping(frame) and (port in SIDES or f.mac_text(frame[6:12]) in pools.OWN_MACS)


class Traffic:
    """One run of the steps against one router: what it let out decides what comes next."""

    def __init__(self, steps: list[Step], run: int) -> None:
        self.steps, self.run = steps, run
        self.sent: list[list[tuple[str, bytes]]] = []
        self.got: list[list[Out]] = []

    def frames(self, number: int) -> list[tuple[str, bytes]]:
        """The (port, packet) pairs of a step, after all earlier ones have been `seen`."""
        step = self.steps[number]
        packets = [(step.port, moved(packet, self.run)) for packet in step.packets]
        if step.kind == "again":
            packets = list(self.sent[step.about])
        elif step.kind == "follow":
            packets = [(port, _inside(packet, lambda inner: follow(inner, step.way))) for port, packet in self.sent[step.about][:1]]
        elif step.kind in ("answer", "error"):
            make = answer if step.kind == "answer" else error
            packets = [(out.port, made) for out in self.got[step.about][:1]
                       if (made := back(out, lambda packet, side: make(packet, step.way, side))) is not None]
        packets = [(port, written(packet) if port == pools.SELF else packet) for port, packet in packets]
        packets = [(port, packet) for port, packet in packets if len(packet) - 14 * isinstance(packet, Frame) <= _mtu(port)]
        self.sent.append(packets)
        return packets

    def seen(self, got: list[Out]) -> None:
        """What the router let out for the step."""
        self.got.append(got)


def written(packet: bytes) -> bytes:
    """A plain packet as a socket's kernel writes its header."""
    if packet[0] != 0x45:
        return packet
    head = bytearray(packet[:20])
    head[4:9], head[10:12] = b"\0\0\x40\0\x40", b"\0\0"
    head[10:12] = f.checksum(bytes(head)).to_bytes(2, "big")
    return bytes(head) + packet[20:]


def _mtu(port: str) -> int:
    """What a packet from a port must not exceed; the smallest for the router's own."""
    return EVERY[port].mtu if port in EVERY else min(side.mtu for side in EVERY.values())


def _inside(packet: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """The packet changed, or the frame with what it carries changed."""
    return Frame(packet.head + change(packet.packet)) if isinstance(packet, Frame) else change(packet)


def back(out: Out, make: Callable[[bytes, Side], bytes | None]) -> bytes | None:
    """What the host that got a frame sends because of it: at a port of the bridge to the one it came from, tagged as it came."""
    side, frame = EVERY[out.port], Frame(out.frame)
    if out.port in SIDES:
        return make(out.packet, side)
    made = make(frame.packet, side)
    own = f.mac(side.host_mac) if frame[0] & 1 else frame[:6]
    return made if made is None else Frame(frame[6:12] + own + frame.head[12:] + made)


def moved(packet: bytes, run: int) -> bytes:
    """The packet with a fragment's identification moved by the number of the run."""
    if isinstance(packet, Frame):
        return _inside(packet, lambda inner: moved(inner, run))
    data = bytearray(packet)
    if len(data) >= 20 and data[0] == 0x45 and (data[6] & 0x3F or data[7]):
        data[4:6] = ((int.from_bytes(data[4:6], "big") + run * 16) & 0xFFFF).to_bytes(2, "big")
        data[10:12] = b"\0\0"
        data[10:12] = f.checksum(bytes(data[:20])).to_bytes(2, "big")
    elif len(data) >= 48 and data[0] >> 4 == 6 and data[6] == f.FRAG6:
        data[44:48] = ((int.from_bytes(data[44:48], "big") + run * 16) & 0xFFFFFFFF).to_bytes(4, "big")
    return bytes(data)


def _split(packet: bytes) -> tuple[str, str, int, bytes] | None:
    """(source, destination, protocol, transport) of a plain whole packet, or None."""
    from socket import AF_INET, AF_INET6, inet_ntop
    if len(packet) >= 20 and packet[0] >> 4 == 4 and not (packet[6] & 0x3F or packet[7]):
        size = (packet[0] & 15) * 4
        return (inet_ntop(AF_INET, packet[12:16]), inet_ntop(AF_INET, packet[16:20]), packet[9],
                packet[size:int.from_bytes(packet[2:4], "big")])
    if len(packet) >= 40 and packet[0] >> 4 == 6 and packet[6] in (f.TCP, f.UDP, f.ICMP6):
        return (inet_ntop(AF_INET6, packet[8:24]), inet_ntop(AF_INET6, packet[24:40]), packet[6],
                packet[40:40 + int.from_bytes(packet[4:6], "big")])
    return None


def answer(packet: bytes, way: int, side: object) -> bytes | None:
    """What the host that got `packet` might answer; None if nothing sensible."""
    parts = _split(packet)
    if not parts:
        return None
    src, dst, proto, body = parts
    if proto == f.TCP and len(body) >= 20:
        sport, dport, seq, ack, _, flags = struct.unpack("!HHIIBB", body[:14])
        length = len(body) - (body[12] >> 4) * 4 + bool(flags & (f.SYN | f.FIN))
        reply = f.SYN | f.ACK if flags & (f.SYN | f.ACK) == f.SYN else (f.ACK, f.ACK | f.PSH, f.FIN | f.ACK, f.RST, f.ACK)[way % 5]
        if way % 17 == 0:
            reply = f.RST | f.ACK
        seq_back = 5000 if reply & f.SYN else ack
        return f.tcp_packet(dst, src, dport, sport, reply, seq_back, seq + max(length, 0),
                            b"" if reply & f.SYN else b"back"[:way % 5])
    if proto == f.UDP and len(body) >= 8:
        return f.udp_packet(dst, src, int.from_bytes(body[2:4], "big"), int.from_bytes(body[:2], "big"), b"answer"[:way % 7])
    if proto == f.ICMP and len(body) >= 8 and body[0] == 8:
        return f.ip4(dst, src, f.ICMP, f.icmp(0, 0, int.from_bytes(body[4:8], "big"), body[8:]))
    if proto == f.ICMP6 and len(body) >= 8 and body[0] == 128:
        return f.ip6(dst, src, f.ICMP6, f.icmp6(dst, src, 129, 0, int.from_bytes(body[4:8], "big"), body[8:]))
    if proto not in (f.ICMP, f.ICMP6):
        return f.ip(dst, src, proto, b"whatever")
    return None


def error(packet: bytes, way: int, side: object) -> bytes | None:
    """An ICMP error about `packet` from its destination or from a router on its way."""
    parts = _split(packet)
    if not parts:
        return None
    src, dst, proto, body = parts
    if packet[0] > 0x45 and 0x44 in packet[20:(packet[0] & 15) * 4]:
        return None  # the wall clock's time would stand in what is quoted, and in its checksum
    if (proto == f.ICMP and body[:1] in (b"\3", b"\5", b"\x0b", b"\x0c")) or (proto == f.ICMP6 and body[:1] < b"\x80"):
        return None  # no error is sent about an error
    if way % 3 == 0:
        assert isinstance(side, Side)
        dst = side.ip6(12) if ":" in src else side.ip4(12)
    size = (len(packet), 28, 64, 20, 24)[way % 5]
    if ":" in src:
        kind, code, rest = ((1, 4, 0), (3, 0, 0), (2, 0, 1280), (4, 1, 6))[way % 4]
        return f.ip6(dst, src, f.ICMP6, f.icmp6(dst, src, kind, code, rest, packet[:max(size, 48)]))
    kind, code, rest = ((3, 3, 0), (11, 0, 0), (3, 4, 1300), (12, 0, 0x14000000))[way % 4]
    return f.ip4(dst, src, f.ICMP, f.icmp(kind, code, rest, packet[:size]))


def follow(packet: bytes, way: int) -> bytes:
    """The next packet of the same sender: for TCP the next segment, else the same with other data."""
    parts = _split(packet)
    if not parts:
        return packet
    src, dst, proto, body = parts
    if proto == f.TCP and len(body) >= 20:
        sport, dport, seq, ack, _, flags = struct.unpack("!HHIIBB", body[:14])
        length = len(body) - (body[12] >> 4) * 4 + bool(flags & (f.SYN | f.FIN))
        kind = (f.ACK, f.ACK | f.PSH, f.FIN | f.ACK, f.RST, f.SYN, f.ACK)[way % 6]
        return f.tcp_packet(src, dst, sport, dport, kind, seq + max(length, 0) + (100_000 if way % 23 == 0 else 0),
                            ack or 5001, b"more data"[:way % 10] if not kind & f.SYN else b"")
    if proto == f.UDP and len(body) >= 8:
        return f.udp_packet(src, dst, int.from_bytes(body[:2], "big"), int.from_bytes(body[2:4], "big"), b"next"[:way % 5])
    return packet
