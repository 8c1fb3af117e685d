"""`python -m fuzz`: a campaign of the differential test; see `make differential`.

    make differential                                       a million packets over at least 5,000 rulesets
    make differential ARGS='--minutes 60 --seed 7'          for an hour
    make differential ARGS='--seed 7 --case 4711'           one case again, alone
    make differential ARGS='--again FILE.case'              a shrunk case again
"""

import argparse
import os
import pickle
import sys
from pathlib import Path

from .campaign import Campaign, Plan
from .coverage import verdict
from .examine import EVERYDAY, Examiner


def main() -> int:
    """Exit status 0 only if nothing differs without an explanation and everything loaded was reached."""
    parser = argparse.ArgumentParser(prog="fuzz", description="Random rulesets and frames through the kernel and through userfw.")
    add = parser.add_argument
    add("--seed", type=int, default=1, help="which cases (default 1)")
    add("--packets", type=int, default=1_000_000, help="go on until so many were sent through both (default a million)")
    add("--rulesets", type=int, default=5_000, help="and so many rulesets were loaded (default 5000)")
    add("--steps", type=int, default=200, help="steps through each ruleset; a step sends one packet, or a few (default 200)")
    add("--everyday", type=int, default=EVERYDAY, help="one case in so many is of the everyday generator (default %(default)s)")
    add("--minutes", type=float, default=0, help="instead of --packets and --rulesets: go on for so long")
    add("--jobs", type=int, default=os.cpu_count() or 1, help="processes, each with a laboratory (default: one per processor)")
    add("--findings", type=int, default=20, help="give up after so many unexplained differences (default 20)")
    add("--first", type=int, default=0, help="begin with this case (default 0)")
    add("--case", type=int, default=None, help="this case of the seed alone; no demands on coverage")
    add("--folder", type=Path, default=Path(".make/differential"), help="where differences are written")
    add("--again", type=Path, nargs="+", default=(), help="only these shrunk cases")
    asked = parser.parse_args()
    if asked.again:
        return again(asked.again)
    alone = asked.case is not None
    plan = Plan(seed=asked.seed, packets=1 if alone else asked.packets, rulesets=1 if alone else asked.rulesets,
                steps=asked.steps, everyday=asked.everyday, jobs=1 if alone else asked.jobs,
                minutes=0 if alone else asked.minutes, findings=asked.findings,
                first=asked.case if alone else asked.first, only=alone, folder=asked.folder)
    account = Campaign(plan, lambda line: print(line, flush=True)).run()
    problems = verdict(account, strict=not alone and plan.first == 0)
    print(account.summary(), *problems, sep="\n", flush=True)
    return int(bool(problems))


def again(paths: list[Path]) -> int:
    """Shrunk cases once more; 1 if any still differs."""
    examiner, bad = Examiner(0, 0), 0
    try:
        for path in paths:
            found = examiner.differs(pickle.loads(path.read_bytes()), times=1)
            bad += found is not None
            print(f"{path.name}: {found or 'the same'}", flush=True)
    finally:
        examiner.kernel.close()
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
