"""Whether chains may hold their rules: jumps only to regular chains, never too deep, each expression where Linux allows it.

Laws:
- Only what a base chain reaches is validated, as in Linux (nft_table_validate, nft_chain_validate): a loop among regular
  chains that nobody enters is accepted. A loop that is entered is one that is too deep: EMLINK.
- Only tables that the transaction touched are validated, each chain once for each base chain and depth; in them only new
  rules, unless the transaction opened new ways.
- An error stands at the command that brought the rule.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from userfw.nft.location import Location, NftError
from userfw.nft.syntax import VerdictExpr
from userfw.ruleset.model import Chain, Ref, Rule, Table
from userfw.ruleset.problems import no_chain, no_flowtable, no_object, no_set, refused

if TYPE_CHECKING:
    from userfw.ruleset.draft import Draft

JUMP_STACK = 16
"""How deep jumps may nest (Linux: NFT_JUMP_STACK_SIZE)."""


def validate(draft: Draft) -> list[NftError]:
    """Every table that got new rules, elements with verdicts, or base chains."""
    errors: list[NftError] = []
    for key, loc in draft.dirty_tables.items():
        table = draft.rules.tables.get(key)
        if table is None:
            continue
        checker = _Validator(draft, table, loc)
        for chain in table.base_chains():
            problem = checker.chain(chain, chain, 0)
            if problem is not None:
                errors.append(problem)
                break
    return errors


class _Validator:
    """One table. What every chain jumps to is kept with the chain; rules that are not new were checked when they came, unless
    the transaction opened a way to them (a new jump or base chain)."""

    def __init__(self, draft: Draft, table: Table, loc: Location) -> None:
        self.draft = draft
        self.table = table
        self.loc = loc
        self.depth: dict[tuple[str, int], int] = {}
        self.maps: dict[str, list[str]] = {}
        self.new = draft.new_rules.get(table.key, {})
        self.fresh: set[int] | None = None
        self.all = table.key in draft.new_ways or any(_leads(rule) for rules in self.new.values() for rule in rules)

    def chain(self, chain: Chain, base: Chain, level: int, blame: Location | None = None) -> NftError | None:
        """Walk a chain at a depth; a chain that was walked at this depth or deeper below the same base needs no second look."""
        if level == JUMP_STACK:
            return refused(errno.EMLINK, blame or self.loc)
        key = chain.name, id(base)
        if self.depth.get(key, -1) >= level:
            return None
        first = key not in self.depth
        self.depth[key] = level
        if first:
            for rule in chain.rules if self.all else self.new.get(chain.name, ()):
                number = self.draft.backend.refusal(self.table, chain, rule, base)
                if number:
                    return refused(number, self._blame(rule))
        for target, rule in self._jumps(chain):
            problem = self.chain(target, base, level + 1, self._blame(rule))
            if problem is not None:
                return problem
        return None

    def _jumps(self, chain: Chain) -> list[tuple[Chain, Rule]]:
        """The chains that a chain's rules lead to, each with the last rule that does."""
        found: dict[str, Rule] = {}
        for rule in chain.rules:
            if rule.refs or rule.bound:
                for ref in rule.refs:
                    if ref.kind == "chain":
                        found[ref.name] = rule
                    elif ref.kind == "set":
                        found.update(dict.fromkeys(self._map_targets(ref.name), rule))
                for bound in rule.bound:
                    found[bound.name] = rule
        chains = self.table.chains
        return [(chains[name], rule) for name, rule in found.items() if name in chains]

    def _map_targets(self, name: str) -> list[str]:
        """The chains that a verdict map jumps to."""
        found = self.maps.get(name)
        if found is None:
            entry = self.table.sets.get(name)
            found = []
            if entry is not None and entry.node.is_map and entry.node.objtype is None:
                for element in self.draft.elements(entry):
                    data = element.node.data
                    if not isinstance(data, VerdictExpr):
                        break
                    if data.chain is not None:
                        found.append(data.chain)
                found = list(dict.fromkeys(found))
            self.maps[name] = found
        return found

    def _blame(self, rule: Rule) -> Location:
        """Where a problem is shown: at the rule if this transaction brought it."""
        if self.fresh is None:
            self.fresh = {id(rule) for rules in self.new.values() for rule in rules}
        return rule.loc if id(rule) in self.fresh else self.loc


def _leads(rule: Rule) -> bool:
    """Whether a rule may lead into another chain."""
    return bool(rule.bound) or any(ref.kind in ("chain", "set") for ref in rule.refs)


def verdict_place(node: Any, name: str, loc: Location) -> Location:
    """Where in a rule the chain of a jump statement is named, else `loc`."""
    for stmt in getattr(node, "stmts", ()):
        expr = getattr(stmt, "expr", None)
        if isinstance(expr, VerdictExpr) and expr.chain == name and expr.loc.known:
            return Location(expr.loc.source, max(expr.loc.start, expr.loc.end - len(name)), expr.loc.end)
    return loc


def check_refs(draft: Draft, table: Table, refs: Iterable[Ref], loc: Location, node: Any = None) -> None:
    """Whether what a new rule (`node`) or element refers to is there, and jumps go to regular chains (Linux: nft_verdict_init)."""
    for ref in refs:
        if ref.kind == "chain":
            chain = table.chains.get(ref.name)
            if chain is None:
                raise no_chain(draft.rules, table, ref.name, verdict_place(node, ref.name, loc))
            if chain.is_base:
                raise refused(errno.EOPNOTSUPP, verdict_place(node, ref.name, loc))
        elif ref.kind == "set":
            if ref.name not in table.sets:
                raise no_set(draft.rules, table, ref.name, loc)
        elif ref.kind == "flowtable":
            if ref.name not in table.flowtables:
                raise no_flowtable(draft.rules, table, ref.name, loc)
        elif ref.kind != "need" and ref not in table.objects:
            raise no_object(draft.rules, table, ref.kind, ref.name, loc)
