"""What a ruleset is: tables with their chains, rules, sets, stateful objects and flowtables.

Laws:
- A `Ruleset` that was committed is never written again, except for what packets write: the elements and counters that
  live in `engine` objects. A transaction copies what it touches (`Table.copy`, `Chain.copy`) and leaves the rest shared.
- Handles are 64-bit, counted up for each table (`Table.new_handle`), and never reused. Chains, objects, sets, flowtables
  and rules of a table share one counter, and a rule's anonymous sets take theirs before the rule does
  (Linux: nf_tables_alloc_handle).
- `Table.uses` counts, for every named thing of the table, how many rules and set elements refer to it. A thing in use
  cannot be deleted (Linux: nft_use_inc; EBUSY).
- Names of families are nft's: `ip ip6 inet arp bridge netdev`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from userfw.nft.location import NOWHERE, Location
from userfw.nft.priority import resolve
from userfw.nft.syntax import ChainBlock, FlowtableBlock, ObjectBlock, RuleBlock, SetBlock
from userfw.ruleset.elements import Base

FAMILIES = ("ip", "ip6", "inet", "arp", "bridge", "netdev")


def priority_of(node: ChainBlock | FlowtableBlock, family: str = "inet") -> int:
    """The number of a base chain's or flowtable's priority; 0 if it has none or an unknown name."""
    priority = node.priority
    if priority is None:
        return 0
    if priority.value is not None:
        return priority.value
    return resolve(priority.name, priority.offset, family, node.hook or "") or 0


class Ref(NamedTuple):
    """A use of a named thing: kind `chain`, `set`, `flowtable` or an object's kind (`counter`, `ct helper`, …)."""

    kind: str
    name: str


class Rule:
    """One rule. `node` is the checked tree; `program` what the lowering made of it (None in a model without an engine).

    `anonymous` are the sets that live and die with the rule, `bound` its anonymous chains (`jump { … }`).
    """

    __slots__ = ("__weakref__", "anonymous", "bound", "handle", "node", "program", "refs")

    def __init__(self, handle: int, node: RuleBlock, refs: tuple[Ref, ...] = (), program: Any = None) -> None:
        self.handle = handle
        self.node = node
        self.refs = refs
        self.program = program
        self.anonymous: tuple[Any, ...] = ()
        self.bound: tuple[Chain, ...] = ()

    @property
    def loc(self) -> Location:
        """Where the rule was written."""
        return self.node.loc

    @property
    def comment(self) -> str | None:
        return self.node.comment


class Chain:
    """A chain; regular when `node.hook` is None. `node.rules` is empty: the rules are in `rules`, in order.

    `registered` is the number of the transaction step that put a base chain on its hook: of chains of equal priority the
    one registered last runs first (Linux: nf_hook_entries_grow). `engine` is the compiled chain, whose identity is kept
    when rules change, so that jumps stay right; `base` is its entry on the hook.
    """

    __slots__ = ("base", "binding", "engine", "handle", "node", "registered", "rules")

    def __init__(self, handle: int, node: ChainBlock, engine: Any = None, binding: bool = False) -> None:
        self.handle = handle
        self.node = node
        self.rules: list[Rule] = []
        self.registered = 0
        self.engine = engine
        self.base: Any = None
        self.binding = binding

    @property
    def name(self) -> str:
        return self.node.name

    @property
    def is_base(self) -> bool:
        """Whether the chain hangs on a hook."""
        return self.node.hook is not None

    def copy(self) -> Chain:
        """A chain that may be changed without changing this one; the rules and the engine's object are shared."""
        other = Chain(self.handle, self.node, self.engine, self.binding)
        other.rules = list(self.rules)
        other.registered = self.registered
        other.base = self.base
        return other

    def find(self, handle: int) -> int:
        """The index of the rule with `handle`, or -1."""
        for index, rule in enumerate(self.rules):
            if rule.handle == handle:
                return index
        return -1


class Set:
    """A named set or map. `node.elements` is empty: they are in `elements`, and those that packets added in `engine`."""

    __slots__ = ("elements", "engine", "handle", "node")

    def __init__(self, handle: int, node: SetBlock, elements: Base, engine: Any = None) -> None:
        self.handle = handle
        self.node = node
        self.elements = elements
        self.engine = engine

    @property
    def name(self) -> str:
        return self.node.name

    @property
    def kind(self) -> str:
        """`map`, `meter` or `set`, the word that nft uses for it."""
        if self.node.is_map:
            return "map"
        return "meter" if self.node.meter else "set"

    def has(self, flag: str) -> bool:
        """Whether the set was declared with `flag` (constant, interval, timeout, dynamic)."""
        return flag in self.node.flags


