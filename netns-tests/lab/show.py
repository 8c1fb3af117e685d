"""Frames as one readable line each, for failure messages and reports: never used to decide."""

import struct
from socket import AF_INET, AF_INET6, inet_ntop

from .frames import ETH_ARP, ETH_IP, ETH_IP6, ETH_VLAN, FRAG6, ICMP, ICMP6, TCP, UDP, checksum, pseudo

_FLAGS = "FSRPAUEC"


def _transport(proto: int, body: bytes, total: int | None) -> str:
    """The transport header; `total` is the pseudo-header's sum or None when the checksum cannot be told."""
    if len(body) < 8:
        return f"proto {proto} {body.hex()}"
    bad = ""
    if total is not None and checksum(body, total if proto != ICMP else 0) not in (0, 0xFFFF):
        bad = " BAD-CHECKSUM"
    if proto == UDP and body[6:8] == b"\0\0":
        bad = " no-checksum"
    if proto == TCP and len(body) >= 20:
        sport, dport, seq, ack, off, flags, window = struct.unpack("!HHIIBBH", body[:16])
        names = "".join(c for i, c in enumerate(_FLAGS) if flags >> i & 1)
        options = body[20:(off >> 4) * 4].hex()
        return f"tcp {sport}>{dport} [{names}] seq {seq} ack {ack} win {window}" \
               f"{' opt ' + options if options else ''} len {len(body) - (off >> 4) * 4}{bad}"
    if proto == UDP:
        sport, dport, length = struct.unpack("!HHH", body[:6])
        return f"udp {sport}>{dport} len {length}{bad}"
    if proto in (ICMP, ICMP6):
        kind, code, _, rest = struct.unpack("!BBHI", body[:8])
        text = f"{'icmp' if proto == ICMP else 'icmp6'} type {kind} code {code} rest {rest:#x} len {len(body)}{bad}"
        if (proto == ICMP and kind in (3, 4, 5, 11, 12)) or (proto == ICMP6 and kind < 128):
            text += f" <{packet(body[8:], inner=True)}>"
        return text
    return f"proto {proto} len {len(body)}"


def packet(data: bytes, inner: bool = False) -> str:
    """One IP packet on one line; `inner` for one quoted in an ICMP error, whose payload may be cut."""
    if data and data[0] >> 4 == 4 and len(data) >= 20:
        ihl, (length, ident, frag) = (data[0] & 15) * 4, struct.unpack("!HHH", data[2:8])
        src, dst = inet_ntop(AF_INET, data[12:16]), inet_ntop(AF_INET, data[16:20])
        body, offset = data[ihl:length], (frag & 0x1FFF) * 8
        text = f"{src} > {dst} ttl {data[8]} id {ident:#x} len {length}" + (" DF" if frag & 0x4000 else "") + \
            (" MF" if frag & 0x2000 else "") + (f" off {offset}" if offset else "") + \
            (f" tos {data[1]:#x}" if data[1] else "")
        if checksum(data[:ihl]) not in (0, 0xFFFF):
            text += " BAD-IP-CHECKSUM"
        if offset:
            return f"{text} proto {data[9]} fragment"
        whole = pseudo(data[12:16], data[16:20], data[9], len(body)) if not inner and not frag & 0x2000 else None
        return f"{text} {_transport(data[9], body, whole)}"
    if data and data[0] >> 4 == 6 and len(data) >= 40:
        length, nxt, hops = struct.unpack("!HBB", data[4:8])
        src, dst = inet_ntop(AF_INET6, data[8:24]), inet_ntop(AF_INET6, data[24:40])
        body = data[40:40 + length]
        text = f"{src} > {dst} hops {hops} len {length}"
        if nxt == FRAG6 and len(body) >= 8:
            nxt, _, frag, ident = struct.unpack("!BBHI", body[:8])
            text += f" frag off {frag & 0xFFF8}{' MF' if frag & 1 else ''} id {ident:#x}"
            if frag & 0xFFF9:
                return f"{text} proto {nxt}" + ("" if frag & 0xFFF8 else " " + _transport(nxt, body[8:], None))
            body = body[8:]
        return f"{text} {_transport(nxt, body, None if inner else pseudo(data[8:24], data[24:40], nxt, len(body)))}"
    return f"? {data[:64].hex()}"


def frame(data: bytes) -> str:
    """One Ethernet frame on one line."""
    kind, at, tag = int.from_bytes(data[12:14], "big"), 14, ""
    if kind == ETH_VLAN:
        tag, kind, at = f" vlan {int.from_bytes(data[14:16], 'big')}", int.from_bytes(data[16:18], "big"), 18
    head = f"{data[6:12].hex(':')}>{data[:6].hex(':')}{tag} "
    if kind == ETH_ARP and len(data) >= at + 28:
        op, ask = int.from_bytes(data[at + 6:at + 8], "big"), inet_ntop(AF_INET, data[at + 24:at + 28])
        return f"{head}arp {'who-has' if op == 1 else 'reply'} {ask} from {inet_ntop(AF_INET, data[at + 14:at + 18])}"
    if kind in (ETH_IP, ETH_IP6):
        return head + packet(data[at:])
    return f"{head}type {kind:#06x} {data[at:at + 32].hex()}"
