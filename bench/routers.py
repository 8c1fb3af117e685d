"""The routers that are compared, each as a laboratory that is up: the kernel, userfw in its ways, Open vSwitch, pasta."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from lab.kernel import KernelRouter
from lab.topology import SIDES, Lab, Router
from lab.userfw import UserfwRouter

from .others import OvsRouter, PastaRouter

RULES = """table inet gateway {
    %s
    chain forward {
        type filter hook forward priority filter; policy drop;
        %s
        ct state established,related accept
        iifname { "lan", "dmz" } oifname "wan" accept
    }
    chain postrouting { type nat hook postrouting priority srcnat; oifname "wan" masquerade; }
}
"""
FLOWTABLE = "flowtable fast { hook ingress priority filter; devices = { lan, wan }; }"
ENTER = "meta l4proto { tcp, udp } ct state established flow add @fast"
TCP_ONLY = frozenset(("TCP, 1 connection", "TCP, 8 connections"))


def laboratory(router: Router, port: str = "tap", names: tuple[str, ...] = ("lan", "wan")) -> Lab:
    """A laboratory around a router, fast instead of exact, with these hosts; it is up."""
    lab = Lab(router, {name: replace(SIDES[name], mtu=1500, port=port) for name in names}, exact=False)
    lab.start()
    return lab


def kernel(names: tuple[str, ...] = ("lan", "wan")) -> Lab:
    """The running kernel with veths."""
    lab = laboratory(KernelRouter(), "tap", names)
    lab.router.load(RULES % ("", ""))
    return lab


def userfw(port: str, flowtable: bool, names: tuple[str, ...] = ("lan", "wan"), workers: int = 1) -> Lab:
    """The daemon with TAP ports, or with packet sockets or AF_XDP on veths."""
    rules = RULES % ((FLOWTABLE, ENTER) if flowtable else ("", ""))
    return laboratory(UserfwRouter(rules, limits={"conntrack_max": 1_000_000}, workers=workers), port, names)


@dataclass(frozen=True)
class Competitor:
    """`start` brings it up; `missing()` says what is not installed; `only`: what it can be measured by, empty is everything."""

    start: Callable[[], Lab]
    missing: Callable[[], str] = str
    only: frozenset[str] = frozenset()


ROUTERS: dict[str, Competitor] = {
    "kernel, veth": Competitor(kernel),
    "userfw, TAP to TAP": Competitor(lambda: userfw("tap", True)),
    "userfw, TAP, no flowtable": Competitor(lambda: userfw("tap", False)),
    "userfw, packet sockets": Competitor(lambda: userfw("packet", True)),
    "userfw, two workers": Competitor(lambda: userfw("tap", True, workers=2)),
    "userfw, AF_XDP": Competitor(lambda: userfw("xdp", True)),
    "Open vSwitch, netdev": Competitor(lambda: laboratory(OvsRouter()), OvsRouter.missing),
    "pasta": Competitor(lambda: laboratory(PastaRouter()), PastaRouter.missing, TCP_ONLY),
}


def daemon_pid(lab: Lab) -> int | None:
    """The process that forwards, None if the kernel does."""
    router = lab.router
    if isinstance(router, UserfwRouter):
        return router.process.pid if router.process else None
    processes = getattr(router, "processes", None)
    return int(processes[-1].pid) if processes else None
