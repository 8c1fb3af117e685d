"""How fast userfw forwards, beside the kernel: veth with nf_tables, conntrack and masquerade; userfw TAP to TAP; by packet sockets.

    make bench ARGS='--rounds 5 --seconds 4'

Results go to bench/results: forwarding.json and forwarding.svg.
"""

import argparse
import datetime
import json
import os
import platform
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from lab import netns
from lab.families import IP4
from lab.kernel import KernelRouter
from lab.topology import SIDES, Lab
from lab.userfw import UserfwRouter

from . import load
from .stats import bars, summary

RESULTS = Path(__file__).with_name("results")
RULES = """table inet gateway {
    %s
    chain forward {
        type filter hook forward priority filter; policy drop;
        %s
        ct state established,related accept
        iifname "lan" oifname "wan" accept
    }
    chain postrouting { type nat hook postrouting priority srcnat; oifname "wan" masquerade; }
}
"""
FLOWTABLE = "flowtable fast { hook ingress priority filter; devices = { lan, wan }; }"
ENTER = "meta l4proto { tcp, udp } ct state established flow add @fast"
MEASURES = {
    "TCP, 1 connection": "Gbit/s", "TCP, 8 connections": "Gbit/s", "60-byte UDP": "packets/s", "new connections": "1/s",
    "new, ports clash": "1/s", "round trip": "µs", "round trip, 99 %": "µs", "CPU, whole machine": "s/GB", "CPU, daemon": "s/GB",
}


def kernel() -> Lab:
    """The running kernel with veths."""
    sides = {name: replace(SIDES[name], mtu=1500) for name in ("lan", "wan")}
    lab = Lab(KernelRouter(), sides, exact=False)
    lab.start()
    lab.router.load(RULES % ("", ""))
    return lab


def userfw(port: str, flowtable: bool) -> Lab:
    """The daemon with TAP ports with packet sockets or AF_XDP on veths."""
    sides = {name: replace(SIDES[name], mtu=1500, port=port) for name in ("lan", "wan")}
    rules = RULES % ((FLOWTABLE, ENTER) if flowtable else ("", ""))
    lab = Lab(UserfwRouter(rules, limits={"conntrack_max": 1_000_000}), sides, exact=False)
    lab.start()
    return lab


ROUTERS: dict[str, Callable[[], Lab]] = {
    "kernel, veth": kernel,
    "userfw, TAP to TAP": lambda: userfw("tap", True),
    "userfw, TAP, no flowtable": lambda: userfw("tap", False),
    "userfw, packet sockets": lambda: userfw("packet", True),
    "userfw, AF_XDP": lambda: userfw("xdp", True),
}


def measure(lab: Lab, seconds: float, connections: int) -> dict[str, float]:
    """All measures once on a laboratory that is up."""
    process = lab.router.process if isinstance(lab.router, UserfwRouter) else None
    pid = process.pid if process else None
    found: dict[str, float] = {}
    with lab.live():
        netns.run(["ping", "-q", "-c", "2", "-i", "0.2", IP4.wan], ns=lab.ns("lan"))
        found["round trip"], found["round trip, 99 %"] = load.round_trip(lab)
        speed, machine, daemon = load.tcp(lab, 1, seconds, pid)
        found.update({"TCP, 1 connection": speed, "CPU, whole machine": machine, "CPU, daemon": daemon})
        found["TCP, 8 connections"] = load.tcp(lab, 8, seconds, pid)[0]
        found["60-byte UDP"] = load.packets_per_second(lab, seconds)
        lab.router.forget()
        found["new connections"] = load.connections_per_second(lab, connections)
        lab.router.forget()
        found["new, ports clash"] = load.connections_per_second(lab, connections, clash=True)
    return found


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--connections", type=int, default=100_000)
    parser.add_argument("--only", nargs="*", choices=ROUTERS, help="only these routers")
    args = parser.parse_args()
    if os.geteuid():
        print("the benchmark makes network namespaces: run it as root", file=sys.stderr)
        return 2
    names = args.only or list(ROUTERS)
    values: dict[str, dict[str, list[float]]] = {name: {} for name in names}
    for number in range(args.rounds):
        for name in names:  # in turns: what the machine does meanwhile meets all of them
            lab = ROUTERS[name]()
            try:
                found = measure(lab, args.seconds, args.connections)
            finally:
                lab.stop()
            for what, value in found.items():
                values[name].setdefault(what, []).append(value)
            line = ", ".join(f"{what} {value:,.4g} {MEASURES[what]}" for what, value in found.items())
            print(f"round {number + 1}: {name:<28} {line}", flush=True)
    return report(values)


def report(values: dict[str, dict[str, list[float]]]) -> int:
    """Print medians, spreads and ratios; write JSON and SVG."""
    results = {name: {what: summary(list_) for what, list_ in measures.items()} for name, measures in values.items()}
    base = next(iter(results))
    print()
    for what, unit in MEASURES.items():
        for name, measures in results.items():
            if what in measures:
                one = measures[what]
                other = results[base].get(what, one)["median"]
                ratio = f"{float(one['median']) / float(other):.2f} of {base}" if name != base and other else ""  # type: ignore[arg-type]
                print(f"{what:<20} {name:<28} {one['median']:>12,.4g} {unit:<10} ({one['low']:,.4g} to {one['high']:,.4g}) {ratio}")
    RESULTS.mkdir(exist_ok=True)
    machine = {"kernel": platform.release(), "cpus": os.cpu_count(), "python": platform.python_version(),
               "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")}
    (RESULTS / "forwarding.json").write_text(json.dumps({"machine": machine, "units": MEASURES, "results": results}, indent=1))
    groups = {f"{what} ({unit})": {name: (float(m[what]["median"]), float(m[what]["low"]), float(m[what]["high"]))  # type: ignore[arg-type]
                                  for name, m in results.items() if what in m} for what, unit in MEASURES.items()}
    (RESULTS / "forwarding.svg").write_text(bars(
        f"Forwarding, medians of {max(map(len, next(iter(values.values())).values()))} rounds ({platform.release()}, "
        f"{os.cpu_count()} CPUs)", "", {what: series for what, series in groups.items() if series}))
    print(f"\nwritten: {RESULTS}/forwarding.json, forwarding.svg")
    return 0


if __name__ == "__main__":
    sys.exit(main())
