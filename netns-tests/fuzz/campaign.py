"""Many cases over several processes, each with a laboratory of its own; one ledger, one account of what came of them.

Laws
- Every packet that is counted was sent to both routers, and all that they did because of it was compared.
- Findings are written to files as they come. A process that dies is a finding about the case it had; another one takes its place.
- The same seed, number and sources give the same case, whatever the number of processes.
"""

import contextlib
import hashlib
import multiprocessing
import os
import pickle
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from .cells import Ledger
from .compare import Case
from .examine import EVERYDAY, Cell, Examiner, Outcome
from .probe import Accepted, places, probe_place

AHEAD = 2
DEATHS = 10
BOTH_AT_MOST = 0.003
"""Share of rulesets with which the kernel may disagree with itself."""


@dataclass(frozen=True)
class Plan:
    """What is to be done: until so many packets and rulesets, or until the time is over (minutes, 0: no limit)."""

    seed: int = 1
    packets: int = 1_000_000
    rulesets: int = 0
    steps: int = 200
    everyday: int = EVERYDAY
    jobs: int = 1
    minutes: float = 0
    findings: int = 20
    first: int = 0
    only: bool = False       # the first case alone
    folder: Path = Path(".make/differential")


@dataclass
class Account:
    """What came of a campaign."""

    rulesets: int = 0
    refused: int = 0
    packets: int = 0
    steps: int = 0
    both: int = 0
    explained: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)
    ledger: Ledger = field(default_factory=Ledger)
    drawn: Counter[Cell] = field(default_factory=Counter)
    accepted: Accepted = field(default_factory=Accepted)
    seconds: float = 0

    def add(self, outcome: Outcome) -> None:
        """Take in one case."""
        self.drawn.update(outcome.drawn)
        if outcome.said == ("refused",):
            self.refused += 1
            return
        self.rulesets += 1
        self.packets += outcome.packets
        self.steps += outcome.steps
        if outcome.said == ("both",):
            self.both += 1
        elif outcome.said == ("differs",):
            self.findings.append(outcome.text)
        elif outcome.said != ("same",):
            self.explained.update(outcome.said)
        self.ledger.merge(outcome.loaded, outcome.reached, outcome.passed)

    def line(self) -> str:
        """One line for people."""
        return (f"{self.rulesets:,} rulesets, {self.packets:,} packets in {self.steps:,} steps, {self.seconds:.0f} s; "
                f"{len(self.findings)} unexplained, {self.explained.total()} explained {dict(self.explained) or ''}, "
                f"{self.both} where the kernel does both, {self.refused} rulesets refused by both")


    def summary(self) -> str:
        """Everything, with the ledger."""
        rate = self.packets / self.seconds if self.seconds else 0
        return f"{self.line()}\n{rate:.0f} packets/s through both\n{self.ledger.summary()}"


