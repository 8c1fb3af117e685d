"""Checking sets: elements of anonymous and named sets, maps and their data, lookups.

Laws:
- Elements keep the order written, except that an anonymous set with ranges is sorted and what touches is merged, as nft
  does before it asks the kernel; maps with ranges that overlap are refused.
- Plain elements go through a short path: 100,000 of them are no more than a loop of constructors.
- A set is an interval set when its flags say so or, anonymous, when one of its elements covers more than one value.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from userfw.nft.check_context import fail
from userfw.nft.check_expr import ExprChecker
from userfw.nft.datatype import Datatype
from userfw.nft.datatype_tables import STRING, VERDICT, ConcatType
from userfw.nft.element_run import ElementRun
from userfw.nft.spans import bounds, span
from userfw.nft.syntax import (
    CatchAllExpr,
    ConcatExpr,
    ConnlimitStmt,
    ConstantExpr,
    CounterStmt,
    Expr,
    LastStmt,
    LimitStmt,
    MapExpr,
    PrefixExpr,
    QuotaStmt,
    RangeExpr,
    SetBlock,
    SetElemExpr,
    SetExpr,
    SetRefExpr,
    SymbolExpr,
    VerdictExpr,
)

STATEFUL = (CounterStmt, QuotaStmt, LimitStmt, LastStmt, ConnlimitStmt)

Data = Datatype | str | None
"""What a map holds: values of a type, or stateful objects of a kind (``counter``, ``ct helper``, …); None in a set."""


class SetChecker(ExprChecker):
    """Sets and maps."""

    def lookup_set(self, node: SetRefExpr) -> SetBlock:
        """The set that a reference names."""
        found = self.resolver.set_of(self.family, self.chain.table, node.name)
        if found is None:
            guess = self.resolver.like(self.family, self.chain.table, node.name)
            more = guess or f"set '{node.name}' does not exist in table {self.family} '{self.chain.table}'"
            fail(node, f"No such file or directory; {more}")
        return found

    def set_ref(self, node: SetRefExpr) -> SetRefExpr:
        """A reference with its target."""
        target = self.lookup_set(node)
        return SetRefExpr(node.name, target, loc=node.loc, dtype=target.key_dtype)

    def anonymous_set(self, node: SetExpr, key: Datatype, data: Data = None, *, data_interval: bool = False) -> SetExpr:
        """``{ … }`` in a rule."""
        elements = list(self.elements(node.elements, key, data, interval=True, data_interval=data_interval))
        if not isinstance(key, ConcatType) and any(type(elem.key) in (RangeExpr, PrefixExpr) for elem in elements):
            elements = sort_intervals(elements, merge=data is None)
        elif data is None:
            elements = unique(elements)
        return SetExpr(elements, loc=node.loc, dtype=key)

    def elements(
        self, nodes: Sequence[SetElemExpr], key: Datatype, data: Data, *, interval: bool, data_interval: bool = False
    ) -> Sequence[SetElemExpr]:
        """Checked elements; nested sets are flattened."""
        if isinstance(nodes, ElementRun) and data is None and (interval or not nodes.ranged):
            run = nodes.typed(key)
            if run is not None:
                return run
        out: list[SetElemExpr] = []
        append = out.append
        parse = key.parse
        names = self.names
        plain = data is None and not key.is_string and not isinstance(key, ConcatType)
        limit = 1 << key.width if key.width else 0
        for node in nodes:
            word = node.key
            if plain and type(word) is SymbolExpr and node.data is None and not node.stmts:
                try:
                    value = cast(int, parse(word.name, names))
                except ValueError as problem:
                    fail(word, str(problem))
                if not limit or value < limit:
                    checked = ConstantExpr(value, loc=word.loc, dtype=key)
                    append(SetElemExpr(checked, None, [], node.timeout, node.expires, node.comment, loc=node.loc, dtype=key))
                    continue
            if type(word) is SetExpr:
                out.extend(self.elements(word.elements, key, data, interval=interval, data_interval=data_interval))
                continue
            append(self._element(node, key, data, interval, data_interval))
        return out

    def _element(self, node: SetElemExpr, key: Datatype, data: Data, interval: bool, data_interval: bool) -> SetElemExpr:
        checked = self.value(node.key, key)
        if isinstance(checked, SetExpr | SetRefExpr | VerdictExpr):
            fail(node, "set element is not a value")
        if not interval and not isinstance(key, ConcatType) and isinstance(checked, RangeExpr | PrefixExpr):
            fail(checked, "You must add 'flags interval' to your set declaration if you want to add range or prefix elements")
        if not interval and isinstance(checked, ConcatExpr) and any(isinstance(i, RangeExpr | PrefixExpr) for i in checked.items):
            fail(checked, "You must add 'flags interval' to your set declaration if you want to add range or prefix elements")
        checked = _as_prefix(checked)
        mapped = None
        if data is None:
            if node.data is not None:
                fail(node.data, "unexpected data in a set; a map needs data")
        elif node.data is None:
            fail(node, "No key/value pair: a map element needs data")
        else:
            mapped = self._data(node.data, data, data_interval)
        for stmt in node.stmts:
            if not isinstance(stmt, STATEFUL):
                fail(stmt, "statement is not stateful")
        return SetElemExpr(checked, mapped, list(node.stmts), node.timeout, node.expires, node.comment, loc=node.loc, dtype=key)

    def _data(self, node: Expr, data: Data, data_interval: bool) -> Expr:
        if isinstance(data, str):
            return self.object_name(node, data)
        assert data is not None
        if data is VERDICT:
            if not isinstance(node, VerdictExpr):
                fail(node, "datatype mismatch, expected netfilter verdict")
            return self.verdict(node)
        if isinstance(node, VerdictExpr):
            fail(node, f"datatype mismatch, expected {data.desc}, expression has type netfilter verdict")
        checked = self.value(node, data)
        if not data_interval:
            parts = checked.items if isinstance(checked, ConcatExpr) else [checked]
            for part in parts:
                if isinstance(part, RangeExpr | PrefixExpr) and not part.dtype.is_string:
                    fail(part, "ranges and prefixes are not allowed as data of this map; say 'interval' before its data type")
        return checked

    def object_name(self, node: Expr, kind: str) -> Expr:
        """The name of a stateful object: it must exist."""
        name = None
        if isinstance(node, SymbolExpr):
            name = node.name
        elif isinstance(node, ConstantExpr):
            name = node.value.decode() if isinstance(node.value, bytes) else str(node.value)
        if name is None:
            fail(node, "name of a stateful object expected")
        if self.resolver.object_of(self.family, self.chain.table, kind, name) is None:
            fail(node, f"No such file or directory; {kind} '{name}' does not exist in table {self.family} '{self.chain.table}'")
        return ConstantExpr(name.encode("utf-8", "surrogateescape"), loc=node.loc, dtype=STRING)

    # --- maps

    def map_expr(self, node: MapExpr, dtype: Datatype) -> Expr:
        """``key map { … }`` or ``key map @name`` that yields ``dtype``."""
        return self.mapping(node, dtype, data_interval=False)

    def mapping(self, node: MapExpr, dtype: Data, *, data_interval: bool) -> MapExpr:
        """A map with data of ``dtype`` (``None``: whatever a named map holds)."""
        key = self.lhs(node.key)
        kind: Datatype = key.dtype
        mapping = node.mapping
        if isinstance(mapping, SetExpr):
            self.need_sized(key)
            table: Expr = self.anonymous_set(mapping, kind, dtype, data_interval=data_interval)
            result = dtype if isinstance(dtype, Datatype) else STRING
            return MapExpr(key, table, node.vmap, loc=node.loc, dtype=result)
        if not isinstance(mapping, SetRefExpr):
            fail(mapping, "Expression is not a map")
        ref = self.set_ref(mapping)
        target: SetBlock = ref.target
        if not target.is_map:
            fail(mapping, "Expression is not a map")
        self.need_same_key(key, ref)
        self._need_same_data(node, target, dtype)
        return MapExpr(key, ref, node.vmap, loc=node.loc, dtype=target.data_dtype or STRING)

    def need_sized(self, key: Expr) -> None:
        """Sets need keys of known width."""
        if key.dtype.width == 0:
            fail(key, f"cannot use {key.dtype.name} of unknown size as key")

    def _need_same_data(self, node: MapExpr, target: SetBlock, dtype: Data) -> None:
        if isinstance(dtype, str):
            if target.objtype != dtype:
                fail(node.mapping, f"map does not hold objects of kind {dtype}")
        elif dtype is not None:
            have = target.data_dtype
            if have is None:
                fail(node.mapping, f"map holds objects of kind {target.objtype}, expected {dtype.desc}")
            if not have.same(dtype) and not _alike(have, dtype):
                fail(node.mapping, f"datatype mismatch, map expects {dtype.desc}, mapping expression has type {have.desc}")

    def need_same_key(self, key: Expr, ref: SetRefExpr) -> None:
        """Refuse a lookup whose key is of another type than the set's."""
        target: SetBlock = ref.target
        want, have = target.key_dtype, key.dtype
        if want is None or ((have.same(want) or _alike_key(have, want)) and have.octets == want.octets):
            return
        sizes = have.octets != want.octets and have.name == want.name
        more = f" of {want.octets} bytes, not {have.octets}" if sizes else ""
        fail(
            ref,
            f"datatype mismatch, expected {_described(have)}, expression has type {_described(want)}{more}",
            key.loc,
        )


