"""`userfw nft`: nft's options and commands, against the daemon's ruleset or a private one.

Laws:
- Exit status 0 if all went well, 1 on any error, 3 without a daemon (nft: without a netlink socket); messages of the ruleset go to
  standard error as nft words them.
- Nothing heavy is imported before it is known to be needed: `--help` and errors of the command line answer at once.
- Without a daemon, `-c -f file` checks against an empty ruleset in this process, and `--private` works on one.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from userfw.cli import nft_args
from userfw.cli.nft_args import Arguments, UsageError

if TYPE_CHECKING:
    from userfw.client.runner import Runner
    from userfw.ruleset.options import Options


def main(argv: list[str] | None = None) -> int:
    """Run `userfw nft` with these arguments; the exit status."""
    try:
        arguments = nft_args.parse(sys.argv[1:] if argv is None else argv)
    except UsageError as problem:
        print(problem, file=sys.stderr)
        return 1
    if arguments.action in _TEXTS:
        sys.stdout.write(_TEXTS[arguments.action]())
        return 0
    if arguments.action != "interactive" and arguments.file is None and not arguments.command:
        sys.stderr.write(nft_args.HELP)
        return 1
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _version() -> str:
    from userfw import __version__

    return f"nftables v{nft_args.NFT_VERSION} (userfw {__version__})\n"


def _long_version() -> str:
    from importlib.util import find_spec

    editor = "prompt_toolkit" if find_spec("prompt_toolkit") else "readline" if find_spec("readline") else "no"
    return f"{_version()}  cli:\t\t{editor}\n  json:\t\tyes\n  minigmp:\tno\n  libxtables:\tno\n"


_TEXTS = {"help": lambda: nft_args.HELP, "version": _version, "long-version": _long_version}


def _run(arguments: Arguments) -> int:
    from userfw.client.control import ControlError
    from userfw.client.runner import open_runner

    text, options = _input(arguments)
    if text is None:
        return 1
    try:
        with open_runner(arguments.socket, private=arguments.private, check_only=options.check) as runner:
            if arguments.action == "interactive":
                from userfw.cli.nft_interactive import interactive

                return interactive(runner, options)
            if _is_monitor(text):
                return monitor(runner, text, options)
            return run_text(runner, text, options)
    except ControlError as problem:
        print(f"Error: {problem}", file=sys.stderr)
        return 3 if problem.code == "connection" else 1


def _input(arguments: Arguments) -> tuple[str | None, Options]:
    """The text to run and how; None after a message if the file cannot be read."""
    from userfw.ruleset.options import Options

    name = ""
    text = arguments.command
    include_path = [*arguments.include_path, "/etc"]
    problem = ""
    if arguments.file is not None and arguments.action != "interactive":
        name, text, problem = _read(arguments.file)
        if name != "/dev/stdin":
            include_path.insert(0, os.path.dirname(name) or ".")
    options = Options(
        filename=name, include_path=tuple(include_path), defines=tuple(arguments.defines), debug=tuple(arguments.debug),
        pid=os.getpid(), process="nft", **arguments.settings,
    )  # fmt: skip
    if problem:
        print(problem, file=sys.stderr)
        return None, options
    return text, options


def _read(path: str) -> tuple[str, str, str]:
    """(name, text, error) of an input file; `-` is standard input."""
    if path in ("-", "/dev/stdin"):
        return "/dev/stdin", sys.stdin.read(), ""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return path, file.read(), ""
    except OSError as error:
        return path, "", f'Error: Could not open file "{path}": {error.strerror}\n'


def run_text(runner: Runner, text: str, options: Options) -> int:
    """Run commands and print what they give."""
    answer = runner.run(text, options)
    sys.stdout.write(answer.output)
    sys.stdout.flush()
    sys.stderr.write(answer.errors)
    return 1 if answer.status else 0


def _is_monitor(text: str) -> bool:
    words = text.split(maxsplit=1)
    return bool(words) and words[0] == "monitor"


def monitor(runner: Runner, text: str, options: Options) -> int:
    """Print events until interrupted."""
    from dataclasses import replace

    from userfw.nft.location import NftErrors
    from userfw.nft.syntax import MonitorSpec
    from userfw.ruleset.inputs import parse_text
    from userfw.ruleset.manager import render

    try:
        commands = parse_text(text, options)
    except NftErrors as problems:
        sys.stderr.write("".join(render(problem) + "\n" for problem in problems.errors))
        return 1
    spec = commands[0].node
    assert isinstance(spec, MonitorSpec)
    if spec.objects == "trace":
        options = replace(options, json=False)  # nft has no other form of a trace than text
    elif spec.format == "json":
        options = replace(options, json=True)
    try:
        for line in runner.monitor(spec.event, spec.objects, options):
            sys.stdout.write(line)
            sys.stdout.flush()
    except KeyboardInterrupt:
        return 0
    return 0
