"""Where `log` statements go: lines as the kernel writes them (Linux: nf_log_syslog.c), to the daemon's own log and to clients.

Laws: formatting reads what the frame holds and no further, whatever its header claims. A flood of logged packets costs a bounded
number of lines a second (RATE, with a burst); what was left out is told in the next line. nflog groups go to clients of
`log` only, as they do to listeners of a netlink group.
"""

from __future__ import annotations

import base64
import logging
import socket
from collections.abc import Callable
from typing import Any

from userfw.core.clock import Clock
from userfw.core.const import (
    ARPHRD_ETHER,
    IPPROTO_ICMP,
    IPPROTO_ICMPV6,
    IPPROTO_TCP,
    IPPROTO_UDP,
    IPPROTO_UDPLITE,
    NF_DROP,
    NFPROTO_ARP,
    NFPROTO_IPV4,
    NFPROTO_IPV6,
    NSEC_PER_SEC,
)
from userfw.core.packet import Packet

log = logging.getLogger("userfw.rules")

RATE = 200
BURST = 1000
DEFAULT_LEVEL = 4
LEVELS = (50, 50, 50, 40, 30, 20, 20, 10, 20)  # emerg … debug, audit
PROTOCOLS = {IPPROTO_TCP: "TCP", IPPROTO_UDP: "UDP", IPPROTO_UDPLITE: "UDPLITE", IPPROTO_ICMP: "ICMP", IPPROTO_ICMPV6: "ICMPv6",
             50: "ESP", 51: "AH"}  # fmt: skip
FLAGS = ((0x80, "CWR"), (0x40, "ECE"), (0x20, "URG"), (0x10, "ACK"), (0x08, "PSH"), (0x04, "RST"), (0x02, "SYN"), (0x01, "FIN"))
LOG_TCPSEQ = 1
LOG_TCPOPT = 2
LOG_IPOPT = 4

assert NF_DROP == 0  # what a log call returns means nothing


class PacketLog:
    """The sink. `listeners`: called with (group or -1, event) for each logged packet; `suppressed`: lines left out."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.listeners: list[Callable[[int, dict[str, Any]], None]] = []
        self.tokens = BURST * NSEC_PER_SEC
        self.last = 0
        self.suppressed = 0
        self.lines = 0

    def __call__(self, pkt: Packet, hook: int, family: int, request: Any) -> int:
        """One log statement (engine.services.Services.log)."""
        group = int(request.group)
        if group >= 0 and not self.listeners:
            return 0
        if not self._allowed():
            self.suppressed += 1
            return 0
        text = request.prefix + describe(pkt, int(request.flags))
        self.lines += 1
        if group < 0:
            if self.suppressed:
                log.warning("%d log messages suppressed", self.suppressed)
                self.suppressed = 0
            log.log(LEVELS[request.level if request.level >= 0 else DEFAULT_LEVEL], "%s", text)
        if self.listeners:
            event = {"text": text, "prefix": request.prefix, "group": group, "hook": hook, "family": family}
            if group >= 0:
                start = pkt.l3 if pkt.nfproto else pkt.start
                end = min(pkt.end, start + (request.snaplen or 65535))
                event["packet"] = base64.b64encode(bytes(pkt.data[start:end])).decode()
            for listener in list(self.listeners):
                listener(group, event)
        return 0

    def _allowed(self) -> bool:
        elapsed = self.clock.now - self.last
        self.last = self.clock.now
        self.tokens = min(BURST * NSEC_PER_SEC, self.tokens + elapsed * RATE)
        if self.tokens < NSEC_PER_SEC:
            return False
        self.tokens -= NSEC_PER_SEC
        return True


def describe(pkt: Packet, flags: int = 0) -> str:
    """The line without its prefix."""
    words = [f"IN={pkt.iif.name if pkt.iif is not None else ''}", f"OUT={pkt.oif.name if pkt.oif is not None else ''}"]
    device = pkt.iif if pkt.iif is not None else None
    if device is not None and device.type == ARPHRD_ETHER and pkt.l3 - pkt.start >= 14:
        words.append("MAC=" + bytes(pkt.data[pkt.start : pkt.start + 14]).hex(":"))
    if pkt.nfproto == NFPROTO_IPV4:
        words += _ipv4(pkt, flags)
    elif pkt.nfproto == NFPROTO_IPV6:
        words += _ipv6(pkt)
    elif pkt.nfproto == NFPROTO_ARP:
        words += _arp(pkt)
    else:
        words.append(f"MACPROTO={pkt.protocol:04x}")
        return " ".join(words)
    if pkt.nfproto != NFPROTO_ARP:
        words += _transport(pkt, flags)
        if pkt.mark:
            words.append(f"MARK=0x{pkt.mark:x}")
    return " ".join(words)


def _bytes(pkt: Packet, off: int, size: int) -> bytes:
    """At most `size` bytes, none beyond the frame."""
    return bytes(pkt.data[off : max(off, min(off + size, pkt.end))])


def _ipv4(pkt: Packet, flags: int) -> list[str]:
    head = _bytes(pkt, pkt.l3, 20)
    if len(head) < 20:
        return ["TRUNCATED"]
    fragment = int.from_bytes(head[6:8], "big")
    words = [
        f"SRC={socket.inet_ntoa(head[12:16])}", f"DST={socket.inet_ntoa(head[16:20])}",
        f"LEN={int.from_bytes(head[2:4], 'big')}", f"TOS=0x{head[1] & 0x1E:02X}", f"PREC=0x{head[1] & 0xE0:02X}",
        f"TTL={head[8]}", f"ID={int.from_bytes(head[4:6], 'big')}",
    ]  # fmt: skip
    words += [name for bit, name in ((0x8000, "CE"), (0x4000, "DF"), (0x2000, "MF")) if fragment & bit]
    if fragment & 0x1FFF:
        words.append(f"FRAG:{fragment & 0x1FFF}")
    options = _bytes(pkt, pkt.l3 + 20, (head[0] & 15) * 4 - 20)
    if flags & LOG_IPOPT and options:
        words.append(f"OPT ({options.hex().upper()})")
    return words


def _ipv6(pkt: Packet) -> list[str]:
    head = _bytes(pkt, pkt.l3, 40)
    if len(head) < 40:
        return ["TRUNCATED"]
    first = int.from_bytes(head[0:4], "big")
    words = [
        f"SRC={_full(head[8:24])}", f"DST={_full(head[24:40])}", f"LEN={int.from_bytes(head[4:6], 'big') + 40}",
        f"TC={first >> 20 & 0xFF}", f"HOPLIMIT={head[7]}", f"FLOWLBL={first & 0xFFFFF}",
    ]  # fmt: skip
    if pkt.is_fragment:
        words.append(f"FRAG:{pkt.fragoff}")
    return words


def _full(address: bytes) -> str:
    """All eight groups, as the kernel's %pI6 prints them."""
    return address.hex(":", 2)


