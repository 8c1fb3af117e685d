"""Trees that show the state of now: counters, quotas, `last`, elements that packets added or that will expire.

Laws:
- Nothing of the model is written: a tree is copied where its state differs from what was written.
- State comes from `engine` expressions in the order of the statements that made them: the n-th counter of a rule's
  statements is the n-th counter of its program.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from userfw.nft.syntax import ChainBlock, CounterStmt, LastStmt, Node, ObjectBlock, QuotaStmt, RuleBlock, Stmt, VerdictExpr
from userfw.ruleset.model import Chain, Object, Rule

NSEC_PER_MSEC = 1_000_000

_KINDS = {CounterStmt: "counter", QuotaStmt: "quota", LastStmt: "last"}


def stateful(exprs: Iterable[Any]) -> list[Any]:
    """The expressions of a program that keep state which a listing shows."""
    return [expr for expr in exprs if expr.kind in ("counter", "quota", "last")]


def with_state(stmt: Stmt, expr: Any, now: int) -> Stmt:
    """A statement with the state of its expression; `now` in monotonic nanoseconds."""
    if isinstance(stmt, CounterStmt):
        packets, count = expr.state()
        return stmt if (packets, count) == (stmt.packets, stmt.bytes) else replace(stmt, packets=packets, bytes=count)
    if isinstance(stmt, QuotaStmt):
        used = expr.consumed()
        return stmt if used == stmt.used else replace(stmt, used=used)
    if isinstance(stmt, LastStmt):
        return replace(stmt, used=(now - expr.when) // NSEC_PER_MSEC if expr.seen else None)
    return stmt


def with_states(stmts: Sequence[Stmt], exprs: Iterable[Any], now: int) -> list[Stmt]:
    """Statements with the state of the expressions made from them."""
    left = stateful(exprs)
    result: list[Stmt] = []
    for stmt in stmts:
        kind = _KINDS.get(type(stmt))
        if kind is not None:
            at = next((i for i, expr in enumerate(left) if expr.kind == kind), None)
            if at is not None:
                stmt = with_state(stmt, left.pop(at), now)
        result.append(stmt)
    return result


def rule_block(rule: Rule, now: int) -> RuleBlock:
    """A rule's tree with its counters and its handle."""
    node = rule.node
    stmts: list[Stmt] = node.stmts
    if rule.program is not None:
        stmts = with_states(stmts, rule.program.exprs, now)
    if rule.bound:
        bound = list(rule.bound)
        stmts = [_with_chains(stmt, bound, now) for stmt in stmts]
    return RuleBlock(list(stmts), node.comment, rule.handle, loc=node.loc)


def _with_chains(node: Any, bound: list[Chain], now: int) -> Any:
    """The tree with its anonymous chains as they are now, in order."""
    if isinstance(node, VerdictExpr) and node.block is not None:
        chain = bound.pop(0)
        block = replace(node.block, rules=[rule_block(rule, now) for rule in chain.rules], handle=chain.handle)
        return replace(node, block=block)
    changes: dict[str, Any] = {}
    for name in node.__dataclass_fields__:
        if name in ("loc", "dtype", "target"):
            continue
        value = getattr(node, name)
        if isinstance(value, Node):
            fresh = _with_chains(value, bound, now)
            if fresh is not value:
                changes[name] = fresh
        elif isinstance(value, list) and value and isinstance(value[0], Node):
            changes[name] = [_with_chains(item, bound, now) for item in value]
    return replace(node, **changes) if changes else node


def object_block(entry: Object, now: int) -> ObjectBlock:
    """A stateful object with its state and its handle."""
    body = entry.node.body
    if entry.engine is not None and isinstance(body, Stmt) and type(body) in _KINDS:
        body = with_state(body, entry.engine.expr, now)
    return replace(entry.node, body=body, handle=entry.handle)


def chain_header(chain: Chain) -> ChainBlock:
    """A chain without its rules."""
    return replace(chain.node, rules=[], handle=chain.handle)
