"""quota: bytes until a limit (Linux: nft_quota.c)."""

from __future__ import annotations

from userfw.engine.expr import Expr
from userfw.engine.registry import Row, register


class Quota(Expr):
    """Goes on while fewer than `quota` bytes have passed (`over`: from then on). `consumed` starts the count."""

    kind = "quota"

    def __init__(self, quota: int, consumed: int = 0, over: bool = False) -> None:
        if quota < 0 or consumed < 0:
            raise ValueError("a quota is not negative")
        self.quota = quota
        self.used = consumed
        self.over = over
        self.depleted = False

    def operands(self) -> str:
        return f"bytes {self.quota} consumed {self.consumed()} flags {int(self.over)}"

    def consumed(self) -> int:
        """Bytes used, at most the quota (as listed)."""
        return min(self.used, self.quota)


register(Row("quota", Quota))
