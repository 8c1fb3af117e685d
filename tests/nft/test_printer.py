"""The printers: text parses back to the same tree, listings have nft's layout, JSON and text say the same."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from userfw.nft import priority
from userfw.nft import syntax as s
from userfw.nft.event_out import event_json, event_text
from userfw.nft.json_in import parse_json
from userfw.nft.json_out import dumps, rule_object, to_json
from userfw.nft.parser import parse, parse_rule
from userfw.nft.printer import format_rule, format_ruleset
from userfw.nft.printer_expr import Style, format_time

sys.path.insert(0, str(Path(__file__).parent))
import corpus

needs_corpus = pytest.mark.skipif(not corpus.available(), reason=f"no conformance data at {corpus.ROOT}")

LISTING = """\
table ip t {
	flags dormant
	comment "hello"

	counter c1 {
		comment "x"
		packets 1 bytes 2
	}

	quota q1 {
		comment "q"
		over 25 mbytes
	}

	limit l1 {
		rate 400/minute
	}

	limit l2 {
		rate over 1 mbytes/second burst 512 kbytes
	}

	ct helper h {
		type "ftp" protocol tcp
		l3proto ip
	}

	ct timeout to {
		protocol tcp
		policy = { established : 2m3s, close : 20s }
	}

	ct expectation e {
		protocol tcp
		dport 5432
		timeout 1h
		size 12
	}

	synproxy sp {
		mss 1460
		wscale 7
		timestamp sack-perm
	}

	set a {
		type ipv4_addr
		size 65535
		flags interval,timeout
		auto-merge
		timeout 1h
		gc-interval 30s
		comment "cm"
		elements = { 1.1.1.1,
			     2.2.2.0/24 timeout 30s comment "el" }
	}

	map m {
		typeof ip saddr . tcp dport : verdict
		elements = { 1.1.1.1 . 80 : accept,
			     2.2.2.2 . 81 : jump y }
	}

	map o {
		type ipv4_addr : counter
		flags dynamic
		counter
		elements = { 1.1.1.1 : "c1" }
	}

	flowtable f {
		hook ingress priority filter
		devices = { "eth0", "eth1" }
		flags offload
		counter
	}

	chain y {
		comment "cc"
		tcp dport 22 counter packets 0 bytes 0 comment "ru"
		jump {
			ip saddr 1.2.3.4 accept
			drop
		}
	}

	chain x {
		type filter hook input priority filter - 5; policy drop;
		accept
	}
}
table netdev n {
	chain c {
		type filter hook ingress devices = { "lo" } priority filter + 10; policy accept;
	}
}
"""


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
    ("command", "text"),
    [
        ("add table inet t", "add table inet t"),
        ("add table ip t { comment \"foo bar\"; flags dormant; }", "add table ip t { flags dormant; }"),
        ("add chain inet t c", "add chain inet t c"),
        ("add chain inet t c { type filter hook ingress priority -1; devices = { lo }; policy drop; }",
         'add chain inet t c { type filter hook ingress devices = { "lo" } priority filter - 1; policy drop; }'),
        ("add rule ip t c tcp dport @s", "add rule ip t c tcp dport @s"),
        ("insert rule ip t c counter accept", "insert rule ip t c counter packets 0 bytes 0 accept"),
        ("add set ip t s { type inet_service; flags interval; elements = { 20, 30-40 }; }",
         "add set ip t s { type inet_service; flags interval; }"),
        ("add map ip t m { typeof meta day . meta hour : verdict; flags interval; counter; }",
         "add map ip t m { typeof meta day . meta hour : verdict; flags interval; counter; }"),
        ("add element ip t portip { 80-100: 10.0.0.1 }", "add element ip t portip { 80-100 : 10.0.0.1 }"),
        ("add flowtable ip t ft { hook ingress priority 0; devices = { \"eth1\", \"lo\" }; }",
         'add flowtable ip t ft { hook ingress priority filter; devices = { "eth1", "lo" }; }'),
        ("add counter ip t c", "add counter ip t c { packets 0 bytes 0 }"),
        ("add quota ip t q 25 mbytes", "add quota ip t q { 25 mbytes }"),
        ("add limit ip t l rate 1/second", "add limit ip t l { rate 1/second }"),
        ('add ct helper ip t cth { type "sip" protocol tcp; l3proto ip; }',
         'add ct helper ip t cth { type "sip" protocol tcp; l3proto ip; }'),
        ("add ct timeout ip t ctt { protocol udp; l3proto ip; policy = { unreplied : 15s, replied : 12s }; }",
         "add ct timeout ip t ctt { protocol udp; l3proto ip; policy = { unreplied : 15s, replied : 12s }; }"),
    ],
)  # fmt: skip
def test_events(command: str, text: str) -> None:
    parsed = parse(command)[0]
    node = parsed.node
    assert node is not None
    name = parsed.name or ""
    assert event_text(parsed.op, parsed.family or "", parsed.table or "", name, node) == text  # type: ignore[arg-type]
    event = event_json(parsed.op, parsed.family or "", parsed.table or "", name, node)  # type: ignore[arg-type]
    assert parse_json(dumps({"nftables": [event]}))[0].op == parsed.op


def test_deletions() -> None:
    chain = s.ChainBlock("c", handle=4)
    assert event_text("delete", "inet", "t", "c", chain) == "delete chain inet t c"
    assert event_text("delete", "ip", "t", "c", s.RuleBlock([], handle=9), handle=2) == "delete rule ip t c handle 2"
    assert event_json("delete", "inet", "t", "c", chain) == {
        "delete": {"chain": {"family": "inet", "table": "t", "name": "c", "handle": 4}}
    }


@pytest.mark.parametrize(
    ("value", "family", "hook", "text"),
    [
        (0, "ip", "input", "filter"), (-5, "ip", "input", "filter - 5"), (11, "ip", "input", "11"),
        (-97, "ip", "prerouting", "dstnat + 3"), (-100, "ip", "output", "-100"), (100, "inet", "postrouting", "srcnat"),
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
