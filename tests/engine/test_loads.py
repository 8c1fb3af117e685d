"""Loads: payload, exthdr, meta, ct, rt, fib, socket, inner against packets (FIDELITY: loads)."""

from __future__ import annotations

import struct

import pytest
from engine_double import Double, base, csum, evaluate, ip4, ip6, packet, tcp, udp, with_l4_csum

from userfw.conntrack.conn import Conn
from userfw.conntrack.table import ConnTable
from userfw.core.clock import Clock
from userfw.core.packet import Device
from userfw.engine.expressions import Cmp, Counter, Ct, CtSet, Exthdr, Fib, Inner, Meta, MetaSet, Payload, Rt, Socket
from userfw.engine.registry import HOOKS
from userfw.engine.services import RouteInfo, SocketInfo

GO, BREAK = -1, -2
SECOND = 1_000_000_000


def load(expr: object, pkt: object, size: int, **kw: object) -> bytes | None:
    verdict, regs = evaluate(expr, pkt, **kw)  # type: ignore[arg-type]
    assert verdict in (GO, BREAK)
    return regs[:size] if verdict == GO else None


def test_payload_bases() -> None:
    pkt = packet(ip4(tcp(0x1234, 0x0050), 6))
    assert load(Payload(1, "link", 6, 6), pkt, 8) == b"\x02\0\0\0\0\1\0\0"  # the rest of the word is cleared
    assert load(Payload(1, "network", 12, 4), pkt, 4) == b"\x0a\0\0\1"
    assert load(Payload(1, "transport", 0, 2), pkt, 4) == b"\x12\x34\0\0"
    assert load(Payload(1, "network", 16, 8), pkt, 8) == b"\x0a\0\0\2\x12\x34\0\x50"
    assert load(Payload(9, "network", 9, 1), pkt, 8) == b"\xee\xee\xee\xee\x06\0\0\0"


def test_payload_beyond_the_packet_breaks() -> None:
    pkt = packet(ip4(udp(), 17))
    assert load(Payload(1, "transport", 6, 2), pkt, 2) is not None
    assert load(Payload(1, "transport", 7, 2), pkt, 2) is None
    assert load(Payload(1, "network", 200, 1), pkt, 1) is None


def test_transport_loads_and_fragments() -> None:
    """As seen on Linux 6.18: only loads that Linux's fast path does not serve look at the fragment offset."""
    body = bytes(range(1, 33))
    first, later = packet(ip4(body, 17, frag=0x2000)), packet(ip4(body, 17, frag=5))
    later6 = packet(ip6(b"\x11\0\0\x08\0\0\0\x4d" + body, 44))
    for offset, size, fast in ((0, 1, True), (0, 2, True), (0, 4, True), (4, 2, True), (0, 3, False), (1, 2, False), (0, 8, False)):
        load_it = Payload(1, "transport", offset, size)
        assert load(load_it, first, size) == body[offset : offset + size]
        assert load(load_it, later, size) == (body[offset : offset + size] if fast else None)
        assert load(load_it, later6, size) == (later6.frame()[14 + offset : 14 + offset + size] if fast else None)
    assert load(Payload(1, "inner", 0, 1), later, 1) is None
    assert load(Payload(1, "transport", 0, 2), packet(b"\0" * 40, ethertype=0x88B5), 2) is None


def test_no_link_header_no_link_load() -> None:
    pkt = packet(ip4(udp(), 17), link=False)
    assert load(Payload(1, "link", 0, 6), pkt, 6) is None
    assert load(Payload(1, "network", 0, 1), pkt, 1) == b"\x45"


