"""counter: packets and bytes (Linux: nft_counter.c)."""

from __future__ import annotations

import cython

from userfw.engine.expr import Expr
from userfw.engine.registry import Row, register

if not cython.compiled:
    from userfw.core.const import NF_ARP_OUT, NF_NETDEV_EGRESS, NFPROTO_ARP, NFPROTO_NETDEV, NFT_CONTINUE
    from userfw.core.packet import Packet
    from userfw.engine.context import Context


class Counter(Expr):
    """Counts packets and the bytes that `meta length` gives. Also the state of a named counter."""

    kind = "counter"

    def __init__(self, packets: int = 0, bytes: int = 0) -> None:
        if packets < 0 or bytes < 0:
            raise ValueError("a counter does not start below zero")
        self.packets = packets
        self.bytes = bytes

    def evaluate(self, ctx: Context, pkt: Packet) -> cython.int:
        self.packets += 1
        self.bytes += packet_length(ctx, pkt)
        return NFT_CONTINUE

    def operands(self) -> str:
        return f"pkts {self.packets} bytes {self.bytes}"

    def clone(self) -> Counter:
        return Counter(self.packets, self.bytes)

    def reset(self) -> None:
        self.packets = 0
        self.bytes = 0

    def state(self) -> tuple[int, ...]:
        return (self.packets, self.bytes)

    def restore(self, state: tuple[int, ...]) -> None:
        self.packets, self.bytes = state


def packet_length(ctx: Context, pkt: Packet) -> cython.Py_ssize_t:
    """skb->len: from the network header on, VLAN tags not counted; at netdev egress the whole frame, but for the tag that the card
    is to write (seen on Linux 6.18)."""
    if ctx.family == NFPROTO_NETDEV and ctx.hook == NF_NETDEV_EGRESS:
        return pkt.end - pkt.start - (4 if pkt.vlan_tci >= 0 else 0)
    if ctx.family == NFPROTO_ARP and ctx.hook == NF_ARP_OUT:
        return pkt.end - pkt.l3 + 14  # Linux: arp_create writes the link header before the hook
    return pkt.end - pkt.l3


register(Row("counter", Counter))
