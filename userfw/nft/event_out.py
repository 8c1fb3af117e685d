"""Ruleset changes as ``nft monitor`` prints them, text and JSON, one per line.

Laws:
- An event prints as the command that would make the same change.
- Nodes are the syntax nodes of listings; a deletion needs no more than a name, a rule's deletion its handle.
"""

from __future__ import annotations

from userfw.nft import syntax as s
from userfw.nft.json_expr_out import Json
from userfw.nft.json_out import (
    chain_object,
    elements_object,
    flowtable_object,
    named_object,
    rule_object,
    set_object,
    table_object,
)
from userfw.nft.printer import Form, format_flowtable, format_hook, format_object, format_rule, format_set
from userfw.nft.printer_expr import PLAIN, Style, format_expr

Block = (
    s.TableBlock | s.ChainBlock | s.RuleBlock | s.SetBlock | s.ElementsBlock | s.FlowtableBlock | s.ObjectBlock
)


def event_text(
    op: str,
    family: str,
    table: str,
    name: str,
    node: Block,
    style: Style = PLAIN,
    *,
    handle: int | None = None,
    position: int | None = None,
    partial: bool = False,
) -> str:
    """One line. ``op`` is ``add``, ``insert``, ``delete`` or ``reset``; ``name`` the chain of a rule, the set of
    elements, else the thing's own; ``handle`` identifies a deleted rule, ``position`` is the rule before an added one;
    ``partial``: only the devices of ``node`` are meant."""
    where = f"{family} {table} "
    if isinstance(node, s.TableBlock):
        flags = f" {{ flags {','.join(node.flags)}; }}" if node.flags and op == "add" else ""
        return f"{op} table {family} {table}{flags}{_handle(node.handle, style)}"
    if isinstance(node, s.RuleBlock):
        if op == "delete":
            return f"delete rule {where}{name} handle {handle if handle is not None else node.handle}"
        place = "" if position is None else f"handle {position} "
        return f"{op} rule {where}{name} {place}{format_rule(node, style)}"
    if isinstance(node, s.ElementsBlock):
        elements = ", ".join(format_expr(element, style) for element in node.elements)
        return f"{op} element {where}{name} {{ {elements} }}"
    if op == "delete" and not partial:
        return f"delete {_kind(node)} {where}{name}{_handle(node.handle, style)}"
    form = Form("", " ", "; ", where)
    if isinstance(node, s.ChainBlock):
        hook = "" if node.hook is None else f" {{ {format_hook(node, family, style)} }}"
        return f"{op} chain {where}{name}{hook}{_handle(node.handle, style)}"
    if isinstance(node, s.SetBlock):
        return f"{op} {format_set(node, style, form)}"
    if isinstance(node, s.FlowtableBlock):
        return f"{op} {format_flowtable(node, family, style, form)}"
    return f"{op} {format_object(node, style, form)}"


def _handle(handle: int | None, style: Style) -> str:
    return f" # handle {handle}" if style.handles and handle is not None else ""


def _kind(node: Block) -> str:
    if isinstance(node, s.ObjectBlock):
        return node.kind
    if isinstance(node, s.SetBlock):
        return "map" if node.is_map else "set"
    return "chain" if isinstance(node, s.ChainBlock) else "flowtable"


def event_json(
    op: str, family: str, table: str, name: str, node: Block, style: Style = PLAIN, *, partial: bool = False
) -> Json:
    """The same as an object."""
    where = (family, table)
    gone = op == "delete" and not partial
    body: Json
    if isinstance(node, s.TableBlock):
        body = table_object(node)
    elif isinstance(node, s.RuleBlock):
        body = rule_object(*where, name, node, style)
    elif isinstance(node, s.ElementsBlock):
        body = elements_object(*where, name, node.elements, style)
    elif isinstance(node, s.ChainBlock):
        body = chain_object(*where, s.ChainBlock(name, handle=node.handle) if gone else node)
    elif isinstance(node, s.SetBlock):
        body = set_object(*where, node, style, elements=False)
        if gone:
            body = {_kind(node): {"family": family, "name": name, "table": table, "handle": node.handle}}
    elif isinstance(node, s.FlowtableBlock):
        body = flowtable_object(*where, s.FlowtableBlock(name, handle=node.handle) if gone else node)
    else:
        body = named_object(*where, s.ObjectBlock(node.kind, name, handle=node.handle) if gone else node, style)
    return {op: body}


__all__ = ["event_json", "event_text"]
