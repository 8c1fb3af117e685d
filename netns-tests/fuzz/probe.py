"""What the kernel and nft take at which place, asked once; and whether userfw takes the same.

Laws
- A place is (family, hook, type of chain). Each fragment is one rule, added alone to a chain there.
- The kernel's refusals carry its errno; what nft 1.0.6 itself refuses (a word it does not know, a rule it deems wrong) has none.
"""

import errno as numbers
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from lab.nftlib import Answer

from . import pools
from .cells import PLACES, operations
from .explained import taken_in_spite
from .fragments import DECLARATIONS, FRAGMENTS, Fragment, declared, filled

Place = tuple[str, str, str]
DEVICE_HOOKS = ("ingress", "egress")
LINK = ("netdev", "bridge", "arp")


def places() -> list[Place]:
    """Every place, a chain type each: filter everywhere, nat where Linux has it, route at output."""
    found = [(family, hook, "filter") for family, hook in PLACES]
    found += [(family, hook, "nat") for family in ("ip", "ip6", "inet")
              for hook in ("prerouting", "input", "output", "postrouting")]
    return found


def head(place: Place, priority: int = 0, device: str = "lan", policy: str = "accept") -> str:
    """The first line of a base chain."""
    where = f'device "{device}" ' if place[1] in DEVICE_HOOKS else ""
    if place[2] == "nat":
        priority = -100 if place[1] in ("prerouting", "output") else 100
    return f"type {place[2]} hook {place[1]} {where}priority {priority}; policy {policy};"


def rule(fragment: Fragment, place: Place, rng: random.Random, names: Sequence[str] = ()) -> str | None:
    """The fragment as a rule of a place; None if it has no sense there. `names`: interfaces that it may be about."""
    family = place[0]
    wanted = {"4": "ip", "6": "ip6"}.get(fragment.l3, "")
    if (family in ("ip", "ip6") and wanted not in ("", family)) or (fragment.l3 == "arp" and family in ("ip", "ip6", "inet")) or \
            (family == "arp" and fragment.l3 not in ("", "arp")) or (family == "arp" and fragment.l4):
        return None
    if {"dev": "netdev", "br": "bridge"}.get(fragment.l3, family) != family:
        return None  # elsewhere nft would ask the DNS for a host of that name
    if fragment.late and place[1] not in ("forward", "postrouting", "egress"):
        return None
    if fragment.early and (place[1] not in ("prerouting", "output") or place[0] not in ("ip", "ip6", "inet")):
        return None
    if fragment.kind == "nat" and place[2] != "nat":
        return None
    guards = []
    if fragment.l3 in ("4", "6", "arp") and family in ("inet", "bridge", "netdev"):
        if family == "inet":
            guards.append(f"meta nfproto {'ipv4' if fragment.l3 == '4' else 'ipv6'}")
        else:
            guards.append(f"meta protocol {wanted or 'arp'}")
    if fragment.l4:
        guards.append(f"meta l4proto {fragment.l4}")
    if fragment.last:
        guards.append("numgen inc mod 3 0")
    names = names or (pools.PORTS_OF_BRIDGE if family == "bridge" else pools.NAMES)
    text = filled(fragment.text, rng, wanted or (family if family in ("ip", "ip6") else rng.choice(("ip", "ip6"))), names)
    return " ".join(["counter", *(f"{guard} counter" for guard in guards), text, *([] if fragment.last else ["counter"])])


class Kernel(Protocol):
    """What the probe asks of the kernel's side."""

    def judge(self, text: str) -> Answer:
        """Run commands as they are."""


class Engine(Protocol):
    """What the probe asks of userfw."""

    rules: Any

    def load(self, text: str) -> bool:
        """See compare.Target."""

    def refusals(self, groups: list[list[str]]) -> dict[int, str]:
        """Which groups of commands would be refused, each for itself: index to the words; nothing stays."""


@dataclass
class Accepted:
    """Results of the probe: `taken`: fragments that both take, by place; `refused`: (place, text) to errno name; `unknown`: what
    nft refused itself; `absent`: what the kernel has no module for; `disagree`: what one side takes and the other does not;
    `explained`: the same, where docs/differences.md says why, counted."""

    taken: dict[Place, list[Fragment]] = field(default_factory=dict)
    refused: dict[tuple[Place, str], str] = field(default_factory=dict)
    unknown: set[tuple[Place, str]] = field(default_factory=set)
    absent: set[str] = field(default_factory=set)
    disagree: list[str] = field(default_factory=list)
    explained: Counter[str] = field(default_factory=Counter)

    def merge(self, other: "Accepted") -> None:
        """Take in what was found at other places."""
        self.taken.update(other.taken)
        self.refused.update(other.refused)
        self.unknown |= other.unknown
        self.absent |= other.absent
        self.disagree += other.disagree
        self.explained.update(other.explained)

    def settle(self) -> None:
        """Bring the places into their own order, whoever was asked first."""
        self.taken = {place: self.taken[place] for place in places() if place in self.taken}


