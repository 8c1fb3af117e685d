"""What Linux 6.18 refuses about elements and about rules that change sets, observed with nft 1.0.6 beside it."""

from __future__ import annotations

import pytest

from tests.ruleset.bench import Bench
from userfw.ruleset.manager import RulesetManager
from userfw.ruleset.options import Options

PROCESS = "Could not process rule: "
SETS = """
table ip t {
  set counted { type ipv4_addr; size 100; flags dynamic
    counter
  }
  set plain { type ipv4_addr; size 100; flags dynamic
  }
  set timed { type ipv4_addr; size 100; flags dynamic,timeout
  }
  set fixed { type ipv4_addr; flags constant
    elements = { 1.1.1.1 }
  }
  set ranges { type ipv4_addr; flags interval
  }
  chain c { type filter hook input priority 0
  }
}
"""


def loaded() -> RulesetManager:
    manager = RulesetManager()
    assert manager.execute(SETS).errors == ""
    return manager


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("add @counted { ip saddr counter ct count over 5 }", "Invalid argument"),
        ("add @counted { ip saddr ct count over 5 }", "Operation not supported"),
        ("add @timed { ip saddr ct count over 5 }", "Operation not supported"),
        ("add @plain { ip saddr counter ct count over 3 limit rate 1/second }", "Argument list too long"),
        ("add @plain { ip saddr timeout 5s }", "Operation not supported"),
        ("add @fixed { ip saddr }", "Operation not supported"),
        ("add @ranges { ip saddr }", "Operation not supported"),
    ],
)
def test_rules_that_change_sets(statement: str, words: str) -> None:
    manager = loaded()
    result = manager.execute(f"add rule ip t c {statement}")
    assert result.status == 1 and result.errors.startswith(f"Error: {PROCESS}{words}"), result.errors


@pytest.mark.parametrize(
    "statement",
    [
        "add @counted { ip saddr }", "add @counted { ip saddr counter }", "add @plain { ip saddr ct count over 5 }",
        "add @plain { ip saddr counter ct count over 5 }", "update @timed { ip saddr timeout 5s counter }",
    ],
)  # fmt: skip
def test_rules_that_may(statement: str) -> None:
    assert loaded().execute(f"add rule ip t c {statement}").errors == ""


@pytest.mark.parametrize(
    ("element", "words"),
    [
        ("plain { 9.9.9.9 timeout 5s }", "Invalid argument"),
        ("plain { 9.9.9.9 expires 5s }", "Invalid argument"),
        ("timed { 9.9.9.9 expires 5s }", "Operation not supported"),
        ("timed { 9.9.9.9 timeout 5s expires 10s }", "Numerical result out of range"),
        ("fixed { 2.2.2.2 }", "Too many open files in system"),
    ],
)
def test_elements(element: str, words: str) -> None:
    assert Bench(SETS).errors(f"add element ip t {element}") == [PROCESS + words]


def test_a_key_is_pointed_at() -> None:
    manager = loaded()
    result = manager.execute('create element ip t fixed { 1.1.1.1 comment "there" }')
    assert result.errors.splitlines()[-1] == " " * 28 + "^" * 7
    assert manager.execute("add rule ip t c index 7 accept").errors.splitlines()[-1] == " " * 16 + "^" * 7


def test_a_rule_that_is_replaced_keeps_its_handle() -> None:
    bench = Bench("add table ip t\nadd chain ip t c\nadd rule ip t c accept\nadd rule ip t c drop")
    bench.run("replace rule ip t c handle 2 return\nreplace rule ip t c handle 2 continue\nadd rule ip t c accept")
    assert [rule.handle for rule in bench.rules.tables["ip", "t"].chains["c"].rules] == [2, 3, 4]
    bench.run("delete rule ip t c handle 2")
    assert bench.errors("replace rule ip t c handle 2 return") == [PROCESS + "No such file or directory"]


@pytest.mark.parametrize(
    ("command", "report"),
    [
        ("add rule ip t c tcp", "Error: syntax error, unexpected newline\nadd rule ip t c tcp\n                   ^\n"),
        ("add rule ip t c jump nope",
         f"Error: {PROCESS}No such file or directory\nadd rule ip t c jump nope\n                     ^^^^\n"),
        ("add rule ip t c jump c",
         f"Error: {PROCESS}Operation not supported\nadd rule ip t c jump c\n                     ^\n"),
        ("add rule ip t c tcp dport @plain",
         "Error: datatype mismatch, expected internet network service, expression has type IPv4 address\n"
         "add rule ip t c tcp dport @plain\n                ~~~~~~~~~ ^^^^^^\n"),
        ("add rule ip t c ip saddr @plains",
         "Error: No such file or directory; did you mean set ‘plain’ in table ip ‘t’?\n"
         "add rule ip t c ip saddr @plains\n                         ^^^^^^^\n"),
        ("rename chain ip t c c",
         f"Error: {PROCESS}File exists\nrename chain ip t c c\n^^^^^^^^^^^^^^^^^^^^^\n"),
        ("add rule ip t c accept \\", ""),
    ],
)  # fmt: skip
def test_a_command_line_is_a_line(command: str, report: str) -> None:
    """Texts and places as nft 1.0.6 has them: what it is given on the command line ends in a newline."""
    assert loaded().execute(command).errors == report


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("add set ip t x { type ipv4_addr; flags interval, dynamic; }", f"{PROCESS}Operation not supported"),
        ("add set ip t x { type ipv4_addr; auto-merge; }", "auto-merge only works with interval sets"),
        ("list meter ip t ranges", "No such file or directory"),
        ("list hooks foo", "syntax error, unexpected string"),
    ],
)
def test_sets_and_listings(command: str, words: str) -> None:
    assert loaded().execute(command).errors.startswith(f"Error: {words}")


def test_echo_tells_what_is_added() -> None:
    """Not what is deleted, flushed or renamed, unless a rule is replaced (observed with nft 1.0.6 on Linux 6.18)."""
    manager, echo = loaded(), Options(echo=True, process="nft")
    for quiet in ("rename chain ip t c d", "delete set ip t plain", "flush chain ip t d"):
        assert manager.execute(quiet, echo).output == ""
    assert manager.execute("flush chain ip t d; add rule ip t d drop", echo).output.startswith("add rule ip t d drop\n# new")
    handle = manager.rules.tables["ip", "t"].chains["d"].rules[0].handle
    lines = manager.execute(f"replace rule ip t d handle {handle} accept", echo).output.splitlines()
    assert [line.split(" handle")[0] for line in lines[:2]] == ["delete rule ip t d", "add rule ip t d accept"]
    assert manager.execute("delete table ip t", echo).output == ""
