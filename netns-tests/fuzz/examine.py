"""Draw a case by its number, run it through the kernel and through userfw, and say what came of it.

Laws
- A case depends on the seed and its number only.
- A difference is looked at again on a laboratory that saw nothing else. It is userfw's if the kernel never did what userfw did.
- A run that took the kernel longer than its first clock (a second: sets are cleaned, connections of UDP become assured after two)
  says nothing, and is repeated.
- "both": the kernel, asked again for the very same case, once did exactly all that userfw did (or userfw, with other random
  numbers, all that the kernel did): a port chosen at random may be one that is not masked. Such cases are counted apart and written
  down; a campaign with more than three in a thousand of them fails.
"""

import random
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import partial

from .aimed import Aim
from .bridged import Frames
from .cells import Ledger
from .compare import Behaviour, Case, difference, run, where
from .engine import EngineTarget
from .explained import explain
from .kernel import KernelTarget
from .mixed import Mixer
from .probe import Accepted
from .rules import RuleGenerator
from .shrink import shrink
from .traffic import Generator

AGAIN = 3
CLOCK = 0.9
EVERYDAY = 4
"""One case in so many is of the generator of everyday rules, the others visit operations at hooks."""

Cell = tuple[str, str, str]


@dataclass
class Outcome:
    """What came of one case. `said`: `same`, `refused`, `both`, `differs`, or the names of explained classes."""

    number: int
    said: tuple[str, ...] = ("same",)
    packets: int = 0
    steps: int = 0
    text: str = ""
    small: Case | None = None
    loaded: set[Cell] = field(default_factory=set)
    reached: dict[Cell, int] = field(default_factory=dict)
    passed: set[Cell] = field(default_factory=set)
    drawn: Counter[Cell] = field(default_factory=Counter)


class Examiner:
    """One laboratory's worth of examination."""

    def __init__(self, seed: int, steps: int, cpu: int = 0, everyday: int = EVERYDAY) -> None:
        self.seed, self.steps, self.cpu, self.everyday = seed, steps, cpu, everyday
        self.kernel, self.engine = KernelTarget(cpu=cpu), EngineTarget()
        self.mixer: Mixer | None = None

    def learn(self, accepted: Accepted) -> None:
        """What both take, from the probe."""
        self.mixer = Mixer(self.seed, accepted)

    def draw(self, number: int) -> tuple[Case, Counter[Cell]]:
        """The case of a number, and what the everyday generator put into it."""
        rng = random.Random(f"{self.seed}/{number}")
        if number % self.everyday == 0:
            rules = RuleGenerator(rng)
            return self.everyday_case(rules, rng, self.steps), rules.covered
        assert self.mixer, "what both take is not known"
        ruleset = self.mixer.ruleset(number - number // self.everyday - 1, rng)
        kind = Frames if any(table.family == "bridge" for table in ruleset.tables) else Generator
        traffic = kind(rng, ruleset.text())
        aimed = Aim(rng, traffic).steps(ruleset, self.steps // 2)
        return Case(ruleset, tuple(traffic.steps(self.steps - len(aimed), aimed))), Counter[Cell]()

    @staticmethod
    def everyday_case(rules: RuleGenerator, rng: random.Random, steps: int) -> Case:
        """A case of the everyday generator."""
        ruleset = rules.ruleset()
        return Case(ruleset, tuple(Generator(rng, ruleset.text()).steps(steps)))

    def pair(self, case: Case) -> tuple[Behaviour, Behaviour]:
        """What the kernel did and what userfw did."""
        for _ in range(AGAIN):
            if self.kernel.worn:
                self.renew()
            began, turn = time.monotonic(), self.kernel.runs
            theirs = run(self.kernel, case, turn)
            if time.monotonic() - began < CLOCK:
                break
        return theirs, run(self.engine, case, turn)

    def renew(self) -> None:
        """A laboratory that saw nothing yet."""
        self.kernel.close()
        self.kernel = KernelTarget(cpu=self.cpu)

    def examine(self, number: int) -> Outcome:
        """One case, from drawing to the verdict."""
        case, drawn = self.draw(number)
        theirs, ours = self.pair(case)
        outcome = Outcome(number, packets=theirs.packets, steps=len(case.steps) if theirs.accepted else 0, drawn=drawn)
        if not self._between(theirs, ours):
            if not theirs.accepted:
                outcome.said = ("refused",)
                outcome.text = f"{self.kernel.errors}\n{case.ruleset.text()}"
            else:
                ledger = Ledger()
                ledger.load(self.engine.base_chains())
                ledger.tick(self.engine.base_chains())
                outcome.loaded, outcome.reached, outcome.passed = ledger.loaded, ledger.reached, ledger.passed
            return outcome
        return self._look_again(case, outcome, theirs)

    def _between(self, theirs: Behaviour, ours: Behaviour) -> str | None:
        return difference(theirs, ours, (self.kernel.name, self.engine.name))

    def differs(self, case: Case, times: int = 2) -> str | None:
        """The first difference of a case that the kernel shows each of so many times, or None."""
        found = None
        for _ in range(times):
            found = self._between(*self.pair(case))
            if not found:
                return None
        return found

    def _look_again(self, case: Case, outcome: Outcome, first: Behaviour) -> Outcome:
        """A difference: the kernel's own affair, explained, or a finding."""
        for fresh in (False, True):
            if fresh:
                self.renew()
            for attempt in range(AGAIN):
                self.engine.salt = attempt
                theirs, ours = self.pair(case)
                self.engine.salt = 0
                if not (found := self._between(theirs, ours)):
                    outcome.said = ("both",)
                    outcome.text = f"{difference(first, theirs, ('kernel before', 'kernel, as userfw'))}\n{case}"
                    return outcome
            if names := explain(case, partial(self.differs, times=1)):
                outcome.said = tuple(names)
                return outcome
        outcome.said = ("differs",)
        small = shrink(case, lambda candidate: self.differs(candidate) is not None, theirs.sent, where(theirs, ours))
        outcome.text, outcome.small = f"{self.differs(small, 1) or found}\n{small}", small
        return outcome

