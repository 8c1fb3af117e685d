"""The working copy of a transaction.

Laws:
- Reading a draft shows the ruleset as it will be if the commands so far succeed. The committed ruleset is never written.
- A table or chain is copied the first time it is changed (`edit`, `edit_chain`); sets get an `Overlay`.
- What the draft leaves behind is a list of events in order, and the sets of things that a commit must rebuild.
"""

from __future__ import annotations

import errno
from dataclasses import replace
from typing import Any

from userfw.nft.element_run import ElementRun
from userfw.nft.location import Location, NftError
from userfw.nft.rule_form import FormedRule
from userfw.nft.syntax import (
    ChainBlock,
    FlowtableBlock,
    MeterStmt,
    ObjectBlock,
    RuleBlock,
    SetBlock,
    SetElemExpr,
    VerdictExpr,
)
from userfw.ruleset.backend import Backend
from userfw.ruleset.elements import CATCH_ALL, Element, Elements, Overlay, key_place
from userfw.ruleset.events import Event
from userfw.ruleset.model import Chain, Flowtable, Object, Ref, Rule, Ruleset, Set, Table
from userfw.ruleset.problems import refused
from userfw.ruleset.references import DYNAMIC_SIZE, element_refs, meter_set, set_refs, survey
from userfw.ruleset.validate import check_refs


