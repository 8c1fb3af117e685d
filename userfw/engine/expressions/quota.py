"""quota: bytes until a limit (Linux: nft_quota.c)."""

from __future__ import annotations

import cython

from userfw.engine.expr import Expr
from userfw.engine.registry import Row, register

if not cython.compiled:
    from userfw.core.const import NFT_BREAK, NFT_CONTINUE
    from userfw.core.packet import Packet
    from userfw.engine.context import Context
    from userfw.engine.expr import Expr
    from userfw.engine.expressions.counter import packet_length
    from userfw.engine.shared import Shared


class Quota(Expr):
    """Goes on while fewer than `quota` bytes have passed (`over`: from then on). `consumed` starts the count. `slot`: where several
    processes keep one count."""

    kind = "quota"

    def __init__(self, quota: int, consumed: int = 0, over: bool = False) -> None:
        if quota < 0 or consumed < 0:
            raise ValueError("a quota is not negative")
        self.quota = quota
        self.used = consumed
        self.over = over
        self.depleted = False
        self.slot: Shared | None = None

    def evaluate(self, ctx: Context, pkt: Packet) -> cython.int:
        used: cython.ulonglong
        if self.slot is not None:
            used = self.slot.add(packet_length(ctx, pkt))
            if used >= self.quota and self.slot.first():
                ctx.services.quota_depleted(self)
            return NFT_CONTINUE if (used > self.quota) == self.over else NFT_BREAK
        self.used += packet_length(ctx, pkt)
        if self.used >= self.quota and not self.depleted:
            self.depleted = True
            ctx.services.quota_depleted(self)
        return NFT_CONTINUE if (self.used > self.quota) == self.over else NFT_BREAK

    def operands(self) -> str:
        return f"bytes {self.quota} consumed {self.consumed()} flags {int(self.over)}"

    def consumed(self) -> int:
        """Bytes used, at most the quota (as listed)."""
        return min(self.used if self.slot is None else self.slot.load(), self.quota)

    def clone(self) -> Quota:
        return Quota(self.quota, 0, self.over)

    def reset(self) -> None:
        self.used = 0
        self.depleted = False
        if self.slot is not None:
            self.slot.store(0)
            self.slot.again()

    def state(self) -> tuple[int, ...]:
        return (self.used if self.slot is None else self.slot.load(),)

    def restore(self, state: tuple[int, ...]) -> None:
        (self.used,) = state
        self.depleted = self.used >= self.quota
        if self.slot is not None:
            self.slot.store(self.used)

    def initial(self) -> int:
        """What a slot for this count starts with."""
        return self.used

    def join(self, slot: Shared | None) -> None:
        """Count there from now on; None: alone, which nobody minds of what no packet meets any more."""
        self.slot = slot


register(Row("quota", Quota))
