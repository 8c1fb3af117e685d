"""The header table: one row for each field of each protocol, and how protocols follow one another.

Laws:
- A ``Field`` is (protocol, keyword, offset and width in bits, data type). Offsets count from the protocol's own start.
- A ``Protocol`` lies on one base: ``ll`` link layer, ``nh`` network, ``th`` transport, ``ih`` inside a tunnel header.
- ``uppers`` gives, for each value of the protocol key, what follows; ``key`` is how nft asks for it: the field of that
  name, or a meta key where Linux has one that sees through extension headers and VLAN tags.
- ``checksum`` is the field that a write must fix; ``pseudo`` says that the field is part of the transport pseudo header.

Sources: RFC 791, 792, 793, 768, 826, 1112, 2236, 2460, 4443, 4302, 4303, 3173, 3828, 4340, 4960, 2784, 7348, 8926; IEEE 802.1Q.
"""

from __future__ import annotations

from userfw.nft.datatype import Datatype
from userfw.nft.datatype_tables import (
    ARP_OP,
    DCCP_PKTTYPE,
    DSCP,
    ECN,
    ETHER_ADDR,
    ETHER_TYPE,
    ICMP_CODE,
    ICMP_TYPE,
    ICMPV6_CODE,
    ICMPV6_TYPE,
    IGMP_TYPE,
    INET_PROTO,
    INET_SERVICE,
    IPV4_ADDR,
    IPV6_ADDR,
    TCP_FLAG,
    integer,
)


class Field:
    """One header field. ``octets`` are the whole bytes that it touches."""

    __slots__ = ("dtype", "is_key", "name", "needs", "offset", "protocol", "pseudo", "width")

    def __init__(
        self, protocol: str, name: str, offset: int, width: int, dtype: Datatype, pseudo: bool, needs: tuple[int, ...]
    ) -> None:
        self.protocol = protocol
        self.name = name
        self.offset = offset
        self.width = width
        self.dtype = dtype
        self.pseudo = pseudo
        self.needs = needs
        """The ICMP types that have this field; empty for all."""
        self.is_key = False

    def __repr__(self) -> str:
        return f"<{self.protocol} {self.name} {self.offset}+{self.width}>"


class Protocol:
    """One protocol: its fields, in header order, and what may follow it."""

    __slots__ = ("base", "by_place", "checksum", "fields", "inner", "key", "length", "meta_key", "name", "uppers")

    def __init__(
        self,
        name: str,
        base: str,
        length: int = 0,
        *,
        key: str | None = None,
        meta_key: str | None = None,
        checksum: str | None = None,
        inner: tuple[int, int, int] | None = None,
    ) -> None:
        self.name = name
        self.base = base
        self.length = length
        self.key = key
        self.meta_key = meta_key
        self.checksum = checksum
        self.inner = inner
        """Of a tunnel: nf_tables inner type, header size in bytes, flags."""
        self.fields: dict[str, Field] = {}
        self.by_place: dict[tuple[int, int], Field] = {}
        self.uppers: dict[int, Protocol] = {}

    def __repr__(self) -> str:
        return f"<protocol {self.name}>"

    def number_of(self, upper: Protocol) -> int | None:
        """The key value that announces ``upper``; the first of several."""
        for number, protocol in self.uppers.items():
            if protocol is upper:
                return number
        return None


def _fields(protocol: Protocol, *rows: tuple[object, ...]) -> Protocol:
    """Rows (keyword, width, type or None for an integer[, needs]): each begins where the one before ended; None pads."""
    at = 0
    for row in rows:
        name, width, dtype = row[0], row[1], row[2] if len(row) > 2 else None
        assert isinstance(width, int)
        if isinstance(name, str):
            _add(protocol, name, at, width, dtype, *row[3:])
        at += width
    return protocol


def _add(protocol: Protocol, name: str, at: int, width: int, dtype: object = None, needs: object = ()) -> Field:
    kind = dtype if isinstance(dtype, Datatype) else integer(width)
    if kind.width != width:
        kind = kind.sized(width, kind.byteorder)
    assert isinstance(needs, tuple)
    pseudo = protocol.name in ("ip", "ip6") and name in ("saddr", "daddr", "protocol", "nexthdr")
    row = Field(protocol.name, name, at, width, kind, pseudo, needs)
    protocol.fields[name] = row
    protocol.by_place.setdefault((at, width), row)
    if name == protocol.key or (protocol.name, name) in (("ip", "protocol"), ("ip6", "nexthdr")):
        row.is_key = True
    return row


