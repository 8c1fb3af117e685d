"""The backend that speaks nft and runs on the engine: checks trees, lowers them, keeps engine objects in step.

Laws:
- An engine object is made once for a thing's life; chains keep theirs when rules change, sets when elements change.
- `commit` does only what cannot fail: tuples of rules are swapped in, element changes applied, hooks rebuilt if they changed.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from weakref import ref

from userfw.core.const import NF_ACCEPT, NF_DROP
from userfw.engine.bind import first_refusal
from userfw.engine.chain import BaseChain
from userfw.engine.chain import Chain as EngineChain
from userfw.engine.const import SET_CONSTANT, SET_EVAL, SET_INTERVAL, SET_MAP, SET_OBJECT, SET_TIMEOUT
from userfw.engine.expressions.flow_offload import FlowOffload
from userfw.engine.expressions.immediate import VERDICTS
from userfw.engine.expressions.objref import OBJECT_TYPES
from userfw.engine.objects.object import NamedObject
from userfw.engine.rule import Rule as EngineRule
from userfw.engine.sets.base import DATA_NONE, DATA_OBJECT, DATA_VALUE, DATA_VERDICT, SetError
from userfw.engine.sets.elements import Element as EngineElement
from userfw.engine.sets.elements import Verdict
from userfw.engine.sets.factory import make_set
from userfw.nft.check import ChainInfo, check_command, check_rule
from userfw.nft.datatype_tables import VERDICT
from userfw.nft.element_run import ElementRun
from userfw.nft.location import Location, NftError, NftErrors
from userfw.nft.lower import lower_rule
from userfw.nft.lower_set import encode_data, encode_key, lower_element
from userfw.nft.rule_form import FormedRule, RuleForm
from userfw.nft.rule_pattern import Pattern, pattern_of, patterned
from userfw.nft.syntax import Command, ConstantExpr, Expr, SetBlock, SetElemExpr, VerdictExpr
from userfw.ruleset import compile as hooks
from userfw.ruleset import keys
from userfw.ruleset.bulk import EngineElements, keeps_keys_only, put_run, run_of
from userfw.ruleset.elements import Element, Overlay, key_of
from userfw.ruleset.live import with_states
from userfw.ruleset.model import Chain, Flowtable, Object, Ref, Rule, Set, Table, priority_of
from userfw.ruleset.platform import Platform, PrivatePlatform
from userfw.ruleset.problems import refused
from userfw.ruleset.references import NEEDS, survey
from userfw.ruleset.scope import DraftResolver, TableScope
from userfw.ruleset.share import share_new
from userfw.ruleset.stateful import stateful_exprs, statement_of
from userfw.ruleset.validate import check_refs

if TYPE_CHECKING:
    from userfw.ruleset.draft import Draft

NSEC_PER_MSEC = 1_000_000
BULK = 64
SLICE = 512
"""Elements that are put into a set at a time: about a millisecond."""
_FLAGS = {"constant": SET_CONSTANT, "interval": SET_INTERVAL, "timeout": SET_TIMEOUT, "dynamic": SET_EVAL}


def _told(reason: str, loc: Location) -> NftError:
    """The engine's refusal of an expression in nft's words; a reason may end in the name of an errno, `(EOPNOTSUPP)`."""
    text, bracket, name = reason.removesuffix(")").rpartition(" (")
    number = getattr(errno, name, None)
    if not bracket or number is None:
        text, number = reason, errno.EINVAL
    return NftError(f"Could not process rule: {os.strerror(number)} ({text})", loc)


class LanguageBackend:
    """Checks with `nft.check`, lowers with `nft.lower`, runs on a platform (nothing, if none is given)."""

    def __init__(self, platform: Platform | None = None) -> None:
        self.platform: Platform = platform or PrivatePlatform()
        self.names = self.platform.names
        self.hooks = hooks.Hooks()
        self._needs: frozenset[tuple[tuple[str, str], Ref]] = frozenset()

    def now(self) -> int:
        """The clock that times in listings refer to: monotonic nanoseconds."""
        return int(self.platform.clock.now)

    # --- checking and lowering

    def check(self, draft: Draft, command: Command) -> Command:
        return check_command(command, DraftResolver(draft, self.names))

    def chain(self, draft: Draft, table: Table, chain: Chain) -> None:
        family = hooks.FAMILY_NUMBERS[table.family]
        chain.engine = EngineChain(chain.name, table.name, family, chain)
        chain.engine.handle = chain.handle
        node = chain.node
        if node.hook is None:
            return
        chain.base = BaseChain(
            chain.engine,
            hooks.HOOK_NUMBERS[table.family][node.hook],
            priority_of(node, table.family),
            self.platform.services,
            hooks.CHAIN_TYPES[node.type or "filter"],
            NF_DROP if node.policy == "drop" else NF_ACCEPT,
            tuple(node.devices),
        )

    def rule(self, draft: Draft, table: Table, chain: Chain, rule: Rule) -> None:
        from userfw.ruleset.lowering import lowered

        exprs, sets = lowered(self, table, rule)
        rule.anonymous = tuple(sets.values())
        program = EngineRule(exprs, rule.handle, rule.loc, rule.comment, ref(rule))  # no cycle: rules go when they are let go
        chains = {bound.name: bound.engine for bound in rule.bound}
        try:
            program.bind(TableScope(table, sets, chains))
        except LookupError as problem:
            raise NftError(f"Could not process rule: No such file or directory ({problem})", rule.loc) from None
        except ValueError as problem:
            raise _told(str(problem), rule.loc) from None
        rule.program = program
        for expr in exprs:
            reason = self.platform.doubt(expr)
            if reason is not None:
                draft.remark(reason, rule.loc)
            reason = self.platform.no_objects.get(getattr(expr, "type", 0)) if expr.kind == "objref" else None
            if reason is not None:
                raise NftError(f"Could not process rule: {reason}", rule.loc)

    def pattern(self, draft: Draft, table: Table, chain: Chain, form: RuleForm) -> Pattern | None:
        info = ChainInfo(table.name, chain.name, chain.node.type, chain.node.hook)
        try:
            checked = check_rule(form.rule, table.family, info, DraftResolver(draft, self.names))
            found = survey(checked)
            if found.anonymous or found.meters or found.updates or found.bound:
                return None
            check_refs(draft, table, found.uses, form.rule.loc)
            program = EngineRule(tuple(lower_rule(checked, table.family).expressions)).bind(TableScope(table))
        except (NftErrors, NftError, LookupError, ValueError):
            return None
        if any(self.platform.doubt(expr) is not None for expr in program.exprs):
            return None
        return pattern_of(form.rule, checked, program.exprs, program.ops, found.uses, form)

    def rule_of(self, pattern: Pattern, node: FormedRule, handle: int) -> Rule | None:
        made = pattern.program(node.values)
        if made is None:
            return None
        rule = Rule(handle, patterned(pattern, node), pattern.refs)
        exprs, ops = made
        rule.program = EngineRule(exprs, handle, node.loc, node.comment, ref(rule)).run(ops)
        return rule

    def refusal(self, table: Table, chain: Chain, rule: Rule, base: Chain) -> int:
        pattern = getattr(rule.node, "pattern", None)
        if pattern is not None and base.base in pattern.legal:
            return 0
        exprs = rule.program.exprs if rule.program is not None else ()
        if base.node.hook in ("input", "output") and getattr(self.platform, "local_flows", False):
            exprs = [expr for expr in exprs if not isinstance(expr, FlowOffload)]  # userfw's own: flows of the gateway's services
        text = first_refusal(exprs, base.base)
        if text is None:
            if pattern is not None:
                pattern.legal.add(base.base)
            return 0
        name = text.rsplit("(", 1)[-1].rstrip(")")
        return int(getattr(errno, name, errno.EOPNOTSUPP))

    # --- sets

    def set(self, draft: Draft, table: Table, entry: Set) -> None:
        entry.engine = self.engine_set(entry.node, table.name)
        entry.engine.handle = entry.handle

    def engine_set(self, node: SetBlock, table: str) -> Any:
        """An empty engine set for a checked declaration."""
        key = node.key_dtype
        flags = 0
        for flag in node.flags:
            flags |= _FLAGS[flag]
        data_type, dlen = DATA_NONE, 0
        if node.objtype is not None:
            data_type, flags = DATA_OBJECT, flags | SET_OBJECT
        elif node.data_dtype is VERDICT:
            data_type, flags = DATA_VERDICT, flags | SET_MAP
        elif node.data_dtype is not None:
            data_type, flags = DATA_VALUE, flags | SET_MAP
            dlen = keys.key_length(node.data_dtype) * (2 if node.data_interval else 1)
        made = make_set(
            node.name, keys.key_length(key), self.platform.clock, flags, keys.fields_of(key), dlen=dlen, data_type=data_type,
            timeout=(node.timeout or 0) * NSEC_PER_MSEC, size=node.size or 0, table=table,
            exprs=stateful_exprs(node.stmts, self.now()),
        )  # fmt: skip
        made.gc_interval = (node.gc_interval or 0) * NSEC_PER_MSEC
        made.comment = node.comment
        return made

    def element(self, draft: Draft, table: Table, entry: Set, node: SetElemExpr) -> Any:
        return self.engine_element(entry.node, node, TableScope(table))

    def plain_elements(self, entry: Set, nodes: list[SetElemExpr]) -> list[EngineElement]:
        block = entry.node
        interval, default = "interval" in block.flags, block.timeout or 0
        made = []
        for node in nodes:
            low, high = encode_key(node.key, block.key_dtype, interval)
            data = node.data
            if type(data) is VerdictExpr:
                found: Any = Verdict(VERDICTS[data.kind], "", None)
            else:
                found = encode_data(block, data) if data is not None else None
            timeout = node.timeout if node.timeout is not None else default
            expires = node.expires if node.expires is not None else timeout
            made.append(
                EngineElement(
                    low, None if low == high else high, found, timeout * NSEC_PER_MSEC, expires * NSEC_PER_MSEC, (), node.comment
                )
            )
        return made

    def elements(self, entry: Set) -> EngineElements | None:
        return EngineElements(entry.node, entry.engine) if keeps_keys_only(entry.node) else None

    def add_run(self, entry: Set, overlay: Overlay, run: ElementRun) -> ElementRun | None:
        copy = self._copy(entry, overlay)
        for _ in _in_slices(copy, overlay):
            pass
        new = put_run(copy, entry.node, run)
        if new is not None:
            overlay.stand_on(EngineElements(entry.node, copy), copy)
        return new

    def _copy(self, entry: Set, overlay: Overlay) -> Any:
        """The set as it was before an overlay's changes, to make them to it."""
        if overlay.aside is not None:
            return overlay.aside
        return self.engine_set(entry.node, "") if overlay.flushed else entry.engine.fork()

    def run_of(self, entry: Set) -> ElementRun | None:
        return run_of(entry.node, entry.engine)

    def engine_element(self, block: SetBlock, node: SetElemExpr, scope: TableScope) -> EngineElement:
        """The engine's form of one checked element."""
        made = lower_element(block, node)
        timeout = node.timeout if node.timeout is not None else block.timeout
        expires = node.expires if node.expires is not None else timeout
        return EngineElement(
            made.key, made.key_end, self._data(block, made.data, scope), (timeout or 0) * NSEC_PER_MSEC,
            (expires or 0) * NSEC_PER_MSEC, stateful_exprs(node.stmts, self.now()), node.comment,
        )  # fmt: skip

    @staticmethod
    def _data(block: SetBlock, data: bytes | tuple[str, str] | str | None, scope: TableScope) -> Any:
        if isinstance(data, str):
            return scope.object(OBJECT_TYPES[block.objtype or ""], data)
        if isinstance(data, tuple):
            kind, chain = data
            return Verdict(VERDICTS[kind], chain, scope.chain(chain) if chain else None)
        return data

    def set_size(self, entry: Set) -> None:
        entry.engine.size = entry.node.size or 0

    def reserve(self, draft: Draft, entry: Set, overlay: Overlay, element: Element) -> None:
        """Linux: nft_pipapo_insert refuses an element whose first or last key another covers."""
        new = element.engine
        if not overlay.flushed and len(entry.engine):
            for key in (new.key, new.key_end or new.key):
                old = entry.engine.get(key) if key is not None else None
                if old is not None and self._raised(entry, old).key not in overlay.removed:
                    raise refused(errno.EEXIST, element.node.loc)
        if overlay.scratch is None:
            plain = replace(entry.node, is_map=False, data=None, data_dtype=None, objtype=None, size=None, timeout=None, stmts=[])
            overlay.scratch = self.engine_set(plain, "")
            for other in overlay.added.values():
                overlay.scratch.add(other.engine.key, other.engine.key_end)
        try:
            overlay.scratch.add(new.key, new.key_end, exclusive=True)
        except SetError:
            raise refused(errno.EEXIST, element.node.loc) from None

    def fill(self, entry: Set, overlay: Overlay) -> Iterator[None]:
        if overlay.aside is not None:
            yield from _in_slices(overlay.aside, overlay)
            entry.engine.adopt(overlay.aside)
            overlay.aside = None
        elif entry.elements.live or len(overlay.log) < SLICE:
            apply_elements(entry.engine, overlay)
        else:
            yield from _in_slices(entry.engine, overlay)

    def build_aside(self, entry: Set, overlay: Overlay) -> Iterator[None]:
        copy = self._copy(entry, overlay)
        yield from _in_slices(copy, overlay)
        overlay.aside = copy

    def live_element(self, draft: Draft, table: Table, entry: Set, node: SetElemExpr) -> Element | None:
        made = lower_element(entry.node, SetElemExpr(node.key))
        found = entry.engine.get(made.key, made.key_end)
        return self._raised(entry, found) if found is not None else None

    def live_elements(self, entry: Set) -> list[Element]:
        return [self._raised(entry, found) for found in entry.engine]

    def _raised(self, entry: Set, found: Any) -> Element:
        """An element as the ruleset sees it, from the engine's copy of it."""
        block = entry.node
        key = keys.decode_key(found.key, found.key_end, block.key_dtype, "interval" in block.flags)
        data: Expr | None = None
        if block.objtype is not None:
            data = ConstantExpr(found.data.name.encode("utf-8", "surrogateescape"))
        elif isinstance(found.data, Verdict):
            data = VerdictExpr(_VERDICT_NAMES[found.data.code], found.data.chain or None)
        elif found.data is not None:
            data = keys.decode_data(found.data, block.data_dtype, block.data_interval)
        own = found.timeout // NSEC_PER_MSEC
        timeout = own if own and own != block.timeout else None
        stmts = [statement_of(expr, self.now()) for expr in found.exprs]
        node = SetElemExpr(key, data, stmts, timeout, None, found.comment, dtype=block.key_dtype)
        return Element(key_of(key, entry.elements.interval), node, found)

    def element_block(self, entry: Set, element: Element, now: int) -> SetElemExpr:
        node = element.node
        found = entry.engine.get(element.engine.key, element.engine.key_end) if element.engine is not None else None
        if found is None:
            return node
        return self._with_state(entry, node, found, now)

    def told_element(self, entry: Set, element: Element, new: bool) -> SetElemExpr:
        if not new:
            return self.element_block(entry, element, self.now())
        if element.engine is None:
            return element.node
        return self._with_state(entry, element.node, element.engine, self.now())

    @staticmethod
    def _with_state(entry: Set, node: SetElemExpr, found: EngineElement, now: int) -> SetElemExpr:
        changes: dict[str, Any] = {}
        stmts = node.stmts or list(entry.node.stmts)
        if stmts:
            changes["stmts"] = with_states(stmts, found.exprs, now)
        if found.timeout:
            changes["expires"] = found.expires // NSEC_PER_MSEC
        return replace(node, **changes) if changes else node

    # --- objects, flowtables

    def object(self, draft: Draft, table: Table, entry: Object) -> None:
        from userfw.ruleset.objects import object_expr

        expr = object_expr(entry.node, table.family, self.platform, self.now())
        family = hooks.FAMILY_NUMBERS[table.family]
        entry.engine = NamedObject(OBJECT_TYPES[entry.kind], entry.name, expr, table.name, family, entry.node.comment, entry)
        entry.engine.handle = entry.handle

    def update_object(self, draft: Draft, table: Table, old: Object, new: Object) -> None:
        from userfw.ruleset.objects import object_expr

        expr: Any = object_expr(new.node, table.family, self.platform, self.now())
        expr.restore(old.engine.expr.state())

        def swap() -> None:
            slot = getattr(old.engine.expr, "slot", None)
            if slot is not None:
                expr.join(slot)
            old.engine.expr = expr

        draft.after.append(swap)

    def flowtable(self, draft: Draft, table: Table, entry: Flowtable) -> None:
        from userfw.ruleset.objects import flowtable_engine

        entry.engine = flowtable_engine(entry.node, table.family, self.platform)

    # --- commit and reset

    def judge(self, draft: Draft) -> None:
        """NftError if a chain with `flags offload` has a rule that no hardware could take."""
        hardware = getattr(self.platform, "hardware", None)
        if hardware is not None:
            hardware.judge(hooks.offloaded(draft.rules))

    def commit(self, draft: Draft) -> None:
        hardware = getattr(self.platform, "hardware", None)
        moved = hardware is not None and hardware.apply(hooks.offloaded(draft.rules))
        for chain in draft.dirty_chains.values():
            chain.engine.owner = chain
            chain.engine.replace(tuple(rule.program for rule in chain.rules))
        for _, entry, overlay in draft.overlays.values():
            if overlay.aside is not None:
                entry.engine.adopt(overlay.aside)
                overlay.aside = None
            else:
                apply_elements(entry.engine, overlay)
        for action in draft.after:
            action()
        if self.platform.pool is not None:
            share_new(draft, self.platform.pool, self.platform.counted)
        needs = _needs(draft)
        if draft.hooks_changed or needs != self._needs or moved:
            self._needs = needs
            self._install(draft)

    def _install(self, draft: Draft) -> None:
        for _, chain in hooks.registered(draft.rules):
            chain.base.policy = NF_DROP if chain.node.policy == "drop" else NF_ACCEPT
            chain.base.devices = tuple(chain.node.devices)
        for table in draft.rules.tables.values():
            for entry in table.flowtables.values():
                if entry.engine is not None:
                    entry.engine.devices = list(entry.node.devices)
        self.hooks = hooks.build(draft.rules)
        self.platform.install(self.hooks)

    def reset(self, draft: Draft, command: Command) -> None:
        from userfw.ruleset.reset import reset

        reset(draft, command)


