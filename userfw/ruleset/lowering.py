"""From a checked rule to its instructions and the anonymous sets they look up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from userfw.nft.lower import lower_rule
from userfw.nft.syntax import SetBlock
from userfw.ruleset.scope import TableScope

if TYPE_CHECKING:
    from userfw.engine.expr import Expr
    from userfw.ruleset.language import LanguageBackend
    from userfw.ruleset.model import Rule, Table


def lowered(backend: LanguageBackend, table: Table, rule: Rule) -> tuple[tuple[Expr, ...], dict[str, Any]]:
    """(instructions, anonymous sets by name). Raises NftErrors for what the machine cannot do."""
    made = lower_rule(rule.node, table.family, None, [bound.name for bound in rule.bound])
    scope = TableScope(table)
    sets = {block.name: anonymous_set(backend, table, block, scope) for block in made.anonymous_sets}
    return tuple(made.expressions), sets


def anonymous_set(backend: LanguageBackend, table: Table, block: SetBlock, scope: TableScope) -> Any:
    """The engine's set of an anonymous one, complete."""
    engine = backend.engine_set(block, table.name)
    engine.load([backend.engine_element(block, node, scope) for node in block.elements])
    return engine
