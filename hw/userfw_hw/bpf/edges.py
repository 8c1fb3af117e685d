"""How each kind of program reaches a packet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Edge:
    """Offsets of data and data_end in a program's context, its verdicts "not mine" and "drop"."""

    name: str
    data: int
    data_end: int
    passed: int
    dropped: int


XDP: Final = Edge("xdp", 0, 4, 2, 1)
TC: Final = Edge("tc", 76, 80, -1, 2)  # TC_ACT_UNSPEC: the next program or filter decides
