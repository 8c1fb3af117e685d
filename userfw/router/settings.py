"""The router's knobs with Linux's names and defaults (ip-sysctl.rst, arp(7), neighbour.c); plain numbers, no clocks."""

from __future__ import annotations

import cython


class Settings:
    """Knobs of one gateway; times in ns. Changing one takes effect with the next packet or timer."""

    def __init__(self) -> None:
        second: cython.ulonglong = 1000000000
        self.forward4 = True
        self.forward6 = True
        self.ttl = 64
        # net.ipv4.icmp_*
        self.icmp_echo_ignore_all = False
        self.icmp_echo_ignore_broadcasts = True
        self.icmp_ratelimit = second
        self.icmp_ratemask = 6168
        self.icmp_msgs_per_sec = 1000
        self.icmp_msgs_burst = 50
        self.icmp6_ratelimit = second
        # net.ipv4.route.min_pmtu, mtu_expires, net.ipv6.route.mtu_expires
        self.min_pmtu = 552
        self.mtu_expires4 = 600 * second
        self.mtu_expires6 = 600 * second
        # net.ipv4.ipfrag_*, net.ipv6.ip6frag_*
        self.frag_high = 4 << 20
        self.frag_low = 3 << 20
        self.frag_time4 = 30 * second
        self.frag_time6 = 60 * second
        self.frag_max_dist = 64
        # net.ipv[46].neigh.default.*
        self.gc_thresh1 = 128
        self.gc_thresh2 = 512
        self.gc_thresh3 = 1024
        self.gc_interval = 30 * second
        self.gc_stale_time = 60 * second
        self.base_reachable_time = 30 * second
        self.retrans_time = second
        self.delay_probe_time = 5 * second
        self.locktime = second
        self.ucast_probes = 3
        self.mcast_probes = 3
        self.unres_qlen_bytes = 212992
        # net.ipv[46].conf.*
        self.arp_ignore = 0
        self.rp_filter = 0
        self.reject_local_answers = True
