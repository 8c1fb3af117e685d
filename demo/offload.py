"""One download on each rung of the ladder: what the host still sees of it, and what it costs the daemon."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from lab import netns
from lab.families import IP4
from lab.topology import SIDES, Lab
from lab.userfw import UserfwRouter

from .report import Report
from .services import gigabits, services

RULES = """table inet gateway {
    %s
    chain forward {
        type filter hook forward priority filter; policy drop;
        %s
        ct state established,related accept
        iifname "lan" oifname "wan" accept
    }
    chain postrouting { type nat hook postrouting priority srcnat; oifname "wan" masquerade
    }
}
"""
ENTER = "meta l4proto { tcp, udp } ct state established flow add @fast"
SIZE = 1_000_000_000


@dataclass
class Rung:
    """A way to run the same download: the flowtable's flags, what the ports are, what the hosts' stacks must leave be."""

    name: str
    flowtable: str | None = None
    port: dict[str, Any] | None = None
    more: dict[str, Any] | None = None
    whole_checksums: bool = False


OFFLOAD = "flags offload; counter;"
RUNGS = (
    Rung("pipeline"),
    Rung("flowtable", ""),
    Rung("eBPF at tc ingress", OFFLOAD, {"capture": "tc"}),
    Rung("eBPF at XDP", OFFLOAD, more={"offload": {"xdp": ["lan", "wan"]}}, whole_checksums=True),
    Rung("software NIC", OFFLOAD, more={"nic": [{"name": "card", "ports": ["lan", "wan"]}]}),
)


class RungRouter(UserfwRouter):
    """userfw between two veths, on one rung."""

    def __init__(self, rung: Rung) -> None:
        table = ""
        if rung.flowtable is not None:
            table = f"flowtable fast {{ hook ingress priority filter; devices = {{ lan, wan }}; {rung.flowtable} }}"
        super().__init__(RULES % (table, ENTER if table else ""), gateway=False)
        self.rung = rung

    def config(self) -> dict[str, Any]:
        """With the rung's own keys."""
        made = super().config() | (self.rung.more or {})
        for port in made["port"]:
            port.update(self.rung.port or {})
        return made


@dataclass
class Cost:
    """A download: Gbit/s, packets that came to the daemon, its CPU seconds, those of the card's chip (in the daemon too)."""

    speed: float
    packets: int
    cpu: float
    chip: float


def scene(report: Report) -> None:
    """The same download on every rung; measured and compared."""
    report.heading(f"A download of {SIZE // 10**9} GB on each rung (veths, masquerade): packets the daemon saw, CPU seconds")
    costs: dict[str, Cost] = {}
    for rung in RUNGS:
        def measure(rung: Rung = rung) -> tuple[bool, str]:
            cost = costs[rung.name] = download(rung)
            chip = f" (and {cost.chip:.2f} s for the card's chip)" if cost.chip else ""
            return True, f"{cost.speed:5.2f} Gbit/s {cost.packets:>8,} packets {cost.cpu:5.2f} s{chip}"
        report.check(rung.name, measure)
    base = costs.get("pipeline")
    for name in ("eBPF at tc ingress", "eBPF at XDP", "software NIC"):
        if base is not None and name in costs:
            report.check(f"{name}: a tenth of the packets, a third of the CPU", lambda cost=costs[name]: (  # type: ignore[misc]
                cost.packets * 10 < base.packets and cost.cpu * 3 < base.cpu,
                f"{cost.packets / base.packets:.1%} of the packets, {cost.cpu / max(base.cpu, 1e-9):.1%} of the CPU seconds"))


def download(rung: Rung) -> Cost:
    """Bring up a laboratory of its own, download, take it down."""
    router = RungRouter(rung)
    lab = Lab(router, {name: replace(SIDES[name], mtu=1500, port="packet") for name in ("lan", "wan")}, exact=False)
    lab.start()
    try:
        with lab.live(), services(lab) as hosts:
            for name in lab.sides if rung.whole_checksums else ():
                netns.run(["ethtool", "-K", "eth0", "tx", "off", "gro", "on"], ns=lab.ns(name))
            hosts.iperf("wan")
            before = facts(router)
            speed = gigabits(hosts.iperf_client("lan", IP4.wan, "-R", "-n", str(SIZE), seconds=0))
            after = facts(router)
    finally:
        lab.stop()
    chip = after[2] - before[2]
    return Cost(speed, after[0] - before[0], max(0.0, after[1] - before[1] - chip), chip)


def facts(router: UserfwRouter) -> tuple[int, float, float]:
    """(packets that the daemon has handled, its CPU seconds, those of a card's chip)."""
    status = router.ask("status")
    chip = sum(device.get("chip_seconds", 0.0) for device in router.ask("offload")["devices"])
    return status["packets"], status["cpu_seconds"], chip