def test_link_loads_and_vlan() -> None:
    tag = b"\x81\0\x20\x05"
    outer = packet(ip4(udp(), 17), vlan=tag)
    assert load(Payload(1, "link", 12, 4), outer, 4) == tag
    vlan = Device("vlan5", 5)
    vlan.vlan_id = 5
    inner = packet(ip4(udp(), 17), vlan=tag, iif=vlan)
    assert load(Payload(1, "link", 12, 2), inner, 2) == b"\x08\0"
    assert load(Payload(1, "link", 6, 8), inner, 8) == b"\x02\0\0\0\0\1\x08\0"


def test_inner_base() -> None:
    assert load(Payload(1, "inner", 0, 3), packet(ip4(udp(payload=b"abc"), 17)), 3) == b"abc"
    assert load(Payload(1, "inner", 0, 1), packet(ip4(tcp(options=b"\1" * 4, payload=b"Z"), 6)), 1) == b"Z"
    gre = struct.pack("!HHII", 0xA000, 0x800, 0, 7) + b"Q"
    assert load(Payload(1, "inner", 0, 1), packet(ip4(gre, 47)), 1) == b"Q"
    assert load(Payload(1, "inner", 0, 1), packet(ip4(b"abc", 99)), 1) is None


HBH = b"\x2b\0" + b"\1\4" + b"\0" * 4
RT = b"\x06\0\4\0" + b"\0" * 4


def test_ipv6_extension_headers() -> None:
    pkt = packet(ip6(HBH + RT + tcp(), 0))
    assert load(Exthdr(1, "ipv6", 0, 0, 1), pkt, 1) == b"\x2b"
    assert load(Exthdr(1, "ipv6", 43, 2, 1), pkt, 1) == b"\4"
    assert load(Exthdr(1, "ipv6", 44, 0, 1), pkt, 1) is None
    assert load(Exthdr(1, "ipv6", 44, 0, 1, True), pkt, 4) == b"\0\0\0\0"
    assert load(Exthdr(1, "ipv6", 43, 0, 1, True), pkt, 4) == b"\1\0\0\0"
    assert load(Exthdr(1, "ipv6", 43, 0, 1, True), packet(ip4(tcp(), 6)), 1) is None
    later = packet(ip6(b"\x3c\0\0\x08" + b"\0" * 4 + b"\x06\0" + b"\0" * 6, 44))
    assert load(Exthdr(1, "ipv6", 44, 0, 1), later, 1) == b"\x3c"
    assert load(Exthdr(1, "ipv6", 60, 0, 1), later, 1) is None  # behind a later fragment's header is no header


MSS = b"\2\4\5\xb4"
SACK = b"\4\2\1\1"


def test_tcp_options() -> None:
    pkt = packet(ip4(tcp(options=b"\1\1\1\1" + MSS + SACK), 6))
    assert load(Exthdr(1, "tcpopt", 2, 2, 2), pkt, 4) == b"\5\xb4\0\0"
    assert load(Exthdr(1, "tcpopt", 4, 0, 1, True), pkt, 4) == b"\1\0\0\0"
    assert load(Exthdr(1, "tcpopt", 8, 0, 1, True), pkt, 4) == b"\0\0\0\0"
    assert load(Exthdr(1, "tcpopt", 8, 0, 1), pkt, 1) is None
    assert load(Exthdr(1, "tcpopt", 2, 2, 4), pkt, 1) is None  # longer than the option
    assert load(Exthdr(1, "tcpopt", 2, 0, 1, True), packet(ip4(udp(), 17)), 4) == b"\0\0\0\0"
    broken = packet(ip4(tcp(options=b"\1\1\1\1\1\1\2\x09"), 6))
    assert load(Exthdr(1, "tcpopt", 2, 0, 1, True), broken, 4) == b"\0\0\0\0"


def test_ipv4_options() -> None:
    pkt = packet(ip4(udp(), 17, options=b"\x94\4\0\0" + b"\x07\7\4" + b"\0" * 4 + b"\0"))
    assert load(Exthdr(1, "ipv4", 148, 0, 1, True), pkt, 1) == b"\1"
    assert load(Exthdr(1, "ipv4", 7, 2, 1), pkt, 1) == b"\4"
    assert load(Exthdr(1, "ipv4", 131, 0, 1, True), pkt, 1) == b"\0"
    assert load(Exthdr(1, "ipv4", 131, 2, 1), pkt, 1) is None


