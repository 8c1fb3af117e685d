"""What rules write into the packet, with Linux's checksum arithmetic (nft_payload.c, nft_exthdr.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oracle_loads import base
from oracle_program import op
from oracle_skb import ICMP6, SCTP, TCP, UDP, UDPLITE, Break, Skb

if TYPE_CHECKING:
    from oracle_machine import Groups, Machine


def fold(value: int) -> int:
    """A sum of 16-bit words to its complement (csum_fold)."""
    while value >> 16:
        value = (value & 0xFFFF) + (value >> 16)
    return ~value & 0xFFFF


def words_sum(data: bytes) -> int:
    data += b"\0" * (len(data) & 1)
    return sum(int.from_bytes(data[i : i + 2], "big") for i in range(0, len(data), 2))


def replaced(check: int, old: bytes, new: bytes) -> int:
    """The checksum after `old` became `new`: ~(~check - old + new), in ones' complement."""
    return fold((~check & 0xFFFF) + sum(0xFFFF ^ w for w in _words(old)) + words_sum(new))


def _words(data: bytes) -> list[int]:
    data += b"\0" * (len(data) & 1)
    return [int.from_bytes(data[i : i + 2], "big") for i in range(0, len(data), 2)]


def _update(skb: Skb, at: int, old: bytes, new: bytes) -> None:
    """nft_csum_replace: a sum that becomes zero is sent as 0xffff."""
    check = int.from_bytes(skb.take(at, 2), "big")
    skb.data[at : at + 2] = (replaced(check, old, new) or 0xFFFF).to_bytes(2, "big")


def _l4_checksum(skb: Skb) -> int | None:
    """Where a transport checksum with a pseudo-header is, or None (nft_payload_l4csum_offset)."""
    if skb.tprot < 0 or skb.fragoff:
        return None
    at = skb.network + skb.thoff
    if skb.tprot == UDP:
        return at + 6 if at + 8 <= len(skb.data) and any(skb.data[at + 6 : at + 8]) else None
    where = {TCP: 16, UDPLITE: 6, ICMP6: 2}.get(skb.tprot)
    return None if where is None else at + where


PAYLOAD = r"payload write reg (\d+) => (\d+)b @ (\w+) header \+ (\d+) csum_type (\d) csum_off (\d+) csum_flags 0x(\d)"


@op(PAYLOAD)
def payload(m: Machine, g: Groups) -> None:
    skb, size = m.skb, int(g[2])
    start = base(skb, g[3])
    at, new = start + int(g[4]), m.get(g[1], size)
    old = skb.take(at, size)
    if g[5] == "1":
        _update(skb, start + int(g[6]), old, new)
    if g[7] != "0":
        where = _l4_checksum(skb)
        if where is not None:
            _update(skb, where, old, new)
    skb.data[at : at + size] = new
    if g[5] == "2" and skb.tprot == SCTP and not skb.fragoff:
        _sctp(skb)


def _sctp(skb: Skb) -> None:
    at = skb.transport
    skb.take(at, 12)
    skb.data[at + 8 : at + 12] = bytes(4)
    skb.data[at + 8 : at + 12] = crc32c(bytes(skb.data[at:])).to_bytes(4, "little")


def crc32c(data: bytes) -> int:
    """RFC 9260, appendix A."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


@op(r"exthdr write tcpopt reg (\d+) => (\d)b @ (\d+) \+ (\d+)")
def tcp_option(m: Machine, g: Groups) -> None:
    """A maximum segment size is only ever lowered; an option that is not there is no reason to stop."""
    size, kind, offset = int(g[2]), int(g[3]), int(g[4])
    found = m.skb.find_tcp_option(kind)
    if found is None:
        return
    at, length, end = found
    if at + length > end or size + offset > length:
        raise Break
    old, new = bytes(m.skb.data[at + offset : at + offset + size]), m.get(g[1], size)
    if old == new or (kind == 2 and size == 2 and old <= new):
        return
    m.skb.data[at + offset : at + offset + size] = new
    check = m.skb.transport + 16
    if at + offset - m.skb.transport & 1:
        # Linux (6.18) takes the bytes for a whole word and leaves a wrong checksum; userfw does not, see docs/differences.md
        old, new = b"\0" + old + b"\0", b"\0" + new + b"\0"
    value = replaced(int.from_bytes(m.skb.data[check : check + 2], "big"), old, new)
    m.skb.data[check : check + 2] = value.to_bytes(2, "big")


@op(r"exthdr reset tcpopt (\d+)")
def strip(m: Machine, g: Groups) -> None:
    """The option becomes NOPs; one that does not fit its header drops the packet."""
    found = m.skb.find_tcp_option(int(g[1]))
    if found is None:
        return
    at, length, end = found
    if at + length > end:
        m.end("drop")
    first, check = m.skb.transport, m.skb.transport + 16
    value = int.from_bytes(m.skb.data[check : check + 2], "big")
    for place in range(at, at + length):
        pad = (place - first) & 1
        old, new = bytes(pad) + bytes(m.skb.data[place : place + 1]), bytes(pad) + b"\x01"
        value = replaced(value, old, new)
    m.skb.data[at : at + length] = b"\x01" * length
    m.skb.data[check : check + 2] = value.to_bytes(2, "big")
