"""`userfw`: the command line."""
from __future__ import annotations

import sys


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    if argv[:2] == ["run", "-c"]:
        from userfw.daemon.main import run
        return run(argv[2], "--check" in argv)
    return 2
