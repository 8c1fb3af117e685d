"""Frames as bytes: build Ethernet, IPv4, IPv6, TCP, UDP, ICMP and ICMPv6 with right checksums unless told otherwise.

Laws
- A builder returns `bytes` and checks nothing: tests need malformed frames too (lengths and checksums can be given).
- Lengths and checksums that are not given are computed (RFC 791, 768, 9293, 792, 8200, 4443).
"""

import struct
from socket import AF_INET, AF_INET6, inet_pton

ETH_IP, ETH_ARP, ETH_IP6, ETH_VLAN = 0x0800, 0x0806, 0x86DD, 0x8100
ICMP, TCP, UDP, FRAG6, ICMP6 = 1, 6, 17, 44, 58
FIN, SYN, RST, PSH, ACK, URG = 1, 2, 4, 8, 16, 32


def mac(text: str) -> bytes:
    """`02:00:00:00:00:01` as six bytes."""
    return bytes.fromhex(text.replace(":", ""))


def mac_text(data: bytes) -> str:
    """Six bytes as `02:00:00:00:00:01`."""
    return data.hex(":")


def addr(text: str) -> bytes:
    """An IPv4 or IPv6 address as 4 or 16 bytes."""
    return inet_pton(AF_INET6 if ":" in text else AF_INET, text)


def checksum(data: bytes, start: int = 0) -> int:
    """The Internet checksum (RFC 1071) of `data`, continuing the plain sum `start`."""
    if len(data) & 1:
        data += b"\0"
    total: int = start + sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def pseudo(src: bytes, dst: bytes, proto: int, length: int) -> int:
    """The plain sum of the pseudo-header (RFC 768, RFC 8200 8.1)."""
    data = src + dst + struct.pack("!II", length, proto)
    return sum(struct.unpack(f"!{len(data) // 2}H", data))


def eth(dst: str, src: str, kind: int, payload: bytes, vlan: int | None = None) -> bytes:
    """An Ethernet frame without padding; `vlan` adds one 802.1Q tag."""
    tag = b"" if vlan is None else struct.pack("!HH", ETH_VLAN, vlan)
    return mac(dst) + mac(src) + tag + struct.pack("!H", kind) + payload


def ip4(src: str, dst: str, proto: int, payload: bytes, *, ttl: int = 64, ident: int = 0x1234, df: bool = False,
        mf: bool = False, offset: int = 0, tos: int = 0, options: bytes = b"", length: int | None = None,
        check: int | None = None, version: int = 4, ihl: int | None = None) -> bytes:
    """An IPv4 packet. `offset` in bytes (a multiple of 8), `options` padded to 4 bytes by the caller."""
    head_len = 20 + len(options)
    words = head_len // 4 if ihl is None else ihl
    flags = (0x4000 if df else 0) | (0x2000 if mf else 0) | offset // 8
    total = head_len + len(payload) if length is None else length
    head = struct.pack("!BBHHHBBH", version << 4 | words, tos, total, ident, flags, ttl, proto, 0)
    head += addr(src) + addr(dst) + options
    return head[:10] + struct.pack("!H", checksum(head) if check is None else check) + head[12:] + payload


def ip6(src: str, dst: str, proto: int, payload: bytes, *, hops: int = 64, tclass: int = 0, flow: int = 0,
        length: int | None = None, version: int = 6) -> bytes:
    """An IPv6 packet; extension headers are part of `payload`, `proto` names the first of them."""
    word = version << 28 | tclass << 20 | flow
    return struct.pack("!IHBB", word, len(payload) if length is None else length, proto, hops) + \
        addr(src) + addr(dst) + payload


def frag6(nxt: int, payload: bytes, *, offset: int = 0, more: bool = False, ident: int = 0x1234) -> bytes:
    """An IPv6 fragment header (RFC 8200 4.5) and its piece of payload; `offset` in bytes."""
    return struct.pack("!BBHI", nxt, 0, offset | more, ident) + payload


def _with_checksum(body: bytes, at: int, src: str, dst: str, proto: int, given: int | None, zero_is: int = 0) -> bytes:
    if given is None:
        given = checksum(body, pseudo(addr(src), addr(dst), proto, len(body))) or zero_is
    return body[:at] + struct.pack("!H", given) + body[at + 2:]


def tcp(src: str, dst: str, sport: int, dport: int, *, seq: int = 1000, ack: int = 0, flags: int = SYN,
        window: int = 65535, options: bytes = b"", payload: bytes = b"", check: int | None = None,
        doff: int | None = None, urgent: int = 0) -> bytes:
    """A TCP segment with the checksum for `src`, `dst`; `options` padded by the caller."""
    words = 5 + len(options) // 4 if doff is None else doff
    body = struct.pack("!HHIIBBHHH", sport, dport, seq & 0xFFFFFFFF, ack & 0xFFFFFFFF, words << 4, flags, window, 0,
                       urgent)
    return _with_checksum(body + options + payload, 16, src, dst, TCP, check)


