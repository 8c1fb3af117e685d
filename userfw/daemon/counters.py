"""Counters of one ruleset in several workers, brought together: the first worker counts on for all when somebody looks.

Laws: workers that committed the same transactions have the same rules in the same order, which the generation vouches for: another
generation adds nothing and takes nothing away. Quotas, limits and `last` stay what each worker has.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from userfw.ruleset.model import Chain, Ruleset

Element = tuple[int, str, str, int, int]  # number of the table, set, key, packets, bytes


def _of_chain(chain: Chain) -> Iterator[Any]:
    for rule in chain.rules:
        if rule.program is not None:
            yield from (expr for expr in rule.program.exprs if expr.kind == "counter")
        for bound in rule.bound:
            yield from _of_chain(bound)


def counters(rules: Ruleset) -> Iterator[Any]:
    """The counter expressions of rules and named counters, in the order of the ruleset."""
    for table in rules.tables.values():
        for chain in table.chains.values():
            yield from _of_chain(chain)
        for entry in table.objects.values():
            if entry.kind == "counter" and entry.engine is not None:
                yield entry.engine.expr


def elements(rules: Ruleset) -> Iterator[tuple[int, str, str, Any]]:
    """(number of the table, set, key, counter) of every element that counts."""
    for number, table in enumerate(rules.tables.values()):
        for item in table.sets.values():
            if item.engine is None:
                continue
            for element in item.engine:
                for expr in element.exprs or ():
                    if expr.kind == "counter":
                        yield number, item.name, ((element.key or b"") + b"|" + (element.key_end or b"")).hex(), expr


def take(rules: Ruleset) -> dict[str, Any]:
    """What was counted since the last time."""
    found: list[tuple[int, int]] = []
    for expr in counters(rules):
        found.append(expr.state())
        expr.reset()
    inside: list[Element] = []
    for number, name, key, expr in elements(rules):
        packets, octets = expr.state()
        if packets or octets:
            inside.append((number, name, key, packets, octets))
            expr.reset()
    return {"generation": rules.generation, "counters": found, "elements": inside}


def add(rules: Ruleset, generation: int, counted: list[tuple[int, int]], inside: list[Element]) -> bool:
    """Count that on top; False, and nothing, if it is about another generation."""
    if generation != rules.generation:
        return False
    for expr, (packets, octets) in zip(counters(rules), counted, strict=True):
        expr.packets += packets
        expr.bytes += octets
    known = {(number, name, key): expr for number, name, key, expr in elements(rules)} if inside else {}
    for number, name, key, packets, octets in inside:
        expr = known.get((number, name, key))
        if expr is not None:
            expr.packets += packets
            expr.bytes += octets
    return True