def test_sctp_chunks() -> None:
    chunks = b"\1\0\0\x08abcd" + b"\0\3\0\x05Q\0\0\0"
    pkt = packet(ip4(struct.pack("!HHII", 1, 2, 3, 4) + chunks, 132))
    assert load(Exthdr(1, "sctp", 0, 1, 1), pkt, 1) == b"\3"
    assert load(Exthdr(1, "sctp", 0, 4, 1), pkt, 1) == b"Q"
    assert load(Exthdr(1, "sctp", 0, 4, 4), pkt, 1) is None
    assert load(Exthdr(1, "sctp", 9, 0, 1, True), pkt, 1) == b"\0"
    assert load(Exthdr(1, "sctp", 1, 0, 1, True), pkt, 1) == b"\1"


def test_dccp_options() -> None:
    head = struct.pack("!HHBBHB", 1, 2, 5, 0, 0, 2 << 1) + b"\0\0\0"  # data packet, header of 20 bytes
    pkt = packet(ip4(head + b"\0\x26\3\xaa\0\0\0\0", 33))
    assert load(Exthdr(1, "dccp", 0x26, 0, 1, True), pkt, 1) == b"\1"
    assert load(Exthdr(1, "dccp", 0x27, 0, 1, True), pkt, 1) == b"\0"


def devices() -> tuple[Device, Device]:
    a, b = Device("eth0", 3), Device("wan", 4)
    a.group, b.group = 7, 8
    b.kind = "veth"
    return a, b


def test_meta_keys() -> None:
    iif, oif = devices()
    pkt = packet(ip4(tcp(), 6), iif=iif)
    pkt.oif = oif
    pkt.mark, pkt.priority, pkt.secmark = 0x01020304, 9, 5
    expected = {
        "len": b"\x28\0\0\0",
        "protocol": b"\x08\0\0\0",
        "mark": b"\4\3\2\1",
        "priority": b"\x09\0\0\0",
        "iif": b"\3\0\0\0",
        "oif": b"\4\0\0\0",
        "iifname": b"eth0".ljust(16, b"\0"),
        "oifname": b"wan".ljust(16, b"\0"),
        "iiftype": b"\1\0\0\0",
        "nfproto": b"\2\0\0\0",
        "l4proto": b"\6\0\0\0",
        "pkttype": b"\3\0\0\0",
        "iifgroup": b"\7\0\0\0",
        "oifgroup": b"\x08\0\0\0",
        "secpath": b"\0\0\0\0",
        "oifkind": b"veth".ljust(16, b"\0"),
        "secmark": b"\5\0\0\0",
        "cpu": b"\0\0\0\0",
        "sdif": b"\0\0\0\0",
        "sdifname": b"\0" * 16,
        "bri_iifname": b"\0" * 16,
    }
    for key, value in expected.items():
        assert load(Meta(1, key), pkt, len(value)) == value, key
    for key in ("skuid", "skgid", "cgroup", "rtclassid", "iifkind", "ibrhwaddr", "bri_iifpvid"):
        assert load(Meta(1, key), pkt, 4) is None, key


def test_meta_without_devices() -> None:
    pkt = packet(ip4(tcp(), 6))
    assert load(Meta(1, "oif"), pkt, 4) == b"\0\0\0\0"
    assert load(Meta(1, "oifname"), pkt, 16) == b"\0" * 16
    for key in ("oiftype", "oifgroup", "oifkind"):
        assert load(Meta(1, key), pkt, 4) is None
    assert load(Meta(1, "l4proto"), packet(b"\0" * 46, ethertype=0x88B5), 1) is None


