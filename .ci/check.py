"""Run stages of checks (lint, unit, netns), all of them even after a failure; the last line counts what held.

Laws
- Every stage has a time limit; one that exceeds it counts as a failure and the next one runs.
- Exit status 0 only if nothing failed.
"""

import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PY = sys.executable
JUNIT = ROOT / ".make"
TYPED = ["netns-tests/lab", "netns-tests/fuzz", "demo",
         *(f"bench/{name}.py" for name in ("engine", "forwarding", "generator", "load", "offload", "stats"))]
SLOWEST = ["--durations=12", "--durations-min=5"]
# Limits in seconds. With two processors of its own a machine needs 10 s for lint, 80 for unit, 660 for netns.
STAGES: dict[str, list[tuple[list[str], int]]] = {
    "lint": [([PY, "-m", "ruff", "check", "."], 120), ([PY, "-m", "mypy"], 300), ([PY, "-m", "mypy", "--strict", *TYPED], 300)],
    "unit": [([PY, "-m", "pytest", "-q", "-n", "2", *SLOWEST, "tests"], 900)],
    "netns": [([PY, "-m", "pytest", "-q", "-c", "netns-tests/pytest.ini", *SLOWEST, "netns-tests"], 1800)],
}


def run(argv: list[str], limit: int, junit: Path) -> tuple[int, int, int]:
    """One command within `limit` seconds: (passed, failed, skipped); a command without a test report counts as one."""
    if "pytest" in argv:
        argv = [*argv, f"--junitxml={junit}"]
    print(f"--- {' '.join(Path(argv[0]).name if n == 0 else word for n, word in enumerate(argv))}", flush=True)
    began = time.monotonic()
    env = {**os.environ, "MYPYPATH": f"{ROOT}/netns-tests:{ROOT}/hw:{ROOT}/typings"}
    process = subprocess.Popen(argv, cwd=ROOT, env=env, start_new_session=True)
    try:
        code = process.wait(limit)
    except subprocess.TimeoutExpired:
        print(f"--- not done after {limit} s: stopped", flush=True)
        os.killpg(process.pid, signal.SIGINT)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        code = 124
    print(f"--- {'held' if code == 0 else f'exit {code}'} after {time.monotonic() - began:.0f} s", flush=True)
    if "pytest" not in argv:
        return (1, 0, 0) if code == 0 else (0, 1, 0)
    if not junit.exists():
        return 0, 1, 0
    suites = list(ET.parse(junit).getroot().iter("testsuite"))
    total, bad, skipped = (sum(int(suite.get(key, 0)) for suite in suites for key in keys)
                           for keys in (("tests",), ("failures", "errors"), ("skipped",)))
    return total - bad - skipped, max(bad, int(code not in (0, 5))), skipped


def main(names: list[str]) -> int:
    """Run the named stages; returns the exit status."""
    JUNIT.mkdir(exist_ok=True)
    counts = []
    began = time.monotonic()
    for name in names:
        for number, (argv, limit) in enumerate(STAGES[name]):
            junit = JUNIT / f"{name}-{number}.xml"
            junit.unlink(missing_ok=True)
            counts.append(run(argv, limit, junit))
    passed, failed, skipped = (sum(part) for part in zip(*counts, strict=True))
    print(f"--- {', '.join(names)}: {(time.monotonic() - began) / 60:.1f} minutes")
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or list(STAGES)))
