"""Rules of a form that is known are what they would be if each were parsed, checked and lowered by itself."""

import random
from dataclasses import fields
from typing import Any

import pytest

from userfw.nft.check import ChainInfo, NothingThere, check_rule
from userfw.nft.location import NOWHERE
from userfw.nft.parser import parse
from userfw.nft.rule_form import FormedRule, parsed_at
from userfw.nft.rule_pattern import PatternedRule
from userfw.nft.syntax import Node
from userfw.ruleset.manager import RulesetManager
from userfw.ruleset.model import Chain
from userfw.ruleset.options import Options

HEADS = {
    "inet": ["meta mark 7", 'iifname "lan*"', "ct state established,related", "meta l4proto tcp", ""],
    "ip": ["ip protocol udp", "meta l4proto { tcp, udp }", ""],
    "ip6": ["meta l4proto tcp", ""],
}
TAILS = [
    "accept", "drop", "counter accept", "counter packets {n} bytes {n} drop", "jump other", "limit rate 10/second accept",
    'log prefix "a b" drop', "reject", 'counter drop comment "{word}"', "limit rate 5 mbytes/second burst 7 kbytes drop",
    "continue", "meta mark set 5", "counter packets {n} bytes {n} return", 'accept comment "{word} # ; x"',
]  # fmt: skip
MATCHES = {
    "ip": ["ip saddr {a}", "ip daddr {a}", "ip saddr {a}/24", "ip daddr != {a}/13", "ip saddr {a} ip daddr {a}", "ip ttl {o}",
           "ip length {p}", "ip id {p}", "ip protocol {o}", "ip daddr {a}-255.255.255.255", "ip dscp 5", "ip version 4"],
    "ip6": ["ip6 saddr {b}", "ip6 daddr {b}/64", "ip6 saddr {b} ip6 daddr != {b}", "ip6 hoplimit {o}", "ip6 nexthdr {o}"],
    "": ["tcp dport {p}", "udp sport {p} udp dport {p}", "tcp dport != {p}", "tcp dport {p}-65535", "th dport {p}", "tcp dport ssh",
         "tcp sequence {n}", "tcp flags syn", "tcp dport {p} tcp sport {p}", "udp length {p}", "sctp dport {p}", "tcp sport < {p}",
         "icmp type echo-request icmp id {p}", "meta length {p}"],
}  # fmt: skip


def filled(draw: random.Random, text: str) -> str:
    """A rule with values in it."""
    values = {
        "{a}": lambda: ".".join(str(draw.choice((0, 1, 10, 192, 255))) for _ in range(4)),
        "{b}": lambda: draw.choice(("2001:db8::%x", "fe80::1:%x", "::%x", "1:2:3:4:5:6:7:%x")) % draw.randrange(1, 65536),
        "{o}": lambda: str(draw.choice((0, 1, 6, 17, 58, 64, 255))),
        "{p}": lambda: str(draw.choice((0, 1, 6, 17, 22, 80, 0x800, 65534))),
        "{n}": lambda: str(draw.choice((0, 3, 6, 1 << 31))),
        "{word}": lambda: draw.choice(("a", "two words", "drei?", "é", "x" * 100)),
    }
    for mark, value in values.items():
        while mark in text:
            text = text.replace(mark, value(), 1)
    return text


def stands(family: str, line: str) -> bool:
    """Whether a rule loads by itself."""
    block = f"table {family} t {{\n\tchain other {{\n\t}}\n\tchain c {{\n{line}\n\t}}\n}}\n"
    return RulesetManager().execute(block).status == 0


def written(draw: random.Random, family: str, end: str) -> str:
    """A chain in which some forms come again and again. `end` stands behind each rule."""
    kinds = [family, ""] if family != "inet" else ["ip", "ip6", ""]
    lines: list[str] = []
    while len(lines) < 42:
        kind = draw.choice(kinds)
        words = [draw.choice(HEADS[family]), draw.choice(MATCHES[kind]), draw.choice([*MATCHES[kind], ""]), draw.choice(TAILS)]
        form = " ".join(word for word in words if word)
        some = [filled(draw, form) for _ in range(7)]
        if stands(family, some[0]):
            lines += [f"\t\t{line}{end}" for line in some]
    if draw.random() < 0.5:
        draw.shuffle(lines)
    body = "\n".join(lines)
    hook = "type filter hook input priority 0; policy accept;"
    return f"table {family} t {{\n\tchain other {{\n\t}}\n\tchain c {{\n\t\t{hook}\n{body}\n\t}}\n}}\n"


def chain_of(manager: RulesetManager, family: str) -> Chain:
    return manager.rules.tables[family, "t"].chains["c"]


def tree(node: Any, places: bool) -> Any:
    """A tree as something that compares, with its places if wanted."""
    if isinstance(node, list | tuple):
        return [tree(item, places) for item in node]
    if not isinstance(node, Node):
        return node
    loc = (node.loc.start, node.loc.end) if places and node.loc is not NOWHERE else None
    own = [getattr(node, entry.name) for entry in fields(node) if entry.name not in ("loc", "target")]
    return type(node).__name__, loc, tree(own, places)


def step(op: Any) -> tuple[Any, ...]:
    """Everything about a step that packets can tell."""
    names = ("family", "proto", "base", "offset", "length", "op", "mask", "xor", "low", "high", "data", "equal", "fast", "code")
    return type(op), op.render(), *(getattr(op, name, None) for name in names)


