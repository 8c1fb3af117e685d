"""Stateful statements and objects as engine expressions: what a named object, a set or an element holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from userfw.engine.expr import Expr
from userfw.engine.expressions.connlimit import Connlimit
from userfw.engine.expressions.counter import Counter
from userfw.engine.expressions.last import Last
from userfw.engine.expressions.limit import Limit
from userfw.engine.expressions.quota import Quota
from userfw.engine.expressions.synproxy import Synproxy
from userfw.nft.location import NftError
from userfw.nft.syntax import ConnlimitStmt, CounterStmt, LastStmt, LimitStmt, Node, QuotaStmt, Stmt, SynproxyStmt

DEFAULT_BURST = 5
NSEC_PER_MSEC = 1_000_000
UNITS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400, "week": 604800}


def stateful_expr(stmt: Node, now: int = 0) -> Expr:
    """The engine's expression of a stateful statement. NftError for a statement that keeps no state."""
    maker = _MAKERS.get(type(stmt))
    if maker is None:
        raise NftError("statement is not stateful", stmt.loc)
    try:
        return maker(stmt, now)
    except ValueError as problem:
        raise NftError(str(problem), stmt.loc) from None


def stateful_exprs(stmts: Iterable[Node], now: int = 0) -> tuple[Expr, ...]:
    """The expressions of several statements."""
    return tuple(stateful_expr(stmt, now) for stmt in stmts)


def _limit(stmt: LimitStmt, now: int) -> Expr:
    burst = stmt.burst if stmt.burst is not None else 0 if stmt.bytes else DEFAULT_BURST
    return Limit(stmt.rate, stmt.per, burst, stmt.bytes, stmt.over)


_MAKERS: dict[type[Any], Callable[[Any, int], Expr]] = {
    CounterStmt: lambda stmt, now: Counter(stmt.packets, stmt.bytes),
    QuotaStmt: lambda stmt, now: Quota(stmt.bytes, stmt.used, stmt.over),
    LimitStmt: _limit,
    LastStmt: lambda stmt, now: Last(stmt.used, now),
    ConnlimitStmt: lambda stmt, now: Connlimit(stmt.count, stmt.over),
    SynproxyStmt: lambda stmt, now: Synproxy(stmt.mss, stmt.wscale, stmt.timestamp, stmt.sack_perm),
}


def statement_of(expr: Expr, now: int = 0) -> Stmt:
    """The statement that an expression was made from, with the state of now: for elements that packets added."""
    if isinstance(expr, Counter):
        return CounterStmt(expr.packets, expr.bytes)
    if isinstance(expr, Quota):
        return QuotaStmt(expr.quota, expr.consumed(), bool(expr.over))
    if isinstance(expr, Limit):
        unit = next(name for name, seconds in UNITS.items() if seconds == expr.unit)
        return LimitStmt(expr.rate, unit, bool(expr.by_bytes), expr.burst, bool(expr.invert))
    if isinstance(expr, Last):
        return LastStmt((now - expr.when) // NSEC_PER_MSEC if expr.seen else None)
    assert isinstance(expr, Connlimit)
    return ConnlimitStmt(expr.count, bool(expr.over))
