"""Every data type of nft, by name, with its width, byte order and symbols.

Laws:
- ``TYPES`` holds what ``type NAME`` and ``describe NAME`` know; the constants are the same objects.
- Where two words share a value, the first is the one that is listed.
- The numbers are nft's ``enum datatypes``: they travel in the user data of sets and in concatenations, 6 bits each.
"""

from __future__ import annotations

from userfw.nft.datatype import (
    BIG,
    DEFAULT_NAMES,
    DEFAULT_OUTPUT,
    HOST,
    Datatype,
    EtherType,
    HandleType,
    IfindexType,
    IfnameType,
    IPv4Type,
    IPv6Type,
    LabelType,
    LookupType,
    Names,
    Output,
    ProtocolType,
    ServiceType,
    StringType,
)
from userfw.nft.datatype_names import PROTOCOLS
from userfw.nft.datatype_time import DateType, DayType, HourType, SpanType

INVALID = Datatype("invalid", 0, "invalid")
VERDICT = Datatype("verdict", 1, "netfilter verdict", 0, HOST)
INTEGER = Datatype("integer", 4, "integer")
XINTEGER = Datatype("integer", 4, "integer", hexadecimal=True)
"""An integer that lists in hexadecimal."""
BITMASK = Datatype("bitmask", 3, "bitmask", base=INTEGER, hexadecimal=True)
STRING = StringType("string", 5, "string", 0, HOST)


class NumericCode(Datatype):
    """An ICMP code: words are understood, numbers are listed (what a code means depends on the type beside it)."""

    __slots__ = ()

    def format(self, value: int | bytes, out: Output = DEFAULT_OUTPUT) -> str:
        return str(value)


class HexInteger(Datatype):
    """An integer that lists as ``0x…`` without leading zeros."""

    __slots__ = ()

    def format_number(self, value: int) -> str:
        return f"0x{value:x}"


class CgroupType(Datatype):
    """``cgroupsv2``: a path below the cgroup root, or its number."""

    __slots__ = ()

    def parse(self, text: str, names: Names = DEFAULT_NAMES) -> int:
        number = names.cgroup(text)
        if number is not None:
            return number
        try:
            return super().parse_number(text)
        except ValueError:
            raise ValueError("cgroupv2 path fails: No such file or directory") from None

    def format(self, value: int | bytes, out: Output = DEFAULT_OUTPUT) -> str:
        assert isinstance(value, int)
        path = out.names.cgroup_path(value)
        return str(value) if path is None else f'"{path}"'


def _flags(*words: str) -> dict[str, int]:
    return {word: 1 << bit for bit, word in enumerate(words) if word}