def probe_place(kernel: Kernel, engine: Engine, place: Place) -> Accepted:
    """Ask both about every fragment at a place."""
    result = Accepted()
    engine.load("")
    asked: list[tuple[Fragment, list[str], Answer]] = []
    table = f"{place[0]} probe"
    setup = [f"add table {table}", f"add chain {table} leaf", f"add chain {table} base {{ {head(place)} }}"]
    answer = kernel.judge("\n".join(["flush ruleset", *setup]))
    assert answer.ok, answer.errors
    there = {line: kernel.judge(declaration(line, table)) for line in DECLARATIONS.values()}
    for fragment in FRAGMENTS if place[2] == "filter" else [one for one in FRAGMENTS if one.kind == "nat" or one.last]:
        text = rule(fragment, place, random.Random(fragment.text))
        if text is None:
            continue
        if fragment.text in result.absent:
            result.refused[place, fragment.text] = "ENOENT"
            continue
        needed = declared(text)
        adding = f"add rule {table} base {text}"
        commands = [*setup, *(declaration(line, table) for line in needed), adding]
        theirs = next((there[line] for line in needed if not there[line].ok), None) or kernel.judge(adding)
        if not theirs.ok and not theirs.errno:
            result.unknown.add((place, fragment.text))
            continue
        if theirs.errno == numbers.ENOENT:
            result.absent.add(fragment.text)
        asked.append((fragment, commands, theirs))
    ours = engine.refusals([commands for _, commands, _ in asked])
    for at, (fragment, commands, theirs) in enumerate(asked):
        if not theirs.ok:
            result.refused[place, fragment.text] = numbers.errorcode.get(theirs.errno, str(theirs.errno))
        elif at not in ours:
            result.taken.setdefault(place, []).append(fragment)
        if theirs.ok != (at not in ours) and not _module(theirs.errno, place, fragment):
            name = numbers.errorcode.get(theirs.errno or 0, "")
            if why := "" if at in ours else taken_in_spite(name, place, fragment.text):
                result.explained[why] += 1
                continue
            result.disagree.append(f"{place}: {commands[-1]}\n  kernel: {theirs.errors.splitlines()[:1] or 'takes it'}\n"
                                   f"  userfw: {ours.get(at, 'takes it')}")
    kernel.judge("flush ruleset")
    return result


def operations_of(engine: Engine, fragments: Iterable[Fragment]) -> dict[Fragment, set[str]]:
    """The operations that userfw lowers each statement to, on whatever place: in a chain that stands on no hook."""
    found: dict[Fragment, set[str]] = {}
    engine.load("")
    manager = engine.rules
    for family, hook, kind in places():
        table = f"{family} probe"
        manager.execute(f"add table {table}\nadd chain {table} leaf\nadd chain {table} base")
        for fragment in fragments:
            text = rule(fragment, (family, hook, kind), random.Random(fragment.text)) if fragment not in found else None
            if text is None:
                continue
            for line in declared(text):
                manager.execute(declaration(filled(line, random.Random(line), "ip"), table))
            if not manager.execute(f"add rule {table} base {text}").status:
                exprs = manager.rules.tables[family, "probe"].chains["base"].rules[-1].program.exprs
                found[fragment] = {op for expr in exprs for op in operations(expr)}
    return found


def refused_everywhere(accepted: Accepted, found: dict[Fragment, set[str]]) -> dict[str, set[str]]:
    """The operations of which the kernel takes no statement at any place, each with what it answers."""
    taken = {op for fragments in accepted.taken.values() for fragment in fragments for op in found.get(fragment, ())}
    answers: dict[str, set[str]] = {}
    for (_, text), answer in accepted.refused.items():
        for fragment, ops in found.items():
            if fragment.text == text:
                for op in ops - taken:
                    answers.setdefault(op, set()).add(answer)
    return answers


def declaration(line: str, table: str) -> str:
    """A declaration of a table's block as a command."""
    size = 2 if line.startswith("ct ") else 1
    words = line.split(" ", size)
    return f"add {' '.join(words[:size])} {table} {words[size]}".rstrip(";")


def _module(errno: int | None, place: Place, fragment: Fragment) -> bool:
    """The kernel has no module for it, which is no judgement on the rule. Connections and keys of bridges are modules too."""
    keys = any(word in fragment.text for word in ("ibrname", "obrname", "ibrpvid", "ibrvproto", "ibrhwaddr", "broute"))
    return errno == numbers.ENOENT or (place[0] == "bridge" and (errno == numbers.EPROTO or keys))
