"""Texts for fuzzing: rulesets, JSON, saved iptables rules and configurations as seeds, and mutations of them.

Deterministic for a given `random.Random`. nftables' own corpora are the seeds where they are found, a few rulesets where not.
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import corpus

ROOT = Path(__file__).parents[2]
PLAIN = [
    'table inet t {\n\tset s { type ipv4_addr . inet_service; flags interval; elements = { 1.1.1.1-2.2.2.2 . 80-90, } }\n}\n',
    "add rule ip t c ct state vmap { established : accept, new : jump x } limit rate 5/second burst 3 packets",
    'table ip6 t { chain c { type filter hook input priority filter + 10; policy drop; jump { counter; }; }; }',
    'define a = { 1, 2 }\nredefine a = 3\ninclude "x"\nadd element t s { $a, 5 timeout 3s comment "x" : 6 }',
    "table netdev x {\n tunnel y {\n id 10\n geneve {\n class 0x1 opt-type 0x1 data \"0x12345678\"\n }\n }\n}\n",
    "dnat ip to ip saddr . tcp dport map { 192.168.1.2 . 80 : 10.141.10.0/24 . 8888 - 8999 }",
    "ct timeout t { protocol tcp; policy = { established : 2m3s } }",
]
WORDS = [
    "table", "chain", "set", "map", "rule", "add", "delete", "ip", "ip6", "saddr", "tcp", "dport", "{", "}", "(", ")",
    ":", ";", ",", ".", "-", "/", "*", "@", "$", "=", "==", "!=", "<", ">", "&", "|", "^", "<<", ">>", "!", "\n", "1",
    "0x10", "80", "1.2.3.4", "::1", '"x"', "10s", "eth*", "accept", "drop", "jump", "vmap", "map", "counter", "limit",
    "rate", "ct", "state", "meta", "mark", "th", "@th,0,8", "elements", "type", "typeof", "flags", "timeout",
    "policy", "hook", "priority", "define", "include", "log", "prefix", "reject", "with", "queue", "to", "dnat",
    "random", "comment", "1:2", "[::1]", "#c",
]  # fmt: skip
VERBS = [
    "reset", "list", "flush", "destroy", "replace", "insert", "get", "rename", "describe", "create", "ruleset", "handle",
    "element", "flowtable", "counter", "quota", "synproxy", "secmark", "expectation", "helper", "index", "position", "dormant",
]  # fmt: skip
OPTIONS = [
    "-A", "-I", "-N", "-P", "-j", "-m", "-p", "-s", "-d", "!", "--dport", "tcp", "udp", "1:2", "10.0.0.0/8", "ACCEPT", "-i", "eth+",
]  # fmt: skip


@cache
def lines() -> list[str]:
    """Commands that add one rule each, and whole files."""
    if not corpus.available():
        return PLAIN
    rules = [line.text for test in corpus.test_files() for line in test.lines if line.kind == "rule"]
    return PLAIN + [f"add rule ip t c {line}" for line in rules] + [path.read_text() for path in corpus.features()]


@cache
def files() -> list[str]:
    """Whole rulesets."""
    found = sorted((ROOT / "tests").rglob("*.nft")) + (corpus.features() if corpus.available() else [])
    return [path.read_text() for path in found]


@cache
def expressions() -> list[Any]:
    """The `expr` of rules in JSON."""
    exprs = [{"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": {"set": [1, 2]}}}]
    if not corpus.available():
        return [exprs]
    return [block for test in corpus.test_files() for block in test.json.values()]


@cache
def saved() -> list[tuple[bool, str]]:
    """Saved rules of iptables: (whether of IPv6, text)."""
    paths = sorted((ROOT / "tests/iptables/saved").glob("*.ip*tables"))
    found = [(path.suffix == ".ip6tables", path.read_text()) for path in paths]
    for path in sorted((corpus.ROOT / "iptables-ext").glob("lib*.txlate")):
        for program, words in re.findall(r"(?m)^(ip6?tables)-translate (-[AI] .*)$", path.read_text()):
            found.append((program == "ip6tables", f"*filter\n:FORWARD DROP [1:2]\n:INPUT ACCEPT [0:0]\n{words}\nCOMMIT\n"))
    return found


@cache
def configurations() -> list[str]:
    """The configurations that the documentation shows."""
    texts = [(ROOT / name).read_text() for name in ("README.md", "docs/configuration.md", "docs/queue.md", "docs/workers.md")]
    return [block for text in texts for block in re.findall(r"(?ms)^```toml\n(.*?)^```", text)]


def mutate(text: str, rng: Random, words: list[str] = WORDS) -> str:
    """One to four pieces replaced by nothing, a word, a repetition, an odd character or another piece of the text."""
    for _ in range(rng.randint(1, 4)):
        at = rng.randint(0, len(text))
        to = min(len(text), at + rng.randint(0, 12))
        piece = rng.choice(
            (
                "",
                rng.choice(words),
                f" {rng.choice(words)} ",
                text[at:to] * rng.randint(2, 5),
                chr(rng.choice((0, 9, 10, 34, 92, 127, 160, 0xDC80, 0x1F600))),
                text[rng.randint(0, len(text)) :][: rng.randint(1, 20)],
            )
        )
        text = text[:at] + piece + text[to:]
    return text


def exchange(text: str, rng: Random, other: str) -> str:
    """Tokens of a text in the place of others, of the same text or of another: it stays nearer to what is accepted."""
    tokens = re.findall(r"\s+|[\w.:/-]+|.", text)
    more = re.findall(r"[\w.:/-]+|[^\s\w]", other) or tokens
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(tokens)) if tokens else 0
        tokens[at : at + rng.randint(0, 2)] = [rng.choice(more if rng.random() < 0.5 else tokens or more)]
    return "".join(tokens)


def spoil(value: Any, rng: Random, rate: float = 0.08) -> Any:
    """A JSON value, parts of which are replaced by others and some of whose names are wrong."""
    if rng.random() < rate:
        return rng.choice((None, True, -1, 1.5, "", "@", [], {}, [[]], {"set": []}, 2**80, "x" * 200))
    if isinstance(value, dict):
        return {(key if rng.random() > rate / 3 else "field"): spoil(item, rng, rate) for key, item in value.items()}
    if isinstance(value, list):
        return [spoil(item, rng, rate) for item in value]
    return value


def dumped(document: Any, rng: Random) -> str:
    """JSON as text; one in eight has its text mutated too."""
    text = json.dumps(document)
    return text if rng.randrange(8) else mutate(text, rng, ['"', "{", "}", "[", "]", ",", ":", "null", "1e999", "NaN", "\\ud800"])
