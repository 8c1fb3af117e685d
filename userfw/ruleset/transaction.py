"""Transactions: commands in, a plan out. `plan` is pure; nothing that packets see changes before `commit` swaps.

Laws:
- Commands act in order on a `Draft`, each seeing what the ones before it did. All succeed or nothing happens; every
  command that fails is reported, with its place.
- A block (`table t { … }`) acts as nft expands it: the table, its chains, objects, sets, flowtables, then elements, then
  rules. So rules may jump to chains that stand below them (Linux and nft: nft_cmd_expand).
- Sets that are new are filled while the plan is made: nobody sees them yet, and the commit does not wait for them.
- Commands that only read (`list`, `get`, `reset`) are answered from what the others together lead to, wherever they stand:
  nft, too, has evaluated every command of an input before it prints (so `list table t; delete table t` fails).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from userfw.nft.location import NftError, NftErrors
from userfw.nft.rule_form import FormedRule
from userfw.nft.syntax import (
    ChainBlock,
    Command,
    ElementsBlock,
    FlowtableBlock,
    ObjectBlock,
    SetBlock,
    TableBlock,
)
from userfw.ruleset import apply_object, apply_rule, apply_set, apply_table
from userfw.ruleset.backend import Backend
from userfw.ruleset.draft import Draft
from userfw.ruleset.events import Event, ordered
from userfw.ruleset.lookup import find_chain, find_set, find_table
from userfw.ruleset.model import Ruleset
from userfw.ruleset.validate import validate

if TYPE_CHECKING:
    from userfw.ruleset.elements import Overlay

MAX_ERRORS = 100

Apply = Callable[[Draft, Command], Any]


@dataclass(slots=True)
class Answer:
    """What a reading command found: the command and the data for its listing."""

    command: Command
    data: Any


@dataclass
class Plan:
    """A transaction that would succeed: the new ruleset and what to do to get there."""

    base: Ruleset
    rules: Ruleset
    draft: Draft
    answers: list[Answer] = field(default_factory=list)

    @cached_property
    def events(self) -> list[Event]:
        """What was done, in order, each element an event of its own."""
        return ordered(self.draft.events)

    @property
    def overlays(self) -> list[Overlay]:
        return [overlay for _, _, overlay in self.draft.overlays.values()]


MANY = 256
"""Changes of elements that a commit makes at once; of more it swaps in a copy of the set that has them."""

ECHOED = ("add", "create", "insert", "replace")

Reader = Callable[[Draft, Command], Any]


def plan_steps(
    base: Ruleset,
    commands: list[Command],
    backend: Backend,
    *,
    client: object = None,
    reader: Reader | None = None,
) -> Iterator[Plan | None]:
    """`plan` in slices: yields None after each command, and the Plan last. Raises NftErrors with every problem."""
    draft = Draft(base, backend, client)
    errors: list[NftError] = []
    for command in commands:
        if is_reading(command):
            continue
        for step in expand(command):
            if step.obj == "rules":
                yield from _add_rules(draft, step, errors)
            else:
                _apply(draft, step, errors)
                yield None
    apply_table.settle_names(draft)
    if not errors:
        errors.extend(validate(draft))
    answers: list[Answer] = [] if errors or reader is None else _answers(draft, commands, reader, errors)
    if errors:
        raise NftErrors(errors)
    if draft.changed:
        draft.rules.generation = base.generation + 1
    for key in [key for key in draft.overlays if key in draft.new_sets]:
        _, entry, overlay = draft.overlays.pop(key)
        for _ in backend.fill(entry, overlay):
            yield None
        overlay.apply()
        yield None
    for _, entry, overlay in draft.overlays.values():
        if overlay.aside is not None or (len(overlay.log) > MANY and not entry.elements.live):
            for _ in backend.build_aside(entry, overlay):
                yield None
            overlay.settle()
    yield Plan(base, draft.rules, draft, answers)


def _apply(draft: Draft, step: Command, errors: list[NftError]) -> None:
    """Check a step and make it; what is wrong with it goes to `errors`."""
    try:
        _find(draft, step)
        step = draft.backend.check(draft, step)
        draft.echoing = step.op in ECHOED
        APPLY[step.op, kind_of(step.obj)](draft, step)
    except NftErrors as problem:
        errors.extend(problem.errors)
    except NftError as problem:
        errors.append(problem)
    if len(errors) >= MAX_ERRORS:
        raise NftErrors(errors)


def _add_rules(draft: Draft, command: Command, errors: list[NftError]) -> Iterator[None]:
    """The rules of a block, one by one; those of a form that came before in short (`apply_rule.add_formed`)."""
    chain = command.node
    assert isinstance(chain, ChainBlock)
    for rule in chain.rules:
        if type(rule) is not FormedRule or not apply_rule.add_formed(draft, command, rule):
            step = Command(
                "add", "rule", family=command.family, table=command.table, name=command.name, node=rule,
                loc=rule.loc, table_loc=command.table_loc, name_loc=command.name_loc,
            )  # fmt: skip
            _apply(draft, step, errors)
        yield None


def _answers(draft: Draft, commands: list[Command], reader: Reader, errors: list[NftError]) -> list[Answer]:
    """What the reading commands find; their problems go to `errors`."""
    answers: list[Answer] = []
    for command in commands:
        if not is_reading(command):
            continue
        try:
            _find(draft, command)
            checked = draft.backend.check(draft, command)
            answers.append(Answer(checked, reader(draft, checked)))
        except NftErrors as problem:
            errors.extend(problem.errors)
        except NftError as problem:
            errors.append(problem)
    return answers


def _find(draft: Draft, command: Command) -> None:
    """What rules and elements are for must be there before they can be checked; this error has nft's guess of a name."""
    if command.obj == "element":
        find_set(draft, find_table(draft, command, write=not is_reading(command)), command)
    elif command.obj == "rule" and not is_reading(command) and command.op != "destroy":
        find_chain(draft, find_table(draft, command), command)


