"""Path MTUs that others told the gateway about its own packets (RFC 1191, RFC 8201; Linux: ip_rt_update_pmtu, ip6_rt_update_pmtu).

Laws: IPv4 believes only what quotes an echo answer from an address of its own, IPv6 what quotes any ICMPv6 message, for nothing
else is sent by the gateway itself (services behind the local port have a kernel of their own). What was told lasts `mtu_expires`,
the table is bounded, the oldest goes first. IPv4 minds it for its own packets only, unless it was told less than `min_pmtu`: then
that is the path's MTU, for what is forwarded too. IPv6 minds it always, but behind the hooks.

Not compiled: such messages are rare, and a flood of them costs no more than other floods to the gateway itself.
"""

from __future__ import annotations

from userfw.conntrack.tuples import inner_l4, inner_proto
from userfw.core.const import IPPROTO_ICMP, IPPROTO_ICMPV6, NFPROTO_IPV4, NFPROTO_IPV6
from userfw.core.packet import Packet
from userfw.router.base import Router
from userfw.router.const import (
    ICMP_DEST_UNREACH,
    ICMP_ECHOREPLY,
    ICMP_FRAG_NEEDED,
    ICMPV6_PKT_TOOBIG,
    IPV6_MIN_MTU,
    RTN_LOCAL,
    RTN_UNICAST,
)
from userfw.router.types import Dst, PathMtu

LIMIT = 4096


class PathMtus:
    """What one gateway was told; the table itself is `Fib.paths`. `deadline`: when to look whether one has expired, 0: never."""

    def __init__(self, router: Router) -> None:
        self.router = router
        self.deadline = 0

    def told(self, pkt: Packet) -> None:
        """An ICMP message for the gateway itself, whose checksum is right: if it tells a path's MTU, remember it."""
        if pkt.nfproto == NFPROTO_IPV4:
            self._told4(pkt)
        elif pkt.get8(pkt.l4) == ICMPV6_PKT_TOOBIG:
            self._told6(pkt)

    def _told4(self, pkt: Packet) -> None:
        quoted = pkt.l4 + 8
        if pkt.get16(pkt.l4) != ICMP_DEST_UNREACH << 8 | ICMP_FRAG_NEEDED or pkt.route is None or pkt.route.type != RTN_LOCAL:
            return
        if quoted + 20 > pkt.end:
            return
        behind = quoted + (pkt.get8(quoted) & 15) * 4
        if behind < quoted + 20 or behind + 8 > pkt.end:
            return
        if pkt.get8(quoted + 9) != IPPROTO_ICMP or pkt.get8(behind) != ICMP_ECHOREPLY:
            return
        routes, to = self.router.routes, pkt.get32(quoted + 16)
        if routes.resolve(NFPROTO_IPV4, 0, pkt.get32(quoted + 12), 0, 0, 0, None).type != RTN_LOCAL:
            return
        dst: Dst = routes.resolve(NFPROTO_IPV4, 0, to, 0, 0, 0, None)
        before = routes.paths.get((NFPROTO_IPV4, 0, to))
        now, life, least = self.router.clock.now, self.router.settings.mtu_expires4, self.router.settings.min_pmtu
        mtu, known = pkt.get16(pkt.l4 + 6), (dst.own or dst).mtu
        if dst.type != RTN_UNICAST or known < mtu or (before is not None and before.locked):
            return
        locked = mtu < least
        if locked:
            mtu = min(known, least)
        if before is None or before.mtu != mtu or locked or before.expires < now + life // 2:
            self._remember((NFPROTO_IPV4, 0, to), PathMtu(mtu, locked, now + life))

    def _told6(self, pkt: Packet) -> None:
        quoted = pkt.l4 + 8
        behind = inner_l4(pkt, NFPROTO_IPV6, quoted)
        if behind < 0 or behind + 8 > pkt.end or inner_proto(pkt, NFPROTO_IPV6, quoted) != IPPROTO_ICMPV6:
            return
        hi, lo, mtu = pkt.get64(quoted + 24), pkt.get64(quoted + 32), pkt.get32(pkt.l4 + 4)
        dst: Dst = self.router.routes.resolve(NFPROTO_IPV6, hi, lo, 0, 0, 0, None)
        if dst.type == RTN_UNICAST and IPV6_MIN_MTU <= mtu < dst.mtu:
            self._remember((NFPROTO_IPV6, hi, lo), PathMtu(mtu, False, self.router.clock.now + self.router.settings.mtu_expires6))

    def _remember(self, key: tuple[int, int, int], path: PathMtu) -> None:
        paths = self.router.routes.paths
        paths.pop(key, None)
        if len(paths) >= LIMIT:
            self._forget(next(iter(paths)))
        paths[key] = path
        self.deadline = min(self.deadline or path.expires, path.expires)
        self.router.routes.forget(*key)

    def _forget(self, key: tuple[int, int, int]) -> None:
        del self.router.routes.paths[key]
        self.router.routes.forget(*key)

    def tick(self, now: int) -> None:
        """Forget what was told too long ago."""
        paths = self.router.routes.paths
        if not self.deadline or now < self.deadline:
            return
        for key in [key for key, path in paths.items() if path.expires <= now]:
            self._forget(key)
        self.deadline = min((path.expires for path in paths.values()), default=0)

    def next_deadline(self) -> int:
        """When the first one expires; 0: there is none."""
        return self.deadline
