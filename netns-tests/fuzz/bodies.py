"""What packets carry beside plain TCP, UDP and echo: chunks, options, tunnels, extension headers, every kind of ICMP, ARP.

Laws
- Drawn from one source of random numbers; checksums are right most of the time.
- Protocols to which the kernel's own host listens in a way of its own (GRE, IP in IP) go to hosts, never to the router.
- UDP-Lite has a wrong checksum: with a right one Linux's conntrack finds it INVALID (docs/differences.md).
"""

# ruff: noqa: E501 (tables of bytes)

import random
import struct

from lab import frames as f
from lab.families import EVERY, IP4, IP6, Family
from lab.topology import SIDES

from userfw.conntrack.check import crc32c

from . import pools

SCTP, DCCP, UDPLITE, GRE, ESP, AH = 132, 33, 136, 47, 50, 51
VXLAN, GENEVE = 4789, 6081
INNER4, INNER6 = ("10.1.1.1", "10.1.1.2", "10.9.9.9"), ("fd00:a::1", "fd00:a::2")
ICMP4_KINDS = (0, 3, 4, 5, 8, 9, 10, 11, 12, 14, 15, 16, 17, 18, 30, 40, 42, 253)
ICMP6_KINDS = (1, 2, 3, 4, 100, 128, 129, 131, 132, 133, 134, 135, 136, 137, 138, 139, 140, 141, 142, 143, 148, 149, 151, 160, 255)
DISCOVERY = range(130, 138)
CHUNKS = {0: b"\0\0\0\1\0\1\0\1\0\0\0\0data", 1: b"\0\0\0\7\0\1\0\0\0\5\0\5\0\0\0\1", 2: b"\0\0\0\7\0\1\0\0\0\5\0\5\0\0\0\1\0\7\0\x08cook",
          3: b"\0\0\0\1\0\1\0\0\0\0\0\0", 4: b"\0\1\0\x08beat", 5: b"\0\1\0\x08beat", 6: b"", 7: b"\0\0\0\1", 8: b"", 9: b"\0\1\0\4",
          10: b"cookie12", 11: b"", 14: b"", 15: b"\0\0\0\1", 128: b"\0\0\0\1\0\1\0\0", 192: b"\0\0\0\1", 193: b"\0\0\0\1\0\5\0\x08\1\2\3\4"}
OPTIONS4 = (
    b"\x07\x0b\x04" + bytes(8) + b"\0", b"\x07\x07\x04" + bytes(4) + b"\0", b"\x07\x07\x08\1\2\3\4\0", b"\x07\x07\x05" + bytes(4) + b"\0",
    b"\x07\x03\x04\0", b"\x07\x07\x03" + bytes(4) + b"\0",
    b"\x44\x0c\x05\0" + bytes(8), b"\x44\x0c\x05\1" + bytes(8), b"\x44\x08\x09\0" + bytes(4), b"\x44\x08\x09\xf0" + bytes(4),
    b"\x44\x0c\x05\3\xc0\xa8\1\1" + bytes(4), b"\x44\x08\x05\1" + bytes(4), b"\x44\x04\x05\0", b"\x44\x0c\x06\0" + bytes(8),
    b"\x94\x04\0\0", b"\x94\x04\0\1", b"\x94\x03\0\0", b"\x83\x07\x04\xc0\xa8\2\x0a\0", b"\x89\x07\x04\xc0\xa8\2\x0a\0",
    b"\x83\x07\x08\xc0\xa8\2\x0a\0", b"\x83\x03\x04\0", b"\x88\x04\0\1", b"\x99\x04ab", b"\x99\x00\0\0", b"\x99\x01\0\0", b"\x99\x20\0\0",
    b"\x01\x01\x00\x07", b"\x01\x07\x07\x04" + bytes(4), b"\x07\x0b\x04" + bytes(8) + b"\x01\x44\x0c\x05\0" + bytes(8),
    b"\x82\x0b" + bytes(9) + b"\0")
V6_OPTIONS = (b"\x01\x04" + bytes(4), b"\x05\x02\0\0\x01\0", b"\x1e\x04abcd", b"\x5e\x04abcd", b"\x9e\x04abcd", b"\xde\x04abcd", bytes(6),
              b"\xc2\x04\0\1\0\0", b"\x01\x09" + bytes(4), b"\0\0\0\x1e\x01a", b"\x04\x01\x08\x01\x01\0")


