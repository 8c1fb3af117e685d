"""Every pair of the iptables-translate corpus, exactly; and every translated line must be nft."""

from __future__ import annotations

import shlex

import pytest
from pairs import ROOT, Pair, pairs, validities

from userfw.iptables.command import parse
from userfw.iptables.errors import UsageError
from userfw.iptables.family import FAMILIES
from userfw.iptables.translate import Result, translate
from userfw.nft.location import NftErrors
from userfw.nft.parser import parse as parse_nft
from userfw.ruleset.manager import RulesetManager

PAIRS = list(pairs())
FILES = sorted({pair.file for pair in PAIRS})
needs_corpus = pytest.mark.skipif(not PAIRS, reason=f"no iptables corpus at {ROOT}")

# iptables' translations that nft 1.1.6 itself has no grammar for
NOT_NFT = (
    "]:1025-65535",
    "exthdr ah exists",  # exthdr knows hbh, rt, frag, dst, mh only
    "exthdr esp exists",
    "[fec0::1234-fec0::2000]:1-20",  # a range in brackets
    *(f"sctp chunk {name}" for name in ("i-data", "re-config", "pad", "i-forward-tsn")),  # newer chunks than nft's list
)

# and those that nft parses but refuses in a ruleset, with what it says
NOT_CHECKED = {
    "rt seg-left != 0-4294967295": "exceeds valid range 0-255",
    "rt seg-left 3-4294967295": "exceeds valid range 0-255",
    "device eth0": "Interface does not exist",
}

# Files of argument validity with rows that the kernel judges (chain, missing -p, unknown set), or an order of arguments
T_KERNEL = {
    "DNPT", "SNPT", "eui64", "mh", "osf", "HMARK", "SET", "TCPMSS", "ecn", "nfacct", "owner", "set", "statistic", "tcpmss",
}  # fmt: skip
T_BOUND = 27


@needs_corpus
@pytest.mark.parametrize("name", FILES)
def test_translations_are_exact(name: str) -> None:
    for pair in PAIRS:
        if pair.file == name:
            assert tuple(translate(FAMILIES[pair.program], pair.argv).output.splitlines()) == pair.output, pair.command


@needs_corpus
def test_the_corpus_is_read_whole() -> None:
    assert len(PAIRS) >= 451


def nft_of(pair: Pair) -> list[str]:
    """The nft commands of a pair, without the shell's quotes."""
    return [line.removeprefix("nft ").strip("'") for line in pair.output]


@needs_corpus
@pytest.mark.parametrize("name", FILES)
def test_every_translated_line_is_nft(name: str) -> None:
    for pair in PAIRS:
        for text in nft_of(pair) if pair.file == name else ():
            if any(part in text for part in NOT_NFT):
                with pytest.raises(NftErrors):
                    parse_nft(text)
            else:
                assert len(parse_nft(text)) == 1, text


def complaint(texts: list[str]) -> str:
    """What a ruleset says to these commands in their table and chain; empty when it takes them."""
    manager = RulesetManager()
    words = texts[-1].split()
    family, table = words[2:4]
    manager.execute(f"add table {family} {table}")
    if words[1] == "rule":
        kind = "nat" if table == "nat" and family != "bridge" else "filter"
        manager.execute(f"add chain {family} {table} {words[4]} {{ type {kind} hook {words[4].lower()} priority 0; }}")
        manager.execute(f"add chain {family} {table} LONGNACCEPT")
    return "".join(result.errors for result in map(manager.execute, texts) if result.status)


@needs_corpus
@pytest.mark.parametrize("name", FILES)
def test_every_translated_line_is_taken_by_a_ruleset(name: str) -> None:
    for pair in PAIRS:
        texts = nft_of(pair)
        if pair.file == name and not any(part in text for part in NOT_NFT for text in texts):
            want = next((words for part, words in NOT_CHECKED.items() if part in texts[-1]), "")
            said = complaint(texts)
            assert want in said if want else not said, (texts, said)


@needs_corpus
def test_what_iptables_takes_becomes_what_nft_takes() -> None:
    """Every accepted row of argument validity that has a translation: the ruleset takes it."""
    translated = 0
    for row in validities():
        result = translate(FAMILIES[row.program], ["-t", row.table, "-A", row.chain, *row.argv]) if row.ok else Result(status=1)
        if result.status:
            continue
        translated += 1
        texts = [shlex.split(line)[1] for line in result.output.splitlines()]
        if not any(part in texts[-1] for part in NOT_NFT):
            want = next((words for part, words in NOT_CHECKED.items() if part in texts[-1]), "")
            said = complaint(texts)
            assert want in said if want else not said, (row.rule, texts, said)
    assert translated > 1000


@needs_corpus
def test_arguments_are_judged_as_iptables_does() -> None:
    """Every row, but for a few that only the kernel can judge; nothing but UsageError is ever raised."""
    wrong = []
    for row in validities():
        try:
            parse(FAMILIES[row.program], ["-t", row.table, "-A", row.chain, *row.argv])
            accepted = True
        except UsageError:
            accepted = False
        if accepted != row.ok:
            wrong.append(row)
    assert {row.file.removesuffix(".t").partition("_")[2] for row in wrong} <= T_KERNEL
    assert len(wrong) <= T_BOUND
    assert not any(row.ok for row in wrong)  # nothing that iptables takes is refused
