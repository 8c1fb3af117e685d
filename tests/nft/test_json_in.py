"""JSON in: the corpus blocks give the tree of their rule, commands are complete, bad documents are only ``NftErrors``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from userfw.nft import syntax as s
from userfw.nft.json_in import is_json, parse_json
from userfw.nft.location import NftErrors

sys.path.insert(0, str(Path(__file__).parent))
import corpus

needs_corpus = pytest.mark.skipif(not corpus.available(), reason=f"no conformance data at {corpus.ROOT}")


def document(*commands: Any) -> str:
    return json.dumps({"nftables": list(commands)})


def rule(*exprs: Any) -> s.RuleBlock:
    body = {"family": "ip", "table": "t", "chain": "c", "expr": list(exprs)}
    node = parse_json(document({"add": {"rule": body}}))[0].node
    assert isinstance(node, s.RuleBlock)
    return node


@needs_corpus
def test_every_block_of_the_corpus_is_understood() -> None:
    count = 0
    for test in corpus.test_files():
        for blocks in (test.json, test.json_output):
            for text, exprs in blocks.items():
                assert rule(*exprs).stmts, text
                count += 1
    assert count > 1000


@needs_corpus
def test_monitor_events_are_commands() -> None:
    for step in corpus.monitor_steps():
        for event in step.json:
            assert len(parse_json(document(event))) == 1, event


@needs_corpus
def test_bogons() -> None:
    for path in corpus.bogons():
        text = path.read_bytes().decode("utf-8", "surrogateescape")
        if is_json(text) and path.parent.name == "nft-j-f":
            with pytest.raises(NftErrors):
                parse_json(text)


def test_commands() -> None:
    commands = parse_json(
        document(
            {"metainfo": {"json_schema_version": 1}},
            {"flush": {"ruleset": None}},
            {"table": {"family": "inet", "name": "t", "handle": 7, "flags": "dormant"}},
            {"delete": {"rule": {"family": "inet", "table": "t", "chain": "c", "handle": 9}}},
            {"rename": {"chain": {"family": "inet", "table": "t", "name": "a", "newname": "b"}}},
            {"list": {"sets": {"family": "ip6"}}},
            {"add": {"set": {"family": "ip", "table": "t", "name": "s", "type": ["ipv4_addr", "inet_service"],
                             "flags": ["interval"], "timeout": 30,
                             "elem": [{"elem": {"val": {"concat": ["1.1.1.1", 80]}, "timeout": 5, "comment": "x"}}]}}},
        )
    )  # fmt: skip
    assert [(c.op, c.obj) for c in commands] == [
        ("flush", "ruleset"), ("add", "table"), ("delete", "rule"), ("rename", "chain"), ("list", "sets"), ("add", "set"),
    ]  # fmt: skip
    assert commands[2].handle == 9
    assert commands[3].new_name == "b"
    block = commands[5].node
    assert isinstance(block, s.SetBlock)
    assert (block.timeout, block.elements[0].timeout, block.elements[0].comment) == (30000, 5000, "x")


def test_trees() -> None:
    match = {"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": ["new", "established"]}}
    assert rule(match).stmts == [
        s.MatchStmt(s.RelationalExpr("", s.CtExpr("state"), s.ListExpr([s.SymbolExpr("new"), s.SymbolExpr("established")])))
    ]
    assert rule({"mangle": {"key": {"meta": {"key": "mark"}}, "value": {"|": [{"meta": {"key": "mark"}}, 1, 2]}}}).stmts == [
        s.MangleStmt(
            s.MetaExpr("mark"),
            s.BinopExpr("|", s.BinopExpr("|", s.MetaExpr("mark"), s.ConstantExpr(1)), s.ConstantExpr(2)),
        )
    ]


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "null", "{}", '{"nftables": 1}', '{"nftables": [1]}', '{"nftables": [{"add": null}]}',
        '{"nftables": [{"add": {"table": 3}}]}', "[" * 100000, '{"nftables":' + "[" * 100000,
        document({"add": {"rule": {"table": "t", "chain": "c", "expr": [{"foo": None}]}}}),
        document({"add": {"rule": {"table": "t", "chain": "c", "expr": "x"}}}),
        document({"metainfo": {"json_schema_version": 2}}),
        '{"nftables": [{"add": {"table": {"name": "\\ud800"}}}]}',
        '{"nftables": [{"add": {"limit": {"table": "t", "name": "l", "rate": ' + "9" * 5000 + "}}}]}",
    ],
)  # fmt: skip
def test_bad_documents(text: str) -> None:
    with pytest.raises(NftErrors):
        parse_json(text)


def test_every_problem_is_reported() -> None:
    with pytest.raises(NftErrors) as caught:
        parse_json(document({"add": {"table": {}}}, {"add": {"x": {}}}, {"add": {"chain": {"table": "t"}}}))
    assert len(caught.value.errors) == 3


def test_deep_expression_is_an_error() -> None:
    expr: Any = 1
    for _ in range(200):
        expr = {"|": [expr, 1]}
    with pytest.raises(NftErrors, match="nested too deeply"):
        rule({"mangle": {"key": {"meta": {"key": "mark"}}, "value": expr}})