class Bodies:
    """Draws what goes behind (or into) a network header."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    def port(self) -> int:
        """One of the pool to go to."""
        return self.rng.choice((*pools.PORTS, VXLAN, GENEVE))

    def source(self) -> int:
        """One of the pool to come from."""
        return self.rng.choice((*pools.SOURCES, VXLAN, GENEVE))

    def unusual(self, fam: Family, src: str, dst: str) -> tuple[int, bytes]:
        """(protocol, payload) of something that is not everyday."""
        kinds = [self.sctp, self.sctp, self.sctp, self.dccp, self.dccp, self.udplite, self.security, self.icmp, self.icmp, self.overlay,
                 self.overlay, *([self.gre] * 3 if dst in pools.hosts(fam.name, pools.ALL_NAMES) else [])]
        return self.rng.choice(kinds)(fam, src, dst)

    def sctp(self, fam: Family, src: str, dst: str) -> tuple[int, bytes]:
        """Chunks, sometimes with a wrong length or checksum (RFC 9260)."""
        rng = self.rng
        head = struct.pack("!HHI", self.source(), self.port(), rng.choice((0, 7, 7, 7)))
        chunks = b""
        for kind in rng.choice(((1,), (2,), (10,), (11,), (0,), (10, 0), (3, 0), (4,), (5,), (6,), (7,), (8,), (14,), (9, 6), (15, 192, 193))):
            body = CHUNKS[kind]
            size = 4 + len(body) if rng.random() > 0.05 else rng.choice((0, 3, 4, 0xFFFF))
            chunks += struct.pack("!BBH", kind, rng.choice((0, 0, 3, 1)), size) + body + bytes(-len(body) % 4)
        data = bytearray(head + bytes(4) + chunks)
        if rng.random() > 0.1:
            data[8:12] = struct.pack("<I", crc32c(data, 0, len(data)))
        return SCTP, bytes(data)

    def dccp(self, fam: Family, src: str, dst: str) -> tuple[int, bytes]:
        """A packet with options (RFC 4340)."""
        rng, kind = self.rng, self.rng.choice((0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9))
        options = rng.choice((b"", b"\0\0\0\0", b"\1\2\1\0", b"\x20\3\1\0", b"\2\2\2\2\x25\4\1\2"))
        more = b"" if kind in (0, 2) else bytes(8)
        more += bytes(4) if kind in (0, 1, 7) else b""
        words = (16 + len(more) + len(options)) // 4
        body = struct.pack("!HHBBHBBHI", self.source(), self.port(), words, 0, 0, kind << 1 | 1, 0, 0, 77) + more + options + b"data"
        return DCCP, body[:6] + struct.pack("!H", f.checksum(body, f.pseudo(f.addr(src), f.addr(dst), DCCP, len(body)))) + body[8:]

    def udplite(self, fam: Family, src: str, dst: str) -> tuple[int, bytes]:
        """A datagram whose checksum is wrong (RFC 3828), as UDP's too, which Linux's conntrack takes it for."""
        source, port, coverage = self.source(), self.port(), self.rng.choice((0, 8, 12, 5))
        bodies = [struct.pack("!HHHH", source, port, coverage, check) + b"lite data" for check in (0x1111, 0x2222)]
        start = f.pseudo(f.addr(src), f.addr(dst), f.UDP, len(bodies[0]))
        return UDPLITE, bodies[f.checksum(bodies[0][:coverage or None], start) in (0, 0xFFFF)]

    def security(self, fam: Family, src: str, dst: str) -> tuple[int, bytes]:
        """ESP, or AH with a datagram behind it."""
        if self.rng.random() < 0.5:
            return ESP, struct.pack("!II", self.rng.choice((1, 0x100)), 1) + b"encrypted ends" + b"\0\x06"
        words = self.rng.choice((4, 4, 4, 1, 0, 40))
        inner = f.udp(src, dst, self.source(), self.port(), b"shown")
        return AH, struct.pack("!BBHII", f.UDP, words, 0, self.rng.choice((1, 0x100)), 1) + bytes(12) + inner

    def icmp(self, fam: Family, src: str, dst: str) -> tuple[int, bytes]:
        """Every kind there is; of errors, some quote a packet."""
        rng = self.rng
        rest, code = rng.choice((0, 1 << 16 | 2, 1300, 0x14000000)), rng.choice((0, 0, 1, 4, 13))
        quoted = rng.choice((b"", b"1234567", self.plain(fam, dst, src), self.plain(fam, dst, src)[:28]))
        if fam.name == "ip":
            return f.ICMP, f.icmp(rng.choice(ICMP4_KINDS), code, rest, quoted)
        return f.ICMP6, f.icmp6(src, dst, rng.choice(ICMP6_KINDS), code, rest, quoted + bytes(16))

    def plain(self, fam: Family, src: str, dst: str) -> bytes:
        """A small packet."""
        kind = self.rng.randrange(4)
        if kind == 0:
            return f.tcp_packet(src, dst, self.source(), self.port())
        return f.ping(src, dst) if kind == 1 else f.udp_packet(src, dst, self.source(), self.port())

    def inner(self) -> tuple[int, bytes]:
        """(EtherType, packet) from a network that is only inside tunnels, sometimes cut."""
        rng = self.rng
        fam, hosts, kind = (IP4, INNER4, f.ETH_IP) if rng.random() < 0.7 else (IP6, INNER6, f.ETH_IP6)
        packet = self.plain(fam, rng.choice(hosts), rng.choice(hosts))
        return kind, packet if rng.random() > 0.1 else packet[:rng.randrange(len(packet))]

    def ethernet(self) -> bytes:
        """A frame inside a tunnel."""
        kind, packet = self.inner()
        return f.eth("02:00:00:00:08:08", "02:00:00:00:07:07", kind, packet, self.rng.choice((None, None, None, 5)))

    def overlay(self, fam: Family, src: str, dst: str) -> tuple[int, bytes]:
        """VXLAN (RFC 7348) or Geneve (RFC 8926)."""
        rng, vni = self.rng, self.rng.choice((1, 1, 2)) << 8
        if rng.random() < 0.6:
            return f.UDP, f.udp(src, dst, self.source(), VXLAN, struct.pack("!BxxxI", rng.choice((8, 8, 8, 0)), vni) + self.ethernet())
        options = rng.choice((b"", b"", b"\1\2\3\0", b"\1\2\3\1abcd"))
        ethernet = rng.random() < 0.8
        kind, packet = (0x6558, self.ethernet()) if ethernet else self.inner()
        head = struct.pack("!BBHI", len(options) // 4, rng.choice((0, 0x40)), kind, vni)
        return f.UDP, f.udp(src, dst, self.source(), GENEVE, head + options + packet)

    def gre(self, fam: Family, src: str, dst: str) -> tuple[int, bytes]:
        """GRE of both versions with every optional field (RFC 2784, 2890, 2637)."""
        rng = self.rng
        if rng.random() < 0.15:
            return GRE, struct.pack("!HHHHI", 0x3001, 0x880B, 4, rng.choice((7, 8)), 1) + b"\xff\x03\0\x21"
        flags = rng.choice((0, 0, 0, 0x2000, 0x8000, 0x1000, 0xB000, 0x4000, 2))
        kind, packet = (0x6558, self.ethernet()) if rng.random() < 0.4 else self.inner()
        more = bytes(4) if flags & 0x8000 else b""
        more += b"\0\0\0\x09" if flags & 0x2000 else b""
        more += b"\0\0\0\1" if flags & 0x1000 else b""
        return GRE, struct.pack("!HH", flags, kind) + more + packet

    def extended(self, proto: int, body: bytes, dst: str) -> tuple[int, bytes]:
        """The payload behind one to three IPv6 extension headers."""
        rng = self.rng
        for header in rng.choice(((0,), (60,), (43,), (0, 60), (0, 43), (60, 43, 60), (60, 60), (43, 0))):
            if header == 43:
                kind, left = rng.choice(((0, 0), (0, 1), (2, 1), (2, 0), (3, 0), (4, 0), (4, 1), (99, 0), (99, 1)))
                body = struct.pack("!BBBBI", proto, 2, kind, left, 0) + f.addr(dst if ":" in dst else "::1") + body
            else:
                body = struct.pack("!BB", proto, 0) + rng.choice(V6_OPTIONS) + body
            proto = header
        return proto, body

    def request(self, port: str) -> bytes:
        """A plain request for the router's address, which it answers."""
        side = EVERY[port]
        return f.arp(1, side.host_mac, side.ip4(self.rng.choice(pools.HOSTS)), "00:00:00:00:00:00", side.ip4(1))

    def arp(self, port: str) -> bytes:
        """A request or an answer; who sends is a neighbour that is known."""
        rng, side = self.rng, EVERY[port]
        sender = side.ip4(rng.choice(pools.HOSTS)) if rng.random() > 0.1 else "0.0.0.0"
        target = rng.choice((side.ip4(1), side.ip4(1), side.ip4(11), SIDES["wan"].ip4(1), sender, "8.8.8.8"))
        body = f.arp(rng.choice((1, 1, 1, 2, 2, 3, 8)), side.host_mac, sender, "00:00:00:00:00:00", target)
        roll = rng.random()
        if roll < 0.05:
            return body[:rng.randrange(2, len(body))]
        if roll < 0.1:
            at = rng.randrange(2, 8)
            return body[:at] + bytes((body[at] ^ 1,)) + body[at + 1:]
        return body