class Object:
    """A named stateful object: counter, quota, limit, ct helper, …; its state is in `engine`."""

    __slots__ = ("engine", "handle", "node")

    def __init__(self, handle: int, node: ObjectBlock, engine: Any = None) -> None:
        self.handle = handle
        self.node = node
        self.engine = engine

    @property
    def name(self) -> str:
        return self.node.name

    @property
    def kind(self) -> str:
        return self.node.kind


class Flowtable:
    """A flowtable; `engine` is the `flowtable.FlowTable` that devices point to."""

    __slots__ = ("engine", "handle", "node")

    def __init__(self, handle: int, node: FlowtableBlock, engine: Any = None) -> None:
        self.handle = handle
        self.node = node
        self.engine = engine

    @property
    def name(self) -> str:
        return self.node.name


class Table:
    """A table. `owner` is the client that owns it (flag `owner`), None for an orphan or a common table."""

    __slots__ = (
        "chains",
        "comment",
        "family",
        "flags",
        "flowtables",
        "handle",
        "hgenerator",
        "name",
        "objects",
        "owner",
        "sets",
        "uses",
    )

    def __init__(self, family: str, name: str, handle: int) -> None:
        self.family = family
        self.name = name
        self.handle = handle
        self.flags: frozenset[str] = frozenset()
        self.comment: str | None = None
        self.owner: object = None
        self.chains: dict[str, Chain] = {}
        self.sets: dict[str, Set] = {}
        self.objects: dict[Ref, Object] = {}
        self.flowtables: dict[str, Flowtable] = {}
        self.uses: dict[Ref, int] = {}
        self.hgenerator = 0

    @property
    def key(self) -> tuple[str, str]:
        return self.family, self.name

    @property
    def dormant(self) -> bool:
        """Whether the table's base chains are off their hooks."""
        return "dormant" in self.flags

    def copy(self) -> Table:
        """A table that may be changed without changing this one; what it holds is shared."""
        other = Table(self.family, self.name, self.handle)
        other.flags = self.flags
        other.comment = self.comment
        other.owner = self.owner
        other.chains = dict(self.chains)
        other.sets = dict(self.sets)
        other.objects = dict(self.objects)
        other.flowtables = dict(self.flowtables)
        other.uses = dict(self.uses)
        other.hgenerator = self.hgenerator
        return other

    def new_handle(self) -> int:
        """The next handle of this table."""
        self.hgenerator += 1
        return self.hgenerator

    def use(self, refs: Iterable[Ref]) -> None:
        """Count one more use of each of `refs`."""
        uses = self.uses
        for ref in refs:
            uses[ref] = uses.get(ref, 0) + 1

    def unuse(self, refs: Iterable[Ref]) -> None:
        """Count one use less of each of `refs`."""
        uses = self.uses
        for ref in refs:
            left = uses[ref] - 1
            if left:
                uses[ref] = left
            else:
                del uses[ref]

    def base_chains(self) -> Iterator[Chain]:
        """The chains that hang on a hook."""
        return (chain for chain in self.chains.values() if chain.is_base)


class Ruleset:
    """All tables, and the counters that outlive them. `generation` goes up by one with each commit that changed something."""

    __slots__ = ("generation", "registrations", "table_handle", "tables")

    def __init__(self) -> None:
        self.tables: dict[tuple[str, str], Table] = {}
        self.generation = 1
        self.table_handle = 0
        self.registrations = 0

    def copy(self) -> Ruleset:
        """A ruleset that may be changed without changing this one; the tables are shared."""
        other = Ruleset()
        other.tables = dict(self.tables)
        other.generation = self.generation
        other.table_handle = self.table_handle
        other.registrations = self.registrations
        return other

    def table(self, family: str, name: str) -> Table | None:
        """The table of that name, or None."""
        return self.tables.get((family, name))

    def select(self, family: str | None = None) -> list[Table]:
        """The tables of a family (of all families if None), in the order of their creation within nft's order of families."""
        return [table for table in self.tables.values() if family is None or table.family == family]


__all__ = [
    "FAMILIES",
    "NOWHERE",
    "Chain",
    "Flowtable",
    "Object",
    "Ref",
    "Rule",
    "Ruleset",
    "Set",
    "Table",
]
