"""rt: the packet's route (Linux: nft_rt.c)."""

from __future__ import annotations

from userfw.engine.expr import Expr, register_offset
from userfw.engine.registry import FWD, IN, OUT, POST, Row, hooks, register

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

    def operands(self) -> str:
        return f"load {RT_NAMES[self.key]} => reg {self.dreg}"


register(Row("rt", Rt, hooks=hooks(FWD, OUT, POST, IN), reason="EOPNOTSUPP"))
