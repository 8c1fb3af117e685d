"""The printers: text parses back to the same tree, listings have nft's layout, JSON and text say the same."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from userfw.nft import priority
from userfw.nft import syntax as s
from userfw.nft.json_in import parse_json
from userfw.nft.json_out import dumps, rule_object, to_json
from userfw.nft.parser import parse, parse_rule
from userfw.nft.printer import format_rule, format_ruleset
from userfw.nft.printer_expr import Style, format_time

sys.path.insert(0, str(Path(__file__).parent))
import corpus

needs_corpus = pytest.mark.skipif(not corpus.available(), reason=f"no conformance data at {corpus.ROOT}")

LISTING = (Path(__file__).parent / "listing.nft").read_text()


def tables(text: str) -> list[s.TableBlock]:
    nodes = [command.node for command in parse(text)]
    return [node for node in nodes if isinstance(node, s.TableBlock)]


def test_a_listing_lists_as_itself() -> None:
    assert format_ruleset(tables(LISTING)) == LISTING


def test_handles_and_stateless() -> None:
    table = tables("table ip t { counter c { packets 1 bytes 2; }; chain x { counter packets 3 bytes 4 accept; }; }")[0]
    table.handle, table.chains[0].handle, table.chains[0].rules[0].handle, table.objects[0].handle = 1, 2, 3, 4
    assert format_ruleset([table], Style(stateless=True, handles=True)) == (
        "table ip t { # handle 1\n\tcounter c { # handle 4\n\t}\n\n"
        "\tchain x { # handle 2\n\t\tcounter accept # handle 3\n\t}\n}\n"
    )


@needs_corpus
def test_every_canonical_rule_prints_as_itself() -> None:
    for test in corpus.test_files():
        for line in test.lines:
            if line.kind == "rule" and line.ok:
                tree = parse_rule(line.canon)
                text = format_rule(tree, Style(stateless=True))
                assert parse_rule(text) == tree, text


@needs_corpus
def test_json_of_a_rule_gives_the_rule() -> None:
    """Through JSON and back nothing changes, but for what JSON does not tell (quotes, implicit operators, lists as ``|``)."""
    for test in corpus.test_files():
        for line in test.lines:
            if line.kind == "rule" and line.ok:
                tree = parse_rule(line.canon)
                document = dumps({"nftables": [{"add": rule_object("ip", "t", "c", tree)}]})
                once = parse_json(document)[0].node
                assert isinstance(once, s.RuleBlock)
                again = json.loads(dumps({"nftables": [{"add": rule_object("ip", "t", "c", once)}]}))
                assert again == json.loads(document), line.canon


def test_ruleset_json_loads_again() -> None:
    document = to_json(tables(LISTING.replace("\t\tjump {\n\t\t\tip saddr 1.2.3.4 accept\n\t\t\tdrop\n\t\t}\n", "")))
    kinds = [next(iter(item)) for item in document["nftables"]]
    assert kinds[:4] == ["metainfo", "table", "chain", "chain"]
    assert kinds.index("rule") > kinds.index("flowtable") > kinds.index("map")
    commands = parse_json(dumps(document))
    assert len(commands) == len(kinds) - 1
    again = [command.node for command in commands if isinstance(command.node, s.SetBlock)]
    assert [block.name for block in again] == ["a", "m", "o"]
    assert again[0].timeout == 3600_000


@pytest.mark.parametrize(
    ("value", "family", "hook", "text"),
    [
        (0, "ip", "input", "filter"), (-5, "ip", "input", "filter - 5"), (11, "ip", "input", "11"),
        (-97, "ip", "prerouting", "dstnat + 3"), (-100, "ip", "output", "dstnat"), (-100, "ip", "forward", "-100"),
        (-300, "bridge", "output", "-300"), (100, "inet", "postrouting", "srcnat"),
        (100, "bridge", "output", "out"), (-200, "bridge", "forward", "filter"), (-300, "netdev", "ingress", "-300"),
    ],
)  # fmt: skip
def test_priorities(value: int, family: str, hook: str, text: str) -> None:
    assert priority.describe(value, family, hook) == text
    name, _, rest = text.partition(" ")
    if not name.lstrip("-").isdigit():
        assert priority.resolve(name, int(rest.replace(" ", "") or 0), family, hook) == value


def test_times() -> None:
    assert format_time(((26 * 60 + 3) * 60 + 4) * 1000 + 5) == "1d2h3m4s5ms"
    assert format_time(0) == "0s"


def test_flag_timeout_is_left_out_when_a_timeout_says_it() -> None:
    text = "table ip t { set s { type mark; %s timeout 5s; }; }"
    assert "flags" not in format_ruleset(tables(text % "flags timeout;"))
    assert "flags dynamic,timeout\n" in format_ruleset(tables(text % "flags dynamic,timeout;"))


def test_an_empty_line_follows_flags_but_not_a_comment_alone() -> None:
    plain = format_ruleset(tables('table ip t { comment "x"; chain c { }; }'))
    assert plain == 'table ip t {\n\tcomment "x"\n\tchain c {\n\t}\n}\n'
    flagged = format_ruleset(tables("table ip t { flags dormant; chain c { }; }"))
    assert flagged == "table ip t {\n\tflags dormant\n\n\tchain c {\n\t}\n}\n"
