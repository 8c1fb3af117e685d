"""Packets for the tests of conntrack and NAT: built by hand, checksums by plain RFC 1071 arithmetic, independent of the code
under test."""

from __future__ import annotations

import ipaddress
import struct

from userfw.core.packet import Packet
from userfw.wire.parse import parse_network_untrusted, trim

ETH_P_IP, ETH_P_IPV6 = 0x0800, 0x86DD


def csum(data: bytes) -> int:
    """The internet checksum of `data` (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def address(text: str) -> bytes:
    return ipaddress.ip_address(text).packed


def pseudo(src: str, dst: str, proto: int, length: int) -> bytes:
    if ":" in src:
        return address(src) + address(dst) + struct.pack("!IHBB", length, 0, 0, proto)
    return address(src) + address(dst) + struct.pack("!BBH", 0, proto, length)


def ip(src: str, dst: str, proto: int, payload: bytes, ttl: int = 64) -> bytes:
    """An IPv4 or IPv6 packet, by the look of its addresses."""
    if ":" in src:
        return struct.pack("!IHBB", 6 << 28, len(payload), proto, ttl) + address(src) + address(dst) + payload
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 0x1234, 0x4000, ttl, proto, 0)
    header += address(src) + address(dst)
    return header[:10] + struct.pack("!H", csum(header)) + header[12:] + payload


FLAGS = {"F": 1, "S": 2, "R": 4, "P": 8, ".": 16, "U": 32}


def tcp(
    src: str,
    dst: str,
    sport: int,
    dport: int,
    flags: str,
    seq: int = 0,
    ack: int = 0,
    win: int = 65535,
    data: bytes = b"",
    options: bytes = b"",
) -> bytes:
    options += b"\x01" * (-len(options) % 4)
    bits = sum(FLAGS[f] for f in flags)
    head = struct.pack(
        "!HHIIBBHHH", sport, dport, seq & 0xFFFFFFFF, ack & 0xFFFFFFFF, (5 + len(options) // 4) << 4, bits, win, 0, 0
    )
    segment = head + options + data
    check = csum(pseudo(src, dst, 6, len(segment)) + segment)
    return ip(src, dst, 6, segment[:16] + struct.pack("!H", check) + segment[18:])


def udp(src: str, dst: str, sport: int, dport: int, data: bytes = b"", checksum: bool = True) -> bytes:
    segment = struct.pack("!HHHH", sport, dport, 8 + len(data), 0) + data
    check = csum(pseudo(src, dst, 17, len(segment)) + segment) or 0xFFFF
    return ip(src, dst, 17, segment[:6] + struct.pack("!H", check if checksum else 0) + segment[8:])


def icmp(src: str, dst: str, type: int, code: int, rest: bytes, data: bytes = b"") -> bytes:
    """ICMP or ICMPv6; `rest` is the second word of the header."""
    message = struct.pack("!BBH", type, code, 0) + rest + data
    if ":" in src:
        check = csum(pseudo(src, dst, 58, len(message)) + message)
        return ip(src, dst, 58, message[:2] + struct.pack("!H", check) + message[4:])
    return ip(src, dst, 1, message[:2] + struct.pack("!H", csum(message)) + message[4:])


def echo(src: str, dst: str, ident: int, seq: int = 1, reply: bool = False, data: bytes = b"ping") -> bytes:
    kinds = (128, 129) if ":" in src else (8, 0)
    return icmp(src, dst, kinds[reply], 0, struct.pack("!HH", ident, seq), data)


def packet(data: bytes) -> Packet:
    """A Packet that holds `data` as its network layer, parsed."""
    pkt = Packet()
    pkt.load_frame(b"\x02\0\0\0\0\1\x02\0\0\0\0\2" + struct.pack("!H", ETH_P_IPV6 if data[0] >> 4 == 6 else ETH_P_IP) + data)
    pkt.protocol = ETH_P_IPV6 if data[0] >> 4 == 6 else ETH_P_IP
    pkt.l3 = pkt.l4 = pkt.start + 14
    assert parse_network_untrusted(pkt) == 0
    trim(pkt)
    return pkt


def network(pkt: Packet) -> bytes:
    """The network layer of `pkt`."""
    return bytes(pkt.data[pkt.l3 : pkt.end])


def checksums_hold(data: bytes) -> bool:
    """Every checksum of a TCP, UDP or ICMP packet, by plain recomputation; a UDP checksum of zero over IPv4 is fine."""
    if data[0] >> 4 == 4:
        head = (data[0] & 15) * 4
        if csum(data[:head]):
            return False
        proto, src, dst = data[9], data[12:16], data[16:20]
    else:
        head, proto, src, dst = 40, data[6], data[8:24], data[24:40]
    body = data[head:]
    if proto == 1:
        return csum(body) == 0
    if proto == 17 and body[6:8] == b"\0\0":
        return data[0] >> 4 == 4
    return csum(pseudo(str(ipaddress.ip_address(src)), str(ipaddress.ip_address(dst)), proto, len(body)) + body) == 0
