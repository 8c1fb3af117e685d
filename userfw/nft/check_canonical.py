"""From what runs back to what ``nft list`` prints."""

from __future__ import annotations

from userfw.nft.check_merge import MergedMatch
from userfw.nft.syntax import Stmt


def canonical_stmts(stmts: list[Stmt], family: str) -> list[Stmt]:
    """The statements as nft lists them."""
    out: list[Stmt] = []
    for stmt in stmts:
        if isinstance(stmt, MergedMatch):
            out.extend(stmt.parts)
        else:
            out.append(stmt)
    return out
