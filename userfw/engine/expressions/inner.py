"""inner: evaluate a payload or meta expression on the packet inside a tunnel (Linux: nft_inner.c)."""

from __future__ import annotations

from userfw.engine.expr import Expr
from userfw.engine.expressions.meta import Meta
from userfw.engine.expressions.payload import Payload
from userfw.engine.registry import Row, register

_TYPES = {"vxlan": (1, 8, 0xF), "geneve": (2, 8, 0xF), "gre": (3, 4, 0xC), "gretap": (4, 4, 0xE)}
_NAMES = {number: name for name, (number, _, _) in _TYPES.items()}


class Inner(Expr):
    """`expr` (a Payload, or a Meta of protocol or l4proto) seen from inside a `tunnel`: vxlan, geneve, gre or gretap."""

    kind = "inner"

    def __init__(self, tunnel: str, expr: Expr) -> None:
        if tunnel not in _TYPES:
            raise ValueError(f"no tunnel {tunnel!r}")
        if isinstance(expr, Meta):
            if expr.key not in (1, 16):
                raise ValueError("only meta protocol and l4proto exist inside a tunnel")
        elif not isinstance(expr, Payload):
            raise ValueError("only payload and meta work inside a tunnel")
        self.type, self.hdrsize, self.flags = _TYPES[tunnel]
        self.expr = expr
        self.is_meta = isinstance(expr, Meta)

    def operands(self) -> str:
        return f"type {self.type} hdrsize {self.hdrsize} flags {self.flags:x} {self.expr.render()}"


register(Row("inner", Inner))
