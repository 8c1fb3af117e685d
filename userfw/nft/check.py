"""The checker: an untyped tree becomes a typed, normalised one. This module is its door.

Laws:
- ``check_commands`` gives new commands of the same classes, or raises ``NftErrors`` with every problem of every command.
- ``check_rule`` gives a ``CheckedRule``: ``stmts`` is what ``nft list`` prints, ``evaluated`` what runs (implicit
  dependencies included); both come from one walk, the first only when somebody asks.
- Within one list of commands, later commands see the sets, chains and objects that earlier ones declare.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TypeVar

from userfw.nft.check_block import BlockChecker
from userfw.nft.check_canonical import canonical_stmts
from userfw.nft.check_context import ChainInfo, NothingThere, Resolver
from userfw.nft.check_merge import merge_payloads
from userfw.nft.check_stmt import RuleChecker
from userfw.nft.location import NftError, NftErrors
from userfw.nft.syntax import (
    ChainBlock,
    Command,
    ElementsBlock,
    FlowtableBlock,
    ObjectBlock,
    RuleBlock,
    SetBlock,
    Stmt,
    TableBlock,
)

T = TypeVar("T")

__all__ = ["ChainInfo", "CheckedRule", "NothingThere", "Resolver", "check_command", "check_commands", "check_rule"]


class CheckedRule(RuleBlock):
    """A rule after checking. ``evaluated`` are the statements as they run, with dependencies and merged matches."""

    __slots__ = ("_listed", "evaluated", "family")

    _listed: list[Stmt] | None
    evaluated: list[Stmt]
    family: str

    @property
    def stmts(self) -> list[Stmt]:
        listed = self._listed
        if listed is None:
            listed = self._listed = canonical_stmts(self.evaluated, self.family)
        return listed

    @stmts.setter
    def stmts(self, value: list[Stmt]) -> None:
        self._listed = value


def check_rule(rule: RuleBlock, family: str, chain_info: ChainInfo, resolver: Resolver) -> CheckedRule:
    """The checked form of one rule; raises ``NftErrors`` (one problem: a rule is read no further)."""
    checker = RuleChecker(family, chain_info, resolver)
    try:
        evaluated = merge_payloads(checker.rule(rule.stmts))
    except NftError as problem:
        raise NftErrors([problem]) from None
    checked = CheckedRule([], rule.comment, rule.handle, loc=rule.loc)
    checked._listed = None
    checked.evaluated = evaluated
    checked.family = family
    return checked


class _Overlay:
    """The resolver of a list of commands: what they declare on top of what is there."""

    def __init__(self, below: Resolver) -> None:
        self.below = below
        self.names = below.names
        self.tables: set[tuple[str, str]] = set()
        self.sets: dict[tuple[str, str, str], SetBlock] = {}
        self.chains: dict[tuple[str, str, str], ChainBlock] = {}
        self.objects: dict[tuple[str, str, str, str], ObjectBlock] = {}
        self.flowtables: dict[tuple[str, str, str], FlowtableBlock] = {}

    def has_table(self, family: str, table: str) -> bool:
        return (family, table) in self.tables or self.below.has_table(family, table)

    def set_of(self, family: str, table: str, name: str) -> SetBlock | None:
        return self.sets.get((family, table, name)) or self.below.set_of(family, table, name)

    def chain_of(self, family: str, table: str, name: str) -> ChainBlock | None:
        return self.chains.get((family, table, name)) or self.below.chain_of(family, table, name)

    def object_of(self, family: str, table: str, kind: str, name: str) -> ObjectBlock | None:
        return self.objects.get((family, table, kind, name)) or self.below.object_of(family, table, kind, name)

    def flowtable_of(self, family: str, table: str, name: str) -> FlowtableBlock | None:
        return self.flowtables.get((family, table, name)) or self.below.flowtable_of(family, table, name)

    def like(self, family: str, table: str, name: str) -> str:
        return self.below.like(family, table, name)


_ADDS = frozenset(("add", "create", "insert", "replace"))


def check_commands(commands: Iterable[Command], resolver: Resolver) -> list[Command]:
    """The checked commands, in order; raises ``NftErrors`` with all problems."""
    overlay = _Overlay(resolver)
    problems: list[NftError] = []
    checked: list[Command] = []
    for command in commands:
        try:
            checked.append(_Commands(overlay, problems).command(command))
        except NftError as problem:
            problems.append(problem)
        except NftErrors as several:
            problems.extend(several.errors)
    if problems:
        raise NftErrors(problems)
    return checked


def check_command(command: Command, resolver: Resolver) -> Command:
    """`check_commands` of one."""
    if isinstance(command.node, RuleBlock):
        family, table = command.family or "ip", command.table or ""
        info = chain_info(resolver, family, table, command.name or "")
        return command.with_node(check_rule(command.node, family, info, resolver))
    return check_commands([command], resolver)[0]


def chain_info(resolver: Resolver, family: str, table: str, chain: str) -> ChainInfo:
    """Where the rules of a chain stand."""
    block = resolver.chain_of(family, table, chain)
    if block is None or block.hook is None:
        return ChainInfo(table, chain)
    return ChainInfo(table, chain, block.type, block.hook)


class _Commands:
    """One command."""

    def __init__(self, overlay: _Overlay, problems: list[NftError]) -> None:
        self.overlay = overlay
        self.problems = problems

    def command(self, command: Command) -> Command:
        node = command.node
        if node is None:
            return command
        family, table = command.family or "ip", command.table or ""
        if isinstance(node, TableBlock):
            return replace(command, node=self.table(node))
        blocks = BlockChecker(family, table, self.overlay)
        if isinstance(node, ChainBlock):
            return replace(command, node=self.chain(node, family, table, blocks, command.op))
        if isinstance(node, RuleBlock):
            return replace(command, node=check_rule(node, family, self.info(family, table, command.name or ""), self.overlay))
        if isinstance(node, SetBlock):
            return replace(command, node=self.set(node, family, table, blocks))
        if isinstance(node, ElementsBlock):
            return replace(command, node=blocks.element_command(node, command))
        if isinstance(node, FlowtableBlock):
            return replace(command, node=self.flowtable(node, family, table, blocks, command.op))
        if isinstance(node, ObjectBlock):
            return replace(command, node=self.object(node, family, table, blocks, command.op))
        return command

    def info(self, family: str, table: str, chain: str) -> ChainInfo:
        return chain_info(self.overlay, family, table, chain)

    def table(self, node: TableBlock) -> TableBlock:
        """A table with all it holds: what rules can refer to comes first."""
        family, table = node.family, node.name
        self.overlay.tables.add((family, table))
        blocks = BlockChecker(family, table, self.overlay)
        objects = self._each(node.objects, lambda item: self.object(item, family, table, blocks, "add"))
        flowtables = self._each(node.flowtables, lambda item: self.flowtable(item, family, table, blocks, "add"))
        heads = self._each(node.chains, lambda item: self.chain_head(item, family, table, blocks))
        sets = self._each(node.sets, lambda item: self.set(item, family, table, blocks))
        chains = []
        for head, item in zip(heads, node.chains, strict=False):
            if head is not None:
                chains.append(replace(head, rules=self.rules(item, family, table)))
        return replace(
            node,
            objects=[item for item in objects if item is not None],
            flowtables=[item for item in flowtables if item is not None],
            sets=[item for item in sets if item is not None],
            chains=chains,
        )

    def _each(self, items: list[T], check: Callable[[T], T]) -> list[T | None]:
        out: list[T | None] = []
        for item in items:
            try:
                out.append(check(item))
            except NftError as problem:
                self.problems.append(problem)
                out.append(None)
        return out

    def rules(self, chain: ChainBlock, family: str, table: str) -> list[RuleBlock]:
        info = self.info(family, table, chain.name)
        overlay = self.overlay
        out: list[RuleBlock] = []
        for rule in chain.rules:
            try:
                out.append(check_rule(rule, family, info, overlay))
            except NftErrors as several:
                self.problems.extend(several.errors)
        return out

    def chain_head(self, node: ChainBlock, family: str, table: str, blocks: BlockChecker) -> ChainBlock:
        checked = blocks.chain(node)
        if checked.hook is not None or (family, table, node.name) not in self.overlay.chains:
            self.overlay.chains[(family, table, node.name)] = checked
        return checked

    def chain(self, node: ChainBlock, family: str, table: str, blocks: BlockChecker, op: str) -> ChainBlock:
        if op not in _ADDS:
            return node
        head = self.chain_head(node, family, table, blocks)
        return replace(head, rules=self.rules(node, family, table)) if node.rules else head

    def set(self, node: SetBlock, family: str, table: str, blocks: BlockChecker) -> SetBlock:
        if node.key is None and not node.elements and not node.stmts and not node.flags:
            return node
        known = self.overlay.set_of(family, table, node.name)
        checked = blocks.set(node, known)
        self.overlay.sets[(family, table, node.name)] = checked
        return checked

    def flowtable(self, node: FlowtableBlock, family: str, table: str, blocks: BlockChecker, op: str) -> FlowtableBlock:
        if op not in _ADDS:
            return node
        checked = blocks.flowtable(node)
        self.overlay.flowtables[(family, table, node.name)] = checked
        return checked

    def object(self, node: ObjectBlock, family: str, table: str, blocks: BlockChecker, op: str) -> ObjectBlock:
        if op not in _ADDS:
            return node
        checked = blocks.object(node)
        self.overlay.objects[(family, table, node.kind, node.name)] = checked
        return checked
