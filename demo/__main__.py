"""Bring up the laboratory with userfw in the middle, make all checks, report, take it down (or leave it up: KEEP=1)."""

import argparse
import os
import shutil
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

from lab import netns
from lab.families import IP4
from lab.kernel import KernelRouter
from lab.rules import masquerade
from lab.topology import SIDES, Lab
from lab.userfw import UserfwRouter

from .checks import Checks
from .figures import figures
from .offload import scene
from .report import Report
from .services import gigabits, services

RULESET = Path(__file__).with_name("gateway.nft")
WIDE = {name: replace(side, mtu=1500) for name, side in SIDES.items()}
NEEDED = ("ip", "nsenter", "ethtool", "iperf3", "curl", "ping", "ss")


def why_not() -> str | None:
    """Why the demo cannot run here, or None."""
    if os.geteuid():
        return "the demo makes network namespaces: run it as root"
    lacking = [tool for tool in NEEDED if not shutil.which(tool)]
    if lacking:
        return f"not installed: {', '.join(lacking)}"
    if not Path("/dev/net/tun").exists():
        return "there is no /dev/net/tun here: TAP devices need it"
    return None


def demonstrate(router_name: str, keep: bool) -> int:
    """The whole demo; returns the exit status. With `keep` it returns only when it is told to end."""
    ruleset = RULESET.read_text()
    if router_name == "kernel":  # to try the demo itself: this kernel may lack flowtables
        lab = Lab(KernelRouter(), WIDE, exact=False)
        ruleset = without_flowtable(ruleset)
    else:
        lab = Lab(UserfwRouter(ruleset), WIDE, exact=False)
    report = Report()
    print(f"userfw's demo: lan, dmz and wan by TAP, edge by veth and packet socket; rules from {RULESET.parent.name}/"
          f"{RULESET.name}", flush=True)
    lab.start()
    try:
        if router_name == "kernel":
            lab.router.load(ruleset)
        with lab.live(), services(lab) as hosts:
            hosts.web("wan", 80)
            hosts.web("wan", 25)
            hosts.web("dmz", 80)
            hosts.web("lan", 80)
            hosts.iperf("wan")
            checks = Checks(lab, hosts, report)
            checks.everything()
            if isinstance(lab.router, UserfwRouter):
                figures(lab, lab.router, hosts, report)
                checks.speeds["kernel"] = beside_the_kernel(report)
                compare(checks.speeds, report)
                scene(report)
            status = report.end()
            if keep:
                stay(lab)
    finally:
        lab.stop()
    return status


def without_flowtable(text: str) -> str:
    """The ruleset for a kernel without flowtables."""
    start, end = text.index("\tflowtable"), text.index("\tchain outbound")
    text = text[:start] + text[end:]
    return "\n".join(line for line in text.splitlines() if "flow add" not in line) + "\n"


def beside_the_kernel(report: Report) -> float:
    """Gbit/s of the running kernel with veths in the same places, conntrack and masquerade; 0 if it cannot."""
    try:
        lab = Lab(KernelRouter(), WIDE, exact=False)
        lab.start()
        try:
            lab.router.load(masquerade(IP4))
            with lab.live(), services(lab) as hosts:
                hosts.iperf("wan")
                return gigabits(hosts.iperf_client("lan", IP4.wan, "-R"))
        finally:
            lab.stop()
    except (netns.CommandError, AssertionError) as exc:
        report.line(f"the kernel's own forwarding could not be measured: {str(exc).splitlines()[0]}")
        return 0.0


def compare(speeds: dict[str, float], report: Report) -> None:
    """One line: userfw's speed beside the kernel's."""
    mine, kernel = speeds.get("TCP download (ip)", 0.0), speeds.get("kernel", 0.0)
    if mine and kernel:
        report.heading("Beside the kernel")
        report.line(f"TCP download: userfw {mine:.2f} Gbit/s from TAP to TAP; this kernel's nf_tables with veths, conntrack and "
                    f"masquerade {kernel:.2f} Gbit/s ({mine / kernel:.0%})")


def stay(lab: Lab) -> None:
    """Print how to look around, let the caller go, and wait for a signal."""
    print(f"\nThe lab stays up. Look around:\n"
          f"  ip netns exec {lab.ns('lan')} ping {IP4.wan}")
    if isinstance(lab.router, UserfwRouter):
        print(f"  export USERFW_SOCKET={lab.router.dir}/control.sock PATH=$PWD/.venv/bin:$PATH\n"
              "  userfw nft list ruleset; userfw conntrack; userfw status; userfw drops")
    print(f"  hosts: {', '.join(lab.ns(name) for name in lab.sides)}\n"
          f"Take it down: kill {os.getpid()}", flush=True)
    letting_go = os.environ.get("USERFW_DEMO_PIPE")
    if letting_go:
        os.write(int(letting_go), b"up")
    told: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _: told.append(received))
    while not told:
        time.sleep(0.2)


def main() -> int:
    """Command line; with KEEP=1 the work is done by a child that stays, and this process returns its result."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--router", choices=("userfw", "kernel"), default="userfw")
    args = parser.parse_args()
    reason = why_not()
    if reason:
        print(f"the demo cannot run: {reason}", file=sys.stderr)
        return 2
    keep = os.environ.get("KEEP", "") not in ("", "0")
    netns.exit_on_sigterm()
    return in_child(args.router) if keep else demonstrate(args.router, False)


def in_child(router: str) -> int:
    """Run the demo in a child that outlives this process; returns 0 as soon as the lab is up and all checks held."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        os.setsid()
        os.environ["USERFW_DEMO_PIPE"] = str(writer)
        os._exit(demonstrate(router, True))
    os.close(writer)
    if os.read(reader, 2):
        return 0
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    sys.exit(main())
