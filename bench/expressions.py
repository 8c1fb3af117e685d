"""What every expression of the engine costs: one rule at least for each class of the registry.

Laws: most are measured by fifty copies in a chain against the empty chain (the rule's comparison, its fused form and the loop over
rules included). Those that end a packet's way or act once are measured by one copy, and show the whole of what they do; below zero
is what they take off the packet's later way.
tests/bench demands that every registered class is covered.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

COPIES = 50
FILTER, RAW, PREROUTING, SOURCE, DESTINATION = (
    "type filter hook forward priority 0", "type filter hook prerouting priority -300", "type filter hook prerouting priority 0",
    "type nat hook postrouting priority 100", "type nat hook prerouting priority -100",
)  # fmt: skip
SET = "set seen { type ipv4_addr; size 65535; flags dynamic; }"
FLOWS = "flowtable f { hook ingress priority 0; devices = { lan, wan }; }"
OBJECTS = """counter c {\n}
    quota q { over 100000 mbytes }
    ct helper h { type "ftp" protocol tcp; }
    ct timeout t { protocol udp; policy = { unreplied : 30, replied : 180 }; }
    ct expectation e { protocol udp; dport 9876; timeout 2m; size 8; }
    secmark m { "system_u:object_r:test_t:s0" }
    synproxy p { mss 1460; wscale 7; }
    limit l { rate over 100000000/second }"""


@dataclass(frozen=True)
class Kind:
    """`rule` in a chain with the head `hook`, `copies` times; `more`: what its table has besides; `family` of the table.

    `against`: what the same chain holds for comparison.
    """

    rule: str
    hook: str = FILTER
    copies: int = COPIES
    more: str = ""
    family: str = "ip"
    against: str = ""


KINDS: dict[str, Kind] = {
    "meta iifname": Kind('iifname "dmz"'),
    "meta mark": Kind("meta mark 7"),
    "meta length, greater": Kind("meta length > 2000"),
    "meta mark, range (byteorder)": Kind("meta mark 7-9"),
    "meta time of day": Kind('meta hour "00:00"-"00:01"'),
    "meta mark set": Kind("meta mark set 9"),
    "meta mark, and, or": Kind("meta mark set meta mark and 0xff or 0x10"),
    "meta mark, shift": Kind("meta mark set meta mark << 1"),
    "meta mark, or of two": Kind("meta mark set meta mark | ip dscp", family="ip"),
    "payload ip saddr": Kind("ip saddr 10.0.0.1"),
    "payload prefix": Kind("ip saddr 10.0.0.0/8"),
    "payload mask": Kind("ip saddr & 0.0.0.255 == 7"),
    "payload range": Kind("ip saddr 10.0.0.1-10.0.0.9"),
    "payload udp dport": Kind("udp dport 9"),
    "payload raw": Kind("@nh,8,8 7"),
    "payload set": Kind("ip dscp set 4"),
    "inner (vxlan)": Kind("udp dport 4789 vxlan ip saddr 1.2.3.4", copies=1),
    "tcp option": Kind("tcp option maxseg size 7", copies=1),
    "ip option": Kind("ip option rr exists"),
    "tcp option set": Kind("tcp option maxseg size set 1400", copies=1),
    "tcp option reset": Kind("reset tcp option sack-perm", copies=1),
    "set lookup": Kind("udp dport { 1, 2, 3, 4 }"),
    "interval lookup": Kind("udp dport { 1-10, 20-30 }"),
    "concatenation lookup": Kind("ip saddr . udp dport { 10.0.0.1 . 1, 10.0.0.2 . 2 }"),
    "concatenation of ranges": Kind("ip saddr . udp dport { 10.0.0.0/24 . 1-9, 10.0.1.0/24 . 2-7 }"),
    "verdict map": Kind("udp dport vmap { 1 : drop, 2 : accept }"),
    "data map": Kind("meta mark set udp dport map { 5001 : 7, 2 : 8 }"),
    "update @set": Kind("update @seen { ip saddr }", more=SET),
    "jump": Kind("jump nothing"),
    "counter": Kind("counter"),
    "last": Kind("last"),
    "limit": Kind("limit rate over 100000000/second"),
    "quota": Kind("quota over 100000 mbytes"),
    "named counter": Kind('counter name "c"', more=OBJECTS),
    "named quota": Kind('quota name "q"', more=OBJECTS),
    "named limit": Kind('limit name "l"', more=OBJECTS),
    "named counter by map": Kind('counter name udp dport map { 5001 : "c" }', more=OBJECTS),
    "ct state": Kind("ct state invalid", against="ct state invalid"),
    "ct mark": Kind("ct mark 3", against="ct state invalid"),
    "ct mark set": Kind("ct mark set 3", against="ct state invalid"),
    "ct count": Kind("ct count over 1000000", copies=1, against="ct state invalid"),
    "ct helper set": Kind('ct helper set "h"', more=OBJECTS, copies=1, against="ct state invalid"),
    "ct timeout set": Kind('ct timeout set "t"', more=OBJECTS, copies=1, against="ct state invalid"),
    "ct expectation set": Kind('ct expectation set "e"', more=OBJECTS, copies=1, against="ct state invalid"),
    "secmark set": Kind('meta secmark set "m"', more=OBJECTS),
    "notrack": Kind("notrack", RAW, 1, against="ct state invalid"),
    "numgen": Kind("numgen inc mod 2 7"),
    "jhash": Kind("jhash ip saddr mod 16 99"),
    "symhash": Kind("symhash mod 16 99"),
    "fib": Kind("fib daddr type local"),
    "rt": Kind("rt nexthop 10.9.9.9"),
    "socket": Kind("socket transparent 1", PREROUTING),
    "osf": Kind('osf name "Linux"', PREROUTING, 1),
    "ipsec": Kind("ipsec in reqid 9", PREROUTING),
    "tunnel": Kind("tunnel id 9", family="netdev"),
    "log": Kind('log prefix "bench "', copies=1),
    "dup": Kind("dup to 203.0.113.9", copies=1),
    "reject": Kind("reject", copies=1),
    "queue": Kind("queue flags bypass to 7", copies=1),
    "flow add": Kind("flow add @f", more=FLOWS, copies=1, against="ct state invalid"),
    "masquerade": Kind("masquerade", SOURCE, 1, against="ct state invalid"),
    "snat": Kind("snat to 203.0.113.7", SOURCE, 1, against="ct state invalid"),
    "redirect": Kind("udp dport 5001 redirect to :9", DESTINATION, 1, against="ct state invalid"),
    "tproxy": Kind("udp dport 9 tproxy to 127.0.0.1:9", PREROUTING, 1),
    "synproxy": Kind("tcp dport 9 synproxy mss 1460", copies=1),
    "fwd": Kind('fwd to "wan"', family="netdev", copies=1),
}


def ruleset(kind: Kind, copies: int) -> str:
    """The ruleset with so many copies; 0: what it is compared with."""
    head = 'type filter hook ingress device "lan" priority 0' if kind.family == "netdev" else kind.hook
    body = f"{kind.rule}\n" * copies if copies else kind.against
    table = f"table {kind.family} f {{\n{kind.more}\nchain nothing {{\n}}\nchain c {{ {head};\n{body}\n}}\n}}\n"
    if kind.against and copies and "ct" not in kind.rule.split():
        table += "table ip tracked { chain c { type filter hook forward priority 1;\nct state invalid\n}\n}\n"
    return table


def programs(manager: Any) -> Iterator[Any]:
    """Every engine rule of a ruleset."""
    for table in manager.rules.tables.values():
        for chain in table.chains.values():
            if chain.engine is not None:
                yield from chain.engine.rules