def _needs(draft: Draft) -> frozenset[tuple[tuple[str, str], Ref]]:
    return frozenset((key, need) for key, table in draft.rules.tables.items() for need in NEEDS if table.uses.get(need))


def _in_slices(engine: Any, overlay: Overlay) -> Iterator[None]:
    """Make an overlay's changes in a set that no packet uses. They were checked; no slice keeps the interpreter for long."""
    base = overlay.base
    gone = [] if overlay.flushed else [found.engine for key in overlay.removed if (found := base.get(key)) is not None]
    fresh = [element.engine for element in overlay.added.values()]
    if not gone and not fresh:
        return
    engine.begin_change()
    for at in range(0, len(gone), SLICE):
        engine.take_out(gone[at : at + SLICE])
        yield
    for at in range(0, len(fresh), SLICE):
        engine.put_in(fresh[at : at + SLICE])
        yield
    while not engine.settle(SLICE * 8):
        yield


def apply_elements(engine: Any, overlay: Overlay) -> None:
    """Make an overlay's changes in the engine's set. They were checked; what packets did meanwhile is not an error."""
    if overlay.flushed and len(engine):
        engine.flush()
    log: Iterable[tuple[bool, Element]] = overlay.log
    if not len(engine) and len(overlay.added) >= BULK:
        engine.load([element.engine for element in overlay.added.values()])
        return
    for added, element in log:
        change = element.engine
        try:
            if added:
                if overlay.added.get(element.key, element) is element:
                    engine.add(
                        change.key, change.key_end, change.data, change.timeout or None, change.expires or None,
                        change.exprs or None, change.comment,
                    )  # fmt: skip
            else:
                engine.remove(change.key, change.key_end, missing_ok=True)
        except SetError:
            continue


_VERDICT_NAMES = {code: name for name, code in VERDICTS.items()}
