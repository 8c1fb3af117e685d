"""How fast userfw forwards, beside the kernel (veth, nf_tables, conntrack, masquerade) and, where they are installed, Open vSwitch
and pasta: real traffic in namespaces, in turns, medians of several rounds.

    make bench                                             all rows, about half an hour
    make bench ARGS='--rounds 5 --seconds 4 --json FILE'
    make bench ARGS='--rows TCP trip --only kernel tap'    some rows, some routers (any part of a name)

Results go to bench/results: forwarding.json and forwarding.svg; `--plot docs/forwarding.svg` is what the README shows.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from lab import netns
from lab.families import IP4
from lab.topology import Lab

from . import load, report, special
from .routers import ROUTERS, daemon_pid

# The rows of each load, which is put on when any of them is asked for.
TCP_ONE = ("TCP, 1 connection", "CPU, whole machine", "CPU, daemon")
SMALL = ("60-byte UDP", "CPU, whole machine, small packets", "CPU, daemon, small packets")
TRIP = ("round trip", "round trip, 99 %")
MEASURES = {
    "TCP, 1 connection": "Gbit/s", "TCP, 8 connections": "Gbit/s", "60-byte UDP": "packets/s", "new connections": "1/s",
    "new, ports clash": "1/s", "round trip": "µs", "round trip, 99 %": "µs", "CPU, whole machine": "s/GB", "CPU, daemon": "s/GB",
    "CPU, whole machine, small packets": "s/Mpacket", "CPU, daemon, small packets": "s/Mpacket", **special.UNITS,
}
GENERATORS = {
    "TCP": "iperf3",
    "60-byte UDP, linear rules": "bench.generator: sendmmsg(2) on a packet socket, one established flow; counted at wan's sockets",
    "new connections": "bench.generator: every packet the first of a connection",
    "round trip": "ping -A: the next request when the answer is there",
    "SYN flood": "bench.blast: sendmmsg(2), 100,000 kinds of SYN from a third network to a port that is silent",
}


def measure(lab: Lab, seconds: float, connections: int, rows: frozenset[str]) -> Iterator[tuple[str, float]]:
    """The rows that are asked for, once, on a laboratory that is up; each as soon as it is there."""
    pid = daemon_pid(lab)
    with lab.live():
        if rows.intersection(TRIP):
            netns.run(["ping", "-q", "-c", "2", "-i", "0.2", IP4.wan], ns=lab.ns("lan"))
            yield from zip(TRIP, load.round_trip(lab), strict=True)
        if rows.intersection(TCP_ONE):
            yield from zip(TCP_ONE, load.tcp(lab, 1, seconds, pid), strict=True)
        if "TCP, 8 connections" in rows:
            yield "TCP, 8 connections", load.tcp(lab, 8, seconds, pid)[0]
        if rows.intersection(SMALL):
            before = load.datagrams(lab)
            with load.costs(pid) as cost:
                speed = load.packets_per_second(lab, seconds)
            millions = max(load.datagrams(lab) - before, 1) / 1e6
            yield from zip(SMALL, (speed, cost.machine / millions, cost.daemon / millions), strict=True)
        for row, clash in (("new connections", False), ("new, ports clash", True)):
            if row in rows:
                lab.router.forget()
                yield row, load.connections_per_second(lab, connections, clash=clash)


def chosen(words: list[str] | None, names: list[str], what: str) -> list[str]:
    """The names that contain one of the words; SystemExit if a word fits none."""
    for word in words or ():
        if not any(word.lower() in name.lower() for name in names):
            raise SystemExit(f"no {what} is called {word!r}; there are: {'; '.join(names)}")
    return [name for name in names if not words or any(word.lower() in name.lower() for word in words)]


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4, help="of each load")
    parser.add_argument("--connections", type=int, default=100_000, help="opened for `new connections`")
    parser.add_argument("--only", nargs="*", metavar="ROUTER", help="only routers whose name contains one of these")
    parser.add_argument("--rows", nargs="*", metavar="ROW", help="only rows whose name contains one of these")
    parser.add_argument("--list", action="store_true", help="list the names and exit")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the JSON here as well")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write the plot here as well")
    return parser.parse_args()


def main() -> int:
    """Command line."""
    args = arguments()
    routers = chosen(args.only, list(ROUTERS), "router")
    rows = frozenset(chosen(args.rows, list(MEASURES), "row"))
    if args.list:
        print("routers:", *ROUTERS, "rows:", *(f"{row} ({unit})" if unit else row for row, unit in MEASURES.items()), sep="\n  ")
        return 0
    if os.geteuid():
        print("the benchmark makes network namespaces: run it as root", file=sys.stderr)
        return 2
    netns.exit_on_sigterm()
    for name in list(routers):
        if ROUTERS[name].missing():
            print(f"left out: {name}: not installed: {ROUTERS[name].missing()}")
            routers.remove(name)
    load_now, cpus = os.getloadavg()[0], os.cpu_count() or 1
    if load_now > cpus / 2:
        print(f"the machine is busy (load {load_now:.1f} on {cpus} CPUs): rates will say who got the processor")
    results = report.Results(MEASURES, GENERATORS, args.rounds)
    began = time.monotonic()
    for number in range(args.rounds):
        say = Progress(number, args.rounds, began)
        for name in routers:  # in turns: what the machine does meanwhile meets all of them
            say.step(name)
            here = rows & (ROUTERS[name].only or rows)
            if here.difference(special.UNITS):
                one_router(name, args.seconds, args.connections, here, results, say)
        for section, work in special.SECTIONS.items():
            if rows.intersection(special.ROWS[section]):
                say.step(section)
                for who, what, value in work(args.seconds):
                    if what in rows:
                        results.add(who, what, value)
                        say.value(who, what, value, MEASURES[what])
    return results.write(args.json, args.plot)


def one_router(name: str, seconds: float, connections: int, rows: frozenset[str], results: report.Results, say: "Progress") -> None:
    """A round of one router; a load that fails is said and left out, the others go on."""
    lab = ROUTERS[name].start()
    try:
        for what, value in measure(lab, seconds, connections, rows):
            if what in rows:
                results.add(name, what, value)
                say.value(name, what, value, MEASURES[what])
    except (AssertionError, netns.CommandError) as error:
        print(f"  {name}: {str(error).splitlines()[0]}", flush=True)
        results.trouble.append(f"{name}: {str(error).splitlines()[0]}")
    finally:
        lab.stop()


class Progress:
    """What is being done, with the time since the start."""

    def __init__(self, number: int, rounds: int, began: float) -> None:
        self.number, self.rounds, self.began = number, rounds, began

    def step(self, name: str) -> None:
        """The next router or section."""
        print(f"[{time.monotonic() - self.began:5.0f} s] round {self.number + 1} of {self.rounds}: {name}", flush=True)

    def value(self, who: str, what: str, value: float, unit: str) -> None:
        """One figure."""
        print(f"           {who:<28} {what:<34} {value:>12,.4g} {unit}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
