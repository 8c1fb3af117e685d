"""Which way a packet goes: the routing decision on input and on output, and what may not be routed at all.

Laws: a decision sends, drops and counts nothing; where there is none, `pkt.drop_reason` says why. Checks stand in the order of
Linux's ip_route_input_slow. IPv4 judges the source at once, IPv6 when forwarding (`path.Path`), as Linux does.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from userfw.conntrack.conn import Conn, TupleNode
    from userfw.core.const import (
        ARPHRD_LOOPBACK,
        CT_DIR_ORIGINAL,
        IPPROTO_IGMP,
        IPS_DST_NAT,
        IPS_SRC_NAT,
        NF_ACCEPT,
        NF_DROP,
        NFPROTO_IPV4,
        NFPROTO_IPV6,
        U32_MASK,
    )
    from userfw.core.drop import (
        DROP_FORWARDING_OFF,
        DROP_MARTIAN,
        DROP_NO_ROUTE,
        DROP_NOT_SPECIFIED,
        DROP_SOURCE_FILTER,
    )
    from userfw.core.fastpath import CachedRoute
    from userfw.core.hook import HookEntry
    from userfw.core.packet import Device, Packet
    from userfw.router.const import (
        RTN_BLACKHOLE,
        RTN_BROADCAST,
        RTN_LOCAL,
        RTN_MULTICAST,
        RTN_PROHIBIT,
        RTN_UNICAST,
        RTN_UNREACHABLE,
        RTN_UNSPEC,
    )
    from userfw.router.egress import Egress
    from userfw.router.inspect import flow_hash
    from userfw.router.types import Dst


class Reroute(HookEntry):
    """Behind NAT at output: a destination that it changed is routed anew, one that another rule changes is not (Linux:
    nf_nat_ipv4_local_fn, nf_nat_ipv6_local_fn)."""

    def __init__(self, router: Routing) -> None:
        super().__init__(-100)
        self.router = router

    def run(self, pkt: Packet, hook: cython.int) -> cython.int:
        conn: Conn | None = pkt.ct
        if conn is None or not conn.status & (IPS_DST_NAT | IPS_SRC_NAT):
            return NF_ACCEPT
        here: TupleNode = conn.orig if pkt.ctdir == CT_DIR_ORIGINAL else conn.reply
        there: TupleNode = conn.reply if pkt.ctdir == CT_DIR_ORIGINAL else conn.orig
        if here.dst_lo == there.src_lo and here.dst_hi == there.src_hi:
            return NF_ACCEPT
        dst: Dst = self.router.route_again(pkt)
        if dst.oif is None or dst.type in (RTN_UNSPEC, RTN_BLACKHOLE, RTN_UNREACHABLE, RTN_PROHIBIT):
            pkt.drop_reason = DROP_NO_ROUTE
            return NF_DROP
        pkt.route = dst
        return NF_ACCEPT


class Routing(Egress):
    """An Egress that knows the way; `path.Path` walks packets along it."""

    def route_ipv4(self, pkt: Packet) -> Dst | None:
        """Linux: ip_route_input_slow. None with `drop_reason` set for what must not be routed at all."""
        src: cython.uint = pkt.get32(pkt.l3 + 12)
        to: cython.uint = pkt.get32(pkt.l3 + 16)
        device: Device = cython.cast(Device, pkt.iif)
        loop: cython.bint = device.type == ARPHRD_LOOPBACK
        dst: Dst
        pkt.drop_reason = DROP_MARTIAN
        if src >> 28 == 14 or src == U32_MASK:
            return None
        if to >> 28 == 14:
            return self._multicast(pkt, 0, to) if loop or self._source_to_group(pkt, src, to, device) else None
        if to != U32_MASK and not (src == 0 and to == 0):
            if src >> 24 == 0 or to >> 24 == 0:
                return None
            if src >> 24 == 127 or to >> 24 == 127:
                return None  # over lo, too, whose packets bring their route unless a rule took it from them
        dst = self.routes.resolve(NFPROTO_IPV4, 0, to, 0, src, pkt.mark, device)
        if to == U32_MASK or (src == 0 and to == 0):
            dst = self._broadcast(to)
        if dst.type == RTN_UNICAST and not self.settings.forward4:
            pkt.drop_reason = DROP_FORWARDING_OFF
            return None
        if src != 0 and not loop and not self._source_ok(pkt, src, device):
            return None
        if dst.ways is not None:
            dst = self.routes.way(dst, flow_hash(pkt))
        pkt.drop_reason = DROP_NOT_SPECIFIED
        return dst

    def _source_ok(self, pkt: Packet, src: cython.uint, device: Device) -> cython.bint:
        """Not one of our own addresses, nor everybody's on a link; with rp_filter, also reachable (2) by the very device (1)."""
        # the mark does not count here (Linux: src_valid_mark 0)
        back: Dst = self.routes.resolve(NFPROTO_IPV4, 0, src, 0, 0, 0, device)
        if back.type in (RTN_LOCAL, RTN_BROADCAST):
            return False
        if self.settings.rp_filter == 0:
            return True
        pkt.drop_reason = DROP_SOURCE_FILTER
        if back.type != RTN_UNICAST:
            return False
        if self.settings.rp_filter == 2 or back.oif is device:
            return True
        way: Dst
        if back.ways is not None:
            for way in back.ways:
                if way.oif is device:
                    return True
        return False

    def _source_to_group(self, pkt: Packet, src: cython.uint, to: cython.uint, device: Device) -> cython.bint:
        """Whoever has no address yet speaks to the groups of the link only, or IGMP (Linux: ip_mc_validate_source)."""
        if src >> 24 == 0:
            return to >> 8 == 0xE00000 or pkt.get8(pkt.l3 + 9) == IPPROTO_IGMP
        return src >> 24 != 127 and self._source_ok(pkt, src, device)

    def _broadcast(self, to: cython.uint) -> Dst:
        dst: Dst = Dst(self.routes.generation)
        dst.family = NFPROTO_IPV4
        dst.type = RTN_BROADCAST
        dst.key_lo = to
        return dst

    def _multicast(self, pkt: Packet, hi: cython.ulonglong, lo: cython.ulonglong) -> Dst | None:
        """Groups that this router listens to are delivered; multicast is not forwarded."""
        dst: Dst = Dst(self.routes.generation)
        if not self.listens(cython.cast(Device, pkt.iif), pkt.nfproto, hi, lo):
            pkt.drop_reason = DROP_NO_ROUTE
            return None
        dst.family = pkt.nfproto
        dst.type = RTN_MULTICAST
        dst.key_hi = hi
        dst.key_lo = lo
        pkt.drop_reason = DROP_NOT_SPECIFIED
        return dst

    def route_ipv6(self, pkt: Packet) -> Dst | None:
        """Linux: ip6_route_input; the source is looked at only when forwarding."""
        l3: cython.Py_ssize_t = pkt.l3
        hi: cython.ulonglong = pkt.get64(l3 + 24)
        lo: cython.ulonglong = pkt.get64(l3 + 32)
        dst: Dst
        if hi >> 56 == 0xFF:
            return self._multicast(pkt, hi, lo)
        dst = self.routes.resolve(NFPROTO_IPV6, hi, lo, pkt.get64(l3 + 8), pkt.get64(l3 + 16), pkt.mark, pkt.iif)
        if dst.type == RTN_UNICAST and not self.settings.forward6:
            pkt.drop_reason = DROP_FORWARDING_OFF
            return None
        if dst.ways is not None:
            return self.routes.way(dst, flow_hash(pkt))
        return dst

    def route_output(self, pkt: Packet) -> Dst:
        """The decision for a packet of the gateway's own by its present addresses and mark; of a local address: by `lo`."""
        l3: cython.Py_ssize_t = pkt.l3
        dst: Dst
        if pkt.nfproto == NFPROTO_IPV4:
            to: cython.uint = pkt.get32(l3 + 16)
            if to == 0:
                to = 0x7F000001  # nowhere is here (Linux: ip_route_output_key_hash_rcu)
            dst = self.routes.resolve(NFPROTO_IPV4, 0, to, 0, pkt.get32(l3 + 12), pkt.mark, None)
            if pkt.get8(l3 + 12) == 127 and dst.type != RTN_LOCAL and dst.oif is not None and dst.oif.type != ARPHRD_LOOPBACK:
                dst = self.routes.decide(None, NFPROTO_IPV4, 0, to)  # 127/8 does not leave the host (Linux: __mkroute_output)
        else:
            dst = self.routes.resolve(
                NFPROTO_IPV6, pkt.get64(l3 + 24), pkt.get64(l3 + 32), pkt.get64(l3 + 8), pkt.get64(l3 + 16), pkt.mark, None
            )
        return self.looping(dst if dst.own is None else dst.own)

    def route_again(self, pkt: Packet) -> Dst:
        """The decision once more; a group or link-local address is still on the link of before (Linux: ip6_route_me_harder)."""
        before: Dst | None = pkt.route
        at: cython.Py_ssize_t = pkt.l3 + 24
        if before is None or pkt.nfproto != NFPROTO_IPV6 or not (pkt.get8(at) == 0xFF or pkt.get16(at) & 0xFFC0 == 0xFE80):
            return self.route_output(pkt)
        return self.looping(
            self.routes.resolve_out(
                NFPROTO_IPV6, pkt.get64(at), pkt.get64(at + 8), pkt.get64(at - 16), pkt.get64(at - 8), pkt.mark, before.oif
            )
        )

    def route_back(self, pkt: Packet) -> CachedRoute | None:
        """See core.fastpath.Sender: only a unicast route out of the very device that `pkt` came in by."""
        conn: Conn | None = pkt.ct
        there: Dst = pkt.route
        if conn is None or pkt.iif is None:
            return None
        node: TupleNode = conn.orig if pkt.ctdir == CT_DIR_ORIGINAL else conn.reply
        back: Dst = self.routes.resolve(pkt.nfproto, node.src_hi, node.src_lo, 0, 0, pkt.mark, there.oif)
        if back.ways is not None or back.type != RTN_UNICAST or back.oif is not pkt.iif:
            return None
        return back

    def still_for(self, pkt: Packet, dst: Dst) -> cython.bint:
        """The packet goes where the decision was made for."""
        if pkt.nfproto == NFPROTO_IPV4:
            return dst.key_lo == pkt.get32(pkt.l3 + 16)
        return dst.key_hi == pkt.get64(pkt.l3 + 24) and dst.key_lo == pkt.get64(pkt.l3 + 32)

    # -- what the gateway adds

    def looping(self, dst: Dst) -> Dst:
        """The Dst to use for output: one of type RTN_LOCAL goes by `lo`."""
        raise NotImplementedError
