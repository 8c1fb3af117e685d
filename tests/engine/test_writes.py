"""Writes: every checksum stays right (FIDELITY: decision 2, NEEDS_CSUM)."""

from __future__ import annotations

import struct

import pytest
from engine_double import csum, evaluate, ip4, ip6, packet, tcp, udp, with_l4_csum

from userfw.engine.expressions import ExthdrReset, ExthdrSet, PayloadSet

GO, BREAK, DROP = -1, -2, 0


def net(pkt: object) -> bytes:
    frame: bytes = pkt.frame()  # type: ignore[attr-defined]
    return frame[14:]


@pytest.mark.parametrize("body", [tcp(payload=b"odd"), udp(payload=b"x" * 7)])
def test_address_write_fixes_both_checksums(body: bytes) -> None:
    proto = 6 if len(body) > 20 else 17
    pkt = packet(with_l4_csum(ip4(body, proto)))
    verdict, _ = evaluate(PayloadSet(1, "network", 12, 4, 1, 10, 1), pkt, regs=b"\xc0\xa8\1\1")
    assert verdict == GO
    assert net(pkt) == with_l4_csum(ip4(body, proto, src=b"\xc0\xa8\1\1"))


def test_ipv6_address_write() -> None:
    new = b"\xfd" + b"\0" * 14 + b"\x99"
    pkt = packet(with_l4_csum(ip6(tcp(), 6)))
    evaluate(PayloadSet(1, "network", 24, 16, 0, 0, 1), pkt, regs=new)
    assert net(pkt) == with_l4_csum(ip6(tcp(), 6, dst=new))


def test_zero_udp_checksum_stays_zero() -> None:
    pkt = packet(ip4(udp(), 17))
    evaluate(PayloadSet(1, "network", 12, 4, 1, 10, 1), pkt, regs=b"\1\2\3\4")
    assert net(pkt) == ip4(udp(), 17, src=b"\1\2\3\4")


def test_a_computed_zero_is_sent_as_ones() -> None:
    for last in range(0x10000):
        body = udp(payload=struct.pack("!H", last))
        whole = with_l4_csum(ip4(body, 17))
        if whole[26:28] == b"\xff\xff":
            break
    start = packet(with_l4_csum(ip4(udp(payload=b"\0\0"), 17)))
    evaluate(PayloadSet(1, "inner", 0, 2, 0, 0, 1), start, regs=body[8:])
    assert net(start) == whole


def test_transport_write() -> None:
    pkt = packet(with_l4_csum(ip4(tcp(dport=80), 6)))
    evaluate(PayloadSet(1, "transport", 2, 2, 1, 16, 0), pkt, regs=b"\x1f\x90")
    assert net(pkt) == with_l4_csum(ip4(tcp(dport=8080), 6))


def test_partial_checksum_covers_the_pseudo_header_only() -> None:
    whole = bytearray(ip4(tcp(), 6))
    pseudo = bytes(whole[12:20]) + struct.pack("!II", len(whole) - 20, 6)
    whole[36:38] = (~csum(pseudo) & 0xFFFF).to_bytes(2, "big")
    pkt = packet(bytes(whole))
    pkt.vnet_flags = 1
    evaluate(PayloadSet(1, "transport", 0, 2, 1, 16, 0), pkt, regs=b"\x43\x21")
    assert net(pkt)[36:38] == whole[36:38] and net(pkt)[20:22] == b"\x43\x21"
    evaluate(PayloadSet(1, "network", 12, 4, 1, 10, 1), pkt, regs=b"\xc0\0\2\7")
    pseudo = b"\xc0\0\2\7" + bytes(whole[16:20]) + struct.pack("!II", len(whole) - 20, 6)
    assert net(pkt)[36:38] == (~csum(pseudo) & 0xFFFF).to_bytes(2, "big")
    assert csum(net(pkt)[:20]) == 0


def test_write_beyond_the_packet_breaks_and_changes_nothing() -> None:
    pkt = packet(with_l4_csum(ip4(udp(), 17)))
    before = pkt.frame()
    assert evaluate(PayloadSet(1, "transport", 7, 2, 0, 0, 1), pkt)[0] == BREAK
    later = packet(ip4(b"\1" * 16, 17, frag=1))
    assert evaluate(PayloadSet(1, "transport", 0, 2), later)[0] == BREAK
    assert pkt.frame() == before


