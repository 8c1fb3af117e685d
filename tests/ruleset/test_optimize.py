"""`-o`: which rules merge, into what; and an optimized ruleset gives every packet the verdict that it had."""

from __future__ import annotations

import sys
from pathlib import Path
from random import Random

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "oracle"))
from oracle_engine import EngineSide
from oracle_frames import Generator
from oracle_wants import Wants

from userfw.ruleset.manager import RulesetManager
from userfw.ruleset.options import Options

OPTIMIZE = Options(optimize=True)
STATELESS = Options(stateless=True)
NAT = "type nat hook prerouting priority 0"


def optimized(rules: str, spec: str = "", before: str = "", family: str = "ip") -> list[str]:
    """The rules of a chain after -o."""
    manager = RulesetManager()
    head = f"\t\t{spec};\n" if spec else ""
    lines = "".join(f"\t\t{rule.strip()}\n" for rule in rules.strip().split("\n"))
    result = manager.execute(f"table {family} t {{\n{before}\n\tchain c {{\n{head}{lines}\t}}\n}}\n", OPTIMIZE)
    assert result.status == 0, result.errors
    text = manager.execute(f"list chain {family} t c", STATELESS).output.splitlines()[2:-2]
    return [line.strip() for line in text if " hook " not in line]


SHAPES = {
    "a set": (
        "ip daddr 192.168.0.1 counter accept\nip daddr 192.168.0.2 counter accept",
        ["ip daddr { 192.168.0.1, 192.168.0.2 } counter accept"],
    ),
    "ranges and prefixes": (
        "ip saddr 10.0.0.0/8 drop\nip saddr 11.0.0.1-11.0.0.9 drop",
        ["ip saddr { 10.0.0.0/8, 11.0.0.1-11.0.0.9 } drop"],
    ),
    "sets in a set": ("tcp dport { 1, 2 } drop\ntcp dport 3 drop", ["tcp dport { 1, 2, 3 } drop"]),
    "a list of states": ("ct state new drop\nct state established,related drop", ["ct state { established, related, new } drop"]),
    "no verdict": ("ip saddr 1.1.1.1 counter\nip saddr 2.2.2.2 counter", ["ip saddr { 1.1.1.1, 2.2.2.2 } counter"]),
    "a concatenation": (
        "iifname eth1 ip saddr 1.1.1.1 ip daddr 2.2.2.3 accept\niifname eth1 ip saddr 1.1.1.2 ip daddr 2.2.2.4 accept",
        ['iifname . ip saddr . ip daddr { "eth1" . 1.1.1.1 . 2.2.2.3, "eth1" . 1.1.1.2 . 2.2.2.4 } accept'],
    ),
    "sets multiply in a concatenation": (
        "iifname eth1 ip saddr { 1.1.1.1, 1.1.1.2 } accept\niifname eth2 ip saddr 1.1.1.3 accept",
        ['iifname . ip saddr { "eth1" . 1.1.1.1, "eth1" . 1.1.1.2, "eth2" . 1.1.1.3 } accept'],
    ),
    "the order of the chain's first rules": (
        "ip daddr 9.9.9.9 drop\nip saddr 1.1.1.1 ip daddr 2.2.2.2 accept\nip saddr 4.4.4.4 ip daddr 5.5.5.5 accept",
        ["ip daddr 9.9.9.9 drop", "ip daddr . ip saddr { 2.2.2.2 . 1.1.1.1, 5.5.5.5 . 4.4.4.4 } accept"],
    ),
    "a verdict map": ("tcp dport 22 accept\ntcp dport 80-90 drop", ["tcp dport vmap { 22 : accept, 80-90 : drop }"]),
    "a verdict map with counters": (
        "tcp dport 22 counter accept\ntcp dport 80 counter drop",
        ["tcp dport vmap { 22 counter : accept, 80 counter : drop }"],
    ),
    "a verdict map of a list": (
        "ct state invalid drop\nct state established,related accept",
        ["ct state vmap { invalid : drop, established : accept, related : accept }"],
    ),
    "a verdict map of a concatenation": (
        "ip saddr 1.1.1.1 ip daddr 2.2.2.2 accept\nip saddr 2.2.2.2 ip daddr 3.3.3.3 drop",
        ["ip saddr . ip daddr vmap { 1.1.1.1 . 2.2.2.2 : accept, 2.2.2.2 . 3.3.3.3 : drop }"],
    ),
    "verdict maps into one": (
        "ct state vmap { invalid : drop }\nct state vmap { established : accept }",
        ["ct state vmap { invalid : drop, established : accept }"],
    ),
    "reject": ("ip saddr 1.1.1.1 reject\nip saddr 2.2.2.2 reject", ["ip saddr { 1.1.1.1, 2.2.2.2 } reject"]),
    "the same log": (
        'tcp dport 1 log prefix "a" drop\ntcp dport 2 log prefix "a" drop',
        ['tcp dport { 1, 2 } log prefix "a" drop'],
    ),
    "three of five": (
        "tcp dport 1 drop\nip ttl 1 accept\ntcp sport 1 drop\ntcp sport 2 drop\ntcp sport 3 drop",
        ["tcp dport 1 drop", "ip ttl 1 accept", "tcp sport { 1, 2, 3 } drop"],
    ),
    "masks": (
        "tcp flags & (fin | syn) == fin drop\ntcp flags & (fin | syn) == fin | syn drop",
        ["tcp flags & (fin | syn) == { fin, fin | syn } drop"],
    ),
}
NATS = {
    "dnat": (
        "ip saddr 10.0.0.1 dnat to 1.2.3.4\nip saddr 10.0.0.2 dnat to 1.2.3.5",
        ["dnat to ip saddr map { 10.0.0.1 : 1.2.3.4, 10.0.0.2 : 1.2.3.5 }"],
    ),
    "dnat with ports": (
        "tcp dport 80 dnat to 1.2.3.4:8080\ntcp dport 81 dnat to 1.2.3.5:8081",
        ["dnat ip to tcp dport map { 80 : 1.2.3.4 . 8080, 81 : 1.2.3.5 . 8081 }"],
    ),
    "dnat of a concatenation": (
        "iifname eth0 tcp dport 80 dnat to 1.2.3.4\niifname eth0 tcp dport 81 dnat to 1.2.3.5",
        ['dnat to iifname . tcp dport map { "eth0" . 80 : 1.2.3.4, "eth0" . 81 : 1.2.3.5 }'],
    ),
    "redirect to ports": (
        "tcp dport 80 redirect to :8080\ntcp dport 81 redirect to :8081",
        ["redirect to :tcp dport map { 80 : 8080, 81 : 8081 }"],
    ),
    "redirect": ("tcp dport 80 redirect\ntcp dport 81 redirect", ["tcp dport { 80, 81 } redirect"]),
}
KEPT = {
    "the same key twice": "tcp dport 22 accept\ntcp dport 22 drop",
    "keys that overlap in a map": "tcp dport 1-10 accept\ntcp dport 5 drop",
    "one key by two names": "tcp dport ssh accept\ntcp dport 22 drop",
    "single bits": "tcp flags syn drop\ntcp flags ack drop",
    "inequality": "tcp dport != 1 drop\ntcp dport != 2 drop",
    "comparison": "tcp dport > 10 drop\ntcp dport > 20 drop",
    "limits": "tcp dport 1 limit rate 1/second accept\ntcp dport 2 limit rate 1/second accept",
    "named sets": "tcp dport @ports accept\ntcp dport 9 accept",
    "another log": 'tcp dport 1 log prefix "a" drop\ntcp dport 2 log prefix "b" drop',
    "a log before other verdicts": "tcp dport 1 log accept\ntcp dport 2 log drop",
    "a counter before the match": "counter tcp dport 1 accept\ncounter tcp dport 2 accept",
    "another counter": "tcp dport 1 counter accept\ntcp dport 2 accept",
    "setting marks": "tcp dport 1 meta mark set 1\ntcp dport 2 meta mark set 1",
    "nothing to match": "counter\ncounter",
    "a map and a match": "ip ttl 1 tcp dport vmap { 1 : drop }\nip ttl 2 tcp dport vmap { 1 : accept }",
}


