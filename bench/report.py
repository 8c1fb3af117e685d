"""What a benchmark found: the table with medians, spreads and ratios; JSON; the plot."""

import datetime
import json
import os
import platform
from collections.abc import Iterator, Mapping
from pathlib import Path

from .stats import bars, summary

RESULTS = Path(__file__).with_name("results")
PLOTTED = ("TCP, 1 connection", "TCP, 8 connections", "60-byte UDP", "new connections", "round trip", "round trip, 99 %",
           "CPU, whole machine", "CPU, whole machine, small packets", "1,000 linear rules", "TCP under SYN flood",
           "start to forwarding")


class Results:
    """Values by row and by who was measured, in the order they came; the first of a row is what the others are compared with."""

    def __init__(self, units: Mapping[str, str], generators: Mapping[str, str], rounds: int) -> None:
        self.units, self.generators, self.rounds = units, generators, rounds
        self.values: dict[str, dict[str, list[float]]] = {}
        self.trouble: list[str] = []

    def add(self, who: str, what: str, value: float) -> None:
        """One figure of one round."""
        self.values.setdefault(what, {}).setdefault(who, []).append(value)

    def lines(self) -> list[str]:
        """The table: median, lowest and highest, ratio of medians."""
        found = [f"{'':<34} {'':<28} {'median':>12} {'':<10} lowest to highest   ratio"]
        for what in (row for row in self.units if row in self.values):
            base = ""
            for who, list_ in self.values[what].items():
                one = summary(list_)
                ratio = ""
                if base:
                    reference = summary(self.values[what][base])["median"]
                    ratio = f"{one['median'] / reference:.2f} of {base}" if reference else ""  # type: ignore[operator]
                found.append(f"{what:<34} {who:<28} {one['median']:>12,.4g} {self.units[what]:<10} "
                             f"{one['low']:,.4g} to {one['high']:,.4g}   {ratio}")
                base = base or who
            found += [f"{'':<34} {who} is {factor:.1f} times {other}" for who, other, factor in self._beside(what)]
        return found

    def _beside(self, what: str) -> Iterator[tuple[str, str, float]]:
        """userfw beside the other user-space datapaths, in rows where more is better."""
        if self.units[what].endswith("/s") or self.units[what] == "Gbit/s":
            by = self.values[what]
            for who in (name for name in by if name.startswith("userfw")):
                for other in (name for name in by if name.startswith(("Open vSwitch", "pasta"))):
                    one, two = summary(by[who])["median"], summary(by[other])["median"]
                    if two:
                        yield who, other, one / two  # type: ignore[operator]

    def document(self) -> dict[str, object]:
        """All of it, for JSON."""
        machine = {"kernel": platform.release(), "cpus": os.cpu_count(), "python": platform.python_version(),
                   "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), "load": os.getloadavg()[2]}
        return {"machine": machine, "rounds": self.rounds, "units": dict(self.units), "generators": dict(self.generators),
                "results": {what: {who: summary(list_) for who, list_ in by.items()} for what, by in self.values.items()},
                "trouble": self.trouble}

    def plot(self) -> str:
        """The rows of PLOTTED as bars."""
        groups = {}
        for what in (row for row in PLOTTED if row in self.values):
            summaries = {who: summary(list_) for who, list_ in self.values[what].items()}
            groups[f"{what} ({self.units[what]})"] = {
                who: (float(s["median"]), float(s["low"]), float(s["high"])) for who, s in summaries.items()}  # type: ignore[arg-type]
        return bars(f"Medians of {self.rounds} rounds ({platform.release()}, {os.cpu_count()} CPUs)", "", groups)

    def write(self, *more: Path | None) -> int:
        """Print the table, write JSON and plot to bench/results and to `more` (JSON, plot). 1 if a row could not be measured."""
        print()
        print("\n".join(self.lines()))
        print("\ntraffic from:")
        for what, how in self.generators.items():
            print(f"  {what}: {how}")
        for line in self.trouble:
            print(f"not measured: {line}")
        RESULTS.mkdir(exist_ok=True)
        texts = json.dumps(self.document(), indent=1) + "\n", self.plot()
        for name, text, other in zip(("forwarding.json", "forwarding.svg"), texts, more, strict=True):
            for path in (RESULTS / name, other):
                if path is not None:
                    path.write_text(text)
                    print(f"written: {path}")
        return int(bool(self.trouble))
