"""What the rules of one form have in common once one of them has been checked and lowered.

Laws:
- A pattern gives the instructions that the checker and the lowering would give for other values in the form's holes (a test
  compares them), and the trees when somebody asks. A value that does not fit its field gives none: the checker then says why.
- Instructions without state are shared by all rules of a pattern; counters and limits are each rule's own.
- Where a hole ends up in the instructions is not guessed: the statement is lowered by itself, and the fused steps are those that
  change when the compared bytes do. A form for which this does not come out exactly has no pattern.
- Rules that look into sets, make sets or chains, or keep other state have none either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any, Final

import cython

from userfw.engine.expressions import (
    Bitwise,
    BitwiseShift,
    Byteorder,
    Ct,
    Immediate,
    ImmediateVerdict,
    Limit,
    Log,
    Meta,
    Notrack,
    Payload,
    Range,
    Reject,
)
from userfw.engine.fuse import fused
from userfw.nft.check import CheckedRule
from userfw.nft.check_canonical import canonical_stmts
from userfw.nft.check_merge import MergedMatch
from userfw.nft.location import Location, Source
from userfw.nft.lower import RuleLowering
from userfw.nft.rule_form import BYTES, PACKETS, VALUE, FormedRule, RuleForm, parsed_places
from userfw.nft.syntax import (
    ConstantExpr,
    CounterStmt,
    MatchStmt,
    Node,
    PayloadExpr,
    PrefixExpr,
    RelationalExpr,
    RuleBlock,
    Stmt,
)

if not cython.compiled:
    from userfw.engine.expr import Expr as Instruction
    from userfw.engine.expressions import Cmp, Counter
    from userfw.engine.fused import PayloadBytes, PayloadTest

_SHARED: Final = frozenset(
    (Bitwise, BitwiseShift, Byteorder, Cmp, Ct, Immediate, ImmediateVerdict, Log, Meta, Notrack, Payload, Range, Reject)
)
_BYTES: Final = 128


class PatternedRule(CheckedRule):
    """A checked rule whose trees are made from its pattern when they are asked for."""

    __slots__ = ("_evaluated", "pattern", "rule")

    _evaluated: list[Stmt] | None
    pattern: Any
    rule: FormedRule

    @property
    def evaluated(self) -> list[Stmt]:
        found = self._evaluated
        if found is None:
            found = self._evaluated = self.pattern.tree(self.rule)
        return found

    @evaluated.setter
    def evaluated(self, value: list[Stmt]) -> None:
        self._evaluated = value

    @property
    def stmts(self) -> list[Stmt]:
        found: list[Stmt] | None = self._listed
        return self.pattern.listed(self.rule.values) if found is None else found

    @stmts.setter
    def stmts(self, value: list[Stmt]) -> None:
        self._listed = value


def patterned(pattern: Pattern, rule: FormedRule) -> PatternedRule:
    """The checked form of a rule."""
    made: Any = PatternedRule.__new__(PatternedRule)
    made.loc = rule.loc
    made.comment = rule.comment
    made.handle = rule.handle
    made.family = pattern.family
    made._evaluated = made._listed = None
    made.pattern = pattern
    made.rule = rule
    return made  # type: ignore[no-any-return]


class Part:
    """A hole's value among compared bytes: `octets` bytes at `at` of a field of `width` bits; `mask` of a prefix, or None."""

    def __init__(self, hole: int, at: int, octets: int, width: int, mask: int | None) -> None:
        self.hole = hole
        self.at = at
        self.octets = octets
        self.width = width
        self.mask = mask

    def put(self, data: bytearray, values: tuple[Any, ...]) -> cython.bint:
        """Write it; whether the value fits the field."""
        number: Any = values[self.hole]
        value: cython.ulonglong
        i: cython.Py_ssize_t
        if self.width > 64:
            wide: Any = number if self.mask is None else number & self.mask
            data[self.at : self.at + self.octets] = wide.to_bytes(self.width // 8, "big")[: self.octets]
            return True
        value = number
        if self.width < 64 and value >> self.width:
            return False
        if self.mask is not None:
            value &= self.mask
        value >>= self.width - 8 * self.octets
        for i in range(self.at + self.octets - 1, self.at - 1, -1):
            data[i] = value & 255
            value >>= 8
        return True


class Test:
    """A comparison that depends on holes: number of the instruction and of the step that runs; `data` as the first rule has it."""

    def __init__(self, expr: int, op: int, data: bytes, parts: list[Part]) -> None:
        self.expr = expr
        self.op = op
        self.data = data
        self.parts = parts

    def bytes_of(self, values: tuple[Any, ...]) -> bytes | None:
        """What is compared; None if a value does not fit."""
        data: bytearray = bytearray(self.data)
        part: Part
        for part in self.parts:
            if not part.put(data, values):
                return None
        return bytes(data)


class Count:
    """A counter, and the holes of its numbers (-1: none)."""

    def __init__(self, expr: int, op: int, packets: int, bytes: int) -> None:
        self.expr = expr
        self.op = op
        self.packets = packets
        self.bytes = bytes


class Pattern:
    """See the laws above. `refs`: the names that the rules use. `targets`: (chain, engine's chain) of jumps. `legal`: base chains
    below which these instructions were found to be allowed."""

    def __init__(
        self,
        form: RuleForm,
        family: str,
        exprs: tuple[Instruction, ...],
        ops: tuple[Instruction, ...],
        refs: tuple[Any, ...],
        evaluated: list[Stmt],
    ) -> None:
        self.form = form
        self.family = family
        self.exprs = exprs
        self.ops = ops
        self.refs = refs
        self.evaluated = evaluated
        self.tests: list[Test] = []
        self.counts: list[Count] = []
        self.clones: list[tuple[int, int]] = []
        self.targets: list[tuple[str, Any]] = []
        self.legal: set[Any] = set()
        self._listed: list[Stmt] = []

    def program(self, values: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """(instructions, what runs) of a rule with these values; None if one of them does not fit."""
        exprs: list[Any] = list(self.exprs)
        first: Cmp
        ops: list[Any] = list(self.ops)
        test: Test
        count: Count
        data: bytes | None
        step: Any
        for test in self.tests:
            data = test.bytes_of(values)
            if data is None:
                return None
            first = cython.cast(Cmp, self.exprs[test.expr])
            exprs[test.expr] = made = first.with_data(data)
            step = self.ops[test.op]
            if type(step) is PayloadTest:
                ops[test.op] = cython.cast(PayloadTest, step).with_data(data)
            elif type(step) is PayloadBytes:
                ops[test.op] = cython.cast(PayloadBytes, step).with_data(data)
            else:
                ops[test.op] = made
        for count in self.counts:
            counter: Counter = Counter.__new__(Counter)
            counter.packets = values[count.packets] if count.packets >= 0 else 0
            counter.bytes = values[count.bytes] if count.bytes >= 0 else 0
            exprs[count.expr] = ops[count.op] = counter
        for at, op in self.clones:
            exprs[at] = ops[op] = self.exprs[at].clone()
        return tuple(exprs), tuple(ops)

    # --- trees

    def listed(self, values: tuple[Any, ...]) -> list[Stmt]:
        """The statements as a listing shows them; places in them are the first rule's."""
        if not self._listed:
            self._listed = canonical_stmts(self.evaluated, self.family)
        return _Rewrite(self.form, values, None).stmts(self._listed)

    def tree(self, rule: FormedRule) -> list[Stmt]:
        """The statements as they run."""
        return _Rewrite(self.form, rule.values, rule.loc).stmts(self.evaluated)


class _Rewrite:
    """A tree of a form's first rule with other values; and as of another place, if one is given."""

    def __init__(self, form: RuleForm, values: tuple[Any, ...], place: Location | None) -> None:
        self.values = values
        self.place = place
        first = form.rule.loc
        self.source: Source = first.source
        self.start, self.end = first.start, first.end
        self.holes = {start: (number, end) for number, (start, end, _) in enumerate(form.places)}
        self.counters = {at: {} for role, at in form.roles.values() if role in (PACKETS, BYTES)}  # type: ignore[var-annotated]
        for number, (role, at) in form.roles.items():
            if role in (PACKETS, BYTES):
                self.counters[at]["packets" if role == PACKETS else "bytes"] = values[number]
        self.by_place = {form.rule.stmts[at].loc.start: given for at, given in self.counters.items()}
        self.shifts: list[tuple[int, int]] = []
        if place is not None:
            mine = parsed_places(place.source, place.start)
            self.shifts = [(old[1], new[1]) for old, new in zip(form.places, mine, strict=True)]

    def stmts(self, stmts: Sequence[Stmt]) -> list[Stmt]:
        return [self.node(stmt) for stmt in stmts]

    def node(self, node: Any) -> Any:
        changes: dict[str, Any] = {}
        loc = node.loc
        mine = loc.source is self.source and self.start <= loc.start and loc.end <= self.end
        if type(node) is ConstantExpr:
            hole = self.holes.get(loc.start) if mine else None
            if hole is not None and hole[1] == loc.end:
                changes["value"] = self.values[hole[0]]
        elif type(node) is CounterStmt:
            changes.update(self.by_place.get(loc.start, {}) if mine else {})
        elif type(node) is PrefixExpr and type(node.expr) is ConstantExpr:
            inner = self.node(node.expr)
            if inner is not node.expr:
                ones, width = node.length, node.dtype.width
                cut = inner.value & (((1 << ones) - 1) << (width - ones)) if isinstance(inner.value, int) else inner.value
                changes["expr"] = replace(inner, value=cut)
        else:
            self._below(node, changes)
        if self.place is not None and mine:
            changes["loc"] = self._moved(loc)
        return replace(node, **changes) if changes else node

    def _below(self, node: Node, changes: dict[str, Any]) -> None:
        for entry in fields(node):
            if entry.name in ("loc", "dtype", "target"):
                continue
            value = getattr(node, entry.name)
            if isinstance(value, Node):
                fresh = self.node(value)
                if fresh is not value:
                    changes[entry.name] = fresh
            elif type(value) is list and value and isinstance(value[0], Node):
                items = [self.node(item) for item in value]
                if any(item is not was for item, was in zip(items, value, strict=True)):
                    changes[entry.name] = items

    def _moved(self, loc: Location) -> Location:
        assert self.place is not None
        return Location(self.place.source, self._at(loc.start), self._at(loc.end))

    def _at(self, offset: int) -> int:
        """Where an offset of the first rule's line lies in this one's."""
        assert self.place is not None
        old, new = self.start, self.place.start
        for before, after in self.shifts:
            if before > offset:
                break
            old, new = before, after
        return new + offset - old


# --- making one


def pattern_of(
    rule: RuleBlock, checked: CheckedRule, exprs: tuple[Any, ...], ops: tuple[Any, ...], refs: tuple[Any, ...], form: RuleForm
) -> Pattern | None:
    """The pattern of a rule that was parsed, checked, lowered and bound; None if it has none. `rule` is the form's first rule."""
    if any(type(expr) not in _SHARED and type(expr) not in (Counter, Limit) for expr in exprs):
        return None
    ranges = _ranges(checked, exprs)
    if ranges is None:
        return None
    made = Pattern(form, checked.family, exprs, ops, refs, checked.evaluated)
    at_op = {id(op): number for number, op in enumerate(ops)}
    for number, expr in enumerate(exprs):
        if type(expr) in (Counter, Limit) and id(expr) not in at_op:
            return None
        if type(expr) is Limit:
            made.clones.append((number, at_op[id(expr)]))
        elif isinstance(expr, ImmediateVerdict) and expr.chain:
            made.targets.append((expr.chain, expr.target))
    if not _counters(made, rule, ranges, at_op) or not _tests(made, ranges):
        return None
    again = made.program(form.values)
    return made if again is not None and _same(again[0], exprs) and _same(again[1], ops) else None


def _ranges(checked: CheckedRule, exprs: tuple[Any, ...]) -> list[tuple[Stmt, int, int]] | None:
    """Each statement that runs, with the instructions that it became."""
    lowering = RuleLowering(checked.family)
    ranges = []
    for stmt in checked.evaluated:
        begin = len(lowering.out)
        lowering.stmt(stmt)
        ranges.append((stmt, begin, len(lowering.out)))
    return ranges if _same(lowering.out, exprs) and not lowering.sets and not lowering.chains else None


def _same(ones: Sequence[Any], others: Sequence[Any]) -> bool:
    return len(ones) == len(others) and all(
        type(one) is type(other) and one.render() == other.render() for one, other in zip(ones, others, strict=True)
    )


def _counters(made: Pattern, rule: RuleBlock, ranges: list[tuple[Stmt, int, int]], at_op: dict[int, int]) -> bool:
    for stmt, begin, _ in ranges:
        if type(stmt) is not CounterStmt:
            continue
        holes = {PACKETS: -1, BYTES: -1}
        for hole, (role, at) in made.form.roles.items():
            if role in holes and rule.stmts[at].loc.start == stmt.loc.start:
                holes[role] = hole
        if min(holes.values()) < 0 and (stmt.packets or stmt.bytes):
            return False
        made.counts.append(Count(begin, at_op[id(made.exprs[begin])], holes[PACKETS], holes[BYTES]))
    counters = sum(type(expr) is Counter for expr in made.exprs)
    return counters == len(made.counts)


def _tests(made: Pattern, ranges: list[tuple[Stmt, int, int]]) -> bool:
    """The comparisons of all holes that have a value's role; whether each was found."""
    left = {hole for hole, (role, _) in made.form.roles.items() if role == VALUE}
    for stmt, begin, end in ranges:
        parts: list[Part] = []
        at = 0
        for match in stmt.parts if isinstance(stmt, MergedMatch) else [stmt] if isinstance(stmt, MatchStmt) else []:
            part, octets = _part(made.form, match, at)
            if part is not None:
                parts.append(part)
                left.discard(part.hole)
            at += octets
        if not parts:
            continue
        test = made.exprs[end - 1]
        if type(test) is not Cmp or type(made.exprs[begin]) is not Payload:
            return False
        for part in parts:
            part.octets = min(part.octets, len(test.data) - part.at)
        op = _step_of(made, end - 1)
        if op < 0:
            return False
        made.tests.append(Test(end - 1, op, test.data, parts))
    return not left


def _part(form: RuleForm, match: MatchStmt, at: int) -> tuple[Part | None, int]:
    """The hole that a match compares with, and the bytes of its field."""
    expr = match.expr
    if not isinstance(expr, RelationalExpr) or not isinstance(expr.left, PayloadExpr):
        return None, 0
    right, width = expr.right, expr.left.width
    mask = None
    if isinstance(right, PrefixExpr):
        mask = ((1 << right.length) - 1) << (width - right.length)
        right = right.expr
    for hole, (role, _) in form.roles.items():
        start, end, _ = form.places[hole]
        if role == VALUE and right.loc.start == start and right.loc.end == end and right.loc.source is form.rule.loc.source:
            return Part(hole, at, width // 8, width, mask), width // 8
    return None, width // 8


def _step_of(made: Pattern, number: int) -> int:
    """The step that changes when the bytes of a comparison do; -1 unless it is one, of a kind that can be made anew."""
    test: Any = made.exprs[number]
    data = bytes(octet ^ 0xFF for octet in test.data)
    other = list(made.exprs)
    other[number] = test.with_data(data)
    steps = fused(tuple(other))
    if len(steps) != len(made.ops):
        return -1
    changed = [at for at, (one, two) in enumerate(zip(made.ops, steps, strict=True)) if _shown(one) != _shown(two)]
    if len(changed) != 1:
        return -1
    step: Any = made.ops[changed[0]]
    if step is test:
        return changed[0]
    if type(step) is PayloadTest:
        return changed[0] if step.low == int.from_bytes(test.data, "big") and step.length == test.length else -1
    return changed[0] if type(step) is PayloadBytes and step.data == test.data else -1


def _shown(step: Any) -> tuple[Any, ...]:
    more = (step.family, step.data) if type(step) is PayloadBytes else ()
    return type(step), step.render(), more
