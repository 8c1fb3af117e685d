"""limit: a token bucket shared by all packets that reach it (Linux: nft_limit.c), exact to the nanosecond."""

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

_UNITS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400, "week": 604800}
_UNIT_NAMES = {seconds: name for name, seconds in _UNITS.items()}


_MOST = (1 << 63) - 1


class Limit(Expr):
    """`rate` per `unit` (second, minute, hour, day, week) in packets, or bytes if `by_bytes`; `invert`: go on when over the rate.

    `burst`: packets (nft's default 5) or bytes (default 0) above the rate. `slot`: where several processes keep one bucket.
    """

    kind = "limit"

    def __init__(self, rate: int, unit: str = "second", burst: int = 5, by_bytes: bool = False, invert: bool = False) -> None:
        if unit not in _UNITS:
            raise ValueError(f"no unit of time {unit!r}")
        if rate <= 0:
            raise ValueError("a rate is above zero")
        if not 0 <= burst <= 0xFFFFFFFF:
            raise ValueError("burst is 32 bits")
        self.rate = rate
        self.unit = _UNITS[unit]
        self.burst = burst
        self.by_bytes = by_bytes
        self.invert = invert
        self.nsecs = self.unit * 1_000_000_000
        if by_bytes:
            self.tokens_max = self.nsecs * (rate + burst) // rate
        else:
            self.tokens_max = self.nsecs // rate * (burst or 5)
        if self.tokens_max > _MOST:
            raise ValueError("rate and burst are too large (EOVERFLOW)")
        self.cost = self.nsecs // rate
        self.tokens = self.tokens_max
        self.last = 0
        self.slot: Shared | None = None

    def evaluate(self, ctx: Context, pkt: Packet) -> cython.int:
        now: cython.ulonglong = ctx.clock.now
        cost: cython.ulonglong = self.cost
        tokens: cython.ulonglong = self.tokens_max
        if self.by_bytes:
            cost = packet_length(ctx, pkt)
            cost = self.nsecs * cost // self.rate
        if self.slot is not None:
            return NFT_CONTINUE if self.slot.take(now, cost, self.tokens_max) != self.invert else NFT_BREAK
        # a gap longer than the bucket fills it; this also keeps the sum from wrapping
        if now - self.last < self.tokens_max - self.tokens:
            tokens = self.tokens + (now - self.last)
        self.last = now
        if tokens >= cost:
            self.tokens = tokens - cost
            return NFT_BREAK if self.invert else NFT_CONTINUE
        self.tokens = tokens
        return NFT_CONTINUE if self.invert else NFT_BREAK

    def operands(self) -> str:
        kind = "bytes" if self.by_bytes else "packets"
        return f"rate {self.rate}/{_UNIT_NAMES[self.unit]} burst {self.burst} type {kind} flags 0x{int(self.invert):x}"

    def clone(self) -> Limit:
        return Limit(self.rate, _UNIT_NAMES[self.unit], self.burst, self.by_bytes, self.invert)

    def state(self) -> tuple[int, ...]:
        if self.slot is not None:
            full: int = self.slot.load()
            return (0, full - self.tokens_max) if full >= self.tokens_max else (self.tokens_max - full, 0)
        return (self.tokens, self.last)

    def restore(self, state: tuple[int, ...]) -> None:
        self.tokens, self.last = state
        if self.slot is not None:
            self.slot.store(self.initial())

    def initial(self) -> int:
        """What a slot for this bucket starts with: when it will be full again."""
        return int(self.last + (self.tokens_max - self.tokens))

    def join(self, slot: Shared | None) -> None:
        """Keep the tokens there from now on; None: alone, which nobody minds of what no packet meets any more."""
        self.slot = slot


register(Row("limit", Limit))
