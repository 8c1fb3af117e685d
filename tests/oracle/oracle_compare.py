"""Blocks of nft-py through the interpreter and through the engine, on the same random packets.

``python tests/oracle/oracle_compare.py`` prints how many blocks agree, and why others cannot be run; ``--packets N`` for each
block, ``--seed N``, parts of file names choose files, ``-v`` shows what differs.
"""

from __future__ import annotations

import argparse
import copy
import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "nft"))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import corpus
from oracle_engine import EngineSide, connection_state, zone_of
from oracle_frames import NOW, Case, Generator
from oracle_machine import Machine, Program
from oracle_program import KeySet, Unsupported, named_set, step
from oracle_skb import Break, Skb
from oracle_surroundings import Surroundings
from oracle_wants import Wants

SEED: Final = 20261
PACKETS: Final = 4
PROBE: Final = "counter"


@dataclass
class Tally:
    """Blocks that agree, of how many; `reasons` why others cannot be run; `packets` compared, `acted` how many of them had the rule
    do something."""

    blocks: int = 0
    run: int = 0
    agree: int = 0
    packets: int = 0
    acted: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)


@dataclass
class Job:
    """One block at one chain of its file."""

    block: corpus.PayloadBlock
    line: corpus.Line
    table: corpus.Table
    chain: corpus.Chain

    @property
    def hook(self) -> str:
        return self.chain.spec.split(" hook ")[1].split()[0]


def jobs(test: corpus.TestFile) -> Iterator[Job]:
    """Every payload block of a file's accepted rules with the chains that it stands for."""
    for line in test.lines:
        if line.kind != "rule" or not line.ok:
            continue
        seen: set[int] = set()
        for table in line.tables:
            block = corpus.payload_block(test, table.family, line.text)
            for chain in table.chains:
                if block is not None and chain.spec and id(block) not in seen:
                    yield Job(block, line, table, chain)
            if block is not None:
                seen.add(id(block))


class World:
    """A test file's tables in userfw, and its named sets as the interpreter reads them."""

    def __init__(self, test: corpus.TestFile) -> None:
        self.engine = EngineSide()
        self.declared: dict[tuple[str, str], str] = {}
        self.elements: dict[tuple[str, str], list[str]] = {}
        self.objects: dict[str, str] = {}
        for line in test.lines:
            for table in line.tables:
                self._table(table)
                if line.kind == "set" and line.ok:
                    name, _, rest = line.text.partition(" ")
                    self.declared[table.name, name] = rest
                if line.kind == "elements" and line.ok:
                    name, _, rest = line.text.partition(" ")
                    self.elements.setdefault((table.name, name), []).append(rest)
            if line.kind == "object" and line.ok:
                name, _, rest = line.text.partition(" type ")
                self.objects[name] = rest.strip()
        self.test = test

    def _table(self, table: corpus.Table) -> None:
        text = f"add table {table.family} {table.name}\n"
        for chain in table.chains:
            spec = f" {{ {chain.spec}; }}" if chain.spec else ""
            text += f"add chain {table.family} {table.name} {chain.name}{spec}\n"
        failure = self.engine.run(text)
        assert not failure, failure

    def named(self, job: Job, now: int) -> dict[str, KeySet]:
        """The named sets that the block refers to."""
        text = " ".join(job.block.lines)
        names = {name for name in re.findall(r"set (\w+)", text) if (job.table.name, name) in self.declared}
        place = job.table.name
        return {name: named_set(self.declared[place, name], self.elements.get((place, name), []), now) for name in names}

    def reset(self, job: Job, names: dict[str, KeySet]) -> bool:
        """Named sets as their lines say, and the rule alone in its table. True if it could be given a counter at its end, which
        makes it visible whether everything before it held."""
        table = f"{job.table.family} {job.table.name}"
        text = f"flush table {table}\nreset counters table {table}\nreset quotas table {table}\n"
        for name in names:
            text += f"flush {'map' if ' : ' in self.declared[job.table.name, name] else 'set'} {table} {name}\n"
            for elements in self.elements.get((job.table.name, name), []):
                text += f"add element {table} {name} {{ {elements} }}\n"
        rule = f"add rule {table} {job.chain.name} {job.line.text}"
        if not self.engine.run(f"{text}{rule} {PROBE}"):
            return True
        failure = self.engine.run(text + rule)
        if failure:
            raise Unsupported(f"userfw refuses the rule: {failure}")
        return False


