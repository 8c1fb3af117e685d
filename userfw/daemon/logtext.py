"""The text of a logged packet, as the kernel writes it to its log (Linux: nf_log_syslog.c), to the last space.

Laws: only what the frame holds is read, whatever its headers claim; a header that is cut short says so as Linux does (INCOMPLETE,
TRUNCATED). Compared with lines of a kernel in tests/daemon/log_lines.json.
"""

from __future__ import annotations

import socket

from userfw.core.const import (
    ARPHRD_ETHER,
    ARPHRD_LOOPBACK,
    ETH_P_ARP,
    ETH_P_IP,
    ETH_P_IPV6,
    IPPROTO_AH,
    IPPROTO_DSTOPTS,
    IPPROTO_ESP,
    IPPROTO_FRAGMENT,
    IPPROTO_HOPOPTS,
    IPPROTO_ICMP,
    IPPROTO_ICMPV6,
    IPPROTO_ROUTING,
    IPPROTO_TCP,
    IPPROTO_UDP,
    IPPROTO_UDPLITE,
    NFPROTO_IPV4,
    NFPROTO_IPV6,
)
from userfw.core.packet import Device, Packet

# Linux: NF_LOG_*
LOG_TCPSEQ = 1
LOG_TCPOPT = 2
LOG_IPOPT = 4
LOG_UID = 8
LOG_MACDECODE = 32

_FLAGS = ((0x80, "CWR"), (0x40, "ECE"), (0x20, "URG"), (0x10, "ACK"), (0x08, "PSH"), (0x04, "RST"), (0x02, "SYN"), (0x01, "FIN"))
_EXTENSIONS = (IPPROTO_HOPOPTS, IPPROTO_ROUTING, IPPROTO_FRAGMENT, IPPROTO_ESP, IPPROTO_AH, IPPROTO_DSTOPTS)
# bytes that an ICMP message of a type needs at least
_ICMP_NEEDS = {0: 4, 3: 28, 4: 28, 5: 28, 8: 4, 11: 28, 12: 28, 13: 20, 14: 20, 17: 12, 18: 12}
_ICMP_QUOTES = (3, 4, 5, 11)
_ICMPV6_QUOTES = (1, 2, 3, 4)

Owner = tuple[int, int] | None


def describe(pkt: Packet, flags: int = 0, owner: Owner = None) -> str:
    """The line behind its prefix; `owner`: uid and gid of the socket that sent the packet, if there is one."""
    line = f"IN={_name(pkt.iif)} OUT={_name(pkt.oif)} "
    data = bytes(pkt.data[pkt.l3 : max(pkt.end, pkt.l3)])
    if pkt.protocol == ETH_P_ARP:
        return line + (_decoded_mac(pkt) if flags & LOG_MACDECODE else "") + _arp(data)
    known = pkt.protocol in (ETH_P_IP, ETH_P_IPV6) or pkt.nfproto in (NFPROTO_IPV4, NFPROTO_IPV6)
    if pkt.iif is not None or not known:
        line += _mac(pkt, flags)
    if not known:
        return line
    text, whole = _ipv4(data, flags, True) if pkt.protocol == ETH_P_IP or pkt.nfproto == NFPROTO_IPV4 else _ipv6(data, flags, True)
    line += text
    if whole:
        if flags & LOG_UID and owner is not None:
            line += f"UID={owner[0]} GID={owner[1]} "
        if pkt.mark:
            line += f"MARK=0x{pkt.mark:x} "
    return line


def audit(pkt: Packet) -> str:
    """The line of `level audit` (Linux: nft_log_eval_audit)."""
    data = bytes(pkt.data[pkt.l3 : pkt.end])
    mark = f"mark=0x{pkt.mark:x}" if pkt.mark else "mark=0"
    if pkt.nfproto == NFPROTO_IPV4 and len(data) >= 20:
        return f"{mark} saddr={socket.inet_ntoa(data[12:16])} daddr={socket.inet_ntoa(data[16:20])} proto={data[9]}"
    if pkt.nfproto == NFPROTO_IPV6 and len(data) >= 40:
        addresses = [socket.inet_ntop(socket.AF_INET6, data[at : at + 16]) for at in (8, 24)]
        return f"{mark} saddr={addresses[0]} daddr={addresses[1]} proto={pkt.l4proto}"
    return f"{mark} saddr=? daddr=? proto=-1"


def link_header(pkt: Packet) -> bytes:
    """The Ethernet header as Linux keeps it: without the outermost VLAN tag. Empty without one."""
    head = bytes(pkt.data[pkt.start : pkt.l3])
    if len(head) < 14:
        return b""
    return head[:12] + head[16:18] if pkt.vlan_tci >= 0 and len(head) >= 18 else head[:14]


def _name(device: Device | None) -> str:
    return device.name if device is not None else ""


def _number(data: bytes, at: int, size: int = 2) -> int:
    return int.from_bytes(data[at : at + size], "big")