class Campaign:
    """Runs a plan; `say` gets lines of progress."""

    def __init__(self, plan: Plan, say: Callable[[str], None] = print) -> None:
        self.plan, self.say = plan, say
        self.account = Account()
        self.workers: dict[Connection, Worker] = {}
        self.deaths = 0

    def run(self) -> Account:
        """Everything from the probe to the end."""
        began = self._said = time.monotonic()
        try:
            for number in range(self.plan.jobs):
                self._hire(number)
            self._probe()
            accepted = self.account.accepted
            self.say(f"probe: {sum(map(len, accepted.taken.values())):,} statements at their places are taken by both, "
                     f"{len(accepted.disagree)} by one only; {time.monotonic() - began:.0f} s")
            for worker in self.workers.values():
                worker.pipe.send(("learn", accepted))
            self._each((("examine", number) for number in self._numbers(began)), self._examined)
        finally:
            for worker in list(self.workers.values()):
                worker.dismiss()
        self.account.seconds = time.monotonic() - began
        return self.account

    def _probe(self) -> None:
        """What both take; remembered, for these sources and this kernel, in the folder of the findings."""
        if self.plan.everyday == 1:
            return
        known = self.plan.folder / f"accepted-{sources()}.pickle"
        if known.exists():
            self.account.accepted = pickle.loads(known.read_bytes())
            return
        self._each((("probe", place) for place in places()), self._probed)
        self.account.accepted.settle()
        self.plan.folder.mkdir(parents=True, exist_ok=True)
        known.write_bytes(pickle.dumps(self.account.accepted))

    def _numbers(self, began: float) -> Iterator[int]:
        number, plan, account = self.plan.first, self.plan, self.account
        while len(account.findings) < plan.findings and self.deaths < DEATHS:
            if plan.minutes:
                if time.monotonic() - began >= plan.minutes * 60:
                    return
            elif account.packets >= plan.packets and account.rulesets >= plan.rulesets:
                return
            yield number
            number += 1
            if plan.only:
                return

    def _hire(self, cpu: int) -> None:
        worker = Worker(self.plan, cpu, self.account.accepted if self.account.rulesets else None)
        self.workers[worker.pipe] = worker

    def _each(self, tasks: Iterator[tuple[str, Any]], done: Callable[[Any, Any], None]) -> None:
        """Hand out tasks, each worker a few ahead, and take in what comes back until nothing is left."""
        exhausted = False
        while True:
            for worker in self.workers.values():
                while len(worker.tasks) < AHEAD and not exhausted:
                    task = next(tasks, None)
                    exhausted = task is None
                    if task is not None:
                        worker.give(task)
            if exhausted and not any(worker.tasks for worker in self.workers.values()):
                return
            for pipe in wait(list(self.workers), timeout=5):
                assert isinstance(pipe, Connection)
                worker = self.workers[pipe]
                try:
                    task, answer = worker.tasks[0], pipe.recv()
                except (EOFError, OSError):
                    self._died(worker)
                    continue
                worker.tasks.pop(0)
                done(task, answer)

    def _died(self, worker: "Worker") -> None:
        del self.workers[worker.pipe]
        self.deaths += 1
        worker.process.join()
        self._write(worker.tasks[0][1] if worker.tasks else "none", "differs",
                    f"the process ended with {worker.process.exitcode} at {worker.tasks[:1]}")
        if self.deaths < DEATHS:
            self._hire(worker.cpu)

    def _probed(self, task: Any, found: Accepted) -> None:
        self.account.accepted.merge(found)

    def _examined(self, task: Any, outcome: Outcome | str) -> None:
        if isinstance(outcome, str):
            self._write(task[1], "differs", outcome)
        else:
            self.account.add(outcome)
            if outcome.said[0] in ("differs", "both"):
                self._write(task[1], outcome.said[0], outcome.text, outcome.small, kept=outcome.said[0] == "differs")
        if time.monotonic() - self._said > 20:
            self._said = time.monotonic()
            self.account.seconds += 20
            self.say(f"seed {self.plan.seed}: {self.account.line()}")

    def _write(self, number: object, what: str, text: str, small: Case | None = None, kept: bool = False) -> None:
        text = f"seed {self.plan.seed}, case {number}, {self.plan.steps} steps\n{text}\n"
        if what == "differs":
            if kept:
                self.account.findings[-1] = text
            else:
                self.account.findings.append(text)
            self.say(f"difference {len(self.account.findings)}: {text}")
        self.plan.folder.mkdir(parents=True, exist_ok=True)
        (self.plan.folder / f"{what}-{self.plan.seed}-{number}.txt").write_text(text)
        if small:
            (self.plan.folder / f"{what}-{self.plan.seed}-{number}.case").write_bytes(pickle.dumps(small))


def sources() -> str:
    """A name for all that decides what is taken: the kernel's release, the generators, userfw's language and engine."""
    digest = hashlib.sha256(os.uname().release.encode())
    here = Path(__file__).parent
    for folder in (here, *(here.parents[1] / "userfw" / name for name in ("nft", "ruleset", "engine"))):
        for path in sorted(folder.rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


class Worker:
    """A process with a laboratory, and what it was asked and has not answered."""

    def __init__(self, plan: Plan, cpu: int, accepted: Accepted | None) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.cpu, self.tasks = cpu, list[tuple[str, Any]]()
        self.process = context.Process(target=serve, args=(theirs, plan, cpu, accepted), daemon=True)
        self.process.start()
        theirs.close()

    def give(self, task: tuple[str, Any]) -> None:
        """Another task."""
        self.tasks.append(task)
        self.pipe.send(task)

    def dismiss(self) -> None:
        """Let it take its laboratory down."""
        with contextlib.suppress(OSError):
            self.pipe.send(("end", None))
        self.process.join(30)
        if self.process.is_alive():
            self.process.terminate()
            self.process.join()


def serve(pipe: Connection, plan: Plan, cpu: int, accepted: Accepted | None) -> None:
    """The life of a worker. An exception in a case is its finding; the next case has a new laboratory."""
    examiner = Examiner(plan.seed, plan.steps, cpu, plan.everyday)
    if accepted:
        examiner.learn(accepted)
    try:
        while True:
            kind, what = pipe.recv()
            if kind == "end":
                return
            if kind == "learn":
                examiner.learn(what)
            elif kind == "probe":
                pipe.send(probe_place(examiner.kernel, examiner.engine, what))
            else:
                try:
                    pipe.send(examiner.examine(what))
                except Exception:
                    pipe.send(traceback.format_exc())
                    examiner.renew()
    except (EOFError, KeyboardInterrupt):
        pass
    finally:
        examiner.kernel.close()
