"""last: when a packet last came here (Linux: nft_last.c)."""

from __future__ import annotations

from userfw.engine.expr import Expr
from userfw.engine.registry import Row, register


class Last(Expr):
    """`when`: monotonic nanoseconds of the last packet, or 0 for never. Listings give the time since then, `now` - `when`."""

    kind = "last"

    def __init__(self, ago_ms: int | None = None, now: int = 0) -> None:
        self.seen = ago_ms is not None
        self.when = now - ago_ms * 1_000_000 if ago_ms is not None else 0
        self.given = ago_ms or 0

    def operands(self) -> str:
        return str(self.given) if self.seen else "never"


register(Row("last", Last))
