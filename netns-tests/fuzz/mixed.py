"""Rulesets put together from fragments: round after round every fragment at every place that takes it.

Laws
- A ruleset depends on the seed and its number; rounds of rulesets visit each (place, fragment), each round in another order.
- Every rule counts in front of each of its statements and behind them, so that a ruleset says by itself how far packets came.
- One rule in `rules_each` is drawn anew, so in the long run all of them meet.
- What a place cannot hold was found out by the probe and is not drawn.
- Beside a rule that makes copies (`dup`) none looks at the link header where a copy passes: Linux's has none, and the rule reads
  memory that nobody wrote.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from . import pools
from .fragments import Fragment, declared, filled
from .probe import DEVICE_HOOKS, Accepted, Place, head, rule
from .raw import TUNNELS
from .rules import Chain, Ruleset, Table, without_rules

LEAF = Chain("leaf", "", ("counter", "meta mark 1 counter return", "meta length > 500 counter drop"))
EARLY = -310
BESIDE = 0.6
PRIORITIES = (EARLY, -150, -10, 0, 0, 5, 10, 90, 110)
_INSIDE = re.compile(f'(log prefix "raw )?({"|".join(TUNNELS)}) ')
_TWICE = re.compile(f"({'|'.join(TUNNELS)}) (ip6?|icmp|tcp|udp|vlan) ")
NEIGHBOURS = ("meta protocol arp accept", "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept")


def drawn(fragment: Fragment) -> bool:
    """Not what is loaded but meets no packets: `synproxy` of IPv6, which the laboratory's kernel does not answer; who looks into a
    tunnel twice may see, in Linux, what another packet had at the same address (`nft_inner_save_tun_ctx` keeps the old)."""
    return not (fragment.text.startswith("synproxy") and fragment.l3 == "6") and not _TWICE.match(fragment.text)


def _looks_inside(fragment: Fragment) -> bool:
    return _INSIDE.match(fragment.text) is not None


Chunk = tuple[Place, tuple[Fragment, ...]]


@dataclass
class Mixer:
    """Draws rulesets by number. A chunk is a place and fragments of one chain there."""

    seed: int
    accepted: Accepted
    rules_each: int = 9
    tables_each: int = 3
    _round: tuple[int, list[tuple[Chunk, ...]]] = (-1, [])

    def round(self, number: int) -> list[tuple[Chunk, ...]]:
        """The rulesets of a round, each as the chunks of its tables. Where the family is bridge, often one of another stands by."""
        if self._round[0] != number:
            rng, found, bridged = random.Random(f"{self.seed}/round {number}"), list[Chunk](), list[Chunk]()
            for place, taken in self.accepted.taken.items():
                there = [fragment for fragment in taken if drawn(fragment)]
                rng.shuffle(there)
                (bridged if place[0] == "bridge" else found).extend((place, chunk) for chunk in self._dealt(there))
            others = [place for place, _ in found] + [place for place in self.accepted.taken if place[0] == "netdev"] * 20
            rulesets = self._grouped(rng, found)
            for one in self._grouped(rng, bridged):
                rulesets.append((*one, (rng.choice(others), ())) if rng.random() < BESIDE else one)
            rng.shuffle(rulesets)
            self._round = number, rulesets
        return self._round[1]

    def _grouped(self, rng: random.Random, chunks: list[Chunk]) -> list[tuple[Chunk, ...]]:
        rng.shuffle(chunks)
        return [tuple(chunks[at:at + self.tables_each]) for at in range(0, len(chunks), self.tables_each)]

    def _dealt(self, there: list[Fragment]) -> list[tuple[Fragment, ...]]:
        """A place's fragments by chains of one rule less than they have; each looks into a tunnel once at most."""
        inside, others = [one for one in there if _looks_inside(one)], [one for one in there if not _looks_inside(one)]
        size, chunks = self.rules_each - 1, list[tuple[Fragment, ...]]()
        while inside or others:
            one = [inside.pop()] if inside else []
            chunks.append((*one, *others[:size - len(one)]))
            del others[:size - len(one)]
        return chunks

    def round_size(self) -> int:
        """How many rulesets visit everything once."""
        return len(self.round(0))

    def ruleset(self, number: int, rng: random.Random) -> Ruleset:
        """A few tables with one base chain each."""
        which, at = divmod(number, self.round_size())
        chosen = self.round(which)[at]
        names = pools.PORTS_OF_BRIDGE if any(place[0] == "bridge" for place, _ in chosen) else pools.NAMES
        ruleset = Ruleset(tuple(self._table(rng, place, fragments, n, names) for n, (place, fragments) in enumerate(chosen)))
        if "type nat" in ruleset.text():
            ruleset = without_rules(ruleset, "", "@th,16,16 set")  # it may hide what the router chose, but not from the checksum
        if "type nat hook output" in ruleset.text():  # what goes round by lo would be answered for ever
            ruleset = without_rules(ruleset, "", "tcp flags set")
        return without_rules(ruleset, "hook (output|postrouting)", "ether |@ll") if "dup to" in ruleset.text() else ruleset

    def _table(self, rng: random.Random, place: Place, chunk: tuple[Fragment, ...], number: int, names: Sequence[str]) -> Table:
        there = [one for one in self.accepted.taken[place] if drawn(one) and not _looks_inside(one)]
        fragments = [*chunk, *rng.choices(there, [fragment.weight for fragment in there], k=self.rules_each - len(chunk))]
        rng.shuffle(fragments)
        rules = tuple(text for text in (rule(one, place, rng, names) for one in fragments) if text)
        device = rng.choice(names)
        priority = EARLY if any(fragment.early for fragment in fragments) else rng.choice(PRIORITIES)
        policy = "accept" if rng.random() < 0.9 or place[0] == "arp" else "drop"
        first = NEIGHBOURS if place[1] in DEVICE_HOOKS and policy == "drop" else ()
        base = Chain("base", head(place, priority, device, policy), first + rules, place[1])
        leaf = (LEAF,) if any("leaf" in text or "@verdicts" in text for text in rules) else ()
        sets = tuple(self._values(rng, line, names) for line in declared(" ".join(rules)))
        return Table(place[0], f"m{number}", sets, (*leaf, base))

    def _values(self, rng: random.Random, line: str, names: Sequence[str]) -> str:
        return filled(line, rng, "ip6" if "6 {" in line.split("type")[0] else "ip", names)