_HEX16 = integer(16, hexadecimal=True)

ETHER = _fields(
    Protocol("ether", "ll", 112, key="type"), ("daddr", 48, ETHER_ADDR), ("saddr", 48, ETHER_ADDR), ("type", 16, ETHER_TYPE)
)
VLAN = _fields(Protocol("vlan", "ll", 32, key="type"), ("pcp", 3), ("dei", 1), ("id", 12), ("type", 16, ETHER_TYPE))
VLAN.fields["cfi"] = VLAN.fields["dei"]
ARP = _fields(
    Protocol("arp", "nh", 224),
    ("htype", 16), ("ptype", 16, ETHER_TYPE), ("hlen", 8), ("plen", 8), ("operation", 16, ARP_OP),
    ("saddr ether", 48, ETHER_ADDR), ("saddr ip", 32, IPV4_ADDR), ("daddr ether", 48, ETHER_ADDR), ("daddr ip", 32, IPV4_ADDR),
)  # fmt: skip
IP = _fields(
    Protocol("ip", "nh", 160, meta_key="l4proto", checksum="checksum"),
    ("version", 4), ("hdrlength", 4), ("dscp", 6, DSCP), ("ecn", 2, ECN), ("length", 16), ("id", 16),
    ("frag-off", 16, _HEX16), ("ttl", 8), ("protocol", 8, INET_PROTO), ("checksum", 16),
    ("saddr", 32, IPV4_ADDR), ("daddr", 32, IPV4_ADDR),
)  # fmt: skip
IP6 = _fields(
    Protocol("ip6", "nh", 320, meta_key="l4proto"),
    ("version", 4), ("dscp", 6, DSCP), ("ecn", 2, ECN), ("flowlabel", 20), ("length", 16), ("nexthdr", 8, INET_PROTO),
    ("hoplimit", 8), ("saddr", 128, IPV6_ADDR), ("daddr", 128, IPV6_ADDR),
)  # fmt: skip

_ECHO, _MTU, _REDIRECT = (0, 8), (3,), (5,)
ICMP = _fields(
    Protocol("icmp", "th", 64, key="type", checksum="checksum"),
    ("type", 8, ICMP_TYPE), ("code", 8, ICMP_CODE), ("checksum", 16), ("id", 16, None, _ECHO), ("sequence", 16, None, _ECHO),
)  # fmt: skip
_add(ICMP, "gateway", 32, 32, None, _REDIRECT)
_add(ICMP, "mtu", 48, 16, None, _MTU)
IGMP = _fields(
    Protocol("igmp", "th", 64, checksum="checksum"),
    ("type", 8, IGMP_TYPE), ("mrt", 8), ("checksum", 16), ("group", 32, IPV4_ADDR),
)  # fmt: skip
_ECHO6, _MTU6, _PROBLEM6, _MLD_QUERY, _REDIRECT6 = (128, 129), (2,), (4,), (130,), (137,)
_TARGET6 = (130, 131, 132, 135, 136, 137)
ICMPV6 = _fields(
    Protocol("icmpv6", "th", 64, key="type", checksum="checksum"),
    ("type", 8, ICMPV6_TYPE), ("code", 8, ICMPV6_CODE), ("checksum", 16),
    ("id", 16, None, _ECHO6), ("sequence", 16, None, _ECHO6),
)  # fmt: skip
_add(ICMPV6, "parameter-problem", 32, 32, None, _PROBLEM6)
_add(ICMPV6, "mtu", 32, 32, None, _MTU6)
_add(ICMPV6, "max-delay", 32, 16, None, _MLD_QUERY)
_add(ICMPV6, "taddr", 64, 128, IPV6_ADDR, _TARGET6)
_add(ICMPV6, "daddr", 192, 128, IPV6_ADDR, _REDIRECT6)
ICMPV6.fields["packet-too-big"] = ICMPV6.fields["mtu"]
ICMPV6.fields["param-problem"] = ICMPV6.fields["parameter-problem"]

