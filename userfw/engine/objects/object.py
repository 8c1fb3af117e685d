"""NamedObject: a counter, quota, limit, … that rules share. What it does is an expression; the object adds name and identity."""

from __future__ import annotations

from typing import Any

import cython

if not cython.compiled:
    from userfw.engine.expr import Expr


class NamedObject:
    """`type`: OBJ_*; `expr`: what runs (Counter, Quota, Limit, Connlimit, Synproxy, CtHelper, CtTimeout, CtExpectation, Secmark).

    Updating an object (quota and limit may be changed in place) replaces `expr`; rules refer to the object.
    """

    def __init__(
        self, type: int, name: str, expr: Expr, table: str = "", family: int = 0, comment: Any = None, owner: Any = None
    ) -> None:
        self.type = type
        self.name = name
        self.expr = expr
        self.table = table
        self.family = family
        self.handle = 0
        self.comment = comment
        self.owner = owner
