"""The differential test: random rulesets and random frames, through the kernel and through userfw; nothing may differ.

    make differential ARGS='--packets 100000 --seed 7'      more packets, another seed
    make differential ARGS='--minutes 240'                  new seeds until the time is over
    make differential ARGS='--cells 400'                    rulesets that visit every operation at every hook, and the ledger

A difference is shrunk to a small ruleset and a few steps and written to `.make/differential-SEED-CASE.txt`.
"""

import random
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from fuzz.cells import UNREACHED, Ledger, universe
from fuzz.compare import Case, Target, difference, run, shrink
from fuzz.explained import explain
from fuzz.fragments import FRAGMENTS, declared
from fuzz.kernel import KernelTarget
from fuzz.mixed import Mixer
from fuzz.probe import declaration, head, places, probe, rule
from fuzz.rules import FIELDS, RuleGenerator
from fuzz.traffic import Generator

STEPS = 30
FINDINGS = Path(__file__).resolve().parents[1] / ".make"

pytestmark = pytest.mark.timeout(0)


@pytest.fixture(scope="module")
def kernel() -> Iterator[KernelTarget]:
    """The kernel's side."""
    target = KernelTarget()
    yield target
    target.close()


@pytest.fixture(scope="module")
def engine() -> Target:
    """userfw's side: a gateway of its own for every case, on memory ports."""
    module = pytest.importorskip("fuzz.engine", reason="the engine is not part of this build")
    target: Target = module.EngineTarget()
    return target


