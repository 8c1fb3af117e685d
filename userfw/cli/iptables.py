"""`userfw iptables-translate` and its kin: iptables command lines and saved rules as nft commands.

Laws: arguments in, text out; rules are neither read nor changed, no daemon is asked. Exit status 0, 1 without a translation or
file, 2 for a wrong command line, with iptables' own messages.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TextIO

from userfw.iptables.errors import VERSION, UsageError
from userfw.iptables.family import FAMILIES, Family
from userfw.iptables.translate import RestoreError, restore, translate
from userfw.iptables.values import Names

_HELP = """\
Usage: userfw {name} -[AI] chain rule-specification [options]
       userfw {name} -[FLX] [chain] [options]
       userfw {name} -N chain [options]

Prints the nft command for a command line of {program}: see {program}(8), iptables-translate(8).
"""
_RESTORE_HELP = """\
Usage: userfw {name} [-h] [-f <FILE>] [-V]
	[ --help ]
	[ --file=<FILE> ]
	[ --version ]
"""


def main(name: str, argv: list[str]) -> int:
    """Run one of ``userfw.cli.main.TRANSLATORS``; its exit status."""
    family = FAMILIES[name.partition("-")[0]]
    try:
        if argv and argv[0] in ("-V", "--version"):
            print(f"{name} v{VERSION} (nf_tables)")
            return 0
        if "restore" in name:
            return _restore(name, family, argv)
        if argv and argv[0] in ("-h", "--help"):
            print(_HELP.format(name=name, program=family.program), end="")
            return 0
        result = translate(family, argv, _names())
        _say(result.output)
        sys.stderr.write(result.errors)
        return result.status
    except UsageError as problem:
        text = str(problem).rstrip("\n")
        _say(f"{name} v{VERSION} (nf_tables): {text}\n", sys.stderr)
        if isinstance(problem, RestoreError):
            sys.stderr.write(f"Error occurred at line: {problem.line}\n")
        sys.stderr.write(f"Try `{name} -h' or '{name} --help' for more information.\n")
        return 2


def _say(text: str, stream: TextIO | None = None) -> None:
    """Write text that may hold octets of the command line that are no characters."""
    (stream or sys.stdout).write(text.encode(errors="surrogateescape").decode(errors="replace"))


def _names() -> Names:
    """Users and groups of this system."""
    import grp
    import pwd

    def user(name: str) -> int | None:
        try:
            return pwd.getpwnam(name).pw_uid
        except (KeyError, ValueError):
            return None

    def group(name: str) -> int | None:
        try:
            return grp.getgrnam(name).gr_gid
        except (KeyError, ValueError):
            return None

    return Names(user, group)


def _restore(name: str, family: Family, argv: list[str]) -> int:
    path = None
    words = list(argv)
    while words:
        word = words.pop(0)
        if word in ("-h", "--help"):
            print(_RESTORE_HELP.format(name=name), end="")
            return 0
        if word in ("-f", "--file"):
            path = words.pop(0) if words else None
        elif word.startswith("--file="):
            path = word.removeprefix("--file=")
        elif word.startswith("-f"):
            path = word[2:]
    if path is None:
        sys.stderr.write("ERROR: missing file name\n" + _RESTORE_HELP.format(name=name))
        return 1
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text(errors="surrogateescape")
    except OSError:
        sys.stderr.write(f"Cannot open file {path}\n")
        return 1
    now = time.ctime()
    print(f"# Translated by {name} v{VERSION} on {now}")
    notes: list[str] = []
    for line in restore(family, text, _names(), notes):
        _say(line + "\n")
    _say("".join(f"{name}: {note}\n" for note in notes), sys.stderr)
    print(f"# Completed on {now}")
    return 0
