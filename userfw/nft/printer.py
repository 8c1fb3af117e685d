"""Rulesets as nft 1.1.6 lists them: rules, chains, sets, flowtables, objects, tables.

Laws:
- The input is made of checked syntax nodes (``TableBlock`` and what it holds), whoever holds them otherwise.
- The text is canonical: it parses back to the same tree, and equals nft's own listing byte for byte.
- ``Form`` is the one difference between a listing (lines, tabs) and the one-line form that ``monitor`` prints.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from userfw.nft import priority
from userfw.nft import syntax as s
from userfw.nft.printer_expr import PLAIN, Style, element_texts, format_expr, format_time, quote
from userfw.nft.printer_stmt import format_counter, format_limit, format_quota, format_stmt, synproxy_options

__all__ = [
    "LINES",
    "ONE_LINE",
    "PLAIN",
    "Form",
    "Style",
    "format_bound_chain",
    "format_chain",
    "format_elements",
    "format_expr",
    "format_flowtable",
    "format_object",
    "format_rule",
    "format_ruleset",
    "format_set",
    "format_stmt",
    "format_table",
    "format_time",
]


@dataclass(frozen=True)
class Form:
    """Indentation and separators of a block. ``prefix`` stands before the name: ``ip t `` in the one-line form."""

    tab: str
    newline: str
    end: str
    prefix: str = ""


LINES: Final = Form("\t", "\n", "\n")
ONE_LINE: Final = Form("", " ", "; ")

_SPACED: Final = ",\n\t\t\t     "
_FIVE: Final = frozenset((
    "nf_proto", "integer", "arp_op", "inet_proto", "inet_service", "tcp_flag", "dccp_pkttype", "mark", "iface_index",
    "classid", "uid", "gid", "ct_dir",
))  # fmt: skip
_TWO: Final = frozenset(("ipv4_addr", "ct_state", "ct_status", "pkt_type"))
"""Types whose elements share a line, by how many (libnftables ``calculate_delim``)."""


# --- rules and chains


def format_rule(rule: s.RuleBlock, style: Style = PLAIN) -> str:
    """One rule without indentation."""
    parts = [format_stmt(stmt, style) for stmt in rule.stmts]
    if rule.comment is not None:
        parts.append(f"comment {quote(rule.comment)}")
    return " ".join(parts) + _handle(rule.handle, style)


def _handle(handle: int | None, style: Style) -> str:
    return f" # handle {handle}" if style.handles and handle is not None else ""


def format_bound_chain(chain: s.ChainBlock, style: Style) -> str:
    """The chain of ``jump { … }`` as it stands in a rule of a chain; nft indents a chain within it no further."""
    lines = [f"\t\t\t{format_rule(rule, style)}\n" for rule in chain.rules]
    return "{\n" + "".join(lines) + "\t\t}"


def format_priority(prio: s.Priority, family: str, hook: str, style: Style) -> str:
    """``filter``, ``filter + 10``, ``-5``."""
    value = prio.value
    if value is None:
        value = priority.resolve(prio.name, prio.offset, family, hook)
    if value is None:
        return f"{prio.name} {'+' if prio.offset >= 0 else '-'} {abs(prio.offset)}"
    return str(value) if style.out.numeric_prio else priority.describe(value, family, hook)


def _devices(devices: Iterable[str]) -> str:
    return "devices = { " + ", ".join(quote(device) for device in devices) + " }"


def format_hook(chain: s.ChainBlock, family: str, style: Style) -> str:
    """``type T hook H [devices = {…}] priority P; policy accept;`` of a base chain."""
    assert chain.hook is not None and chain.priority is not None
    text = f"type {chain.type} hook {chain.hook}"
    if chain.devices:
        text += f" {_devices(chain.devices)}"
    text += f" priority {format_priority(chain.priority, family, chain.hook, style)};"
    if chain.policy is not None:
        text += f" policy {chain.policy};"
    if "offload" in chain.flags:
        text += " flags offload;"
    return text


def format_chain(chain: s.ChainBlock, family: str, style: Style = PLAIN) -> str:
    """A chain with its rules, as it stands in a table."""
    lines = [f"\tchain {chain.name} {{{_handle(chain.handle, style)}\n"]
    if chain.comment is not None:
        lines.append(f"\t\tcomment {quote(chain.comment)}\n")
    if chain.hook is not None:
        lines.append(f"\t\t{format_hook(chain, family, style)}\n")
    lines += [f"\t\t{format_rule(rule, style)}\n" for rule in chain.rules]
    lines.append("\t}\n")
    return "".join(lines)


# --- sets


def format_type(expr: s.Expr | None, style: Style) -> str:
    """``type ipv4_addr`` or ``typeof ip saddr``, without its keyword."""
    return "" if expr is None else format_expr(expr, style)


def _set_type(block: s.SetBlock, style: Style) -> str:
    keyword = "typeof" if isinstance(block.key, s.TypeofExpr) else "type"
    text = f"{keyword} {format_type(block.key, style)}"
    if block.objtype is not None:
        return f"{text} : {block.objtype}"
    if block.data is not None:
        return f"{text} : {'interval ' if block.data_interval else ''}{format_type(block.data, style)}"
    return text


def _set_lines(block: s.SetBlock, style: Style) -> list[str]:
    """The properties of a set, each as one line."""
    lines = [_set_type(block, style)]
    if "constant" not in block.flags:
        if block.policy not in (None, "performance"):
            lines.append(f"policy {block.policy}")
        if block.size:
            lines.append(f"size {block.size}")
    flags = [flag for flag in ("constant", "dynamic", "interval", "timeout") if flag in block.flags]
    if flags and not (block.timeout and flags == ["timeout"]):  # a default timeout says it already
        lines.append(f"flags {','.join(flags)}")
    if block.stmts:
        stateless = replace(style, stateless=True)
        lines.append(" ".join(format_stmt(stmt, stateless) for stmt in block.stmts))
    if block.auto_merge:
        lines.append("auto-merge")
    if block.timeout:
        lines.append(f"timeout {format_time(block.timeout, style)}")
    if block.gc_interval:
        lines.append(f"gc-interval {format_time(block.gc_interval, style)}")
    if block.comment is not None:
        lines.append(f"comment {quote(block.comment)}")
    return lines


def _per_line(block: s.SetBlock) -> int:
    """How many elements share a line of a listing."""
    name = getattr(block.key_dtype, "name", "")
    return 5 if name in _FIVE else 2 if name in _TWO else 1


def format_elements(block: s.SetBlock, style: Style) -> str:
    """``{ a, b,\\n c }`` with the line breaks of a listing."""
    per_line = _per_line(block)
    texts = element_texts(block.elements, style)
    groups = [", ".join(texts[at : at + per_line]) for at in range(0, len(texts), per_line)]
    return "{ " + _SPACED.join(groups) + " }"


def _set_word(block: s.SetBlock) -> str:
    return "map" if block.is_map else "meter" if block.meter else "set"


def format_set(block: s.SetBlock, style: Style = PLAIN, form: Form = LINES) -> str:
    """A set or map; without elements in the one-line form, where they are events of their own."""
    lines = [*_set_lines(block, style)]
    head = f"{form.tab}{_set_word(block)} {form.prefix}{block.name} {{{_handle(block.handle, style)}{form.newline}"
    if form is LINES and block.elements and not style.terse:
        lines.append(f"elements = {format_elements(block, style)}")
    return head + "".join(f"{form.tab * 2}{line}{form.end}" for line in lines) + f"{form.tab}}}" + _tail(form)


def _tail(form: Form) -> str:
    return "\n" if form.tab else ""


# --- flowtables and objects


def format_flowtable(block: s.FlowtableBlock, family: str, style: Style = PLAIN, form: Form = LINES) -> str:
    """A flowtable."""
    lines = []
    if block.hook is not None and block.priority is not None:
        lines.append(f"hook {block.hook} priority {format_priority(block.priority, family, block.hook, style)}")
    if block.devices:
        lines.append(_devices(block.devices))
    if block.flags:
        lines.append(f"flags {','.join(block.flags)}")
    if block.counter:
        lines.append("counter")
    return _block(f"flowtable {form.prefix}{block.name}", block.handle, lines, style, form)


def _block(head: str, handle: int | None, lines: list[str], style: Style, form: Form) -> str:
    body = "".join(f"{form.tab * 2}{line}{form.end}" for line in lines)
    return f"{form.tab}{head} {{{_handle(handle, style)}{form.newline}{body}{form.tab}}}{_tail(form)}"


def format_object(block: s.ObjectBlock, style: Style = PLAIN, form: Form = LINES) -> str:
    """A named object."""
    lines = [] if block.comment is None else [f"comment {quote(block.comment)}"]
    body = block.body
    if isinstance(body, s.CounterStmt):
        lines += [] if style.stateless else [format_counter(body)]
    elif isinstance(body, s.QuotaStmt):
        lines.append(format_quota(body, style))
    elif isinstance(body, s.LimitStmt):
        lines.append(format_limit(body))
    elif isinstance(body, s.SynproxyStmt):
        lines += synproxy_options(body)
    elif body is not None:
        lines += _object_lines(body, style)
    plain = form is ONE_LINE or form.tab == ""
    if plain and block.kind in ("counter", "quota", "limit", "secmark"):
        return f"{block.kind} {form.prefix}{block.name} {{{_handle(block.handle, style)} {'; '.join(lines)} }}"
    return _block(f"{block.kind} {form.prefix}{block.name}", block.handle, lines, style, form)


def _object_lines(body: s.Stmt | s.ObjectBody, style: Style) -> list[str]:
    if isinstance(body, s.SecmarkBody):
        return [quote(body.context)]
    if isinstance(body, s.CtHelperBody):
        return [f"type {quote(body.helper)} protocol {body.protocol}", *_l3proto(body.l3proto)]
    if isinstance(body, s.CtTimeoutBody):
        policy = ", ".join(f"{state} : {format_time(seconds * 1000, style)}" for state, seconds in body.policy.items())
        return [
            f"protocol {body.protocol}",
            *_l3proto(body.l3proto),
            *([f"policy = {{ {policy} }}"] if policy else []),
        ]
    if isinstance(body, s.CtExpectationBody):
        return [
            f"protocol {body.protocol}",
            f"dport {body.dport}",
            f"timeout {format_time(body.timeout, style)}",
            f"size {body.size}",
            *_l3proto(body.l3proto),
        ]
    if isinstance(body, s.TunnelBody):
        return _tunnel_lines(body)
    raise TypeError(type(body).__name__)


def _l3proto(l3proto: str | None) -> list[str]:
    return [] if l3proto is None else [f"l3proto {l3proto}"]


def _tunnel_lines(body: s.TunnelBody) -> list[str]:
    lines = [f"id {body.id or 0}"]
    for word in ("saddr", "daddr"):
        address = getattr(body, word)
        if address is not None:
            lines.append(f"{body.family} {word} {format_expr(address)}")
    for word in ("sport", "dport", "tos", "ttl"):
        number = getattr(body, word)
        if number is not None:
            lines.append(f"{word} {number}")
    if body.vxlan_gbp is not None:
        lines.append(f"vxlan {{\n\t\t\tgbp {body.vxlan_gbp}\n\t\t}}")
    if body.erspan_version == 1:
        lines.append(f"erspan {{\n\t\t\tversion 1\n\t\t\tindex {body.erspan_index or 0}\n\t\t}}")
    elif body.erspan_version == 2:
        direction, hwid = body.erspan_direction or "ingress", body.erspan_hwid or 0
        lines.append(f"erspan {{\n\t\t\tversion 2\n\t\t\tdirection {direction}\n\t\t\thwid {hwid}\n\t\t}}")
    if body.geneve is not None:
        options = "".join(
            f'\t\t\tclass 0x{klass:x} opt-type 0x{kind:x} data "0x{data.hex()}"\n' for klass, kind, data in body.geneve
        )
        lines.append(f"geneve {{\n{options}\t\t}}")
    return lines


# --- tables


def format_table(table: s.TableBlock, style: Style = PLAIN) -> str:
    """A table with everything in it."""
    head = f"table {table.family} {table.name} {{"
    if "owner" in table.flags:
        head += " # progname nft"
    if style.handles and table.handle is not None:
        head += f"{'' if 'owner' in table.flags else ' #'} handle {table.handle}"
    flags = [flag for flag in ("dormant", "owner", "persist") if flag in table.flags]
    comment = "" if table.comment is None else f"\tcomment {quote(table.comment)}\n"
    # nft leaves an empty line after flags, none after a comment alone.
    parts = [f"\tflags {','.join(flags)}\n{comment}"] if flags else []
    if not flags:
        head += f"\n{comment}".rstrip("\n")
    parts += [format_object(block, style) for block in table.objects]
    parts += [format_set(block, style) for block in table.sets]
    parts += [format_flowtable(block, table.family, style) for block in table.flowtables]
    parts += [format_chain(chain, table.family, style) for chain in table.chains]
    return f"{head}\n" + "\n".join(parts) + "}\n"


def format_ruleset(tables: Iterable[s.TableBlock], style: Style = PLAIN) -> str:
    """Tables in the order given."""
    return "".join(format_table(table, style) for table in tables)