@pytest.mark.parametrize("name", SHAPES)
def test_merged(name: str) -> None:
    rules, want = SHAPES[name]
    assert optimized(rules, "type filter hook input priority 0") == want


@pytest.mark.parametrize("name", NATS)
def test_nat_merged(name: str) -> None:
    rules, want = NATS[name]
    assert optimized(rules, NAT) == want


@pytest.mark.parametrize("name", KEPT)
def test_kept(name: str) -> None:
    sets = "\tset ports { type inet_service; }\n"
    plain = RulesetManager()
    lines = "".join(f"\t\t{rule}\n" for rule in KEPT[name].split("\n"))
    assert plain.execute(f"table ip t {{\n{sets}\tchain c {{\n{lines}\t}}\n}}\n").status == 0
    want = [line.strip() for line in plain.execute("list chain ip t c", STATELESS).output.splitlines()[2:-2]]
    assert optimized(KEPT[name], before=sets) == want


def test_only_table_blocks_are_optimized_and_errors_are_those_of_the_input() -> None:
    manager = RulesetManager()
    lines = "add table ip t; add chain ip t c; add rule ip t c tcp dport 1 drop; add rule ip t c tcp dport 2 drop"
    result = manager.execute(lines, OPTIMIZE)
    assert (result.status, result.errors) == (0, "")
    broken = manager.execute(
        "table ip t {\n\tchain d {\n\t\ttcp dport 1 drop\n\t\ttcp dport 2 drop\n\t\ttcp dport foo\n\t}\n}\n", OPTIMIZE
    )
    assert broken.status == 1 and "Merging" not in broken.errors and "dport foo" in broken.errors


