"""`userfw nft -i`: a prompt with history and completion, by prompt_toolkit where it is installed, else by readline."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from userfw.cli.nft import _is_monitor, monitor, run_text

if TYPE_CHECKING:
    from userfw.client.runner import Runner
    from userfw.ruleset.options import Options

PROMPT = "nft> "
MORE = ".... "  # after a line that ends in a backslash
AGAIN_S = 0.02
HISTORY = "~/.userfw_nft_history"
HISTORY_LENGTH = 1000

_VERBS = (
    "add", "create", "insert", "replace", "delete", "destroy", "get", "list", "reset", "flush", "rename", "describe", "monitor",
)  # fmt: skip
_OBJECTS = (
    "table", "chain", "rule", "set", "map", "element", "flowtable", "counter", "quota", "limit", "ct helper", "ct timeout",
    "ct expectation", "synproxy", "secmark",
)  # fmt: skip
_PLURALS = ("ruleset", "tables", "chains", "sets", "maps", "flowtables", "counters", "quotas", "limits", "hooks", "meters")
_LISTED = (*_OBJECTS, *_PLURALS)
_FAMILIES = ("ip", "ip6", "inet", "arp", "bridge", "netdev")


class Completer:
    """Words that may come next: verbs, then objects, then families and names of what there is."""

    def __init__(self, runner: Runner, options: Options) -> None:
        self.runner = runner
        self.options = replace(options, json=True, check=False, echo=False, terse=True)

    def words(self, line: str) -> list[str]:
        """All words that could stand where the last, unfinished word of `line` stands."""
        before = line.split()
        if line and not line[-1].isspace():
            before = before[:-1]
        if not before:
            return [*_VERBS, "quit"]
        if len(before) == 1:
            return list(_LISTED if before[0] in ("list", "reset", "flush") else _OBJECTS)
        return [*self._names(before[1:]), *(_FAMILIES if len(before) == 2 else ())]

    def _names(self, before: list[str]) -> Iterable[str]:
        import json

        try:
            objects = json.loads(self.runner.run("list ruleset", self.options).output)["nftables"]
        except Exception:
            return []
        family = next((word for word in before if word in _FAMILIES), "ip")
        tables = {entry["table"]["name"] for entry in objects if "table" in entry and entry["table"]["family"] == family}
        table = next((word for word in before if word in tables), None)
        if table is None:
            return sorted(tables)
        names = {body["name"] for entry in objects for body in entry.values() if body.get("table") == table and "name" in body}
        return sorted(names)


def interactive(runner: Runner, options: Options) -> int:
    """Read and run lines until `quit` or the end of input."""
    read = _reader(Completer(runner, options))
    while True:
        try:
            line = read(PROMPT)
            while line.rstrip("\n").endswith("\\"):
                line = line.rstrip("\n")[:-1] + read(MORE)
        except EOFError:
            print()
            return 0
        except KeyboardInterrupt:
            print()
            continue
        words = line.split()
        if words[:1] in (["quit"], ["exit"]):
            return 0
        if not words:
            continue
        try:
            if _is_monitor(line):
                monitor(runner, line, options)
            else:
                run_text(runner, line, options)
        except Exception as problem:
            print(f"Error: {problem}", file=sys.stderr)


def _reader(completer: Completer) -> Callable[[str], str]:
    if not sys.stdin.isatty():
        return _plain
    try:
        return _prompt_toolkit(completer)
    except ImportError:
        return _readline(completer)


def _plain(prompt: str) -> str:
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line


def _prompt_toolkit(completer: Completer) -> Callable[[str], str]:
    completion: Any = import_module("prompt_toolkit.completion")
    history: Any = import_module("prompt_toolkit.history").FileHistory(os.path.expanduser(HISTORY))

    def get_completions(self: Any, document: Any, event: Any) -> Iterable[Any]:
        start = document.get_word_before_cursor(WORD=True)
        for word in completer.words(document.text_before_cursor):
            if word.startswith(start):
                yield completion.Completion(word, -len(start))

    words = type("Words", (completion.Completer,), {"get_completions": get_completions})()
    toolkit: Any = import_module("prompt_toolkit")
    session = toolkit.PromptSession(history=history, completer=words, complete_while_typing=False)
    return lambda prompt: str(session.prompt(prompt))


def _readline(completer: Completer) -> Callable[[str], str]:
    import atexit
    import readline
    import signal
    import threading

    history = Path(HISTORY).expanduser()
    if history.exists():
        readline.read_history_file(history)
    readline.set_history_length(HISTORY_LENGTH)
    atexit.register(readline.write_history_file, history)

    def complete(text: str, state: int) -> str | None:
        try:
            found = [word + " " for word in completer.words(readline.get_line_buffer()) if word.startswith(text)]
        except KeyboardInterrupt:  # readline would swallow it; let it come again when it waits for a key
            threading.Timer(AGAIN_S, os.kill, (os.getpid(), signal.SIGINT)).start()
            return None
        return found[state] if state < len(found) else None

    readline.set_completer(complete)
    readline.set_completer_delims(" \t\n")
    readline.parse_and_bind("tab: complete")
    return input
