"""Instructions per packet by callgrind: a guard that does not depend on how fast or busy the machine is.

`python -m bench.instructions` counts and compares with `bench/instructions.json`; `--record` writes new bounds, to be done only
with a reason. Counting is on only while `Gateway.receive_batch` runs.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

RUNGS = ("plain", "pipeline", "tcp", "flowtable", "new")
BOUNDS = Path(__file__).with_name("instructions.json")
SLACK = 1.10  # compilers differ a little
PACKETS = 6400
INSIDE = "__pyx_f_6userfw_6router_5batch_7Batches_receive_batch"


def workload(rung: str) -> None:
    """Runs under callgrind: PACKETS packets of one kind."""
    from bench.engine import BATCH, FLOWTABLE, MASQUERADE, TEN_RULES, Bench, datagram, flows

    more = {"plain": "", "flowtable": TEN_RULES + MASQUERADE + FLOWTABLE}
    bench = Bench(more.get(rung, TEN_RULES + MASQUERADE))
    if rung == "new":
        bench.once([datagram(*flow) for flow in flows(PACKETS)])
        return
    some = flows(BATCH)
    if rung == "tcp":
        bench.run(bench.port(bench.establish_tcp(some)), PACKETS // BATCH)
        return
    frames = [datagram(*flow) for flow in some] if rung == "plain" else bench.establish(some, nat=True)
    bench.run(bench.port(frames), PACKETS // BATCH)


def per_packet(rung: str) -> float:
    """Instructions of a packet. RuntimeError with valgrind's words."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["valgrind", "--tool=callgrind", f"--toggle-collect={INSIDE}", f"--callgrind-out-file={folder}/out"]
        done = subprocess.run(
            [*command, sys.executable, "-m", "bench.instructions", "--workload", rung],
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHONHASHSEED": "0"},
            check=False,
        )
        found = re.search(r"Collected : (\d+)", done.stderr)
        if done.returncode or not found or found[1] == "0":
            raise RuntimeError(done.stderr[-2000:])
        return int(found[1]) / PACKETS


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.instructions")
    parser.add_argument("--record", action="store_true", help="write the bounds")
    parser.add_argument("--workload", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.workload:
        workload(options.workload)
        return 0
    figures = {rung: round(per_packet(rung)) for rung in RUNGS}
    if options.record:
        BOUNDS.write_text(json.dumps(figures, indent=2) + "\n")
    bounds = json.loads(BOUNDS.read_text())
    bad = 0
    for rung, figure in figures.items():
        over = figure > bounds[rung] * SLACK
        bad += over
        print(f"{rung:10} {figure:7,} instructions per packet, bound {bounds[rung] * SLACK:7,.0f}{'  EXCEEDED' if over else ''}")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
