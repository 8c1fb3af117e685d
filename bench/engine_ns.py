"""Nanoseconds per rule of the engine: a chain of 200 equal rules, timed and divided. Run: python bench/engine_ns.py [--plain]

`--plain` switches fusing off.
"""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "engine"))

from engine_double import Double, base, ip4, ip6, packet, tcp

from userfw.engine.bind import TableScope
from userfw.engine.const import SET_INTERVAL
from userfw.engine.expr import Expr
from userfw.engine.expressions import Bitwise, Cmp, Counter, Ct, Immediate, ImmediateVerdict, Limit, Lookup, Meta, MetaSet, Payload
from userfw.engine.sets.elements import Element
from userfw.engine.sets.factory import make_set

COUNT = 200
DPORT = (Meta(1, "l4proto"), Cmp("eq", 1, b"\6"), Payload(1, "transport", 2, 2))


def rules() -> dict[str, tuple[Expr, ...]]:
    """What is timed, by name; none of them matches for good."""
    state = (Ct(1, "state"), Bitwise(1, 1, b"\6\0\0\0", b"\0\0\0\0"), Cmp("neq", 1, b"\0\0\0\0"))
    return {
        "empty rule": (),
        "immediate": (Immediate(1, b"\1\2\3\4"),),
        "meta mark": (Meta(1, "mark"),),
        "tcp dport 22 (no match)": (*DPORT, Cmp("eq", 1, b"\0\x16")),
        "tcp dport 80 counter": (*DPORT, Cmp("eq", 1, b"\0\x50"), Counter()),
        "ip saddr 10.0.0.9 (no match)": (
            Meta(1, "nfproto"),
            Cmp("eq", 1, b"\2"),
            Payload(1, "network", 12, 4),
            Cmp("eq", 1, b"\x0a\0\0\x09"),
        ),
        "ip saddr 10.0.0.0/8": (Payload(1, "network", 12, 1), Cmp("eq", 1, b"\x0a")),
        "ip saddr 10.0.0.0/9 masked": (
            Payload(1, "network", 12, 4),
            Bitwise(1, 1, b"\xff\x80\0\0", b"\0" * 4),
            Cmp("eq", 1, b"\x0a\0\0\0"),
        ),
        "ip6 daddr": (Payload(1, "network", 24, 16), Cmp("eq", 1, b"\xfd" + b"\0" * 15)),
        "ct state established,related (no entry)": state,
        "iifname eth1 (no match)": (Meta(1, "iifname"), Cmp("eq", 1, b"eth1".ljust(16, b"\0"))),
        "iifname eth*": (Meta(1, "iifname"), Cmp("eq", 1, b"eth")),
        "tcp dport in set of 3": (*DPORT, Lookup(1, "ports")),
        "ip saddr in a million": (Payload(1, "network", 12, 4), Lookup(1, "million")),
        "ip saddr in a million ranges": (Payload(1, "network", 12, 4), Lookup(1, "ranges")),
        "ip saddr . dport in ranges": (Payload(1, "network", 12, 4), Payload(9, "transport", 2, 2), Lookup(1, "concat")),
        "map dport": (Payload(1, "transport", 2, 2), Lookup(1, "map", 2)),
        "limit": (Limit(1000000000),),
        "mark set": (Immediate(1, b"\1\0\0\0"), MetaSet(1, "mark")),
        "verdict continue": (ImmediateVerdict("continue"),),
    }


def scope_with_sets(services: Double) -> TableScope:
    scope = TableScope()
    ports = scope.sets["ports"] = make_set("ports", 2, services.clock)
    for port in (22, 443, 80):
        ports.add(port.to_bytes(2, "big"))
    million = scope.sets["million"] = make_set("million", 4, services.clock)
    started = time.perf_counter()
    for i in range(1_000_000):
        million.add((0x0A000001 + i * 7).to_bytes(4, "big"))
    print(f"a million adds: {time.perf_counter() - started:.2f} s")
    ranges = scope.sets["ranges"] = make_set("ranges", 4, services.clock, SET_INTERVAL)
    started = time.perf_counter()
    ranges.load(
        Element((0x0A000001 + i * 16).to_bytes(4, "big"), (0x0A000009 + i * 16).to_bytes(4, "big")) for i in range(1_000_000)
    )
    print(f"a million ranges loaded: {time.perf_counter() - started:.2f} s")
    concat = scope.sets["concat"] = make_set("concat", 8, services.clock, SET_INTERVAL, ((0, 4), (4, 2)))
    for i in range(1000):
        low = (0x0A000000 + i * 256).to_bytes(4, "big")
        concat.add(low + b"\0\x50\0\0", low[:3] + b"\xff\0\x5a\0\0")
    table = scope.sets["map"] = make_set("map", 2, services.clock, data_type=1, dlen=4)
    table.add(b"\0\x50", data=b"abcd")
    return scope


def main() -> None:
    """Print a table."""
    services = Double()
    scope = scope_with_sets(services)
    four, six = packet(ip4(tcp(), 6)), packet(ip6(tcp(), 6))
    from userfw.core.packet import Device

    four.iif = six.iif = Device("eth0", 2)
    empty = None
    for name, exprs in rules().items():
        chain = base(services, [exprs] * COUNT, scope, fuse="--plain" not in sys.argv)
        pkt = six if "ip6" in name else four
        best = 1e9
        for _ in range(7):
            started = time.perf_counter()
            for _ in range(200):
                chain.run(pkt, 0)
            best = min(best, (time.perf_counter() - started) / 200 / COUNT * 1e9)
        empty = best if empty is None else empty
        print(f"{name:45} {best:7.1f} ns a rule")


if __name__ == "__main__":
    main()
