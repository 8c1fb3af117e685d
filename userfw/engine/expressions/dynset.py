"""dynset: packets add, renew and delete elements of a set (Linux: nft_dynset.c)."""

from __future__ import annotations

from typing import Any

from userfw.engine.expr import Expr, register_offset
from userfw.engine.registry import Row, register

_OPERATIONS = {"add": 0, "update": 1, "delete": 2}
_OPERATION_NAMES = {number: name for name, number in _OPERATIONS.items()}


class Dynset(Expr):
    """`op` add, update or delete the key in `sreg_key`, with data from `sreg_data`; `timeout` in ms (0: the set's own).

    `exprs`: stateful expressions that every new element gets a fresh copy of and that run for this packet.
    """

    kind = "dynset"

    def __init__(
        self,
        op: str,
        sreg_key: int,
        set_name: str,
        sreg_data: int | None = None,
        timeout: int = 0,
        exprs: tuple[Expr, ...] = (),
        invert: bool = False,
    ) -> None:
        if op not in _OPERATIONS:
            raise ValueError(f"no dynset operation {op!r}")
        if timeout < 0:
            raise ValueError("a timeout is not negative")
        self.op = _OPERATIONS[op]
        self.src = register_offset(sreg_key)
        self.data_src = -1 if sreg_data is None else register_offset(sreg_data)
        self.sreg_key = sreg_key
        self.sreg_data = -1 if sreg_data is None else sreg_data
        self.set_name = set_name
        self.timeout_ms = timeout
        self.exprs = tuple(exprs)
        self.invert = invert
        self.set: Any = None

    def operands(self) -> str:
        text = f"{_OPERATION_NAMES[self.op]} reg_key {self.sreg_key} set {self.set_name}"
        if self.sreg_data >= 0:
            text += f" sreg_data {self.sreg_data}"
        if self.timeout_ms:
            text += f" timeout {self.timeout_ms}ms"
        return text + "".join(f" expr {expr.render()}" for expr in self.exprs)


register(Row("dynset", Dynset))
