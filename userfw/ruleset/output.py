"""Text of listings, echo and monitors, put together from the printers of `nft` as libnftables does it.

Laws:
- A listing of whole tables is the printer's; one of parts has the table's braces around the parts, without blank lines.
- An event is one line: `add rule ip t c …`. What nft's monitor leaves out (element statements, table comments) is left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from userfw.nft.printer import (
    ONE_LINE,
    Form,
    Style,
    format_chain,
    format_expr,
    format_flowtable,
    format_hook,
    format_object,
    format_rule,
    format_ruleset,
    format_set,
)
from userfw.nft.syntax import ChainBlock, SetBlock, TableBlock
from userfw.ruleset.elements import Element
from userfw.ruleset.events import Event, NewGeneration
from userfw.ruleset.listing import Listing
from userfw.ruleset.live import rule_block
from userfw.ruleset.model import Rule, Table


def listing_text(listing: Listing, style: Style) -> str:
    """A listing as nft prints it."""
    if listing.form == "text":
        return listing.text
    if listing.form == "tables":
        return "".join(f"table {table.family} {table.name}{_handle(table.handle, style)}\n" for table in listing.tables)
    if listing.form == "ruleset":
        return format_ruleset(listing.tables, style)
    return "".join(_parts(table, style) for table in listing.tables)


def _handle(handle: int | None, style: Style) -> str:
    return f" # handle {handle}" if style.handles and handle is not None else ""


def _parts(table: TableBlock, style: Style) -> str:
    lines = [f"table {table.family} {table.name} {{\n"]
    lines += [format_object(block, style) for block in table.objects]
    lines += [format_set(block, style) for block in table.sets]
    lines += [format_flowtable(block, table.family, style) for block in table.flowtables]
    lines += [format_chain(block, table.family, style) for block in table.chains]
    return "".join([*lines, "}\n"])


# --- events


def event_text(event: Event | NewGeneration, style: Style, now: int = 0) -> str:
    """The line that a monitor prints for an event, with its newline."""
    if isinstance(event, NewGeneration):
        return f"# new generation {event.generation} by process {event.pid} ({event.process})\n"
    text: str = _PRINTERS.get(event.obj, _object)(event, style, now)
    return text + "\n"


def _head(event: Event) -> str:
    return f"{event.op} {event.obj} {event.family}"


def _table(event: Event, style: Style, now: int) -> str:
    table: Table = event.node
    text = f"{_head(event)} {event.name}"
    flags = [flag for flag in ("dormant", "owner", "persist") if flag in table.flags]
    if event.op != "delete" and flags:
        text += f" {{ flags {','.join(flags)}; }}"
    return text + _handle(event.handle, style)


def _chain(event: Event, style: Style, now: int) -> str:
    chain: ChainBlock = event.node
    text = f"{_head(event)} {event.table} {event.name}"
    if chain.hook is not None and (event.op != "delete" or event.partial):
        text += f" {{ {format_hook(chain, event.family, style)} }}"
    return text + _handle(event.handle, style)


def _rule(event: Event, style: Style, now: int) -> str:
    rule: Rule = event.node
    text = f"{_head(event)} {event.table} {event.name}"
    if event.op == "delete":
        return f"{text} handle {event.handle}"
    if event.position is not None:
        text += f" handle {event.position}"
    return f"{text} {format_rule(rule_block(rule, now), style)}"


def _set(event: Event, style: Style, now: int) -> str:
    block: SetBlock = event.node
    if event.op == "delete":
        return f"{_head(event)} {event.table} {event.name}{_handle(event.handle, style)}"
    shown = replace(block, elements=[], handle=event.handle)
    return f"{event.op} {format_set(shown, style, _one_line(event))}"


def _one_line(event: Event) -> Form:
    return replace(ONE_LINE, prefix=f"{event.family} {event.table} ")


def _element(event: Event, style: Style, now: int) -> str:
    element: Element = event.node
    return f"{_head(event)} {event.table} {event.name} {{ {format_expr(element.node, style)} }}"


def _flowtable(event: Event, style: Style, now: int) -> str:
    if event.op == "delete" and not event.partial:
        return f"{_head(event)} {event.table} {event.name}{_handle(event.handle, style)}"
    shown = replace(event.node, handle=event.handle)
    return f"{event.op} {format_flowtable(shown, event.family, style, _one_line(event))}"


def _object(event: Event, style: Style, now: int) -> str:
    if event.op == "delete":
        return f"{_head(event)} {event.table} {event.name}{_handle(event.handle, style)}"
    shown = replace(event.node, handle=event.handle)
    return f"{event.op} {format_object(shown, style, _one_line(event))}"


_PRINTERS: dict[str, Any] = {
    "table": _table,
    "chain": _chain,
    "rule": _rule,
    "set": _set,
    "map": _set,
    "meter": _set,
    "element": _element,
    "flowtable": _flowtable,
}


def events_text(events: Iterable[Event], style: Style, now: int = 0) -> str:
    """All lines of a transaction."""
    return "".join(event_text(event, style, now) for event in events)


__all__ = ["event_text", "events_text", "listing_text"]
