"""connlimit: `ct count`, how many live connections reach the rule (Linux: nft_connlimit.c, nf_conncount.c)."""

from __future__ import annotations

from userfw.engine.expr import Expr
from userfw.engine.registry import Row, register


class Connlimit(Expr):
    """Goes on while there are at most `count` connections (`over`: when there are more)."""

    kind = "connlimit"

    def __init__(self, count: int, over: bool = False) -> None:
        if not 0 <= count <= 0xFFFFFFFF:
            raise ValueError("count is 32 bits")
        self.count = count
        self.over = over

    def operands(self) -> str:
        return f"count {self.count} flags {int(self.over)}"


register(Row("connlimit", Connlimit))
