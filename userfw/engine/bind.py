"""Binding names to objects, and the checks that a commit makes before anything runs.

A Scope knows the chains, sets, objects and flowtables of one table. `ruleset` supplies it; `TableScope` is the plain one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Protocol

from userfw.engine.chain import BaseChain, Chain
from userfw.engine.const import JUMP_STACK
from userfw.engine.expr import Expr
from userfw.engine.expressions.immediate import ImmediateVerdict
from userfw.engine.registry import ROWS
from userfw.engine.rule import Rule


class Scope(Protocol):
    """The names of one table. Each method raises LookupError (with the kind and the name) for what does not exist."""

    def chain(self, name: str) -> Chain:
        """The chain of that name."""

    def set(self, name: str) -> Any:
        """The engine.sets.base.Set of that name."""

    def object(self, type: int, name: str) -> Any:
        """The engine.objects.object.NamedObject of that type (OBJ_*) and name."""

    def flowtable(self, name: str) -> Any:
        """The flowtable: `add(pkt, hook)`."""


class TableScope:
    """A Scope over four dictionaries; objects are keyed by (type, name)."""

    def __init__(self) -> None:
        self.chains: dict[str, Chain] = {}
        self.sets: dict[str, Any] = {}
        self.objects: dict[tuple[int, str], Any] = {}
        self.flowtables: dict[str, Any] = {}

    def chain(self, name: str) -> Chain:
        return _named("chain", self.chains, name)  # type: ignore[no-any-return]

    def set(self, name: str) -> Any:
        return _named("set", self.sets, name)

    def object(self, type: int, name: str) -> Any:
        return _named("object", self.objects, (type, name))

    def flowtable(self, name: str) -> Any:
        return _named("flowtable", self.flowtables, name)


def _named(kind: str, table: dict[Any, Any], name: Any) -> Any:
    try:
        return table[name]
    except KeyError:
        raise LookupError(f"no {kind} {name!r}") from None


def refusal(expr: Expr, base: BaseChain) -> str | None:
    """Why `expr` cannot be in a chain that runs from `base` (Linux: ops->validate), or None."""
    place = base.family, base.hook, base.type
    row = ROWS.get(type(expr))
    if row is None:
        return None
    own = getattr(expr, "refusal", None)
    text = row.refusal(base.family, base.hook, base.type)
    if text is None and own is not None:
        text = own(base.family, base.hook, base.type)
    elif text is None:
        _LEGAL.setdefault(place, set()).add(type(expr))
    return text


def first_refusal(exprs: Iterable[Expr], base: BaseChain) -> str | None:
    """Why one of a rule's expressions cannot be there, or None."""
    legal = _LEGAL.get((base.family, base.hook, base.type), ())
    for expr in exprs:
        if type(expr) not in legal and (text := refusal(expr, base)) is not None:
            return text
    return None


_LEGAL: dict[tuple[int, int, int], set[type[Expr]]] = {}
"""For a family, hook and chain type the expressions that were found legal, whatever their arguments."""


def check_loops(chains: Iterable[Chain], rules: dict[Chain, tuple[Rule, ...]] | None = None) -> None:
    """ValueError for a cycle of jumps and gotos, for more than JUMP_STACK jumps on a path from a base chain, and for an expression
    that is illegal where the path starts (Linux: nft_chain_validate). `rules`: what a commit is about to install."""
    planned = rules or {}
    for chain in chains:
        if chain.base is not None:
            _Walk(chain.base, planned).visit(chain, 0)
    for chain in chains:
        _Walk(None, planned).visit(chain, 0)


class _Walk:
    """One depth-first walk; a chain already seen at this depth or deeper needs no second look."""

    def __init__(self, base: BaseChain | None, planned: dict[Chain, tuple[Rule, ...]]) -> None:
        self.base = base
        self.planned = planned
        self.path: list[Chain] = []
        self.seen: dict[Chain, int] = {}

    def visit(self, chain: Chain, depth: int) -> None:
        if chain in self.path:
            raise ValueError(f"chain {chain.name} jumps to itself through {self.path[-1].name} (ELOOP)")
        if depth > JUMP_STACK and self.base is not None:
            raise ValueError(f"jumps nested deeper than {JUMP_STACK} at chain {chain.name} (EMLINK)")
        if self.seen.get(chain, -1) >= depth:
            return
        self.seen[chain] = depth
        self.path.append(chain)
        for rule in self.planned.get(chain, chain.rules):
            if self.base is not None and (text := first_refusal(rule.exprs, self.base)) is not None:
                raise ValueError(text)
            for expr in rule.exprs:
                for target, jumps in targets(expr):
                    self.visit(target, depth + jumps)
        self.path.pop()


def targets(expr: Expr) -> Iterator[tuple[Chain, int]]:
    """The chains that `expr` may lead to, each with 1 for a jump and 0 for a goto."""
    if isinstance(expr, ImmediateVerdict):
        if expr.target is not None:
            yield expr.target, int(expr.code == -3)
    elif getattr(expr, "dreg", None) == 0 and getattr(expr, "set", None) is not None:
        yield from expr.set.targets()  # type: ignore[attr-defined]
