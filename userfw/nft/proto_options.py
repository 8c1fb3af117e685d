"""Headers of variable place: IPv6 extension headers, TCP and IPv4 options, SCTP chunks, DCCP options.

Laws:
- A row is (offset, width, data type) in bits from the start of the option or extension header, its kind byte included.
- Blocks of SACK and addresses of routing headers are counted, the first of ``sack`` is 0, the first of ``addr[]`` is 1.

Sources: RFC 8200, 6275, 8754; RFC 793, 7323, 2018, 8684; RFC 791, 2113; RFC 4960, 5061, 3758; RFC 4340.
"""

from __future__ import annotations

from typing import NamedTuple

from userfw.nft.datatype import Datatype
from userfw.nft.datatype_tables import INET_PROTO, IPV6_ADDR, MH_TYPE, MPTCP_SUBTYPE, integer


class OptionField(NamedTuple):
    """Kind number of the header, and the field in it."""

    kind: int
    offset: int
    width: int
    dtype: Datatype


_Rows = dict[str, tuple[int, int, Datatype]]


def _int(offset: int, width: int) -> tuple[int, int, Datatype]:
    return offset, width, integer(width)


_NEXT: _Rows = {"nexthdr": (0, 8, INET_PROTO), "hdrlength": _int(8, 8)}
EXTHDR_KINDS = {"hbh": 0, "rt": 43, "rt0": 43, "rt2": 43, "srh": 43, "frag": 44, "dst": 60, "mh": 135}
_EXTHDRS: dict[str, _Rows] = {
    "hbh": _NEXT,
    "dst": _NEXT,
    "rt": {**_NEXT, "type": _int(16, 8), "seg-left": _int(24, 8)},
    "rt0": {},
    "rt2": {},
    "srh": {"last-entry": _int(32, 8), "flags": _int(40, 8), "tag": _int(48, 16)},
    "frag": {
        "nexthdr": (0, 8, INET_PROTO), "reserved": _int(8, 8), "frag-off": _int(16, 13), "reserved2": _int(29, 2),
        "more-fragments": _int(31, 1), "id": _int(32, 32),
    },
    "mh": {**_NEXT, "type": (16, 8, MH_TYPE), "reserved": _int(24, 8), "checksum": _int(32, 16)},
}  # fmt: skip

TCP_OPTION_KINDS = {
    "eol": 0, "nop": 1, "maxseg": 2, "window": 3, "sack-perm": 4, "sack": 5, "sack0": 5, "sack1": 5, "sack2": 5, "sack3": 5,
    "echo": 6, "timestamp": 8, "md5sig": 19, "mptcp": 30, "fastopen": 34,
}  # fmt: skip
TCP_OPTION_NAMES = {
    0: "eol", 1: "nop", 2: "maxseg", 3: "window", 4: "sack-perm", 5: "sack", 8: "timestamp", 19: "md5sig", 30: "mptcp",
    34: "fastopen",
}  # fmt: skip
_TCP_COMMON: _Rows = {"kind": _int(0, 8), "length": _int(8, 8)}
_TCP_OPTIONS: dict[str, _Rows] = {
    "maxseg": {"size": _int(16, 16)},
    "window": {"count": _int(16, 8)},
    "timestamp": {"tsval": _int(16, 32), "tsecr": _int(48, 32)},
    "mptcp": {"subtype": (16, 4, MPTCP_SUBTYPE)},
    **{
        name: {"left": _int(16 + 64 * block, 32), "right": _int(48 + 64 * block, 32)}
        for block, names in enumerate((("sack", "sack0"), ("sack1",), ("sack2",), ("sack3",)))
        for name in names
    },
}

IP_OPTION_KINDS = {"rr": 7, "lsrr": 131, "ssrr": 137, "ra": 148}
_IP_COMMON: _Rows = {"type": _int(0, 8), "length": _int(8, 8)}
_ROUTE: _Rows = {"value": _int(8, 8), "ptr": _int(16, 8), "addr": _int(24, 32)}
_IP_OPTIONS: dict[str, _Rows] = {"rr": _ROUTE, "lsrr": _ROUTE, "ssrr": _ROUTE, "ra": {"value": _int(16, 16)}}

