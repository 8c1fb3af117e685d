"""limit: a token bucket shared by all packets that reach it (Linux: nft_limit.c), exact to the nanosecond."""

from __future__ import annotations

from userfw.engine.expr import Expr
from userfw.engine.registry import Row, register

_UNITS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400, "week": 604800}
_UNIT_NAMES = {seconds: name for name, seconds in _UNITS.items()}


class Limit(Expr):
    """`rate` per `unit` (second, minute, hour, day, week) in packets, or bytes if `by_bytes`; `invert`: go on when over the rate.

    `burst`: packets (nft's default 5) or bytes (default 0) above the rate.
    """

    kind = "limit"

    def __init__(
        self, rate: int, unit: str = "second", burst: int = 5, by_bytes: bool = False, invert: bool = False
    ) -> None:
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

    def operands(self) -> str:
        kind = "bytes" if self.by_bytes else "packets"
        return f"rate {self.rate}/{_UNIT_NAMES[self.unit]} burst {self.burst} type {kind} flags 0x{int(self.invert):x}"

    def clone(self) -> Limit:
        return Limit(self.rate, _UNIT_NAMES[self.unit], self.burst, self.by_bytes, self.invert)


register(Row("limit", Limit))
