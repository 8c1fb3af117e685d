"""Commands on rules (Linux: nf_tables_newrule, nf_tables_delrule)."""

from __future__ import annotations

import errno

from userfw.nft.location import Location, NftError
from userfw.nft.rule_form import FormedRule
from userfw.nft.syntax import Command, RuleBlock
from userfw.ruleset.draft import Draft
from userfw.ruleset.lookup import find_chain, find_table, place
from userfw.ruleset.model import Chain, Table
from userfw.ruleset.problems import refused

_NEW, _SEEN = object(), object()
"""Forms of which no rule, and one, has come to a kind of chain."""


def add_rule(draft: Draft, command: Command) -> None:
    """Append or insert a rule, next to the rule that a handle or index names."""
    node = command.node
    assert isinstance(node, RuleBlock)
    table = draft.edit(find_table(draft, command))
    chain = find_chain(draft, table, command)
    at = _neighbour(chain, command)
    insert = command.op == "insert"
    if at is None:
        at = 0 if insert else len(chain.rules)
    elif not insert:
        at += 1
    _new(draft, table, chain, node, at, command.loc, "insert" if insert else "add")


def add_formed(draft: Draft, command: Command, node: FormedRule) -> bool:
    """Append a rule by the pattern of its form; False if it must be looked at by itself: no pattern yet, or none that fits."""
    table = draft.rules.tables.get((command.family or "ip", command.table or ""))
    chain = table.chains.get(command.name or "") if table is not None else None
    if table is None or chain is None or node.form is None:
        return False
    known = draft.patterns.setdefault((table.family, table.name, chain.node.type, chain.node.hook), {})
    pattern = known.get(node.form, _NEW)
    if pattern is _NEW:  # the first one is checked as any other: whatever there is to say of these rules will be said
        known[node.form] = _SEEN
        return False
    if pattern is _SEEN:
        pattern = known[node.form] = draft.backend.pattern(draft, table, chain, node.form)
    return pattern is not None and draft.add_formed(table, chain, node, pattern)


def _neighbour(chain: Chain, command: Command) -> int | None:
    """The index of the rule that the command names; None if it names none."""
    handle = command.handle if command.handle is not None else command.position
    if handle is not None:
        at = chain.find(handle)
        if at < 0:
            raise refused(errno.ENOENT, place(command, command.handle_loc))
        return at
    if command.index is not None:
        if command.index >= len(chain.rules):
            raise refused(errno.ENOENT, place(command, command.handle_loc))
        return command.index
    return None


def _new(
    draft: Draft, table: Table, chain: Chain, node: RuleBlock, at: int, loc: Location, op: str, handle: int | None = None
) -> None:
    rule = draft.new_rule(table, chain, node, at, loc, handle)
    rules = table.chains[chain.name].rules
    behind = rules[at - 1].handle if 0 < at < len(rules) - 1 else None
    draft.emit(op, "rule", table, chain.name, rule, rule.handle, position=behind)


def replace_rule(draft: Draft, command: Command) -> None:
    """Put a new rule in the place of another; it keeps the handle (Linux 6.18)."""
    node = command.node
    assert isinstance(node, RuleBlock)
    table = draft.edit(find_table(draft, command))
    chain = find_chain(draft, table, command)
    at = chain.find(command.handle or 0)
    if at < 0:
        raise refused(errno.ENOENT, place(command, command.handle_loc))
    handle = chain.rules[at].handle
    draft.delete_rule(table, chain, at)
    _new(draft, table, table.chains[chain.name], node, at, command.loc, "add", handle)


def delete_rule(draft: Draft, command: Command) -> None:
    """Delete the rule with a handle."""
    try:
        table = find_table(draft, command)
        chain = find_chain(draft, table, command)
        at = chain.find(command.handle or 0)
        if at < 0:
            raise refused(errno.ENOENT, place(command, command.handle_loc))
    except NftError as problem:
        if command.op == "destroy" and "No such file" in problem.message:
            return
        raise
    draft.delete_rule(draft.edit(table), chain, at)
