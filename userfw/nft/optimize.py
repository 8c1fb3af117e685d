"""``-o``: consecutive rules that differ in values only become one, with a set, a concatenation, a verdict map or a NAT map.

Laws:
- The input is trees as parsed, of ``table … { chain … { … } }`` blocks; rules stay where they are but for those that merge, and
  those are next to each other (nft 1.1.6, src/optimize.c, for which rules merge, into what, in which order).
- A merge never changes what happens to a packet. Where nft's would, the rules are left alone: statements that act before a match,
  a log or notrack before different verdicts (nft's map would skip them), tests of single bits (a set asks for the whole value),
  jumps by concatenated ranges that may overlap (nft's map would take one of them).
- Values are compared as written; what the checker then refuses (keys that overlap in a map) is left alone as well: see
  ``Optimizer.invalid``.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from userfw.nft import syntax as s
from userfw.nft.location import Location
from userfw.nft.printer import format_rule
from userfw.nft.printer_expr import PLAIN

MOST_STATEMENTS: Final = 32
"""Different statements of a chain; with more nft leaves it as it is."""

_VALUES: Final = (s.SymbolExpr, s.ConstantExpr, s.RangeExpr, s.PrefixExpr, s.SetExpr, s.ListExpr)
_ADDRESSES: Final = (s.SymbolExpr, s.ConstantExpr, s.RangeExpr)
_SELECTORS: Final = (
    s.PayloadExpr, s.RawPayloadExpr, s.ExthdrExpr, s.IpOptionExpr, s.TcpOptionExpr, s.SctpChunkExpr, s.MetaExpr, s.CtExpr, s.RtExpr,
    s.SocketExpr, s.OsfExpr, s.XfrmExpr, s.FibExpr, s.NumgenExpr, s.HashExpr, s.BinopExpr,
)  # fmt: skip
_STATES: Final = ("state",)
"""Bit fields of ct of which exactly one bit is set, so that a set means what a list means."""


@dataclass(frozen=True)
class Merge:
    """What became what: the rules' places and lines, and the text of the new one."""

    before: tuple[tuple[Location, str], ...]
    after: str

    def covers(self, loc: Location) -> bool:
        """Whether a place is in one of the rules."""
        return any(loc.source is place.source and place.start <= loc.start < place.end for place, _ in self.before)

    def text(self) -> str:
        """As nft prints it."""
        lines = "".join(f"{place}: {line}\n" for place, line in self.before)
        return f"Merging:\n{lines}into:\n\t{self.after}\n"


class Optimizer:
    """Merges the rules of commands. ``invalid``: first rules of merges that the checker refused; ``merges``: what was done."""

    def __init__(self, invalid: Iterable[Location] = ()) -> None:
        self.invalid = set(invalid)
        self.merges: list[Merge] = []

    def commands(self, commands: list[s.Command]) -> list[s.Command]:
        """The commands with the chains of their table blocks optimized; what was given stays as it is."""
        return [self._command(command) for command in commands]

    def _command(self, command: s.Command) -> s.Command:
        node = command.node
        if command.op != "add" or not isinstance(node, s.TableBlock):
            return command
        chains = [chain if "offload" in chain.flags else replace(chain, rules=self.rules(chain.rules)) for chain in node.chains]
        return replace(command, node=replace(node, chains=chains))

    def rules(self, rules: list[s.RuleBlock]) -> list[s.RuleBlock]:
        """The rules of a chain, merged."""
        kinds: list[Any] = []
        rows: list[Row] = []
        for rule in rules:
            rows.append(_row(rule, kinds))
            if len(kinds) > MOST_STATEMENTS:
                return rules
        result: list[s.RuleBlock] = []
        at = 0
        while at < len(rules):
            end = at + 1
            while end < len(rules) and _alike(rows[at], rows[end]):
                end += 1
            merged = self._merge(rules[at:end], rows[at:end]) if end - at > 1 else None
            result += [merged] if merged is not None else rules[at:end]
            at = end
        return result

    def _merge(self, rules: list[s.RuleBlock], rows: list[Row]) -> s.RuleBlock | None:
        """One rule for all of these, or None."""
        if rules[0].loc in self.invalid or _repeated(rows):
            return None
        stmts = _merged(rows)
        if stmts is None:
            return None
        result = s.RuleBlock(stmts, loc=rules[0].loc)
        shown = format_rule(result, replace(PLAIN, stateless=True))
        self.merges.append(Merge(tuple((rule.loc, rule.loc.source.line_text(rule.loc.line)) for rule in rules), shown))
        return result


