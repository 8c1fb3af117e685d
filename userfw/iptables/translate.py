"""Command lines to nft commands, as iptables-translate prints them.

Laws: a rule without a translation is printed as a comment with its own arguments, the message goes to standard error, and the
exit status is 1. In iptables-restore's files such rules are comments too, and the status stays 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product

from userfw.iptables.command import Command, parse
from userfw.iptables.errors import UsageError
from userfw.iptables.extension import Rule
from userfw.iptables.family import Family
from userfw.iptables.render import rule_words, sayable
from userfw.iptables.values import Names

_ONE_LINE = str.maketrans(dict.fromkeys("\n\r\v\f", " "))
Pair = tuple[int, int]
NOT_IMPLEMENTED = "Translation not (fully) implemented\n"


@dataclass
class Result:
    """What a program prints, and its exit status."""

    output: str = ""
    errors: str = ""
    status: int = 0


@dataclass
class Translator:
    """Translates commands of one family; sets that rules make are numbered over its life."""

    family: Family
    names: Names = field(default_factory=Names)
    meters: int = 0

    def lines(self, command: Command) -> list[str] | None:
        """The nft commands of one command, None without a translation."""
        table = f"{self.family.name} {command.table}"
        chain = f"{table} {command.chain}"
        match command.letter:
            case "A" | "I":
                return self._rule(command, table)
            case "F":
                return [f"flush chain {chain}" if command.chain else f"flush table {table}"]
            case "N":
                return [f"add chain {chain}"]
            case "X":
                return [f"delete chain {chain}"] if command.chain else None
            case "L":
                return [f"list table {table}"]
            case _:
                return None

    def _rule(self, command: Command, table: str) -> list[str] | None:
        rule = command.rule
        if rule.fields.get("other", (False, False))[0]:
            return []  # -4 in ip6tables and the like: the rule is for the other program
        verb = "add" if command.letter == "A" else "insert"
        place = f" index {command.number}" if command.letter == "I" and command.number > 1 else ""
        lines: list[str] = []
        if not sayable(rule, command.chain):
            return None
        sources: Sequence[Pair | None] = rule.sources or [None]
        destinations: Sequence[Pair | None] = rule.destinations or [None]
        for source, destination in product(sources, destinations):
            words = self._words(rule, source, destination)
            if words is None:
                return None
            lines += [f"add set {table} {declaration}" for declaration in rule.sets]
            lines.append(f"{verb} rule {table} {command.chain}{place} {' '.join(words)}")
        return lines

    def _words(self, rule: Rule, source: Pair | None, destination: Pair | None) -> list[str] | None:
        rule.sets = []
        rule.meters = self.meters
        words = rule_words(rule, source, destination)
        self.meters += len(rule.sets)
        return words


def translate(family: Family, argv: Sequence[str], names: Names | None = None) -> Result:
    """Run PROGRAM-translate with these arguments; UsageError is for the caller to word."""
    translator = Translator(family, names or Names())
    command = parse(family, argv, names)
    lines = translator.lines(command)
    if lines is None:
        shown = commented(argv) if command.letter in "AI" else ""
        return Result(f"nft {shown}\n" if shown else "", NOT_IMPLEMENTED, 1)
    quote = shell_quoted if command.letter in "AI" else str
    return Result("".join(f"nft {quote(line)}\n" for line in lines))


def commented(argv: Sequence[str]) -> str:
    """The arguments as a comment of one line."""
    return "# " + "".join(f"{word} " for word in argv).translate(_ONE_LINE)


def shell_quoted(line: str) -> str:
    """The line in single quotes, as one word of a shell."""
    return "'" + line.replace("'", "'\\''") + "'"


# --- iptables-restore's files

_HOOKS = ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING")
_PRIORITY = {"raw": -300, "mangle": -150, "security": 50}


class RestoreError(UsageError):
    """An error at a line of the file; ``line`` counts from 1."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


def restore(family: Family, text: str, names: Names | None = None) -> Iterator[str]:
    """The nft lines of a file that iptables-save wrote; raises RestoreError."""
    translator = Translator(family, names or Names())
    table = ""
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        try:
            if line.startswith("*"):
                table = line[1:].strip()
                if table not in family.tables:
                    raise UsageError(f"table '{table}' does not exist")
                yield f"add table {family.name} {table}"
            elif not table:
                raise UsageError(f"line {number} failed: no table")
            elif line == "COMMIT":
                table = ""
            elif line.startswith(":"):
                yield _chain(family, table, line[1:].split())
            else:
                yield from _restored_rule(translator, table, line)
        except UsageError as problem:
            raise RestoreError(str(problem), number) from None


def _chain(family: Family, table: str, words: list[str]) -> str:
    """A chain's line: a base chain if it has a policy."""
    if len(words) < 2:
        raise UsageError("policy invalid" if words else "chain name invalid")
    name, policy = words[:2]
    head = f"add chain {family.name} {table} {name}"
    if policy == "-" or name not in _HOOKS:
        return head
    if policy not in ("ACCEPT", "DROP"):
        raise UsageError("invalid policy name")
    kind = "nat" if table == "nat" else "route" if (table, name) == ("mangle", "OUTPUT") else "filter"
    priority = _PRIORITY.get(table, 0)
    if table == "nat":
        priority = -100 if name in ("PREROUTING", "OUTPUT") else 100
    return f"{head} {{ type {kind} hook {name.lower()} priority {priority}; policy {policy.lower()}; }}"


def _restored_rule(translator: Translator, table: str, line: str) -> Iterator[str]:
    if line.startswith("["):
        counters, bracket, line = line[1:].partition("]")
        packets, colon, octets = counters.partition(":")
        if not (bracket and colon and packets.isdecimal() and octets.isdecimal()):
            raise UsageError("invalid counters")
    words = split(line.strip())
    if any(word in ("-t", "--table") for word in words):
        raise UsageError("The -t option cannot be used in iptables-restore.")
    lines = translator.lines(parse(translator.family, words, translator.names, table))
    if lines is None:
        yield commented(["-t", table, *words])
    else:
        yield from lines


def split(line: str) -> list[str]:
    """Words of a line, with double quotes around words and a backslash before a quote."""
    words: list[str] = []
    word: list[str] = []
    quoted = begun = escaped = False
    for char in line:
        if quoted:
            if escaped:
                word.append(char)
                escaped = False
            elif char == "\\":
                escaped = True
            elif char == '"':
                quoted = False
            else:
                word.append(char)
        elif char == '"':
            quoted = begun = True
        elif char in " \t":
            if begun:
                words.append("".join(word))
                word, begun = [], False
        else:
            word.append(char)
            begun = True
    if quoted:
        raise UsageError("unterminated quote")
    if begun:
        words.append("".join(word))
    return words