def _mac(pkt: Packet, flags: int) -> str:
    """The link-layer header (Linux: dump_mac_header)."""
    device = pkt.iif if pkt.iif is not None else pkt.oif
    if flags & LOG_MACDECODE and device is not None and device.type == ARPHRD_ETHER:
        return _decoded_mac(pkt)
    head = link_header(pkt)
    if not head and device is not None and device.type == ARPHRD_LOOPBACK:
        head = bytes(12) + pkt.protocol.to_bytes(2, "big")
    return f"MAC={head.hex(':')} " if head else "MAC= "


def _decoded_mac(pkt: Packet) -> str:
    head = link_header(pkt) or bytes(14)
    tag = ""
    if pkt.vlan_tci >= 0:
        tag = f"VPROTO={_number(bytes(pkt.data[pkt.start : pkt.l3]), 12):04x} VID={pkt.vlan_tci} "
    return f"MACSRC={head[6:12].hex(':')} MACDST={head[:6].hex(':')} {tag}MACPROTO={_number(head, 12):04x} "


def _arp(data: bytes) -> str:
    """Linux: dump_arp_packet."""
    if len(data) < 8:
        return "TRUNCATED"
    line = f"ARP HTYPE={_number(data, 0)} PTYPE=0x{_number(data, 2):04x} OPCODE={_number(data, 6)}"
    if data[0:2] != b"\0\1" or data[4:6] != b"\6\4":
        return line
    if len(data) < 28:
        return line + f" INCOMPLETE [{len(data) - 8} bytes]"
    sender, target = socket.inet_ntoa(data[14:18]), socket.inet_ntoa(data[24:28])
    return line + f" MACSRC={data[8:14].hex(':')} IPSRC={sender} MACDST={data[18:24].hex(':')} IPDST={target}"


def _ipv4(data: bytes, flags: int, outer: bool) -> tuple[str, bool]:
    """The line of a packet and whether it was told to its end (Linux: dump_ipv4_packet)."""
    if len(data) < 20:
        return "TRUNCATED", False
    fragment = _number(data, 6)
    line = (
        f"SRC={socket.inet_ntoa(data[12:16])} DST={socket.inet_ntoa(data[16:20])} LEN={_number(data, 2)} "
        f"TOS=0x{data[1] & 0x1E:02X} PREC=0x{data[1] & 0xE0:02X} TTL={data[8]} ID={_number(data, 4)} "
    )
    line += "".join(name for bit, name in ((0x8000, "CE "), (0x4000, "DF "), (0x2000, "MF ")) if fragment & bit)
    if fragment & 0x1FFF:
        line += f"FRAG:{fragment & 0x1FFF} "
    size = (data[0] & 15) * 4
    if flags & LOG_IPOPT and size > 20:
        if len(data) < size:
            return line + "TRUNCATED", False
        line += f"OPT ({data[20:size].hex().upper()}) "
    later = bool(fragment & 0x1FFF)
    proto, rest = data[9], data[size:]
    if proto == IPPROTO_ICMP:
        return line + _icmp(rest, later, flags, outer), True
    if proto in (IPPROTO_AH, IPPROTO_ESP):
        line += "PROTO=AH " if proto == IPPROTO_AH else "PROTO=ESP "
        return line + ("" if later else _spi(rest, proto)), True
    text, whole = _ports(proto, rest, later, flags)
    return line + text, whole


def _spi(data: bytes, proto: int) -> str:
    at, size = (4, 12) if proto == IPPROTO_AH else (0, 8)
    return f"INCOMPLETE [{len(data)} bytes] " if len(data) < size else f"SPI=0x{_number(data, at, 4):x} "


def _ports(proto: int, data: bytes, later: bool, flags: int) -> tuple[str, bool]:
    """TCP, UDP, and protocols without ports."""
    if proto == IPPROTO_TCP:
        return _tcp(data, later, flags)
    if proto in (IPPROTO_UDP, IPPROTO_UDPLITE):
        line = "PROTO=UDP " if proto == IPPROTO_UDP else "PROTO=UDPLITE "
        if later:
            return line, True
        if len(data) < 8:
            return line + f"INCOMPLETE [{len(data)} bytes] ", False
        return line + f"SPT={_number(data, 0)} DPT={_number(data, 2)} LEN={_number(data, 4)} ", True
    return f"PROTO={proto} ", True


def _tcp(data: bytes, later: bool, flags: int) -> tuple[str, bool]:
    """Linux: nf_log_dump_tcp_header."""
    line = "PROTO=TCP "
    if later:
        return line, True
    if len(data) < 20:
        return line + f"INCOMPLETE [{len(data)} bytes] ", False
    line += f"SPT={_number(data, 0)} DPT={_number(data, 2)} "
    if flags & LOG_TCPSEQ:
        line += f"SEQ={_number(data, 4, 4)} ACK={_number(data, 8, 4)} "
    line += f"WINDOW={_number(data, 14)} RES=0x{(data[12] & 15) << 2:02x} "
    line += "".join(f"{name} " for bit, name in _FLAGS if data[13] & bit)
    line += f"URGP={_number(data, 18)} "
    size = (data[12] >> 4) * 4
    if flags & LOG_TCPOPT and size > 20:
        if len(data) < size:
            return line + "OPT (TRUNCATED)", False
        line += f"OPT ({data[20:size].hex().upper()}) "
    return line, True


