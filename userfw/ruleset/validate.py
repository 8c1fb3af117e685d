"""Whether chains may hold their rules: jumps only to regular chains, never too deep, each expression where Linux allows it.

Laws:
- Only what a base chain reaches is validated, as in Linux (nft_table_validate, nft_chain_validate): a loop among regular
  chains that nobody enters is accepted. A loop that is entered is one that is too deep: EMLINK.
- Only tables that the transaction touched are validated, each chain once for each (base chain type and hook, depth).
- An error stands at the command that brought the rule.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from typing import TYPE_CHECKING

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
    def __init__(self, draft: Draft, table: Table, loc: Location) -> None:
        self.draft = draft
        self.table = table
        self.loc = loc
        self.depth: dict[tuple[str, int], int] = {}
        self.targets: dict[str, list[str]] = {}

    def chain(self, chain: Chain, base: Chain, level: int, rule: Rule | None = None) -> NftError | None:
        """Walk a chain at a depth; a chain that was walked at this depth or deeper below the same base needs no second look."""
        if level == JUMP_STACK:
            return refused(errno.EMLINK, self._blame(rule))
        key = chain.name, id(base)
        if self.depth.get(key, -1) >= level:
            return None
        first = key not in self.depth
        self.depth[key] = level
        for one in chain.rules:
            if first:
                number = self.draft.backend.refusal(self.table, chain, one, base)
                if number:
                    return refused(number, self._blame(one))
            for target in self._jumps(one):
                problem = self.chain(target, base, level + 1, one)
                if problem is not None:
                    return problem
        return None

    def _jumps(self, rule: Rule) -> list[Chain]:
        names = [ref.name for ref in rule.refs if ref.kind == "chain"]
        names += [bound.name for bound in rule.bound]
        for ref in rule.refs:
            if ref.kind == "set":
                names += self._map_targets(ref.name)
        chains = self.table.chains
        return [chains[name] for name in dict.fromkeys(names) if name in chains]

    def _map_targets(self, name: str) -> list[str]:
        """The chains that a verdict map jumps to."""
        found = self.targets.get(name)
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
            self.targets[name] = found
        return found

    def _blame(self, rule: Rule | None) -> Location:
        if rule is not None and rule.loc.known and rule.loc.source is self.loc.source and rule.loc.start >= self.loc.start:
            return rule.loc
        return self.loc


def check_refs(draft: Draft, table: Table, refs: Iterable[Ref], loc: Location) -> None:
    """Whether what a new rule or element refers to is there, and jumps go to regular chains (Linux: nft_verdict_init)."""
    for ref in refs:
        if ref.kind == "chain":
            chain = table.chains.get(ref.name)
            if chain is None:
                raise no_chain(draft.rules, table, ref.name, loc)
            if chain.is_base:
                raise refused(errno.EOPNOTSUPP, loc)
        elif ref.kind == "set":
            if ref.name not in table.sets:
                raise no_set(draft.rules, table, ref.name, loc)
        elif ref.kind == "flowtable":
            if ref.name not in table.flowtables:
                raise no_flowtable(draft.rules, table, ref.name, loc)
        elif ref.kind != "need" and ref not in table.objects:
            raise no_object(draft.rules, table, ref.kind, ref.name, loc)
