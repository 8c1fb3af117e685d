"""Rate limits of ICMP errors: a bucket of the gateway, one of each destination (Linux: icmp_global_allow, inet_peer_xrlim_allow).

Laws: the global bucket gives `msgs_per_sec` with a burst; a destination's bucket fills with time itself, an error costs
`ratelimit` nanoseconds, a few are saved up. The table of destinations is bounded; the one seen longest ago goes first.
"""

from __future__ import annotations

import cython

if not cython.compiled:
    from userfw.core.const import NSEC_PER_SEC
    from userfw.router.settings import Settings

PEERS = 8192


class Bucket:
    """Tokens of one destination, in ns, and when they were counted."""

    def __init__(self, tokens: cython.ulonglong, last: cython.ulonglong) -> None:
        self.tokens = tokens
        self.last = last


class ErrorLimits:
    """Whether an ICMP error may be sent now."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.credit = settings.icmp_msgs_burst
        self.stamp = 0
        self.peers: dict[tuple[int, int], Bucket] = {}

    def global_allow(self, now: cython.ulonglong) -> cython.bint:
        """One message of the gateway's total (Linux refills at most once in 20 ms)."""
        settings: Settings = self.settings
        delta: cython.ulonglong = now - self.stamp
        gained: cython.ulonglong
        second: cython.ulonglong = NSEC_PER_SEC
        if self.stamp == 0 or delta > second:
            delta = second
        if delta * 50 >= second:
            gained = delta * cython.cast(cython.ulonglong, settings.icmp_msgs_per_sec) // second
            if gained:
                self.stamp = now
                self.credit = min(self.credit + gained, cython.cast(cython.ulonglong, settings.icmp_msgs_burst))
        if self.credit == 0:
            return False
        self.credit -= 1
        return True

    def peer_allow(
        self, hi: cython.ulonglong, lo: cython.ulonglong, cost: cython.ulonglong, now: cython.ulonglong, burst: cython.int
    ) -> cython.bint:
        """One message to this destination, which costs `cost` ns of its time; `burst` times that is saved up at most."""
        key = (hi, lo)
        bucket: Bucket | None = self.peers.pop(key, None)
        most: cython.ulonglong = cost * cython.cast(cython.ulonglong, burst)
        if bucket is None:
            if len(self.peers) >= PEERS:
                self.peers.pop(next(iter(self.peers)))
            bucket = Bucket(most, now)
        else:
            bucket.tokens = min(bucket.tokens + (now - bucket.last), most)
            bucket.last = now
        self.peers[key] = bucket
        if bucket.tokens < cost:
            return False
        bucket.tokens -= cost
        return True