def _arp(pkt: Packet) -> list[str]:
    head = _bytes(pkt, pkt.l3, 28)
    if len(head) < 28:
        return ["ARP", "TRUNCATED"]
    return [
        "ARP", f"HTYPE={int.from_bytes(head[0:2], 'big')}", f"PTYPE=0x{int.from_bytes(head[2:4], 'big'):04x}",
        f"OPCODE={int.from_bytes(head[6:8], 'big')}", f"MACSRC={head[8:14].hex(':')}", f"IPSRC={socket.inet_ntoa(head[14:18])}",
        f"MACDST={head[18:24].hex(':')}", f"IPDST={socket.inet_ntoa(head[24:28])}",
    ]  # fmt: skip


def _transport(pkt: Packet, flags: int) -> list[str]:
    name = PROTOCOLS.get(pkt.l4proto, str(pkt.l4proto))
    words = [f"PROTO={name}"]
    if not pkt.has_l4:
        return words
    if name == "TCP":
        return words + _tcp(pkt, flags)
    head = _bytes(pkt, pkt.l4, 8)
    if len(head) < 8:
        return [*words, f"INCOMPLETE [{len(head)} bytes]"]
    if name in ("UDP", "UDPLITE"):
        ports = [int.from_bytes(head[i : i + 2], "big") for i in (0, 2, 4)]
        words += [f"SPT={ports[0]}", f"DPT={ports[1]}", f"LEN={ports[2]}"]
    elif name in ("ICMP", "ICMPv6"):
        words += [f"TYPE={head[0]}", f"CODE={head[1]}"]
        if head[0] in ((0, 8) if name == "ICMP" else (128, 129)):
            words += [f"ID={int.from_bytes(head[4:6], 'big')}", f"SEQ={int.from_bytes(head[6:8], 'big')}"]
    return words


def _tcp(pkt: Packet, flags: int) -> list[str]:
    head = _bytes(pkt, pkt.l4, 20)
    if len(head) < 20:
        return [f"INCOMPLETE [{len(head)} bytes]"]
    words = [f"SPT={int.from_bytes(head[0:2], 'big')}", f"DPT={int.from_bytes(head[2:4], 'big')}"]
    if flags & LOG_TCPSEQ:
        words += [f"SEQ={int.from_bytes(head[4:8], 'big')}", f"ACK={int.from_bytes(head[8:12], 'big')}"]
    words += [f"WINDOW={int.from_bytes(head[14:16], 'big')}", f"RES=0x{(head[12] & 0x0F) << 2:02x}"]
    words += [name for bit, name in FLAGS if head[13] & bit]
    words.append(f"URGP={int.from_bytes(head[18:20], 'big')}")
    options = _bytes(pkt, pkt.l4 + 20, (head[12] >> 4) * 4 - 20)
    if flags & LOG_TCPOPT and options:
        words.append(f"OPT ({options.hex().upper()})")
    return words
