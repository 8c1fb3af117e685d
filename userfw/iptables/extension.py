"""What a match or target is: rows of options, and how given options become nft text.

Laws:
- An ``Option`` names the nft text on the left; its ``Kind`` reads the argument and writes the rest (``values.py``).
- ``Extension.words`` gives the nft words, or None when there is no translation. An extension has one if it has a ``render``
  function, or if any of its options has a text, or if it says ``empty``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from userfw.iptables.errors import UsageError
from userfw.iptables.family import Family
from userfw.iptables.values import FLAG, Kind, Names

IP = frozenset({"ip", "ip6"})
V4 = frozenset({"ip"})
V6 = frozenset({"ip6"})
EB = frozenset({"bridge"})
ARPS = frozenset({"arp"})


@dataclass(frozen=True)
class Option:
    """One option of an extension: ``--name``, its argument, and its nft text."""

    name: str
    kind: Kind = FLAG
    text: str = ""
    invert: bool = False
    aliases: tuple[str, ...] = ()
    required: bool = False
    repeat: bool = False


@dataclass
class Given:
    """What the command line gave for one option."""

    option: Option
    value: Any
    inverted: bool = False

    def text(self, family: Family) -> str:
        """The nft text, empty if this option matches everything."""
        return self.option.kind.express(self.option.text, self.inverted, self.value, family)


@dataclass
class Use:
    """An extension in a rule, with its given options."""

    extension: Extension
    given: dict[str, Given] = field(default_factory=dict)
    more: list[Given] = field(default_factory=list)  # repeated options, in order

    def __contains__(self, name: str) -> bool:
        return name in self.given

    def value(self, name: str, default: Any = None) -> Any:
        """The argument of an option, or what holds without it."""
        found = self.given.get(name)
        return default if found is None else found.value

    def inverted(self, name: str) -> bool:
        """Whether the option was given with ``!``."""
        return name in self.given and self.given[name].inverted

    def texts(self, rule: Rule, *names: str) -> Iterator[str]:
        """The texts of these options that were given (of all, in the order of the table)."""
        for option in self.extension.options:
            if option.name in self.given and option.text and (not names or option.name in names):
                text = self.given[option.name].text(rule.family)
                if text:
                    yield text


@dataclass
class Rule:
    """The parsed rule: what is common to all, the matches in order, and the target."""

    family: Family
    protocol: int | None = None
    protocol_name: str = ""
    protocol_inverted: bool = False
    fields: dict[str, tuple[Any, bool]] = field(default_factory=dict)  # interfaces, addresses …: (value, inverted)
    sources: list[tuple[int, int]] = field(default_factory=list)
    destinations: list[tuple[int, int]] = field(default_factory=list)
    matches: list[Use] = field(default_factory=list)
    target: Use | None = None
    jump: str = ""
    goto: bool = False
    names: Names = field(default_factory=Names)
    meters: int = 0  # sets made by earlier rules of the same run
    sets: list[str] = field(default_factory=list)  # declarations that must come before the rule
    comment: str = ""
    half: int = 0  # 1 or 2: which of the two rules that it becomes is wanted


Words = list[str] | None
Renderer = Callable[[Use, Rule], Words]


@dataclass(frozen=True)
class Extension:
    """A match or a target."""

    name: str
    options: tuple[Option, ...] = ()
    families: frozenset[str] = IP
    render: Renderer | None = None
    empty: str | dict[str, str] | None = None  # what to say when no option said anything
    one_of: tuple[str, ...] = ()  # at least one of these must be given
    alone: tuple[tuple[str, ...], ...] = ()  # of each group at most one
    protocols: tuple[int, ...] = ()  # works only with one of these
    check: Callable[[Use, Rule], None] | None = None
    shadow: tuple[str, ...] = ()  # protocols (names) that this match makes needless, beside its own name

    def words(self, use: Use, rule: Rule) -> Words:
        """The nft words of this use, None without a translation."""
        if self.render is not None:
            return self.render(use, rule)
        if self.empty is None and not any(option.text for option in self.options):
            return None
        if any(not given.option.text for given in use.given.values()):
            return None
        words = list(use.texts(rule))
        if not words and self.empty is not None:
            words = [self.empty if isinstance(self.empty, str) else self.empty[rule.family.name]]
        return words

    def finish(self, use: Use, rule: Rule) -> None:
        """Check what only the whole command line can show; raises UsageError."""
        for option in self.options:
            if option.required and option.name not in use.given:
                raise UsageError(f'{self.name}: option "--{option.name}" must be specified')
        if self.one_of and not any(name in use.given for name in self.one_of):
            choice = " or ".join(f"--{name}" for name in self.one_of)
            raise UsageError(f"{self.name}: You must specify {choice}")
        for group in self.alone:
            given = [name for name in group if name in use.given]
            if len(given) > 1:
                raise UsageError(f"{self.name}: option \"--{given[1]}\" cannot be used together with \"--{given[0]}\".")
        if self.protocols and (rule.protocol not in self.protocols or rule.protocol_inverted):
            raise UsageError(f"{self.name}: this extension needs its protocol: use -p")
        if self.check is not None:
            self.check(use, rule)
