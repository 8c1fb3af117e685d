"""Names of `[sysctl]`: those of /proc/sys/net/netfilter (conntrack) and, dotted, the router's own under net.ipv4 and net.ipv6.

Each row of ROUTER: the name, the attribute of `router.settings.Settings`, the factor from the sysctl's unit to the attribute's
(times are kept in nanoseconds), least and most. Conntrack's names, defaults and limits stand in `conntrack.settings`.
"""

from __future__ import annotations

from typing import Any

from userfw.conntrack.settings import TIMEOUTS, VALUES

SECOND = 10**9
MILLI = 10**6

ROUTER: dict[str, tuple[str, int, int, int]] = {
    "net.ipv4.ip_forward": ("forward4", 1, 0, 1),
    "net.ipv6.conf.all.forwarding": ("forward6", 1, 0, 1),
    "net.ipv4.ip_default_ttl": ("ttl", 1, 1, 255),
    "net.ipv4.icmp_echo_ignore_all": ("icmp_echo_ignore_all", 1, 0, 1),
    "net.ipv4.icmp_echo_ignore_broadcasts": ("icmp_echo_ignore_broadcasts", 1, 0, 1),
    "net.ipv4.icmp_ratelimit": ("icmp_ratelimit", MILLI, 0, 10**6),
    "net.ipv4.icmp_ratemask": ("icmp_ratemask", 1, 0, 2**31 - 1),
    "net.ipv4.icmp_msgs_per_sec": ("icmp_msgs_per_sec", 1, 0, 2**31 - 1),
    "net.ipv4.icmp_msgs_burst": ("icmp_msgs_burst", 1, 0, 2**31 - 1),
    "net.ipv6.icmp.ratelimit": ("icmp6_ratelimit", MILLI, 0, 10**6),
    "net.ipv4.ipfrag_high_thresh": ("frag_high", 1, 0, 2**31 - 1),
    "net.ipv4.ipfrag_low_thresh": ("frag_low", 1, 0, 2**31 - 1),
    "net.ipv4.ipfrag_time": ("frag_time4", SECOND, 0, 10**6),
    "net.ipv6.ip6frag_time": ("frag_time6", SECOND, 0, 10**6),
    "net.ipv4.ipfrag_max_dist": ("frag_max_dist", 1, 0, 2**31 - 1),
    "net.ipv4.route.min_pmtu": ("min_pmtu", 1, 68, 65535),
    "net.ipv4.route.mtu_expires": ("mtu_expires4", SECOND, 1, 10**6),
    "net.ipv6.route.mtu_expires": ("mtu_expires6", SECOND, 1, 10**6),
    "net.ipv4.neigh.default.gc_thresh1": ("gc_thresh1", 1, 0, 2**31 - 1),
    "net.ipv4.neigh.default.gc_thresh2": ("gc_thresh2", 1, 0, 2**31 - 1),
    "net.ipv4.neigh.default.gc_thresh3": ("gc_thresh3", 1, 0, 2**31 - 1),
    "net.ipv4.neigh.default.gc_interval": ("gc_interval", SECOND, 1, 10**6),
    "net.ipv4.neigh.default.gc_stale_time": ("gc_stale_time", SECOND, 1, 10**6),
    "net.ipv4.neigh.default.base_reachable_time_ms": ("base_reachable_time", MILLI, 1, 10**9),
    "net.ipv4.neigh.default.retrans_time_ms": ("retrans_time", MILLI, 1, 10**9),
    "net.ipv4.neigh.default.delay_first_probe_time": ("delay_probe_time", SECOND, 0, 10**6),
    "net.ipv4.neigh.default.ucast_solicit": ("ucast_probes", 1, 0, 255),
    "net.ipv4.neigh.default.mcast_solicit": ("mcast_probes", 1, 0, 255),
    "net.ipv4.neigh.default.unres_qlen_bytes": ("unres_qlen_bytes", 1, 0, 2**31 - 1),
    "net.ipv4.conf.all.arp_ignore": ("arp_ignore", 1, 0, 8),
    "net.ipv4.conf.all.rp_filter": ("rp_filter", 1, 0, 2),
}

NAMES: frozenset[str] = frozenset(TIMEOUTS) | frozenset(VALUES) | frozenset(ROUTER)


def limits_of(name: str) -> tuple[int, int]:
    """Least and most value of a setting, in its own unit."""
    if name in ROUTER:
        return ROUTER[name][2:]
    return (0, 2**31 - 1) if name in TIMEOUTS else VALUES[name][2:]


def get(router: Any, conntrack: Any, name: str) -> int:
    """The present value. KeyError for an unknown name."""
    if name in ROUTER:
        attribute, factor, _, _ = ROUTER[name]
        return int(getattr(router, attribute)) // factor
    return int(conntrack.get(name))


def put(router: Any, conntrack: Any, name: str, value: int) -> None:
    """Set one. KeyError for an unknown name, ValueError outside its limits."""
    least, most = limits_of(name)
    if not least <= value <= most:
        raise ValueError(f"sysctl.{name}: {value} is outside {least} to {most}")
    if name in ROUTER:
        attribute, factor, _, _ = ROUTER[name]
        old = getattr(router, attribute)
        setattr(router, attribute, bool(value) if isinstance(old, bool) else value * factor)
    else:
        conntrack.set(name, value)
