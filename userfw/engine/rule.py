"""Rule: expressions in order, and where they came from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cython

if not cython.compiled:
    from userfw.engine.expr import Expr
if TYPE_CHECKING:
    from userfw.engine.bind import Scope


class Rule:
    """`exprs` as they were given, `ops` what runs: bound and, where possible, fused.

    - `handle`: nft's; `location`: file, line and column in the ruleset (nft.location.Location) or None; `comment`; `owner`: the
      model's rule.
    - A rule is bound once, when it is built, and never changes afterwards: a new version is a new Rule.
    """

    def __init__(
        self, exprs: tuple[Expr, ...], handle: int = 0, location: Any = None, comment: str | None = None, owner: Any = None
    ) -> None:
        self.exprs = tuple(exprs)
        self.ops: tuple[Expr, ...] = self.exprs
        self.count = len(self.ops)
        self.handle = handle
        self.location = location
        self.comment = comment
        self.owner = owner

    def bind(self, scope: Scope, fuse: bool = True) -> Rule:
        """Resolve names and prepare what runs; returns itself. LookupError names what is missing."""
        from userfw.engine.fuse import fused

        for expr in self.exprs:
            expr.bind(scope)
        self.ops = fused(self.exprs) if fuse else self.exprs
        self.count = len(self.ops)
        return self

    def run(self, ops: tuple[Expr, ...]) -> Rule:
        """Run these steps, which somebody has bound and fused already; returns itself."""
        self.ops = ops
        self.count = len(ops)
        return self

    def render(self) -> str:
        """The listing of `nft --debug=netlink`, one expression a line."""
        return "\n".join(f"  {expr.render()}" for expr in self.exprs)