def cases(seed: int, packets: int) -> Iterator[tuple[int, Case, RuleGenerator]]:
    """Cases of a seed until so many steps are drawn."""
    rng = random.Random(seed)
    rules, traffic = RuleGenerator(rng), Generator(rng)
    for number in range(max(1, packets // STEPS)):
        yield number, Case(rules.ruleset(), tuple(traffic.steps(STEPS))), rules


def differs(one: Target, two: Target, case: Case) -> str | None:
    """The first difference between two routers on a case, or None."""
    return difference(run(one, case), run(two, case), (one.name, two.name))


def test_kernel_and_userfw_agree(kernel: KernelTarget, engine: Target, request: pytest.FixtureRequest) -> None:
    packets, seed, minutes = (request.config.getoption(name) for name in ("--packets", "--seed", "--minutes"))
    deadline = time.monotonic() + minutes * 60
    findings: list[str] = []
    sent, covered, explained = 0, Counter[tuple[str, str, str]](), Counter[str]()
    while True:
        for number, case, rules in cases(seed, packets):
            if differs(kernel, engine, case):
                if names := explain(case, partial(differs, kernel, engine)):
                    explained.update(names)
                    continue
                findings.append(finding(kernel, engine, case, seed, number))
                if len(findings) == 5:
                    break
            sent += STEPS
            covered = rules.covered
        print(f"seed {seed}: {sent} steps, {len(covered)} combinations of expression, operator and hook, "
              f"{explained.total()} explained differences {dict(explained)}, {len(findings)} unexplained", flush=True)
        if findings or time.monotonic() >= deadline:
            break
        seed += 1
    assert not findings, "\n\n".join(findings)


def finding(kernel: KernelTarget, engine: Target, case: Case, seed: int, number: int) -> str:
    """A difference, shrunk, written to a file and as text."""
    small = shrink(case, lambda candidate: differs(kernel, engine, candidate) is not None)
    text = f"seed {seed}, case {number}\n{differs(kernel, engine, small) or differs(kernel, engine, case)}\n{small}"
    FINDINGS.mkdir(exist_ok=True)
    (FINDINGS / f"differential-{seed}-{number}.txt").write_text(text)
    return text


def test_every_operation_at_every_hook(kernel: KernelTarget, engine: Target, request: pytest.FixtureRequest) -> None:
    """What one side takes the other takes, packets reach all of it, and it does the same."""
    rulesets, seed, steps = (request.config.getoption(name) for name in ("--cells", "--seed", "--steps"))
    if not rulesets:
        pytest.skip("visits every operation at every hook with --cells NUMBER")
    until = time.monotonic() + request.config.getoption("--minutes") * 60
    engine.load("")
    accepted = probe(kernel, engine)  # type: ignore[arg-type]
    assert not accepted.disagree, "\n".join(accepted.disagree)
    rng, ledger, findings, explained = random.Random(seed), Ledger(), list[str](), Counter(accepted.explained)
    mixer, traffic, number = Mixer(rng, accepted), Generator(rng), 0
    while number < rulesets or time.monotonic() < until:
        case = Case(mixer.ruleset(), tuple(traffic.steps(steps)))
        number += 1
        if not differs(kernel, engine, case):
            ledger.load(engine.base_chains())  # type: ignore[attr-defined]
            ledger.tick(engine.base_chains())  # type: ignore[attr-defined]
        elif names := explain(case, partial(differs, kernel, engine)):
            explained.update(names)
        else:
            findings.append(finding(kernel, engine, case, seed, number))
            if len(findings) == request.config.getoption("--findings"):
                break
        if number % 50 == 0:
            print(f"seed {seed}: {number} rulesets, {number * steps} steps, {explained.total()} explained, "
                  f"{len(findings)} unexplained", flush=True)
    print(f"seed {seed}: {number} rulesets, {number * steps} steps, {explained.total()} explained differences {dict(explained)}, "
          f"{len(findings)} unexplained\n{ledger.summary()}", flush=True)
    assert not findings, "\n\n".join(findings)
    assert not set(UNREACHED) & ledger.operations(), "reached now: take them off the table"
    if mixer.done():
        assert not {cell[0] for cell in ledger.loaded} - ledger.operations(), "no packet reached them"


def test_every_operation_has_a_statement(engine: Target) -> None:
    """An operation of the registry that no statement of the generator has is uncovered, unless the table says why."""
    found = set[str]()
    for place in places():
        rules = [text for fragment in FRAGMENTS if (text := rule(fragment, place, random.Random(fragment.text)))]
        table = f"{place[0]} probe"
        setup = [f"add table {table}", f"add chain {table} leaf", f"add chain {table} base {{ {head(place)} }}"]
        groups = [[*setup, *(declaration(line, table) for line in declared(text)), f"add rule {table} base {text}"]
                  for text in rules]
        engine.load("")
        refused = engine.refusals(groups)  # type: ignore[attr-defined]
        ledger = Ledger()
        lines = dict.fromkeys(line for at, group in enumerate(groups) if at not in refused for line in group)
        assert engine.load("\n".join(lines)), engine.errors  # type: ignore[attr-defined]
        ledger.load(engine.base_chains())  # type: ignore[attr-defined]
        found |= {cell[0] for cell in ledger.loaded}
    assert {cell[0] for cell in universe()} - found == set(UNREACHED)


def test_the_kernel_agrees_with_itself(kernel: KernelTarget) -> None:
    """What is compared depends on the case only: else a difference would mean nothing."""
    for _, case, _ in cases(99, 20 * STEPS):
        found = differs(kernel, kernel, case)
        assert found is None, f"{found}\n{case}"


def test_the_generators_cover_what_they_claim() -> None:
    """Every field of the grammar is drawn, at several hooks, within twice the packets that CI sends."""
    rules = [generator for _, _, generator in cases(2026, 6000)][-1]
    drawn = {expression for expression, _, _ in rules.covered}
    assert {field.name for field in FIELDS} <= drawn
    assert {"masquerade", "snat", "dnat", "redirect", "reject", "jump", "goto", "vmap", "notrack", "limit", "quota"} <= drawn
    assert {"prerouting", "input", "forward", "postrouting", "ingress"} <= {hook for _, _, hook in rules.covered}


def test_a_seed_gives_the_same_cases_for_ever() -> None:
    first, second = (["\n".join(str(case) for _, case, _ in cases(5, 90))] for _ in range(2))
    assert first == second
