"""The header table: fields lie where the RFCs put them, protocols follow one another, keys fit the engine."""

from __future__ import annotations

import itertools

import pytest

from userfw.engine.expressions import ct, fib, meta, rt, socket, xfrm
from userfw.nft import keywords as kw
from userfw.nft import proto, proto_keys, proto_options


@pytest.mark.parametrize(
    ("protocol", "field", "offset", "width"),
    [
        ("ether", "type", 96, 16), ("vlan", "id", 4, 12), ("vlan", "pcp", 0, 3), ("arp", "daddr ip", 192, 32), ("ip", "dscp", 8, 6),
        ("ip", "ttl", 64, 8), ("ip", "saddr", 96, 32), ("ip6", "flowlabel", 12, 20), ("ip6", "nexthdr", 48, 8),
        ("ip6", "daddr", 192, 128), ("icmp", "mtu", 48, 16), ("icmpv6", "taddr", 64, 128), ("tcp", "flags", 104, 8),
        ("tcp", "doff", 96, 4), ("udp", "checksum", 48, 16), ("dccp", "type", 67, 4), ("sctp", "vtag", 32, 32),
        ("gre", "protocol", 16, 16), ("vxlan", "vni", 32, 24), ("geneve", "vni", 32, 24),
    ],
)  # fmt: skip
def test_places(protocol: str, field: str, offset: int, width: int) -> None:
    row = proto.field(protocol, field)
    assert row is not None
    assert (row.offset, row.width) == (offset, width)
    assert row.dtype.width in (0, width)


def test_every_keyword_has_a_row() -> None:
    for protocol, fields in kw.FIELDS.items():
        for field in fields:
            assert proto.field(protocol, field) is not None, f"{protocol} {field}"
    for header, fields in kw.EXTHDRS.items():
        for field in fields:
            name = f"{field}[1]" if field in ("addr", "sid") else field
            assert proto_options.exthdr_field(header, name) is not None, f"{header} {field}"
    for option, fields in kw.TCP_OPTIONS.items():
        for field in fields:
            assert proto_options.tcp_option_field(option, field) is not None, f"tcp option {option} {field}"
    for option, fields in kw.IP_OPTIONS.items():
        for field in fields:
            assert proto_options.ip_option_field(option, field) is not None, f"ip option {option} {field}"
    for chunk, fields in kw.SCTP_CHUNKS.items():
        for field in fields:
            assert proto_options.sctp_chunk_field(chunk, field) is not None, f"sctp chunk {chunk} {field}"
    assert set(kw.META_KEYS) - set(kw.META_ALIASES) <= set(proto_keys.META)
    assert set(kw.CT_KEYS) <= set(proto_keys.CT)


def test_fields_of_a_header_do_not_overlap() -> None:
    for protocol in proto.PROTOCOLS.values():
        if protocol.name in ("icmp", "icmpv6"):
            continue
        rows = sorted({(row.offset, row.width) for row in protocol.fields.values()})
        for (at, width), (then, _) in itertools.pairwise(rows):
            assert at + width <= then, protocol.name
        if rows and protocol.length:
            assert rows[-1][0] + rows[-1][1] <= protocol.length, protocol.name


def test_uppers_are_announced_by_a_key() -> None:
    for protocol in proto.PROTOCOLS.values():
        if protocol.uppers:
            assert protocol.key is not None or protocol.meta_key is not None, protocol.name
    assert proto.IP.number_of(proto.TCP) == 6
    assert proto.ETHER.number_of(proto.VLAN) == 0x8100
    assert proto.TCP.number_of(proto.UDP) is None


def test_keys_are_the_engines_with_its_sizes() -> None:
    for key in proto_keys.META.values():
        assert meta.META_KEYS[key.name][1] == key.dtype.octets, key.name
    for name, key in (*proto_keys.CT.items(), *proto_keys.CT_ADDRESSES.items()):
        if name not in ("saddr", "daddr"):
            assert ct.CT_KEYS[key.name][1] == key.dtype.octets, key.name
    for key in proto_keys.RT.values():
        assert rt.RT_KEYS[key.name][1] == key.dtype.octets, key.name
    for key in proto_keys.SOCKET.values():
        socket.Socket(1, key.name)
    for key in proto_keys.XFRM.values():
        xfrm.Xfrm(1, key.name, "in")
    for key in proto_keys.FIB.values():
        fib.Fib(1, key.name, ("saddr",))
