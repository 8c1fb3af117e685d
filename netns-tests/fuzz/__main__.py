"""`python -m fuzz`: a campaign of the differential test; see `make differential`.

    make differential                                       a million packets over at least 5,000 rulesets
    make differential ARGS='--minutes 60 --seed 7'          for an hour
    make differential ARGS='--seed 7 --case 4711'           one case again, alone
"""

import argparse
import os
import sys
from pathlib import Path

from .campaign import Campaign, Plan
from .coverage import verdict
from .examine import EVERYDAY


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
    asked = parser.parse_args()
    alone = asked.case is not None
    plan = Plan(seed=asked.seed, packets=1 if alone else asked.packets, rulesets=1 if alone else asked.rulesets,
                steps=asked.steps, everyday=asked.everyday, jobs=1 if alone else asked.jobs,
                minutes=0 if alone else asked.minutes, findings=asked.findings,
                first=asked.case if alone else asked.first, only=alone, folder=asked.folder)
    account = Campaign(plan, lambda line: print(line, flush=True)).run()
    problems = verdict(account, strict=not alone and plan.first == 0)
    print(account.summary(), *problems, sep="\n", flush=True)
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