def test_meta_length_is_the_frame_at_egress_only() -> None:
    pkt = packet(ip4(udp(), 17))
    assert load(Meta(1, "len"), pkt, 1, family=5, hook=0) == b"\x1c"
    assert load(Meta(1, "len"), pkt, 1, family=5, hook=1) == b"\x2a"
    assert load(Meta(1, "len"), pkt, 1, family=7, hook=4) == b"\x1c"


def test_meta_families() -> None:
    pkt = packet(ip6(tcp(), 6))
    assert load(Meta(1, "nfproto"), pkt, 1, family=1) == b"\x0a"
    assert load(Meta(1, "nfproto"), pkt, 1, family=7) == b"\7"
    double_tagged = packet(ip4(tcp(), 6), vlan=b"\x88\xa8\0\5\x81\0\0\6")
    assert load(Meta(1, "protocol"), double_tagged, 2, family=5) == b"\x81\0"
    assert load(Meta(1, "l4proto"), double_tagged, 1, family=5) is None


def test_meta_time() -> None:
    services = Double()
    services.clock.now = 0
    services.clock.wall_offset = 1_700_000_000.0  # Tuesday 2023-11-14 22:13:20 UTC
    pkt = packet(ip4(tcp(), 6))
    assert load(Meta(1, "day"), pkt, 1, services=services) == b"\2"
    assert load(Meta(1, "hour"), pkt, 4, services=services) == (22 * 3600 + 13 * 60 + 20).to_bytes(4, "little")
    assert load(Meta(1, "time"), pkt, 8, services=services) == (1_700_000_000 * SECOND).to_bytes(8, "little")


def test_meta_set() -> None:
    pkt = packet(ip4(tcp(), 6))
    pkt.pkttype = 0
    for key, value in (("mark", 7), ("priority", 8), ("secmark", 9), ("pkttype", 2), ("nftrace", 1)):
        evaluate(MetaSet(1, key), pkt, regs=value.to_bytes(4, "little"))
    assert (pkt.mark, pkt.priority, pkt.secmark, pkt.pkttype, pkt.trace) == (7, 8, 9, 2, True)
    evaluate(MetaSet(1, "pkttype"), pkt, regs=b"\5\0\0\0")
    assert pkt.pkttype == 2


def connection() -> tuple[Double, Conn]:
    services = Double()
    services.conntrack = ConnTable(services.clock)
    pkt_tuple = services.conntrack.template(0, 3).orig
    conn = services.conntrack.template(0, 3)
    del pkt_tuple
    conn.status = 0x0A
    conn.mark = 0x11223344
    conn.timeout = services.clock.now + 5 * SECOND
    conn.orig.l3num = conn.reply.l3num = 2
    conn.orig.l4proto = 6
    conn.orig.src_lo, conn.orig.dst_lo, conn.orig.sport, conn.orig.dport = 0x0A000001, 0x0A000002, 1000, 80
    conn.reply.src_lo, conn.reply.sport = 0x0A000002, 80
    return services, conn


def test_ct_state_needs_no_entry() -> None:
    pkt = packet(ip4(tcp(), 6))
    assert load(Ct(1, "state"), pkt, 4) == b"\1\0\0\0"
    pkt.ctinfo = 4
    assert load(Ct(1, "state"), pkt, 4) == b"\x40\0\0\0"
    assert load(Ct(1, "mark"), pkt, 4) is None
    services, conn = connection()
    pkt.ct = conn
    for ctinfo, bit in ((1, 8), (2, 2), (3, 4)):
        pkt.ctinfo = ctinfo
        assert load(Ct(1, "state"), pkt, 4, services=services) == bytes((bit, 0, 0, 0))


