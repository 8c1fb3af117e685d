"""flow_offload: hand the connection to a flowtable (Linux: nft_flow_offload.c)."""

from __future__ import annotations

from typing import Any

from userfw.engine.expr import Expr
from userfw.engine.registry import FWD, Row, hooks, register


class FlowOffload(Expr):
    """`flow add @NAME`: `table` is the flowtable room's object, whose `add(pkt, hook)` decides; the rule goes on or breaks."""

    kind = "flow_offload"

    def __init__(self, flowtable: str) -> None:
        self.flowtable = flowtable
        self.table: Any = None

    def operands(self) -> str:
        return f"flowtable {self.flowtable}"

    def bind(self, scope: Any) -> None:
        self.table = scope.flowtable(self.flowtable)


register(Row("flow_offload", FlowOffload, hooks=hooks(FWD)))
