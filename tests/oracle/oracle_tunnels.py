"""The packet inside a tunnel, as inner expressions see it (Linux: nft_inner.c)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from oracle_skb import ETH_IP, ETH_IP6, ETH_VLAN, GRE, UDP, Break

if TYPE_CHECKING:
    from oracle_skb import Skb

VXLAN, GENEVE = 1, 2
LINK = 2


@dataclass
class Inside:
    """Offsets of the headers, -1 where there is none."""

    tunnel: int = -1
    link: int = -1
    network: int = -1
    transport: int = -1
    protocol: int = 0
    l4proto: int = 0


def parse(skb: Skb, kind: int, size: int, flags: int, at: int) -> Inside:
    """The headers inside; breaks when they are none. `at`: behind the outer transport header."""
    inside = Inside()
    if skb.tprot == GRE:
        inside.tunnel = skb.transport
    elif skb.tprot == UDP:
        inside.tunnel = at
        if kind == GENEVE:
            at += (skb.take(at, 8)[0] & 63) * 4
        at += size
    else:
        raise Break
    if flags & LINK:
        inside.link, inside.protocol = at, int.from_bytes(skb.take(at, 14)[12:], "big")
        at += 14
        if inside.protocol == ETH_VLAN:
            inside.protocol = int.from_bytes(skb.take(at, 4)[2:], "big")
            at += 4
    else:
        version = skb.take(at, 4)[0] >> 4
        if version not in (4, 6):
            raise Break
        inside.protocol = ETH_IP if version == 4 else ETH_IP6
    _network(skb, inside, at)
    return inside


def _network(skb: Skb, inside: Inside, at: int) -> None:
    if inside.protocol == ETH_IP:
        head = skb.take(at, 20)
        if head[0] >> 4 != 4 or head[0] & 15 < 5:
            raise Break
        inside.network = at
        if not int.from_bytes(head[6:8], "big") & 0x1FFF:
            inside.transport, inside.l4proto = at + (head[0] & 15) * 4, head[9]
        return
    if inside.protocol != ETH_IP6 or skb.take(at, 40)[0] >> 4 != 6:
        raise Break
    inside.network = at
    found = skb.find_header(at, -1, stop_at_auth=True)
    if found is None:
        raise Break
    if not found[2]:
        inside.l4proto, inside.transport = found[0], found[1]
