"""last: when a packet last came here (Linux: nft_last.c)."""

from __future__ import annotations

import cython

from userfw.engine.expr import Expr
from userfw.engine.registry import Row, register

if not cython.compiled:
    from userfw.core.const import NFT_CONTINUE
    from userfw.core.packet import Packet
    from userfw.engine.context import Context
    from userfw.engine.expr import Expr


class Last(Expr):
    """`when`: monotonic nanoseconds of the last packet, or 0 for never. `ago`: given in a rule, ms before `now`.
    Listings give `ago_ms(now)`."""

    kind = "last"

    def __init__(self, ago: int | None = None, now: int = 0) -> None:
        self.seen = ago is not None
        self.when = now - ago * 1_000_000 if ago is not None else 0
        self.given = ago or 0

    def evaluate(self, ctx: Context, pkt: Packet) -> cython.int:
        self.when = ctx.clock.now
        self.seen = True
        return NFT_CONTINUE

    def ago_ms(self, now: int) -> int | None:
        """Milliseconds since the last packet at `now`, None for never (as listed)."""
        return max(now - self.when, 0) // 1_000_000 if self.seen else None

    def clone(self) -> Last:
        return Last()

    def reset(self) -> None:
        self.seen = False
        self.when = 0

    def state(self) -> tuple[int, ...]:
        return (self.when,) if self.seen else ()

    def restore(self, state: tuple[int, ...]) -> None:
        self.seen = bool(state)
        self.when = state[0] if state else 0

    def operands(self) -> str:
        return str(self.given) if self.seen else "never"


register(Row("last", Last))
