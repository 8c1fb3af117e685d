"""synproxy: answer SYNs with cookies on behalf of a server (Linux: nft_synproxy.c, nf_synproxy_core.c)."""

from __future__ import annotations

from userfw.engine.expr import Expr
from userfw.engine.registry import FWD, IN, Row, hooks, register


class Synproxy(Expr):
    """`mss`, `wscale` (None: not given), `timestamp`, `sack_perm`: what the server speaks. Also the state of a synproxy object."""

    kind = "synproxy"

    def __init__(
        self, mss: int | None = None, wscale: int | None = None, timestamp: bool = False, sack_perm: bool = False
    ) -> None:
        if mss is not None and not 0 <= mss <= 0xFFFF:
            raise ValueError("mss is 16 bits")
        if wscale is not None and not 0 <= wscale <= 14:
            raise ValueError("wscale is 0 to 14")
        self.mss = mss or 0
        self.wscale = wscale or 0
        self.flags = (mss is not None) | (wscale is not None) << 1 | sack_perm << 2 | timestamp << 3

    def operands(self) -> str:
        return f"mss {self.mss} wscale {self.wscale}"


register(Row("synproxy", Synproxy, hooks=hooks(IN, FWD)))