def test_later_fragments_keep_their_bytes() -> None:
    pkt = packet(ip4(b"\1" * 16, 17, frag=1))
    assert evaluate(PayloadSet(1, "network", 12, 4, 1, 10, 1), pkt, regs=b"\1\2\3\4")[0] == GO
    assert net(pkt) == ip4(b"\1" * 16, 17, src=b"\1\2\3\4", frag=1)


def test_link_and_vlan_write() -> None:
    pkt = packet(ip4(udp(), 17), vlan=b"\x81\0\x20\x05")
    evaluate(PayloadSet(1, "link", 0, 6), pkt, regs=b"\xcc" * 6)
    evaluate(PayloadSet(1, "link", 14, 2), pkt, regs=b"\x20\x09")
    assert pkt.frame()[:6] == b"\xcc" * 6
    assert pkt.vlan_tci == 0x2009


def test_protocol_write_is_seen() -> None:
    pkt = packet(ip4(udp(), 17))
    evaluate(PayloadSet(1, "network", 9, 1, 1, 10, 0), pkt, regs=b"\x88")
    assert pkt.l4proto == 136


def test_sctp_crc() -> None:
    body = struct.pack("!HHII", 5, 6, 7, 0) + b"\1\0\0\4"
    pkt = packet(ip4(body, 132))
    evaluate(PayloadSet(1, "transport", 0, 2, 2, 8, 0), pkt, regs=b"\x12\x34")
    crc = 0xFFFFFFFF
    for byte in b"\x12\x34" + body[2:]:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    assert net(pkt)[28:32] == (~crc & 0xFFFFFFFF).to_bytes(4, "little")


def options(pkt: object) -> bytes:
    return net(pkt)[40 : 20 + (net(pkt)[32] >> 4) * 4]


@pytest.mark.parametrize(
    ("given", "value", "result"),
    [
        (b"\2\4\5\xb4", b"\5\0", b"\2\4\5\0"),
        (b"\2\4\5\0", b"\5\xb4", b"\2\4\5\0"),  # never raised
        (b"\1\1\4\2", b"\5\0", b"\1\1\4\2"),  # absent: goes on
        (b"\1\2\4\5\xb4\1\1\1", b"\4\0", b"\1\2\4\4\0\1\1\1"),  # at an odd offset
    ],
)
def test_mss(given: bytes, value: bytes, result: bytes) -> None:
    pkt = packet(with_l4_csum(ip4(tcp(options=given), 6)))
    assert evaluate(ExthdrSet(1, "tcpopt", 2, 2, 2), pkt, regs=value)[0] == GO
    assert net(pkt) == with_l4_csum(ip4(tcp(options=result), 6))


def test_option_too_short_breaks() -> None:
    pkt = packet(with_l4_csum(ip4(tcp(options=b"\2\3\5\1"), 6)))
    assert evaluate(ExthdrSet(1, "tcpopt", 2, 2, 2), pkt, regs=b"\1\1")[0] == BREAK
    assert evaluate(ExthdrSet(1, "tcpopt", 2, 2, 2), packet(ip4(udp(), 17)), regs=b"\1\1")[0] == BREAK


@pytest.mark.parametrize(
    ("given", "result"), [(b"\2\4\5\xb4", b"\1\1\1\1"), (b"\1\x08\x0a" + b"\7" * 8 + b"\1", b"\1" * 12), (b"\4\2\1\1", b"\4\2\1\1")]
)
def test_reset(given: bytes, result: bytes) -> None:
    kind = 8 if given[1] == 8 else 2
    pkt = packet(with_l4_csum(ip4(tcp(options=given), 6)))
    assert evaluate(ExthdrReset("tcpopt", kind), pkt)[0] == GO
    assert net(pkt) == with_l4_csum(ip4(tcp(options=result), 6))


def test_reset_of_a_cut_option_drops() -> None:
    pkt = packet(ip4(tcp(options=b"\1\1\2\x09"), 6))
    assert evaluate(ExthdrReset("tcpopt", 2), pkt)[0] == DROP
    assert evaluate(ExthdrReset("tcpopt", 2), packet(ip4(udp(), 17)))[0] == BREAK