def declare(world: World) -> None:
    """The sets and objects of the file, before its rules."""
    import conformance

    for line in world.test.lines:
        if line.kind != "rule" and line.ok:
            for table in line.tables:
                world.engine.run(conformance.declare(line, table.family, table.name))


def run_file(test: corpus.TestFile, packets: int = PACKETS, seed: int = SEED) -> Tally:
    """All blocks of a file."""
    tally = Tally()
    world = World(test)
    declare(world)
    found: dict[int, list[Job]] = {}
    for job in jobs(test):
        found.setdefault(id(job.block), []).append(job)
    for group in found.values():
        tally.blocks += 1
        rng = Random(f"{seed} {test.name} {group[0].line.text} {group[0].table.family}")
        try:
            problems = [text for job in group for text in run_block(world, job, -(-packets // len(group)), rng, tally)]
        except Unsupported as reason:
            tally.reasons[str(reason)] += 1
            continue
        tally.run += 1
        tally.agree += not problems
        if problems:
            job = group[0]
            place = f"{test.name}:{job.line.number} [{job.table.family} {job.chain.name}] {job.line.text}"
            tally.failures.append(f"{place}\n    " + problems[0])
    return tally


def run_block(world: World, job: Job, packets: int, rng: Random, tally: Tally) -> list[str]:
    """What differs, packet by packet."""
    named = world.named(job, NOW)
    program = Program(job.block.lines, job.block.header, named, world.objects, job.line.text)
    generator = Generator(Wants(program.lines, program.sets), job.table.family, job.hook, rng)
    generator.whole = any(word in " ".join(job.block.lines) for word in ("synproxy", "tproxy"))
    world.engine.enter(Surroundings(None, None, [], NOW))
    if world.reset(job, named):
        program.steps.append(step("[ counter pkts 0 bytes 0 ]"))
    for name in named:
        program.state["sizes", name] = world.engine.sizes(job.table.family, job.table.name, name)
    problems, made, tried = [], 0, 0
    while (made < packets and tried < packets * 40) or (not made and tried < 4000):
        tried += 1
        outcome = run_packet(world, job, program, generator.case())
        if outcome is None:
            continue
        made += 1
        tally.packets += 1
        tally.acted += outcome[1]
        if outcome[0]:
            problems.append(outcome[0])
    if not made:
        raise Unsupported("no packet of the generator reaches the hook")
    return problems


def run_packet(world: World, job: Job, program: Program, case: Case) -> tuple[str, bool] | None:
    """What differs (empty: nothing) and whether the rule did anything; None if the packet does not come so far."""
    engine = world.engine
    engine.enter(copy.deepcopy(case.world))
    pkt = engine.packet(case.frame, case.link, case.world)
    if pkt is None:
        return None
    skb = Skb(case.frame, copy.deepcopy(case.world), job.table.family, job.hook, case.link)
    machine = Machine(program, skb)
    try:
        want_verdict = machine.run()
    except Break:
        want_verdict = "next"
    if want_verdict in ("jump", "goto", "return", "next"):
        want_verdict = "next"
    got_verdict = engine.evaluate(job.table.family, job.table.name, job.chain.name, job.hook, pkt)
    want = {"verdict": want_verdict, **seen(machine)}
    got = {"verdict": got_verdict, **engine_seen(engine, job, pkt, program)}
    _queues(want["effects"], got["effects"])
    differ = [f"{key}: engine {_show(got[key])}, oracle {_show(want[key])}" for key in want if want[key] != got[key]]
    if not differ:
        return "", want_verdict != "next" or want["frame"] != case.frame or bool(machine.effects)
    return f"{'; '.join(differ)}\n    frame {case.frame.hex()}\n    {case.world}", True


def seen(machine: Machine) -> dict[str, Any]:
    """What the interpreter's run left behind."""
    skb, conn = machine.skb, machine.world.ct
    effects = [effect for effect in machine.effects if effect[0] not in ("counter", "zone", "notrack")]
    zone = [effect for effect in machine.effects if effect[0] == "zone"]
    sets = {name: {(m.key, m.data) for m in entry.members} for name, entry in machine.program.sets.items() if entry.named}
    states = machine.program.state
    counters = [states[at] for at in range(len(machine.program.steps)) if at in states and _counts(machine, at)]
    return {
        "frame": bytes(skb.data),
        "mark": (skb.mark, skb.priority, skb.secmark, skb.pkttype, skb.trace),
        "ct": (conn.mark, conn.secmark, conn.labels, conn.events) if conn is not None else (),
        "zone": zone[-1] if zone else None,
        "effects": effects,
        "sets": sets if any("dynset" in line for line in machine.program.lines) else {},
        "counters": counters,
    }


def _counts(machine: Machine, at: int) -> bool:
    return machine.program.steps[at][1].re.pattern.startswith("counter")


def engine_seen(engine: EngineSide, job: Job, pkt: Any, program: Program) -> dict[str, Any]:
    family, table = job.table.family, job.table.name
    sets = {}
    if any("dynset" in line for line in job.block.lines):
        sets = {name: engine.elements(family, table, name) for name, entry in program.sets.items() if entry.named}
    counters = [count for count in engine.counters(family, table, job.chain.name) if any(count)]
    counters += [count for count in engine.objects(family, table) if any(count)]
    return {
        "frame": pkt.frame(),
        "mark": (pkt.mark, pkt.priority, pkt.secmark, pkt.pkttype, pkt.trace),
        "ct": connection_state(pkt),
        "zone": zone_of(pkt),
        "effects": list(engine.services.effects),
        "sets": sets,
        "counters": counters,
    }


def _queues(want: list[tuple[Any, ...]], got: list[tuple[Any, ...]]) -> None:
    """A queue chosen by a flow's hash: any of the range is right."""
    for mine, effect in zip(want, got, strict=False):
        if mine[0] == effect[0] == "queue" and mine[1] <= effect[1] <= mine[2] and mine[3] == effect[2]:
            want[want.index(mine)] = effect


def _show(value: Any) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


def run(parts: list[str] | None = None, packets: int = PACKETS, seed: int = SEED) -> dict[str, Tally]:
    """A tally for each file that has blocks."""
    found = {}
    for test in corpus.test_files():
        if not parts or any(part in test.name for part in parts):
            tally = run_file(test, packets, seed)
            if tally.blocks:
                found[test.name] = tally
    return found


def total(tallies: dict[str, Tally]) -> Tally:
    result = Tally()
    for tally in tallies.values():
        for name in ("blocks", "run", "agree", "packets", "acted"):
            setattr(result, name, getattr(result, name) + getattr(tally, name))
        result.reasons += tally.reasons
        result.failures += tally.failures
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description="Payload blocks: a small interpreter against the engine.")
    parser.add_argument("parts", nargs="*", help="parts of file names")
    parser.add_argument("--packets", type=int, default=PACKETS, help="packets for each block")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("-v", "--verbose", action="store_true", help="show what differs")
    options = parser.parse_args()
    if not corpus.available():
        print(f"no conformance data at {corpus.ROOT}")
        return 0
    result = total(run(options.parts, options.packets, options.seed))
    if options.verbose:
        print("\n".join(result.failures))
    print(summary(result))
    return int(result.agree < result.run)


def summary(result: Tally) -> str:
    lines = [f"{result.agree} of {result.run} blocks agree, {result.packets} packets ({result.acted} on which a rule acted)"]
    lines += [f"  {count:4} of {result.blocks} cannot be run: {reason}" for reason, count in result.reasons.most_common()]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
