"""A command line of iptables, ip6tables, ebtables or arptables to a ``Command``.

Laws: options are read as getopt_long reads them: in order, long ones may be shortened while they stay unique, the options of
an extension become known when it is loaded (-m, -j) or implied by -p, the newest first. ``!`` may stand before an option or
before its argument. Whatever is wrong raises ``UsageError``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from userfw.iptables.bridge import ethertype
from userfw.iptables.errors import UsageError
from userfw.iptables.extension import Extension, Given, Option, Rule, Use
from userfw.iptables.family import Family
from userfw.iptables.registry import find_match, find_target, preloaded
from userfw.iptables.values import Bad, Context, Names, bare_hex, integer, mac, network, protocol, protocol_text

STANDARD = ("ACCEPT", "DROP", "RETURN", "QUEUE", "CONTINUE")
MAX_NAME = 28  # of a chain: XT_EXTENSION_MAXNAMELEN
IFNAMSIZ = 16


@dataclass
class Command:
    """What is to be done: one letter, its operands, and the rule."""

    letter: str = ""
    table: str = "filter"
    chain: str = ""
    number: int = 0
    operand: str = ""
    rule: Rule = field(default_factory=lambda: Rule(Family("", "", ())))


@dataclass(frozen=True)
class Global:
    """An option that every rule has: its letter, long names, number of arguments, and who it is for."""

    letter: str
    names: tuple[str, ...]
    arguments: int = 0
    invert: bool = False
    programs: str = "iptables ip6tables arptables ebtables"

    def serves(self, family: Family) -> bool:
        return family.program in self.programs.split()


_IP = "iptables ip6tables"
_NOT_EB = "iptables ip6tables arptables"
# commands: letter, long name, least and most operands
COMMANDS = {
    "A": ("append", 1, 1), "D": ("delete", 1, 2), "C": ("check", 1, 1), "I": ("insert", 1, 2), "R": ("replace", 2, 2),
    "L": ("list", 0, 2), "S": ("list-rules", 0, 2), "F": ("flush", 0, 1), "Z": ("zero", 0, 2), "N": ("new-chain", 1, 1),
    "X": ("delete-chain", 0, 1), "P": ("policy", 2, 2), "E": ("rename-chain", 2, 2),
}  # fmt: skip
GLOBALS = (
    Global("p", ("protocol",), 1, True, _IP),
    Global("p", ("protocol", "proto"), 1, True, "ebtables"),
    Global("s", ("source", "src"), 1, True),
    Global("d", ("destination", "dst"), 1, True),
    Global("i", ("in-interface", "in-if"), 1, True),
    Global("o", ("out-interface", "out-if"), 1, True),
    Global("", ("logical-in",), 1, True, "ebtables"),
    Global("", ("logical-out",), 1, True, "ebtables"),
    Global("j", ("jump",), 1),
    Global("g", ("goto",), 1, False, _IP),
    Global("m", ("match",), 1, False, _NOT_EB),
    Global("t", ("table",), 1),
    Global("f", ("fragments",), 0, True, "iptables"),
    Global("c", ("set-counters",), -2),
    Global("v", ("verbose",)),
    Global("n", ("numeric",)),
    Global("x", ("exact",)),
    Global("w", ("wait",), -1, False, _IP),
    Global("W", ("wait-interval",), -1, False, _IP),
    Global("4", ("ipv4",), 0, False, _IP),
    Global("6", ("ipv6",), 0, False, _IP),
    Global("M", ("modprobe",), 1),
    Global("", ("line-numbers",)),
    Global("", ("concurrent",), 0, False, "ebtables"),
    Global("l", ("h-length",), 1, True, "arptables"),
    Global("", ("source-mac", "src-mac"), 1, True, "arptables"),
    Global("", ("destination-mac", "dst-mac"), 1, True, "arptables"),
    Global("", ("opcode",), 1, True, "arptables"),
    Global("", ("h-type",), 1, True, "arptables"),
    Global("", ("proto-type",), 1, True, "arptables"),
)
ARP_OPCODES = ("Request", "Reply", "Request_Reverse", "Reply_Reverse", "DRARP_Request", "DRARP_Reply", "DRARP_Error",
               "InARP_Request", "ARP_NAK")  # fmt: skip
MAC_NAMES = {
    "unicast": "00:00:00:00:00:00/01:00:00:00:00:00", "multicast": "01:00:00:00:00:00/01:00:00:00:00:00",
    "broadcast": "ff:ff:ff:ff:ff:ff", "bga": "01:80:c2:00:00:00",
}  # fmt: skip


def parse(family: Family, argv: Sequence[str], names: Names | None = None, table: str = "filter") -> Command:
    """Read the arguments after the program's name; raises UsageError."""
    return CommandParser(family, list(argv), names or Names(), table).run()