def _described(dtype: Datatype) -> str:
    if isinstance(dtype, ConcatType):
        return f"concatenation of ({', '.join(part.desc for part in dtype.parts)})"
    return dtype.desc


def _alike(have: Datatype, want: Datatype) -> bool:
    """Data of another name that fits: numbers of one byte order for marks and plain integers."""
    if isinstance(have, ConcatType) or isinstance(want, ConcatType):
        return have.width == want.width
    return have.root is want.root and "integer" in (have.name, want.name)


def _alike_key(have: Datatype, want: Datatype) -> bool:
    if isinstance(have, ConcatType) and isinstance(want, ConcatType):
        if len(have.parts) != len(want.parts):
            return False
        return all(a.same(b) or _alike_key(a, b) for a, b in zip(have.parts, want.parts, strict=True))
    if isinstance(have, ConcatType) or isinstance(want, ConcatType):
        return False
    return have.is_string and want.is_string


def _as_prefix(key: Expr) -> Expr:
    """An element's range of addresses that is a prefix, as a prefix."""
    if isinstance(key, RangeExpr):
        dtype: Datatype = key.dtype
        if dtype.prefix:
            low, high = bounds(key)
            return span(low, high, dtype, key.loc)
    elif isinstance(key, ConcatExpr):
        return ConcatExpr([_as_prefix(item) for item in key.items], loc=key.loc, dtype=key.dtype)
    return key


