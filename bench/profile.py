"""Where the instructions of a packet go, by room and by function: callgrind over the workloads of bench.instructions.

valgrind is in Debian; without it the profile says so. perf would need hardware counters, which virtual machines often lack.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from bench.instructions import INSIDE, PACKETS

SHOWN = 24
_LINE = re.compile(r"^\s*([\d,]+) \([\s\d.]+%\)\s+[^:]*:(\S+)")


def decoded(symbol: str) -> str:
    """`__pyx_f_6userfw_4core_6packet_6Packet_get16` is `core.packet.Packet.get16`; other symbols stay."""
    match = re.match(r"__pyx_(?:f|pw|pf|fuse_\d+)_(?:\d+__pyx_\w+?_)?", symbol)
    rest = symbol[match.end() :] if match else ""
    parts = []
    while found := re.match(r"(\d+)", rest):
        size = int(found[1])
        start = found.end()
        if len(rest) < start + size:
            break
        parts.append(rest[start : start + size])
        rest = rest[start + size + 1 :]
    if not parts or parts[0] != "userfw":
        return symbol
    return ".".join([*parts[1:], rest])


def counted(text: str) -> Counter[str]:
    """Instructions by function from what callgrind_annotate prints."""
    found: Counter[str] = Counter()
    for line in text.splitlines():
        match = _LINE.match(line)
        if match and match[2] not in ("TOTALS",):
            found[decoded(match[2].partition("'")[0])] += int(match[1].replace(",", ""))
    return found


def rooms(functions: Counter[str]) -> Counter[str]:
    """The same by room; what is not userfw's is Python, Cython's helpers or the C library."""
    found: Counter[str] = Counter()
    for name, count in functions.items():
        helper = name.lower().startswith("__pyx")
        room = name.partition(".")[0] if name[0].islower() and "." in name else "Python and libc"
        found["Cython's helpers" if helper else room] += count
    return found


def profile() -> dict[str, dict[str, float]]:
    """Tables for the pipeline, the flowtable and new connections."""
    missing = [tool for tool in ("valgrind", "callgrind_annotate") if shutil.which(tool) is None]
    if missing:
        print(f"profile: not made, {' and '.join(missing)} not installed (Debian: valgrind)", file=sys.stderr)
        return {}
    tables: dict[str, dict[str, float]] = {}
    for rung in ("pipeline", "flowtable", "new"):
        functions = _run(rung)
        if not functions:
            print(f"profile: callgrind counted nothing for {rung}: is userfw compiled?", file=sys.stderr)
            continue
        for title, counts in ((f"{rung}, by room", rooms(functions)), (f"{rung}, by function", functions)):
            tables[title] = {name: count / PACKETS for name, count in counts.most_common(SHOWN)}
    return tables


def _run(rung: str) -> Counter[str]:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out")
        subprocess.run(
            ["valgrind", "--tool=callgrind", f"--toggle-collect={INSIDE}", f"--callgrind-out-file={out}",
             sys.executable, "-m", "bench.instructions", "--workload", rung],
            capture_output=True, check=False, env=os.environ | {"PYTHONHASHSEED": "0"},
        )  # fmt: skip
        if not out.exists():
            return Counter()
        tool = ["callgrind_annotate", "--threshold=100", "--auto=no", str(out)]
        return counted(subprocess.run(tool, capture_output=True, text=True, check=False).stdout)