@dataclass
class Row:
    """A rule by the kinds of its statements: index of the kind to the statement, in the rule's order. ``plain``: all are of kinds
    that merge; ``acts``: a statement that does something stands before a match."""

    stmts: dict[int, s.Stmt]
    plain: bool
    acts: bool


def _row(rule: s.RuleBlock, kinds: list[Any]) -> Row:
    """The rule's row; kinds that are new are appended, in order."""
    stmts: dict[int, s.Stmt] = {}
    plain, acted, acts = True, False, False
    for stmt in rule.stmts:
        kind = _kind(stmt)
        if kind is None or (kind in kinds and kinds.index(kind) in stmts):
            plain = False
            continue
        if kind not in kinds:
            kinds.append(kind)
        stmts[kinds.index(kind)] = stmt
        if kind[0] in ("match", "vmap"):
            acts = acts or acted
        else:
            acted = True
    return Row(stmts, plain, acts)


def _kind(stmt: s.Stmt) -> tuple[Any, ...] | None:
    """What must be equal for two statements to merge, or None if the statement never does."""
    match stmt:
        case s.MatchStmt(expr=s.RelationalExpr(op=("" | "==") as op, left=left, right=right)):
            if isinstance(left, _SELECTORS) and _mergeable(left, right, op):
                return "match", op, _key(left)
        case s.VerdictStmt(expr=s.MapExpr(key=key, mapping=s.SetExpr())):
            return "vmap", _key(key)
        case s.VerdictStmt(expr=s.VerdictExpr(block=None)):
            return ("verdict",)
        case s.CounterStmt() | s.NotrackStmt():
            return (type(stmt).__name__,)
        case s.LogStmt():
            return "log", _key(stmt)
        case s.RejectStmt():
            return "reject", _key(stmt)
        case s.NatStmt(form="") if all(part is None or isinstance(part, _ADDRESSES) for part in (stmt.addr, stmt.port)):
            return "nat", stmt.kind, stmt.family, stmt.flags, stmt.addr is None, stmt.port is None
    return None


def _key(node: s.Node) -> str:
    """Equal for equal trees (places are not shown)."""
    return repr(node)


def _mergeable(left: s.Expr, right: s.Expr, op: str) -> bool:
    """Whether the value can be an element of a set that means the same."""
    if isinstance(right, s.BinopExpr):
        return op == "==" and _is_mask(right)
    if not isinstance(right, _VALUES):
        return False
    bits = isinstance(left, s.PayloadExpr) and left.field == "flags"
    bits = bits or (isinstance(left, s.CtExpr) and left.key in ("status", "label"))
    if op == "" and (bits or isinstance(left, s.BinopExpr)):
        return isinstance(right, s.SetExpr)
    lists = isinstance(right, s.ListExpr)
    if lists and not (isinstance(left, s.CtExpr) and left.key in _STATES):
        return False
    return not (isinstance(right, s.SetExpr) and any(elem.stmts or elem.data is not None for elem in right.elements))


def _is_mask(expr: s.Expr) -> bool:
    """``a | b | c`` of values."""
    if isinstance(expr, s.BinopExpr):
        return expr.op == "|" and _is_mask(expr.left) and _is_mask(expr.right)
    return isinstance(expr, (s.SymbolExpr, s.ConstantExpr))


def _alike(a: Row, b: Row) -> bool:
    """Whether two rules have the same kinds of statements and something to merge."""
    return a.plain and b.plain and not a.acts and not b.acts and a.stmts.keys() == b.stmts.keys() and bool(_varying(a))


def _varying(row: Row) -> list[int]:
    """The statements that make a set or a map, in the order of the chain."""
    return sorted(at for at, stmt in row.stmts.items() if isinstance(stmt, s.MatchStmt) or _vmap(stmt) is not None)


