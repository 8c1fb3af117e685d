"""The knobs of connection tracking, named as Linux's sysctls (net.netfilter.*), and timeout policies (`ct timeout` objects).

Laws: a change takes effect with the next packet; deadlines already set stay. Timeouts are kept in nanoseconds, spoken of in
seconds.
Where a default differs from Linux 6.18, `DEFAULTS` says so.
"""

from collections.abc import Iterator, Mapping

import cython

NSEC = 1_000_000_000

# Row of `Settings.t` -> (sysctl, default in seconds). Defaults: Linux 6.18.
TIMEOUTS: dict[str, tuple[int, int]] = {
    "nf_conntrack_tcp_timeout_syn_sent": (1, 120),
    "nf_conntrack_tcp_timeout_syn_recv": (2, 60),
    "nf_conntrack_tcp_timeout_established": (3, 432000),
    "nf_conntrack_tcp_timeout_fin_wait": (4, 120),
    "nf_conntrack_tcp_timeout_close_wait": (5, 60),
    "nf_conntrack_tcp_timeout_last_ack": (6, 30),
    "nf_conntrack_tcp_timeout_time_wait": (7, 120),
    "nf_conntrack_tcp_timeout_close": (8, 10),
    "nf_conntrack_tcp_timeout_max_retrans": (10, 300),
    "nf_conntrack_tcp_timeout_unacknowledged": (11, 300),
    "nf_conntrack_sctp_timeout_closed": (17, 10),
    "nf_conntrack_sctp_timeout_cookie_wait": (18, 3),
    "nf_conntrack_sctp_timeout_cookie_echoed": (19, 3),
    "nf_conntrack_sctp_timeout_established": (20, 210),
    "nf_conntrack_sctp_timeout_shutdown_sent": (21, 3),
    "nf_conntrack_sctp_timeout_shutdown_recd": (22, 3),
    "nf_conntrack_sctp_timeout_shutdown_ack_sent": (23, 3),
    "nf_conntrack_sctp_timeout_heartbeat_sent": (24, 30),
    "nf_conntrack_udp_timeout": (32, 30),
    "nf_conntrack_udp_timeout_stream": (33, 120),
    "nf_conntrack_gre_timeout": (34, 30),
    "nf_conntrack_gre_timeout_stream": (35, 180),
    "nf_conntrack_icmp_timeout": (36, 30),
    "nf_conntrack_icmpv6_timeout": (37, 30),
    "nf_conntrack_generic_timeout": (38, 600),
    "nf_conntrack_udplite_timeout": (40, 30),
    "nf_conntrack_udplite_timeout_stream": (41, 180),
}

# Sysctl -> (attribute, default, least, most). Linux counts bytes only when told (acct 0); here it is always on unless switched
# off.
VALUES: dict[str, tuple[str, int, int, int]] = {
    "nf_conntrack_max": ("max", 262144, 1, 1 << 30),
    "nf_conntrack_expect_max": ("expect_max", 4096, 1, 1 << 30),
    "nf_conntrack_tcp_loose": ("tcp_loose", 1, 0, 1),
    "nf_conntrack_tcp_be_liberal": ("tcp_be_liberal", 0, 0, 1),
    "nf_conntrack_tcp_ignore_invalid_rst": ("tcp_ignore_invalid_rst", 0, 0, 1),
    "nf_conntrack_tcp_max_retrans": ("tcp_max_retrans", 3, 0, 255),
    "nf_conntrack_checksum": ("checksum", 1, 0, 1),
    "nf_conntrack_acct": ("acct", 1, 0, 1),
    "nf_conntrack_timestamp": ("timestamp", 0, 0, 1),
    "nf_conntrack_events": ("events", 1, 0, 1),
    "nf_conntrack_log_invalid": ("log_invalid", 0, 0, 255),
}

