"""Reading command lines: what is accepted, how it is refused, and that nothing else is ever raised."""

from __future__ import annotations

import shlex
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from userfw.cli.main import main
from userfw.iptables.command import parse
from userfw.iptables.errors import UsageError
from userfw.iptables.family import ARP, BRIDGE, FAMILIES, IPV4, IPV6, Family
from userfw.iptables.registry import MATCH_TABLE, TARGET_TABLE
from userfw.iptables.render import interface
from userfw.iptables.translate import NOT_IMPLEMENTED, RestoreError, restore, split, translate
from userfw.nft.parser import parse as parse_nft


def nft(line: str, family: Family = IPV4) -> str:
    return translate(family, split(line)).output


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("-A INPUT -p tcp --dport 22", "-A INPUT -p tcp -m tcp --dport=22"),
        ("-A INPUT -p tcp --dport 22", "--append INPUT --protocol 6 --destination-port ssh"),
        ("-A INPUT -ptcp -jACCEPT", "-A INPUT -p tcp -j ACCEPT"),
        ("-A INPUT ! -s 10.0.0.1", "-A INPUT -s ! 10.0.0.1"),
        ("-t nat -A POSTROUTING -j SNAT --to 1.2.3.4", "-A POSTROUTING -t nat -j SNAT --to-source 1.2.3.4"),
        ("-A INPUT -m limit --limit 60/minute", "-A INPUT -m limit --limit 1/s"),
        ("-A INPUT -nv -j DROP", "-A INPUT -j DROP -w 5"),
    ],
)
def test_ways_to_say_the_same(left: str, right: str) -> None:
    assert nft(left) == nft(right) != ""


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "no command specified"),
        ("-A INPUT foo", "Bad argument `foo'"),
        ("-A INPUT --foo", 'unknown option "--foo"'),
        ("-A INPUT -m nosuch", "Couldn't load match `nosuch':No such file or directory\n"),
        ("-A INPUT -p tcp --dport 65536", "invalid port/service `65536' specified"),
        ("-A INPUT -p tcp --dport", 'option "--dport" requires an argument'),
        ("-A INPUT -p tcp --dport 1 --dport 2", 'tcp: option "--dport" can only be used once.'),
        ("-A INPUT -m tcp --dport 1", "tcp: this extension needs its protocol"),
        ("-A INPUT -p nosuch", 'unknown protocol "nosuch" specified'),
        ("-A INPUT -s 1.2.3.4.5", "host/network `1.2.3.4.5' not found"),
        ("-A INPUT -s 1.2.3.4/33", "invalid mask `33' specified"),
        ("-A INPUT ! -s 1.1.1.1,2.2.2.2", "! not allowed with multiple source or destination IP addresses"),
        ("-A INPUT ! -j DROP", "cannot be inverted"),
        ("-A INPUT ! ! -p tcp", "multiple consecutive ! not allowed"),
        ("-A INPUT -o eth0", "Can't use -o with INPUT"),
        ("-A INPUT -i averyveryverylongname", "must be shorter than 16 characters"),
        ("-A INPUT -D INPUT", "Cannot use -D with -A"),
        ("-A INPUT -t nosuch", "table 'nosuch' does not exist"),
        ("-A INPUT -m comment", 'comment: option "--comment" must be specified'),
        ("-A INPUT -j REJECT --reject-with tcp-reset", "tcp-reset needs `-p tcp'"),
        ("-A INPUT -j DNAT --to-destination 1.2.3.4:80", "Need TCP, UDP, SCTP or DCCP with port specification"),
    ],
)
def test_errors_are_in_iptables_words(line: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError) as found:
        parse(IPV4, split(line))
    assert message in str(found.value)
    assert main(["iptables-translate", *split(line)]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("iptables-translate v1.8.11 (nf_tables): ")
    assert output.err.endswith("Try `iptables-translate -h' or 'iptables-translate --help' for more information.\n")


def test_a_rule_without_translation_is_a_comment(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["-A", "INPUT", "-j", "CHECKSUM", "--checksum-fill"]
    assert main(["iptables-translate", *arguments]) == 1
    output = capsys.readouterr()
    assert output.out == "nft # -A INPUT -j CHECKSUM --checksum-fill \n"
    assert output.err == NOT_IMPLEMENTED + "nft has no words for -j CHECKSUM\n"


def test_half_a_translation_is_none() -> None:
    """An option that nft has no words for makes the whole rule untranslatable, not a wider rule."""
    for line in ("-m hbh --hbh-len 22 --hbh-opts 1", "-m frag --fragid 1 --fraglen 8", "-m owner --uid-owner 0 --socket-exists"):
        assert translate(IPV6, split(f"-A OUTPUT {line}")).status == 1


def test_lists_of_addresses_become_rules() -> None:
    lines = nft("-A INPUT -s 1.1.1.1,2.2.2.0/24 -d 3.3.3.3,4.4.4.4 -j DROP").splitlines()
    assert len(lines) == 4
    assert lines[1] == "nft 'add rule ip filter INPUT ip saddr 1.1.1.1 ip daddr 4.4.4.4 counter drop'"


@pytest.mark.parametrize(
    ("line", "output"),
    [
        ("-N web", "nft add chain ip filter web\n"),
        ("-X web", "nft delete chain ip filter web\n"),
        ("-F web", "nft flush chain ip filter web\n"),
        ("-L", "nft list table ip filter\n"),
        ("-I INPUT 3 -g web", "nft 'insert rule ip filter INPUT index 3 counter goto web'\n"),
        ("-A INPUT -j NFQUEUE --queue-num 7", "nft 'add rule ip filter INPUT counter queue num 7'\n"),
        ("-A INPUT -m conntrack ! --ctstate DNAT", "nft 'add rule ip filter INPUT ct status ! dnat counter'\n"),
    ],
)
def test_other_commands(line: str, output: str) -> None:
    assert nft(line) == output


def test_interfaces() -> None:
    assert interface("iifname", "eth+", True) == 'iifname != "eth*"'
    assert interface("iifname", "+", False) == ""


def test_restore() -> None:
    text = """# Generated by iptables-save
*mangle
:OUTPUT ACCEPT [0:0]
:own - [0:0]
COMMIT
*filter
:INPUT DROP [1:2]
[3:4] -A INPUT -p tcp -m comment --comment "a \\\\ c" -j own
-A INPUT -m connlimit --connlimit-above 2
-A INPUT -m connlimit --connlimit-above 3
-A INPUT -m u32 --u32 0x0=0x0
COMMIT
"""
    assert list(restore(IPV4, text)) == [
        "add table ip mangle",
        "add chain ip mangle OUTPUT { type route hook output priority -150; policy accept; }",
        "add chain ip mangle own",
        "add table ip filter",
        "add chain ip filter INPUT { type filter hook input priority 0; policy drop; }",
        'add rule ip filter INPUT ip protocol tcp counter jump own comment "a \\ c"',
        "add set ip filter connlimit0 { type ipv4_addr; flags dynamic; }",
        "add rule ip filter INPUT add @connlimit0 { ip saddr ct count over 2 } counter",
        "add set ip filter connlimit1 { type ipv4_addr; flags dynamic; }",
        "add rule ip filter INPUT add @connlimit1 { ip saddr ct count over 3 } counter",
        "# -t filter -A INPUT -m u32 --u32 0x0=0x0 ",
    ]
    with pytest.raises(RestoreError) as found:
        list(restore(IPV6, "*filter\n-A INPUT -s 1.2.3.4\n"))
    assert found.value.line == 2


def test_restore_command(tmp_path: object, capsys: pytest.CaptureFixture[str]) -> None:
    path = f"{tmp_path}/rules"
    with open(path, "w") as file:
        file.write("*nat\n:POSTROUTING ACCEPT\n-A POSTROUTING -j MASQUERADE\nCOMMIT\n")
    assert main(["ip6tables-restore-translate", "-f", path]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("# Translated by ip6tables-restore-translate v1.8.11 on ")
    assert lines[3] == "add rule ip6 nat POSTROUTING counter masquerade"
    assert lines[-1].startswith("# Completed on ")
    assert main(["iptables-restore-translate", "-f", path + "x"]) == 1
    assert main(["iptables-restore-translate"]) == 1


def test_every_option_is_named_once_in_its_extension() -> None:
    for row in {id(row): row for row in [*MATCH_TABLE.values(), *TARGET_TABLE.values()]}.values():
        names = [name for option in row.options for name in (option.name, *option.aliases)]
        assert len(names) == len(set(names)), row.name
        for group in (row.one_of, *row.alone):
            assert set(group) <= set(names), row.name


BASIC = "-A INPUT -I ! -p tcp udp -s 10.0.0.0/8 -j -m -i eth0 1 1:2 a,b -t nat -c"
WORDS = st.one_of(
    st.sampled_from(
        [
            *split(BASIC),
            *sorted({f"--{option.name}" for row in MATCH_TABLE.values() for option in row.options}),
            *sorted({row.name for row in [*MATCH_TABLE.values(), *TARGET_TABLE.values()]}),
        ]
    ),
    st.text(max_size=8),
)


@given(st.sampled_from([IPV4, IPV6, ARP, BRIDGE]), st.lists(WORDS, max_size=10))
def test_any_words_translate_or_are_refused(family: Family, words: list[str]) -> None:
    with suppress(UsageError):
        translate(family, ["-A", "FORWARD", *words])


@given(st.sampled_from(list(FAMILIES.values())), st.sampled_from(sorted(MATCH_TABLE)), st.lists(st.text(max_size=6), max_size=3))
def test_any_argument_is_read_or_refused(family: Family, key: tuple[str, str], values: list[str]) -> None:
    """Each option of a match with any text."""
    for option in MATCH_TABLE[key].options:
        with suppress(UsageError):
            translate(family, ["-A", "FORWARD", "-p", "tcp", "-m", key[1], f"--{option.name}", *values])


@given(st.text(max_size=60))
def test_any_file_restores_or_is_refused(text: str) -> None:
    with suppress(UsageError):
        list(restore(IPV4, "*filter\n:INPUT ACCEPT\n-A " + text))


@pytest.mark.parametrize(
    "arguments",
    [
        ["-m", "comment", "--comment", 'a" drop comment "b'],
        ["-j", "LOG", "--log-prefix", "a\nflush ruleset"],
        ["-i", 'a" accept'],
        ["-j", "x;flush ruleset"],
    ],
)
def test_no_argument_breaks_out_of_its_rule(arguments: list[str]) -> None:
    assert translate(IPV4, ["-A", "INPUT", *arguments]).status == 1


def test_the_shell_gets_one_word() -> None:
    line = nft("-A INPUT -m comment --comment \"it's\"")
    assert shlex.split(line) == ["nft", 'add rule ip filter INPUT counter comment "it\'s"']


@given(st.text(min_size=1, max_size=12))
def test_any_text_stays_in_its_string(text: str) -> None:
    """One rule and no more, whatever a comment says."""
    try:
        result = translate(IPV4, ["-A", "INPUT", "-m", "comment", "--comment", text, "-j", "LOG", "--log-prefix", text])
    except UsageError:
        return
    if result.status == 0:
        (line,) = parse_nft(shlex.split(result.output)[1])
        assert line.op == "add"


def test_octets_that_are_no_characters(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["iptables-translate", "-A", "INPUT", "-m", "comment", "--comment", "a\udcff"]) == 1
    assert main(["iptables-translate", "-A", "INPUT", "--\udcff"]) == 2
    assert main(["iptables-translate", "-A", "INPUT", "-j", "NFLOG", "--nflog-prefix", "\udcff"]) == 1
    assert capsys.readouterr().out.count("\n") == 2


def test_a_comment_is_one_line() -> None:
    assert nft_raw(["-j", "LOG", "--log-prefix", "a\nflush ruleset"]).count("\n") == 1


def nft_raw(arguments: list[str]) -> str:
    return translate(IPV4, ["-A", "INPUT", *arguments]).output


@pytest.mark.parametrize("text", ["9" * 5000, "1/" + "9" * 5000, "9" * 5000 + "kb/s", "٣", "-1", ""])
def test_numbers_without_end(text: str) -> None:
    for option in ("-s", "-m limit --limit", "-m time --monthdays", "-m time --weekdays", "-m hashlimit --hashlimit-upto", "-c"):
        with pytest.raises(UsageError):
            parse(IPV4, ["-A", "INPUT", *option.split(), text])


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=2, max_size=4), st.integers(0, 50), st.integers(0, 50))
def test_several_ports_are_one_set_without_overlaps(parts: list[tuple[int, int]], source: int, destination: int) -> None:
    """A pair of ports is in exactly one element if either port is in a part, else in none."""
    ranges = [(min(part), max(part)) for part in parts]
    line = nft(f"-A INPUT -p tcp -m multiport --ports {','.join(f'{low}:{high}' for low, high in ranges)}")
    elements = [element.split(" . ") for element in line.partition("{ ")[2].partition(" }")[0].split(", ")]

    def inside(port: int, text: str) -> bool:
        low, _, high = text.partition("-")
        return int(low) <= port <= int(high or low)

    found = sum(inside(source, left) and inside(destination, right) for left, right in elements)
    assert found == any(low <= port <= high for low, high in ranges for port in (source, destination))


def test_differences_from_iptables() -> None:
    assert "icmp type . icmp code != { 3 . 1 }" in nft("-A INPUT -p icmp ! --icmp-type 3/1")
    assert "priority 50;" in list(restore(IPV4, "*security\n:INPUT ACCEPT\n"))[1]
