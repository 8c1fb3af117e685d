"""From what runs back to what ``nft list`` prints."""
from __future__ import annotations

from userfw.nft.syntax import Stmt


def canonical_stmts(stmts: list[Stmt], family: str) -> list[Stmt]:
    return stmts
