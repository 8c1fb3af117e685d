"""The parsers of untrusted text only ever raise ``NftErrors``, and end: mutated corpus lines, token soup, broken JSON."""

from __future__ import annotations

import json
import random
import sys
import time
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from userfw.nft.json_in import parse_json
from userfw.nft.location import NftErrors
from userfw.nft.parser import parse

sys.path.insert(0, str(Path(__file__).parent))
import corpus

SEEDS = [
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


def corpus_lines() -> list[str]:
    if not corpus.available():
        return SEEDS
    lines = [line.text for test in corpus.test_files() for line in test.lines if line.kind == "rule"]
    return SEEDS + [f"add rule ip t c {line}" for line in lines] + [path.read_text() for path in corpus.features()]


LINES = corpus_lines()


def check(text: str) -> None:
    begin = time.perf_counter()
    try:
        parse(text)
    except NftErrors as error:
        assert error.errors
        assert str(error)
    assert time.perf_counter() - begin < 2


def mutate(text: str, rng: random.Random) -> str:
    for _ in range(rng.randint(1, 4)):
        at = rng.randint(0, len(text))
        to = min(len(text), at + rng.randint(0, 12))
        piece = rng.choice(
            (
                "",
                rng.choice(WORDS),
                f" {rng.choice(WORDS)} ",
                text[at:to] * rng.randint(2, 5),
                chr(rng.choice((0, 9, 10, 34, 92, 127, 160, 0xDC80, 0x1F600))),
                text[rng.randint(0, len(text)) :][: rng.randint(1, 20)],
            )
        )
        text = text[:at] + piece + text[to:]
    return text


def test_mutated_lines() -> None:
    rng = random.Random(1)
    for _ in range(6000):
        check(mutate(rng.choice(LINES), rng))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(WORDS), max_size=60))
def test_token_soup(words: list[str]) -> None:
    check(" ".join(words))


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200))
def test_any_text(text: str) -> None:
    check(text)


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(["(", "{", "jump { ", "((1 | ", "1 | (", "ip saddr { ", "{ {", "jhash ", "table t { "]),
    st.integers(1, 3000),
)
def test_nesting(piece: str, count: int) -> None:
    check("add rule t c " + piece * count)
    check("define x = " + piece * count)


JSON_LEAVES = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.sampled_from(
    ["", "*", "@", "@s", "ip", "tcp", "saddr", "0x10", "accept", "==", "in", "eth*", "x" * 300]
)
JSON_KEYS = st.sampled_from(
    [
    "add", "delete", "table", "chain", "rule", "set", "map", "element", "match", "left", "right", "op", "payload",
    "protocol", "field", "base", "offset", "len", "elem", "val", "concat", "range", "prefix", "addr", "family",
    "name", "handle", "expr", "type", "flags", "hook", "prio", "dev", "policy", "counter", "limit", "rate", "per",
    "vmap", "key", "data", "meta", "ct", "jump", "target", "snat", "quota", "log", "nftables", "stmt", "timeout",
    "ruleset", "tunnel",
])  # fmt: skip
JSON_VALUES = st.recursive(
    JSON_LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(JSON_KEYS, inner, max_size=4), max_leaves=25
)


def check_json(document: Any) -> None:
    try:
        parse_json(json.dumps(document))
    except NftErrors as error:
        assert error.errors
        assert str(error)


@settings(max_examples=400, deadline=None)
@given(JSON_VALUES)
def test_any_json(value: Any) -> None:
    check_json({"nftables": [value]})
    check_json({"nftables": value})


def json_seeds() -> list[Any]:
    exprs = [{"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": {"set": [1, 2]}}}]
    if not corpus.available():
        return [exprs]
    return [block for test in corpus.test_files() for block in test.json.values()]


def spoil(value: Any, rng: random.Random) -> Any:
    if rng.random() < 0.08:
        return rng.choice((None, True, -1, 1.5, "", "@", [], {}, [[]], {"set": []}, 2**80, "x" * 200))
    if isinstance(value, dict):
        return {(key if rng.random() > 0.03 else "field"): spoil(item, rng) for key, item in value.items()}
    if isinstance(value, list):
        return [spoil(item, rng) for item in value]
    return value


def test_mutated_json() -> None:
    rng = random.Random(2)
    seeds = json_seeds()
    for _ in range(4000):
        exprs = spoil(rng.choice(seeds), rng)
        check_json({"nftables": [{"add": {"rule": {"family": "ip", "table": "t", "chain": "c", "expr": exprs}}}]})
