"""meta: what is known about the packet but not in it (Linux: nft_meta.c)."""

from __future__ import annotations

from typing import Any

import cython

from userfw.engine.expr import Expr, register_offset
from userfw.engine.registry import FWD, IN, PRE, Row, register

if not cython.compiled:
    from userfw.core.const import (
        NF_ARP_OUT,
        NF_INET_LOCAL_IN,
        NF_INET_LOCAL_OUT,
        NF_INET_POST_ROUTING,
        NF_NETDEV_EGRESS,
        NFPROTO_ARP,
        NFPROTO_BRIDGE,
        NFPROTO_INET,
        NFPROTO_IPV4,
        NFPROTO_NETDEV,
        NFT_BREAK,
        NFT_CONTINUE,
        PACKET_BROADCAST,
        PACKET_LOOPBACK,
        PACKET_MULTICAST,
        PACKET_OTHERHOST,
    )
    from userfw.core.packet import Device, Packet
    from userfw.engine.const import (
        META_BRI_IIFHWADDR,
        META_BRI_IIFNAME,
        META_BRI_IIFPVID,
        META_BRI_OIFNAME,
        META_CGROUP,
        META_CPU,
        META_IIF,
        META_IIFGROUP,
        META_IIFKIND,
        META_IIFNAME,
        META_IIFTYPE,
        META_L4PROTO,
        META_LEN,
        META_MARK,
        META_NFPROTO,
        META_NFTRACE,
        META_OIF,
        META_OIFGROUP,
        META_OIFKIND,
        META_OIFNAME,
        META_OIFTYPE,
        META_PKTTYPE,
        META_PRANDOM,
        META_PRIORITY,
        META_PROTOCOL,
        META_RTCLASSID,
        META_SDIF,
        META_SDIFNAME,
        META_SECMARK,
        META_SECPATH,
        META_SKGID,
        META_SKUID,
        META_TIME_DAY,
        META_TIME_HOUR,
        META_TIME_NS,
    )
    from userfw.engine.context import Context
    from userfw.engine.expr import Expr
    from userfw.engine.expressions.counter import packet_length
    from userfw.engine.services import Origin, RouteInfo, SocketInfo

META_KEYS = {
    "len": (0, 4),
    "protocol": (1, 2),
    "priority": (2, 4),
    "mark": (3, 4),
    "iif": (4, 4),
    "oif": (5, 4),
    "iifname": (6, 16),
    "oifname": (7, 16),
    "iiftype": (8, 2),
    "oiftype": (9, 2),
    "skuid": (10, 4),
    "skgid": (11, 4),
    "nftrace": (12, 1),
    "rtclassid": (13, 4),
    "secmark": (14, 4),
    "nfproto": (15, 1),
    "l4proto": (16, 1),
    "bri_iifname": (17, 16),
    "bri_oifname": (18, 16),
    "pkttype": (19, 1),
    "cpu": (20, 4),
    "iifgroup": (21, 4),
    "oifgroup": (22, 4),
    "cgroup": (23, 4),
    "prandom": (24, 4),
    "secpath": (25, 1),
    "iifkind": (26, 16),
    "oifkind": (27, 16),
    "bri_iifpvid": (28, 2),
    "bri_iifvproto": (29, 2),
    "time": (30, 8),
    "day": (31, 1),
    "hour": (32, 4),
    "sdif": (33, 4),
    "sdifname": (34, 16),
    "broute": (35, 1),
    "ibrhwaddr": (37, 6),
}
META_NAMES = {number: name for name, (number, _) in META_KEYS.items()}
_WRITABLE = frozenset(("mark", "priority", "nftrace", "pkttype", "secmark", "broute"))


def network_family(ctx: Context, pkt: Packet) -> cython.int:
    """The family that the packet's hook runs for (Linux: nft_pf)."""
    if ctx.family == NFPROTO_INET:
        return pkt.nfproto
    return ctx.family


def packet_type(pkt: Packet) -> cython.int:
    """PACKET_*; a looped-back packet is multicast or broadcast by its address (Linux: nft_meta_get_eval_pkttype_lo)."""
    if pkt.pkttype != PACKET_LOOPBACK:
        return pkt.pkttype
    if pkt.nfproto == NFPROTO_IPV4:
        return PACKET_MULTICAST if pkt.get8(pkt.l3 + 16) >> 4 == 14 else PACKET_BROADCAST
    return PACKET_MULTICAST


def store_name(ctx: Context, dst: cython.int, device: Device | None) -> cython.int:
    """16 bytes of the device's name; zeros without a device."""
    regs: bytearray = ctx.regs
    i: cython.int
    name: bytes
    if device is None:
        for i in range(16):
            regs[dst + i] = 0
        return NFT_CONTINUE
    name = device.ifname
    for i in range(16):
        regs[dst + i] = name[i]
    return NFT_CONTINUE