def unique(elements: list[SetElemExpr]) -> list[SetElemExpr]:
    """The elements without those that repeat an earlier one."""
    seen: set[object] = set()
    out = []
    for elem in elements:
        key = elem.key
        mark = key.value if isinstance(key, ConstantExpr) else repr(key)
        if mark not in seen:
            seen.add(mark)
            out.append(elem)
    return out


def sort_intervals(elements: list[SetElemExpr], *, merge: bool) -> list[SetElemExpr]:
    """Elements in order of their first value. ``merge``: what overlaps or touches becomes one; else overlaps are refused."""
    rows = []
    rest = []
    for elem in elements:
        if isinstance(elem.key, CatchAllExpr):
            rest.append(elem)
        else:
            rows.append((*bounds(elem.key), elem))
    rows.sort(key=lambda row: (row[0], -row[1]))
    out: list[tuple[int, int, SetElemExpr]] = []
    for low, high, elem in rows:
        if out:
            last_low, last_high, last = out[-1]
            if low <= last_high and not merge:
                if (low, high) == (last_low, last_high) and elem.data == last.data:
                    continue
                fail(elem, "conflicting intervals specified", last.loc)
            # Names that touch ("dum2*", "dum3*") stay two: a range of names cannot be written.
            reach = last_high if getattr(elem.key.dtype, "is_string", False) else last_high + 1
            if merge and low <= reach and not last.stmts and not elem.stmts:
                if high > last_high:
                    out[-1] = (last_low, high, _joined(last, last_low, high))
                continue
        out.append((low, high, elem))
    return [*(elem for _, _, elem in out), *rest]


def _joined(elem: SetElemExpr, low: int, high: int) -> SetElemExpr:
    dtype = elem.dtype
    return SetElemExpr(
        span(low, high, dtype, elem.loc), elem.data, elem.stmts, elem.timeout, elem.expires, elem.comment, loc=elem.loc, dtype=dtype
    )