class Draft:
    """A ruleset in the making. `client` is who asks (for owned tables)."""

    def __init__(self, base: Ruleset, backend: Backend, client: object = None) -> None:
        self.base = base
        self.backend = backend
        self.client = client
        self.rules = base.copy()
        self.events: list[Event] = []
        self.echoing = True
        self.overlays: dict[int, tuple[Table, Set, Overlay]] = {}
        self.dirty_chains: dict[int, Chain] = {}
        self.dirty_tables: dict[tuple[str, str], Location] = {}
        self.new_rules: dict[tuple[str, str], dict[str, list[Rule]]] = {}
        self.new_ways: set[tuple[str, str]] = set()
        self.new_sets: set[int] = set()
        self.hooks_changed = False
        self.unsettled: set[tuple[str, str]] = set()
        """Tables whose flags cannot change (again) in this transaction (Linux: nft_table_pending_update)."""
        self.renamed: dict[tuple[tuple[str, str], str], tuple[tuple[str, str], str]] = {}
        self.after: list[Any] = []
        self.remarks: list[NftError] = []
        """Warnings about what is loaded all the same."""
        self.patterns: dict[tuple[str, str, str | None, str | None], dict[Any, Any]] = {}
        """By table, type and hook of chains: what rules of one form come to there."""
        self._owned_tables: set[int] = set()
        self._owned_chains: set[int] = set()

    def remark(self, message: str, loc: Location) -> None:
        """Warn of something that is loaded all the same."""
        warning = NftError(message, loc)
        warning.severity = "Warning"
        self.remarks.append(warning)

    # --- copying on write

    def edit(self, table: Table) -> Table:
        """The draft's own copy of a table."""
        if id(table) in self._owned_tables:
            return table
        mine = table.copy()
        self._owned_tables.add(id(mine))
        self.rules.tables[mine.key] = mine
        return mine

    def edit_chain(self, table: Table, chain: Chain) -> Chain:
        """The draft's own copy of a chain of a table that is the draft's own."""
        if id(chain) in self._owned_chains:
            return chain
        mine = chain.copy()
        self._owned_chains.add(id(mine))
        table.chains[mine.name] = mine
        return mine

    def overlay(self, table: Table, entry: Set) -> Overlay:
        """The elements of a set as this transaction sees them."""
        found = self.overlays.get(id(entry.elements))
        if found is None:
            found = (table, entry, Overlay(entry.elements))
            self.overlays[id(entry.elements)] = found
        return found[2]

    def elements(self, entry: Set) -> Overlay:
        """The elements for reading only: no overlay is kept."""
        found = self.overlays.get(id(entry.elements))
        return found[2] if found is not None else Overlay(entry.elements)

    @property
    def changed(self) -> bool:
        return bool(self.events)

    def emit(self, op: str, obj: str, table: Table, name: str, node: Any, handle: int, **more: Any) -> None:
        self.events.append(Event(op, obj, table.family, table.name, name, node, handle, echoed=self.echoing, **more))

    # --- tables

    def new_table(self, family: str, name: str) -> Table:
        rules = self.rules
        rules.table_handle += 1
        table = Table(family, name, rules.table_handle)
        rules.tables[table.key] = table
        self._owned_tables.add(id(table))
        return table

    def delete_table(self, table: Table) -> None:
        """Take a table away with all that it holds (Linux: nft_flush_table, __nft_release_table)."""
        table = self.edit(table)
        for chain in list(table.chains.values()):
            if not chain.binding:
                self.flush_chain(table, chain)
        for entry in list(table.sets.values()):
            self.delete_set(table, entry)
        for flowtable in list(table.flowtables.values()):
            self.delete_flowtable(table, flowtable)
        for obj in list(table.objects.values()):
            self.delete_object(table, obj)
        for chain in list(table.chains.values()):
            self.delete_chain(table, chain)
        del self.rules.tables[table.key]
        self.dirty_tables.pop(table.key, None)
        self.emit("delete", "table", table, table.name, table, table.handle)

    # --- chains

    def new_chain(self, table: Table, node: ChainBlock, *, binding: bool = False) -> Chain:
        """A new chain in a table that is the draft's own; base chains go on their hook now."""
        chain = Chain(table.new_handle(), node, binding=binding)
        if chain.is_base:
            self.register(chain)
            self.new_ways.add(table.key)
        table.chains[node.name] = chain
        self._owned_chains.add(id(chain))
        self.backend.chain(self, table, chain)
        self.dirty_chains[id(chain.engine) if chain.engine is not None else id(chain)] = chain
        return chain

    def register(self, chain: Chain) -> None:
        """Put a base chain on its hook, before those of equal priority."""
        self.rules.registrations += 1
        chain.registered = self.rules.registrations
        self.hooks_changed = True

    def delete_chain(self, table: Table, chain: Chain) -> None:
        """Take an unused chain away, with its rules."""
        if not chain.binding:
            self.flush_chain(table, chain)
            chain = table.chains[chain.name]
        if chain.is_base:
            self.hooks_changed = True
            self.unsettled.add(table.key)
        del table.chains[chain.name]
        if not chain.binding:
            self.emit("delete", "chain", table, chain.name, chain.node, chain.handle)

    def flush_chain(self, table: Table, chain: Chain) -> None:
        if not chain.rules:
            return
        chain = self.edit_chain(table, chain)
        gone = chain.rules
        chain.rules = []
        for rule in gone:
            self._forget(table, chain, rule)
        self._touched(table, chain)

    def rename_chain(self, table: Table, chain: Chain, name: str) -> None:
        """Rename a chain, and in every rule and element that jumps to it."""
        chain = self.edit_chain(table, chain)
        old = chain.name
        chain.node = replace(chain.node, name=name)
        table.chains = {(name if key == old else key): value for key, value in table.chains.items()}
        uses = table.uses.pop(Ref("chain", old), 0)
        if uses:
            table.uses[Ref("chain", name)] = uses
            from userfw.ruleset.rename import rename_target

            rename_target(self, table, old, name)
        if chain.is_base:
            self.hooks_changed = True

    def _touched(self, table: Table, chain: Chain, loc: Location | None = None) -> None:
        self.dirty_chains[id(chain.engine) if chain.engine is not None else id(chain)] = chain
        if loc is not None:
            self.dirty_tables.setdefault(table.key, loc)

    # --- rules

    def new_rule(
        self, table: Table, chain: Chain, node: RuleBlock, index: int, loc: Location, handle: int | None = None
    ) -> Rule:
        """Put a rule into a chain at `index`, under a new handle if none is given."""
        chain = self.edit_chain(table, chain)
        found = survey(node)
        self._meters(table, found.meters)
        for name, stateful in found.updates:
            self._make_dynamic(table, name, stateful, node.loc)
        bound = [self._bind(table, verdict) for verdict in found.bound]
        table.hgenerator += found.anonymous
        refs = found.uses
        check_refs(self, table, refs, loc, node)
        rule = Rule(table.new_handle() if handle is None else handle, node, refs)
        rule.bound = tuple(bound)
        self.backend.rule(self, table, chain, rule)
        table.use(rule.refs)
        chain.rules.insert(index, rule)
        self.new_rules.setdefault(table.key, {}).setdefault(chain.name, []).append(rule)
        self._touched(table, chain, loc)
        return rule

    def add_formed(self, table: Table, chain: Chain, node: FormedRule, pattern: Any) -> bool:
        """Append a rule by a pattern; False if it does not fit, or there is something to say of the rule."""
        if "owner" in table.flags and table.owner is not None and table.owner != self.client:
            return False
        for name, target in pattern.targets:
            found = table.chains.get(name)
            if found is None or found.engine is not target:
                return False
        table = self.edit(table)
        chain = self.edit_chain(table, chain)
        rule = self.backend.rule_of(pattern, node, table.hgenerator + 1)
        if rule is None:
            return False
        table.hgenerator += 1
        table.use(pattern.refs)
        chain.rules.append(rule)
        self.new_rules.setdefault(table.key, {}).setdefault(chain.name, []).append(rule)
        self._touched(table, chain, node.loc)
        name = chain.name
        self.events.append(Event("add", "rule", table.family, table.name, name, rule, rule.handle, None, False, True))
        return True

    def _meters(self, table: Table, meters: list[MeterStmt]) -> None:
        """The sets that `meter NAME { … }` statements bring along."""
        for item in meters:
            if item.name not in table.sets:
                self.new_set(table, meter_set(item))

    def _make_dynamic(self, table: Table, name: str, stateful: bool, loc: Location) -> None:
        """A rule updates a set. Its elements are the engine's from now on; one that is new is declared dynamic, as nft does;
        one without a size gets one (Linux: nft_dynset_init)."""
        entry = table.sets.get(name)
        if entry is None:
            return
        node = entry.node
        if "interval" in node.flags:
            raise refused(errno.EOPNOTSUPP, loc)
        if "dynamic" in node.flags and node.size is not None:
            return
        new = id(entry.elements) in self.new_sets
        if not new and stateful and "dynamic" not in node.flags:  # Linux: nft_dynset_init
            raise NftError(f"Could not process rule: Invalid argument ({name} has no flag dynamic)", loc)
        flags = (*node.flags, "dynamic") if new and "dynamic" not in node.flags else node.flags
        other = Set(entry.handle, replace(node, flags=flags, size=node.size or DYNAMIC_SIZE), Elements(live=True), entry.engine)
        table.sets[name] = other
        if new:
            self.new_sets.add(id(other.elements))
        before = self.overlays.pop(id(entry.elements), None)
        if before is not None:
            self.overlays[id(other.elements)] = table, other, before[2].moved(other.elements)
        self.after.append(lambda: self.backend.set_size(other))

    def _bind(self, table: Table, verdict: Any) -> Chain:
        block: ChainBlock = verdict.block
        number = 0
        while f"__chain{number}" in table.chains:
            number += 1
        chain = self.new_chain(table, ChainBlock(f"__chain{number}", loc=block.loc), binding=True)
        for node in block.rules:
            self.new_rule(table, chain, node, len(chain.rules), node.loc)
        return chain

    def delete_rule(self, table: Table, chain: Chain, index: int) -> None:
        chain = self.edit_chain(table, chain)
        rule = chain.rules.pop(index)
        self._forget(table, chain, rule)
        self._touched(table, chain)

    def _forget(self, table: Table, chain: Chain, rule: Rule) -> None:
        table.unuse(rule.refs)
        for bound in rule.bound:
            for inner in bound.rules:
                table.unuse(inner.refs)
            table.chains.pop(bound.name, None)
        for ref in rule.refs:
            entry = table.sets.get(ref.name) if ref.kind == "set" else None
            if entry is not None and entry.node.meter and not table.uses.get(ref):
                del table.sets[entry.name]  # a meter's set goes with its rule
        if not chain.binding:
            self.emit("delete", "rule", table, chain.name, rule, rule.handle)

    # --- sets

    def new_set(self, table: Table, node: SetBlock) -> Set:
        concat = node.key is not None and _is_concat(node)
        live = bool({"dynamic", "timeout"} & set(node.flags)) or node.timeout is not None
        entry = Set(table.new_handle(), node, Elements("interval" in node.flags and not concat, live))
        self.backend.set(self, table, entry)
        backed = self.backend.elements(entry)
        if backed is not None:
            entry.elements = backed
        table.sets[node.name] = entry
        table.use(set_refs(node))
        self.new_sets.add(id(entry.elements))
        return entry

    def delete_set(self, table: Table, entry: Set) -> None:
        if entry.node.data is not None or entry.node.objtype is not None or entry.node.stmts:
            for element in self.all_elements(entry):
                table.unuse(element_refs(entry.node, element.node))
        table.unuse(set_refs(entry.node))
        del table.sets[entry.name]
        self.overlays.pop(id(entry.elements), None)
        self.emit("delete", entry.kind, table, entry.name, entry.node, entry.handle)

    def find_element(self, table: Table, entry: Set, key: Any, node: SetElemExpr) -> Element | None:
        """The element with exactly this key, wherever it is kept."""
        overlay = self.elements(entry)
        element = overlay.get(key)
        if element is None and entry.elements.live and not overlay.flushed and key not in overlay.removed:
            element = self.backend.live_element(self, table, entry, node)
        return element

    def all_elements(self, entry: Set) -> list[Element]:
        """Every element of a set, those that packets added too."""
        overlay = self.elements(entry)
        result = list(overlay)
        if entry.elements.live and not overlay.flushed:
            gone = overlay.removed
            result = [element for element in self.backend.live_elements(entry) if element.key not in gone] + result
        return result

    def add_element(self, table: Table, entry: Set, key: Any, node: SetElemExpr) -> Element:
        """Add an element whose key is new. ENFILE when the set is full."""
        overlay = self.overlay(table, entry)
        size = entry.node.size
        if size is not None and size <= self._count(entry, overlay):
            raise refused(errno.ENFILE, key_place(node))
        refs = element_refs(entry.node, node)
        check_refs(self, table, refs, node.loc)
        element = Element(key, node, self.backend.element(self, table, entry, node))
        if "interval" in entry.node.flags and not entry.elements.interval:
            self.backend.reserve(self, entry, overlay, element)
        overlay.add(element)
        if refs:
            table.use(refs)
            self.dirty_tables.setdefault(table.key, node.loc)
            self.new_ways.add(table.key)
        self._tell("add", table, entry, element)
        return element

    def add_run(self, table: Table, entry: Set, run: ElementRun) -> bool:
        """Add many plain elements, as `add_element` would one by one; False if they have to be looked at one by one."""
        overlay, size = self.overlay(table, entry), entry.node.size
        if not entry.elements.backed or (entry.node.auto_merge and len(overlay)) or entry.elements.live:
            return False
        if size is not None and len(overlay) + len(run) > size:
            return False
        new = self.backend.add_run(entry, overlay, run)
        if new is None:
            return False
        if len(new):
            self.emit("add", "element", table, entry.name, new, 0)
        return True

    def add_many(self, table: Table, entry: Set, pairs: list[tuple[Any, SetElemExpr]]) -> bool:
        """Add many elements as `add_element` would one by one; False, and nothing, if they have to be looked at one by one: some
        are there, are there twice, refer to something or keep state, or the set is full."""
        block, size = entry.node, entry.node.size
        concat = "interval" in block.flags and not entry.elements.interval
        if concat or entry.elements.backed or block.objtype is not None or block.stmts:
            return False
        if entry.elements.live and id(entry.elements) not in self.new_sets:
            return False
        overlay = self.elements(entry)
        if size is not None and self._count(entry, overlay) + len(pairs) > size:
            return False
        keys = {key for key, _ in pairs}
        if len(keys) != len(pairs) or CATCH_ALL in keys or any(overlay.get(key) is not None for key in keys):
            return False
        nodes = [node for _, node in pairs]
        for node in nodes:
            if node.stmts or (type(node.data) is VerdictExpr and node.data.chain is not None):
                return False
        made = self.backend.plain_elements(entry, nodes)
        elements = [Element(key, node, engine) for (key, node), engine in zip(pairs, made, strict=True)]
        self.overlay(table, entry).add_many(elements)
        self.emit("add", "element", table, entry.name, elements, 0)
        return True

    def run_of(self, entry: Set) -> ElementRun | None:
        """All elements of a set that this transaction has not changed, if they are many and plain."""
        if id(entry.elements) in self.overlays or not entry.elements.backed:
            return None
        return self.backend.run_of(entry)

    def retime_element(self, table: Table, entry: Set, key: Any, node: SetElemExpr) -> None:
        """Give an element that is there another timeout; its counters stay (Linux: nft_add_set_elem, NFT_SET_ELEM update)."""
        element = Element(key, node, self.backend.element(self, table, entry, node))
        self.overlay(table, entry).retime(element)
        self._tell("add", table, entry, element)

    def _tell(self, op: str, table: Table, entry: Set, element: Element) -> None:
        """Events tell of an element with its statements and how long it lives (Linux: nf_tables_fill_setelem)."""
        node = self.backend.told_element(entry, element, op == "add")
        told = element if node is element.node else Element(element.key, node, element.engine)
        self.emit(op, "element", table, entry.name, told, 0)

    @staticmethod
    def _count(entry: Set, overlay: Overlay) -> int:
        """How many elements a set has, those that packets added too."""
        if not entry.elements.live or entry.engine is None:
            return len(overlay)
        return (0 if overlay.flushed else len(entry.engine)) - len(overlay.removed) + len(overlay.added)

    def remove_element(self, table: Table, entry: Set, element: Element) -> None:
        self.overlay(table, entry).remove(element)
        table.unuse(element_refs(entry.node, element.node))
        self._tell("delete", table, entry, element)

    def flush_set(self, table: Table, entry: Set) -> None:
        """Take all elements away; the last one first, as Linux does."""
        run = self.run_of(entry)
        gone = [] if run is not None else self.all_elements(entry)
        self.overlay(table, entry).flush(gone)
        if run is not None:
            self.emit("delete", "element", table, entry.name, run, 0)
        if entry.elements.interval:
            gone.reverse()
        for element in gone:
            table.unuse(element_refs(entry.node, element.node))
            self._tell("delete", table, entry, element)

    # --- objects and flowtables

    def new_object(self, table: Table, node: ObjectBlock) -> Object:
        entry = Object(table.new_handle(), node)
        self.backend.object(self, table, entry)
        table.objects[Ref(node.kind, node.name)] = entry
        return entry

    def delete_object(self, table: Table, entry: Object) -> None:
        del table.objects[Ref(entry.kind, entry.name)]
        self.emit("delete", entry.kind, table, entry.name, entry.node, entry.handle)

    def new_flowtable(self, table: Table, node: FlowtableBlock) -> Flowtable:
        entry = Flowtable(table.new_handle(), node)
        self.backend.flowtable(self, table, entry)
        table.flowtables[node.name] = entry
        self.hooks_changed = True
        return entry

    def delete_flowtable(self, table: Table, entry: Flowtable) -> None:
        del table.flowtables[entry.name]
        self.hooks_changed = True
        self.emit("delete", "flowtable", table, entry.name, entry.node, entry.handle)


def _is_concat(node: SetBlock) -> bool:
    from userfw.nft.syntax import ConcatExpr, TypeExpr, TypeofExpr

    key = node.key
    if isinstance(key, TypeExpr):
        return len(key.names) > 1
    if isinstance(key, TypeofExpr):
        return isinstance(key.expr, ConcatExpr)
    return isinstance(key, ConcatExpr)