@pytest.mark.parametrize("seed", range(40))
def test_as_if_each_rule_stood_alone(seed: int) -> None:
    draw = random.Random(seed)
    family = draw.choice(("inet", "inet", "ip", "ip6"))
    state = draw.getstate()
    short = RulesetManager()
    text = written(draw, family, "")
    result = short.execute(text)
    draw.setstate(state)
    long = RulesetManager()
    other = long.execute(written(draw, family, ";"))  # lines that hold more than a rule have no form
    assert (result.status, result.errors.count("Error")) == (other.status, other.errors.count("Error")), result.errors
    if result.status:
        return
    ones, others = chain_of(short, family).rules, chain_of(long, family).rules
    assert not any(isinstance(rule.node, PatternedRule) for rule in others)
    for one, two in zip(ones, others, strict=True):
        assert (one.handle, one.comment, one.refs) == (two.handle, two.comment, two.refs)
        assert [step(expr) for expr in one.program.exprs] == [step(expr) for expr in two.program.exprs]
        assert [step(expr) for expr in one.program.ops] == [step(expr) for expr in two.program.ops]
        assert one.program.count == two.program.count and one.program.owner() is one
        assert tree(one.node.stmts, False) == tree(two.node.stmts, False)
        info = ChainInfo("t", "c", "filter", "input")
        alone = check_rule(parsed_at(one.loc.source, one.loc.start), family, info, NothingThere())
        assert tree(one.node.evaluated, True) == tree(alone.evaluated, True)
        assert (one.loc.start, one.loc.end) == (alone.loc.start, alone.loc.end)
    for options in (Options(), Options(json=True), Options(stateless=True)):
        assert short.execute("list ruleset", options).output == long.execute("list ruleset", options).output


def test_most_rules_of_a_form_share_what_they_can() -> None:
    lines = "".join(f"ip saddr 10.0.0.{n} tcp dport {n + 1} counter packets {n} bytes 9 accept\n" for n in range(20))
    manager = RulesetManager()
    assert manager.execute(f"table inet t {{\nchain c {{\n{lines}}}\n}}\n").status == 0
    rules = chain_of(manager, "inet").rules
    assert sum(isinstance(rule.node, PatternedRule) for rule in rules) == 18
    assert len({id(rule.program.exprs[0]) for rule in rules[2:]}) == 1
    counters = [rule.program.exprs[-2] for rule in rules]
    assert len(set(map(id, counters))) == 20
    assert [counter.packets for counter in counters] == list(range(20))


def test_the_parser_makes_of_a_line_what_it_makes_alone() -> None:
    draw = random.Random(5)
    for _ in range(20):
        text = written(draw, "inet", "")
        rules = parse(text)[0].node.chains[1].rules  # type: ignore[union-attr]
        formed = [rule for rule in rules if isinstance(rule, FormedRule)]
        for rule in formed:
            alone = parsed_at(rule.loc.source, rule.loc.start)
            assert rule == alone and alone == rule
            assert (rule.loc.start, rule.loc.end) == (alone.loc.start, alone.loc.end)


GOOD = "ip saddr 10.0.0.1 tcp dport 80 counter accept\n" * 5


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("ip saddr 10.0.0.1 tcp dport 65536 counter accept", "f:8:29-33: Error: Value 65536 exceeds valid range 0-65535"),
        ("ip saddr 10.0.0.256 tcp dport 80 counter accept", "f:8:10-19: Error: Could not resolve hostname"),
        ("ip saddr 10.0.0.1 tcp dport 80 counter accept drop", "f:8:47-50: Error: Statement after terminal"),
        ("ip saddr 10.0.0.1 tcp dport 080 counter accept", ""),
        ("ip saddr 10.0.0.1 tcp dport 99999999999999999999 counter accept", "f:8:29-48: Error: "),
        ("ip saddr 10.0.0.1 tcp dport port counter accept", "f:8:29-32: Error: Could not resolve service"),
    ],
)
def test_errors_stand_where_they_stood(line: str, message: str) -> None:
    def run(body: str) -> str:
        return RulesetManager().execute(f"table inet t {{\nchain c {{\n{body}\n}}\n}}\n", Options(filename="f")).errors

    after = run(f"{GOOD}{line}\n{GOOD}")
    alone = run("\n" * 5 + line)
    assert after == alone and message in after and bool(after) == bool(message)


def test_a_chain_that_is_not_there_is_told_for_each_rule() -> None:
    line = "ip saddr 10.0.0.{} jump nowhere\n"
    body = "".join(line.format(n) for n in range(6))
    errors = RulesetManager().execute(f"table ip t {{\nchain c {{\n{body}}}\n}}\n").errors
    assert errors.count("No such file or directory") == 6


def test_renamed_chains_show_in_patterned_rules() -> None:
    body = "".join(f"ip saddr 10.0.0.{n} jump other\n" for n in range(6))
    manager = RulesetManager()
    assert manager.execute(f"table ip t {{\nchain other {{\n}}\nchain c {{\n{body}}}\n}}\n").status == 0
    assert manager.execute("rename chain ip t other new").status == 0
    listed = manager.execute("list chain ip t c").output
    assert [f"ip saddr 10.0.0.{n} jump new" in listed for n in range(6)] == [True] * 6


def test_a_chain_made_anew_gets_the_jumps_to_it() -> None:
    body = "".join(f"ip saddr 10.0.0.{n} jump other\n" for n in range(6))
    block = f"table ip t {{\nchain other {{\n}}\nchain c {{\n{body}}}\n}}\n"
    manager = RulesetManager()
    again = f"{block}flush chain ip t c\ndelete chain ip t other\n{block}"
    assert manager.execute(again).status == 0
    target = manager.rules.tables["ip", "t"].chains["other"].engine
    assert all(rule.program.exprs[-1].target is target for rule in chain_of(manager, "ip").rules)