def udp(src: str, dst: str, sport: int, dport: int, payload: bytes = b"", *, check: int | None = None,
        length: int | None = None) -> bytes:
    """A UDP datagram with the checksum for `src`, `dst`; a computed zero is sent as 0xffff (RFC 768)."""
    body = struct.pack("!HHHH", sport, dport, 8 + len(payload) if length is None else length, 0) + payload
    return _with_checksum(body, 6, src, dst, UDP, check, 0xFFFF)


def icmp(kind: int, code: int = 0, rest: int = 0, payload: bytes = b"", *, check: int | None = None) -> bytes:
    """An ICMP message; `rest` is the 32-bit word after the checksum (for echo: identifier << 16 | sequence)."""
    body = struct.pack("!BBHI", kind, code, 0, rest) + payload
    return body[:2] + struct.pack("!H", checksum(body) if check is None else check) + body[4:]


def icmp6(src: str, dst: str, kind: int, code: int = 0, rest: int = 0, payload: bytes = b"", *,
          check: int | None = None) -> bytes:
    """An ICMPv6 message with the checksum for `src`, `dst`."""
    return _with_checksum(struct.pack("!BBHI", kind, code, 0, rest) + payload, 2, src, dst, ICMP6, check)


def arp(op: int, sender_mac: str, sender: str, target_mac: str, target: str) -> bytes:
    """An ARP packet for IPv4 over Ethernet (RFC 826): `op` 1 asks, 2 answers."""
    return struct.pack("!HHBBH", 1, ETH_IP, 6, 4, op) + mac(sender_mac) + addr(sender) + mac(target_mac) + addr(target)


def ip(src: str, dst: str, proto: int, payload: bytes, ttl: int = 64, **fields: int) -> bytes:
    """An IPv4 or IPv6 packet by the family of the addresses; `ttl` is the hop limit of IPv6."""
    if ":" in src:
        return ip6(src, dst, proto, payload, hops=ttl, **fields)
    return ip4(src, dst, proto, payload, ttl=ttl, **fields)  # type: ignore[arg-type]


def ping(src: str, dst: str, ident: int = 7, seq: int = 1, payload: bytes = b"userfw ping data", *, reply: bool = False,
         ttl: int = 64) -> bytes:
    """An echo request (or reply) packet in the family of the addresses."""
    if ":" in src:
        return ip6(src, dst, ICMP6, icmp6(src, dst, 129 if reply else 128, 0, ident << 16 | seq, payload), hops=ttl)
    return ip4(src, dst, ICMP, icmp(0 if reply else 8, 0, ident << 16 | seq, payload), ttl=ttl)


def udp_packet(src: str, dst: str, sport: int, dport: int, payload: bytes = b"payload", ttl: int = 64) -> bytes:
    """A UDP packet in the family of the addresses."""
    return ip(src, dst, UDP, udp(src, dst, sport, dport, payload), ttl)


def tcp_packet(src: str, dst: str, sport: int, dport: int, flags: int = SYN, seq: int = 1000, ack: int = 0,
               payload: bytes = b"", ttl: int = 64, options: bytes = b"", window: int = 65535) -> bytes:
    """A TCP packet in the family of the addresses."""
    return ip(src, dst, TCP, tcp(src, dst, sport, dport, flags=flags, seq=seq, ack=ack, payload=payload,
                                 options=options, window=window), ttl)


def fragments4(packet: bytes, size: int) -> list[bytes]:
    """An IPv4 packet without options cut into pieces of at most `size` payload bytes (a multiple of 8)."""
    assert size % 8 == 0 and packet[0] == 0x45
    head, body = bytearray(packet[:20]), packet[20:]
    pieces = []
    for at in range(0, len(body), size):
        piece, last = body[at:at + size], at + size >= len(body)
        head[2:4] = struct.pack("!H", 20 + len(piece))
        head[6:8] = struct.pack("!H", (0 if last else 0x2000) | at // 8)
        head[10:12] = b"\0\0"
        head[10:12] = struct.pack("!H", checksum(bytes(head)))
        pieces.append(bytes(head) + piece)
    return pieces


def fragments6(packet: bytes, size: int, ident: int = 0x1234) -> list[bytes]:
    """An IPv6 packet without extension headers cut into pieces of at most `size` payload bytes (a multiple of 8)."""
    assert size % 8 == 0
    nxt, body = packet[6], packet[40:]
    pieces = []
    for at in range(0, len(body), size):
        piece = frag6(nxt, body[at:at + size], offset=at, more=at + size < len(body), ident=ident)
        pieces.append(packet[:4] + struct.pack("!HB", len(piece), FRAG6) + packet[7:40] + piece)
    return pieces
