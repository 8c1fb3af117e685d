"""rt: the packet's route (Linux: nft_rt.c)."""

from __future__ import annotations

import cython

from userfw.engine.expr import Expr, register_offset
from userfw.engine.registry import HOOKS, INET_ONLY, Row, register

if not cython.compiled:
    from userfw.core.const import NFPROTO_IPV4, NFPROTO_IPV6, NFT_BREAK, NFT_CONTINUE
    from userfw.core.packet import Packet
    from userfw.engine.const import RT_CLASSID, RT_NEXTHOP4, RT_NEXTHOP6, RT_TCPMSS
    from userfw.engine.context import Context
    from userfw.engine.expr import Expr
    from userfw.engine.services import RouteInfo

RT_KEYS = {"classid": (0, 4), "nexthop4": (1, 4), "nexthop6": (2, 16), "tcpmss": (3, 2), "ipsec": (4, 1)}
RT_NAMES = {number: name for name, (number, _) in RT_KEYS.items()}


class Rt(Expr):
    """`dreg` = classid, nexthop4, nexthop6, tcpmss (both directions' smallest) or ipsec."""

    kind = "rt"

    def __init__(self, dreg: int, key: str) -> None:
        if key not in RT_KEYS:
            raise ValueError(f"no rt key {key!r}")
        self.key, self.length = RT_KEYS[key]
        self.dst = register_offset(dreg, self.length)
        self.dreg = dreg

    def evaluate(self, ctx: Context, pkt: Packet) -> cython.int:
        route: RouteInfo | None = ctx.services.route_info(pkt)
        least: cython.int
        if route is None:
            return NFT_BREAK
        if self.key == RT_CLASSID:
            ctx.write32(self.dst, route.classid)
        elif self.key == RT_NEXTHOP4 or self.key == RT_NEXTHOP6:
            if pkt.nfproto != (NFPROTO_IPV4 if self.key == RT_NEXTHOP4 else NFPROTO_IPV6):
                return NFT_BREAK
            ctx.write_bytes(self.dst, route.nexthop, self.length)
        elif self.key == RT_TCPMSS:
            least = 40 if pkt.nfproto == NFPROTO_IPV4 else 60
            # TCP_MSS_DEFAULT where the MTU makes no sense (Linux: get_tcpmss)
            ctx.write16(self.dst, 536 if route.mtu <= least or route.mtu > 0xFFFF else route.mtu - least)
        else:
            ctx.write8(self.dst, 1 if route.ipsec else 0)
        return NFT_CONTINUE

    def refusal(self, family: int, hook: int, chain_type: int) -> str | None:
        legal = hook in (2, 3, 4) or self.key != 3
        return None if legal else "rt mtu: not supported at this hook (EOPNOTSUPP)"

    def operands(self) -> str:
        return f"load {RT_NAMES[self.key]} => reg {self.dreg}"


register(Row("rt", Rt, hooks={**INET_ONLY, 1: HOOKS[1]}))