def plan(
    base: Ruleset,
    commands: list[Command],
    backend: Backend,
    *,
    client: object = None,
    reader: Reader | None = None,
) -> Plan:
    """The plan of a list of commands on top of `base`, which stays as it is. Raises NftErrors with every problem."""
    *_, result = plan_steps(base, commands, backend, client=client, reader=reader)
    assert result is not None
    return result


def is_reading(command: Command) -> bool:
    """Whether the command changes nothing but state (`reset` zeroes counters outside of transactions, as in Linux)."""
    return command.op in ("list", "get", "reset", "describe", "monitor", "export")


def kind_of(obj: str) -> str:
    """`object` for every kind of stateful object, `set` for maps and meters, else the word itself."""
    if obj in ("table", "chain", "rule", "element", "flowtable", "ruleset"):
        return obj
    return "set" if obj in ("set", "map", "meter") else "object"


def expand(command: Command) -> Iterator[Command]:
    """The single steps of a command that carries a block."""
    node = command.node
    if command.op not in ("add", "create"):
        yield command
    elif isinstance(node, TableBlock):
        yield from _expand_table(command, node)
    elif isinstance(node, ChainBlock) and node.rules:
        yield replace(command, node=replace(node, rules=[]))
        yield _rules(command, node)
    elif isinstance(node, SetBlock) and node.elements:
        yield replace(command, node=replace(node, elements=[]))
        yield _elements(command, node)
    else:
        yield command


def _expand_table(command: Command, table: TableBlock) -> Iterator[Command]:
    yield replace(command, node=replace(table, objects=[], sets=[], flowtables=[], chains=[]))
    for chain in table.chains:
        yield _in_table(command, "chain", replace(chain, rules=[]))
    for obj in table.objects:
        yield _in_table(command, obj.kind, obj)
    for entry in table.sets:
        yield _in_table(command, "map" if entry.is_map else "set", replace(entry, elements=[]))
    for flowtable in table.flowtables:
        yield _in_table(command, "flowtable", flowtable)
    for entry in table.sets:
        if entry.elements:
            yield _elements(_in_table(command, "map" if entry.is_map else "set", entry), entry)
    for chain in table.chains:
        if chain.rules:
            yield _rules(_in_table(command, "chain", chain), chain)


def _in_table(command: Command, obj: str, node: ChainBlock | ObjectBlock | SetBlock | FlowtableBlock) -> Command:
    """What a table's block adds to the table."""
    return Command(
        "add", obj, family=command.family, table=command.table, name=node.name, node=node,
        loc=node.loc, table_loc=command.table_loc, name_loc=node.loc,
    )  # fmt: skip


def _rules(command: Command, chain: ChainBlock) -> Command:
    """All rules of a block."""
    return replace(command, op="add", obj="rules", node=chain)


def _elements(command: Command, entry: SetBlock) -> Command:
    return replace(command, op=command.op, obj="element", node=ElementsBlock(entry.elements, loc=entry.loc))


APPLY: dict[tuple[str, str], Apply] = {
    ("add", "table"): apply_table.add_table,
    ("create", "table"): apply_table.add_table,
    ("delete", "table"): apply_table.delete_table,
    ("destroy", "table"): apply_table.delete_table,
    ("flush", "table"): apply_table.flush_table,
    ("flush", "ruleset"): apply_table.flush_ruleset,
    ("add", "chain"): apply_table.add_chain,
    ("create", "chain"): apply_table.add_chain,
    ("delete", "chain"): apply_table.delete_chain,
    ("destroy", "chain"): apply_table.delete_chain,
    ("flush", "chain"): apply_table.flush_chain,
    ("rename", "chain"): apply_table.rename_chain,
    ("add", "rule"): apply_rule.add_rule,
    ("create", "rule"): apply_rule.add_rule,
    ("insert", "rule"): apply_rule.add_rule,
    ("replace", "rule"): apply_rule.replace_rule,
    ("delete", "rule"): apply_rule.delete_rule,
    ("destroy", "rule"): apply_rule.delete_rule,
    ("add", "set"): apply_set.add_set,
    ("create", "set"): apply_set.add_set,
    ("delete", "set"): apply_set.delete_set,
    ("destroy", "set"): apply_set.delete_set,
    ("flush", "set"): apply_set.flush_set,
    ("add", "element"): apply_set.add_elements,
    ("create", "element"): apply_set.add_elements,
    ("delete", "element"): apply_set.delete_elements,
    ("destroy", "element"): apply_set.delete_elements,
    ("add", "object"): apply_object.add_object,
    ("create", "object"): apply_object.add_object,
    ("delete", "object"): apply_object.delete_object,
    ("destroy", "object"): apply_object.delete_object,
    ("add", "flowtable"): apply_object.add_flowtable,
    ("create", "flowtable"): apply_object.add_flowtable,
    ("delete", "flowtable"): apply_object.delete_flowtable,
    ("destroy", "flowtable"): apply_object.delete_flowtable,
}
