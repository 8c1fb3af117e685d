"""Netlink parsing, and the isolation table's bytes; the kernel's answers are in netns-tests."""

from __future__ import annotations

import socket
import struct

from hypothesis import given
from hypothesis import strategies as st

from userfw.ports import isolate
from userfw.ports.netlink import (
    RTM_DELLINK,
    RTM_NEWLINK,
    RTM_NEWROUTE,
    Link,
    Netlink,
    attribute,
    attributes_untrusted,
    messages_untrusted,
    parse_link_untrusted,
    parse_route_untrusted,
)
from userfw.ports.netns import path_of, run_in


def test_link_message() -> None:
    body = struct.pack("=BxHiII", 0, 1, 7, 0x10041, 0)
    body += attribute(3, b"eth0\0") + attribute(4, struct.pack("=I", 1400)) + attribute(1, b"\x02\0\0\0\0\x09")
    assert parse_link_untrusted(RTM_NEWLINK, body) == Link(7, "eth0", 1400, b"\x02\0\0\0\0\x09", True, True)
    gone = parse_link_untrusted(RTM_DELLINK, body)
    assert gone is not None and gone.gone
    assert parse_link_untrusted(99, body) is None and parse_link_untrusted(RTM_NEWLINK, body[:8]) is None


def test_route_with_two_next_hops() -> None:
    body = struct.pack("=BBBBBBBBI", socket.AF_INET, 24, 0, 0, 254, 4, 0, 1, 0)
    hops = b""
    for index, weight, gateway in ((3, 0, b"\x0a\0\0\x01"), (4, 4, b"\x0a\0\1\x01")):
        inner = attribute(5, gateway)
        hops += struct.pack("=HBBi", 8 + len(inner), 0, weight, index) + inner
    body += attribute(1, b"\xc0\xa8\x05\0") + attribute(9, hops) + attribute(6, struct.pack("=I", 20))
    route = parse_route_untrusted(RTM_NEWROUTE, body)
    assert route is not None
    assert (route.to, route.prefixlen, route.table, route.priority) == (b"\xc0\xa8\x05\0", 24, 254, 20)
    assert route.nexthops == ((b"\x0a\0\0\x01", 3, 1), (b"\x0a\0\1\x01", 4, 5))


@given(st.binary(max_size=300), st.sampled_from([16, 17, 24, 25]))
def test_no_message_does_harm(data: bytes, kind: int) -> None:
    for _ in messages_untrusted(data):
        pass
    attributes_untrusted(data)
    parse_link_untrusted(kind, data)
    parse_route_untrusted(kind, data)
    parse_route_untrusted(kind, struct.pack("=BBBBBBBBI", 2, 0, 0, 0, 254, 4, 0, 1, 0) + data)


def test_the_kernel_tells_its_loopback() -> None:
    netlink = Netlink()
    try:
        assert netlink.link("lo").index == 1
        assert any(link.name == "lo" for link in netlink.links())
        assert isinstance(netlink.routes(socket.AF_INET6), list)
    finally:
        netlink.close()


def test_isolation_table_is_owned_and_drops_all_but_our_mark() -> None:
    messages = isolate.table_messages("eth0")
    assert [kind for kind, _, _ in messages] == [0, 3, 3, 6]
    table = attributes_untrusted(messages[0][2])
    assert table[1] == b"userfw-eth0\0" and table[2] == b"\0\0\0\x02"
    for (_, _, payload), hook, policy in zip(messages[1:3], (0, 1), (0, 1), strict=True):
        chain = attributes_untrusted(payload)
        place = attributes_untrusted(chain[4])
        assert place[1] == struct.pack("!I", hook) and place[3] == b"eth0\0"
        assert chain[5] == struct.pack("!I", policy)
    assert struct.pack("=I", isolate.MARK) in messages[3][2]


def test_tcx_programs() -> None:
    assert len(isolate.INGRESS) == 16 and len(isolate.EGRESS) == 48
    # the jump over "let it go on" lands on "drop"
    assert isolate.EGRESS[8 + 2 : 8 + 4] == b"\x02\x00"


def test_namespace_names() -> None:
    assert path_of("lan-1") == "/run/netns/lan-1"
    assert path_of("/proc/1/ns/net") == "/proc/1/ns/net"
    assert path_of("pid:17") == "/proc/17/ns/net"
    assert run_in(None, lambda: 5) == 5 and run_in("", lambda: 6) == 6
