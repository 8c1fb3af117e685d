"""Command lines to nft commands, as iptables-translate prints them.

Laws: a rule without a translation is printed as a comment with its own arguments, the message and the part that nft has no
words for go to standard error, and the exit status is 1. In iptables-restore's files such rules are comments too, each is told
with its line, and the status stays 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product

from userfw.iptables.command import Command, parse
from userfw.iptables.errors import UsageError
from userfw.iptables.extension import Rule
from userfw.iptables.family import Family
from userfw.iptables.render import either, lacking, rule_words, sayable
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
    lacking: str = ""  # why the last rule has no translation

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
        self.lacking = lacking(rule, command.chain)
        if not sayable(rule, command.chain):
            return None
        sources: Sequence[Pair | None] = rule.sources or [None]
        destinations: Sequence[Pair | None] = rule.destinations or [None]
        for source, destination, half in product(sources, destinations, (1, 2) if either(rule) else (0,)):
            rule.half = half
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
        reason = f"{translator.lacking}\n" if translator.lacking else ""
        return Result(f"nft {shown}\n" if shown else "", NOT_IMPLEMENTED + reason, 1)
    quote = shell_quoted if command.letter in "AI" else str
    return Result("".join(f"nft {quote(line)}\n" for line in lines))


def commented(argv: Sequence[str]) -> str:
    """The arguments as a comment of one line."""
    return "# " + "".join(f"{word} " for word in argv).translate(_ONE_LINE)


def shell_quoted(line: str) -> str:
    """The line in single quotes, as one word of a shell."""
    return "'" + line.replace("'", "'\\''") + "'"


# --- iptables-restore's files

_PRIORITY = {"raw": -300, "mangle": -150, "security": 50}
_BRIDGE_PRIORITY = {"PREROUTING": -300, "OUTPUT": 100, "POSTROUTING": 300}  # of the table nat; -200 in filter
_VERDICTS = ("ACCEPT", "DROP", "RETURN", "QUEUE", "CONTINUE")


class RestoreError(UsageError):
    """An error at a line of the file; ``line`` counts from 1."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


@dataclass
class Restore:
    """One run over a saved file. ``notes``: what was not translated, and why."""

    family: Family
    names: Names = field(default_factory=Names)
    notes: list[str] = field(default_factory=list)
    table: str = ""
    chains: set[str] = field(default_factory=set)
    tails: list[str] = field(default_factory=list)  # last rules of chains whose policy nft has no place for

    def lines(self, text: str) -> Iterator[str]:
        """The nft lines of a file that iptables-save wrote; raises RestoreError."""
        translator = Translator(self.family, self.names)
        for number, raw in enumerate(text.split("\n"), 1):
            line = raw.strip()
            if not line or line.startswith("#"):
                continue
            try:
                yield from self._line(translator, line, number)
            except UsageError as problem:
                raise RestoreError(str(problem), number) from None

    def _line(self, translator: Translator, line: str, number: int) -> Iterator[str]:
        if line.startswith("*"):
            self.table = line[1:].strip()
            self.chains, self.tails = set(), []
            if self.table not in self.family.tables:
                raise UsageError(f"table '{self.table}' does not exist")
            if self.table == "broute":
                raise UsageError("the table broute has no counterpart in nft: see `meta broute set 1`")
            yield f"add table {self.family.name} {self.table}"
        elif not self.table:
            raise UsageError(f"line {number} failed: no table")
        elif line == "COMMIT":
            yield from self.tails
            self.table, self.tails = "", []
        elif line.startswith(":"):
            yield self._chain(line[1:].split())
        else:
            yield from self._rule(translator, line, number)

    def _chain(self, words: list[str]) -> str:
        """A chain's line: a base chain if it is one of the hooks and has a policy."""
        if len(words) < 2:
            raise UsageError("policy invalid" if words else "chain name invalid")
        name, policy = words[:2]
        self.chains.add(name)
        head = f"add chain {self.family.name} {self.table} {name}"
        if policy == "-":
            return head
        if name not in self.family.hooks:
            if self.family.preloaded and policy in ("ACCEPT", "DROP"):
                self.tails.append(f"add rule {self.family.name} {self.table} {name} {policy.lower()}")
            return head
        if policy not in ("ACCEPT", "DROP"):
            raise UsageError("invalid policy name")
        kind, priority = self._place(name)
        return f"{head} {{ type {kind} hook {name.lower()} priority {priority}; policy {policy.lower()}; }}"

    def _place(self, name: str) -> tuple[str, int]:
        """A base chain's type and priority."""
        if self.family.preloaded:
            return "filter", _BRIDGE_PRIORITY.get(name, 0) if self.table == "nat" else -200
        if not self.family.protocol:
            return "filter", 0
        if self.table == "nat":
            return "nat", -100 if name in ("PREROUTING", "OUTPUT") else 100
        return "route" if (self.table, name) == ("mangle", "OUTPUT") else "filter", _PRIORITY.get(self.table, 0)

    def _rule(self, translator: Translator, line: str, number: int) -> Iterator[str]:
        if line.startswith("["):
            counters, bracket, line = line[1:].partition("]")
            packets, colon, octets = counters.partition(":")
            if not (bracket and colon and packets.isdecimal() and octets.isdecimal()):
                raise UsageError("invalid counters")
        words = split(line.strip())
        if any(word in ("-t", "--table") for word in words):
            raise UsageError("The -t option cannot be used in iptables-restore.")
        command = parse(self.family, words, self.names, self.table)
        rule = command.rule
        if rule.jump and rule.target is None and rule.jump not in (*_VERDICTS, *self.chains) and command.letter in "AIR":
            self.notes.append(f"line {number}: the file has no chain {rule.jump}; no such target is known either")
        if command.letter == "N":
            self.chains.add(command.chain)
        lines = translator.lines(command)
        if lines is None:
            self.notes.append(f"line {number}: {translator.lacking or 'no translation'}")
            yield commented(["-t", self.table, *words])
        else:
            yield from lines


def restore(family: Family, text: str, names: Names | None = None, notes: list[str] | None = None) -> Iterator[str]:
    """The nft lines of a file that iptables-save wrote; raises RestoreError. ``notes`` gets a line for what has no translation."""
    return Restore(family, names or Names(), [] if notes is None else notes).lines(text)


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
