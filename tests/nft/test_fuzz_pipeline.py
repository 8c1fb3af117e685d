"""From text to a running private ruleset and back: mutated corpus lines end as errors or as rules that list, never otherwise."""

from __future__ import annotations

import json
import random
import re

from texts import expressions, lines, mutate, spoil

from userfw.ruleset.manager import RulesetManager
from userfw.ruleset.options import Options

FAMILIES = ("ip", "ip6", "inet", "bridge", "arp", "netdev")
BASE = (
    "table {0} t {{\n set s {{ type ipv4_addr . inet_service; flags interval; }}\n map m {{ type mark : verdict; }}\n"
    " chain c {{ }}\n chain x {{ }}\n}}\n"
)


def run(manager: RulesetManager, text: str, options: Options) -> bool:
    """Whether it was accepted; what was accepted lists, and its listing is accepted and lists the same."""
    if manager.execute(text, options).status:
        return False
    listed = manager.execute("list ruleset").output
    assert manager.execute("list ruleset", Options(json=True)).status == 0
    if "\t\t\n" in listed:  # JSON can add a rule without statements, which text cannot say
        return True
    again = RulesetManager()
    result = again.execute(listed)
    assert result.status == 0, (text, listed, result.errors)
    twice = again.execute("list ruleset").output
    # A set of one member is written without braces when it is read again, as in nft.
    assert twice == listed or twice == re.sub(r"\{ ([^{},\n]*) \}$", r"\1", listed, flags=re.M) or "{" in text, text
    return True


def test_mutated_lines_through_the_manager() -> None:
    rng = random.Random(4)
    accepted = 0
    for _ in range(120):
        family = rng.choice(FAMILIES)
        manager = RulesetManager()
        assert manager.execute(BASE.format(family)).status == 0
        for _ in range(12):
            text = mutate(rng.choice(lines()), rng).replace("rule ip t", f"rule {family} t")
            accepted += run(manager, text, Options())
    assert accepted > 20


def test_mutated_json_through_the_manager() -> None:
    rng = random.Random(5)
    seeds = expressions()
    for _ in range(60):
        family = rng.choice(FAMILIES)
        manager = RulesetManager()
        manager.execute(BASE.format(family))
        for _ in range(8):
            rule = {"family": family, "table": "t", "chain": "c", "expr": spoil(rng.choice(seeds), rng)}
            run(manager, json.dumps({"nftables": [{"add": {"rule": rule}}]}), Options(json_input=True))


def test_two_values_for_one_key_of_an_anonymous_map() -> None:
    manager = RulesetManager()
    result = manager.execute("table inet t { chain c { ct mark set mark map { 1 : 10, 3 : 20, 3 : 30 }; }; }")
    assert result.status == 1
    assert "File exists" in result.errors
