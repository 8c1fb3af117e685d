"""Rulesets as libnftables-json(5): the objects that ``nft -j list …`` and ``nft -j monitor`` print.

Laws:
- The properties of an object come in nft's order; ``dumps`` writes them as nft does, in one line.
- Chains come before sets and rules last, so that the dump loads again in one pass.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from userfw.nft import priority
from userfw.nft import syntax as s
from userfw.nft.json_expr_out import Json, element_json, elements_json, expr_json, limit_body, stmt_json, synproxy_body
from userfw.nft.printer_expr import PLAIN, Style

METAINFO: Final[dict[str, Json]] = {
    "metainfo": {"version": "1.1.6", "release_name": "Commodore Bullmoose #7", "json_schema_version": 1}
}


def dumps(document: Json) -> str:
    """The text of a JSON document."""
    return json.dumps(document, ensure_ascii=False)


def to_json(nodes: Iterable[s.TableBlock], style: Style = PLAIN) -> dict[str, Json]:
    """A whole listing."""
    objects: list[Json] = [METAINFO]
    for table in nodes:
        objects += table_json(table, style)
    return {"nftables": objects}


def table_json(table: s.TableBlock, style: Style = PLAIN) -> list[Json]:
    """A table and everything in it, as the list of its objects."""
    where = (table.family, table.name)
    result = [table_object(table)]
    result += [chain_object(*where, chain) for chain in table.chains]
    result += [named_object(*where, block, style) for block in table.objects]
    result += [set_object(*where, block, style) for block in table.sets]
    result += [flowtable_object(*where, block) for block in table.flowtables]
    result += [rule_object(*where, chain.name, rule, style) for chain in table.chains for rule in chain.rules]
    return result


def _handle(handle: int | None) -> dict[str, Json]:
    return {} if handle is None else {"handle": handle}


def _comment(comment: str | None) -> dict[str, Json]:
    return {} if comment is None else {"comment": comment}


def table_object(table: s.TableBlock) -> Json:
    """The table alone."""
    flags = {"flags": list(table.flags)} if table.flags else {}
    body = {"family": table.family, "name": table.name, **_handle(table.handle), **flags, **_comment(table.comment)}
    return {"table": body}


def _devices(devices: list[str]) -> dict[str, Json]:
    return {} if not devices else {"dev": devices[0] if len(devices) == 1 else list(devices)}


def _priority(prio: s.Priority, family: str, hook: str) -> int | None:
    return prio.value if prio.value is not None else priority.resolve(prio.name, prio.offset, family, hook)


def chain_object(family: str, table: str, chain: s.ChainBlock) -> Json:
    """A chain without its rules."""
    body: dict[str, Json] = {"family": family, "table": table, "name": chain.name, **_handle(chain.handle)}
    body |= _comment(chain.comment)
    if chain.hook is not None and chain.priority is not None:
        body |= _devices(chain.devices)
        body |= {"type": chain.type, "hook": chain.hook, "prio": _priority(chain.priority, family, chain.hook)}
        body["policy"] = chain.policy or "accept"
    return {"chain": body}


def rule_object(family: str, table: str, chain: str, rule: s.RuleBlock, style: Style = PLAIN) -> Json:
    """A rule."""
    body: dict[str, Json] = {"family": family, "table": table, "chain": chain, **_handle(rule.handle)}
    body |= _comment(rule.comment)
    of_family = replace(style, family=family)
    body["expr"] = [stmt_json(stmt, of_family) for stmt in rule.stmts]
    return {"rule": body}


def set_object(family: str, table: str, block: s.SetBlock, style: Style = PLAIN, *, elements: bool = True) -> Json:
    """A set or map; ``elements`` false for an event, where they follow as objects of their own."""
    body: dict[str, Json] = {"family": family, "name": block.name, "table": table}
    if block.key is not None:
        body["type"] = expr_json(block.key, style)
    body |= _handle(block.handle) | _comment(block.comment)
    if block.objtype is not None:
        body["map"] = block.objtype
    elif block.data is not None:
        body["map"] = expr_json(block.data, style)
    if "constant" not in block.flags:
        if block.policy not in (None, "performance"):
            body["policy"] = block.policy
        if block.size:
            body["size"] = block.size
    flags = [flag for flag in ("constant", "interval", "timeout", "dynamic") if flag in block.flags]
    if flags:
        body["flags"] = flags
    if block.timeout:
        body["timeout"] = block.timeout // 1000
    if block.gc_interval:
        body["gc-interval"] = block.gc_interval // 1000
    if block.auto_merge:
        body["auto-merge"] = True
    if elements and block.elements and not style.terse:
        body["elem"] = elements_json(block.elements, style)
    if block.stmts:
        stateless = replace(style, stateless=True)
        body["stmt"] = [stmt_json(stmt, stateless) for stmt in block.stmts]
    return {"map" if block.is_map else "meter" if block.meter else "set": body}


def elements_object(
    family: str, table: str, name: str, elements: Iterable[s.SetElemExpr], style: Style = PLAIN
) -> Json:
    """Elements as a command or event speaks of them."""
    elem = {"set": [element_json(element, style) for element in elements]}
    return {"element": {"family": family, "table": table, "name": name, "elem": elem}}


def flowtable_object(family: str, table: str, block: s.FlowtableBlock) -> Json:
    """A flowtable."""
    body: dict[str, Json] = {"family": family, "name": block.name, "table": table, **_handle(block.handle)}
    if block.hook is not None and block.priority is not None:
        body |= {"hook": block.hook, "prio": _priority(block.priority, family, block.hook)}
    body |= _devices(block.devices)
    return {"flowtable": body}


def named_object(family: str, table: str, block: s.ObjectBlock, style: Style = PLAIN) -> Json:
    """A named object; only its name when it has no body (as ``delete`` events print it)."""
    body: dict[str, Json] = {"family": family, "name": block.name, "table": table, **_handle(block.handle)}
    body |= _comment(block.comment)
    if block.body is not None:
        body |= _object_body(block.body, style)
    return {block.kind: body}


def _object_body(body: s.Stmt | s.ObjectBody, style: Style) -> dict[str, Json]:
    if isinstance(body, s.CounterStmt):
        return {} if style.stateless else {"packets": body.packets, "bytes": body.bytes}
    if isinstance(body, s.QuotaStmt):
        return {"bytes": body.bytes, "used": 0 if style.stateless else body.used, "inv": body.over}
    if isinstance(body, s.LimitStmt):
        limit = limit_body(body)
        order = ("rate", "per", "burst", "inv", "rate_unit", "burst_unit")
        return {name: limit[name] for name in order if name in limit}
    if isinstance(body, s.SynproxyStmt):
        return synproxy_body(body)
    if isinstance(body, s.SecmarkBody):
        return {"context": body.context}
    if isinstance(body, s.CtHelperBody):
        return {"type": body.helper, "protocol": body.protocol, **_l3proto(body.l3proto)}
    if isinstance(body, s.CtTimeoutBody):
        return {"protocol": body.protocol, **_l3proto(body.l3proto), "policy": dict(body.policy)}
    if isinstance(body, s.CtExpectationBody):
        numbers = {"dport": body.dport, "timeout": body.timeout, "size": body.size}
        return {"protocol": body.protocol, **numbers, **_l3proto(body.l3proto)}
    if isinstance(body, s.TunnelBody):
        return _tunnel(body, style)
    raise TypeError(type(body).__name__)


def _l3proto(l3proto: str | None) -> dict[str, Json]:
    return {} if l3proto is None else {"l3proto": l3proto}


def _tunnel(body: s.TunnelBody, style: Style) -> dict[str, Json]:
    result: dict[str, Json] = {"id": body.id or 0}
    side = "ipv6" if body.family == "ip6" else "ipv4"
    for word, name in (("saddr", "src"), ("daddr", "dst")):
        address = getattr(body, word)
        if address is not None:
            result[f"{name}-{side}"] = expr_json(address, style)
    for word in ("sport", "dport", "tos", "ttl"):
        number = getattr(body, word)
        if number is not None:
            result[word] = number
    if body.vxlan_gbp is not None:
        result |= {"type": "vxlan", "tunnel": {"gbp": body.vxlan_gbp}}
    elif body.erspan_version == 1:
        result |= {"type": "erspan", "tunnel": {"version": 1, "index": body.erspan_index or 0}}
    elif body.erspan_version == 2:
        direction, hwid = body.erspan_direction or "ingress", body.erspan_hwid or 0
        result |= {"type": "erspan", "tunnel": {"version": 2, "direction": direction, "hwid": hwid}}
    elif body.geneve is not None:
        options = [
            {"class": klass, "opt-type": kind, "data": f"0x{data.hex()}"} for klass, kind, data in body.geneve
        ]
        result |= {"type": "geneve", "tunnel": options}
    return result
