"""Figures of a running userfw for the report: rule counters, connections, packets per rung, drops by reason."""

from typing import Any

from lab.families import IP4
from lab.topology import Lab
from lab.userfw import UserfwRouter

from .report import Report
from .services import Services


def figures(lab: Lab, router: UserfwRouter, hosts: Services, report: Report) -> None:
    """Print them all."""
    report.heading("Rule counters")
    for place, (packets, size) in router.counters().items():
        if packets:
            report.line(f"{place:<32} {packets:>10} packets {size:>14} bytes")
    report.heading("Connections")
    hosts.iperf_client("lan", IP4.wan, seconds=1)
    for conn in router.conns()[:24]:
        report.line(str(conn))
    report.heading("Packets per rung")
    tree(router.ask("status"), report)
    report.heading("Drops by reason")
    tree(router.ask("drops"), report)


def tree(value: Any, report: Report, indent: int = 0) -> None:
    """A structure as indented lines."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        if isinstance(item, dict | list):
            report.line(f"{'  ' * indent}{key}")
            tree(item, report, indent + 1)
        else:
            report.line(f"{'  ' * indent}{key:<28} {item}")
