"""`userfw nft -i` on a terminal of its own: prompt, history and completion, with prompt_toolkit and with readline alone."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DEADLINE = 30.0
PROMPT = "nft>"
UP, TAB, CTRL_C, CTRL_D, CTRL_U = "\x1b[A", "\t", "\x03", "\x04", "\x15"
EDITORS = ("prompt_toolkit", "readline")


def _take_terminal() -> None:
    """Make standard input the controlling terminal of the new session, so that ^C interrupts; even where the tests run in the
    background of a shell, which makes its children ignore interrupts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Terminal:
    """A program on a pseudo-terminal; `expect` waits until a text was printed, and forgets what came up to it."""

    def __init__(self, argv: list[str], env: dict[str, str]) -> None:
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen(
            argv, stdin=slave, stdout=slave, stderr=slave, env=env, start_new_session=True, cwd=ROOT, preexec_fn=_take_terminal,
        )  # fmt: skip
        os.close(slave)
        self.seen = ""

    def send(self, text: str) -> None:
        os.write(self.master, text.encode())

    def settle(self) -> None:
        """Wait until the program waits for a key: CPython's readline sees an interrupt that comes while it echoes at the next key
        only (readline_until_enter_or_signal looks for signals where select(2) was interrupted)."""
        asleep, end = 0, time.monotonic() + DEADLINE
        while asleep < 5 and time.monotonic() < end:
            state = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[0]
            asleep = asleep + 1 if state == "S" else 0
            time.sleep(0.01)

    def wait(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + DEADLINE
        while not condition():
            assert time.monotonic() < end
            time.sleep(0.01)

    def expect(self, text: str) -> str:
        """What was printed up to and including `text`, without the terminal's control sequences."""
        end = time.monotonic() + DEADLINE
        while text not in self._plain():
            if not select.select([self.master], [], [], max(end - time.monotonic(), 0))[0]:
                raise AssertionError(f"{text!r} did not come; seen: {self._plain()!r}")
            try:
                self.seen += os.read(self.master, 65536).decode("utf-8", "replace")
            except OSError:
                raise AssertionError(f"the program ended before {text!r}; seen: {self._plain()!r}") from None
        before, _, rest = self._plain().partition(text)
        self.seen = rest
        return before + text

    def _plain(self) -> str:
        return re.sub(r"\x1b(\[[0-9;?]*[a-zA-Z]|[=>78]|\][^\x07]*\x07)", "", self.seen)

    def close(self) -> int:
        """The exit status, of a program that is ending."""
        end = time.monotonic() + DEADLINE
        while self.process.poll() is None and time.monotonic() < end:
            if select.select([self.master], [], [], 0.05)[0]:
                try:
                    os.read(self.master, 65536)
                except OSError:
                    break
        return self.process.wait(max(end - time.monotonic(), 1))


Start = Callable[..., Terminal]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start the interactive nft on a private ruleset with an editor; histories are in a folder of the test."""
    made: list[Terminal] = []

    def begin(editor: str, argv: Sequence[str] = ("-m", "userfw", "nft", "--private", "-i")) -> Terminal:
        if find_spec(editor) is None:
            pytest.skip(f"{editor} is not installed")
        env = {**os.environ, "HOME": str(tmp_path), "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1", "COLUMNS": "200"}
        env["PYTHONPATH"] = str(ROOT)
        if editor == "readline":
            hidden = tmp_path / "hidden" / "prompt_toolkit"
            hidden.mkdir(parents=True, exist_ok=True)
            (hidden / "__init__.py").write_text("raise ImportError('hidden by the test')\n")
            env["PYTHONPATH"] = f"{hidden.parent}:{ROOT}"
        terminal = Terminal([sys.executable, *argv], env)
        made.append(terminal)
        terminal.expect(PROMPT)
        return terminal

    yield begin
    for terminal in made:
        if terminal.process.poll() is None:
            terminal.process.kill()
        terminal.process.wait()
        os.close(terminal.master)


@pytest.mark.parametrize("editor", EDITORS)
def test_commands_run_and_errors_do_not_end_it(start: Start, editor: str) -> None:
    terminal = start(editor)
    terminal.send("add table inet t\r")
    terminal.expect(PROMPT)
    terminal.send("list tables\r")
    terminal.expect("table inet t")
    terminal.expect(PROMPT)
    terminal.send("add foo\r")
    terminal.expect("Error: syntax error")
    terminal.expect(PROMPT)
    terminal.send("list table inet nope\r")
    terminal.expect("No such file or directory")
    terminal.expect(PROMPT)
    terminal.send("quit\r")
    assert terminal.close() == 0


@pytest.mark.parametrize("editor", EDITORS)
def test_history_is_recalled_within_and_across_sessions(start: Start, editor: str) -> None:
    first = start(editor)
    first.send("describe tcp dport\r")
    first.expect("inet_service")
    first.expect(PROMPT)
    first.send(UP + "\r")
    first.expect("inet_service")
    first.expect(PROMPT)
    first.send(CTRL_D)
    assert first.close() == 0
    second = start(editor)
    second.send(UP + "\r")
    second.expect("inet_service")


@pytest.mark.parametrize("editor", EDITORS)
def test_words_and_names_are_completed(start: Start, editor: str) -> None:
    terminal = start(editor)
    terminal.send("add table inet elephants\r")
    terminal.expect(PROMPT)
    terminal.send("desc" + TAB)
    terminal.expect("describe")
    terminal.send(CTRL_U + "list table inet ele" + TAB)
    terminal.expect("elephants")
    terminal.send("\r")
    terminal.expect("table inet elephants {")


@pytest.mark.parametrize("editor", EDITORS)
def test_interrupt_gives_up_the_line_only(start: Start, editor: str) -> None:
    terminal = start(editor)
    terminal.send("add table ip nonsense")
    terminal.expect("nonsense")
    terminal.settle()
    terminal.send(CTRL_C)
    terminal.expect(PROMPT)
    terminal.send("list tables\r")
    terminal.expect("list tables")
    before = terminal.expect(PROMPT)
    assert "nonsense" not in before


@pytest.mark.parametrize("editor", EDITORS)
def test_a_line_goes_on_behind_a_backslash(start: Start, editor: str) -> None:
    terminal = start(editor)
    terminal.send("add table \\\r")
    terminal.expect("....")
    terminal.send("inet \\\r")
    terminal.expect("....")
    terminal.send("long\r")
    terminal.expect(PROMPT)
    terminal.send("list tables\r")
    terminal.expect("table inet long")


SLOW = """
import pathlib, sys, time
sys.path[:0] = {path!r}
from userfw.cli import nft_interactive

names = nft_interactive.Completer._names
def slow(self, before):
    pathlib.Path({mark!r}).touch()
    time.sleep(3)
    return names(self, before)
nft_interactive.Completer._names = slow
from userfw.cli.main import main
sys.exit(main(["nft", "--private", "-i"]))
"""


@pytest.mark.parametrize("editor", EDITORS)
def test_an_interrupt_ends_a_completion(start: Start, editor: str, tmp_path: Path) -> None:
    """One that waits for a busy daemon: the line is given up and the prompt is back."""
    mark = tmp_path / "asked"
    (tmp_path / "slow.py").write_text(SLOW.format(path=[str(ROOT)], mark=str(mark)))
    terminal = start(editor, [str(tmp_path / "slow.py")])
    terminal.send("list table inet ele" + TAB)
    terminal.wait(mark.exists)
    terminal.send(CTRL_C)
    terminal.expect(PROMPT)
    terminal.send("list tables\r")
    terminal.expect("list tables")
    terminal.expect(PROMPT)
    terminal.send("quit\r")
    assert terminal.close() == 0
