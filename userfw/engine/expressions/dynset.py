"""dynset: packets add, renew and delete elements of a set (Linux: nft_dynset.c)."""

from __future__ import annotations

from typing import Any

import cython

from userfw.engine.const import SET_CONSTANT, SET_TIMEOUT
from userfw.engine.expr import Expr, register_offset
from userfw.engine.registry import TRACKED, Row, register

EXPR_MAX = 2  # Linux: NFT_SET_EXPR_MAX
_OPERATIONS = {"add": 0, "update": 1, "delete": 2}
_OPERATION_NAMES = {number: name for name, number in _OPERATIONS.items()}

if not cython.compiled:
    from userfw.core.const import NFT_BREAK, NFT_CONTINUE
    from userfw.core.packet import Packet
    from userfw.engine.const import DYNSET_DELETE, DYNSET_UPDATE
    from userfw.engine.context import Context
    from userfw.engine.sets.base import Set


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
        self.given = self.exprs
        self.invert = invert
        self.lifetime = timeout * 1_000_000
        self.set: Any = None

    def evaluate(self, ctx: Context, pkt: Packet) -> cython.int:
        table: Set = self.set
        id: cython.Py_ssize_t
        if self.op == DYNSET_DELETE:
            table.forget(ctx.regs, self.src)
            return NFT_CONTINUE
        id = table.obtain(ctx.regs, self.src, self.data_src, self.lifetime, self.exprs)
        if id < 0:
            return NFT_CONTINUE if self.invert else NFT_BREAK
        if self.op == DYNSET_UPDATE:
            table.renew(id, self.lifetime)
        verdict: cython.int = table.run_exprs(id, ctx, pkt) if table.store.expr_count else NFT_CONTINUE
        return NFT_BREAK if self.invert else verdict

    def operands(self) -> str:
        text = f"{_OPERATION_NAMES[self.op]} reg_key {self.sreg_key} set {self.set_name}"
        if self.sreg_data >= 0:
            text += f" sreg_data {self.sreg_data}"
        if self.timeout_ms:
            text += f" timeout {self.timeout_ms}ms"
        return text + "".join(f" expr {expr.render()}" for expr in self.given)

    def refusal(self, family: int, hook: int, chain_type: int) -> str | None:
        """What counts connections needs a family that has them (Linux: nft_connlimit_do_init)."""
        counts = any(expr.kind == "connlimit" for expr in self.given)
        return "connlimit: not supported in this family (EPROTO)" if counts and family not in TRACKED else None

    def bind(self, scope: Any) -> None:
        """Ranges cannot be added from packets; a timeout needs a set that has them (Linux: nft_dynset_init)."""
        table = scope.set(self.set_name)
        if self.data_src >= 0 and table.data_type != 1:
            raise ValueError(f"{self.set_name} is no map of data (EOPNOTSUPP)")
        if table.flags & SET_CONSTANT:
            raise ValueError(f"{self.set_name} is constant (EOPNOTSUPP)")
        if self.timeout_ms and not table.flags & SET_TIMEOUT:
            raise ValueError(f"{self.set_name} has no timeouts (EOPNOTSUPP)")
        self._check_exprs(table)
        register_offset(self.sreg_key, table.klen)
        if self.data_src >= 0:
            register_offset(self.sreg_data, table.dlen)
        if not self.exprs:
            self.exprs = table.exprs
        self.set = table

    def _check_exprs(self, table: Set) -> None:
        """What elements are given must be what the set declares, if it declares anything."""
        if len(self.given) > EXPR_MAX:
            raise ValueError(f"more than {EXPR_MAX} statements in an element (E2BIG)")
        if any(expr.kind == "connlimit" for expr in self.given) and table.flags & SET_TIMEOUT:
            raise ValueError(f"{self.set_name} has timeouts, its elements cannot count connections (EOPNOTSUPP)")
        if not self.given or not table.exprs:
            return
        ours, declared = [expr.kind for expr in self.given], [expr.kind for expr in table.exprs]
        if len(ours) > 1 and len(ours) > len(declared):
            raise ValueError(f"{self.set_name} declares {', '.join(declared)} only (EINVAL)")
        if ours != declared:
            raise ValueError(f"{self.set_name} declares {', '.join(declared)} (EOPNOTSUPP)")


register(Row("dynset", Dynset))