LLADDR = EtherType("ll_addr", 6, "link layer address", 0, BIG, INTEGER)
IPV4_ADDR = IPv4Type("ipv4_addr", 7, "IPv4 address", 32, BIG, INTEGER, prefix=True)
IPV6_ADDR = IPv6Type("ipv6_addr", 8, "IPv6 address", 128, BIG, INTEGER, prefix=True)
ETHER_ADDR = EtherType("ether_addr", 9, "Ethernet address", 48, BIG, LLADDR)
ETHER_TYPE = Datatype(
    "ether_type", 10, "Ethernet protocol", 16, BIG, INTEGER,
    {"ip": 0x0800, "arp": 0x0806, "ip6": 0x86DD, "8021q": 0x8100, "8021ad": 0x88A8, "vlan": 0x8100},
    hexadecimal=True,
)  # fmt: skip
ARP_OP = Datatype(
    "arp_op", 11, "ARP operation", 16, BIG, INTEGER,
    {"request": 1, "reply": 2, "rrequest": 3, "rreply": 4, "inrequest": 8, "inreply": 9, "nak": 10},
)  # fmt: skip
INET_PROTO = ProtocolType("inet_proto", 12, "Internet protocol", 8, BIG, INTEGER, PROTOCOLS | {"icmpv6": 58, "comp": 108})
INET_SERVICE = ServiceType("inet_service", 13, "internet network service", 16, BIG, INTEGER)
_ICMP_TYPES = {
    "echo-reply": 0, "destination-unreachable": 3, "source-quench": 4, "redirect": 5, "echo-request": 8,
    "router-advertisement": 9, "router-solicitation": 10, "time-exceeded": 11, "parameter-problem": 12,
    "timestamp-request": 13, "timestamp-reply": 14, "info-request": 15, "info-reply": 16,
    "address-mask-request": 17, "address-mask-reply": 18,
}  # fmt: skip
ICMP_TYPE = Datatype("icmp_type", 14, "ICMP type", 8, BIG, INTEGER, _ICMP_TYPES)
TCP_FLAG = Datatype(
    "tcp_flag", 15, "TCP flag", 8, BIG, BITMASK, _flags("fin", "syn", "rst", "psh", "ack", "urg", "ecn", "cwr"), hexadecimal=True
)
DCCP_PKTTYPE = Datatype(
    "dccp_pkttype", 16, "DCCP packet type", 4, BIG, INTEGER,
    {
        word: number
        for number, word in enumerate(
            ("request", "response", "data", "ack", "dataack", "closereq", "close", "reset", "sync", "syncack")
        )
    },
    hexadecimal=True,
)  # fmt: skip
MH_TYPE = Datatype(
    "mh_type", 17, "Mobility Header Type", 8, BIG, INTEGER,
    {
        word: number
        for number, word in enumerate(
            (
                "binding-refresh-request", "home-test-init", "careof-test-init", "home-test", "careof-test", "binding-update",
                "binding-acknowledgement", "binding-error", "fast-binding-update", "fast-binding-acknowledgement",
                "fast-binding-advertisement", "experimental-mobility-header", "home-agent-switch-message",
            )
        )
    },
)  # fmt: skip
TIME = SpanType("time", 18, "relative time", 64, HOST, INTEGER)
MARK = LookupType(lambda names: names.marks, "mark", 19, "packet mark", 32, HOST, INTEGER, hexadecimal=True)
IFACE_INDEX = IfindexType("iface_index", 20, "network interface index", 32, HOST, INTEGER)
IFACE_TYPE = Datatype(
    "iface_type", 21, "network interface type", 16, HOST, INTEGER,
    {"ether": 1, "ppp": 512, "ipip": 768, "ipip6": 769, "loopback": 772, "sit": 776, "ipgre": 778},
)  # fmt: skip
REALM = LookupType(lambda names: names.realms, "realm", 22, "routing realm", 32, HOST, INTEGER, quoted=True)
TC_HANDLE = HandleType("classid", 23, "TC classid", 32, HOST, INTEGER)
UID = LookupType(lambda names: names.users, "uid", 24, "user ID", 32, HOST, INTEGER, quoted=True)
GID = LookupType(lambda names: names.groups, "gid", 25, "group ID", 32, HOST, INTEGER, quoted=True)
CT_STATE = Datatype(
    "ct_state", 26, "conntrack state", 32, HOST, BITMASK,
    {"invalid": 1, "new": 8, "established": 2, "related": 4, "untracked": 64}, hexadecimal=True,
)  # fmt: skip
CT_DIR = Datatype("ct_dir", 27, "conntrack direction", 8, HOST, INTEGER, {"original": 0, "reply": 1})
CT_STATUS = Datatype(
    "ct_status", 28, "conntrack status", 32, HOST, BITMASK,
    {
        "expected": 1, "seen-reply": 2, "assured": 4, "confirmed": 8, "snat": 16, "dnat": 32, "seq-adjust": 64,
        "snat-done": 128, "dnat-done": 256, "dying": 512, "fixed-timeout": 1024, "helper": 8192, "offload": 16384,
        "hw-offload": 32768,
    },
    hexadecimal=True,
)  # fmt: skip
ICMPV6_TYPE = Datatype(
    "icmpv6_type", 29, "ICMPv6 type", 8, BIG, INTEGER,
    {
        "destination-unreachable": 1, "packet-too-big": 2, "time-exceeded": 3, "parameter-problem": 4, "echo-request": 128,
        "echo-reply": 129, "mld-listener-query": 130, "mld-listener-report": 131, "mld-listener-done": 132,
        "mld-listener-reduction": 132, "nd-router-solicit": 133, "nd-router-advert": 134, "nd-neighbor-solicit": 135,
        "nd-neighbor-advert": 136, "nd-redirect": 137, "router-renumbering": 138, "ind-neighbor-solicit": 141,
        "ind-neighbor-advert": 142, "mld2-listener-report": 143,
    },
)  # fmt: skip
CT_LABEL = LabelType(lambda names: names.labels, "ct_label", 30, "conntrack label", 128, HOST, BITMASK)
PKT_TYPE = Datatype(
    "pkt_type", 31, "packet type", 8, HOST, INTEGER, {"host": 0, "unicast": 0, "broadcast": 1, "multicast": 2, "other": 3}
)
_ICMP_CODES = {
    "net-unreachable": 0, "host-unreachable": 1, "prot-unreachable": 2, "port-unreachable": 3, "frag-needed": 4,
    "net-prohibited": 9, "host-prohibited": 10, "admin-prohibited": 13,
}  # fmt: skip
_ICMPV6_CODES = {
    "no-route": 0, "admin-prohibited": 1, "addr-unreachable": 3, "port-unreachable": 4, "policy-fail": 5, "reject-route": 6
}  # fmt: skip
ICMP_CODE = NumericCode("icmp_code", 32, "icmp code", 8, BIG, INTEGER, _ICMP_CODES)
ICMPV6_CODE = NumericCode("icmpv6_code", 33, "icmpv6 code", 8, BIG, INTEGER, _ICMPV6_CODES)
ICMP_REJECT = Datatype("icmp_code", 32, "icmp code", 8, BIG, INTEGER, _ICMP_CODES)
"""The codes of ``reject with``: listed as words."""
ICMPV6_REJECT = Datatype("icmpv6_code", 33, "icmpv6 code", 8, BIG, INTEGER, _ICMPV6_CODES)
ICMPX_CODE = Datatype(
    "icmpx_code", 34, "icmpx code", 8, BIG, INTEGER,
    {"no-route": 0, "port-unreachable": 1, "host-unreachable": 2, "admin-prohibited": 3},
)  # fmt: skip
DEVGROUP = LookupType(lambda names: names.device_groups, "devgroup", 35, "devgroup name", 32, HOST, INTEGER, quoted=True)
DSCP = Datatype(
    "dscp", 36, "Differentiated Services Code Point", 6, BIG, INTEGER,
    {
        "cs0": 0x00, "cs1": 0x08, "cs2": 0x10, "cs3": 0x18, "cs4": 0x20, "cs5": 0x28, "cs6": 0x30, "cs7": 0x38, "df": 0x00,
        "be": 0x00, "lephb": 0x01, "af11": 0x0A, "af12": 0x0C, "af13": 0x0E, "af21": 0x12, "af22": 0x14, "af23": 0x16,
        "af31": 0x1A, "af32": 0x1C, "af33": 0x1E, "af41": 0x22, "af42": 0x24, "af43": 0x26, "va": 0x2C, "ef": 0x2E,
    },
    hexadecimal=True,
)  # fmt: skip
ECN = Datatype(
    "ecn", 37, "Explicit Congestion Notification", 2, BIG, INTEGER, {"not-ect": 0, "ect1": 1, "ect0": 2, "ce": 3}, hexadecimal=True
)
FIB_ADDR = Datatype(
    "fib_addrtype", 38, "fib address type", 32, HOST, INTEGER,
    {
        "unspec": 0, "unicast": 1, "local": 2, "broadcast": 3, "anycast": 4, "multicast": 5, "blackhole": 6, "unreachable": 7,
        "prohibit": 8,
    },
)  # fmt: skip
BOOLEAN = Datatype("boolean", 39, "boolean type", 1, HOST, INTEGER, {"exists": 1, "missing": 0})
CT_EVENT = Datatype(
    "ct_event", 40, "conntrack event bits", 32, HOST, BITMASK,
    _flags("new", "related", "destroy", "reply", "assured", "protoinfo", "helper", "mark", "seqadj", "secmark", "label"),
    hexadecimal=True,
)  # fmt: skip
IFNAME = IfnameType("ifname", 41, "network interface name", 128, HOST, STRING)
IGMP_TYPE = Datatype(
    "igmp_type", 42, "IGMP type", 8, BIG, INTEGER,
    {
        "membership-query": 17, "membership-report-v1": 18, "membership-report-v2": 22, "membership-report-v3": 34,
        "leave-group": 23,
    },
)  # fmt: skip
DATE = DateType("time", 43, "Relative time of packet reception", 64, HOST, INTEGER)
HOUR = HourType("hour", 44, "Hour of day of packet reception", 32, HOST, INTEGER)
DAY = DayType("day", 45, "Day of week of packet reception", 8, HOST, INTEGER)
CGROUPV2 = CgroupType("cgroupsv2", 46, "cgroupsv2 path", 64, HOST, INTEGER)
NF_PROTO = Datatype("nf_proto", 2, "netfilter protocol", 8, HOST, INTEGER, {"ipv4": 2, "ipv6": 10})
CT_ID = Datatype("ct_id", 4, "conntrack id", 32, BIG, INTEGER)
MPTCP_SUBTYPE = Datatype(
    "integer", 4, "integer", 4, BIG, None,
    {
        "mp-capable": 0, "mp-join": 1, "dss": 2, "add-addr": 3, "remove-addr": 4, "mp-prio": 5, "mp-fail": 6,
        "mp-fastclose": 7, "mp-tcprst": 8,
    },
)  # fmt: skip