def _vmap(stmt: s.Stmt) -> s.MapExpr | None:
    return stmt.expr if isinstance(stmt, s.VerdictStmt) and isinstance(stmt.expr, s.MapExpr) else None


def _repeated(rows: list[Row]) -> bool:
    """Whether two of the rules match the same values: there would be one key twice."""
    seen: set[tuple[str, ...]] = set()
    for row in rows:
        key = tuple(_key(value) for value in _rights(row))
        if key and key in seen:
            return True
        seen.add(key)
    return False


def _rights(row: Row) -> list[s.Expr]:
    return [_relation(row.stmts[at]).right for at in _varying(row) if isinstance(row.stmts[at], s.MatchStmt)]


def _relation(stmt: s.Stmt) -> s.RelationalExpr:
    assert isinstance(stmt, s.MatchStmt) and isinstance(stmt.expr, s.RelationalExpr)
    return stmt.expr


# --- what becomes of them


def _merged(rows: list[Row]) -> list[s.Stmt] | None:
    """The statements of the new rule."""
    first, where = rows[0], _varying(rows[0])
    vmaps = [at for at in where if _vmap(first.stmts[at]) is not None]
    if vmaps:
        return _merged_maps(rows, where[0]) if len(where) == 1 else None
    nat = next((stmt for stmt in first.stmts.values() if isinstance(stmt, s.NatStmt)), None)
    if nat is not None and (nat.addr is not None or nat.port is not None):
        return _merged_nat(rows, where, nat)
    if len({_key(verdict) for row in rows if (verdict := _verdict(row)) is not None}) > 1:
        return _merged_verdicts(rows, where)
    return _replaced(first, where, s.MatchStmt(_membership(rows, where), loc=first.stmts[where[0]].loc))


def _verdict(row: Row) -> s.VerdictExpr | None:
    found = (stmt.expr for stmt in row.stmts.values() if isinstance(stmt, s.VerdictStmt))
    return next((expr for expr in found if isinstance(expr, s.VerdictExpr)), None)


def _replaced(row: Row, where: list[int], new: s.Stmt, without: tuple[type, ...] = ()) -> list[s.Stmt]:
    """The row's statements with ``new`` for the first of ``where``, the others of it gone."""
    gone = {at for at, stmt in row.stmts.items() if isinstance(stmt, without)} | set(where[1:])
    return [new if at == where[0] else stmt for at, stmt in row.stmts.items() if at not in gone]


def _lefts(row: Row, where: list[int]) -> s.Expr:
    parts = [_relation(row.stmts[at]).left for at in where]
    return parts[0] if len(parts) == 1 else s.ConcatExpr(parts, loc=parts[0].loc)


def _items(value: s.Expr) -> list[s.Expr]:
    """The values of a set or list."""
    if isinstance(value, s.ListExpr):
        return list(value.items)
    if isinstance(value, s.SetExpr):
        return [item for elem in value.elements for item in _items(elem.key)]
    return [value]


def _keys(row: Row, where: list[int]) -> Iterator[s.Expr]:
    """The row's values as keys; sets and lists multiply."""
    values = [_items(_relation(row.stmts[at]).right) for at in where]
    for parts in itertools.product(*values):
        yield parts[0] if len(parts) == 1 else s.ConcatExpr(list(parts), loc=parts[0].loc)


def _membership(rows: list[Row], where: list[int]) -> s.RelationalExpr:
    """``left { … }``. Of a single selector a set stays a set within, as nft prints it."""
    first = _relation(rows[0].stmts[where[0]])
    if len(where) == 1:
        keys = [key for row in rows for key in _own(_relation(row.stmts[where[0]]).right)]
    else:
        keys = [key for row in rows for key in _keys(row, where)]
    elements = [s.SetElemExpr(key, loc=key.loc) for key in keys]
    return s.RelationalExpr(first.op, _lefts(rows[0], where), s.SetExpr(elements, loc=first.right.loc), loc=first.loc)


def _own(value: s.Expr) -> list[s.Expr]:
    return list(value.items) if isinstance(value, s.ListExpr) else [value]