def _store_time(ctx: Context, dst: cython.int, key: cython.int) -> cython.int:
    """Unix time in ns, the day of the week (0: Sunday) or the second of the day, UTC."""
    offset: cython.longlong = cython.cast(cython.longlong, ctx.clock.wall_offset * 1e9)
    now: cython.longlong = cython.cast(cython.longlong, ctx.clock.now) + offset
    seconds: cython.longlong = now // 1000000000
    if key == META_TIME_NS:
        ctx.write64(dst, now)
    elif key == META_TIME_DAY:
        ctx.write8(dst, (seconds // 86400 + 4) % 7)
    else:
        ctx.write32(dst, seconds % 86400)
    return NFT_CONTINUE


def _store_from_services(ctx: Context, pkt: Packet, dst: cython.int, key: cython.int) -> cython.int:
    """Keys of a socket or of the route; without one the rule breaks."""
    sock: SocketInfo | None
    route: RouteInfo | None
    if key == META_RTCLASSID:
        route = ctx.services.route_info(pkt)
        if route is None:
            return NFT_BREAK
        ctx.write32(dst, route.classid)
        return NFT_CONTINUE
    sock = ctx.services.socket(pkt)
    if sock is None:
        return NFT_BREAK
    if pkt.iif is not None and sock is not pkt.extra and not (sock.established and ctx.hook == NF_INET_LOCAL_IN):
        return NFT_BREAK  # Linux: skb->sk is set on what the host sends, by tproxy, and by early demux
    if key == META_CGROUP:
        ctx.write32(dst, sock.classid if sock.classid else ctx.services.cgroup)
    elif key == META_SKUID:
        if sock.uid < 0:
            return NFT_BREAK
        ctx.write32(dst, sock.uid)
    else:
        if sock.gid < 0 and sock.group_of is not None:
            sock.gid = sock.group_of()
        if sock.gid < 0:
            return NFT_BREAK
        ctx.write32(dst, sock.gid)
    return NFT_CONTINUE


def _leaves(ctx: Context, pkt: Packet) -> cython.bint:
    """`iiftype` is of the outgoing device (Linux: skb->dev) at postrouting and egress, and at output where it is known by then
    (of a bridge always)."""
    if ctx.family == NFPROTO_NETDEV:
        return ctx.hook == NF_NETDEV_EGRESS
    if ctx.family == NFPROTO_ARP:
        return ctx.hook == NF_ARP_OUT
    if ctx.hook == NF_INET_POST_ROUTING or (ctx.family == NFPROTO_BRIDGE and ctx.hook == NF_INET_LOCAL_OUT):
        return True
    return ctx.hook == NF_INET_LOCAL_OUT and isinstance(pkt.extra, Origin) and cython.cast(Origin, pkt.extra).bound


def _store_device(ctx: Context, pkt: Packet, dst: cython.int, key: cython.int) -> cython.int:
    """Keys of the devices; without a device the rule breaks (bridge names are empty instead)."""
    device: Device | None = pkt.iif
    if key in (META_OIFTYPE, META_OIFGROUP, META_OIFKIND, META_BRI_OIFNAME) or (key == META_IIFTYPE and _leaves(ctx, pkt)):
        device = pkt.oif
    if key in (META_BRI_IIFNAME, META_BRI_OIFNAME):
        return store_name(ctx, dst, device.master if device is not None else None)
    if device is None:
        return NFT_BREAK
    if key in (META_IIFTYPE, META_OIFTYPE):
        ctx.write16(dst, device.type)
    elif key in (META_IIFGROUP, META_OIFGROUP):
        ctx.write32(dst, device.group)
    elif key in (META_IIFKIND, META_OIFKIND):
        if not device.kind:
            return NFT_BREAK
        ctx.write_bytes(dst, device.kind.encode(), 16)
    elif key == META_BRI_IIFHWADDR:
        if device.master is None:
            return NFT_BREAK
        ctx.write_bytes(dst, device.master.mac, 8)
    else:  # iifpvid, iifvproto: of bridges that filter VLANs
        port: Any = device.bridge if device.master is not None else None
        if port is None or not port.bridge.filtering:
            return NFT_BREAK
        if key == META_BRI_IIFPVID:
            ctx.write16(dst, port.pvid)
        else:
            ctx.write_be16(dst, port.bridge.vlan_proto)
    return NFT_CONTINUE


class Meta(Expr):
    """`dreg` = the value of `key` (libnftnl's names: mark, l4proto, iifname, …)."""

    kind = "meta"

    def __init__(self, dreg: int, key: str) -> None:
        if key not in META_KEYS:
            raise ValueError(f"no meta key {key!r}")
        self.key, self.length = META_KEYS[key]
        self.dst = register_offset(dreg, self.length)
        self.dreg = dreg

    def evaluate(self, ctx: Context, pkt: Packet) -> cython.int:
        key: cython.int = self.key
        dst: cython.int = self.dst
        if key == META_L4PROTO:
            if not ctx.l4:
                return NFT_BREAK
            ctx.write8(dst, pkt.l4proto)
        elif key == META_NFPROTO:
            ctx.write8(dst, network_family(ctx, pkt))
        elif key == META_PROTOCOL:
            ctx.write_be16(dst, ctx.protocol)
        elif key == META_MARK:
            ctx.write32(dst, pkt.mark)
        elif key == META_LEN:
            ctx.write32(dst, packet_length(ctx, pkt))
        elif key == META_PRIORITY:
            ctx.write32(dst, pkt.priority)
        elif key == META_IIF:
            ctx.write32(dst, pkt.iif.index if pkt.iif is not None else 0)
        elif key == META_OIF:
            ctx.write32(dst, pkt.oif.index if pkt.oif is not None else 0)
        elif key == META_IIFNAME:
            return store_name(ctx, dst, pkt.iif)
        elif key == META_OIFNAME:
            return store_name(ctx, dst, pkt.oif)
        elif key == META_PKTTYPE:
            ctx.write8(dst, packet_type(pkt))
        elif key == META_SECMARK:
            ctx.write32(dst, pkt.secmark)
        elif key == META_CPU:
            ctx.write32(dst, ctx.services.cpu)
        elif key == META_PRANDOM:
            ctx.write32(dst, ctx.services.random())
        elif key == META_SECPATH:
            ctx.write8(dst, 0)
        elif key == META_SDIF:
            ctx.write32(dst, 0)
        elif key == META_SDIFNAME:
            return store_name(ctx, dst, None)
        elif key in (META_TIME_NS, META_TIME_DAY, META_TIME_HOUR):
            return _store_time(ctx, dst, key)
        elif key in (META_SKUID, META_SKGID, META_CGROUP, META_RTCLASSID):
            return _store_from_services(ctx, pkt, dst, key)
        else:
            return _store_device(ctx, pkt, dst, key)
        return NFT_CONTINUE

    def refusal(self, family: int, hook: int, chain_type: int) -> str | None:
        """secpath, sdif and bridge keys have hooks of their own, nftrace and broute are only set (Linux: nft_meta_get_validate)."""
        legal: tuple[int, ...] = (0, 1, 2, 3, 4, 5)
        if self.key == 25 and family == 5:
            legal = (0,)
        elif self.key == 25:
            legal = (PRE, IN, FWD) if family in (1, 2, 10) else ()
        elif self.key in (12, 35):
            legal = ()
        elif self.key in (33, 34):
            legal = (IN, FWD) if family in (1, 2, 10) else ()
        elif self.key in (17, 18, 28, 29, 37) and family != 7:
            legal = ()
        return None if hook in legal else f"meta {META_NAMES[self.key]}: not supported at this hook (EOPNOTSUPP)"

    def operands(self) -> str:
        return f"load {META_NAMES[self.key]} => reg {self.dreg}"


class MetaSet(Expr):
    """Set mark, priority, nftrace, pkttype, secmark or broute of the packet from `sreg`."""

    kind = "meta"

    def __init__(self, sreg: int, key: str) -> None:
        if key not in _WRITABLE:
            raise ValueError(f"meta {key} cannot be set")
        self.key, self.length = META_KEYS[key]
        self.src = register_offset(sreg, self.length)
        self.sreg = sreg

    def evaluate(self, ctx: Context, pkt: Packet) -> cython.int:
        key: cython.int = self.key
        value: cython.uint
        if key == META_MARK:
            pkt.mark = ctx.read32(self.src)
        elif key == META_PRIORITY:
            pkt.priority = ctx.read32(self.src)
        elif key == META_NFTRACE:
            pkt.trace = ctx.regs[self.src] != 0
        elif key == META_SECMARK:
            pkt.secmark = ctx.read32(self.src)
        elif key == META_PKTTYPE:
            value = ctx.regs[self.src]
            if value <= PACKET_OTHERHOST and pkt.pkttype <= PACKET_OTHERHOST:
                pkt.pkttype = value
        else:
            ctx.services.broute(pkt, ctx.regs[self.src] != 0)
        return NFT_CONTINUE

    def refusal(self, family: int, hook: int, chain_type: int) -> str | None:
        """pkttype is set at prerouting and ingress, broute at the bridge's prerouting only (Linux: nft_meta_set_validate)."""
        refused = False
        if self.key == 19:
            refused = family == 3 or hook not in ((0,) if family == 5 else (PRE,))
        elif self.key == 35:
            refused = family != 7 or hook != PRE
        return f"meta {META_NAMES[self.key]} set: not supported at this hook (EOPNOTSUPP)" if refused else None

    def operands(self) -> str:
        return f"set {META_NAMES[self.key]} with reg {self.sreg}"


register(Row("meta", Meta))
register(Row("meta set", MetaSet))
