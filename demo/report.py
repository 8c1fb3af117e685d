"""The report of the demo: checks with their results as they are made, then figures."""

import sys
import time
from collections.abc import Callable


class Report:
    """Prints as it goes; `failed` counts the checks that did not hold."""

    def __init__(self) -> None:
        colour = sys.stdout.isatty()
        self.good, self.bad, self.bold, self.plain = ("\033[32m", "\033[31m", "\033[1m", "\033[0m") if colour else ("",) * 4
        self.held = self.failed = 0
        self.began = time.monotonic()

    def heading(self, text: str) -> None:
        """The title of a part."""
        print(f"\n{self.bold}{text}{self.plain}", flush=True)

    def line(self, text: str) -> None:
        """A line of figures."""
        print(f"  {text}", flush=True)

    def check(self, name: str, call: Callable[[], tuple[bool, str]]) -> bool:
        """Make a check: `call` returns (held, what was seen); an exception is a failure and its words are shown."""
        try:
            held, seen = call()
        except Exception as exc:
            held, seen = False, f"{type(exc).__name__}: {exc}"
        mark = f"{self.good}ok    {self.plain}" if held else f"{self.bad}FAILED{self.plain}"
        first, *more = seen.splitlines() or [""]
        print(f"  {mark} {name:<58} {first}", flush=True)
        for extra in more[:12] if not held else ():
            print(f"           {extra}", flush=True)
        self.held += held
        self.failed += not held
        return held

    def end(self) -> int:
        """The verdict; returns the exit status."""
        word = f"{self.good}all {self.held} checks held{self.plain}" if not self.failed else \
            f"{self.bad}{self.failed} of {self.held + self.failed} checks failed{self.plain}"
        print(f"\n{word} in {time.monotonic() - self.began:.0f} s", flush=True)
        return int(self.failed > 0)