# Protocol -> (first row of Settings.t, {name in a timeout policy: offset}). Names: nft's and nfct's.
POLICIES: dict[int, tuple[int, dict[str, int]]] = {
    6: (
        0,
        {
            "syn_sent": 1,
            "syn_recv": 2,
            "established": 3,
            "fin_wait": 4,
            "close_wait": 5,
            "last_ack": 6,
            "time_wait": 7,
            "close": 8,
            "syn_sent2": 9,
            "retrans": 10,
            "unack": 11,
        },
    ),
    17: (32, {"unreplied": 0, "replied": 1}),
    136: (40, {"unreplied": 0, "replied": 1}),
    47: (34, {"unreplied": 0, "replied": 1}),
    1: (36, {"timeout": 0}),
    58: (37, {"timeout": 0}),
    132: (
        16,
        {
            "closed": 1,
            "cookie_wait": 2,
            "cookie_echoed": 3,
            "established": 4,
            "shutdown_sent": 5,
            "shutdown_recd": 6,
            "shutdown_ack_sent": 7,
            "heartbeat_sent": 8,
            "heartbeat_acked": 9,
        },
    ),
}
GENERIC_POLICY: tuple[int, dict[str, int]] = (38, {"timeout": 0})


class Settings:
    """All knobs of one ConnTable. `t[row]` is a timeout in nanoseconds, rows as in TIMEOUTS."""

    def __init__(self, values: Mapping[str, int] | None = None) -> None:
        if not cython.compiled:
            self.t = [0] * 48
            self.max = self.expect_max = self.tcp_max_retrans = self.log_invalid = 0
            self.tcp_loose = self.tcp_be_liberal = self.tcp_ignore_invalid_rst = False
            self.checksum = self.acct = self.timestamp = self.events = True
        for name, (_, default) in TIMEOUTS.items():
            self.set(name, default)
        self.t[9] = 120 * NSEC  # SYN_SENT2 has no sysctl of its own (Linux)
        self.t[25] = 210 * NSEC  # nor has SCTP HEARTBEAT_ACKED since 6.3
        for name, (_, default, _, _) in VALUES.items():
            self.set(name, default)
        for name, value in (values or {}).items():
            self.set(name, value)

    def set(self, name: str, value: int) -> None:
        """Set one knob by its sysctl name (`net.netfilter.` may lead; timeouts in seconds). KeyError, ValueError."""
        name = name.removeprefix("net.netfilter.")
        row: cython.int
        if name in TIMEOUTS:
            if not 0 <= value <= 0x7FFFFFFF:
                raise ValueError(f"{name}: {value} is not between 0 and 2147483647 seconds")
            row = TIMEOUTS[name][0]
            self.t[row] = value * NSEC
            return
        if name not in VALUES:
            raise KeyError(f"no such setting: {name}")
        attribute, _, least, most = VALUES[name]
        if not least <= value <= most:
            raise ValueError(f"{name}: {value} is not between {least} and {most}")
        setattr(self, attribute, value)

    def get(self, name: str) -> int:
        """The value of one knob, timeouts in seconds. KeyError."""
        name = name.removeprefix("net.netfilter.")
        row: cython.int
        if name in TIMEOUTS:
            row = TIMEOUTS[name][0]
            return int(self.t[row]) // NSEC
        return int(getattr(self, VALUES[name][0]))

    def items(self) -> "Iterator[tuple[str, int]]":
        """All knobs with their values, by name."""
        return iter([(name, self.get(name)) for name in sorted((*TIMEOUTS, *VALUES))])


class TimeoutPolicy:
    """Timeouts of one protocol that rules give to connections; what `policy` does not name is taken from `settings` now.

    `t[offset]`: nanoseconds, offsets as in POLICIES. ValueError names a state that the protocol does not have.
    """

    def __init__(
        self, name: str, l3num: int, l4proto: int, policy: Mapping[str, int], settings: "Settings | None" = None
    ) -> None:
        if not cython.compiled:
            self.t = [0] * 16
        self.name = name
        self.l3num = l3num
        self.l4proto = l4proto
        base, names = POLICIES.get(l4proto, GENERIC_POLICY)
        source: Settings = settings if settings is not None else Settings()
        row: cython.int
        offset: cython.int
        for offset in names.values():
            row = base + offset
            self.t[offset] = source.t[row]
        for state, seconds in policy.items():
            if state not in names:
                raise ValueError(f"protocol {l4proto} has no state {state}; it has {', '.join(names)}")
            offset = names[state]
            self.t[offset] = seconds * NSEC

    def items(self) -> "list[tuple[str, int]]":
        """(state, seconds) of every state of the protocol."""
        offset: cython.int
        result: list[tuple[str, int]] = []
        for state, offset in POLICIES.get(self.l4proto, GENERIC_POLICY)[1].items():
            result.append((state, int(self.t[offset]) // NSEC))
        return result
