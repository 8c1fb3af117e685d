"""Make a case that differs small: steps first, by halves and then one by one, then rules; only what still differs is kept.

Laws
- What a step made of the router's own output is written down first (`fixed`), where the case differs with that too: then every step
  stands for itself and can go alone.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

from .compare import Case
from .traffic import Step

Sent = list[list[tuple[str, bytes]]]
PATIENCE = 400


def shrink(case: Case, fails: Callable[[Case], bool], sent: Sent, last: int | None) -> Case:
    """A smaller case that still fails. `sent`: what each step sent; `last`: the step where it showed, if it showed in one."""
    tries = 0

    def holds(candidate: Case) -> bool:
        nonlocal tries
        tries += 1
        return tries <= PATIENCE and fails(candidate)

    if last is not None and last + 1 < len(case.steps):
        cut = replace(case, steps=case.steps[:last + 1])
        case = cut if holds(cut) else case
    plain = replace(case, steps=fixed(case.steps, sent))
    if plain != case and holds(plain):
        case = plain
    progress = True
    while progress and tries < PATIENCE:
        progress = False
        for smaller in (_tables, _steps, _rules):
            shorter = smaller(case, holds)
            progress, case = progress or shorter != case, shorter
    return case


def fixed(steps: tuple[Step, ...], sent: Sent) -> tuple[Step, ...]:
    """Steps that hold their packets themselves; a repetition of a step that holds them already repeats those."""
    found: list[Step] = []
    for step, pairs in zip(steps, sent, strict=False):
        if step.packets:
            found.append(step)
        elif step.kind == "again" and found[step.about].kind == "fragments":
            found.append(replace(found[step.about], about=0))
        else:
            found.append(Step(pairs[0][0] if pairs else step.port, "sent", tuple(packet for _, packet in pairs)))
    return tuple(found)


def _tables(case: Case, holds: Callable[[Case], bool]) -> Case:
    for ruleset in case.ruleset.without_tables():
        candidate = replace(case, ruleset=ruleset)
        if holds(candidate):
            return _tables(candidate, holds)
    return case


def _steps(case: Case, holds: Callable[[Case], bool]) -> Case:
    """Runs of steps taken out, long ones first; a step that another one is about stays."""
    size = max(1, len(case.steps) // 2)
    while True:
        at = len(case.steps) - size
        while at > -size:
            begin = max(at, 0)
            if (less := _without(case.steps, begin, begin + size)) is not None and holds(candidate := replace(case, steps=less)):
                case = candidate
            at -= size
        if size == 1:
            return case
        size //= 2


def _without(steps: tuple[Step, ...], begin: int, end: int) -> tuple[Step, ...] | None:
    rest = []
    for step in steps[end:]:
        if not step.packets and step.kind != "sent":
            if begin <= step.about < end:
                return None
            step = replace(step, about=step.about - (end - begin if step.about >= end else 0))
        rest.append(step)
    return (*steps[:begin], *rest) if end - begin < len(steps) else None


def _rules(case: Case, holds: Callable[[Case], bool]) -> Case:
    def candidates() -> Iterator[Case]:
        for ruleset in (*case.ruleset.without_many(), *case.ruleset.smaller()):
            yield replace(case, ruleset=ruleset)
    while True:
        for candidate in candidates():
            if holds(candidate):
                case = candidate
                break
        else:
            return case
