"""Merging adjacent header matches into one load and one comparison.

Laws:
- Only equalities of whole bytes are merged, never over another kind of statement, 16 bytes at most
  (nft: stmt_reduce, payload_do_merge).
- A merged match keeps its parts, in header order: the listing shows the parts, the machine compares the whole.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from userfw.nft import proto
from userfw.nft.syntax import (
    ConstantExpr,
    MatchStmt,
    PayloadExpr,
    RawPayloadExpr,
    RelationalExpr,
    Stmt,
)

_BASE_ORDER = {"ll": 1, "nh": 2, "th": 3, "ih": 4}


@dataclass(slots=True)
class MergedMatch(Stmt):
    """Matches of neighbouring fields, in header order."""

    parts: list[MatchStmt] = field(default_factory=list)


def merge_payloads(stmts: list[Stmt]) -> list[Stmt]:
    """The statements with neighbouring header matches merged."""
    run: list[int] = []
    groups: list[list[int]] = []
    for index, stmt in enumerate(stmts):
        if type(stmt) is not MatchStmt:
            if len(run) > 1:
                groups.append(run)
            run = []
        elif _mergeable(stmt):
            run.append(index)
    if len(run) > 1:
        groups.append(run)
    return _merged(stmts, groups) if groups else stmts


def _mergeable(stmt: MatchStmt) -> bool:
    expr = stmt.expr
    if type(expr) is not RelationalExpr or expr.op != "==" or type(expr.right) is not ConstantExpr:
        return False
    left = expr.left
    if not isinstance(left, PayloadExpr | RawPayloadExpr) or left.inner is not None:
        return False
    return not (left.offset % 8 or left.width % 8) and not isinstance(expr.right.value, bytes)


def _place(stmt: Stmt) -> tuple[int, int, int]:
    left = stmt.expr.left  # type: ignore[attr-defined]
    return _BASE_ORDER[left.base], left.offset, left.width


def _is_key(stmt: MatchStmt) -> bool:
    left = stmt.expr.left  # type: ignore[attr-defined]
    if not isinstance(left, PayloadExpr):
        return False
    row = proto.PROTOCOLS[left.protocol].fields[left.field]
    return row.is_key


def _worthwhile(width: int, size: int) -> bool:
    """A register holds 16 bytes; two comparisons of up to 4 bytes, each fast in the kernel, are not made one slow one."""
    total = width + size
    return total <= 128 and (total <= 32 or max(width, size) > 32)


def _merged(stmts: list[Stmt], groups: list[list[int]]) -> list[Stmt]:
    result: list[Stmt | None] = list(stmts)
    for group in groups:
        order = sorted(group, key=lambda index: _place(stmts[index]))
        anchor = order[0]
        parts = [stmts[anchor]]
        width = _place(stmts[anchor])[2]
        for index in order[1:]:
            base, offset, size = _place(stmts[index])
            last_base, last_offset, last_size = _place(parts[-1])
            if base == last_base and last_offset + last_size == offset and _worthwhile(width, size):
                target = index if _is_key(stmts[index]) else anchor  # type: ignore[arg-type]
                parts.append(stmts[index])
                width += size
                gone = anchor if target == index else index
                result[gone] = None
                anchor = target
                result[anchor] = MergedMatch(list(parts), loc=stmts[anchor].loc)  # type: ignore[arg-type]
            else:
                anchor, parts, width = index, [stmts[index]], size
    return [stmt for stmt in result if stmt is not None]
