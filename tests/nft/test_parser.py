"""The parser: every corpus rule parses, errors are placed and all reported, variables, includes, limits."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

from userfw.nft import syntax as s
from userfw.nft.location import NftErrors
from userfw.nft.parser import parse, parse_rule

sys.path.insert(0, str(Path(__file__).parent))
import corpus

needs_corpus = pytest.mark.skipif(not corpus.available(), reason=f"no conformance data at {corpus.ROOT}")


def errors(text: str, **options: object) -> list[str]:
    with pytest.raises(NftErrors) as caught:
        parse(text, filename="x", **options)  # type: ignore[arg-type]
    return str(caught.value).split("\n")


@needs_corpus
def test_every_ok_rule_parses() -> None:
    refused = []
    for test in corpus.test_files():
        for line in test.lines:
            if line.kind == "rule" and line.ok:
                for text in (line.text, line.canon):
                    try:
                        parse_rule(text)
                    except NftErrors as error:
                        refused.append(f"{test.name}:{line.number} {error}")
    assert not refused, "\n".join(refused)


@needs_corpus
def test_every_feature_and_monitor_step_parses() -> None:
    for path in corpus.features():
        assert parse(path.read_text(), filename=path.name)
    for step in corpus.monitor_steps():
        assert len(parse("\n".join(step.commands))) == len(step.commands)


@needs_corpus
def test_bogons_raise_only_nft_errors() -> None:
    refused = 0
    for path in corpus.bogons():
        try:
            parse(path.read_bytes().decode("utf-8", "surrogateescape"), filename=path.name)
        except NftErrors as error:
            assert str(error)
            refused += 1
    assert refused > 30


def test_all_problems_of_a_file_are_reported_with_carets() -> None:
    lines = errors(
        "table ip t {\n"
        "\tchain c {\n"
        "\t\ttype filter hook input priority filter; policy foo;\n"
        "\t\ttcp dport { 1, 2 ] accept\n"
        "\t\tip saddr $x\n"
        "\t\tmeta nonsense 1\n"
        "\t}\n"
        "}\n"
        "list bogus\n"
    )
    assert [line for line in lines if line.startswith("x:")] == [
        "x:3:50-52: Error: invalid policy 'foo', expecting accept or drop",
        "x:4:20-20: Error: syntax error, unexpected ']', expecting '}'",
        "x:5:13-13: Error: unknown identifier 'x'",
        "x:6:8-15: Error: unknown meta key 'nonsense'",
        "x:9:6-10: Error: syntax error, unexpected string",
    ]
    at = lines.index("x:4:20-20: Error: syntax error, unexpected ']', expecting '}'")
    assert lines[at + 1 : at + 3] == ["\t\ttcp dport { 1, 2 ] accept", "\t\t" + " " * 17 + "^"]


def test_one_broken_rule_costs_one_error() -> None:
    lines = errors("table ip t {\n chain c {\n jump {\n accept accept )\n }\n counter\n }\n}\n")
    assert len([line for line in lines if "Error" in line]) == 1


def test_variables_and_scopes() -> None:
    commands = parse(
        'define port = { 22, 80 }\ndefine dev = "eth0"\n'
        "table ip t {\n define inner = 5\n chain c {\n"
        "  type filter hook ingress device $dev priority $inner; policy accept;\n"
        "  tcp dport $port accept\n tcp dport { $port, 443 } drop\n }\n}\n"
    )
    chain = commands[0].node.chains[0]  # type: ignore[union-attr]
    assert chain.devices == ["eth0"]
    assert chain.priority.offset == 5
    assert len(chain.rules[0].stmts[0].expr.right.elements) == 2
    assert len(chain.rules[1].stmts[0].expr.right.elements) == 3
    assert "unknown identifier 'inner'" in "".join(errors("table t {\n define inner = 5\n}\nadd rule t c tcp dport $inner\n"))
    assert "redefinition of symbol 'a'" in "".join(errors("define a = 1\ndefine a = 2\n"))
    assert parse("define a = 1\nredefine a = 2\nundefine a\ndefine a = 3\nadd table t\n")
    assert parse("add rule t c tcp dport $p", defines={"p": "{ 1, 2 }"})


def test_include(tmp_path: Path) -> None:
    (tmp_path / "b.nft").write_text("tcp dport 2 accept")
    (tmp_path / "a.nft").write_text("tcp dport 1 accept\n")
    text = 'table t {\n chain c {\n  include "*.nft"\n  drop\n }\n}\n'
    chain = parse(text, include_path=[str(tmp_path)])[0].node.chains[0]  # type: ignore[union-attr]
    assert len(chain.rules) == 3
    assert chain.rules[1].loc.source.name.endswith("b.nft")
    (tmp_path / "b.nft").write_text("foo $bar\n")
    report = errors(text, include_path=[str(tmp_path)])
    assert report[0].startswith("In file included from x:3:3-18:")
    assert "b.nft:1:6-8: Error: unknown identifier 'bar'" in report[1]
    assert "File not found" in errors('include "nowhere.nft"\n')[0]
    assert "Not a regular file" in errors('include "/dev/null"\n')[0]
    (tmp_path / "loop.nft").write_text(f'include "{tmp_path}/loop.nft"\n')
    nested = "\n".join(errors(f'include "{tmp_path}/loop.nft"\n'))
    assert "nested too deeply" in nested and "\n                 from x:1:1-" in nested


@pytest.mark.parametrize(
    "text",
    [
        "add rule t c " + "(" * 5000,
        "add rule t c ip saddr " + "{" * 5000,
        "add rule t c " + "jump { " * 5000,
        "add rule t c mark set 1" + " | 1" * 5000,
        "add rule t c mark set " + "(1 | " * 5000,
        'include "' + "a" * 100000 + '"',
        '"',
        "\x00",
        "add table \ud800",
        "}" * 1000,
    ],
)
def test_hostile_nesting_is_an_error(text: str) -> None:
    errors(text)


def test_separators_are_needed_as_in_nft() -> None:
    assert parse("table t { chain c { accept; }; }")
    assert "expecting newline or semicolon" in errors("table t { chain c { accept } }")[0]


@pytest.mark.parametrize(
    ("text", "expr"),
    [
        ("dnat to 1.2.3.4:80-90", s.NatStmt("dnat", addr=s.SymbolExpr("1.2.3.4"),
                                            port=s.RangeExpr(s.ConstantExpr(80), s.ConstantExpr(90)))),
        ("dnat ip6 to [::1]:80 random", s.NatStmt("dnat", "ip6", addr=s.SymbolExpr("::1"), port=s.ConstantExpr(80),
                                                  flags=("random",))),
        ("ether type set ip", s.MangleStmt(s.PayloadExpr("ether", "type"), s.SymbolExpr("ip"))),
        ("meta mark set ip dscp << 2", s.MangleStmt(
            s.MetaExpr("mark"), s.BinopExpr("<<", s.PayloadExpr("ip", "dscp"), s.ConstantExpr(2)))),
        ("ct mark and 0xf == 1", s.MatchStmt(s.RelationalExpr(
            "==", s.BinopExpr("&", s.CtExpr("mark"), s.ConstantExpr(15)), s.ConstantExpr(1)))),
        ("tcp flags & (fin | syn) == syn", s.MatchStmt(s.RelationalExpr(
            "==", s.BinopExpr("&", s.PayloadExpr("tcp", "flags"),
                              s.BinopExpr("|", s.SymbolExpr("fin"), s.SymbolExpr("syn"))), s.SymbolExpr("syn")))),
        ("tcp flags syn / syn,ack", s.MatchStmt(s.FlagcmpExpr(
            "==", s.PayloadExpr("tcp", "flags"), s.ListExpr([s.SymbolExpr("syn"), s.SymbolExpr("ack")]),
            s.SymbolExpr("syn")))),
        ("limit rate over 1 kbytes/second burst 2 mbytes",
         s.LimitStmt(1024, "second", True, 2 << 20, True)),
    ],
)  # fmt: skip
def test_trees(text: str, expr: s.Stmt) -> None:
    assert parse_rule(text).stmts == [expr]


PIECES = '1.1.1.1 2.2.2.0/24 3.3.3.3-4.4.4.4 80 0x50 010 1-5 ::1 fe80::/64 ssh eth0 10s 1:2 "x"'.split()  # noqa: SIM905


OPTIONS = (
    *[""] * 8, " timeout 1h", " timeout 5", " timeout 1d2h3m4s", " timeout 5ms", " timeout 1m5ms", " timeout 010", " expires 5s",
    " timeout 1h expires 30m", " timeout never", " counter", ' comment "a, b"', "  timeout\t7s ", " timeout 1h timeout 2h",
)  # fmt: skip
VERDICTS = (" : accept", " : drop", " : jump x", " : goto y-z", " : return", " : jump x1_a ", " : continue")


def test_fast_elements_equal_slow_ones() -> None:
    rng = random.Random(3)
    for _ in range(900):
        elements = []
        for _ in range(rng.randint(1, 6)):
            key = " . ".join(rng.choice(PIECES) for _ in range(rng.choice((1, 1, 2, 3))))
            data = rng.choice(("", "", f" : {rng.choice(PIECES)} . {rng.choice(PIECES)}", *VERDICTS))
            elements.append(key + rng.choice(OPTIONS) + data)
        # A comment before each comma keeps the fast path away.
        fast = parse("add element t s { " + ", ".join(elements) + " }")[0].node
        slow_text = "add element t s { " + " #\n, ".join(elements) + " }"
        slow = parse(slow_text)[0].node
        assert isinstance(fast, s.ElementsBlock)
        assert isinstance(slow, s.ElementsBlock)
        assert fast == slow
        for one, other in zip(fast.elements, slow.elements, strict=True):
            assert written(one) == written(other)
            assert written(one.key) == written(other.key)


def written(node: s.Expr) -> str:
    return node.loc.source.text[node.loc.start : node.loc.end]


def test_empty_members_are_skipped_as_in_nft() -> None:
    assert parse_rule("tcp dport { 1, , 2, , }") == parse_rule("tcp dport { 1, 2 }")
    errors("add rule t c tcp dport { , 1 }")
    errors("add rule t c tcp dport { }")


def test_an_empty_set_is_for_named_sets_only() -> None:
    assert parse("define e = { }\nadd set t s { type mark; elements = $e; }\nadd rule t c mark { $e, 1 }")
    for use in ("tcp dport $e", "mark set mark map $e", "tcp dport vmap $e"):
        assert "Set is empty" in errors(f"define e = {{ }}\nadd rule t c {use}\n")[0]


def test_scopes_nest_as_deep_as_in_nft() -> None:
    assert parse("table t {\n chain c {\n jump {\n accept\n }\n }\n}\n")
    lines = errors("table t {\n chain c {\n jump {\n jump {\n accept\n }\n }\n }\n}\n")
    assert lines[0] == "x:4:7-7: Error: too many levels of nesting"


def test_a_long_line_is_as_many_short_ones() -> None:
    """The scanner gives a line in chunks; wherever a chunk ends, the commands are the same."""
    matches = "iifname eth0 ip saddr . tcp dport vmap { 1.2.3.4 . 22 : accept, 5.6.7.8 . 80-90 : jump d }"
    rule = f'add rule inet t c {matches} counter comment "x"'
    more = 'add element inet t s { 1.1.1.1, 2.2.2.2 timeout 1h comment "y", 10.0.0.0/8 }'
    for shift in range(24):
        commands = ["list table inet " + "t" * (shift + 1)] * (shift % 5) + [rule, more] * 20
        one, many = parse("; ".join(commands) + "\n"), parse("\n".join(commands) + "\n")
        assert [repr(command) for command in one] == [repr(command) for command in many]