def test_ct_keys() -> None:
    services, conn = connection()
    pkt = packet(ip4(tcp(), 6))
    pkt.ct, pkt.ctinfo, pkt.ctdir = conn, 2, 1
    conn.labels_lo = 1 << 5
    conn.labels_hi = 1 << 63
    expected = {
        ("direction", None): b"\1\0\0\0",
        ("status", None): b"\x0a\0\0\0",
        ("mark", None): b"\x44\x33\x22\x11",
        ("expiration", None): (5000).to_bytes(4, "little"),
        ("l3protocol", None): b"\2\0\0\0",
        ("protocol", "original"): b"\6\0\0\0",
        ("src_ip", "original"): b"\x0a\0\0\1",
        ("dst", "original"): b"\x0a\0\0\2",
        ("proto_dst", "original"): b"\0\x50\0\0",
        ("proto_src", "reply"): b"\0\x50\0\0",
        ("label", None): b"\x20" + b"\0" * 14 + b"\x80",
        ("packets", None): b"\0" * 8,
        ("zone", None): b"\0\0\0\0",
        ("secmark", None): b"\0\0\0\0",
        ("avgpkt", None): b"\0" * 8,
    }
    for (key, direction), value in expected.items():
        assert load(Ct(1, key, direction), pkt, len(value), services=services) == value, key
    assert load(Ct(1, "helper"), pkt, 4, services=services) is None
    assert load(Ct(1, "src_ip6", "original"), pkt, 4, services=services) is None


def test_ct_set() -> None:
    services, conn = connection()
    pkt = packet(ip4(tcp(), 6))
    evaluate(CtSet(1, "mark"), pkt, services, regs=b"\7\0\0\0")  # without an entry nothing happens
    pkt.ct = conn
    evaluate(CtSet(1, "mark"), pkt, services, regs=b"\7\0\0\0")
    evaluate(CtSet(1, "label"), pkt, services, regs=b"\1" + b"\0" * 15)
    evaluate(CtSet(1, "label"), pkt, services, regs=b"\2" + b"\0" * 15)
    assert (conn.mark, conn.labels_lo) == (7, 3)
    fresh = packet(ip4(tcp(), 6))
    evaluate(CtSet(1, "zone", "reply"), fresh, services, regs=b"\5\0\0\0")
    assert (fresh.ct.zone, fresh.ct.zone_dir, fresh.ct.status & 2048) == (5, 2, 2048)


def test_rt() -> None:
    services = Double()
    pkt = packet(ip4(tcp(), 6))
    assert load(Rt(1, "nexthop4"), pkt, 4, services=services) is None
    route = services.route_answer = RouteInfo()
    route.nexthop, route.mtu, route.classid = b"\x0a\0\0\xfe", 1500, 3
    assert load(Rt(1, "nexthop4"), pkt, 4, services=services) == b"\x0a\0\0\xfe"
    assert load(Rt(1, "nexthop6"), pkt, 4, services=services) is None
    assert load(Rt(1, "tcpmss"), pkt, 4, services=services) == (1460).to_bytes(4, "little")
    assert load(Rt(1, "tcpmss"), packet(ip6(tcp(), 6)), 4, services=services) == (1440).to_bytes(4, "little")
    assert load(Rt(1, "classid"), pkt, 4, services=services) == b"\3\0\0\0"
    assert load(Rt(1, "ipsec"), pkt, 4, services=services) == b"\0\0\0\0"
    route.mtu = 0
    assert load(Rt(1, "tcpmss"), pkt, 4, services=services) == (536).to_bytes(4, "little")