TYPES: dict[str, Datatype] = {
    dtype.name: dtype
    for dtype in (
        VERDICT, NF_PROTO, BITMASK, INTEGER, STRING, LLADDR, IPV4_ADDR, IPV6_ADDR, ETHER_ADDR, ETHER_TYPE, ARP_OP, INET_PROTO,
        INET_SERVICE, ICMP_TYPE, TCP_FLAG, DCCP_PKTTYPE, MH_TYPE, TIME, MARK, IFACE_INDEX, IFACE_TYPE, REALM, TC_HANDLE, UID,
        GID, CT_STATE, CT_DIR, CT_STATUS, ICMPV6_TYPE, CT_LABEL, PKT_TYPE, ICMP_CODE, ICMPV6_CODE, ICMPX_CODE, DEVGROUP, DSCP,
        ECN, FIB_ADDR, BOOLEAN, CT_EVENT, IFNAME, IGMP_TYPE, HOUR, DAY, CGROUPV2,
    )
}  # fmt: skip


class ConcatType(Datatype):
    """A concatenation: ``parts`` in order. Each part takes whole 32-bit registers."""

    __slots__ = ("parts",)

    def __init__(self, parts: tuple[Datatype, ...]) -> None:
        number = 0
        for part in parts:
            number = number << 6 | part.id
        width = sum((part.width + 31) // 32 * 32 for part in parts)
        super().__init__(" . ".join(part.name for part in parts), number, "concatenation", width)
        self.parts = parts

    @property
    def octets(self) -> int:
        return self.width >> 3


_CONCATS: dict[tuple[Datatype, ...], ConcatType] = {}


def concat_type(parts: tuple[Datatype, ...]) -> ConcatType:
    """The type of a concatenation of these types; the same object for the same parts."""
    found = _CONCATS.get(parts)
    if found is None:
        found = _CONCATS[parts] = ConcatType(parts)
    return found


_INTEGERS: dict[tuple[int, str, bool], Datatype] = {}


def integer(width: int, byteorder: str = BIG, *, hexadecimal: bool = False) -> Datatype:
    """The integer type of this width and byte order; the same object for the same arguments."""
    key = (width, byteorder, hexadecimal)
    found = _INTEGERS.get(key)
    if found is None:
        cls = HexInteger if hexadecimal else Datatype
        found = _INTEGERS[key] = cls("integer", 4, "integer", width, byteorder, hexadecimal=hexadecimal)
    return found


def string(width: int) -> Datatype:
    """The string type of at most ``width`` bits."""
    return STRING.sized(width, HOST)


class JoinedBits(Datatype):
    """A bitmask as an element of a set: several bits list as ``a | b``."""

    __slots__ = ()

    def format(self, value: int | bytes, out: Output = DEFAULT_OUTPUT) -> str:
        assert isinstance(value, int)
        if value & (value - 1) == 0 or out.numeric_symbol or value & ~sum(self.values):
            return super().format(value, out)
        bits = (1 << bit for bit in range(value.bit_length()) if value >> bit & 1)
        return " | ".join(super(JoinedBits, self).format(bit, out) for bit in bits)


_JOINED: dict[Datatype, Datatype] = {}


def joined_type(dtype: Datatype) -> Datatype:
    """The same type with several bits listed as ``a | b``; types without words for bits stay as they are."""
    if not dtype.symbols:
        return dtype
    found = _JOINED.get(dtype)
    if found is None:
        found = _JOINED[dtype] = JoinedBits(
            dtype.name, dtype.id, dtype.desc, dtype.width, dtype.byteorder, dtype.base, dtype.symbols, hexadecimal=True
        )
    return found
