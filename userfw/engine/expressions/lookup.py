"""lookup: is the key in the set; a map also gives data or a verdict (Linux: nft_lookup.c)."""

from __future__ import annotations

from typing import Any

from userfw.engine.expr import Expr, register_offset
from userfw.engine.registry import Row, register


class Lookup(Expr):
    """`sreg` looked up in `set_name`; `invert`: go on if absent. `dreg` None: a set; 0: a verdict map; else the map's data register."""

    kind = "lookup"

    def __init__(self, sreg: int, set_name: str, dreg: int | None = None, invert: bool = False) -> None:
        if invert and dreg is not None:
            raise ValueError("an inverted lookup gives no data")
        self.src = register_offset(sreg)
        self.dst = register_offset(dreg) if dreg else -1
        self.sreg = sreg
        self.dreg = -1 if dreg is None else dreg
        self.set_name = set_name
        self.invert = invert
        self.set: Any = None

    def operands(self) -> str:
        text = f"reg {self.sreg} set {self.set_name}"
        if self.dreg >= 0:
            text += f" dreg {self.dreg}"
        return text + (" 0x1" if self.invert else "")


register(Row("lookup", Lookup))