def test_fib() -> None:
    services = Double()
    iif, oif = devices()
    pkt = packet(ip4(tcp(), 6), iif=iif)
    pkt.mark = 5
    assert load(Fib(1, "oif", ("saddr", "iif")), pkt, 4, services=services) == b"\0\0\0\0"
    assert services.calls[-1] == ("fib", 2, 12, 16, iif, 0)
    services.fib_answer = (1, oif)
    assert load(Fib(1, "oif", ("daddr", "mark")), pkt, 4, services=services) == b"\4\0\0\0"
    assert services.calls[-1] == ("fib", 2, 16, 12, None, 5)
    assert load(Fib(1, "oif", ("daddr",), True), pkt, 4, services=services) == b"\1\0\0\0"
    assert load(Fib(1, "oifname", ("daddr",)), pkt, 16, services=services) == b"wan".ljust(16, b"\0")
    services.fib_answer = (2, oif)
    assert load(Fib(1, "type", ("daddr", "iif")), pkt, 4, services=services) == b"\2\0\0\0"
    assert load(Fib(1, "oif", ("daddr",)), pkt, 4, services=services) == b"\0\0\0\0"
    six = packet(ip6(tcp(), 6), iif=iif)
    load(Fib(1, "type", ("saddr",)), six, 4, services=services)
    assert services.calls[-1] == ("fib", 10, 8, -1, None, 0)
    assert load(Fib(1, "type", ("saddr",)), packet(b"\0" * 46, ethertype=0x88B5), 4, services=services) is None


def test_socket() -> None:
    services = Double()
    pkt = packet(ip4(tcp(), 6))
    assert load(Socket(1, "mark"), pkt, 4, services=services) is None
    found = services.socket_answer = SocketInfo()
    found.transparent, found.mark, found.cgroups, found.uid, found.gid = True, 6, [1, 77], 1000, 100
    assert load(Socket(1, "transparent"), pkt, 4, services=services) == b"\1\0\0\0"
    assert load(Socket(1, "wildcard"), pkt, 4, services=services) == b"\0\0\0\0"
    assert load(Socket(1, "mark"), pkt, 4, services=services) == b"\6\0\0\0"
    assert load(Socket(1, "cgroupv2", 1), pkt, 8, services=services) == (77).to_bytes(8, "little")
    assert load(Socket(1, "cgroupv2", 2), pkt, 8, services=services) is None
    assert load(Meta(1, "skuid"), pkt, 4, services=services) == (1000).to_bytes(4, "little")
    assert load(Meta(1, "skgid"), pkt, 4, services=services) == (100).to_bytes(4, "little")


INNER = ip4(tcp(7, 8), 6, src=b"\1\1\1\1", dst=b"\2\2\2\2")
ETHER = b"\xaa" * 6 + b"\xbb" * 6 + b"\x08\0"


@pytest.mark.parametrize(
    ("tunnel", "outer", "proto"),
    [
        ("vxlan", udp(1, 4789, b"\x08\0\0\0\0\0\x2a\0" + ETHER + INNER), 17),
        ("geneve", udp(1, 6081, b"\2\0\x65\x58\0\0\x2a\0" + b"opts" * 2 + ETHER + INNER), 17),
        ("gretap", struct.pack("!HH", 0, 0x6558) + ETHER + INNER, 47),
        ("gre", struct.pack("!HHI", 0x2000, 0x800, 9) + INNER, 47),
    ],
)
def test_inner(tunnel: str, outer: bytes, proto: int) -> None:
    pkt = packet(ip4(outer, proto))

    def inside(base: str, offset: int, size: int) -> bytes | None:
        return load(Inner(tunnel, Payload(1, base, offset, size)), pkt, size)

    assert inside("network", 12, 4) == b"\1\1\1\1"
    assert inside("transport", 0, 4) == b"\0\7\0\x08"
    assert load(Inner(tunnel, Meta(1, "protocol")), pkt, 2) == b"\x08\0"
    assert load(Inner(tunnel, Meta(1, "l4proto")), pkt, 1) == b"\6"
    assert inside("link", 0, 6) == (None if tunnel == "gre" else b"\xaa" * 6)
    assert inside("network", 90, 4) is None
    assert load(Inner(tunnel, Meta(1, "l4proto")), packet(ip4(tcp(), 6)), 1) is None


