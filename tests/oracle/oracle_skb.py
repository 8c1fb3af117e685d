"""A frame as rules see it: where its headers are (Linux: nft_set_pktinfo_*, ipv6_find_hdr, ip_options_compile).

Laws: offsets count from the first byte of the frame; a frame without link layer has `link` -1. Nothing of userfw is imported.
"""

from __future__ import annotations

from oracle_surroundings import Surroundings

ETH_IP, ETH_IP6, ETH_ARP, ETH_VLAN, ETH_QINQ = 0x800, 0x86DD, 0x806, 0x8100, 0x88A8
TCP, UDP, GRE, SCTP, ICMP6, UDPLITE = 6, 17, 47, 132, 58, 136
HOP, ROUTING, FRAGMENT, AUTH, NONE, DEST = 0, 43, 44, 51, 59, 60
EXTENSIONS = (HOP, ROUTING, FRAGMENT, AUTH, NONE, DEST)
PF = {"ip": 2, "ip6": 10, "inet": 1, "arp": 3, "bridge": 7, "netdev": 5}


class Break(Exception):
    """The rule ends here without a verdict."""


class Skb:
    """The packet: `data` the frame, `protocol` skb->protocol, `tprot` -1 when the transport is unknown, `thoff` from `network`."""

    def __init__(self, frame: bytes, world: Surroundings, family: str, hook: str, link: bool = True) -> None:
        self.data = bytearray(frame)
        self.world = world
        self.family = family
        self.hook = hook
        self.mark, self.priority, self.secmark = world.mark, world.priority, world.secmark
        self.pkttype, self.trace = world.pkttype, False
        self.link = 0 if link else -1
        self.network = 0
        self.tagged = False
        if link:
            self.protocol, self.network = self.be16(12), 14
            if self.protocol in (ETH_VLAN, ETH_QINQ):
                self.tagged = True
                self.protocol, self.network = self.be16(16), 18
        else:
            self.protocol = ETH_IP if self.data[0] >> 4 == 4 else ETH_IP6
        self.tprot, self.thoff, self.fragoff = -1, 0, 0
        if self.protocol == ETH_IP:
            self._four()
        elif self.protocol == ETH_IP6:
            self._six()

    def be16(self, at: int) -> int:
        return int.from_bytes(self.data[at : at + 2], "big")

    @property
    def pf(self) -> int:
        """The family of the hook that runs (Linux: nft_pf)."""
        if self.family == "inet":
            return 2 if self.protocol == ETH_IP else 10
        return PF[self.family]

    @property
    def length(self) -> int:
        """skb->len: without the link-layer header; at netdev egress with it, but for the tag that the card is to write."""
        if self.family == "netdev" and self.hook == "egress":
            return len(self.data) - (4 if self.tagged else 0)
        return len(self.data) - self.network

    def take(self, at: int, size: int) -> bytes:
        """Linux: skb_copy_bits."""
        if at < 0 or at + size > len(self.data):
            raise Break
        return bytes(self.data[at : at + size])

    @property
    def transport(self) -> int:
        """Where the transport header is; breaks when unknown or on a later fragment."""
        if self.tprot < 0 or self.fragoff:
            raise Break
        return self.network + self.thoff

    def _four(self) -> None:
        d, at = self.data, self.network
        if len(d) < at + 20 or d[at] >> 4 != 4 or (d[at] & 15) < 5:
            return
        self.tprot, self.thoff = d[at + 9], (d[at] & 15) * 4
        self.fragoff = self.be16(at + 6) & 0x1FFF

    def _six(self) -> None:
        if len(self.data) < self.network + 40 or self.data[self.network] >> 4 != 6:
            return
        found = self.find_header(self.network, -1, stop_at_auth=True)
        if found is not None:
            self.tprot, at, self.fragoff = found
            self.thoff = at - self.network if at >= 0 else 0

    def find_header(self, network: int, target: int, stop_at_auth: bool = False) -> tuple[int, int, int] | None:
        """Linux: ipv6_find_hdr. (protocol, offset, fragment offset) of the header `target`, or of the transport if -1."""
        at, proto = network + 40, self.data[network + 6]
        while True:
            found = proto == target
            if proto not in EXTENSIONS or proto == NONE:
                return (proto, at, 0) if found or target < 0 else None
            if at + 2 > len(self.data):
                return None
            following, size = self.data[at], (self.data[at + 1] + 1) * 8
            if proto == FRAGMENT:
                if at + 4 > len(self.data):
                    return None
                fragoff, size = self.be16(at + 2) & ~7, 8
                if fragoff:
                    if target < 0 and (following not in EXTENSIONS or following == NONE):
                        return following, -1, fragoff
                    return (proto, at, fragoff) if found else None
            elif proto == AUTH:
                if stop_at_auth and target < 0:
                    return proto, at, 0
                size = (self.data[at + 1] + 2) * 4
            if found:
                return proto, at, 0
            proto, at = following, at + size

    def ip_option(self, target: int) -> int | None:
        """Where the IPv4 option is, from the network header, or None; breaks when the options are no options."""
        at, end = 20, (self.data[self.network] & 15) * 4
        found = None
        while at < end:
            kind = self.data[self.network + at]
            if kind == 0:
                break
            if kind == 1:
                at += 1
                continue
            size = self.data[self.network + at + 1] if at + 1 < end else 0
            if size < 2 or at + size > end:
                return None
            if kind == target and found is None:
                found = at
            at += size
        return found

    def tcp_options(self) -> tuple[int, int]:
        """Where TCP's options begin and end (Linux: nft_tcp_header_pointer)."""
        if self.tprot != TCP:
            raise Break
        at = self.transport
        self.take(at, 20)
        size = (self.data[at + 12] >> 4) * 4
        if size < 20:
            raise Break
        self.take(at, size)
        return at + 20, at + size

    def find_tcp_option(self, target: int) -> tuple[int, int, int] | None:
        """(offset, length, end of the options) of a TCP option, or None."""
        at, end = self.tcp_options()
        while at < end - 1:
            size = 1 if self.data[at] <= 1 or self.data[at + 1] == 0 else self.data[at + 1]
            if self.data[at] == target:
                return at, size, end
            at += size
        return None