SELECTORS = {
    "ip saddr": ("10.0.0.1", "10.0.0.2", "10.0.0.0/30", "10.0.0.1-10.0.0.5", "{ 10.0.0.2, 10.0.0.9 }", "10.0.0.8/29"),
    "ip daddr": ("10.0.0.1", "10.0.0.2", "10.0.0.0/24", "10.0.0.3-10.0.0.4"),
    "tcp dport": ("22", "ssh", "80", "{ 22, 81 }", "20-25", "1024-65535", "443"),
    "tcp flags": ("syn", "== syn", "== { syn, ack }", "ack"),
    "iifname": ("eth0", "eth1", '"eth*"'),
    "meta mark": ("1", "2", "1-3"),
    "ct state": ("new", "established", "established,related", "invalid"),
    "ip ttl": ("1", "2", "3-9"),
}
VERDICTS = ("accept", "drop", "jump one", "goto two", "return", "")


def random_rules(rng: Random) -> list[str]:
    """Runs of rules that look alike, now and then one that does not."""
    rules: list[str] = []
    while len(rules) < 14:
        selectors = rng.sample(sorted(SELECTORS), rng.choice((1, 1, 2, 3)))
        rest, verdict = rng.choice(("", "", "counter ", "log ")), rng.choice(VERDICTS)
        for _ in range(rng.randrange(1, 6)):
            matches = " ".join(f"{name} {rng.choice(SELECTORS[name])}" for name in selectors)
            verdict = verdict if rng.random() < 0.6 else rng.choice(VERDICTS)
            rules.append(f"{matches} {rest}{verdict}".strip() if verdict or rest else f"{matches} counter")
    return rules


CHAINS = """
	chain one { ip ttl 2 drop
	}
	chain two { ip ttl 3 accept
	}
"""


def block(rules: list[str], spec: str) -> str:
    return f"table ip t {{{CHAINS}\tchain c {{\n\t\t{spec};\n" + "".join(f"\t\t{rule}\n" for rule in rules) + "\t}\n}\n"


@pytest.mark.parametrize("seed", range(60))
def test_verdicts_stay(seed: int) -> None:
    rng = Random(seed)
    rules = random_rules(rng)
    text = block(rules, "type filter hook forward priority 0; policy drop")
    plain, other = EngineSide(), EngineSide()
    assert plain.manager.execute(text).status == 0
    result = other.manager.execute(text, OPTIMIZE)
    assert result.status == 0, result.errors
    lines = plain.manager.execute("list ruleset", Options(stateless=True)).output
    generator = Generator(wants_of(plain), "ip", "forward", rng)
    for _ in range(150):
        case = generator.case()
        verdicts = []
        for side in (plain, other):
            side.enter(case.world)
            pkt = side.packet(case.frame, case.link, case.world)
            verdicts.append(pkt and side.evaluate("ip", "t", "c", "forward", pkt))
        assert verdicts[0] == verdicts[1], f"{lines}\n{other.manager.execute('list ruleset').output}\n{case}"


def wants_of(side: EngineSide) -> Wants:
    """The constants of all rules, from their bytecode."""
    lines = [
        f"[ {expr.render()} ]" if not expr.render().startswith("[") else expr.render()
        for table in side.manager.rules.tables.values()
        for chain in table.chains.values()
        for rule in chain.rules
        for expr in rule.program.exprs
    ]
    return Wants(lines, {})


def test_most_of_the_random_rulesets_have_merges() -> None:
    merged = 0
    for seed in range(60):
        text = block(random_rules(Random(seed)), "type filter hook forward priority 0")
        merged += "Merging" in EngineSide().manager.execute(text, OPTIMIZE).errors
    assert merged > 40
