"""Listings, echo and monitor lines as libnftables-json(5)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from userfw.nft.json_out import (
    METAINFO,
    chain_object,
    dumps,
    elements_object,
    flowtable_object,
    named_object,
    rule_object,
    set_object,
    table_json,
    table_object,
)
from userfw.nft.printer_expr import Style
from userfw.nft.syntax import TableBlock
from userfw.ruleset.events import Event, NewGeneration
from userfw.ruleset.listing import Listing
from userfw.ruleset.live import rule_block

if TYPE_CHECKING:
    from userfw.ruleset.transaction import Plan


def answers_json(plan: Plan, style: Style) -> str:
    """The documents of a run's reading commands, each a line."""
    return "".join(dumps(listing_json(answer.data, style)) + "\n" for answer in plan.answers)


def echo_json(events: list[Event], style: Style, now: int) -> str:
    """The document of what a run changed."""
    return dumps({"nftables": [METAINFO, *events_json(events, style, now)]}) + "\n"


_ADDS = ("add", "insert", "create", "replace")


def annotated(document: dict[str, Any], plan: Plan) -> str:
    """A JSON input with the handles of what it made (libnftables: json_events_cb): nothing else in it changes."""
    rules: dict[tuple[str, str, str], list[int]] = {}
    for event in plan.events:
        if event.obj == "rule" and event.op in ("add", "insert"):
            rules.setdefault((event.family, event.table, event.name), []).append(event.handle)
    for item in document["nftables"]:
        op, body = next(iter(item.items())) if isinstance(item, dict) and len(item) == 1 else ("", None)
        if op in _ADDS and isinstance(body, dict) and len(body) == 1:
            op, body = next(iter(body.items()))
        if isinstance(body, dict) and op not in ("metainfo", "element"):
            handle = _handle_of(op, body, plan, rules)
            if handle is not None:
                body["handle"] = handle
    return dumps(document) + "\n"


def _handle_of(kind: str, body: dict[str, Any], plan: Plan, rules: dict[tuple[str, str, str], list[int]]) -> int | None:
    """The handle of what one object of the input became."""
    family = str(body.get("family", "ip"))
    table = plan.rules.tables.get((family, str(body.get("name" if kind == "table" else "table"))))
    if table is None or kind == "table":
        return table.handle if table is not None else None
    name = str(body.get("name"))
    if kind == "rule":
        made = rules.get((family, table.name, str(body.get("chain"))))
        return made.pop(0) if made else None
    if kind in ("set", "map", "meter"):
        return table.sets[name].handle if name in table.sets else None
    if kind == "chain":
        return table.chains[name].handle if name in table.chains else None
    if kind == "flowtable":
        return table.flowtables[name].handle if name in table.flowtables else None
    return next((entry.handle for (found, own), entry in table.objects.items() if (found, own) == (kind, name)), None)


def listing_json(listing: Listing, style: Style) -> dict[str, Any]:
    """The document of one listing."""
    objects: list[Any] = [METAINFO]
    for table in listing.tables:
        objects += table_json(table, style) if listing.form == "ruleset" else _part(listing, table, style)
    if listing.form == "text" and listing.text:
        objects.append({"text": listing.text})
    return {"nftables": objects}


def _part(listing: Listing, table: TableBlock, style: Style) -> list[Any]:
    if listing.form == "tables":
        return [table_object(table)]
    objects = table_json(table, style)[1:]
    if listing.what == "element":
        block = table.sets[0]
        return [elements_object(table.family, table.name, block.name, block.elements, style)]
    if listing.what == "rules":
        return [entry for entry in objects if "rule" in entry]
    return objects


def event_json(event: Event, style: Style, now: int = 0) -> dict[str, Any]:
    """The object of one event: `{"add": {"table": {…}}}`."""
    return {event.op: _body(event, style, now)}


def _body(event: Event, style: Style, now: int) -> Any:
    where = (event.family, event.table)
    node = event.node
    obj = event.obj
    if obj == "table":
        flags = tuple(flag for flag in ("dormant", "owner", "persist") if flag in node.flags and event.op != "delete")
        comment = node.comment if event.op != "delete" else None
        return table_object(TableBlock(event.family, event.name, flags=flags, comment=comment, handle=event.handle))
    if obj == "chain":
        gone = event.op == "delete" and not event.partial
        shown = replace(node, rules=[], handle=event.handle)
        return chain_object(*where, replace(shown, hook=None, comment=None) if gone else shown)
    if obj == "rule":
        return rule_object(*where, event.name, rule_block(node, now), style)
    if obj in ("set", "map", "meter"):
        if event.op == "delete":
            return {obj: {"family": event.family, "name": event.name, "table": event.table, "handle": event.handle}}
        return set_object(*where, replace(node, elements=[], handle=event.handle), style, elements=False)
    if obj == "element":
        return elements_object(*where, event.name, [node.node], style)
    if obj == "flowtable":
        gone = event.op == "delete" and not event.partial
        shown = replace(node, handle=event.handle)
        return flowtable_object(*where, replace(shown, hook=None, devices=[]) if gone else shown)
    body = replace(node, handle=event.handle)
    return named_object(*where, replace(body, body=None, comment=None) if event.op == "delete" else body, style)


def events_json(events: Iterable[Event], style: Style, now: int = 0) -> list[Any]:
    """The objects of a transaction."""
    return [event_json(event, style, now) for event in events]


def event_line(event: Event | NewGeneration, style: Style, now: int = 0) -> str:
    """The line of `monitor json`; nothing for the end of a transaction."""
    if isinstance(event, NewGeneration):
        return ""
    return dumps(event_json(event, style, now)) + "\n"
