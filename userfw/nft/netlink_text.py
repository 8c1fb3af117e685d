"""What ``nft --debug=netlink`` prints for rules and their anonymous sets.

Laws: names of anonymous sets and maps are templates (``__set%d``), as nft sends them; sets come before the rule.
"""

from __future__ import annotations

import re

from userfw.nft.check_context import Resolver
from userfw.nft.lower import LoweredRule, dump_set, lower_rule
from userfw.nft.syntax import RuleBlock

_NUMBERED = re.compile(r"\b__(set|map|objmap)\d+\b")


def _template(line: str) -> str:
    return _NUMBERED.sub(r"__\1%d", line)


def rule_text(rule: RuleBlock, family: str, table: str, chain: str, resolver: Resolver | None = None) -> list[str]:
    """The instructions of a checked rule, one a line."""
    return expression_lines(lower_rule(rule, family, resolver))


def expression_lines(lowered: LoweredRule) -> list[str]:
    """The instructions of a lowered rule, one a line."""
    return [_template(line) for line in lowered.render()]


def debug_text(rule: RuleBlock, family: str, table: str, chain: str, resolver: Resolver | None = None) -> str:
    """The whole of what nft prints for one rule."""
    lowered = lower_rule(rule, family, resolver)
    lines = [_template(line) for block in lowered.anonymous_sets for line in dump_set(block, table)]
    lines.append(f"{family} {table} {chain}")
    lines += [f"  {line}" for line in expression_lines(lowered)]
    return "\n".join(lines) + "\n"
