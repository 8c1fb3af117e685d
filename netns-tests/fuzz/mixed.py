"""Rulesets put together from fragments, those first whose operations were not reached yet at their place.

Laws
- Every rule counts in front of each of its statements and behind them, so that a ruleset says by itself how far packets came.
- A fragment that nothing new is to be learned from may come again: in the long run all of them meet.
- What a place cannot hold was found out by the probe and is not drawn.
"""

import random
from dataclasses import dataclass, field

from . import pools
from .fragments import Fragment, declared, filled
from .probe import DEVICE_HOOKS, Accepted, Place, head, rule
from .rules import Chain, Ruleset, Table

LEAF = Chain("leaf", "", ("counter", "meta mark 1 counter return", "meta length > 500 counter drop"))
EARLY = -310
PRIORITIES = (EARLY, -150, -10, 0, 0, 5, 10, 90, 110)
NEIGHBOURS = ("meta protocol arp accept", "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept")


def drawn(fragment: Fragment) -> bool:
    """What is loaded but meets no packets: cookies of synproxy and sockets of tproxy are not the same on two machines."""
    return not fragment.text.startswith(("synproxy", "tproxy"))


@dataclass
class Mixer:
    """Draws rulesets; `wanted` counts how often each (fragment, place) is still to be drawn."""

    rng: random.Random
    accepted: Accepted
    rules_each: int = 9
    wanted: dict[tuple[Place, Fragment], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.wanted = {(place, fragment): 1 for place, found in self.accepted.taken.items() for fragment in found
                       if place[0] != "bridge" and drawn(fragment)}

    def done(self) -> bool:
        """Every fragment was drawn at every place."""
        return not self.wanted

    def ruleset(self) -> Ruleset:
        """A few tables with a chain or two each."""
        places = list(dict.fromkeys(self._place() for _ in range(self.rng.choice((2, 3, 3, 4)))))
        return Ruleset(tuple(self._table(place, number) for number, place in enumerate(places)))

    def _place(self) -> Place:
        if self.wanted and self.rng.random() < 0.8:
            return self.rng.choice(list(self.wanted))[0]
        return self.rng.choice([place for place in self.accepted.taken if place[0] != "bridge"])

    def _table(self, place: Place, number: int) -> Table:
        fragments = [self._fragment(place) for _ in range(self.rules_each)]
        rules = tuple(text for text in (rule(one, place, self.rng) for one in fragments) if text)
        device = self.rng.choice(pools.NAMES)
        priority = EARLY if any(fragment.early for fragment in fragments) else self.rng.choice(PRIORITIES)
        policy = "accept" if self.rng.random() < 0.9 or place[0] == "arp" else "drop"
        first = NEIGHBOURS if place[1] in DEVICE_HOOKS and policy == "drop" else ()
        base = Chain("base", head(place, priority, device, policy), first + rules, place[1])
        leaf = (LEAF,) if any("leaf" in text or "@verdicts" in text for text in rules) else ()
        return Table(place[0], f"m{number}", tuple(self._values(line) for line in declared(" ".join(rules))), (*leaf, base))

    def _fragment(self, place: Place) -> Fragment:
        there = [fragment for fragment in self.accepted.taken[place] if drawn(fragment)]
        new = [fragment for fragment in there if (place, fragment) in self.wanted]
        chosen = self.rng.choice(new) if new and self.rng.random() < 0.9 else \
            self.rng.choices(there, [fragment.weight for fragment in there])[0]
        if (place, chosen) in self.wanted:
            del self.wanted[place, chosen]
        return chosen

    def _values(self, line: str) -> str:
        return filled(line, self.rng, "ip6" if "6 {" in line.split("type")[0] else "ip")