def _icmp(data: bytes, later: bool, flags: int, outer: bool) -> str:
    line = "PROTO=ICMP "
    if later:
        return line
    if len(data) < 8:
        return line + f"INCOMPLETE [{len(data)} bytes] "
    kind, code = data[0], data[1]
    line += f"TYPE={kind} CODE={code} "
    if len(data) < _ICMP_NEEDS.get(kind, 0):
        return line + f"INCOMPLETE [{len(data)} bytes] "
    if kind in (0, 8):
        return line + f"ID={_number(data, 4)} SEQ={_number(data, 6)} "
    if kind == 12:
        return line + f"PARAMETER={data[4]} "
    if kind == 5:
        line += f"GATEWAY={socket.inet_ntoa(data[4:8])} "
    if kind in _ICMP_QUOTES and outer:
        line += f"[{_ipv4(data[8:], flags, False)[0]}] "
    if kind == 3 and code == 4:
        line += f"MTU={_number(data, 6)} "
    return line


def _ipv6(data: bytes, flags: int, outer: bool) -> tuple[str, bool]:
    """As `_ipv4` (Linux: dump_ipv6_packet)."""
    if len(data) < 40:
        return "TRUNCATED", False
    first = _number(data, 0, 4)
    line = (
        f"SRC={data[8:24].hex(':', 2)} DST={data[24:40].hex(':', 2)} LEN={_number(data, 4) + 40} TC={first >> 20 & 0xFF} "
        f"HOPLIMIT={data[7]} FLOWLBL={first & 0xFFFFF} "
    )
    proto, at, later = data[6], 40, False
    while proto in _EXTENSIONS:
        text, going_on, size, fragment = _extension(proto, data, at, later, flags)
        line += text
        if not going_on:
            return line, False
        later = later or fragment
        proto, at = data[at], at + size
    rest = data[at:]
    if proto == IPPROTO_ICMPV6:
        text, whole = _icmpv6(rest, later, flags, outer)
    else:
        text, whole = _ports(proto, rest, later, flags)
    return line + text, whole


def _extension(proto: int, data: bytes, at: int, later: bool, flags: int) -> tuple[str, bool, int, bool]:
    """One extension header: text, whether to go on, its size, whether it makes this a later fragment."""
    told = bool(flags & LOG_IPOPT)
    if len(data) < at + 2:
        return "TRUNCATED", False, 0, False
    line = "OPT ( " if told else ""
    end = ") " if told else ""
    if proto == IPPROTO_FRAGMENT:
        line += "FRAG:"
        if len(data) < at + 8:
            return line + "TRUNCATED ", False, 0, False
        word = _number(data, at + 2)
        line += f"{word & 0xFFF8} " + ("INCOMPLETE " if word & 1 else "") + f"ID:{_number(data, at + 4, 4):08x} "
        return line + end, True, 8, bool(word & 0xFFF8)
    if proto in (IPPROTO_AH, IPPROTO_ESP):
        if told:
            line += "AH " if proto == IPPROTO_AH else "ESP "
            if later:
                return line + ")", False, 0, False
            if len(data) < at + (12 if proto == IPPROTO_AH else 8):
                return line + f"INCOMPLETE [{len(data) - at} bytes] )", False, 0, False
            line += f"SPI=0x{_number(data, at + (4 if proto == IPPROTO_AH else 0), 4):x} "
        if proto == IPPROTO_ESP:
            return line + (")" if told else ""), False, 0, False
        return line + end, True, (data[at + 1] + 2) * 4, False
    if later:
        return line + (")" if told else ""), False, 0, False
    return line + end, True, (data[at + 1] + 1) * 8, False


def _icmpv6(data: bytes, later: bool, flags: int, outer: bool) -> tuple[str, bool]:
    line = "PROTO=ICMPv6 "
    if later:
        return line, True
    if len(data) < 8:
        return line + f"INCOMPLETE [{len(data)} bytes] ", False
    kind = data[0]
    line += f"TYPE={kind} CODE={data[1]} "
    if kind in (128, 129):
        line += f"ID={_number(data, 4)} SEQ={_number(data, 6)} "
    if kind == 4:
        line += f"POINTER={_number(data, 4, 4):08x} "
    if kind in _ICMPV6_QUOTES and outer:
        line += f"[{_ipv6(data[8:], flags, False)[0]}] "
    if kind == 2:
        line += f"MTU={_number(data, 4, 4)} "
    return line, True


