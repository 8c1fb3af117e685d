"""The router `kernel`: Linux itself in a namespace with veths. The oracle."""

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

from . import netns
from .state import Conn, conns_from_text, counters

if TYPE_CHECKING:
    from .topology import Lab

BRIDGE, BRIDGE_MAC = "br0", "02:00:00:00:00:b0"


class KernelRouter:
    """nf_tables, conntrack and forwarding of the running kernel."""

    kind = "kernel"

    def start(self, lab: "Lab") -> None:
        """veths to every host, forwarding on, ICMP unlimited, no duplicate address detection."""
        self.lab, self.ns = lab, lab.ns("rt")
        netns.sysctl(self.ns, ipv4__ip_forward=1, ipv6__conf__all__forwarding=1, ipv4__icmp_ratelimit=0,
                     ipv6__icmp__ratelimit=0, ipv6__auto_flowlabels=0, netfilter__nf_conntrack_acct=1,
                     ipv4__icmp_msgs_per_sec=1_000_000, ipv4__icmp_msgs_burst=1_000_000, ipv4__conf__all__rp_filter=0,
                     ipv4__conf__default__rp_filter=0, ipv4__conf__all__send_redirects=0,
                     ipv4__conf__default__send_redirects=0, ipv4__ip_forward_update_priority=0)
        for name, side in lab.sides.items():
            netns.ip(self.ns, f"link add {name} address {side.router_mac} mtu {side.mtu} type veth "
                     f"peer name eth0 netns {lab.ns(name)}",
                     f"addr add {side.ip4(1)}/24 dev {name}", f"addr add {side.ip6(1)}/64 dev {name} nodad",
                     f"link set {name} up")
            known = [(side.ip4(n), side.ip6(n)) for n in (10, 11, 254)]
            netns.ip(self.ns, *(f"neigh replace {ip} lladdr {side.host_mac} dev {name} nud permanent"
                                for pair in known for ip in pair))
        wan = lab.sides["wan"]
        netns.run(["ip", "-n", self.ns, "route", "add", "default", "via", wan.ip4(254), "dev", "wan", "onlink"])
        netns.run(["ip", "-n", self.ns, "-6", "route", "add", "default", "via", wan.ip6(254), "dev", "wan", "onlink"])
        for family, rest in (("-4", "0.0.0.0/0"), ("-6", "::/0")):  # for tproxy
            netns.run(["ip", "-n", self.ns, family, "rule", "add", "fwmark", "0x7177", "lookup", "100"])
            netns.run(["ip", "-n", self.ns, family, "route", "add", "local", rest, "dev", "lo", "table", "100"])
        from .topology import quiet
        for name in lab.sides if lab.exact else ():
            quiet(self.ns, name)

    def bridge(self, ports: Iterable[str], *settings: str) -> None:
        """Make interfaces the ports of a bridge with their IPv4 addresses, hosts 10 its neighbours. `settings`: the bridge's."""
        sides = [self.lab.sides[name] for name in ports]
        netns.ip(self.ns, f"link add {BRIDGE} address {BRIDGE_MAC} type bridge {' '.join(settings)}",
                 *(f"addr flush dev {side.name}" for side in sides), *(f"link set {side.name} master {BRIDGE}" for side in sides),
                 f"link set {BRIDGE} up", *(f"addr add {side.ip4(1)}/24 dev {BRIDGE}" for side in sides),
                 *(f"neigh replace {side.ip4(10)} lladdr {side.host_mac} dev {BRIDGE} nud permanent" for side in sides))

    def stop(self) -> None:
        """Nothing: the namespace takes all with it."""

    def load(self, text: str) -> None:
        """One transaction with nft, then conntrack is emptied."""
        self.nft("-f", "-", text=f"flush ruleset\n{text}\n")
        self.forget()

    def nft(self, *args: str, text: str | None = None, check: bool = True) -> str:
        """The system's nft in the router's namespace."""
        done = netns.run(["nft", *args], ns=self.ns, text=text, check=check)
        return done.stdout or done.stderr

    def counters(self) -> dict[str, tuple[int, int]]:
        """From `nft -j list ruleset`."""
        return counters(json.loads(self.nft("-j", "list", "ruleset")))

    def conns(self) -> list[Conn]:
        """From `conntrack -L`, both families."""
        return conns_from_text(netns.run(["conntrack", "-L", "-o", "extended"], ns=self.ns).stdout)

    def forget(self) -> None:
        """`conntrack -F`."""
        netns.run(["conntrack", "-F"], ns=self.ns)

    def sysctl(self, **values: int) -> None:
        """Straight into /proc/sys/net/netfilter."""
        netns.sysctl(self.ns, **{f"netfilter__{key}": value for key, value in values.items()})

    def log(self) -> str:
        """The kernel says nothing."""
        return ""
