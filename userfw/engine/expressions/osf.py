"""osf: guess the sender's operating system from a TCP SYN (Linux: nft_osf.c, nfnetlink_osf.c)."""

from __future__ import annotations

from userfw.engine.expr import Expr, register_offset
from userfw.engine.registry import FWD, IN, PRE, Row, hooks, register

_TTL = {"": 0, "loose": 1, "skip": 2}


class Osf(Expr):
    """`dreg` = 16 bytes of genre, or genre:version if `version`; `ttl` is "" (true), loose or skip."""

    kind = "osf"

    def __init__(self, dreg: int, ttl: str = "", version: bool = False) -> None:
        if ttl not in _TTL:
            raise ValueError(f"no ttl check {ttl!r}")
        self.dst = register_offset(dreg, 16)
        self.dreg = dreg
        self.ttl = _TTL[ttl]
        self.version = version

    def operands(self) -> str:
        return f"dreg {self.dreg}"


register(Row("osf", Osf, hooks=hooks(PRE, IN, FWD)))
