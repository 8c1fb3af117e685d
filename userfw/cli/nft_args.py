"""The command line of `userfw nft`: nft's own options, and a few of userfw's. No imports of the language: `--help` is quick."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

NFT_VERSION = "1.1.6"

_FLAGS = {
    "c": "check", "o": "optimize", "a": "handle", "s": "stateless", "t": "terse", "S": "service", "N": "reversedns",
    "u": "guid", "n": "numeric", "y": "numeric-priority", "p": "numeric-protocol", "T": "numeric-time", "e": "echo",
    "j": "json", "i": "interactive", "h": "help", "v": "version", "V": "long-version",
}  # fmt: skip
_VALUES = {"f": "file", "D": "define", "I": "includepath", "d": "debug"}
_LONG_ONLY = ("private", "socket")
_LONG = {name: letter for letter, name in {**_FLAGS, **_VALUES}.items() if name != "long-version"}
DEBUG_LEVELS = ("scanner", "parser", "eval", "netlink", "mnl", "proto-ctx", "segtree", "all")

_OPTION_OF = {
    "check": "check", "optimize": "optimize", "handle": "handles", "stateless": "stateless", "terse": "terse",
    "service": "service", "reversedns": "reversedns", "guid": "guid", "numeric": "numeric",
    "numeric-priority": "numeric_priority", "numeric-protocol": "numeric_protocol", "numeric-time": "numeric_time",
    "echo": "echo", "json": "json",
}  # fmt: skip

HELP = """\
Usage: userfw nft [ options ] [ cmds... ]

Options (general):
  -h, --help                      Show this help
  -v, --version                   Show version information
  -V                              Show extended version information
      --private                   Use an empty ruleset of this process instead of the daemon's
      --socket PATH               The daemon's control socket (default: $USERFW_SOCKET or /run/userfw/control.sock)

Options (ruleset input handling):
  -f, --file <filename>           Read input from <filename>
  -D, --define <name=value>       Define variable, e.g. --define foo=1.2.3.4
  -i, --interactive               Read input from interactive CLI
  -I, --includepath <directory>   Add <directory> to the paths searched for include files. Default is: /etc
  -c, --check                     Check commands validity without actually applying the changes.
  -o, --optimize                  Optimize ruleset

Options (ruleset list formatting):
  -a, --handle                    Output rule handle.
  -s, --stateless                 Omit stateful information of ruleset.
  -t, --terse                     Omit contents of sets.
  -S, --service                   Translate ports to service names as described in /etc/services.
  -N, --reversedns                Translate IP addresses to names.
  -u, --guid                      Print UID/GID as defined in /etc/passwd and /etc/group.
  -n, --numeric                   Print fully numerical output.
  -y, --numeric-priority          Print chain priority numerically.
  -p, --numeric-protocol          Print layer 4 protocols numerically.
  -T, --numeric-time              Print time values numerically.

Options (command output formatting):
  -e, --echo                      Echo what has been added, inserted or replaced.
  -j, --json                      Format output in JSON
  -d, --debug <level [,level...]> Specify debugging level (scanner, parser, eval, netlink, mnl, proto-ctx, segtree, all)
"""


class UsageError(Exception):
    """A command line that nft does not understand. `told` is false when the help says it all."""


@dataclass
class Arguments:
    """What was asked for. `settings` are fields of ruleset.options.Options."""

    settings: dict[str, Any] = field(default_factory=dict)
    action: str = ""
    file: str | None = None
    defines: list[tuple[str, str]] = field(default_factory=list)
    include_path: list[str] = field(default_factory=list)
    debug: list[str] = field(default_factory=list)
    private: bool = False
    socket: str | None = None
    command: str = ""


def parse(argv: list[str]) -> Arguments:
    """Read the command line. Options come before commands, as nft demands. UsageError says what is wrong."""
    arguments = Arguments()
    at = 0
    while at < len(argv):
        word = argv[at]
        if word == "--":
            at += 1
            break
        if not word.startswith("-") or word == "-":
            break
        at = _long(arguments, argv, at) if word.startswith("--") else _short(arguments, argv, at)
    rest = argv[at:]
    if arguments.action == "":
        _check_rest(arguments, rest)
    arguments.command = " ".join(rest)
    return arguments


def _check_rest(arguments: Arguments, rest: list[str]) -> None:
    for word in rest:
        if word.startswith("-") and len(word) > 1 and (word[1:2].isalpha() or word.startswith("--")):
            if word.lstrip("-") in _LONG or (len(word) == 2 and word[1] in {**_FLAGS, **_VALUES}):
                raise UsageError("Error: syntax error, options must be specified before commands\n" + _caret(rest, word))
    if arguments.defines and arguments.file is None:
        raise UsageError("Error: -D/--define can only be used with -f/--filename")


def _caret(rest: list[str], word: str) -> str:
    line = "userfw nft " + " ".join(rest)
    return f"{line}\n{' ' * line.index(' ' + word).__add__(1)}{'~' * len(word)}"


def _short(arguments: Arguments, argv: list[str], at: int) -> int:
    """`-an`, `-ffile`, `-f file`; returns the index of the next word."""
    word = argv[at]
    position = 1
    while position < len(word):
        letter = word[position]
        position += 1
        if letter in _FLAGS:
            _flag(arguments, _FLAGS[letter])
        elif letter in _VALUES:
            value = word[position:]
            if not value:
                at += 1
                if at >= len(argv):
                    raise UsageError(f"userfw nft: option requires an argument -- '{letter}'")
                value = argv[at]
            _value(arguments, _VALUES[letter], value)
            break
        else:
            raise UsageError(f"userfw nft: invalid option -- '{letter}'")
    return at + 1


def _long(arguments: Arguments, argv: list[str], at: int) -> int:
    """`--file=x`, `--file x`, unique abbreviations; returns the index of the next word."""
    name, equals, value = argv[at][2:].partition("=")
    known = [*_LONG, *_LONG_ONLY]
    found = [name] if name in known else [entry for entry in known if entry.startswith(name)]
    if len(found) != 1:
        what = "unrecognized option" if not found else "ambiguous option"
        raise UsageError(f"userfw nft: {what} '--{name}'")
    name = found[0]
    if name in _VALUES.values() or name == "socket":
        if not equals:
            at += 1
            if at >= len(argv):
                raise UsageError(f"userfw nft: option '--{name}' requires an argument")
            value = argv[at]
        _value(arguments, name, value)
    elif equals:
        raise UsageError(f"userfw nft: option '--{name}' doesn't allow an argument")
    else:
        _flag(arguments, name)
    return at + 1


def _flag(arguments: Arguments, name: str) -> None:
    if name in _OPTION_OF:
        arguments.settings[_OPTION_OF[name]] = True
    elif name == "private":
        arguments.private = True
    elif not arguments.action or name in ("help", "version", "long-version"):
        arguments.action = name


def _value(arguments: Arguments, name: str, value: str) -> None:
    if name == "file":
        arguments.file = value
    elif name == "includepath":
        if not value:
            raise UsageError("Failed to add include path ''")
        arguments.include_path.append(value)
    elif name == "socket":
        arguments.socket = value
    elif name == "define":
        key, equals, text = value.partition("=")
        if not equals or not key:
            raise UsageError(f"Failed to define variable '{value}'")
        arguments.defines.append((key, text))
    else:
        for level in value.split(","):
            if level not in DEBUG_LEVELS:
                raise UsageError(f"invalid debug parameter `{level}'")
            arguments.debug.append(level)
