"""Commands on sets, maps and their elements (Linux: nf_tables_newset, nf_tables_newsetelem; nft: intervals.c)."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from userfw.nft.datatype_time import MAX_TIMEOUT_MS
from userfw.nft.element_run import FEW, ElementRun
from userfw.nft.location import NftError, NftErrors
from userfw.nft.syntax import Command, ConstantExpr, ElementsBlock, Expr, RangeExpr, SetBlock, SetElemExpr
from userfw.ruleset.draft import Draft
from userfw.ruleset.elements import CATCH_ALL, Element, Overlay, Span, key_of, key_place, keys_of, span_of
from userfw.ruleset.lookup import find_set, find_table, name_place
from userfw.ruleset.model import Ref, Set, Table
from userfw.ruleset.problems import missing, refused


def add_set(draft: Draft, command: Command) -> None:
    """Add a set or map. One that is there must be the same; its timeouts may change."""
    node = command.node
    assert isinstance(node, SetBlock)
    table = find_table(draft, command)
    old = table.sets.get(node.name)
    if node.key is None:
        raise NftError(f"{'map' if node.is_map else 'set'} definition does not specify key", name_place(command))
    if old is None:
        timed = "timeout" in node.flags or node.timeout is not None
        if (node.timeout or 0) >= MAX_TIMEOUT_MS:
            raise refused(errno.ERANGE, command.loc)
        dynamic = "dynamic" in node.flags
        if ("constant" in node.flags and timed) or (dynamic and (node.objtype is not None or "interval" in node.flags)):
            raise refused(errno.EOPNOTSUPP, name_place(command))  # Linux: nf_tables_newset
        table = draft.edit(table)
        entry = draft.new_set(table, node)
        draft.emit("add", entry.kind, table, node.name, node, entry.handle)
        return
    if command.op == "create" or not _same(old.node, node):
        raise refused(errno.EEXIST, name_place(command))
    if node.timeout not in (None, old.node.timeout) or node.gc_interval not in (None, old.node.gc_interval):
        table = draft.edit(table)
        entry = Set(old.handle, replace(old.node, timeout=node.timeout, gc_interval=node.gc_interval), old.elements, old.engine)
        table.sets[node.name] = entry
        draft.emit("add", entry.kind, table, node.name, entry.node, entry.handle)


def _same(old: SetBlock, new: SetBlock) -> bool:
    def facts(block: SetBlock) -> tuple[Any, ...]:
        key = getattr(block.key_dtype, "name", None) or block.key
        data = getattr(block.data_dtype, "name", None) or block.data
        return block.is_map, key, data, block.objtype, block.data_interval, [type(stmt) for stmt in block.stmts]

    if facts(old) != facts(new) or set(old.flags) != set(new.flags):
        return False
    return new.size in (None, old.size)


def delete_set(draft: Draft, command: Command) -> None:
    """Delete a set or map with its elements. EBUSY while a rule uses it."""
    try:
        table = find_table(draft, command)
        entry = find_set(draft, table, command)
    except NftError as problem:
        if command.op == "destroy" and "No such file" in problem.message:
            return
        raise
    if table.uses.get(Ref("set", entry.name)):
        raise refused(errno.EBUSY, name_place(command))
    table = draft.edit(table)
    draft.delete_set(table, entry)


def flush_set(draft: Draft, command: Command) -> None:
    """Delete all elements. EBUSY for constant sets in use."""
    table = find_table(draft, command)
    entry = find_set(draft, table, command)
    if command.obj != "meter" and entry.node.is_map != (command.obj == "map"):
        raise missing(name_place(command))
    _writable(table, entry, command)
    draft.flush_set(draft.edit(table), entry)


def _writable(table: Table, entry: Set, command: Command) -> None:
    if entry.has("constant") and table.uses.get(Ref("set", entry.name)):
        raise refused(errno.EBUSY, name_place(command))


def _elements(command: Command) -> Sequence[SetElemExpr]:
    assert isinstance(command.node, ElementsBlock)
    return command.node.elements


# --- add


def add_elements(draft: Draft, command: Command) -> None:
    """Add elements; `create` refuses those that are there."""
    table = draft.edit(find_table(draft, command))
    entry = find_set(draft, table, command)
    _writable(table, entry, command)
    interval = entry.elements.interval
    run = _elements(command)
    full = entry.has("constant") and entry.node.size is None and len(draft.elements(entry)) > 0
    if isinstance(run, ElementRun) and command.op == "add" and not full and draft.add_run(table, entry, run):
        return
    pairs = keys_of(run, interval)
    if interval:
        catch_all = [pair for pair in pairs if pair[0] == CATCH_ALL]
        spans = sorted((pair for pair in pairs if pair[0] != CATCH_ALL), key=lambda pair: pair[0])
        if entry.node.auto_merge and not entry.node.is_map:
            spans = _merge(draft, table, entry, spans)
        else:
            _check_overlaps(draft.overlay(table, entry), spans)
        pairs = [*spans, *catch_all]
    timed = entry.has("timeout") or entry.node.timeout is not None
    if not full and len(pairs) >= FEW and _add_many(draft, table, entry, pairs, timed):
        return
    errors: list[NftError] = []
    for key, node in pairs:
        try:
            _check_times(entry, node, timed)
            if full and draft.find_element(table, entry, key, node) is None:
                raise refused(errno.ENFILE, key_place(node))  # nft sets the size of a constant set to what it is declared with
            _add(draft, table, entry, key, node, command.op == "create")
        except NftError as problem:
            errors.append(problem)
            if len(errors) >= 10:
                break
    if errors:
        raise NftErrors(errors)


def _add_many(draft: Draft, table: Table, entry: Set, pairs: list[tuple[Any, SetElemExpr]], timed: bool) -> bool:
    """Add many new elements at once; False, and nothing, if one of them has to be looked at by itself."""
    try:
        for _, node in pairs:
            _check_times(entry, node, timed)
        return draft.add_many(table, entry, pairs)
    except (NftError, NftErrors):
        return False


def _check_times(entry: Set, node: SetElemExpr, timed: bool) -> None:
    """Timeouts need a set that has them; what is left is not more than the whole (Linux: nft_add_set_elem)."""
    if node.timeout is None and node.expires is None:
        return
    if not timed:
        raise refused(errno.EINVAL, key_place(node))
    if max(node.timeout or 0, node.expires or 0) >= MAX_TIMEOUT_MS:
        raise refused(errno.ERANGE, key_place(node))
    timeout = node.timeout if node.timeout is not None else entry.node.timeout
    if node.expires is not None and (timeout or 0) <= 0:
        raise refused(errno.EOPNOTSUPP, key_place(node))
    if node.expires is not None and timeout is not None and node.expires > timeout:
        raise refused(errno.ERANGE, key_place(node))


def _add(draft: Draft, table: Table, entry: Set, key: Any, node: SetElemExpr, create: bool) -> None:
    old = draft.find_element(table, entry, key, node)
    if old is None:
        draft.add_element(table, entry, key, node)
        return
    if create or (entry.node.is_map and old.node.data is not None and old.node.data != node.data):
        raise refused(errno.EEXIST, key_place(node))
    if node.timeout is not None or node.expires is not None:
        if (node.timeout, node.expires) != (old.node.timeout, old.node.expires):
            draft.retime_element(table, entry, key, replace(node, comment=node.comment or old.node.comment))


def _check_overlaps(overlay: Overlay, spans: list[tuple[Span, SetElemExpr]]) -> None:
    errors: list[NftError] = []
    before: tuple[Span, SetElemExpr] | None = None
    if not overlay.spans and (overlay.flushed or not len(overlay.base)):
        last = -1
        for span, _ in spans:
            if span[0] <= last:
                break
            last = span[1]
        else:
            return
    for span, node in spans:
        if before is not None and span != before[0] and span[0] <= before[0][1]:
            errors.append(NftError("conflicting intervals specified", key_place(node), also=[key_place(before[1])]))
        old = overlay.overlapping(span)
        if old is not None and old.key != span:
            errors.append(NftError("interval overlaps with an existing one", key_place(node)))
        if before is None or span[1] > before[0][1]:
            before = span, node
        if len(errors) >= 10:
            break
    if errors:
        raise NftErrors(errors)


def _merge(draft: Draft, table: Table, entry: Set, spans: list[tuple[Span, SetElemExpr]]) -> list[tuple[Span, SetElemExpr]]:
    """Join what touches, among the new and with the old, which are taken away (nft: set_automerge)."""
    overlay = draft.overlay(table, entry)
    result: list[tuple[Span, SetElemExpr]] = []
    # Names that touch ("dum2*", "dum3*") stay two: a range of names cannot be written.
    touch = 0 if spans and getattr(spans[0][1].key.dtype, "is_string", False) else 1
    for span, node in spans:
        while True:
            old = overlay.overlapping((max(span[0] - touch, 0), span[1] + touch))
            if old is None or old.key == span:
                break
            joined = min(span[0], old.key[0]), max(span[1], old.key[1])
            if joined == old.key:
                span = joined
                break
            draft.remove_element(table, entry, old)
            span = joined
        if result and span[0] <= result[-1][0][1] + touch:
            last, first = result.pop()
            span = last[0], max(last[1], span[1])
            node = first
        result.append((span, spanning(node, span)))
    return [(span, node) for span, node in result if not _holds(overlay, span)]


def _holds(overlay: Overlay, span: Span) -> bool:
    old = overlay.overlapping(span)
    return old is not None and old.key[0] <= span[0] and span[1] <= old.key[1]


def spanning(node: SetElemExpr, span: Span) -> SetElemExpr:
    """The element with its key changed to cover `span`."""
    if span_of(node.key) == span:
        return node
    return replace(node, key=span_expr(node.key, span))


def span_expr(like: Expr, span: Span) -> Expr:
    """An expression for a span, of the type of another."""
    base = like
    while not isinstance(base, ConstantExpr):
        base = base.left if isinstance(base, RangeExpr) else getattr(base, "expr", None) or ConstantExpr(0)
    width = like.width or base.width

    def constant(value: int) -> ConstantExpr:
        return ConstantExpr(value, dtype=base.dtype, width=width, loc=like.loc)

    if span[0] == span[1]:
        return constant(span[0])
    return RangeExpr(constant(span[0]), constant(span[1]), dtype=like.dtype, width=width, loc=like.loc)


# --- delete


def delete_elements(draft: Draft, command: Command) -> None:
    """Delete elements; `destroy` does not mind those that are not there."""
    table = find_table(draft, command)
    entry = find_set(draft, table, command)
    table = draft.edit(table)
    _writable(table, entry, command)
    interval = entry.elements.interval
    errors: list[NftError] = []
    for node in _elements(command):
        key = key_of(node.key, interval)
        old = draft.find_element(table, entry, key, node)
        if old is not None:
            draft.remove_element(table, entry, old)
        elif interval and entry.node.auto_merge and _cut(draft, table, entry, key, node):
            continue
        elif command.op != "destroy":
            plain = interval and key != CATCH_ALL
            errors.append(NftError("element does not exist", key_place(node)) if plain else refused(errno.ENOENT, key_place(node)))
    if errors:
        raise NftErrors(errors)


def _cut(draft: Draft, table: Table, entry: Set, span: Span, node: SetElemExpr) -> bool:
    """Take a part out of an interval (nft: set_delete with auto-merge)."""
    old: Element | None = draft.overlay(table, entry).containing(span)
    if old is None:
        return False
    draft.remove_element(table, entry, old)
    low, high = old.key
    for part in ((low, span[0] - 1), (span[1] + 1, high)):
        if part[0] <= part[1]:
            draft.add_element(table, entry, part, spanning(old.node, part))
    return True


# --- get


def find_containing(draft: Draft, table: Table, entry: Set, command: Command) -> list[Element]:
    """The elements that hold what `get element` asks for. ENOENT if one is not there; the catch-all is found as `*` only
    (Linux: nft_setelem_get)."""
    interval = entry.elements.interval
    overlay = draft.elements(entry)
    found: dict[Any, Element] = {}
    for node in _elements(command):
        key = key_of(node.key, interval)
        element = draft.find_element(table, entry, key, node) or overlay.containing(key)
        if element is None:
            raise refused(errno.ENOENT, command.loc)
        found[element.key] = element
    return list(found.values())
