"""The command line of `userfw nft`: nft's own, and nothing is imported that `--help` does not need."""

from __future__ import annotations

import subprocess
import sys

import pytest

from userfw.cli import nft
from userfw.cli.nft_args import HELP, UsageError, parse


def test_flags_together_and_alone() -> None:
    arguments = parse(["-ansj", "--numeric-priority", "list", "ruleset"])
    assert arguments.settings == {
        "handles": True, "numeric": True, "stateless": True, "json": True, "numeric_priority": True,
    }  # fmt: skip
    assert arguments.command == "list ruleset"


@pytest.mark.parametrize(
    "argv",
    [["-f", "x.nft"], ["-fx.nft"], ["--file", "x.nft"], ["--file=x.nft"], ["-cf", "x.nft"], ["--fil=x.nft"]],
)
def test_values(argv: list[str]) -> None:
    assert parse(argv).file == "x.nft"


def test_repeated_values() -> None:
    arguments = parse(["-I", "a", "-Ib", "-D", "x=1", "--define=y=a=b", "-d", "eval,mnl", "-f", "-"])
    assert arguments.include_path == ["a", "b"]
    assert arguments.defines == [("x", "1"), ("y", "a=b")]
    assert arguments.debug == ["eval", "mnl"]
    assert arguments.file == "-"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["-x"], "invalid option"),
        (["--nope"], "unrecognized option"),
        (["--numeric-pr"], "ambiguous option"),
        (["-f"], "requires an argument"),
        (["--file"], "requires an argument"),
        (["--check=1"], "doesn't allow an argument"),
        (["-d", "nope"], "invalid debug parameter"),
        (["-D", "x=1", "list", "ruleset"], "can only be used with"),
        (["-D", "x", "-f", "f"], "Failed to define variable"),
        (["list", "ruleset", "-a"], "options must be specified before commands"),
    ],
)
def test_errors(argv: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse(argv)


def test_negative_numbers_are_no_options() -> None:
    words = ["add", "chain", "t", "c", "{", "type", "filter", "hook", "input", "priority", "-5", ";", "}"]
    assert parse(words).command.endswith("-5 ; }")


@pytest.mark.parametrize("word", ["-h", "--help"])
def test_help(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert nft.main([word]) == 0
    assert capsys.readouterr().out == HELP


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert nft.main(["-v"]) == 0
    assert capsys.readouterr().out.startswith("nftables v1.1.6")


def test_nothing_to_do_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert nft.main([]) == 1
    assert capsys.readouterr().err == HELP


def test_help_imports_little() -> None:
    """Neither the language nor the engine is loaded for the help."""
    code = (
        "import sys, io; sys.stdout = io.StringIO(); from userfw.cli.nft import main; main(['--help'])\n"
        "heavy = [n for n in sys.modules if n.startswith(('userfw.nft', 'userfw.ruleset', 'userfw.engine', 'userfw.client'))]\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
