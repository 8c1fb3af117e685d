"""From a checked rule to its instructions and the anonymous sets they look up."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from userfw.engine.sets.base import SetError
from userfw.nft.location import Location, NftErrors
from userfw.nft.lower import lower_rule
from userfw.nft.syntax import Expr, SetBlock, SetElemExpr
from userfw.ruleset.elements import key_place
from userfw.ruleset.problems import refused
from userfw.ruleset.scope import TableScope

if TYPE_CHECKING:
    from userfw.engine.expr import Expr as Instruction
    from userfw.ruleset.language import LanguageBackend
    from userfw.ruleset.model import Rule, Table


def lowered(backend: LanguageBackend, table: Table, rule: Rule) -> tuple[tuple[Instruction, ...], dict[str, Any]]:
    """(instructions, anonymous sets by name). Raises NftErrors for what the machine cannot do."""
    made = lower_rule(rule.node, table.family, None, [bound.name for bound in rule.bound])
    sets = {block.name: anonymous_set(backend, table, block, TableScope(table)) for block in made.anonymous_sets}
    return tuple(made.expressions), sets


def anonymous_set(backend: LanguageBackend, table: Table, block: SetBlock, scope: TableScope) -> Any:
    """The engine's set of an anonymous one, complete."""
    engine = backend.engine_set(block, table.name)
    try:
        engine.load([backend.engine_element(block, node, scope) for node in block.elements])
    except SetError:
        raise NftErrors([refused(errno.EEXIST, _clash(block.elements))]) from None
    return engine


def _clash(elements: Sequence[SetElemExpr]) -> Location:
    """Where the first element stands whose key came before with other data."""
    seen: dict[str, Expr | None] = {}
    for node in elements:
        if seen.setdefault(repr(node.key), node.data) != node.data:
            return key_place(node)
    return key_place(elements[-1])