def _merged_verdicts(rows: list[Row], where: list[int]) -> list[s.Stmt] | None:
    """``left vmap { … : verdict }``; counters go into the elements. None where a statement would be skipped by the map."""
    if any(not isinstance(stmt, (s.MatchStmt, s.CounterStmt, s.VerdictStmt)) for stmt in rows[0].stmts.values()):
        return None
    if len(where) > 1 and any(_comes_back(row) for row in rows) and any(_wide(row, where) for row in rows):
        return None
    elements = []
    for row in rows:
        counters = [stmt for stmt in row.stmts.values() if isinstance(stmt, s.CounterStmt)]
        for key in _keys(row, where):
            own: list[s.Stmt] = [replace(stmt) for stmt in counters]
            elements.append(s.SetElemExpr(key, data=_verdict(row), stmts=own, loc=key.loc))
    loc = rows[0].stmts[where[0]].loc
    expr = s.MapExpr(_lefts(rows[0], where), s.SetExpr(elements, loc=loc), vmap=True, loc=loc)
    return _replaced(rows[0], where, s.VerdictStmt(expr, loc=loc), (s.CounterStmt, s.VerdictStmt))


def _comes_back(row: Row) -> bool:
    """Whether the next rule may still see the packet: of two keys that overlap a map finds one only."""
    found = _verdict(row)
    return found is None or found.kind in ("jump", "continue")


def _wide(row: Row, where: list[int]) -> bool:
    """Whether a value stands for several."""
    items = [item for at in where for item in _items(_relation(row.stmts[at]).right)]
    several = (s.RangeExpr, s.PrefixExpr)
    return any(isinstance(item, several) or (isinstance(item, s.SymbolExpr) and item.name.endswith("*")) for item in items)


def _merged_maps(rows: list[Row], at: int) -> list[s.Stmt]:
    """Several ``key vmap { … }`` of one key."""
    first = _vmap(rows[0].stmts[at])
    assert first is not None and isinstance(first.mapping, s.SetExpr)
    elements = [elem for row in rows for elem in _elements(row.stmts[at])]
    expr = replace(first, mapping=s.SetExpr(elements, loc=first.mapping.loc))
    return _replaced(rows[0], [at], s.VerdictStmt(expr, loc=rows[0].stmts[at].loc))


def _elements(stmt: s.Stmt) -> list[s.SetElemExpr]:
    found = _vmap(stmt)
    assert found is not None and isinstance(found.mapping, s.SetExpr)
    return list(found.mapping.elements)


def _nat_of(row: Row) -> s.NatStmt:
    return next(stmt for stmt in row.stmts.values() if isinstance(stmt, s.NatStmt))


def _merged_nat(rows: list[Row], where: list[int], nat: s.NatStmt) -> list[s.Stmt]:
    """``dnat to left map { … }``; counters are left out, as nft does."""
    elements = []
    for row in rows:
        own = _nat_of(row)
        parts = [part for part in (own.addr, own.port) if part is not None]
        data = parts[0] if len(parts) == 1 else s.ConcatExpr(parts, loc=parts[0].loc)
        elements += [s.SetElemExpr(key, data=data, loc=key.loc) for key in _keys(row, where)]
    expr = s.MapExpr(_lefts(rows[0], where), s.SetExpr(elements, loc=nat.loc), loc=nat.loc)
    family = nat.family or _family_of(rows[0], where) if nat.addr is not None else nat.family
    new = replace(nat, family=family, addr=expr if nat.addr is not None else None, port=None if nat.addr is not None else expr)
    kept = [stmt for stmt in rows[0].stmts.values() if not isinstance(stmt, (s.MatchStmt, s.CounterStmt))]
    return [new if stmt is nat else stmt for stmt in kept]


def _family_of(row: Row, where: list[int]) -> str | None:
    """ip or ip6 if a selector is a field of that header."""
    found = None
    for at in where:
        left = _relation(row.stmts[at]).left
        if isinstance(left, s.PayloadExpr) and left.protocol in ("ip", "ip6"):
            found = left.protocol
    return found