SCTP_CHUNK_KINDS = {
    "data": 0, "init": 1, "init-ack": 2, "sack": 3, "heartbeat": 4, "heartbeat-ack": 5, "abort": 6, "shutdown": 7,
    "shutdown-ack": 8, "error": 9, "cookie-echo": 10, "cookie-ack": 11, "ecne": 12, "cwr": 13, "shutdown-complete": 14,
    "asconf-ack": 128, "forward-tsn": 192, "asconf": 193,
}  # fmt: skip
_CHUNK_COMMON: _Rows = {"type": _int(0, 8), "flags": _int(8, 8), "length": _int(16, 16)}
_INIT: _Rows = {
    "init-tag": _int(32, 32), "a-rwnd": _int(64, 32), "num-outbound-streams": _int(96, 16),
    "num-inbound-streams": _int(112, 16), "initial-tsn": _int(128, 32),
}  # fmt: skip
_CHUNKS: dict[str, _Rows] = {
    "data": {"tsn": _int(32, 32), "stream": _int(64, 16), "ssn": _int(80, 16), "ppid": _int(96, 32)},
    "init": _INIT,
    "init-ack": _INIT,
    "sack": {
        "cum-tsn-ack": _int(32, 32), "a-rwnd": _int(64, 32), "num-gap-ack-blocks": _int(96, 16), "num-dup-tsns": _int(112, 16)
    },
    "shutdown": {"cum-tsn-ack": _int(32, 32)},
    "ecne": {"lowest-tsn": _int(32, 32)},
    "cwr": {"lowest-tsn": _int(32, 32)},
    "asconf-ack": {"seqno": _int(32, 32)},
    "forward-tsn": {"new-cum-tsn": _int(32, 32)},
    "asconf": {"seqno": _int(32, 32)},
}  # fmt: skip

DCCP_KIND_WIDTH = 8


def exthdr_field(header: str, name: str) -> OptionField | None:
    """A field of an IPv6 extension header; ``addr[N]`` and ``sid[N]`` count from 1."""
    kind = EXTHDR_KINDS.get(header)
    if kind is None:
        return None
    row = _EXTHDRS[header].get(name)
    if row is None and name.endswith("]") and (header, name[: name.index("[")]) in _ADDRESSES:
        number = int(name[name.index("[") + 1 : -1])
        row = (64 + 128 * max(number - 1, 0), 128, IPV6_ADDR)
    return None if row is None else OptionField(kind, *row)


_ADDRESSES = frozenset((("rt0", "addr"), ("rt2", "addr"), ("srh", "sid")))


def tcp_option_field(option: str | int, name: str) -> OptionField | None:
    """A field of a TCP option, by name or kind number."""
    kind = TCP_OPTION_KINDS.get(option) if isinstance(option, str) else option
    if kind is None:
        return None
    word = option if isinstance(option, str) else TCP_OPTION_NAMES.get(option, "")
    row = _TCP_OPTIONS.get(word, {}).get(name) or (None if kind in (0, 1) and name == "length" else _TCP_COMMON.get(name))
    return None if row is None else OptionField(kind, *row)


def ip_option_field(option: str, name: str) -> OptionField | None:
    """A field of an IPv4 option."""
    kind = IP_OPTION_KINDS.get(option)
    if kind is None:
        return None
    row = _IP_OPTIONS[option].get(name) or _IP_COMMON.get(name)
    return None if row is None else OptionField(kind, *row)


def sctp_chunk_field(chunk: str, name: str) -> OptionField | None:
    """A field of an SCTP chunk."""
    kind = SCTP_CHUNK_KINDS.get(chunk)
    if kind is None:
        return None
    row = _CHUNKS.get(chunk, {}).get(name) or _CHUNK_COMMON.get(name)
    return None if row is None else OptionField(kind, *row)
