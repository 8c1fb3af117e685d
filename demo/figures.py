"""Figures of a running userfw for the report: rule counters, connections, packets per rung, drops by reason."""

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lab import netns
from lab.families import IP4
from lab.topology import Lab
from lab.userfw import UserfwRouter

from .report import Report
from .services import Services

SHOWN = 16


def figures(lab: Lab, router: UserfwRouter, hosts: Services, report: Report) -> None:
    """Print them all."""
    report.heading("Rule counters (rules that counted something)")
    for name, packets, size in counted(json.loads(router.nft("-j", "list", "ruleset"))):
        report.line(f"{name:<52} {packets:>9,} packets {size:>14,} bytes")
    report.heading("Connections, during one more download (OFFLOAD: in the flowtable)")
    with download(lab):
        conns = sorted(router.conns(), key=lambda conn: ("OFFLOAD" not in conn.flags, conn.state != "ESTABLISHED", str(conn)))
    for conn in conns[:SHOWN]:
        report.line(str(conn))
    if len(conns) > SHOWN:
        report.line(f"and {len(conns) - SHOWN} more")
    report.check("the download's connection is in the flowtable", lambda: (
        any("OFFLOAD" in conn.flags for conn in conns), f"{sum('OFFLOAD' in c.flags for c in conns)} of {len(conns)} connections"))
    status = router.ask("status")
    report.heading("Packets per rung")
    total = sum(status["rungs"].values()) or 1
    for name, packets in status["rungs"].items():
        report.line(f"{name:<14} {packets:>12,} packets  {packets / total:>7.2%}")
    loop = status["loop"]
    report.line(f"{'compiled' if status['compiled'] else 'INTERPRETED'}; "
                f"{status['packets'] / max(loop['batches'], 1):.1f} packets a batch; "
                f"{status['cpu_seconds']:.1f} s of CPU; {status['memory_kb'] / 1024:.0f} MB; "
                f"faults: {status['faults'] or 'none'}")
    report.check("no exception escaped in the packet path", lambda: (not status["faults"], str(status["faults"] or "none")))
    report.heading("Drops by reason")
    drops = router.ask("drops")["drops"]
    for drop in drops:
        report.line(f"{drop['reason']:<20} {drop['packets']:>8,}  {drop['description']}")


def counted(listing: dict[str, Any]) -> Iterator[tuple[str, int, int]]:
    """(place and comment, packets, bytes) of every rule whose counter is not zero."""
    for item in listing["nftables"]:
        rule = item.get("rule")
        for statement in rule["expr"] if rule else ():
            counter = statement.get("counter")
            if isinstance(counter, dict) and counter["packets"]:
                yield f"{rule['chain']} {rule.get('comment', '')}", counter["packets"], counter["bytes"]


@contextmanager
def download(lab: Lab) -> Iterator[None]:
    """A download from wan to lan in the background."""
    process = subprocess.Popen(netns.inside(lab.ns("lan"), ["iperf3", "-c", IP4.wan, "-t", "2", "-R"]),
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        time.sleep(1)
        yield
    finally:
        process.wait()
