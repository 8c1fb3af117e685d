"""reject: refuse with an ICMP error or a TCP reset, and drop (Linux: nft_reject_ipv4.c, _ipv6.c, _inet.c, _bridge.c, _netdev.c)."""

from __future__ import annotations

import cython

from userfw.engine.expr import Expr
from userfw.engine.registry import FWD, IN, INGRESS, OUT, PRE, Row, register

if not cython.compiled:
    from userfw.core.const import NF_DROP, NFPROTO_IPV4
    from userfw.core.drop import DROP_REJECT
    from userfw.core.packet import Packet
    from userfw.engine.const import REJECT_ICMP_UNREACH, REJECT_ICMPX_UNREACH
    from userfw.engine.context import Context
    from userfw.engine.expr import Expr

_TYPES = {"icmp": 0, "tcp reset": 1, "icmpx": 2}


# icmpx: no route, port unreachable, host unreachable, administratively prohibited (Linux: nft_reject_icmp_code, _icmpv6_code)
ICMPX_TO_ICMP = bytes((0, 3, 1, 13))
ICMPX_TO_ICMPV6 = bytes((0, 4, 3, 1))


class Reject(Expr):
    """`type`: "icmp" (`code` of ICMP unreachable, or of ICMPv6 in ip6), "icmpx" (0 no-route, 1 port, 2 host, 3 admin-prohibited)
    or "tcp reset"."""

    kind = "reject"

    def __init__(self, type: str | int, code: int = 0) -> None:
        number = _TYPES.get(type) if isinstance(type, str) else type
        if number not in (0, 1, 2) or number is None:
            raise ValueError(f"no reject type {type!r}")
        if not 0 <= code <= 255 or (number == 2 and code > 3):
            raise ValueError(f"no reject code {code}")
        self.type = number
        self.code = code

    def evaluate(self, ctx: Context, pkt: Packet) -> cython.int:
        code: cython.int = self.code
        type: cython.int = self.type
        family: cython.int = pkt.nfproto
        if type == REJECT_ICMPX_UNREACH:
            code = ICMPX_TO_ICMP[code] if family == NFPROTO_IPV4 else ICMPX_TO_ICMPV6[code]
            type = REJECT_ICMP_UNREACH
        if ctx.l4:
            ctx.services.send_reject(pkt, ctx.hook, ctx.family, type, code)
        pkt.drop_reason = DROP_REJECT
        return NF_DROP

    def operands(self) -> str:
        return f"type {self.type} code {self.code}"


register(
    Row(
        "reject",
        Reject,
        hooks={
            1: frozenset((PRE, IN, FWD, OUT, INGRESS)),
            2: frozenset((PRE, IN, FWD, OUT)),
            10: frozenset((PRE, IN, FWD, OUT)),
            7: frozenset((PRE, IN)),
            5: frozenset((0,)),
        },
    )
)