_PORTS: tuple[tuple[object, ...], ...] = (("sport", 16, INET_SERVICE), ("dport", 16, INET_SERVICE))
TH = _fields(Protocol("th", "th"), *_PORTS)
TCP = _fields(
    Protocol("tcp", "th", 160, checksum="checksum"), *_PORTS,
    ("sequence", 32), ("ackseq", 32), ("doff", 4), ("reserved", 4), ("flags", 8, TCP_FLAG), ("window", 16), ("checksum", 16),
    ("urgptr", 16),
)  # fmt: skip
UDP = _fields(Protocol("udp", "th", 64, checksum="checksum"), *_PORTS, ("length", 16), ("checksum", 16))
UDPLITE = _fields(Protocol("udplite", "th", 64, checksum="checksum"), *_PORTS, ("csumcov", 16), ("checksum", 16))
DCCP = _fields(Protocol("dccp", "th", 128), *_PORTS, (None, 35), ("type", 4, DCCP_PKTTYPE))
SCTP = _fields(Protocol("sctp", "th", 96, checksum="checksum"), *_PORTS, ("vtag", 32), ("checksum", 32))
AH = _fields(
    Protocol("ah", "th", 96, key="nexthdr"),
    ("nexthdr", 8, INET_PROTO), ("hdrlength", 8), ("reserved", 16), ("spi", 32), ("sequence", 32),
)  # fmt: skip
ESP = _fields(Protocol("esp", "th", 64), ("spi", 32), ("sequence", 32))
COMP = _fields(
    Protocol("comp", "th", 32, key="nexthdr"),
    ("nexthdr", 8, INET_PROTO), ("flags", 8, integer(8, hexadecimal=True)), ("cpi", 16),
)  # fmt: skip
_NH, _TH, _LL, _HDR = 4, 8, 2, 1
GRE = _fields(
    Protocol("gre", "th", 32, key="protocol", inner=(3, 4, _HDR | _NH | _TH)),
    ("flags", 5), (None, 8), ("version", 3), ("protocol", 16, ETHER_TYPE),
)  # fmt: skip
GRETAP = Protocol("gretap", "th", 32, inner=(4, 4, _LL | _NH | _TH))
VXLAN = _fields(Protocol("vxlan", "ih", 64, inner=(1, 8, _HDR | _LL | _NH | _TH)), ("flags", 8), (None, 24), ("vni", 24))
GENEVE = _fields(
    Protocol("geneve", "ih", 64, inner=(2, 8, _HDR | _LL | _NH | _TH)), (None, 16), ("type", 16, ETHER_TYPE), ("vni", 24)
)

INET = Protocol("inet", "ll", meta_key="nfproto")
NETDEV = Protocol("netdev", "ll", meta_key="protocol")
INET_SERVICE_LAYER = Protocol("inet-service", "nh", meta_key="l4proto")
"""Whichever network layer: transport protocols in tables that see both."""

_TRANSPORTS = {
    1: ICMP, 2: IGMP, 6: TCP, 17: UDP, 33: DCCP, 47: GRE, 50: ESP, 51: AH, 58: ICMPV6, 108: COMP, 132: SCTP, 136: UDPLITE,
}  # fmt: skip
_ETHERTYPES = {0x0800: IP, 0x0806: ARP, 0x86DD: IP6, 0x8100: VLAN, 0x88A8: VLAN}


def _link() -> None:
    order = (58, 50, 51, 108, 1, 2, 17, 136, 6, 33, 132, 47)
    for protocol in (IP, IP6, INET_SERVICE_LAYER):
        protocol.uppers = {number: _TRANSPORTS[number] for number in order} | {47: GRE}
    for protocol in (AH, COMP):
        protocol.uppers = {number: _TRANSPORTS[number] for number in order if number not in (1, 2, 58, 47)}
    for protocol in (ETHER, VLAN):
        protocol.uppers = dict(_ETHERTYPES)
    NETDEV.uppers = {0x0800: IP, 0x0806: ARP, 0x86DD: IP6, 0x8100: VLAN, 0x88A8: VLAN}
    INET.uppers = {2: IP, 10: IP6}
    GRE.uppers = {0x0800: IP, 0x86DD: IP6, 0x8100: VLAN}


_link()

PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        ETHER, VLAN, ARP, IP, IP6, ICMP, IGMP, ICMPV6, TH, TCP, UDP, UDPLITE, DCCP, SCTP, AH, ESP, COMP, GRE, GRETAP, VXLAN,
        GENEVE, INET, NETDEV,
    )
}  # fmt: skip

FAMILY_PROTOCOL: dict[str, Protocol] = {"ip": IP, "ip6": IP6, "arp": ARP, "inet": INET, "bridge": ETHER, "netdev": NETDEV}
"""What a chain of the family knows of every packet before any rule has matched."""


def field(protocol: str, name: str) -> Field | None:
    """The row of a field by its keywords."""
    found = PROTOCOLS.get(protocol)
    return None if found is None else found.fields.get(name)