def test_inner_of_a_tagged_frame() -> None:
    """The protocol inside is the tag's, as Linux has it, but what is behind the tag is found."""
    ether = ETHER[:12] + b"\x81\0\0\5" + ETHER[12:]
    pkt = packet(ip4(udp(1, 4789, b"\x08\0\0\0\0\0\x2a\0" + ether + INNER), 17))
    assert load(Inner("vxlan", Meta(1, "protocol")), pkt, 2) == b"\x81\0"
    assert load(Inner("vxlan", Meta(1, "l4proto")), pkt, 1) == b"\6"
    assert load(Inner("vxlan", Payload(1, "network", 12, 4)), pkt, 4) == b"\1\1\1\1"


def test_inner_without_a_tunnel_header_is_seen_in_every_carrier() -> None:
    """gre and gretap are asked for without a header's size: Linux looks into what TCP and UDP carry too."""
    assert load(Inner("gre", Meta(1, "l4proto")), packet(ip4(udp(1, 2, INNER), 17)), 1) == b"\6"
    assert load(Inner("gretap", Meta(1, "l4proto")), packet(ip4(udp(1, 2, ETHER + INNER), 17)), 1) == b"\6"
    assert load(Inner("gre", Payload(1, "tunnel", 0, 2)), packet(ip4(struct.pack("!HH", 0, 0x800) + INNER, 47)), 2) is None
    assert load(Inner("vxlan", Meta(1, "l4proto")), packet(ip4(udp(1, 4789, INNER), 17)), 1) is None


def test_inner_ipv6_with_extension_headers() -> None:
    six = ip6(b"\x06\0" + b"\0" * 6 + tcp(7, 9), 60)
    pkt = packet(ip4(struct.pack("!HH", 0, 0x86DD) + six, 47))
    assert load(Inner("gre", Payload(1, "transport", 2, 2)), pkt, 2) == b"\0\x09"


def test_checksum_helpers_agree() -> None:
    assert csum(with_l4_csum(ip4(tcp(), 6))[:20]) == 0
    assert Clock().now == 0


def test_sctp_chunks_of_a_later_fragment() -> None:
    """Linux 6.18 walks chunks in a later fragment's payload as if it were a transport header."""
    body = b"\0" * 12 + b"\0\3\0\x05Q\0\0\0"
    assert load(Exthdr(1, "sctp", 0, 1, 1), packet(ip4(body, 132, frag=9)), 1) == b"\3"


def test_to_rules_ah_is_the_transport_in_ipv6() -> None:
    """As seen on Linux 6.18; conntrack and NAT still look behind it."""
    ah = b"\6\4" + b"\0" * 22
    pkt = packet(ip6(ah + tcp(5, 80), 51))
    behind = (pkt.l4, pkt.l4proto)
    assert behind[1] == 6
    rules = [
        (Meta(1, "l4proto"), Cmp("eq", 1, bytes((n,))), Payload(1, "transport", 0, 1), Cmp("eq", 1, b"\6"), Counter())
        for n in (51, 6)
    ]
    base(Double(), rules, family=10).run(pkt, 0)  # type: ignore[arg-type]
    assert [rule[-1].packets for rule in rules] == [1, 0]  # type: ignore[attr-defined]
    assert (pkt.l4, pkt.l4proto) == behind


def test_a_later_fragment_of_an_extension_header_has_no_transport() -> None:
    fragment = packet(ip6(b"\x33\0\0\x08\0\0\0\x4d" + b"\0" * 24, 44))
    assert load(Meta(1, "l4proto"), fragment, 1) is None


def test_what_is_set_only_is_refused_at_every_hook() -> None:
    """nftrace, broute and the mask of events (Linux: nft_meta_get_init, nft_ct_get_init: EOPNOTSUPP)."""
    for family, hooks in HOOKS.items():
        for hook in hooks:
            for expr in (Meta(1, "nftrace"), Meta(1, "broute"), Ct(1, "event")):
                assert "EOPNOTSUPP" in (expr.refusal(family, hook, 0) or "")
