"""Nanoseconds per packet of conntrack and NAT on prebuilt packets; the figures docs speak of come from here.

Run: python bench/conntrack_ns.py [connections]. Each figure is the best of several rounds, the loop's own cost subtracted.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / "tests" / "conntrack"), str(Path(__file__).parents[1] / "tests" / "nat")]

from ct_build import packet, tcp, udp  # noqa: E402
from nat_harness import Gateway, NatRange  # noqa: E402

from userfw.conntrack.conn import Tuple  # noqa: E402
from userfw.conntrack.listing import Dump, line  # noqa: E402
from userfw.conntrack.table import ConnTable  # noqa: E402
from userfw.core.clock import Clock  # noqa: E402

LAN, SERVER, WAN = "10.0.1.5", "198.51.100.9", "203.0.113.1"


def best(work: Callable[[], int], rounds: int = 7) -> float:
    """Nanoseconds per step; `work` returns how many steps it did."""
    result = float("inf")
    for _ in range(rounds):
        start = time.perf_counter_ns()
        steps = work()
        result = min(result, (time.perf_counter_ns() - start) / steps)
    return result


def established(title: str, first: list[tuple[bytes, bool]], again: bytes, back: bool) -> None:
    g = Gateway()
    g.masquerade()
    for data, reverse in first:
        assert g.forward(data, reverse) is not None
    pkt = packet(again)
    pkt.vnet_flags = 2
    keep = bytes(pkt.data[pkt.l3 : pkt.l3 + 60])
    at, end = pkt.l3, pkt.l3 + 60
    pkt.iif, pkt.oif = (g.wan, g.lan) if back else (g.lan, g.wan)
    pre, post, data = g.pre.run, g.post.run, pkt.data

    def empty() -> int:
        for _ in range(20000):
            data[at:end] = keep
            pkt.ct = None
            pkt.ctinfo = 0
        return 20000

    def work() -> int:
        for _ in range(20000):
            data[at:end] = keep
            pkt.ct = None
            pkt.ctinfo = 0
            pre(pkt)
            post(pkt)
        return 20000

    work()
    print(f"{title:<58} {best(work) - best(empty):8.0f} ns")


def new_connections(title: str, build: Callable[[int], bytes], nat: bool) -> None:
    g = Gateway(nf_conntrack_max=1 << 22)
    if nat:
        g.rules([], [_Masquerade(g)])
    packets = [packet(build(n)) for n in range(4000)]
    for pkt in packets:
        pkt.vnet_flags = 2
        pkt.iif, pkt.oif = g.lan, g.wan
    keep = [bytes(p.data[p.l3 : p.end]) for p in packets]
    pre, post = g.pre.run, g.post.run
    result = float("inf")
    for _ in range(7):
        for pkt, raw in zip(packets, keep, strict=True):
            pkt.data[pkt.l3 : pkt.end] = raw
            pkt.ct = None
            pkt.ctinfo = 0
        for conn in list(Dump(g.table)):
            g.table.destroy(conn)
        start = time.perf_counter_ns()
        for pkt in packets:
            pre(pkt)
            post(pkt)
        result = min(result, (time.perf_counter_ns() - start) / len(packets))
        assert g.table.count == len(packets)
    print(f"{title:<58} {result:8.0f} ns")


class _Masquerade:
    def __new__(cls, g: Gateway) -> object:  # a compiled rule would cost less than this one
        rule = g.masquerade()
        del rule.asked
        rule.asked = 0
        within = NatRange()
        rule.act = lambda pkt, conn: g.nat.masquerade(pkt, conn, within)
        return rule


def million(count: int) -> None:
    clock = Clock(10**12)
    table = ConnTable(clock)
    key = Tuple()
    key.l3num, key.l4proto, key.dst_lo, key.dport = 2, 6, 0x01020304, 80
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    longest = 0
    for n in range(count):
        key.src_lo, key.sport = 0x0A000000 + n // 1000, n % 1000
        conn = table.new(key, 0, 3)
        conn.timeout = clock.now + (1 + n % 500) * 10**9
        start = time.perf_counter_ns()
        table.insert(conn)
        longest = max(longest, time.perf_counter_ns() - start)
    used = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    print(f"{count} connections: {used / 1e6:.0f} MB, {used / count:.0f} bytes each; longest insert {longest / 1000:.0f} us")
    start, slices, longest = time.perf_counter(), 0, 0
    dump = Dump(table)
    while True:
        t0 = time.perf_counter_ns()
        found = dump.next(1000)
        longest = max(longest, time.perf_counter_ns() - t0)
        if found is None:
            break
        slices += 1
    print(f"walk: {time.perf_counter() - start:.2f} s in {slices} slices, longest {longest / 1e6:.2f} ms")
    start = time.perf_counter()
    sample = Dump(table).next(1000)
    assert sample
    for conn in sample:
        line(conn, clock.now)
    print(f"listing: {(time.perf_counter() - start) / len(sample) * 1e6:.1f} us a line")
    start, longest = time.perf_counter(), 0
    while table.count:
        clock.now = max(clock.now, table.next_deadline())
        t0 = time.perf_counter_ns()
        table.reap(256)
        longest = max(longest, time.perf_counter_ns() - t0)
    print(f"reaping: {(time.perf_counter() - start) / count * 1e9:.0f} ns each, longest call of 256: {longest / 1e6:.2f} ms")


def main() -> None:
    handshake = [
        (tcp(LAN, SERVER, 40000, 80, "S", 5, 0), False),
        (tcp(SERVER, WAN, 80, 40000, "S.", 7, 6), True),
        (tcp(LAN, SERVER, 40000, 80, ".", 6, 8), False),
    ]
    stamp = b"\x01\x01\x08\x0a" + bytes(8)
    established("TCP segment out: lookup, window, NAT, checksums", handshake, tcp(LAN, SERVER, 40000, 80, "P.", 6, 8,
    data=b"x", options=stamp), False)
    established("TCP acknowledgement in", handshake, tcp(SERVER, WAN, 80, 40000, ".", 8, 6, options=stamp), True)
    query = [(udp(LAN, SERVER, 40000, 53, b"q"), False), (udp(SERVER, WAN, 53, 40000, b"a"), True)]
    established("UDP datagram out", query, udp(LAN, SERVER, 40000, 53, b"q"), False)
    six = [(tcp("fd00:1::5", "2001:db8:9::9", 4, 80, "S", 5), False), (tcp("2001:db8:9::9", "2001:db8::1", 80, 4, "S.", 7, 6),
    True)]
    established("TCP segment out, IPv6", six, tcp("fd00:1::5", "2001:db8:9::9", 4, 80, ".", 6, 8), False)
    new_connections("new UDP connection, no rule", lambda n: udp(LAN, SERVER, n + 1024, 53), False)
    new_connections("new UDP connection, masquerade (rule in Python)", lambda n: udp(LAN, SERVER, n + 1024, 53), True)
    new_connections("new TCP connection, masquerade (rule in Python)", lambda n: tcp(LAN, SERVER, n + 1024, 80, "S"), True)
    million(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)


if __name__ == "__main__":
    main()
