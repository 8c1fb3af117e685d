"""What memory alone costs on this machine: random reads of cache lines in half a gigabyte, one after the other and overlapped.

It bounds what a packet of a million connections can cost. A few lines of C, compiled when a C compiler is there: nothing else sees
the wait for a single cache line.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

LINES = 8 << 20  # of 64 bytes
SOURCE = r"""
#include <stdint.h>
#include <stdlib.h>
#include <time.h>
static double now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec * 1e9 + t.tv_nsec; }
/* ns for each of n reads of a random line; ahead: the lines of so many reads are asked for before the first of them is used. */
double reads(char *memory, uint64_t lines, int n, int ahead)
{
    uint64_t seed = 88172645463325252ULL, place[64], sum = 0;
    double began = now();
    for (int done = 0; done < n; done += ahead) {
        for (int i = 0; i < ahead; i++) {
            seed ^= seed << 13; seed ^= seed >> 7; seed ^= seed << 17;
            place[i] = ((seed + sum) & (lines - 1)) * 64;
            if (ahead > 1) __builtin_prefetch(memory + place[i]);
        }
        for (int i = 0; i < ahead; i++) sum += *(volatile uint64_t *)(memory + place[i]);
    }
    return (now() - began) / n + (sum == 1);
}
"""


def random_reads() -> dict[str, float]:
    """Nanoseconds of a random read; nothing without a C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        print("memory: not measured, no C compiler (Debian: gcc)", file=sys.stderr)
        return {}
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder, "reads.c"), Path(folder, "reads.so")
        source.write_text(SOURCE)
        subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
        reads = ctypes.CDLL(str(library)).reads
        reads.restype, reads.argtypes = ctypes.c_double, [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_int, ctypes.c_int]
        memory = ctypes.create_string_buffer(LINES * 64)
        rows = {}
        for name, ahead in (("waiting for each", 1), ("8 overlapped", 8), ("64 overlapped", 64)):
            rows[f"a random cache line, {name}"] = min(reads(memory, LINES, 1 << 20, ahead) for _ in range(5))
        return rows
