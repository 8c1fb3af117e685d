"""What `list`, `get` and `reset` show: blocks of the syntax tree with the state of now, for the printers of `nft`.

Laws:
- A `Listing` is a list of tables, each with only what was asked for, and the form in which nft prints it.
- Elements of sets are given as nft 1.1.6 lists them: intervals in order (prefixes where the type has them), others by
  value, concatenated ranges as they were added (libnftables: netlink_get_setelems, list_expr_sort).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from userfw.nft.location import NftError
from userfw.nft.syntax import Command, FlowtableBlock, SetBlock, SetElemExpr, TableBlock
from userfw.ruleset.elements import Element
from userfw.ruleset.live import chain_header, object_block, rule_block
from userfw.ruleset.lookup import find_chain, find_flowtable, find_object, find_set, find_table, name_place
from userfw.ruleset.model import Chain, Flowtable, Set, Table
from userfw.ruleset.problems import NO_SUCH, missing

if TYPE_CHECKING:
    from userfw.ruleset.draft import Draft

PLURALS = {
    "counters": "counter",
    "quotas": "quota",
    "limits": "limit",
    "ct helpers": "ct helper",
    "ct timeouts": "ct timeout",
    "ct expectations": "ct expectation",
    "synproxys": "synproxy",
    "secmarks": "secmark",
    "tunnels": "tunnel",
}


@dataclass(slots=True)
class Listing:
    """The answer to one reading command. `form`: `ruleset` (whole tables), `tables` (names only), `chains` (headers),
    `parts` (tables with some of their things), `hooks`, `text` (ready to print)."""

    form: str
    tables: list[TableBlock] = field(default_factory=list)
    text: str = ""
    what: str = ""


class Lister:
    """Builds listings from a draft. `now`: monotonic nanoseconds, for times that run."""

    def __init__(self, draft: Draft, now: int = 0, terse: bool = False) -> None:
        self.draft = draft
        self.now = now
        self.terse = terse

    # --- blocks

    def table(self, table: Table) -> TableBlock:
        """A table with nothing in it."""
        order = ("dormant", "owner", "persist")
        return TableBlock(
            table.family, table.name, flags=tuple(flag for flag in order if flag in table.flags),
            comment=table.comment, handle=table.handle, declared=True,
        )  # fmt: skip

    def whole(self, table: Table) -> TableBlock:
        """A table with everything in it."""
        block = self.table(table)
        block.objects = [object_block(entry, self.now) for entry in table.objects.values()]
        block.sets = [self.set(entry) for entry in table.sets.values() if not entry.node.meter]
        block.flowtables = [self.flowtable(entry) for entry in table.flowtables.values()]
        block.chains = [self.chain(chain) for chain in table.chains.values() if not chain.binding]
        return block

    def chain(self, chain: Chain) -> Any:
        """A chain with its rules."""
        return replace(chain_header(chain), rules=[rule_block(rule, self.now) for rule in chain.rules])

    def flowtable(self, entry: Flowtable) -> FlowtableBlock:
        return replace(entry.node, handle=entry.handle)

    def set(self, entry: Set, *, empty: bool = False) -> SetBlock:
        """A set with its elements."""
        elements: Sequence[SetElemExpr] = [] if empty or self.terse else self.elements(entry)
        return replace(entry.node, elements=elements, handle=entry.handle)

    def elements(self, entry: Set) -> Sequence[SetElemExpr]:
        """The elements of a set in the order of a listing."""
        run = self.draft.run_of(entry)
        if run is not None:
            return run
        nodes = [self.element(entry, element) for element in self.draft.all_elements(entry)]
        return in_order(entry, nodes)

    def element(self, entry: Set, element: Element) -> SetElemExpr:
        """One element with its state."""
        return self.draft.backend.element_block(entry, element, self.now)

    # --- commands

    def answer(self, command: Command) -> Listing:
        """The listing that a `list`, `get` or `reset` command asks for. What is not there is an error without prefix, as in nft."""
        try:
            return self._answer(command)
        except NftError as problem:
            if command.op != "get" and problem.message == f"Could not process rule: {NO_SUCH}":
                raise missing(problem.loc) from None
            raise

    def _answer(self, command: Command) -> Listing:
        obj = command.obj
        if command.op == "get" or (command.op == "reset" and obj == "element"):
            return self.some_elements(command)
        if obj in PLURALS:
            return self.of_kind(command, PLURALS[obj])
        method = _ANSWERS.get(obj)
        if method is not None:
            return method(self, command)
        return self.one_object(command)

    def ruleset(self, command: Command) -> Listing:
        return Listing("ruleset", [self.whole(table) for table in self.draft.rules.select(command.family)])

    def tables(self, command: Command) -> Listing:
        return Listing("tables", [self.table(table) for table in self.draft.rules.select(command.family)])

    def one_table(self, command: Command) -> Listing:
        return Listing("ruleset", [self.whole(self._table(command))])

    def chains(self, command: Command) -> Listing:
        blocks = []
        for table in self.draft.rules.select(command.family):
            block = self.table(table)
            block.chains = [chain_header(chain) for chain in table.chains.values() if not chain.binding]
            blocks.append(block)
        return Listing("chains", blocks)

    def one_chain(self, command: Command) -> Listing:
        table = self._table(command)
        chain = table.chains.get(command.name or "")
        if chain is None:
            raise missing(name_place(command))
        block = self.table(table)
        block.chains = [self.chain(chain)]
        return Listing("parts", [block], what="chain")

    def rules(self, command: Command) -> Listing:
        """`reset rules`, `reset rule`: the chains with the rules that are meant."""
        if command.table is None:
            return self.ruleset_rules(self.draft.rules.select(command.family))
        table = self._table(command)
        if command.name is None:
            return self.ruleset_rules([table])
        chain = find_chain(self.draft, table, command)
        block = self.table(table)
        shown = self.chain(chain)
        if command.obj == "rule":
            shown.rules = [rule for rule in shown.rules if rule.handle == command.handle]
            if not shown.rules:
                raise missing(command.handle_loc)
        block.chains = [shown]
        return Listing("parts", [block], what="rules")

    def ruleset_rules(self, tables: list[Table]) -> Listing:
        """All chains of some tables, without the tables' other things."""
        blocks = []
        for table in tables:
            block = self.table(table)
            block.chains = [self.chain(chain) for chain in table.chains.values() if not chain.binding]
            blocks.append(block)
        return Listing("parts", blocks, what="rules")

    def sets(self, command: Command) -> Listing:
        blocks = []
        for table in self._tables(command):
            block = self.table(table)
            block.sets = [self.set(entry) for entry in table.sets.values() if self._is(entry, command.obj)]
            blocks.append(block)
        return Listing("parts", blocks, what=command.obj)

    @staticmethod
    def _is(entry: Set, plural: str) -> bool:
        if plural == "meters":
            return entry.node.meter
        return entry.node.is_map == (plural == "maps") and not entry.node.meter

    def one_set(self, command: Command) -> Listing:
        table = self._table(command)
        entry = table.sets.get(command.name or "")
        if entry is None or (
            "dynamic" not in entry.node.flags and not entry.node.meter
            if command.obj == "meter"
            else entry.node.is_map != (command.obj == "map")
        ):
            raise missing(name_place(command))
        block = self.table(table)
        block.sets = [self.set(entry)]
        return Listing("parts", [block], what=command.obj)

    def some_elements(self, command: Command) -> Listing:
        """`get element`: the elements asked for, or the intervals that contain them."""
        from userfw.ruleset.apply_set import find_containing

        table = find_table(self.draft, command, write=False)
        entry = find_set(self.draft, table, command)
        found = find_containing(self.draft, table, entry, command)
        block = self.table(table)
        shown = self.set(entry, empty=True)
        shown.elements = in_order(entry, [self.element(entry, element) for element in found])
        block.sets = [shown]
        return Listing("parts", [block], what="element")

    def flowtables(self, command: Command) -> Listing:
        blocks = []
        for table in self._tables(command):
            block = self.table(table)
            block.flowtables = [self.flowtable(entry) for entry in table.flowtables.values()]
            blocks.append(block)
        return Listing("parts", blocks, what="flowtables")

    def one_flowtable(self, command: Command) -> Listing:
        table = self._table(command)
        block = self.table(table)
        block.flowtables = [self.flowtable(find_flowtable(self.draft, table, command))]
        return Listing("parts", [block], what="flowtable")

    def of_kind(self, command: Command, kind: str) -> Listing:
        """All objects of a kind."""
        blocks = []
        for table in self._tables(command):
            if not table.objects:  # libnftables: do_list_obj
                continue
            block = self.table(table)
            block.objects = [object_block(entry, self.now) for entry in table.objects.values() if entry.kind == kind]
            blocks.append(block)
        return Listing("parts", blocks, what=command.obj)

    def one_object(self, command: Command) -> Listing:
        table = self._table(command)
        block = self.table(table)
        block.objects = [object_block(find_object(self.draft, table, command), self.now)]
        return Listing("parts", [block], what=command.obj)

    def _table(self, command: Command) -> Table:
        return find_table(self.draft, command, write=False)

    def _tables(self, command: Command) -> list[Table]:
        if command.table is not None:
            return [self._table(command)]
        return self.draft.rules.select(command.family)


_ANSWERS = {
    "ruleset": Lister.ruleset,
    "tables": Lister.tables,
    "table": Lister.one_table,
    "chains": Lister.chains,
    "chain": Lister.one_chain,
    "rules": Lister.rules,
    "rule": Lister.rules,
    "sets": Lister.sets,
    "maps": Lister.sets,
    "meters": Lister.sets,
    "set": Lister.one_set,
    "map": Lister.one_set,
    "meter": Lister.one_set,
    "flowtables": Lister.flowtables,
    "flowtable": Lister.one_flowtable,
}


def in_order(entry: Set, nodes: list[SetElemExpr]) -> list[SetElemExpr]:
    """Elements in the order in which nft lists them."""
    from userfw.ruleset.order import sort_key

    if "interval" in entry.node.flags and not entry.elements.interval:
        return nodes
    return sorted(nodes, key=lambda node: sort_key(node, entry.elements.interval))