class CommandParser:
    """Reads one command line from left to right."""

    def __init__(self, family: Family, argv: list[str], names: Names, table: str) -> None:
        self.family = family
        self.argv = argv
        self.at = 0
        self.negated = False
        self.context = Context(family, names)
        self.command = Command(table=table)
        self.rule = self.command.rule = Rule(family, names=names)
        self.loaded: list[Use] = []  # newest first
        self.implied = False
        self.dormant = [Use(row) for row in preloaded(family)]
        self.globals: dict[str, Global | str] = {}
        self.letters: dict[str, Global | str] = {}
        for option in GLOBALS:
            if option.serves(family):
                self.globals.update(dict.fromkeys(option.names, option))
                if option.letter:
                    self.letters[option.letter] = option
        for letter, (name, _, _) in COMMANDS.items():
            self.globals[name] = letter
            self.letters[letter] = letter

    def run(self) -> Command:
        while self.at < len(self.argv):
            word = self.argv[self.at]
            self.at += 1
            if word == "!":
                if self.negated:
                    raise UsageError("multiple consecutive ! not allowed")
                self.negated = True
                continue
            if word.startswith("--") and len(word) > 2:
                self._long(word[2:])
            elif word.startswith("-") and len(word) > 1:
                self._short(word[1:])
            else:
                raise UsageError(f"Bad argument `{word}'")
            if self.negated:
                raise UsageError("unexpected ! flag before --" + word.lstrip("-"))
        self._finish()
        return self.command

    # --- words

    def _next(self, name: str) -> str:
        """The argument of an option, with a ``!`` before it taken as its inversion."""
        if self.at < len(self.argv) and self.argv[self.at] == "!" and not self.negated:
            self.negated = True
            self.at += 1
        if self.at >= len(self.argv):
            raise UsageError(f'option "--{name}" requires an argument')
        self.at += 1
        return self.argv[self.at - 1]

    def _operand(self) -> str | None:
        """A further argument if there is one that is no option."""
        if self.at < len(self.argv) and not self.argv[self.at].startswith("-") and self.argv[self.at] != "!":
            self.at += 1
            return self.argv[self.at - 1]
        return None

    def _invert(self, name: str, allowed: bool = True) -> bool:
        inverted, self.negated = self.negated, False
        if inverted and not allowed:
            raise UsageError(f'option "{name}" cannot be inverted')
        return inverted

    # --- options

    def _short(self, text: str) -> None:
        letter, rest = text[0], text[1:]
        found = self.letters.get(letter)
        if found is None:
            raise UsageError(f'unknown option "-{letter}"')
        takes = 1 if isinstance(found, str) else found.arguments
        if rest and takes:
            self.argv.insert(self.at, rest)
        elif rest:
            self.argv.insert(self.at, "-" + rest)
        self._take(found, letter)

    def _long(self, text: str) -> None:
        name, equals, value = text.partition("=")
        found = self._find(name)
        if equals:
            self.argv.insert(self.at, value)
        if isinstance(found, tuple):
            self._extension_option(*found)
        else:
            self._take(found, name)

    def _find(self, name: str) -> Global | str | tuple[Use, Option]:
        """The option of this name or unique beginning; loads the match that -p implies if that has it."""
        while True:
            exact: list[Any] = []
            begun: dict[int, Any] = {}
            for use in [*self.loaded, *self.dormant]:
                for option in use.extension.options:
                    for known in (option.name, *option.aliases):
                        if known == name:
                            exact.append((use, option))
                        elif known.startswith(name):
                            begun[id(option)] = (use, option)
            for known, option_ in self.globals.items():
                if known == name:
                    exact.append(option_)
                elif known.startswith(name):
                    begun[id(option_)] = option_
            if exact:
                return exact[0]  # type: ignore[no-any-return]
            if len(begun) == 1:
                return next(iter(begun.values()))  # type: ignore[no-any-return]
            if len(begun) > 1:
                raise UsageError(f"option `--{name}' is ambiguous")
            if not self._imply():
                raise UsageError(f'unknown option "--{name}"')

    def _imply(self) -> bool:
        """Load the match named like the protocol, once."""
        if self.implied or self.rule.protocol is None:
            return False
        self.implied = True
        row = find_match(self.family, protocol_text(self.rule.protocol)) or find_match(self.family, self.rule.protocol_name)
        if row is None or any(use.extension is row for use in self.loaded):
            return False
        self._load(row)
        return True

    def _load(self, row: Extension) -> Use:
        use = Use(row)
        self.loaded.insert(0, use)
        self.rule.matches.append(use)
        return use

    def _extension_option(self, use: Use, option: Option) -> None:
        owner = use.extension.name
        words = [self._next(option.name) for _ in range(option.kind.arguments)]
        if option.kind.arguments < 0 and (word := self._operand()) is not None:
            words = [word]
        inverted = self._invert(f"--{option.name}", option.invert)
        if use in self.dormant:
            self.dormant.remove(use)
            self.loaded.insert(0, use)
            self.rule.matches.append(use)
        if option.name in use.given and not option.repeat:
            raise UsageError(f'{owner}: option "--{option.name}" can only be used once.')
        try:
            value = option.kind.read(" ".join(words), self.context)
        except Bad as problem:
            detail = f" {problem}" if str(problem) else ""
            raise UsageError(f'{owner}: Bad value for "--{option.name}" option: "{" ".join(words)}"{detail}') from None
        use.given[option.name] = Given(option, value, inverted)

    def _take(self, found: Global | str, name: str) -> None:
        if isinstance(found, str):
            self._command(found)
            return
        handler = getattr(self, "_on_" + found.names[0].replace("-", "_"), None)
        if found.arguments == 0:
            inverted = self._invert(f"--{found.names[0]}", found.invert)
            if handler is not None:
                handler(inverted)
        elif found.arguments > 0:
            value = self._next(found.names[0])
            inverted = self._invert(f"--{found.names[0]}", found.invert)
            try:
                if handler is not None:
                    handler(value, inverted)
                elif found.names[0] != "modprobe":
                    self._field(found.names[0], value, inverted)
            except Bad as problem:
                raise UsageError(str(problem) or f'Bad value for "--{found.names[0]}": "{value}"') from None
        elif found.arguments == -1:
            self._operand()
        else:
            self._counters()

    def _counters(self) -> None:
        first = self._next("set-counters")
        packets, comma, octets = first.partition(",")
        second = octets if comma else self._operand()
        try:
            for text in (packets, second or ""):
                integer(text, 0, 2**64 - 1)
        except Bad:
            raise UsageError("-c packet counter not numeric") from None

    # --- commands

    def _command(self, letter: str) -> None:
        name, least, most = COMMANDS[letter]
        self._invert(f"-{letter}", allowed=False)
        if self.command.letter and {letter, self.command.letter} != {"L", "Z"}:
            raise UsageError(f"Cannot use -{letter} with -{self.command.letter}")
        operands = [self._next(name) for _ in range(least)]
        while len(operands) < most and (more := self._operand()) is not None:
            operands.append(more)
        self.command.letter = letter
        if operands:
            self.command.chain = self._chain(operands[0], letter)
        if len(operands) > 1:
            if letter in "IDRLSZ":
                self._rule_number(operands[1])
            else:
                self.command.operand = operands[1]

    def _rule_number(self, text: str) -> None:
        try:
            self.command.number = integer(text, 1)
        except Bad:
            raise UsageError(f"Invalid rule number `{text}'") from None

    def _chain(self, name: str, letter: str) -> str:
        if not name or len(name) > MAX_NAME:
            raise UsageError(f"chain name `{name}' too long (must be under {MAX_NAME + 1} chars)")
        if letter in "NE" and (name[0] in "-!" or any(c.isspace() for c in name)):
            raise UsageError(f"chain name `{name}' not allowed")
        return name

    # --- the common options

    def _field(self, name: str, value: Any, inverted: bool) -> None:
        if name in self.rule.fields:
            raise UsageError(f"multiple --{name} flags not allowed")
        self.rule.fields[name] = value, inverted

    def _on_table(self, value: str, inverted: bool) -> None:
        if value not in self.family.tables:
            raise UsageError(f"table '{value}' does not exist")
        self.command.table = value

    def _on_protocol(self, value: str, inverted: bool) -> None:
        if self.rule.protocol is not None or "ethertype" in self.rule.fields:
            raise UsageError("multiple -p flags not allowed")
        if self.family.preloaded:
            if value.lower() == "length":
                self._field("length", True, inverted)
            else:
                self._field("ethertype", ethertype(value), inverted)
            return
        number = protocol(value)
        if number == 0:
            if inverted:
                raise UsageError("rule would never match protocol")
            return
        self.rule.protocol, self.rule.protocol_name, self.rule.protocol_inverted = number, value.lower(), inverted

    def _address(self, name: str, value: str, inverted: bool) -> list[tuple[int, int]]:
        if self.family.preloaded:
            text = MAC_NAMES.get(value.lower(), value)
            left, _, mask = text.partition("/")
            pair = mac(left), mac(mask) if mask else b"\xff" * 6
            self._field(name, (bytes(a & b for a, b in zip(*pair, strict=True)), pair[1]), inverted)
            return []
        found = [network(part, self.family.bits) for part in value.split(",")]
        if inverted and len(found) > 1:
            raise UsageError("! not allowed with multiple source or destination IP addresses")
        self._field(name, found, inverted)
        return found

    def _on_source(self, value: str, inverted: bool) -> None:
        self.rule.sources = self._address("source", value, inverted)

    def _on_destination(self, value: str, inverted: bool) -> None:
        self.rule.destinations = self._address("destination", value, inverted)

    def _interface(self, name: str, value: str, inverted: bool) -> None:
        if not value or len(value) >= IFNAMSIZ:
            raise UsageError(f"interface name `{value}' must be shorter than {IFNAMSIZ} characters")
        self._field(name, value, inverted)

    def _on_in_interface(self, value: str, inverted: bool) -> None:
        self._interface("in-interface", value, inverted)

    def _on_out_interface(self, value: str, inverted: bool) -> None:
        self._interface("out-interface", value, inverted)

    def _on_logical_in(self, value: str, inverted: bool) -> None:
        self._interface("logical-in", value, inverted)

    def _on_logical_out(self, value: str, inverted: bool) -> None:
        self._interface("logical-out", value, inverted)

    def _on_fragments(self, inverted: bool) -> None:
        self._field("fragments", True, inverted)

    def _on_ipv4(self, inverted: bool) -> None:
        self.rule.fields.setdefault("other", (self.family.bits != 32, False))

    def _on_ipv6(self, inverted: bool) -> None:
        self.rule.fields.setdefault("other", (self.family.bits != 128, False))

    def _on_h_length(self, value: str, inverted: bool) -> None:
        length, mask = self._masked(value, lambda text: integer(text, 0, 255))
        if length != 6:
            raise Bad("Only hardware address length of 6 is supported currently.")
        self._field("h-length", (length, mask), inverted)

    def _masked(self, text: str, one: Callable[[str], int]) -> tuple[int, int | None]:
        """``value[/mask]``."""
        left, slash, mask = text.partition("/")
        return one(left), one(mask) if slash else None

    def _on_opcode(self, value: str, inverted: bool) -> None:
        known = {name.lower(): number for number, name in enumerate(ARP_OPCODES, 1)}
        name = value.lower()
        number = (known[name], None) if name in known else self._masked(value, lambda text: integer(text, 0, 0xFFFF))
        self._field("opcode", number, inverted)

    def _on_h_type(self, value: str, inverted: bool) -> None:
        number = (1, None) if value.lower() == "ethernet" else self._masked(value, lambda text: bare_hex(text, 0xFFFF))
        self._field("h-type", number, inverted)

    def _on_proto_type(self, value: str, inverted: bool) -> None:
        number = (0x800, None) if value.lower() in ("ipv4", "ip") else self._masked(value, lambda text: integer(text, 0, 0xFFFF))
        self._field("proto-type", number, inverted)

    def _on_source_mac(self, value: str, inverted: bool) -> None:
        self._mac_field("source-mac", value, inverted)

    def _on_destination_mac(self, value: str, inverted: bool) -> None:
        self._mac_field("destination-mac", value, inverted)

    def _mac_field(self, name: str, value: str, inverted: bool) -> None:
        left, _, mask = MAC_NAMES.get(value.lower(), value).partition("/")
        self._field(name, (mac(left), mac(mask) if mask else b"\xff" * 6), inverted)

    # --- extensions

    def _on_match(self, value: str, inverted: bool) -> None:
        row = find_match(self.family, value)
        if row is None:
            raise UsageError(f"Couldn't load match `{value}':No such file or directory\n")
        self._load(row)

    def _on_jump(self, value: str, inverted: bool) -> None:
        if self.rule.jump:
            raise UsageError("multiple -j flags not allowed")
        if not value or len(value) > MAX_NAME:
            raise UsageError(f"Invalid target name (too long or empty) `{value}'")
        self.rule.jump = value
        row = None if value in STANDARD else find_target(self.family, value)
        if row is not None:
            self.rule.target = Use(row)
            self.loaded.insert(0, self.rule.target)

    def _on_goto(self, value: str, inverted: bool) -> None:
        if self.rule.jump:
            raise UsageError("multiple -j flags not allowed")
        self.rule.jump, self.rule.goto = self._chain(value, "A"), True

    def _finish(self) -> None:
        if self.negated:
            raise UsageError("nothing appropriate following !")
        if not self.command.letter:
            raise UsageError("no command specified")
        for use in [*self.rule.matches, *([self.rule.target] if self.rule.target else [])]:
            use.extension.finish(use, self.rule)
        for use in self.rule.matches:
            if use.extension.name == "comment":
                self.rule.comment = use.value("comment")
        self._check_hooks()

    def _check_hooks(self) -> None:
        """Interfaces that a built-in chain cannot have."""
        wrong = {"PREROUTING": "out", "INPUT": "out", "OUTPUT": "in", "POSTROUTING": "in"}.get(self.command.chain)
        if wrong and self.command.letter in "AICDR":
            for name in (f"{wrong}-interface", f"logical-{wrong}"):
                if name in self.rule.fields:
                    letter = {"in-interface": "-i", "out-interface": "-o"}.get(name, f"--{name}")
                    raise UsageError(f"Can't use {letter} with {self.command.chain}")


