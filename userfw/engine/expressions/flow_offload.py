"""flow_offload: hand the connection to a flowtable (Linux: nft_flow_offload.c)."""

from __future__ import annotations

from typing import Any

import cython

from userfw.engine.expr import Expr
from userfw.engine.registry import FWD, Row, hooks, register

if not cython.compiled:
    from userfw.core.const import NFT_BREAK, NFT_CONTINUE
    from userfw.core.packet import Packet
    from userfw.engine.context import Context
    from userfw.engine.expr import Expr


class FlowOffload(Expr):
    """`flow add @NAME`: `table` is the flowtable room's object, whose `add(pkt, hook)` decides; the rule goes on or breaks."""

    kind = "flow_offload"

    def __init__(self, flowtable: str) -> None:
        self.flowtable = flowtable
        self.table: Any = None

    def evaluate(self, ctx: Context, pkt: Packet) -> cython.int:
        return NFT_CONTINUE if self.table.add(pkt, ctx.hook) else NFT_BREAK

    def operands(self) -> str:
        return f"flowtable {self.flowtable}"

    def bind(self, scope: Any) -> None:
        self.table = scope.flowtable(self.flowtable)


register(Row("flow_offload", FlowOffload, hooks=hooks(FWD)))
