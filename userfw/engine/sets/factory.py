"""Which index a set gets, by what nft says about it (Linux: nft_select_set_ops)."""

from __future__ import annotations

from typing import Any

from userfw.core.clock import Clock
from userfw.engine.const import SET_INTERVAL
from userfw.engine.sets.base import DATA_NONE, Set
from userfw.engine.sets.hash import HashSet, SmallSet
from userfw.engine.sets.interval import IntervalSet
from userfw.engine.sets.ranges import RangeSet


def make_set(
    name: str,
    klen: int,
    clock: Clock,
    flags: int = 0,
    fields: tuple[tuple[int, int], ...] = (),
    seed: int = 0x9E3779B9,
    **options: Any,
) -> Set:
    """The set for keys of `klen` bytes. `fields`: (offset, length) of each field of a concatenation, offsets being multiples of 4.

    Other options as in engine.sets.base.Set: dlen, data_type, timeout, size, exprs, table.
    """
    if flags & SET_INTERVAL:
        if len(fields) > 1:
            return RangeSet(name, klen, clock, seed=seed, flags=flags, fields=fields, **options)
        return IntervalSet(name, klen, clock, flags=flags, fields=fields, **options)
    if klen <= 2 and options.get("data_type", DATA_NONE) == DATA_NONE and not options.get("exprs"):
        return SmallSet(name, klen, clock, seed=seed, flags=flags, fields=fields, **options)
    return HashSet(name, klen, clock, seed=seed, flags=flags, fields=fields, **options)
