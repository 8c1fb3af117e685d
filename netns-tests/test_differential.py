"""The differential test: random rulesets and random frames, through the kernel and through userfw; nothing may differ.

    make differential                                 a million packets over thousands of rulesets, every operation at every hook
    make differential ARGS='--minutes 60 --seed 7'    another seed, for an hour
    make differential ARGS='--seed 7 --case 4711'     one case again

Here a small campaign of a fixed seed, and what makes campaigns worth something. A difference is shrunk to a small ruleset and a few
steps and written to `.make/differential/`.
"""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from fuzz.campaign import Campaign, Plan
from fuzz.cells import UNREACHED, universe
from fuzz.compare import Case, difference, run
from fuzz.coverage import floor, verdict
from fuzz.engine import EngineTarget
from fuzz.examine import Examiner
from fuzz.fragments import FRAGMENTS
from fuzz.kernel import KernelTarget
from fuzz.probe import operations_of
from fuzz.rules import FIELDS, RuleGenerator

FOLDER = Path(__file__).resolve().parents[1] / ".make" / "differential"
SMALL = Plan(seed=2030, packets=10_000, rulesets=626, steps=30, jobs=2, folder=FOLDER)
"""One round: every statement once at every place that takes it."""

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def kernel() -> Iterator[KernelTarget]:
    """The kernel's side."""
    target = KernelTarget()
    yield target
    target.close()


@pytest.fixture(scope="module")
def engine() -> EngineTarget:
    """userfw's side: a gateway of its own for every case, on memory ports."""
    return EngineTarget()


def test_kernel_and_userfw_agree() -> None:
    account = Campaign(SMALL, lambda line: print(line, flush=True)).run()
    print(account.summary(), flush=True)
    problems = verdict(account, strict=False) + floor(account)
    assert not problems, "\n\n".join([*problems, *account.findings])
    assert account.packets >= SMALL.packets


def test_every_operation_has_a_statement(engine: EngineTarget) -> None:
    """An operation of the registry that no statement of the generator has is uncovered, unless the table says why."""
    found = operations_of(engine, FRAGMENTS)
    assert {cell[0] for cell in universe()} - {op for ops in found.values() for op in ops} == set(UNREACHED)


def cases(seed: int, count: int) -> Iterator[tuple[Case, RuleGenerator]]:
    """Cases of the everyday generator."""
    for number in range(count):
        rng = random.Random(f"{seed}/{number}")
        rules = RuleGenerator(rng)
        yield Examiner.everyday_case(rules, rng, 30), rules


def test_the_kernel_agrees_with_itself(kernel: KernelTarget) -> None:
    """What is compared depends on the case only: else a difference would mean nothing."""
    for case, _ in cases(99, 20):
        found = difference(run(kernel, case), run(kernel, case), ("first", "again"))
        assert found is None, f"{found}\n{case}"


def test_the_generators_cover_what_they_claim() -> None:
    """Every field of the grammar is drawn, at several hooks, within 400 rulesets."""
    covered = {cell for _, rules in cases(2026, 400) for cell in rules.covered}
    drawn = {expression for expression, _, _ in covered}
    assert {field.name for field in FIELDS} <= drawn
    assert {"masquerade", "snat", "dnat", "redirect", "reject", "jump", "goto", "vmap", "notrack", "limit", "quota"} <= drawn
    assert {"prerouting", "input", "forward", "postrouting", "ingress"} <= {hook for _, _, hook in covered}
    operators = {operator for _, operator, _ in covered}
    assert operators >= {"==", "!=", "<", ">=", "range", "!= range", "interval set", "set", "!= set", "prefix", "bits",
                         "concatenation"}


def test_a_seed_gives_the_same_cases_for_ever() -> None:
    first, second = (["\n".join(str(case) for case, _ in cases(5, 3))] for _ in range(2))
    assert first == second
