"""The manual pages: everything of the parser and of configuration.md is in them, and roff reads them without a warning."""

import argparse
import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from userfw.cli.main import build_parser

ROOT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location("manual", ROOT / "docs/manual.py")
assert spec is not None and spec.loader is not None
manual = importlib.util.module_from_spec(spec)
spec.loader.exec_module(manual)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("man")
    assert manual.main([str(folder)]) == 0
    return {path.name: path for path in folder.iterdir()}


def test_every_command_and_option_is_told(pages: dict[str, Path]) -> None:
    page = pages["userfw.8"].read_text().replace("\\-", "-")
    commands = next(a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction))
    for name, command in commands.choices.items():
        section = page.partition(f".SS userfw {name}\n")[2].partition(".SS ")[0]
        assert section, name
        for action in command._actions:
            if not isinstance(action, argparse._HelpAction):
                assert all(option in section for option in action.option_strings), (name, action.option_strings)


def test_every_key_is_told(pages: dict[str, Path]) -> None:
    page = pages["userfw.toml.5"].read_text().replace("\\-", "-")
    rows = re.findall(r"(?m)^\| `(\w+)` \|", (ROOT / "docs/configuration.md").read_text())
    assert len(rows) > 80
    for key in rows:
        assert f".TP\n\\fB{key}\\fR\n" in page, key


def test_roff_reads_them_without_a_warning(pages: dict[str, Path]) -> None:
    if not shutil.which("groff"):
        pytest.skip("groff is not installed")
    for path in pages.values():
        done = subprocess.run(["groff", "-ww", "-man", "-Tutf8", "-Kutf8", str(path)], capture_output=True, text=True, check=False)
        assert done.returncode == 0 and not done.stderr, done.stderr
