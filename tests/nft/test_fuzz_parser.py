"""The parsers of untrusted text only ever raise ``NftErrors``, and end: mutated corpus lines, token soup, broken JSON."""

from __future__ import annotations

import json
import random
import time
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from texts import WORDS, expressions, lines, mutate, spoil

from userfw.nft.json_in import parse_json
from userfw.nft.location import NftErrors
from userfw.nft.parser import parse


def check(text: str) -> None:
    begin = time.perf_counter()
    try:
        parse(text)
    except NftErrors as error:
        assert error.errors
        assert str(error)
    assert time.perf_counter() - begin < 2


def test_mutated_lines() -> None:
    rng = random.Random(1)
    for _ in range(6000):
        check(mutate(rng.choice(lines()), rng))


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


def test_mutated_json() -> None:
    rng = random.Random(2)
    seeds = expressions()
    for _ in range(4000):
        exprs = spoil(rng.choice(seeds), rng)
        check_json({"nftables": [{"add": {"rule": {"family": "ip", "table": "t", "chain": "c", "expr": exprs}}}]})
