"""The checker: types, implied questions, refusals with their places, sets; and the listed form of rules."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

from userfw.nft.check import ChainInfo, CheckedRule, NothingThere, check_commands, check_rule
from userfw.nft.datatype import Output
from userfw.nft.datatype_tables import IPV4_ADDR, ConcatType
from userfw.nft.location import NftErrors
from userfw.nft.lower import lower_rule
from userfw.nft.parser import parse, parse_rule
from userfw.nft.printer import format_rule
from userfw.nft.printer_expr import Style
from userfw.nft.syntax import ConstantExpr, PrefixExpr, RangeExpr, SetBlock, SetElemExpr

sys.path.insert(0, str(Path(__file__).parent))
import corpus

NUMERIC = Style(Output(numeric_proto=True), stateless=True)
needs_corpus = pytest.mark.skipif(not corpus.available(), reason=f"no conformance data at {corpus.ROOT}")


def rule(text: str, family: str = "inet", **info: str) -> CheckedRule:
    return check_rule(parse_rule(text), family, ChainInfo("t", "c", **info), NothingThere())


def listed(text: str, family: str = "inet") -> str:
    return format_rule(rule(text, family), NUMERIC)


def the_set(text: str) -> SetBlock:
    (command,) = check_commands(parse(f"table inet t {{\n{text}\n}}"), NothingThere())
    block = command.node.sets[0]  # type: ignore[union-attr]
    assert isinstance(block, SetBlock)
    return block


@pytest.mark.parametrize(
    ("family", "text", "wanted"),
    [
        ("inet", "tcp dport ssh", "tcp dport 22"),
        ("ip", "ip protocol tcp tcp dport 22", "tcp dport 22"),
        ("inet", "ip protocol tcp tcp dport 22", "ip protocol 6 tcp dport 22"),
        ("inet", "meta nfproto ipv4 ip saddr 1.2.3.4", "ip saddr 1.2.3.4"),
        ("inet", "meta nfproto ipv4 counter ip saddr 1.2.3.4", "meta nfproto ipv4 counter ip saddr 1.2.3.4"),
        ("inet", "meta nfproto ipv4 icmpv6 type echo-request", "meta nfproto ipv4 icmpv6 type echo-request"),
        ("bridge", "ether type vlan vlan id 4094", "vlan id 4094"),
        ("bridge", "ether type 8021ad vlan id 1", "ether type 8021ad vlan id 1"),
        ("inet", "meta l4proto udp tcp option maxseg exists", "meta l4proto 17 tcp option maxseg exists"),
        ("ip", "meta protocol ip6 ip ttl 1", "meta protocol ip6 ip ttl 1"),
        ("inet", "meta mark << 2 == 8", "meta mark 0x00000002"),
        ("ip6", "icmpv6 type packet-too-big icmpv6 mtu 1280", "icmpv6 mtu 1280"),
        ("ip", "icmp id 1", "icmp type { echo-reply, echo-request } icmp id 1"),
        (
            "ip",
            "icmp type { time-exceeded, echo-request } icmp id 256",
            "icmp type { echo-request, time-exceeded } icmp id 256",
        ),
        ("ip", "icmp type { echo-request, time-exceeded } icmp id 1", "icmp type { echo-request, time-exceeded } icmp id 1"),
        ("ip", "udp dport 53 ip saddr 1.1.1.1 udp sport 3", "ip saddr 1.1.1.1 udp sport 3 udp dport 53"),
        ("ip", "@nh,96,64 0x0102030405060708", "ip saddr 1.2.3.4 ip daddr 5.6.7.8"),
        ("inet", "meta l4proto tcp @th,16,16 { 22, 23 }", "tcp dport { 22, 23 }"),
        ("inet", "tcp flags & (syn|ack) == 0", "tcp flags ! syn,ack"),
        ("inet", "tcp flags syn,ack / syn,ack,fin", "tcp flags & (fin | syn | ack) == syn | ack"),
        ("inet", "ct state != established,related", "ct state != established | related"),
        ("inet", "ip saddr & 0xffff0000 == 0xffff0000", "ip saddr 255.255.0.0/16"),
        ("inet", "meta mark 0xffffff00/24", "meta mark & 0xffffff00 == 0xffffff00"),
        ("inet", "ct mark ^ 0x23 == 0x11", "ct mark 0x00000032"),
        ("inet", "tcp dport { 22 }", "tcp dport 22"),
        ("inet", "tcp flags { syn }", "tcp flags == syn"),
        ("inet", "ip saddr { 1.1.1.1 counter }", "ip saddr { 1.1.1.1 counter }"),
        ("inet", "ip saddr { 10.0.0.0-10.255.255.255, 1.1.1.1 }", "ip saddr { 1.1.1.1, 10.0.0.0/8 }"),
        ("inet", "tcp dport { 10-20, 15-30, 31, 40 }", "tcp dport { 10-31, 40 }"),
        ("ip", "snat to 192.168.3.0-192.168.3.255", "snat to 192.168.3.0/24"),
        ("inet", "ip saddr 10.1.1.1 snat to 192.168.3.2", "ip saddr 10.1.1.1 snat ip to 192.168.3.2"),
        ("inet", "meta nfproto ipv4 reject", "reject with icmp port-unreachable"),
        ("inet", "reject", "reject"),
        ("inet", "fib daddr oif exists", "fib daddr check exists"),
        ("inet", "iifname { \"eth*\" }", 'iifname "eth*"'),
    ],
)  # fmt: skip
def test_listing(family: str, text: str, wanted: str) -> None:
    assert listed(text, family) == wanted
    assert listed(wanted, family) == wanted


@pytest.mark.parametrize(
    ("family", "text", "message", "marked"),
    [
        ("inet", "ip saddr 1.2.3.4 ip6 daddr ::1", "conflicting protocols specified: ip vs. ip6", "ip6 daddr"),
        ("inet", "tcp dport 22 udp dport 53", "conflicting protocols specified: tcp vs. udp", "udp dport"),
        ("inet", "meta l4proto { tcp, udp } tcp dport 22", "conflicting protocols specified", "tcp dport"),
        ("inet", "vxlan vni 10", "needs udp", "vxlan vni"),
        ("inet", "ip dscp 64", "exceeds valid range 0-63", "64"),
        ("inet", "tcp dport 80-22", "Range negative size", "80-22"),
        ("inet", "ip saddr fe80::1", "Could not resolve hostname", "fe80::1"),
        ("inet", "accept counter", "Statement after terminal statement", "counter"),
        ("inet", "meta mark set { 1, 2 }", "you cannot use a set here", "{ 1, 2 }"),
        ("inet", "snat to 1.2.3.4", "must be specified with address for inet tables", "snat to 1.2.3.4"),
        ("ip", "redirect to :80", "only valid after transport protocol match", "80"),
        ("ip", "ip saddr @nowhere", "set 'nowhere' does not exist", "@nowhere"),
        ("ip", "flow add @ft", "flowtable 'ft' does not exist", "flow add @ft"),
        ("ip", "ip saddr vmap { 1.1.1.1-1.1.1.9 : accept, 1.1.1.5 : drop }", "conflicting intervals", "1.1.1.5 : drop"),
        ("ip", "tcp option maxseg size set meta mark", "datatype mismatch", "meta mark"),
        ("ip", "meta iifname set 1", "cannot be set", "meta iifname"),
        ("bridge", "ether type arp reject", "cannot reject this network family", "reject"),
        ("inet", "meta l4proto udp reject with tcp reset", "you cannot use tcp reset", "reject with tcp reset"),
        ("inet", "tcp flags & (fin|syn) ! syn", "cannot combine a mask", "tcp flags & (fin|syn) ! syn"),
        ("inet", "ct original saddr 1.2.3.4", "specify either ip or ip6", "ct original saddr"),
        ("bridge", "fib daddr type local", "fib is not supported in family bridge", "fib daddr type"),
        ("arp", "masquerade", "NAT is only supported", "masquerade"),
        ("ip", "xt target MASQUERADE", "unsupported xtables compat expression", "xt target MASQUERADE"),
    ],
)  # fmt: skip
def test_refusals_point_at_their_cause(family: str, text: str, message: str, marked: str) -> None:
    with pytest.raises(NftErrors) as caught:
        rule(text, family)
    (error,) = caught.value.errors
    assert message in error.message
    source = error.loc.source.text
    assert source[error.loc.start : error.loc.end].strip() == marked


def test_all_problems_are_reported_in_order() -> None:
    text = "table ip t {\nset s { type foo; }\nchain c {\nip saddr fe80::1\naccept\ntcp dport 99999\n}\n}"
    with pytest.raises(NftErrors) as caught:
        check_commands(parse(text), NothingThere())
    assert [error.loc.line for error in caught.value.errors] == [2, 4, 6]


def test_the_given_tree_is_left_alone() -> None:
    head = "table ip t {\nset s {\ntype ipv4_addr\nelements = { 1.1.1.1 }\n}\n"
    text = head + "chain c {\nip saddr { 1.1.1.1, 2.2.2.2 } tcp dport 22\n}\n}"
    commands, again = parse(text), parse(text)
    check_commands(commands, NothingThere())
    assert commands == again


def test_sets_have_types_and_values() -> None:
    block = the_set("set s {\ntype ipv4_addr . inet_service\nflags interval\nelements = { 10.0.0.0/8 . 80-90 }\n}")
    assert isinstance(block.key_dtype, ConcatType)
    assert [part.name for part in block.key_dtype.parts] == ["ipv4_addr", "inet_service"]
    items = block.elements[0].key.items  # type: ignore[attr-defined]
    assert isinstance(items[0], PrefixExpr)
    assert isinstance(items[1], RangeExpr)


def test_intervals_of_a_set_are_sorted_and_merged_if_asked() -> None:
    head = "set s {\ntype ipv4_addr\nflags interval\n"
    tail = "elements = { 10.1.0.0/16, 10.0.0.0/16, 10.0.0.0-10.0.0.9 }\n}"
    block = the_set(f"{head}auto-merge\n{tail}")
    (only,) = block.elements
    assert isinstance(only.key, PrefixExpr)
    assert only.key.length == 15
    with pytest.raises(NftErrors, match="conflicting intervals"):
        the_set(head + tail)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("set s {\ntype ipv4_addr\nelements = { 10.0.0.0/8 }\n}", "flags interval"),
        ("set s {\ntype integer\n}", "unqualified type integer"),
        ("set s {\ntype ipv4_addr\nelements = { 1.1.1.1 counter }\n}", "missing statement in set declaration"),
        ("map m {\ntype ipv4_addr : mark\nelements = { 1.1.1.1 }\n}", "map element needs data"),
        ("map m {\ntype ipv4_addr : verdict\nelements = { 1.1.1.1 : 5 }\n}", "expected netfilter verdict"),
        ("set s {\ntype ipv4_addr . mark\nelements = { 1.1.1.1 }\n}", "expected concatenation"),
        ("chain c {\ntype nat hook forward priority 0\n}", "not supported at the forward hook"),
        ("chain c {\ntype filter hook forward priority srcnat\n}", "invalid priority in this context"),
        ("flowtable f {\ndevices = { lo }\n}", "missing hook and priority"),
        ("ct timeout x {\nprotocol udp\npolicy = { syn_sent : 3 }\n}", "unknown for protocol udp"),
    ],
)  # fmt: skip
def test_declarations_refused(text: str, message: str) -> None:
    with pytest.raises(NftErrors, match=message):
        check_commands(parse(f"table inet t {{\n{text}\n}}"), NothingThere())


def test_plain_elements_take_the_short_path_with_the_same_result() -> None:
    words = [f"10.{i >> 8}.{i & 255}.1" for i in range(2000)]
    block = the_set(f"set s {{\ntype ipv4_addr\nelements = {{ {', '.join(words)} }}\n}}")
    assert block.elements[1999] == SetElemExpr(ConstantExpr(IPV4_ADDR.parse(words[1999])))
    assert block.elements[7].dtype is IPV4_ADDR


@needs_corpus
def test_no_rule_text_escapes_as_another_exception() -> None:
    """Rules of the corpus, cut and mixed: refused with NftErrors or lowered and listed, nothing else."""
    chance = random.Random(7)
    lines = [line.text.split() for test in corpus.test_files() for line in test.lines if line.kind == "rule"]
    words = sorted({word for line in lines for word in line})
    for _ in range(1500):
        text = list(chance.choice(lines))
        for _ in range(chance.randrange(1, 4)):
            at = chance.randrange(len(text) + 1)
            text[at : at + chance.randrange(2)] = chance.choice((chance.choice(lines)[:3], [chance.choice(words)]))
        family = chance.choice(("ip", "ip6", "inet", "arp", "bridge", "netdev"))
        try:
            checked = rule(" ".join(text), family)
            lower_rule(checked, family).render()
            format_rule(checked)
        except NftErrors:
            continue


def test_keys_have_the_size_of_the_set() -> None:
    head = "table ip t {\nset s {\ntypeof ip length\n}\nchain c {\n"
    check_commands(parse(head + "ip id @s\n}\n}"), NothingThere())
    with pytest.raises(NftErrors, match="of 2 bytes, not 4"):
        check_commands(parse(head + "meta length @s\n}\n}"), NothingThere())


def test_equality_sign_as_nft_writes_it() -> None:
    text = "set m {\ntype mark\n}\nset mi {\ntype mark\nflags interval\n}\nchain c {\nmeta mark & 0xff @m\nmeta mark & 0xff @mi\n}"
    (command,) = check_commands(parse(f"table inet t {{\n{text}\n}}"), NothingThere())
    first, second = command.node.chains[0].rules  # type: ignore[union-attr]
    assert format_rule(first) == "meta mark & 0x000000ff == @m"
    assert format_rule(second) == "meta mark & 0x000000ff @mi"
